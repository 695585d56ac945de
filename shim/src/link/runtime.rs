//! libcudart: which one a caller means.
//!
//! A process can hold several runtimes: libcudart 12 and 13, and copies linked statically into
//! libraries that export their names. Each caller must get the one that it would get without us.
//! An address that we hand out calls exactly the function that it was asked for. A call that the
//! loader led to us is a reference of some module's, which the loader would have bound to the
//! first function of that name and version: in the global scope, else in the module's own.

use super::callers::{Callee, callee, jumps_to};
use super::dlsym::{plain_dlsym, plain_dlvsym};
use super::modules::{self, Module, Place, module_of, place_of};
use super::sites::{Answer, Sites};
use crate::hook::Hook;
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

static SITES: Sites = Sites::new();

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

/// The real function behind `hook` for a call that the loader led to us and that returns to
/// `return_address`; null if there is none. Takes no lock where the site was seen before and names
/// what it calls, which is nearly always.
#[inline]
pub fn real_for(hook: &'static Hook, return_address: *mut c_void) -> *mut c_void {
    match SITES.get(return_address as usize, address_of(hook)) {
        Some(Answer {
            function,
            while_loaded: 0,
        }) => function,
        known => real_for_new(hook, return_address, known),
    }
}

/// As [`real_for`]; what was found for a site first stays, also where it is not certain. For functions
/// that are called far too often to ask the loader each time, and by tail calls: a copy that is
/// loaded later has sites of its own.
#[inline]
pub fn first_real_for(hook: &'static Hook, return_address: *mut c_void) -> *mut c_void {
    match SITES.get(return_address as usize, address_of(hook)) {
        Some(known) => known.function,
        None => real_for_new(hook, return_address, None),
    }
}

fn address_of(hook: &'static Hook) -> usize {
    std::ptr::from_ref(hook) as usize
}

#[cold]
fn real_for_new(
    hook: &'static Hook,
    return_address: *mut c_void,
    known: Option<Answer>,
) -> *mut c_void {
    if let Some(known) = known
        && known.while_loaded == modules::changes().loaded
    {
        return known.function;
    }
    let place = place_of(return_address);
    forget_if_gone(place.changes.unloaded);
    let age = SITES.age();
    let (function, for_good) = find(hook, return_address, &place);
    if !function.is_null() {
        let while_loaded = if for_good { 0 } else { place.changes.loaded };
        let answer = Answer {
            function,
            while_loaded,
        };
        SITES.put(return_address as usize, address_of(hook), answer, age);
    }
    function
}

/// The function that a call returning to this place would be made to without us, and whether that
/// stays so whatever else is loaded: a reference is bound once.
///
/// Where only one module in the process has the function, which is nearly always, the lock that is
/// held while constructors run is not taken: its holder may be waiting for this very thread.
fn find(hook: &'static Hook, return_address: *mut c_void, place: &Place) -> (*mut c_void, bool) {
    let (referrer, known) = referrer(hook, return_address, place);
    let (providers, first) = modules::providers(hook.name());
    // A weak reference stays null where its module finds no such function, though another may.
    let is_weak = |module: &Module| {
        let reference = module.reference(hook.name());
        reference.is_some_and(|reference| reference.weak)
    };
    if known && referrer.as_ref().is_some_and(is_weak) {
        return (
            referrer.map_or(null_mut(), |module| bound(hook, &module)),
            true,
        );
    }
    if providers <= 1 {
        return (first, known);
    }
    let answer = referrer.map_or(null_mut(), |module| bound(hook, &module));
    if known && !answer.is_null() {
        return (answer, true);
    }
    // Any module that refers to the function may have jumped here. Mostly that makes no difference;
    // where it does, the module that the call returns to is the best that can be told.
    let mut agreed: *mut c_void = null_mut();
    let agree = modules::all_referring_to(hook.name(), |module| {
        let other = bound(hook, module);
        if agreed.is_null() {
            agreed = other;
        }
        other.is_null() || other == agreed
    });
    let fallback = if answer.is_null() { first } else { answer };
    (
        if agree && !agreed.is_null() {
            agreed
        } else {
            fallback
        },
        false,
    )
}

/// The module whose reference led to us, and whether that is certain. Where it is not, it is one
/// that refers to the function, if the called one or the calling one does.
fn referrer(
    hook: &'static Hook,
    return_address: *mut c_void,
    place: &Place,
) -> (Option<Module>, bool) {
    let Some(module) = &place.module else {
        return (None, false);
    };
    let ours = hook.entries().linked().ours() as usize;
    match callee(module, return_address) {
        Callee::Function(called) if called == ours => (Some(module.clone()), true),
        // A function that ends with a jump to us, or to another that does.
        Callee::Function(called) => match jumps_to(called, ours) {
            Some(jumps) => (Some(jumps), true),
            None => {
                let called = module_of(called as *mut c_void)
                    .filter(|module| module.reference(hook.name()).is_some());
                (called.or_else(|| Some(module.clone())), false)
            }
        },
        Callee::Unknown => (Some(module.clone()), false),
    }
}

/// What the loader would have bound a module's reference to, were we not there.
fn bound(hook: &'static Hook, module: &Module) -> *mut c_void {
    let name = hook.name();
    let usable = |found: *mut c_void| {
        Some(found).filter(|found| !found.is_null() && !hook.entries().are(*found))
    };
    let version = module
        .reference(name)
        .and_then(|reference| reference.version);
    // A function without a version, another preloaded library's or a static copy's, answers to every
    // version, and `dlvsym` does not find it.
    let first = usable(plain_dlsym(libc::RTLD_NEXT, name));
    let to_all = first.filter(|&first| {
        module_of(first).is_some_and(|owner| version.is_none() || owner.exports_to_all(name))
    });
    to_all
        .or_else(|| usable(plain_dlvsym(libc::RTLD_NEXT, name, version)))
        .or_else(|| usable(module.in_scope(|scope| plain_dlvsym(scope, name, version))))
        .or_else(|| usable(module.in_scope(|scope| plain_dlsym(scope, name))))
        .or(first)
        .unwrap_or(null_mut())
}

/// Modules unloaded when the sites were forgotten last.
static UNLOADED: AtomicU64 = AtomicU64::new(0);

/// If a module has gone, another may come to its place: what is known of call sites is forgotten.
pub fn modules_may_have_gone() {
    forget_if_gone(modules::changes().unloaded);
}

fn forget_if_gone(unloaded: u64) {
    if UNLOADED.swap(unloaded, Ordering::Relaxed) != unloaded {
        SITES.forget();
    }
}

/// This is a forked child.
pub fn start_over() {
    SITES.start_over();
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
