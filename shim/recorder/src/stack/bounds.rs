//! The calling thread's stack: the only memory that a walk may read.

use std::cell::Cell;

thread_local! {
    /// Lowest and highest address of this thread's stack; (0, 0) not asked yet.
    static BOUNDS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// From `sp` to the end of the thread's stack. Where `sp` is not in it (a fiber, a signal's
/// alternate stack), nothing at all may be read: nobody knows where that stack ends.
#[inline]
pub fn of_this_thread(sp: u64) -> (u64, u64) {
    let (mut low, mut high) = BOUNDS.try_with(Cell::get).unwrap_or((0, 0));
    if high == 0 {
        (low, high) = ask();
        let _ = BOUNDS.try_with(|bounds| bounds.set((low, high)));
    }
    if sp >= low && sp < high {
        (sp, high)
    } else {
        (u64::MAX, u64::MAX)
    }
}

#[cold]
fn ask() -> (u64, u64) {
    // SAFETY: pthread_attr_t is plain data that pthread_getattr_np fills in for a live thread;
    // it is destroyed exactly once.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attr) != 0 {
            return (u64::MAX - 1, u64::MAX);
        }
        let (mut base, mut size) = (std::ptr::null_mut(), 0);
        let known = libc::pthread_attr_getstack(&attr, &mut base, &mut size) == 0;
        libc::pthread_attr_destroy(&mut attr);
        if !known {
            return (u64::MAX - 1, u64::MAX);
        }
        (base as u64, base as u64 + size as u64)
    }
}
