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

static NEXT_DLSYM: OnceNonZeroUsize = OnceNonZeroUsize::new();
static NEXT_DLVSYM: OnceNonZeroUsize = OnceNonZeroUsize::new();
static NEXT_DLCLOSE: OnceNonZeroUsize = OnceNonZeroUsize::new();

fn found(cell: &OnceNonZeroUsize, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let found = cell.get_or_try_init(|| NonZeroUsize::new(find() as usize).ok_or(()));
    found.map_or(null_mut(), |address| address.get() as *mut c_void)
}

/// The next `dlsym` after ours: another preloaded library's, else the C library's. Its symbol
/// version differs by age and machine; asking by version skips our own unversioned one.
fn next_dlsym() -> *mut c_void {
    found(&NEXT_DLSYM, || {
        let plain = elf::libc_function(c"dlsym").unwrap_or(null_mut());
        let Some(dlvsym) = elf::libc_function(c"dlvsym") else {
            return plain;
        };
        // SAFETY: dlvsym of the C library has this type.
        let dlvsym: Dlvsym = unsafe { std::mem::transmute(dlvsym) };
        for version in [c"GLIBC_2.34", c"GLIBC_2.2.5", c"GLIBC_2.17"] {
            // SAFETY: literals; RTLD_NEXT is answered for this library, which contains the call.
            let next = unsafe { dlvsym(libc::RTLD_NEXT, c"dlsym".as_ptr(), version.as_ptr()) };
            if !next.is_null() && next != dlsym as *mut c_void {
                return next;
            }
        }
        plain
    })
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

unsafe extern "C" fn decide_dlsym(handle: *mut c_void, name: *const c_char) -> Decision {
    let next = next_dlsym();
    // SAFETY: the next dlsym has dlsym's type, and the arguments are the caller's own.
    decide(handle, name, next, || unsafe {
        std::mem::transmute::<*mut c_void, Dlsym>(next)(handle, name)
    })
}

unsafe extern "C" fn decide_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> Decision {
    let next = next_dlvsym();
    // SAFETY: the next dlvsym has dlvsym's type, and the arguments are the caller's own.
    decide(handle, name, next, || unsafe {
        std::mem::transmute::<*mut c_void, Dlvsym>(next)(handle, name, version)
    })
}

fn decide(
    handle: *mut c_void,
    name: *const c_char,
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
    // RTLD_NEXT is another interposer's look past itself: its answer is the caller's business.
    if !interesting || next.is_null() || handle == libc::RTLD_NEXT {
        return pass;
    }
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr(name) };
    let hook = driver::hook_named(name).or_else(|| runtime::hook_named(name));
    let Some(hook) = hook else { return pass };
    if handle == libc::RTLD_DEFAULT {
        // The global scope holds us. The program must see us only where it would see the real
        // function: after us, in the same scope.
        let real = real_dlsym(libc::RTLD_NEXT, hook.name());
        let answer = if real.is_null() {
            real
        } else {
            substitute(hook, real)
        };
        return Decision {
            answer,
            jump: null_mut(),
        };
    }
    let real = look_up();
    Decision {
        answer: substitute(hook, real),
        jump: null_mut(),
    }
}

/// Our function in place of the real one, if that is what the look-up found.
fn substitute(hook: &'static crate::hook::Hook, found: *mut c_void) -> *mut c_void {
    if found.is_null() || found == hook.wrapper() {
        return found;
    }
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
    runtime::forget_callers();
    result
}
