//! Our `dlsym`, `dlvsym` and `dlclose`.
//!
//! Static libcudart, Triton, JAX and many others find the driver by `dlsym`; without standing
//! before it only dynamically linked programs would be seen. It runs at any time, from any thread,
//! before anything of ours is initialised and even from inside Rust's own standard library, so
//! the common path touches nothing: a name that does not begin with `cu` goes straight to the
//! real function by a tail jump. A jump, not a call: `RTLD_NEXT` and `RTLD_DEFAULT` are answered
//! by who the caller is.

use super::{driver, elf, runtime};
use once_cell::race::OnceNonZeroUsize;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::ptr::null_mut;

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

static LIBC_DLSYM: OnceNonZeroUsize = OnceNonZeroUsize::new();
static NEXT_DLSYM: OnceNonZeroUsize = OnceNonZeroUsize::new();
static NEXT_DLVSYM: OnceNonZeroUsize = OnceNonZeroUsize::new();
static NEXT_DLCLOSE: OnceNonZeroUsize = OnceNonZeroUsize::new();

fn found(cell: &OnceNonZeroUsize, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let found = cell.get_or_try_init(|| NonZeroUsize::new(find() as usize).ok_or(()));
    found.map_or(null_mut(), |address| address.get() as *mut c_void)
}

/// The C library's own `dlsym`.
fn libc_dlsym() -> *mut c_void {
    found(&LIBC_DLSYM, || {
        elf::libc_function(c"dlsym").unwrap_or(null_mut())
    })
}

/// The next `dlsym` after ours: another preloaded library's, else the C library's.
fn next_dlsym() -> *mut c_void {
    found(&NEXT_DLSYM, || {
        let plain = libc_dlsym();
        if plain.is_null() {
            return plain;
        }
        // SAFETY: dlsym of the C library has this type; RTLD_NEXT is answered for this library,
        // which contains the call.
        let next = unsafe {
            std::mem::transmute::<*mut c_void, Dlsym>(plain)(libc::RTLD_NEXT, c"dlsym".as_ptr())
        };
        if next.is_null() || next == dlsym as *mut c_void {
            plain
        } else {
            next
        }
    })
}

/// What the C library's own `dlsym` finds, past every interposer.
pub fn plain_dlsym(handle: *mut c_void, name: &CStr) -> *mut c_void {
    let plain = libc_dlsym();
    if plain.is_null() {
        return null_mut();
    }
    // SAFETY: dlsym of the C library has this type; the name is NUL-terminated.
    unsafe { std::mem::transmute::<*mut c_void, Dlsym>(plain)(handle, name.as_ptr()) }
}

fn next_dlvsym() -> *mut c_void {
    found(&NEXT_DLVSYM, || {
        elf::libc_function(c"dlvsym").unwrap_or(null_mut())
    })
}

fn next_dlclose() -> *mut c_void {
    found(&NEXT_DLCLOSE, || real_dlsym(libc::RTLD_NEXT, c"dlclose"))
}

/// The real `dlsym`, called by this library.
pub fn real_dlsym(handle: *mut c_void, name: &CStr) -> *mut c_void {
    let next = next_dlsym();
    if next.is_null() {
        return null_mut();
    }
    // SAFETY: the next dlsym has dlsym's type; the name is NUL-terminated.
    unsafe { std::mem::transmute::<*mut c_void, Dlsym>(next)(handle, name.as_ptr()) }
}

/// `dlsym`.
///
/// # Safety
/// As dlsym(3).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // Decides in Rust; then returns the decision's answer, or jumps to the next dlsym with the
    // caller's arguments, stack and return address as they were.
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "mov rdx, [rsp + 24]",
        "call {decide}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rdx, rdx",
        "jnz 2f",
        "ret",
        "2:",
        "jmp rdx",
        decide = sym decide_dlsym,
    )
}

/// `dlvsym`.
///
/// # Safety
/// As dlvsym(3).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rcx, [rsp + 24]",
        "call {decide}",
        "mov rcx, rdx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test rcx, rcx",
        "jnz 2f",
        "ret",
        "2:",
        "jmp rcx",
        decide = sym decide_dlvsym,
    )
}

