//! Finds what loaded objects export without asking `dlsym`: that is ours, and the real one waits for
//! a lock that a thread inside dlopen holds while it runs constructors.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;

const STB_WEAK: u8 = 2;
const DT_NULL: i64 = 0;
const DT_NEEDED: i64 = 1;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_PLTRELSZ: i64 = 2;
const DT_JMPREL: i64 = 23;
const DT_RELACOUNT: i64 = 0x6fff_fff9;
const DT_VERSYM: i64 = 0x6fff_fff0;
const DT_VERNEED: i64 = 0x6fff_fffe;
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

/// What the loader keeps for debuggers (link.h).
#[repr(C)]
struct Debug {
    version: c_int,
    first: *const LinkMap,
}

/// A loaded object (link.h).
#[repr(C)]
struct LinkMap {
    bias: u64,
    name: *const c_char,
    dynamic: *const Dyn,
    next: *const LinkMap,
}

unsafe extern "C" {
    static _r_debug: Debug;
}

/// The function `name` that the C library (or libdl, where glibc before 2.34 keeps it) exports.
/// Allocates nothing, takes no lock and calls nobody, so it may run before anything else of ours
/// has: also inside another library's function that looks for the next one of its name.
pub fn libc_function(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the loader's list of what it has loaded. What was there at the start, as these
    // libraries were, comes first and stays; nothing behind them is looked at.
    unsafe {
        let mut object = _r_debug.first;
        while !object.is_null() {
            let LinkMap {
                bias,
                name: path,
                dynamic,
                next,
            } = &*object;
            if !path.is_null() && is_libc(CStr::from_ptr(*path)) && !dynamic.is_null() {
                let found = find(*bias, *dynamic as u64, name);
                if !found.is_null() {
                    return Some(found);
                }
            }
            object = *next;
        }
    }
    None
}

fn is_libc(path: &CStr) -> bool {
    let path = path.to_bytes();
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    [&b"libc.so"[..], b"libdl.so", b"libc-2.", b"libdl-2."]
        .iter()
        .any(|start| file.starts_with(start))
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
            header.p_type == libc::PT_LOAD && address.wrapping_sub(start) < header.p_memsz
        };
        c_int::from(headers.iter().any(holds))
    }
    let mut address = address;
    // SAFETY: the callback only reads `address`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut address).cast()) != 0 }
}

struct Search<'a> {
    name: &'a CStr,
    found: *mut c_void,
}

