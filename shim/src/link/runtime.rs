//! libcudart: which one a caller means.
//!
//! A process can hold several runtimes: libcudart 12 and 13, and copies linked statically into
//! libraries that export their names. Each caller must get the one that it would get without us,
//! which is decided by the caller's own module: its handle, then its dependencies, as the
//! loader itself searches for a library opened on its own.

use super::dlsym::{real_dlclose, real_dlsym};
use super::elf;
use crate::hook::Hook;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::ptr::null_mut;
use vramtrace_recorder::Renewable;

/// The hook of a runtime function.
pub fn hook_named(name: &CStr) -> Option<&'static Hook> {
    crate::runtime_hooks().find(|hook| hook.name() == name)
}

/// Our function in place of `found`. The caller asked a handle of its own for it, so it is the
/// runtime it means only if our function, called from there, would find the same one.
pub fn substitute(hook: &'static Hook, found: *mut c_void) -> *mut c_void {
    let Some(owner) = module_of(found) else {
        return found;
    };
    if !owner.is_runtime {
        return found;
    }
    // With one runtime in the process every caller means that one; with several, the address is
    // all that says which, and our function could not tell. The driver level sees it anyway.
    if runtimes_loaded() == 1 {
        hook.bind(found, found);
        if hook.known() == Some(found) {
            hook.wrapper()
        } else {
            found
        }
    } else {
        found
    }
}

/// The real function behind `hook` for a caller that returns to `return_address`.
///
/// With one runtime in the process, which is nearly always, the loader's lock is not taken: its
/// holder may be waiting for this very thread.
pub fn real_for(hook: &'static Hook, return_address: *mut c_void) -> Option<*mut c_void> {
    let address = return_address as usize;
    if let Some(callers) = CALLERS.lock() {
        let known = callers
            .iter()
            .find(|caller| caller.range.contains(&address));
        let found = known.and_then(|caller| {
            caller
                .functions
                .iter()
                .find(|(h, _)| std::ptr::eq(*h, hook))
        });
        if let Some(&(_, function)) = found {
            return Some(function as *mut c_void);
        }
    }
    let Search {
        found: caller,
        runtime,
        runtimes,
        ..
    } = search(address);
    let usable =
        |found: *mut c_void| (!found.is_null() && found != hook.wrapper()).then_some(found);
    let of_caller = || {
        caller
            .as_ref()
            .and_then(|caller| usable(caller.export(hook.name())))
    };
    let real = if runtimes <= 1 {
        // A copy of the runtime inside the caller itself, another preloaded library, the runtime.
        of_caller()
            .or_else(|| next_in_line(hook))
            .or_else(|| {
                runtime
                    .as_ref()
                    .and_then(|runtime| usable(runtime.export(hook.name())))
            })
            .or_else(|| hook.known())
    } else {
        let in_scope = || {
            caller
                .as_ref()
                .and_then(|caller| usable(caller.look_up(hook.name())))
        };
        of_caller()
            .or_else(in_scope)
            .or_else(|| usable(real_dlsym(libc::RTLD_NEXT, hook.name())))
            .or_else(|| hook.known())
            .or_else(|| {
                runtime
                    .as_ref()
                    .and_then(|runtime| usable(runtime.export(hook.name())))
            })
    }?;
    if let (Some(caller), Some(mut callers)) = (caller, CALLERS.lock()) {
        match callers.iter_mut().find(|known| known.range == caller.range) {
            Some(known) => known.functions.push((hook, real as usize)),
            None => callers.push(Caller {
                range: caller.range,
                functions: vec![(hook, real as usize)],
            }),
        }
    }
    Some(real)
}

/// What comes after us in the global scope, asked once for each function.
fn next_in_line(hook: &'static Hook) -> Option<*mut c_void> {
    if !hook.asked_next() {
        let next = real_dlsym(libc::RTLD_NEXT, hook.name());
        if !next.is_null() {
            hook.bind(next, null_mut());
        }
    }
    hook.known()
}

/// Whether an address lies in the program itself.
pub fn is_program(address: *mut c_void) -> bool {
    module_of(address).is_some_and(|module| module.path.is_empty())
}

