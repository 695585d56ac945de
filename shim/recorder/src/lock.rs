//! The recorder's lock.
//!
//! Taken and released for every event, between two driver calls of the program, and held for some
//! tens of nanoseconds. What it costs is the release: a lock that may have sleepers must look for
//! them with a locked instruction, which waits until every store of the event has reached the
//! cache, the ring's cold line among them. This one has no sleepers: a release is one store, and
//! the program's next call runs while the event's stores drain. Who finds it taken looks again,
//! a few times at once, then after giving up the core, then after short sleeps; how long, the
//! caller decides.

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A value for one thread at a time.
#[repr(C)]
pub struct Lock<T> {
    held: AtomicBool,
    /// How often it was taken; only who holds it changes it.
    taken: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: `held` lets one thread at a time at the value; T moves between threads, hence Send.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to the value, until it is dropped.
pub struct Held<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    /// Free.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Lock<T> {
        Lock {
            held: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Free.
    #[cfg(loom)]
    pub fn new(value: T) -> Lock<T> {
        Lock {
            held: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if nobody has it.
    #[inline(always)]
    pub fn try_lock(&self) -> Option<Held<'_, T>> {
        self.held
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        let taken = self.taken.load(Ordering::Relaxed);
        self.taken.store(taken.wrapping_add(1), Ordering::Relaxed);
        Some(Held { lock: self })
    }

    /// How often it was taken so far: whether it moves.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether somebody has it now: to be asked before trying again, since trying takes the lock's
    /// cache line away from who has it.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Makes it free with a new value; the old one is leaked. For a forked child, where the thread
    /// that held it may not exist and may have left the value in the middle of a change.
    ///
    /// # Safety
    /// There is no other thread.
    #[cfg(not(loom))]
    pub unsafe fn start_over(&self, value: T) {
        // SAFETY: nobody else is there to use the value (the caller's contract).
        unsafe { self.value.get().write(value) };
        self.held.store(false, Ordering::Release);
    }
}

impl<T> Held<'_, T> {
    /// Runs `act` on the value.
    #[inline(always)]
    pub fn with<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: for both: whoever has a `Held` is the only one (`held` was false and became true
        // for them), and it is borrowed exclusively here.
        #[cfg(not(loom))]
        let value = unsafe { &mut *self.lock.value.get() };
        #[cfg(loom)]
        let value = self.lock.value.get_mut();
        #[cfg(loom)]
        // SAFETY: as above.
        let value = unsafe { value.deref() };
        act(value)
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

/// So many turns are waited before [`pause`] sleeps.
pub const SLEEPY: u32 = 128;

/// Waits a little longer the more `turns` were waited already.
#[cfg(not(loom))]
pub fn pause(turns: u32) {
    match turns {
        0..64 => std::hint::spin_loop(),
        64..SLEEPY => std::thread::yield_now(),
        _ => {
            let moment = libc::timespec {
                tv_sec: 0,
                tv_nsec: 50_000,
            };
            // SAFETY: a valid time. The bare system call, since nanosleep() is a cancellation
            // point, which the program's own call is not.
            unsafe { libc::syscall(libc::SYS_nanosleep, &moment, 0) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        static LOCK: Lock<(u64, u64)> = Lock::new((0, 0));
        const EACH: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let count = || {
            for _ in 0..EACH {
                let mut turns = 0;
                let mut held = loop {
                    match LOCK.try_lock() {
                        Some(held) => break held,
                        None => pause(turns),
                    }
                    turns += 1;
                };
                held.with(|(one, other)| {
                    assert_eq!(one, other);
                    *one += 1;
                    *other += 1;
                });
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(count);
            }
        });
        assert_eq!(
            LOCK.try_lock().unwrap().with(|value| *value),
            (4 * EACH, 4 * EACH)
        );
    }

    #[test]
    fn starting_over_frees_it() {
        let lock = Lock::new(1);
        std::mem::forget(lock.try_lock());
        assert!(lock.is_held() && lock.try_lock().is_none());
        // SAFETY: one thread.
        unsafe { lock.start_over(7) };
        assert_eq!(lock.try_lock().unwrap().with(|value| *value), 7);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn nobody_sees_half_of_anothers_change() {
        loom::model(|| {
            let lock = Arc::new(Lock::new((0, 0)));
            let change = |lock: &Lock<(u32, u32)>| {
                if let Some(mut held) = lock.try_lock() {
                    held.with(|(one, other)| {
                        assert_eq!(one, other);
                        *one += 1;
                        *other += 1;
                    });
                    return 1;
                }
                0
            };
            let other = {
                let lock = lock.clone();
                thread::spawn(move || change(&lock))
            };
            let changes = change(&lock) + other.join().unwrap();
            assert_eq!(
                lock.try_lock().unwrap().with(|value| *value),
                (changes, changes)
            );
            assert!(changes >= 1);
        });
    }
}
