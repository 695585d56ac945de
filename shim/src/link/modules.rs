//! Loaded modules, as far as looking names up goes. Asks the loader without `dlsym`, allocates
//! nothing, and takes only the lock of the loader's list, never the one that is held while
//! constructors run.

use super::dlsym::plain_dlclose;
use super::elf::{self, Reference};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::ptr::null_mut;

/// A loaded module. It stays loaded while it is used here: it is a caller's own, whose code is
/// running, or one that the caller holds a reference to.
#[derive(Clone)]
pub struct Module {
    /// From its first to its last address.
    pub range: Range<usize>,
    /// Whether its file is named as NVIDIA names libcudart.
    pub is_runtime: bool,
    /// The loader's NUL-terminated name; empty for the program itself.
    name: *const c_char,
    bias: u64,
    /// Address of its dynamic section; 0 if it has none.
    dynamic: u64,
    headers: &'static [libc::Elf64_Phdr],
}

impl Module {
    /// The loader's name of it; empty for the program itself.
    fn name(&self) -> &CStr {
        if self.name.is_null() {
            return c"";
        }
        // SAFETY: a NUL-terminated string of the loader's, which is there while the module is.
        unsafe { CStr::from_ptr(self.name) }
    }

    /// Whether it is the program itself.
    pub fn is_program(&self) -> bool {
        self.name().is_empty()
    }

    /// Whether it is this library.
    fn is_us(&self) -> bool {
        self.range.contains(&(visit as *const () as usize))
    }

    /// What it exports under a name itself; null if nothing.
    pub fn export(&self, name: &CStr) -> *mut c_void {
        if self.dynamic == 0 {
            return null_mut();
        }
        // SAFETY: the dynamic section of a loaded module (see [`Module`]).
        unsafe { elf::find(self.bias, self.dynamic, name) }
    }

    /// Whether what it exports under a name answers to every version.
    pub fn exports_to_all(&self, name: &CStr) -> bool {
        // SAFETY: as above.
        let export =
            (self.dynamic != 0).then(|| unsafe { elf::find_export(self.bias, self.dynamic, name) });
        export.flatten().is_some_and(|export| !export.has_version)
    }

    /// Its reference to a name, if the loader bound one.
    pub fn reference(&self, name: &CStr) -> Option<Reference> {
        if self.dynamic == 0 {
            return None;
        }
        // SAFETY: the dynamic section of a loaded module (see [`Module`]).
        unsafe { elf::reference(self.bias, self.dynamic, |other, _| other == name) }
    }

    /// Bytes of its code or data, if they all lie where it is loaded and can be read.
    pub fn bytes<const N: usize>(&self, address: usize) -> Option<[u8; N]> {
        let inside = self.headers.iter().any(|header| {
            let start = (self.bias + header.p_vaddr) as usize;
            header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_R != 0
                && address >= start
                && address.saturating_add(N) <= start + header.p_memsz as usize
        });
        // SAFETY: within a segment of a loaded module (see [`Module`]) that can be read.
        inside.then(|| unsafe { (address as *const [u8; N]).read_unaligned() })
    }

    /// Whether an address lies in its code.
    pub fn is_code(&self, address: usize) -> bool {
        self.headers.iter().any(|header| {
            let start = (self.bias + header.p_vaddr) as usize;
            header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_X != 0
                && (start..start + header.p_memsz as usize).contains(&address)
        })
    }

    /// A word of its data.
    pub fn word(&self, address: usize) -> Option<usize> {
        self.bytes(address).map(usize::from_ne_bytes)
    }

    /// Looks up in its own scope: in itself, then in what it depends on. `look_up` gets a handle.
    pub fn in_scope(&self, look_up: impl FnOnce(*mut c_void) -> *mut c_void) -> *mut c_void {
        let handle = handle_of(self.name());
        if handle.is_null() {
            return null_mut();
        }
        let found = look_up(handle);
        // Gives back the reference just taken; the caller's code keeps its module.
        plain_dlclose(handle);
        found
    }
}

/// The module that an address lies in, and its place.
pub struct Place {
    /// The module, if the address lies in one.
    pub module: Option<Module>,
    /// Whether the loader searches it before us: it is the program, or was preloaded before us.
    pub before_us: bool,
    /// How often the loader has loaded and unloaded a module so far.
    pub changes: Changes,
}

/// How often the loader has changed its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Modules loaded so far.
    pub loaded: u64,
    /// Modules unloaded so far.
    pub unloaded: u64,
}

/// How often the loader has changed its list: no search.
pub fn changes() -> Changes {
    let mut changes = Changes::default();
    each(&mut |_, now| {
        changes = now;
        true
    });
    changes
}

/// Shows the loader's name of this library.
pub fn own_name(show: &mut dyn FnMut(&CStr)) {
    each(&mut |module, _| {
        let us = module.is_us();
        if us {
            show(module.name());
        }
        us
    });
}

/// How many modules other than us export a name, and what it is in the first that does.
pub fn providers(name: &CStr) -> (usize, *mut c_void) {
    let (mut count, mut first): (usize, *mut c_void) = (0, null_mut());
    each(&mut |module, _| {
        let export = if module.is_us() {
            null_mut()
        } else {
            module.export(name)
        };
        count += usize::from(!export.is_null());
        if first.is_null() {
            first = export;
        }
        false
    });
    (count, first)
}

/// More modules than this that call one function of a runtime themselves are not looked through.
const MOST: usize = 64;

