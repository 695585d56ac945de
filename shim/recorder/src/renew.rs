//! Locks that a forked child can start over: in the child, the thread that held a lock may not
//! exist any more.

use crate::counter;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

/// Longest wait for a lock inside someone else's allocation. Locks are held for less than a
/// microsecond; but on an overloaded machine their holder may be off its core for a while, and a
/// program waits for its own locks as long as that. Longer than this, it is stuck.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits with a deadline, which takes a clock: of the C library's, if that may be read.
#[cold]
fn wait_for<T>(lock: &'static Mutex<T>) -> Option<MutexGuard<'static, T>> {
    if !counter::is_forbidden() {
        return lock.try_lock_for(PATIENCE);
    }
    const STEPS: u32 = 10_000;
    (0..STEPS).find_map(|_| {
        counter::sleep_by_call(PATIENCE / STEPS);
        lock.try_lock()
    })
}

/// A lazily made, replaceable `Mutex<T>`.
pub struct Renewable<T: 'static> {
    lock: AtomicPtr<Mutex<T>>,
}

impl<T: Default> Default for Renewable<T> {
    fn default() -> Self {
        Renewable::new()
    }
}

impl<T: Default> Renewable<T> {
    /// Not made yet.
    pub const fn new() -> Renewable<T> {
        Renewable {
            lock: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    fn get(&self) -> &'static Mutex<T> {
        let mut lock = self.lock.load(Ordering::Acquire);
        if lock.is_null() {
            let made = Box::into_raw(Box::new(Mutex::new(T::default())));
            match self
                .lock
                .compare_exchange(lock, made, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => lock = made,
                Err(first) => {
                    // SAFETY: `made` lost the race and was seen by nobody.
                    drop(unsafe { Box::from_raw(made) });
                    lock = first;
                }
            }
        }
        // SAFETY: it came from a Box that is leaked on purpose: locks are replaced, never freed.
        unsafe { &*lock }
    }

    /// The content, if it can be had without waiting long.
    #[inline]
    pub fn lock(&self) -> Option<MutexGuard<'static, T>> {
        let lock = self.get();
        lock.try_lock().or_else(|| wait_for(lock))
    }

    /// The content, if it can be had at once.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'static, T>> {
        self.get().try_lock()
    }

    /// Starts over with fresh content. For the only thread of a forked child; the old content,
    /// which a thread that no longer exists may have left in the middle of a change, is leaked.
    pub fn renew(&self) {
        self.lock.store(std::ptr::null_mut(), Ordering::Release);
    }
}
