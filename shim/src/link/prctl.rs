//! Our `prctl`: a program that forbids itself the time-stamp counter must not be killed for our
//! clock's use of it. So that is heard before it takes effect; the common path compares a number.
//! (Of a plain system call nothing is heard, unless it comes before the first use of a GPU.)

use super::dlsym::plain_dlsym;
use once_cell::race::OnceNonZeroUsize;
use std::ffi::{c_int, c_ulong, c_void};
use std::num::NonZeroUsize;
use vramtrace_recorder::{self as recorder, counter};

type Prctl = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;

static NEXT: OnceNonZeroUsize = OnceNonZeroUsize::new();

/// The next `prctl` after ours, if this is a moment to look for it. A forked child may call `prctl`
/// first of all, when a lock of the loader's may be held by a thread that it has not got; what it
/// asks then is asked of the kernel, as the C library's function does.
fn next(option: c_int) -> Option<Prctl> {
    if NEXT.get().is_none() && option != counter::PR_SET_TSC {
        return None;
    }
    let find = || NonZeroUsize::new(plain_dlsym(libc::RTLD_NEXT, c"prctl") as usize).ok_or(());
    let found = NEXT.get_or_try_init(find).ok()?;
    // SAFETY: what is called prctl has prctl's type: in C it takes any number of arguments after
    // the first, and reads no more than four.
    Some(unsafe { std::mem::transmute::<*mut c_void, Prctl>(found.get() as *mut c_void) })
}

/// `prctl`.
///
/// # Safety
/// As prctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prctl(
    option: c_int,
    second: c_ulong,
    third: c_ulong,
    fourth: c_ulong,
    fifth: c_ulong,
) -> c_int {
    if option == counter::PR_SET_TSC && second as c_int == counter::PR_TSC_SIGSEGV {
        // SAFETY: the address of the calling thread's errno.
        let errno = unsafe { *libc::__errno_location() };
        recorder::forbid_counter();
        // SAFETY: as above; the program's errno is as it was.
        unsafe { *libc::__errno_location() = errno };
    }
    match next(option) {
        // SAFETY: the arguments are the caller's own.
        Some(next) => unsafe { next(option, second, third, fourth, fifth) },
        // SAFETY: as above; it is what the C library's prctl does.
        None => unsafe {
            libc::syscall(libc::SYS_prctl, option, second, third, fourth, fifth) as c_int
        },
    }
}