/// What the first loaded object that exports `name` has there; null if none does. The program
/// comes first: data that it has copied from a library is found where everybody uses it.
pub fn exported(name: &CStr) -> *mut c_void {
    let mut search = Search {
        name,
        found: std::ptr::null_mut(),
    };
    // SAFETY: the callback only touches `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: both come from `exported` and the loader, valid during the callback.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    // SAFETY: the loader vouches for the program headers of a loaded object.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let Some(dynamic) = headers
        .iter()
        .find(|header| header.p_type == libc::PT_DYNAMIC)
    else {
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
    // SAFETY: as here.
    unsafe { find_export(bias, dynamic, name) }.map_or(std::ptr::null_mut(), |found| found.address)
}

/// An exported function.
pub struct Export {
    /// Its address.
    pub address: *mut c_void,
    /// Whether it has a version, and answers to that only.
    pub has_version: bool,
}

/// As [`find`].
///
/// # Safety
/// As [`find`].
pub unsafe fn find_export(bias: u64, dynamic: u64, name: &CStr) -> Option<Export> {
    let (mut strings, mut symbols, mut hash, mut versions) = (0, 0, 0, 0);
    // SAFETY: for all of this function: a loaded object's tables are loaded with it.
    unsafe {
        for entry in entries(dynamic) {
            match entry.tag {
                DT_STRTAB => strings = absolute(bias, entry),
                DT_SYMTAB => symbols = absolute(bias, entry),
                DT_GNU_HASH => hash = absolute(bias, entry),
                DT_VERSYM => versions = absolute(bias, entry),
                _ => {}
            }
        }
        if strings == 0 || symbols == 0 || hash == 0 {
            return None;
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
            return None;
        }
        loop {
            let link = *chain.add((index - offset) as usize);
            let symbol = &*(symbols as *const Sym).add(index as usize);
            if link | 1 == wanted | 1
                && symbol.shndx != 0
                && CStr::from_ptr((strings + u64::from(symbol.name)) as *const c_char) == name
            {
                // 0 and 1 stand for local and global, without a version.
                let has_version =
                    versions != 0 && *(versions as *const u16).add(index as usize) & 0x7fff > 1;
                return Some(Export {
                    address: (bias + symbol.value) as *mut c_void,
                    has_version,
                });
            }
            if link & 1 == 1 {
                return None;
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

/// A reference of a loaded object to a name.
pub struct Reference {
    /// The version that it must have, if any.
    pub version: Option<&'static CStr>,
    /// Whether it may stay null.
    pub weak: bool,
}

/// The first of an object's references, bound by name, that fits by that name and by whether the
/// object has a function of that name itself.
///
/// # Safety
/// As [`find`], for as long as the result is used.
pub unsafe fn reference(
    bias: u64,
    dynamic: u64,
    fits: impl Fn(&CStr, bool) -> bool,
) -> Option<Reference> {
    let (mut strings, mut symbols, mut versions, mut needed) = (0, 0, 0, 0);
    let (mut tables, mut sizes, mut nameless) = ([0; 2], [0; 2], 0);
    // SAFETY: for all of this function: as in `find`; the tables of relocations have the sizes
    // that are said beside them, and name symbols of the object's own table.
    unsafe {
        for entry in entries(dynamic) {
            match entry.tag {
                DT_STRTAB => strings = absolute(bias, entry),
                DT_SYMTAB => symbols = absolute(bias, entry),
                DT_VERSYM => versions = absolute(bias, entry),
                DT_VERNEED => needed = absolute(bias, entry),
                DT_RELA => tables[0] = absolute(bias, entry),
                DT_RELASZ => sizes[0] = entry.value as usize,
                DT_RELACOUNT => nameless = entry.value as usize,
                DT_JMPREL => tables[1] = absolute(bias, entry),
                DT_PLTRELSZ => sizes[1] = entry.value as usize,
                _ => {}
            }
        }
        if strings == 0 || symbols == 0 {
            return None;
        }
        for table in [1, 0] {
            // The first of the other table need no name: often nearly all.
            let first = if table == 0 { nameless } else { 0 };
            let count = sizes[table] / size_of::<Rela>();
            for at in first..if tables[table] == 0 { 0 } else { count } {
                let index = ((*(tables[table] as *const Rela).add(at)).info >> 32) as usize;
                if index == 0 {
                    continue;
                }
                let symbol = &*(symbols as *const Sym).add(index);
                let name = CStr::from_ptr((strings + u64::from(symbol.name)) as *const c_char);
                let own = symbol.shndx != 0;
                if fits(name, own) {
                    let version = (versions != 0 && needed != 0 && !own).then(|| {
                        let number = *(versions as *const u16).add(index);
                        needed_version(needed, number & 0x7fff, strings)
                    });
                    return Some(Reference {
                        version: version.flatten(),
                        weak: symbol.info >> 4 == STB_WEAK,
                    });
                }
            }
        }
        None
    }
}

#[repr(C)]
struct Verneed {
    version: u16,
    count: u16,
    file: u32,
    first: u32,
    next: u32,
}

#[repr(C)]
struct Vernaux {
    hash: u32,
    flags: u16,
    number: u16,
    name: u32,
    next: u32,
}

/// The name of a version that an object needs, by its number in the object.
///
/// # Safety
/// `needed` must be a loaded object's table of needed versions, `strings` its strings.
unsafe fn needed_version(needed: u64, number: u16, strings: u64) -> Option<&'static CStr> {
    let mut file = needed;
    // SAFETY: for all of this function: both lists end with an offset of 0 to the next.
    unsafe {
        loop {
            let of_file = &*(file as *const Verneed);
            let mut at = file + u64::from(of_file.first);
            loop {
                let version = &*(at as *const Vernaux);
                if version.number & 0x7fff == number {
                    return Some(CStr::from_ptr(
                        (strings + u64::from(version.name)) as *const c_char,
                    ));
                }
                if version.next == 0 {
                    break;
                }
                at += u64::from(version.next);
            }
            if of_file.next == 0 {
                return None;
            }
            file += u64::from(of_file.next);
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
