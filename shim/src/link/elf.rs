//! Finds exported functions of the C library without asking `dlsym`, which is ours.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;

const PT_DYNAMIC: u32 = 2;
const DT_NULL: i64 = 0;
const DT_NEEDED: i64 = 1;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_PLTRELSZ: i64 = 2;
const DT_JMPREL: i64 = 23;
const DT_GNU_HASH: i64 = 0x6fff_fef5;

#[repr(C)]
struct Dyn {
    tag: i64,
    value: u64,
}

#[repr(C)]
struct Sym {
    name: u32,
    info: u8,
    other: u8,
    shndx: u16,
    value: u64,
    size: u64,
}

#[repr(C)]
struct Rela {
    place: u64,
    /// Index of the symbol in the upper half, 0 for none; kind of relocation in the lower.
    info: u64,
    addend: i64,
}

const _: () = assert!(size_of::<Sym>() == 24 && size_of::<Rela>() == 24);

struct Search<'a> {
    name: &'a CStr,
    found: *mut c_void,
}

/// The function `name` that the C library (or libdl, where glibc before 2.34 keeps it) exports.
/// Allocates nothing and takes only the loader's lock, so it may run before anything else of
/// ours has.
pub fn libc_function(name: &CStr) -> Option<*mut c_void> {
    let mut search = Search {
        name,
        found: std::ptr::null_mut(),
    };
    // SAFETY: the callback only touches `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    (!search.found.is_null()).then_some(search.found)
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: both come from `libc_function` and the loader, valid during the callback.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    if info.dlpi_name.is_null() {
        return 0;
    }
    // SAFETY: the loader's NUL-terminated name.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    if !file.starts_with(b"libc.so")
        && !file.starts_with(b"libdl.so")
        && !file.starts_with(b"libc-2.")
        && !file.starts_with(b"libdl-2.")
    {
        return 0;
    }
    // SAFETY: the loader vouches for the program headers of a loaded object.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let Some(dynamic) = headers.iter().find(|header| header.p_type == PT_DYNAMIC) else {
        return 0;
    };
    // SAFETY: the dynamic section of a loaded object, at its loaded address.
    search.found = unsafe {
        find(
            info.dlpi_addr,
            info.dlpi_addr + dynamic.p_vaddr,
            search.name,
        )
    };
    c_int::from(!search.found.is_null())
}

/// The address of `name` among the exports of one object; null if it exports no such thing.
///
/// # Safety
/// `dynamic` must be the address of the dynamic section of an object loaded with this bias.
pub unsafe fn find(bias: u64, dynamic: u64, name: &CStr) -> *mut c_void {
    let (mut strings, mut symbols, mut hash) = (0u64, 0u64, 0u64);
    let mut entry = dynamic as *const Dyn;
    // SAFETY: for all of this function: a loaded object's dynamic section ends with DT_NULL, and
    // the tables it names are loaded with it; glibc stores absolute addresses there.
    unsafe {
        while (*entry).tag != DT_NULL {
            let value = if (*entry).value < bias {
                bias + (*entry).value
            } else {
                (*entry).value
            };
            match (*entry).tag {
                DT_STRTAB => strings = value,
                DT_SYMTAB => symbols = value,
                DT_GNU_HASH => hash = value,
                _ => {}
            }
            entry = entry.add(1);
        }
        if strings == 0 || symbols == 0 || hash == 0 {
            return std::ptr::null_mut();
        }
        let header = hash as *const u32;
        let (buckets, offset, bloom) = (*header, *header.add(1), *header.add(2));
        let bucket = header.add(4).add(bloom as usize * 2);
        let chain = bucket.add(buckets as usize);
        let wanted = name.to_bytes().iter().fold(5381u32, |h, &b| {
            h.wrapping_mul(33).wrapping_add(u32::from(b))
        });
        let mut index = *bucket.add((wanted % buckets.max(1)) as usize);
        if index < offset {
            return std::ptr::null_mut();
        }
        loop {
            let link = *chain.add((index - offset) as usize);
            let symbol = &*(symbols as *const Sym).add(index as usize);
            if link | 1 == wanted | 1
                && symbol.shndx != 0
                && CStr::from_ptr((strings + u64::from(symbol.name)) as *const c_char) == name
            {
                return (bias + symbol.value) as *mut c_void;
            }
            if link & 1 == 1 {
                return std::ptr::null_mut();
            }
            index += 1;
        }
    }
}