/// An answer (in rax), or where to jump (in rdx) if not null: the SysV pair of return registers.
#[repr(C)]
struct Decision {
    answer: *mut c_void,
    jump: *mut c_void,
}

unsafe extern "C" fn decide_dlsym(
    handle: *mut c_void,
    name: *const c_char,
    caller: *mut c_void,
) -> Decision {
    let next = next_dlsym();
    // SAFETY: the next dlsym has dlsym's type, and the arguments are the caller's own.
    decide(handle, name, caller, next, || unsafe {
        std::mem::transmute::<*mut c_void, Dlsym>(next)(handle, name)
    })
}

unsafe extern "C" fn decide_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: *mut c_void,
) -> Decision {
    let next = next_dlvsym();
    // SAFETY: the next dlvsym has dlvsym's type, and the arguments are the caller's own.
    decide(handle, name, caller, next, || unsafe {
        std::mem::transmute::<*mut c_void, Dlvsym>(next)(handle, name, version)
    })
}

fn decide(
    handle: *mut c_void,
    name: *const c_char,
    caller: *mut c_void,
    next: *mut c_void,
    look_up: impl FnOnce() -> *mut c_void,
) -> Decision {
    let pass = Decision {
        answer: null_mut(),
        jump: next,
    };
    // SAFETY: dlsym's contract makes `name` a NUL-terminated string; two bytes are looked at
    // first, the second only if the first is not the terminator.
    let interesting =
        !name.is_null() && unsafe { *name == b'c' as c_char && *name.add(1) == b'u' as c_char };
    if !interesting || next.is_null() {
        return pass;
    }
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr(name) };
    let hook = driver::hook_named(name).or_else(|| runtime::hook_named(name));
    let Some(hook) = hook else { return pass };
    // RTLD_NEXT is an interposer's look past itself, whose answer is the caller's business. Only
    // the program itself, which comes before us, would find us.
    if handle == libc::RTLD_NEXT && !runtime::is_program(caller) {
        return pass;
    }
    // Look-ups of our own come first, so that the last word that dlerror hears is the caller's.
    driver::bind_all();
    let found = if handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT {
        in_default_scope(hook, caller)
    } else {
        look_up()
    };
    // A scope that we are in holds our function; what counts is what it would hold without us.
    let found = if found == hook.wrapper() {
        in_default_scope(hook, caller)
    } else {
        found
    };
    let answer = if found.is_null() {
        found
    } else {
        substitute(hook, found)
    };
    Decision {
        answer,
        jump: null_mut(),
    }
}

/// What RTLD_DEFAULT would find if we were not there: after us in the global scope, else in the
/// scope of the caller's own module.
fn in_default_scope(hook: &'static crate::hook::Hook, caller: *mut c_void) -> *mut c_void {
    let next = real_dlsym(libc::RTLD_NEXT, hook.name());
    if !next.is_null() {
        return next;
    }
    let local = runtime::in_scope_of(caller, hook.name());
    if local.is_null() || local == hook.wrapper() {
        // Once more for dlerror: not found, by that name.
        return real_dlsym(libc::RTLD_NEXT, hook.name());
    }
    local
}

/// Our function in place of the real one, if that is what the look-up found.
fn substitute(hook: &'static crate::hook::Hook, found: *mut c_void) -> *mut c_void {
    if hook.name().to_bytes().starts_with(b"cuda") {
        runtime::substitute(hook, found)
    } else {
        driver::substitute(hook, found)
    }
}

type Dlclose = unsafe extern "C" fn(*mut c_void) -> c_int;

/// The real `dlclose`.
pub fn real_dlclose(handle: *mut c_void) -> c_int {
    let next = next_dlclose();
    if next.is_null() {
        return -1;
    }
    // SAFETY: the next dlclose has dlclose's type; the handle is the caller's own.
    unsafe { std::mem::transmute::<*mut c_void, Dlclose>(next)(handle) }
}

/// `dlclose`: a module may go away, so stacks look anew.
///
/// # Safety
/// As dlclose(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    let result = real_dlclose(handle);
    vramtrace_recorder::stack::modules::expect_change();
    vramtrace_recorder::stack::python::after_unload(elf::is_loaded);
    runtime::forget_callers();
    result
}
