//! libcudart: which one a caller means.
//!
//! A process can hold several runtimes: libcudart 12 and 13, and copies linked statically into
//! libraries that export their names. Each caller must get the one that it would get without us,
//! which is decided by the caller's own module: its handle, then its dependencies, as the
//! loader itself searches for a library opened on its own.

use super::dlsym::plain_dlsym;
use super::modules::{Place, module_of, place_of};
use crate::hook::Hook;
use std::ffi::{CStr, c_void};
use std::ops::Range;
use std::ptr::null_mut;
use vramtrace_recorder::Renewable;

/// The hook of a runtime function.
pub fn hook_named(name: &CStr) -> Option<&'static Hook> {
    crate::runtime_hooks().find(|hook| hook.name() == name)
}

/// Our function in place of `found`, if that is a runtime's; it calls exactly this one.
pub fn substitute(hook: &'static Hook, found: *mut c_void) -> *mut c_void {
    match module_of(found) {
        // The driver level sees what a call of one handed out as it is does, too.
        Some(owner) if owner.is_runtime => hook.entries().before_exactly(found).unwrap_or(found),
        _ => found,
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
    let Place {
        module: caller,
        runtime,
        runtimes,
        ..
    } = place_of(return_address);
    let usable =
        |found: *mut c_void| (!found.is_null() && !hook.entries().are(found)).then_some(found);
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
            .or_else(|| hook.entries().linked().target())
    } else {
        let in_scope = || {
            caller
                .as_ref()
                .and_then(|caller| usable(caller.look_up(hook.name())))
        };
        of_caller()
            .or_else(in_scope)
            .or_else(|| usable(plain_dlsym(libc::RTLD_NEXT, hook.name())))
            .or_else(|| hook.entries().linked().target())
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
    if hook.entries().linked().target().is_none() {
        hook.entries()
            .link(plain_dlsym(libc::RTLD_NEXT, hook.name()));
    }
    hook.entries().linked().target()
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
            module_of(caller.range.start as *mut c_void)
                .is_some_and(|module| module.range == caller.range)
        });
    }
}

/// This is a forked child.
pub fn start_over() {
    CALLERS.renew();
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
