//! The slow lane: where an event waits when the recorder's lock cannot be had in time.
//!
//! The lock is held for well under a microsecond, unless its holder is stopped inside: by a page
//! fault on a stalled file system, or by a debugger. The program's threads do not wait long for
//! that. They leave their event here, in order, and whoever next holds the lock takes them all
//! before its own. In memory, not in the trace: a store into that may be what is stuck.
//!
//! A bounded queue of many producers and one consumer at a time (the lock holder), after Dmitry
//! Vyukov's: each slot carries a turn number that says whether it may be written or read.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// A bounded queue that never blocks.
#[repr(C)]
pub struct Lane<T: Copy, const N: usize> {
    /// Somebody wants the consumer's attention.
    called: AtomicBool,
    /// Next turn to write.
    tail: AtomicUsize,
    /// Next turn to read; only the consumer changes it.
    head: AtomicUsize,
    slots: [Slot<T>; N],
}

struct Slot<T> {
    /// `turn`: free for the writer of that turn; `turn + 1`: holds that turn's value.
    turn: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: a slot's value is only touched by the one thread whose turn it is: the writer that won
// `tail` for that turn before it publishes `turn + 1`, the consumer after. T moves between
// threads, hence Send.
unsafe impl<T: Copy + Send, const N: usize> Sync for Lane<T, N> {}

impl<T: Copy, const N: usize> Default for Lane<T, N> {
    fn default() -> Self {
        Lane::new()
    }
}

impl<T: Copy, const N: usize> Lane<T, N> {
    /// An empty lane.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        let mut slots = [const {
            Slot {
                turn: AtomicUsize::new(0),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            }
        }; N];
        let mut turn = 0;
        while turn < N {
            slots[turn].turn = AtomicUsize::new(turn);
            turn += 1;
        }
        Lane {
            slots,
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
            called: AtomicBool::new(false),
        }
    }

    /// An empty lane.
    #[cfg(loom)]
    pub fn new() -> Self {
        let slots = std::array::from_fn(|turn| Slot {
            turn: AtomicUsize::new(turn),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        });
        Lane {
            slots,
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
            called: AtomicBool::new(false),
        }
    }

    /// Asks for the consumer's attention. A swap, not a store: whoever hears this call then hears
    /// the earlier ones with it, and sees what was left before them.
    pub fn call(&self) {
        self.called.swap(true, Ordering::AcqRel);
    }

    /// Whether somebody called since [`Lane::hear`]; whoever leaves a value does. All that the
    /// consumer looks at when nothing is the matter.
    #[inline(always)]
    pub fn is_called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Takes note of the calls so far. What is looked at afterwards is at least as new as they are:
    /// a swap, because a plain store could come after a call that it did not see.
    pub fn hear(&self) {
        self.called.swap(false, Ordering::AcqRel);
    }

    /// Leaves a value; false if the lane is full.
    pub fn push(&self, value: T) -> bool {
        let mut turn = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[turn % N];
            let seen = slot.turn.load(Ordering::Acquire);
            if seen == turn {
                match self.tail.compare_exchange_weak(
                    turn,
                    turn + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // SAFETY: winning `tail` for this turn makes this thread the slot's only
                        // user until it publishes `turn + 1`.
                        unsafe { (*slot.value.get()).write(value) };
                        slot.turn.store(turn + 1, Ordering::Release);
                        self.call();
                        return true;
                    }
                    Err(now) => turn = now,
                }
            } else if seen < turn {
                return false;
            } else {
                turn = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the oldest value, if it is complete.
    ///
    /// # Safety
    /// At most one thread at a time may call this (the recorder: while it holds the lock).
    pub unsafe fn pop(&self) -> Option<T> {
        let turn = self.head.load(Ordering::Relaxed);
        let slot = &self.slots[turn % N];
        if slot.turn.load(Ordering::Acquire) != turn + 1 {
            return None;
        }
        // SAFETY: `turn + 1` says that the writer of this turn is done with the slot, and the
        // caller is the only consumer.
        let value = unsafe { (*slot.value.get()).assume_init_read() };
        slot.turn.store(turn + N, Ordering::Release);
        self.head.store(turn + 1, Ordering::Relaxed);
        Some(value)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_order_and_a_full_lane_says_so() {
        let lane: Lane<u32, 4> = Lane::new();
        for round in 0..10 {
            for n in 0..4 {
                assert!(lane.push(round * 4 + n));
            }
            assert!(!lane.push(99));
            for n in 0..4 {
                // SAFETY: one thread.
                assert_eq!(unsafe { lane.pop() }, Some(round * 4 + n));
            }
            // SAFETY: one thread.
            assert_eq!(unsafe { lane.pop() }, None);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// What a consumer does, which holds the lock.
    fn take(lane: &Lane<u32, 2>, taken: &mut Vec<u32>) {
        if lane.is_called() {
            lane.hear();
            // SAFETY: the lock is held.
            while let Some(value) = unsafe { lane.pop() } {
                taken.push(value);
            }
        }
    }

    #[test]
    fn nothing_is_lost_or_doubled_and_each_threads_order_holds() {
        let mut model = loom::model::Builder::new();
        // Three switches find what is to be found; without a bound it takes minutes.
        model.preemption_bound = Some(3);
        model.check(|| {
            let lane = Arc::new(Lane::<u32, 2>::new());
            let lock = Arc::new(Mutex::new(Vec::new()));
            let producers: Vec<_> = (0..2)
                .map(|id| {
                    let (lane, lock) = (lane.clone(), lock.clone());
                    thread::spawn(move || {
                        let mut left = 0;
                        for n in 0..2 {
                            left += u32::from(!lane.push(id * 10 + n));
                        }
                        let mut taken = lock.lock().unwrap();
                        take(&lane, &mut taken);
                        left
                    })
                })
                .collect();
            let refused: u32 = producers.into_iter().map(|p| p.join().unwrap()).sum();
            let mut taken = lock.lock().unwrap();
            take(&lane, &mut taken);
            assert_eq!(taken.len() as u32 + refused, 4);
            for id in 0..2 {
                let mine: Vec<u32> = taken.iter().copied().filter(|v| v / 10 == id).collect();
                assert!(mine.is_sorted());
                assert!(mine.windows(2).all(|pair| pair[0] != pair[1]));
            }
        });
    }
}
