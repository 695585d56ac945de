//! libcuda: the real functions, and which hook a resolver's answer stands for.

use super::dlsym::plain_dlsym;
use super::{modules, versions};
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

/// A function of the driver, for our own calls: the driver's own, since what another preloaded
/// library does and counts is the program's business.
pub fn function(name: &CStr) -> *mut c_void {
    library().map_or(null_mut(), |library| plain_dlsym(library, name))
}

/// Learns the driver's functions, and what a linked program would call, of all driver hooks, once
/// the driver library is there.
pub fn bind_all() {
    if BOUND.load(Ordering::Acquire) {
        return;
    }
    let Some(library) = library() else { return };
    let by_name = is_bound_by_name(library);
    for hook in crate::driver_hooks() {
        let driver = plain_dlsym(library, hook.name());
        if driver.is_null() {
            continue;
        }
        hook.is_at(driver);
        link(hook, by_name.then_some(driver));
    }
    BOUND.store(true, Ordering::Release);
}

/// What a linked program's call of this function ends in; null if in nothing. Where the process has
/// no driver library, another library may have a function of that name.
#[cold]
pub fn linked_target(hook: &Hook) -> *mut c_void {
    bind_all();
    let linked = hook.entries().linked();
    if linked.target().is_none() {
        let driver = library().filter(|&library| is_bound_by_name(library));
        link(
            hook,
            driver.map(|library| plain_dlsym(library, hook.name())),
        );
    }
    linked.target().unwrap_or(null_mut())
}

/// Whether there are callers that the loader led to the driver library. Where there are none, only
/// a weak reference can have led to our exported functions, which would be null without us: there
/// is a driver library, but not for that caller, and calls must not work that did not.
fn is_bound_by_name(library: *mut c_void) -> bool {
    let function = plain_dlsym(library, c"cuInit");
    modules::bound_by_name(b"libcuda.so", function, b"cu")
}

/// Learns what comes after us in the global scope, which may be another preloaded library; else
/// `driver`, which callers find in a scope of their own.
fn link(hook: &Hook, driver: Option<*mut c_void>) {
    let next = plain_dlsym(libc::RTLD_NEXT, hook.name());
    hook.entries().link(if next.is_null() {
        driver.unwrap_or(null_mut())
    } else {
        next
    });
}

/// The hook of a driver function.
pub fn hook_named(name: &CStr) -> Option<&'static Hook> {
    crate::driver_hooks().find(|hook| hook.name() == name)
}

/// Our function in place of `found`, if `hook` stands before that. `leads_to_driver`: it is known to
/// be what another library put before the driver's function.
pub fn substitute(hook: &'static Hook, found: *mut c_void, leads_to_driver: bool) -> *mut c_void {
    bind_all();
    if hook.entries().are(found) || !(leads_to_driver || hook.stands_before(found)) {
        return found;
    }
    handed_out(hook, found)
}

/// Our function that calls exactly `found`.
fn handed_out(hook: &'static Hook, found: *mut c_void) -> *mut c_void {
    hook.entries().before(found).unwrap_or_else(|| {
        vramtrace_recorder::bypassed();
        found
    })
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
    if crate::driver_hooks().any(|hook| hook.entries().are(found)) {
        return found;
    }
    let by_address = crate::driver_hooks().find(|hook| hook.stands_before(found));
    let by_name = || versions::export_of(name, version, per_thread).and_then(hook_named_bytes);
    match by_address.or_else(by_name) {
        Some(hook) => handed_out(hook, found),
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
