//! Stores that other processes, or this file's next reader after a SIGKILL, see in order.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

/// Stores `value` so that everything written before it is in the file first and nothing written
/// after it comes earlier.
///
/// A killed process leaves exactly the stores that its program order had executed, so against a
/// crash only the compiler must be held; the hardware fence is for live readers on machines
/// with weaker memory order than x86 (where a release store costs nothing).
#[inline(always)]
pub(crate) fn publish(cell: &mut u64, value: u64) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: `cell` is a valid, aligned, exclusive reference for the whole call; viewing an
    // exclusively borrowed u64 as an AtomicU64 is what `AtomicU64::from_mut` does.
    unsafe { AtomicU64::from_ptr(cell) }.store(value, Ordering::Release);
    fence(Ordering::Release);
    compiler_fence(Ordering::SeqCst);
    crash_point();
}

/// What is stored before this is in the file before what is stored after it.
#[inline(always)]
pub(crate) fn in_order() {
    compiler_fence(Ordering::SeqCst);
    fence(Ordering::Release);
    compiler_fence(Ordering::SeqCst);
    crash_point();
}

/// Has the cache line fetched that will be written next time: a store to a line that is far away
/// holds up all stores after it.
#[inline(always)]
pub fn prefetch_to_write<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which changes nothing and faults at no address.
    unsafe {
        core::arch::asm!("prefetchw [{place}]", place = in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// Where a test may stop the world as SIGKILL would; nothing outside tests.
#[inline(always)]
pub(crate) fn crash_point() {
    #[cfg(test)]
    tests_only::crash_point();
}

#[cfg(test)]
pub(crate) mod tests_only {
    use std::cell::Cell;

    thread_local! {
        /// Crash points left before the simulated kill; `None` means never.
        static FUEL: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// The panic payload of a simulated kill.
    pub struct Killed;

    pub fn crash_point() {
        FUEL.with(|fuel| match fuel.get() {
            Some(0) => {
                fuel.set(None);
                std::panic::resume_unwind(Box::new(Killed));
            }
            Some(n) => fuel.set(Some(n - 1)),
            None => {}
        });
    }

    /// Runs `f`, killing it at its `after`-th crash point; true if it ran to its end.
    pub fn killed_after(after: u32, f: impl FnOnce()) -> bool {
        FUEL.with(|fuel| fuel.set(Some(after)));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_ok();
        FUEL.with(|fuel| fuel.set(None));
        done
    }
}