/// Whether `is` holds for all modules that refer to a name and could have got our function for it.
pub fn all_referring_to(name: &CStr, mut is: impl FnMut(&Module) -> bool) -> bool {
    let (mut starts, mut count) = ([0; MOST], 0);
    each(&mut |module, _| {
        if !module.is_us() && module.reference(name).is_some() {
            if count < MOST {
                starts[count] = module.range.start;
            }
            count += 1;
        }
        false
    });
    count <= MOST
        && starts[..count].iter().all(|&start| {
            // One that is gone by now calls nothing.
            held(start, &mut is).unwrap_or(true)
        })
}

/// Keeps the module at an address loaded during `use_it`; `None` if there is none.
fn held<R>(address: usize, use_it: impl FnOnce(&Module) -> R) -> Option<R> {
    let mut path = [0; libc::PATH_MAX as usize];
    let mut found = false;
    each(&mut |module, _| {
        if module.range.contains(&address) {
            let name = module.name().to_bytes_with_nul();
            found = name.len() <= path.len();
            if found {
                path[..name.len()].copy_from_slice(name);
            }
        }
        found
    });
    if !found {
        return None;
    }
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let handle = handle_of(path);
    if handle.is_null() {
        return None;
    }
    // Whatever is there now stays: it is the one that is held, or the address was reused, and then
    // its name is another.
    let module = module_of(address as *mut c_void).filter(|module| module.name() == path);
    let result = module.map(|module| use_it(&module));
    plain_dlclose(handle);
    result
}

/// A handle of a loaded module, by the loader's name of it; null if it is not loaded.
fn handle_of(path: &CStr) -> *mut c_void {
    let program = path.is_empty();
    let path = if program {
        std::ptr::null()
    } else {
        path.as_ptr()
    };
    // SAFETY: a NUL-terminated path or null (the program itself); RTLD_NOLOAD only looks.
    unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) }
}

/// Where an address is.
pub fn place_of(address: *mut c_void) -> Place {
    let address = address as usize;
    let mut place = Place {
        module: None,
        before_us: false,
        changes: Changes::default(),
    };
    let mut met_us = false;
    each(&mut |module, changes| {
        place.changes = changes;
        met_us |= module.is_us();
        if place.module.is_none() && module.range.contains(&address) {
            place.before_us = !met_us;
            place.module = Some(module);
        }
        false
    });
    place
}

/// The module that an address lies in.
pub fn module_of(address: *mut c_void) -> Option<Module> {
    place_of(address).module
}

/// What a name stands for between a module that comes before us in the global scope and us; null
/// if for nothing.
pub fn between(module: &Module, name: &CStr) -> *mut c_void {
    let (mut met_it, mut found) = (false, null_mut());
    each(&mut |other, _| {
        if other.is_us() {
            return true;
        }
        if met_it {
            found = other.export(name);
        }
        met_it |= other.range == module.range;
        !found.is_null()
    });
    found
}

/// Whether references to functions of a library, whose file is called like this, whatever follows,
/// are bound by name: a module was linked to the library, or it refers so to its own. `function`
/// is one of the library's, whose names all begin with `start`.
pub fn bound_by_name(file: &[u8], function: *mut c_void, start: &[u8]) -> bool {
    let mut found = false;
    each(&mut |module, _| {
        // SAFETY: the dynamic section of a module in the loader's list, whose lock is held.
        found = module.dynamic != 0
            && unsafe {
                elf::needs(module.bias, module.dynamic, file)
                    || module.range.contains(&(function as usize))
                        && elf::reference(module.bias, module.dynamic, |name, own| {
                            own && name.to_bytes().starts_with(start)
                        })
                        .is_some()
            };
        found
    });
    found
}

type Seen<'a> = dyn FnMut(Module, Changes) -> bool + 'a;

/// Calls `seen` for each module, in the order of the loader's list, until it says that it is done.
/// Those that were loaded at the start stand there in the order in which they are searched.
fn each(seen: &mut Seen) {
    let mut seen = seen;
    // SAFETY: the callback only touches `seen`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut seen).cast()) };
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, seen: *mut c_void) -> c_int {
    // SAFETY: `seen` is `each`'s, `info` the loader's, both valid during the callback.
    let (info, seen) = unsafe { (&*info, &mut *seen.cast::<&mut Seen>()) };
    let path: &[u8] = if info.dlpi_name.is_null() {
        b""
    } else {
        // SAFETY: the loader's NUL-terminated name.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes()
    };
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    // SAFETY: the loader vouches for the program headers of a loaded object.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let (mut first, mut end) = (usize::MAX, 0);
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
    {
        let start = (info.dlpi_addr + header.p_vaddr) as usize;
        (first, end) = (first.min(start), end.max(start + header.p_memsz as usize));
    }
    let dynamic = headers
        .iter()
        .find(|header| header.p_type == libc::PT_DYNAMIC);
    let module = Module {
        range: first..end,
        is_runtime: file.starts_with(b"libcudart") && file.windows(3).any(|w| w == b".so"),
        name: info.dlpi_name,
        bias: info.dlpi_addr,
        dynamic: dynamic.map_or(0, |header| info.dlpi_addr + header.p_vaddr),
        headers,
    };
    let changes = Changes {
        loaded: info.dlpi_adds,
        unloaded: info.dlpi_subs,
    };
    c_int::from(seen(module, changes))
}
