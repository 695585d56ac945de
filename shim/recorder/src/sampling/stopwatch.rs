//! What stacks and events take, measured by the time-stamp counter, or where that is not to be had by the
//! clock.

use super::{GOVERNED, of_thread};
use crate::clock::{self, Clock};
use crate::counter;
use std::sync::atomic::{AtomicU8, Ordering};
use vramtrace_format::sampling::Head;

/// One in so many allocations of a thread has its event measured, and where nothing depends on it its
/// stack.
const ONE_IN: u32 = 16;

/// What [`now`] reads.
static SOURCE: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
const TICKS: u8 = 1;
const NANOSECONDS: u8 = 2;

/// Measures by what this clock is kept by.
pub(crate) fn choose_clock(clock: &Clock) {
    let source = if clock.has_counter() {
        TICKS
    } else {
        NANOSECONDS
    };
    SOURCE.store(source, Ordering::Relaxed);
}

/// A moment, in ticks or nanoseconds; 0 before there is a trace, and where the program has forbidden
/// itself the counter since.
#[inline(always)]
pub(crate) fn now() -> u64 {
    match SOURCE.load(Ordering::Relaxed) {
        TICKS if !counter::is_forbidden() => clock::ticks(),
        NANOSECONDS => clock::monotonic_ns(),
        _ => 0,
    }
}

/// Of one allocation: what its stack takes, and what the rest does.
pub(crate) struct Stopwatch {
    /// When its stack began; 0 not measured.
    stack: u64,
    /// When the allocation began to be recorded; 0 not measured.
    event: u64,
    cost: Cost,
}

/// What was measured, in the unit of the source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Stacks that this stands for; 0 none was taken or it is not known.
    pub stacks: u32,
    /// Its lane.
    pub lane: u8,
    /// Bytes of the allocation; 0 where it is none.
    pub size: u64,
    /// The step that it stands for others at.
    pub sampled: u8,
    /// What the walk of one of them took; 0 not measured.
    walk: u64,
    /// What bringing one into the trace took that was not there before.
    fresh: u64,
    /// When the event began, less its stack; 0 not measured.
    event: u64,
}

impl Stopwatch {
    /// An allocation of `size` bytes, or another event (0), begins to be recorded.
    #[inline(always)]
    pub fn start(lane: usize, size: u64) -> Stopwatch {
        let until = &of_thread().until_measured;
        let left = until.get();
        let governed = GOVERNED.load(Ordering::Relaxed);
        let mut started = Stopwatch {
            stack: 0,
            event: 0,
            cost: Cost {
                lane: lane as u8,
                size,
                ..Cost::default()
            },
        };
        if left == 1 {
            until.set(ONE_IN);
            started.event = now();
            started.stack = started.event;
            started.cost.stacks = if governed { 1 } else { ONE_IN };
        } else {
            // The first of a thread, which has everything to set up, is not measured to stand for
            // others.
            until.set(if left == 0 { ONE_IN - 1 } else { left - 1 });
            if governed {
                started.stack = now();
                started.cost.stacks = 1;
            }
        }
        started
    }

    /// The allocation stands for others, at a step.
    #[inline(always)]
    pub fn stands_for_others(&mut self, step: u8) {
        self.cost.sampled = step;
    }

    /// The stack is known.
    #[inline(always)]
    pub fn walked(&mut self) {
        if self.stack != 0 {
            self.cost.walk = now().saturating_sub(self.stack);
            if self.event != 0 {
                self.cost.event = self.event + self.cost.walk;
            }
        }
    }

    /// The stack was not known, and is put into the form of the trace from here on.
    #[cold]
    pub fn is_fresh(&mut self) {
        self.walked();
        self.stack = now();
    }

    /// It is in the trace.
    #[cold]
    pub fn is_stored(&mut self) {
        self.cost.fresh = now().saturating_sub(self.stack);
        if self.cost.event != 0 {
            self.cost.event += self.cost.fresh;
        }
    }

    /// No stack was taken.
    #[inline(always)]
    pub fn without_stack(&mut self) {
        self.cost = Cost {
            event: self.event,
            ..Cost::default()
        };
    }

    /// What was measured.
    #[inline(always)]
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

/// Longest time that is believed to be spent on putting a new stack into the trace, nanoseconds.
const LONGEST_FRESH: u64 = 10_000_000;
/// Longest that is believed of an event.
const LONGEST_EVENT: u64 = 20_000;

impl Cost {
    /// Whether anything was measured.
    #[inline(always)]
    pub fn is_any(&self) -> bool {
        self.stacks != 0 || self.event != 0 || self.fresh != 0
    }

    /// Nanoseconds that the walk took, and that a new stack took; `None` for a walk that was not
    /// measured.
    pub fn of_stack(&self, clock: &mut Clock) -> (Option<u64>, u64) {
        let walk = (self.walk != 0).then(|| nanoseconds(self.walk, clock));
        (walk, nanoseconds(self.fresh, clock).min(LONGEST_FRESH))
    }

    /// Adds what its event took, which ends now.
    pub fn add_event(&self, clock: &mut Clock, head: &mut Head) {
        let took = now().saturating_sub(self.event);
        if self.event != 0 && took != 0 {
            head.events += 1;
            head.event_ns += nanoseconds(took, clock).min(LONGEST_EVENT);
        }
    }
}

/// How long ago a moment was, nanoseconds; `None` if that cannot be told.
pub(crate) fn since(moment: u64, clock: &mut Clock) -> Option<u64> {
    // The counter has jumped, and nobody knows by how much.
    let lost = SOURCE.load(Ordering::Relaxed) == TICKS && !clock.has_counter();
    match (moment, now()) {
        _ if lost => None,
        (_, 0) => None,
        (0, _) => Some(u64::MAX),
        (moment, now) => Some(nanoseconds(now.saturating_sub(moment), clock)),
    }
}

fn nanoseconds(measured: u64, clock: &mut Clock) -> u64 {
    match SOURCE.load(Ordering::Relaxed) {
        TICKS => clock.ticks_to_ns(measured),
        _ => measured,
    }
}