/// The dynamic section of a loaded object.
///
/// # Safety
/// As [`find`], for as long as the result is used.
unsafe fn entries(dynamic: u64) -> impl Iterator<Item = &'static Dyn> {
    // SAFETY: a loaded object's dynamic section ends with DT_NULL.
    (0..)
        .map(move |at| unsafe { &*(dynamic as *const Dyn).add(at) })
        .take_while(|entry| entry.tag != DT_NULL)
}

/// The address that an entry of the dynamic section says: glibc stores absolute ones, except where
/// it cannot write there.
fn absolute(bias: u64, entry: &Dyn) -> u64 {
    if entry.value < bias {
        bias + entry.value
    } else {
        entry.value
    }
}

/// Whether an object was linked to a library whose file is called like this, whatever follows.
///
/// # Safety
/// As [`find`].
pub unsafe fn needs(bias: u64, dynamic: u64, file: &[u8]) -> bool {
    // SAFETY: for all of this function: as in `find`; the names lie in the table of strings.
    unsafe {
        let Some(strings) = entries(dynamic).find(|entry| entry.tag == DT_STRTAB) else {
            return false;
        };
        let strings = absolute(bias, strings);
        entries(dynamic)
            .filter(|entry| entry.tag == DT_NEEDED)
            .any(|entry| {
                let name = CStr::from_ptr((strings + entry.value) as *const c_char).to_bytes();
                let start = name.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
                name[start..].starts_with(file)
            })
    }
}

/// Whether an object refers to exported functions of its own, named like this, in a way that
/// another object's functions of that name can come between.
///
/// # Safety
/// As [`find`].
pub unsafe fn refers_to_its_own(bias: u64, dynamic: u64, start: &[u8]) -> bool {
    let (mut strings, mut symbols) = (0, 0);
    let (mut tables, mut sizes) = ([0; 2], [0; 2]);
    // SAFETY: for all of this function: as in `find`; the tables of relocations have the sizes
    // that are said beside them, and name symbols of the object's own table.
    unsafe {
        for entry in entries(dynamic) {
            match entry.tag {
                DT_STRTAB => strings = absolute(bias, entry),
                DT_SYMTAB => symbols = absolute(bias, entry),
                DT_RELA => tables[0] = absolute(bias, entry),
                DT_RELASZ => sizes[0] = entry.value,
                DT_JMPREL => tables[1] = absolute(bias, entry),
                DT_PLTRELSZ => sizes[1] = entry.value,
                _ => {}
            }
        }
        if strings == 0 || symbols == 0 {
            return false;
        }
        (0..2).any(|table| {
            let count = sizes[table] as usize / size_of::<Rela>();
            tables[table] != 0
                && (0..count).any(|at| {
                    let symbol = (*(tables[table] as *const Rela).add(at)).info >> 32;
                    let symbol = &*(symbols as *const Sym).add(symbol as usize);
                    symbol.shndx != 0
                        && CStr::from_ptr((strings + u64::from(symbol.name)) as *const c_char)
                            .to_bytes()
                            .starts_with(start)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_the_c_library_exports_and_nothing_else() {
        assert_eq!(libc_function(c"getpid"), Some(libc::getpid as *mut c_void));
        assert!(libc_function(c"dlvsym").is_some());
        assert!(libc_function(c"no_such_function_anywhere").is_none());
    }
}
