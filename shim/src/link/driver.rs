//! libcuda: the real functions, and which hook a resolver's answer stands for.

use super::dlsym::{plain_dlsym, real_dlsym};
use super::versions;
use crate::hook::Hook;
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static LIBCUDA: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static BOUND: AtomicBool = AtomicBool::new(false);

/// The driver library, if the process has loaded it. We never load it ourselves.
pub fn library() -> Option<*mut c_void> {
    let known = LIBCUDA.load(Ordering::Acquire);
    if !known.is_null() {
        return Some(known);
    }
    // SAFETY: a literal; RTLD_NOLOAD only looks.
    let handle = unsafe {
        libc::dlopen(
            c"libcuda.so.1".as_ptr(),
            libc::RTLD_LAZY | libc::RTLD_NOLOAD,
        )
    };
    if handle.is_null() {
        return None;
    }
    LIBCUDA.store(handle, Ordering::Release);
    Some(handle)
}

/// A function of the driver, for our own calls.
pub fn function(name: &CStr) -> *mut c_void {
    library().map_or(null_mut(), |library| real_dlsym(library, name))
}

/// Learns the real functions of all driver hooks, once the driver library is there.
pub fn bind_all() {
    if BOUND.load(Ordering::Acquire) {
        return;
    }
    let Some(library) = library() else { return };
    for hook in crate::driver_hooks() {
        let exported = plain_dlsym(library, hook.name());
        if exported.is_null() {
            continue;
        }
        // Another preloaded library may stand between us and the driver: by exporting the name,
        // or by what its own dlsym answers.
        let next = real_dlsym(libc::RTLD_NEXT, hook.name());
        let next = if next.is_null() {
            real_dlsym(library, hook.name())
        } else {
            next
        };
        hook.bind(if next.is_null() { exported } else { next }, exported);
    }
    BOUND.store(true, Ordering::Release);
}

/// The hook of a driver function.
pub fn hook_named(name: &CStr) -> Option<&'static Hook> {
    crate::driver_hooks().find(|hook| hook.name() == name)
}

/// Our function in place of `found`, if that is the driver's function that `hook` stands before.
pub fn substitute(hook: &'static Hook, found: *mut c_void) -> *mut c_void {
    bind_all();
    if hook.stands_before(found) {
        hook.wrapper()
    } else {
        found
    }
}

/// What to hand out for `found`, which the driver's own resolver gave for `name` at `version`.
///
/// The address decides: it is compared with every variant that the driver exports, so the ABI is
/// right by construction. Only where no address matches, name and version do.
pub fn substitute_resolved(
    name: &CStr,
    found: *mut c_void,
    version: i32,
    per_thread: bool,
) -> *mut c_void {
    if found.is_null() {
        return found;
    }
    bind_all();
    if let Some(hook) =
        crate::driver_hooks().find(|hook| hook.wrapper() == found || hook.stands_before(found))
    {
        return hook.wrapper();
    }
    match versions::export_of(name, version, per_thread).and_then(hook_named_bytes) {
        Some(hook) => {
            hook.bind(found, null_mut());
            if hook.known() == Some(found) {
                hook.wrapper()
            } else {
                found
            }
        }
        None => {
            if looks_like_memory(name.to_bytes()) {
                vramtrace_recorder::bypassed();
            }
            found
        }
    }
}

fn hook_named_bytes(name: &[u8]) -> Option<&'static Hook> {
    crate::driver_hooks().find(|hook| hook.name().to_bytes() == name)
}

/// A name of the driver that allocates or frees by the look of it, and that we do not know.
fn looks_like_memory(name: &[u8]) -> bool {
    const STARTS: [&[u8]; 6] = [
        b"cuMemAlloc",
        b"cuMemFree",
        b"cuMemCreate",
        b"cuMemHostAlloc",
        b"cuArrayCreate",
        b"cuMemPoolCreate",
    ];
    STARTS.iter().any(|start| name.starts_with(start))
}
