//! Loaded modules, as far as looking names up goes. Asks the loader without `dlsym`, allocates
//! nothing, and takes only the lock of the loader's list, never the one that is held while
//! constructors run.

use super::dlsym::{plain_dlclose, plain_dlsym};
use super::elf;
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
}

impl Module {
    /// Whether it is the program itself.
    pub fn is_program(&self) -> bool {
        // SAFETY: a NUL-terminated string of the loader's, which is there while the module is.
        self.name.is_null() || unsafe { *self.name == 0 }
    }

    /// What it exports under a name itself; null if nothing.
    pub fn export(&self, name: &CStr) -> *mut c_void {
        if self.dynamic == 0 {
            return null_mut();
        }
        // SAFETY: the dynamic section of a loaded module (see [`Module`]).
        unsafe { elf::find(self.bias, self.dynamic, name) }
    }

    /// Looks up in its own scope: in itself, then in what it depends on. `look_up` gets a handle.
    pub fn in_scope(&self, look_up: impl FnOnce(*mut c_void) -> *mut c_void) -> *mut c_void {
        let path = if self.is_program() {
            std::ptr::null()
        } else {
            self.name
        };
        // SAFETY: a NUL-terminated path or null (the program itself); RTLD_NOLOAD only looks.
        let handle = unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return null_mut();
        }
        let found = look_up(handle);
        // Gives back the reference just taken; the caller's code keeps its module.
        plain_dlclose(handle);
        found
    }

    /// [`Module::in_scope`] of a name.
    pub fn look_up(&self, name: &CStr) -> *mut c_void {
        self.in_scope(|handle| plain_dlsym(handle, name))
    }
}

/// The module that an address lies in, and its place.
pub struct Place {
    /// The module, if the address lies in one.
    pub module: Option<Module>,
    /// Whether the loader searches it before us: it is the program, or was preloaded before us.
    pub before_us: bool,
    /// The first module that is a CUDA runtime.
    pub runtime: Option<Module>,
    /// How many modules are CUDA runtimes.
    pub runtimes: usize,
}

/// Where an address is.
pub fn place_of(address: *mut c_void) -> Place {
    let address = address as usize;
    let mut place = Place {
        module: None,
        before_us: false,
        runtime: None,
        runtimes: 0,
    };
    let mut met_us = false;
    each(&mut |module| {
        met_us |= module.range.contains(&(visit as *const () as usize));
        if module.is_runtime {
            place.runtimes += 1;
            place.runtime.get_or_insert_with(|| module.clone());
        }
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
    each(&mut |other| {
        if other.range.contains(&(visit as *const () as usize)) {
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
    each(&mut |module| {
        // SAFETY: the dynamic section of a module in the loader's list, whose lock is held.
        found = module.dynamic != 0
            && unsafe {
                elf::needs(module.bias, module.dynamic, file)
                    || module.range.contains(&(function as usize))
                        && elf::refers_to_its_own(module.bias, module.dynamic, start)
            };
        found
    });
    found
}

/// Calls `seen` for each module, in the order of the loader's list, until it says that it is done.
/// Those that were loaded at the start stand there in the order in which they are searched.
fn each(seen: &mut dyn FnMut(Module) -> bool) {
    let mut seen = seen;
    // SAFETY: the callback only touches `seen`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut seen).cast()) };
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, seen: *mut c_void) -> c_int {
    // SAFETY: `seen` is `each`'s, `info` the loader's, both valid during the callback.
    let (info, seen) = unsafe { (&*info, &mut *seen.cast::<&mut dyn FnMut(Module) -> bool>()) };
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
    let done = seen(Module {
        range: first..end,
        is_runtime: file.starts_with(b"libcudart") && file.windows(3).any(|w| w == b".so"),
        name: info.dlpi_name,
        bias: info.dlpi_addr,
        dynamic: dynamic.map_or(0, |header| info.dlpi_addr + header.p_vaddr),
    });
    c_int::from(done)
}
