//! The calling thread's stack: the only memory that a walk may read.

use std::cell::Cell;

/// Bounds that contain no stack pointer.
const NOWHERE: (u64, u64) = (u64::MAX, u64::MAX);

thread_local! {
    /// Lowest and highest address of this thread's stack; (0, 0) not asked yet.
    static BOUNDS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Where a walk may read: from `start` on, this many addresses at which a whole word lies inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The stack pointer.
    pub start: u64,
    /// 0 if nothing may be read.
    pub len: u64,
    /// Bytes of stack that are left below it; 0 where nobody knows.
    pub headroom: u64,
}

impl Readable {
    /// Whether the word at an address may be read.
    #[inline(always)]
    pub fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.len
    }
}

/// From `sp` to the end of the thread's stack. Where `sp` is not in it (a fiber, a signal's
/// alternate stack), nothing at all may be read: nobody knows where that stack ends.
#[inline]
pub fn of_this_thread(sp: u64) -> Readable {
    let (mut low, mut high) = BOUNDS.try_with(Cell::get).unwrap_or((0, 0));
    if high == 0 {
        (low, high) = ask();
        let _ = BOUNDS.try_with(|bounds| bounds.set((low, high)));
    }
    let inside = sp >= low && sp < high;
    Readable {
        start: sp,
        len: if inside {
            (high - sp).saturating_sub(7)
        } else {
            0
        },
        headroom: if inside { sp - low } else { 0 },
    }
}

#[cold]
fn ask() -> (u64, u64) {
    // SAFETY: pthread_attr_t is plain data that pthread_getattr_np fills in for a live thread;
    // it is destroyed exactly once.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attr) != 0 {
            return NOWHERE;
        }
        let (mut base, mut size) = (std::ptr::null_mut(), 0);
        let known = libc::pthread_attr_getstack(&attr, &mut base, &mut size) == 0;
        libc::pthread_attr_destroy(&mut attr);
        if !known {
            return NOWHERE;
        }
        (base as u64, base as u64 + size as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_of_this_threads_stack_may_be_read() {
        let local = 0u64;
        let sp = &raw const local as u64;
        let readable = of_this_thread(sp);
        assert!(readable.contains(sp) && !readable.contains(sp - 1));
        let end = readable.start + readable.len;
        assert!(readable.contains(end - 1) && !readable.contains(end));
        let heap = Box::new(0u64);
        assert_eq!(of_this_thread(&raw const *heap as u64).len, 0);
    }
}