/// What the module of `caller` finds under a name: in itself, then in what it depends on.
pub fn in_scope_of(caller: *mut c_void, name: &CStr) -> *mut c_void {
    module_of(caller).map_or(null_mut(), |module| module.look_up(name))
}

/// What each calling module's look-ups came to.
struct Caller {
    range: Range<usize>,
    functions: Vec<(&'static Hook, usize)>,
}

static CALLERS: Renewable<Vec<Caller>> = Renewable::new();

/// A module may have gone and another come to its place: callers that are not loaded any more are
/// forgotten.
pub fn forget_callers() {
    if let Some(mut callers) = CALLERS.lock()
        && !callers.is_empty()
    {
        callers.retain(|caller| {
            search(caller.range.start)
                .found
                .is_some_and(|module| module.range == caller.range)
        });
    }
}

/// This is a forked child.
pub fn start_over() {
    CALLERS.renew();
}

/// A loaded module, as far as looking things up in it goes.
struct Module {
    path: Vec<u8>,
    range: Range<usize>,
    is_runtime: bool,
    bias: u64,
    /// Address of its dynamic section; 0 if it has none.
    dynamic: u64,
}

impl Module {
    /// What it exports under a name itself; null if nothing. Takes no lock.
    fn export(&self, name: &CStr) -> *mut c_void {
        if self.dynamic == 0 {
            return null_mut();
        }
        // SAFETY: the dynamic section of an object that was loaded a moment ago: the caller's own,
        // which is running, or the runtime's, which nobody unloads while it is called.
        unsafe { elf::find(self.bias, self.dynamic, name) }
    }

    /// Looks a name up as for this module: in itself, then in what it depends on.
    fn look_up(&self, name: &CStr) -> *mut c_void {
        let path = std::ffi::CString::new(self.path.clone()).unwrap_or_default();
        let path = if self.path.is_empty() {
            std::ptr::null()
        } else {
            path.as_ptr()
        };
        // SAFETY: a NUL-terminated path or null (the program itself); RTLD_NOLOAD only looks.
        let handle = unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return null_mut();
        }
        let found = real_dlsym(handle, name);
        // Gives back the reference just taken; the caller's code keeps its module.
        real_dlclose(handle);
        found
    }
}

struct Search {
    address: usize,
    found: Option<Module>,
    /// The first runtime in the loader's list.
    runtime: Option<Module>,
    runtimes: usize,
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: `search` is ours, `info` the loader's, both valid during the callback.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    let path: &[u8] = if info.dlpi_name.is_null() {
        b""
    } else {
        // SAFETY: the loader's NUL-terminated name.
        unsafe { CStr::from_ptr(info.dlpi_name.cast::<c_char>()) }.to_bytes()
    };
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let is_runtime = file.starts_with(b"libcudart") && file.windows(3).any(|w| w == b".so");
    search.runtimes += usize::from(is_runtime);
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
    let range = first..end;
    let dynamic = headers
        .iter()
        .find(|header| header.p_type == libc::PT_DYNAMIC);
    let module = || Module {
        path: path.to_vec(),
        range: range.clone(),
        is_runtime,
        bias: info.dlpi_addr,
        dynamic: dynamic.map_or(0, |header| info.dlpi_addr + header.p_vaddr),
    };
    if range.contains(&search.address) && search.found.is_none() {
        search.found = Some(module());
    }
    if is_runtime && search.runtime.is_none() {
        search.runtime = Some(module());
    }
    0
}

fn search(address: usize) -> Search {
    let mut search = Search {
        address,
        found: None,
        runtime: None,
        runtimes: 0,
    };
    // SAFETY: the callback only touches `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search
}

fn module_of(address: *mut c_void) -> Option<Module> {
    search(address as usize).found
}

fn runtimes_loaded() -> usize {
    search(0).runtimes
}

thread_local! {
    /// Where the runtime hook that is being entered returns to.
    static CALLER: std::cell::Cell<*mut c_void> = const { std::cell::Cell::new(null_mut()) };
}

/// Keeps a runtime hook's return address until its body asks for it.
pub extern "C" fn note_caller(return_address: *mut c_void) {
    let _ = CALLER.try_with(|caller| caller.set(return_address));
}

/// The return address noted last by this thread.
pub fn noted_caller() -> *mut c_void {
    CALLER.try_with(std::cell::Cell::get).unwrap_or(null_mut())
}
