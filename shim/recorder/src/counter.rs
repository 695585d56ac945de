//! Whether this process may read the time-stamp counter. A program can forbid it to itself
//! (`prctl(PR_SET_TSC, PR_TSC_SIGSEGV)`, to be reproducible or hard to spy on): then `rdtsc` is a
//! segmentation fault, and so is every clock of the C library that the kernel keeps by the counter
//! in the vDSO. A plain system call still tells the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// prctl(2): asks for, and sets, what `rdtsc` does.
pub const PR_GET_TSC: libc::c_int = 25;
/// See [`PR_GET_TSC`].
pub const PR_SET_TSC: libc::c_int = 26;
/// It faults.
pub const PR_TSC_SIGSEGV: libc::c_int = 2;

/// Whether some thread may not read the counter. (Each thread has a setting of its own, which its
/// children inherit.)
#[inline]
pub fn is_forbidden() -> bool {
    FORBIDDEN.load(Ordering::SeqCst)
}

/// From now on nobody here reads it. Never taken back.
pub(crate) fn forbid() {
    FORBIDDEN.store(true, Ordering::SeqCst);
}

/// Looks whether this thread may read it.
#[cfg(target_arch = "x86_64")]
pub fn look() {
    let mut mode: libc::c_int = 0;
    // SAFETY: PR_GET_TSC writes one int to the given address; the other arguments are not used.
    let asked = unsafe { libc::syscall(libc::SYS_prctl, PR_GET_TSC, &raw mut mode, 0, 0, 0) };
    if asked == 0 && mode == PR_TSC_SIGSEGV {
        forbid();
    }
}

/// Looks whether this thread may read it.
#[cfg(not(target_arch = "x86_64"))]
pub fn look() {}

/// A clock of the kernel, by a system call.
pub(crate) fn clock_by_call(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec to write to; a clock that does not exist leaves it alone.
    unsafe { libc::syscall(libc::SYS_clock_gettime, id, &raw mut now) };
    now
}

/// Sleeps for less than a second, by a system call that is no cancellation point.
pub(crate) fn sleep_by_call(time: Duration) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: time.subsec_nanos().into(),
    };
    let none = std::ptr::null_mut::<libc::timespec>();
    // SAFETY: a valid timespec to read; where the rest would go may be null.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, none) };
}
