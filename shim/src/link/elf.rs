//! Finds what loaded objects export without asking `dlsym`: that is ours, and the real one waits for
//! a lock that a thread inside dlopen holds while it runs constructors.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: i64 = 0;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
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

const _: () = assert!(size_of::<Sym>() == 24);

struct Search<'a> {
    name: &'a CStr,
    /// Only the C library and libdl.
    in_libc: bool,
    found: *mut c_void,
}

/// The function `name` that the C library (or libdl, where glibc before 2.34 keeps it) exports.
/// Allocates nothing and takes only the loader's lock, so it may run before anything else of
/// ours has.
pub fn libc_function(name: &CStr) -> Option<*mut c_void> {
    let found = first(name, true);
    (!found.is_null()).then_some(found)
}

/// What the first loaded object that exports `name` has there; null if none does. The program
/// comes first: data that it has copied from a library is found where everybody uses it.
pub fn exported(name: &CStr) -> *mut c_void {
    first(name, false)
}

/// Whether an address lies in a loaded object.
pub fn is_loaded(address: u64) -> bool {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _: usize,
        address: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's own, valid during the callback; `address` is the variable below.
        let (info, address) = unsafe { (&*info, *address.cast::<u64>()) };
        // SAFETY: the loader vouches for the program headers of a loaded object.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let holds = |header: &libc::Elf64_Phdr| {
            let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
            header.p_type == PT_LOAD && address.wrapping_sub(start) < header.p_memsz
        };
        c_int::from(headers.iter().any(holds))
    }
    let mut address = address;
    // SAFETY: the callback only reads `address`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut address).cast()) != 0 }
}

fn first(name: &CStr, in_libc: bool) -> *mut c_void {
    let mut search = Search {
        name,
        in_libc,
        found: std::ptr::null_mut(),
    };
    // SAFETY: the callback only touches `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: both come from `first` and the loader, valid during the callback.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    if info.dlpi_name.is_null() {
        return 0;
    }
    // SAFETY: the loader's NUL-terminated name.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    if search.in_libc
        && !file.starts_with(b"libc.so")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_the_c_library_exports_and_nothing_else() {
        assert_eq!(libc_function(c"getpid"), Some(libc::getpid as *mut c_void));
        assert!(libc_function(c"dlvsym").is_some());
        assert!(libc_function(c"no_such_function_anywhere").is_none());
        assert_eq!(exported(c"getpid"), libc::getpid as *mut c_void);
        assert!(exported(c"no_such_function_anywhere").is_null());
        assert!(is_loaded(libc::getpid as *const c_void as u64));
        assert!(!is_loaded(16) && !is_loaded(u64::MAX));
    }
}
