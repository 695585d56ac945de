//! Keeps what stacks cost within a budget, by the interval that they are sampled by.
//!
//! In: what each stack took, and what time it is. Out: the step that is to be in force. No clock, no
//! state outside this struct: tests drive it through hours in no time.
//!
//! Cost is looked at over windows of a second. A window that has used up its share before it is over ends
//! there, and the interval is coarsened at once: what was sampled says how much is allocated of each size
//! ([`Demand`]), and so what any interval would cost. Finer intervals are tried when cost has been so low
//! for a while that they would fit, later each time that such a try had to be taken back: every change
//! is an event in the trace, and those are not to fill it.

use super::demand::Demand;
use vramtrace_format::sampling::{COARSEST, NONE};

/// Length of a window.
const WINDOW_NS: u64 = 1_000_000_000;
/// Of the first windows after the interval was coarsened, if they saw enough stacks.
const SHORT_NS: u64 = 125_000_000;
/// Stacks that are enough.
const ENOUGH: u64 = 200;
/// How many windows after a change are the first ones.
const SETTLING: u32 = 6;
/// Part of the budget that an interval may be expected to cost when it is put in force.
const MARGIN: f64 = 0.92;
/// Windows that cost is low before a finer interval is tried, at first and at most.
const PATIENCE: (u32, u32) = (10, 640);
/// How many steps finer the device layer and the host are sampled than the framework layer, 2^12 times,
/// when the interval is coarsened: calls that allocate from the driver are rare, slow and large, and by
/// their stacks reports know an allocator's segments.
const DEVICE_FINER: u8 = 24;
/// Steps that are tried at once: little is known of what was hardly sampled.
const AT_ONCE: u8 = 8;
/// A stack that was known costs at most so many times the mean, and this; what is above was spent
/// elsewhere: the thread lost its core.
const OUTLIER: (u64, u64) = (16, 10_000);

/// What is in force from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The step.
    pub to: u8,
    /// What stacks cost before, in millionths of a core.
    pub cost: u32,
}

/// Decides on the step that stacks are sampled at.
#[derive(Clone, Debug)]
pub struct Governor {
    /// What may be spent of a second, nanoseconds.
    budget: f64,
    finest: u8,
    step: u8,
    began: u64,
    until: u64,
    spent: u64,
    /// As much is spent and the window is over; `u64::MAX` where there is no budget.
    share: u64,
    stacks: u64,
    demand: Demand,
    /// Windows since the last change.
    since_change: u32,
    /// Windows in succession in which a finer interval would have fitted.
    low: u32,
    /// The finest that would have fitted in all of these.
    fits: u8,
    /// How long it takes until a finer interval is tried.
    patience: u32,
    /// A finer interval is in force for the first time since cost was too high.
    trying: bool,
    /// Mean cost of a stack that was known.
    mean: u64,
}

impl Governor {
    /// One that keeps stacks at `finest`, or coarser if more than `budget` of a core would be spent;
    /// `None` no limit.
    pub fn new(finest: u8, budget: Option<f64>) -> Governor {
        let governed = budget.filter(|_| finest != NONE);
        let budget = governed.unwrap_or(0.0) * WINDOW_NS as f64;
        Governor {
            budget,
            finest,
            step: finest,
            began: 0,
            until: governed.map_or(u64::MAX, |_| WINDOW_NS),
            spent: 0,
            share: governed.map_or(u64::MAX, |_| (budget as u64).max(1)),
            stacks: 0,
            demand: Demand::default(),
            since_change: SETTLING,
            low: 0,
            fits: finest,
            patience: PATIENCE.0,
            trying: false,
            mean: 0,
        }
    }

    /// Whether there is anything to keep.
    pub fn is_limited(&self) -> bool {
        self.share != u64::MAX
    }

    /// The step in force.
    pub fn step(&self) -> u8 {
        self.step
    }

    /// The finest step that is asked for.
    pub fn finest(&self) -> u8 {
        self.finest
    }

    /// What the walk of one stack cost, where that is believable.
    #[inline]
    pub fn believe(&mut self, ns: u64) -> u64 {
        let ns = match self.mean {
            0 => ns,
            mean => ns.min(OUTLIER.0 * mean + OUTLIER.1),
        };
        self.mean = match self.mean {
            0 => ns.clamp(1, 20 * OUTLIER.1),
            mean => (mean - mean / 64 + ns / 64).max(1),
        };
        ns
    }

    /// Mean cost of the walk of a stack, where nothing can be measured.
    pub fn mean(&self) -> u64 {
        self.mean
    }

    /// The steps of both lanes that go with one.
    pub fn lanes(&self, step: u8) -> [u8; 2] {
        let finest = self.finest;
        [step.saturating_sub(DEVICE_FINER).max(finest), step]
    }

    /// The stack of an allocation of `size` bytes was taken, which is sampled at a step, and took `ns`.
    #[inline]
    pub fn took(&mut self, lane: usize, size: u64, sampled: u8, ns: u64) {
        if self.is_limited() {
            self.spent = self.spent.saturating_add(ns);
            self.stacks += 1;
            if size != 0 {
                self.demand.add(lane, size, sampled);
            }
        }
    }

    /// Whether it is time to [`Governor::look`].
    #[inline(always)]
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.until || self.spent >= self.share
    }

    /// Looks whether another step is to be in force.
    #[cold]
    pub fn look(&mut self, now: u64) -> Option<Change> {
        let elapsed = now.saturating_sub(self.began).max(1_000);
        let overspent = self.spent >= self.share;
        if !overspent && elapsed < WINDOW_NS && self.stacks < ENOUGH {
            self.until = self.began.saturating_add(WINDOW_NS);
            return None;
        }
        let cost = self.spent as f64 / elapsed as f64 * WINDOW_NS as f64;
        let to = if cost > self.budget {
            self.coarser(elapsed)
        } else {
            self.finer(elapsed)
        };
        self.since_change = self.since_change.saturating_add(windows_in(elapsed));
        let change = (to != self.step).then(|| Change {
            to,
            cost: (cost / WINDOW_NS as f64 * 1e6).clamp(0.0, f64::from(u32::MAX)) as u32,
        });
        if change.is_some() {
            self.step = to;
            self.since_change = 0;
            (self.low, self.fits) = (0, self.finest);
        }
        let settling = self.since_change < SETTLING;
        self.began = now;
        self.until = now.saturating_add(if settling { SHORT_NS } else { WINDOW_NS });
        (self.spent, self.stacks) = (0, 0);
        self.demand = Demand::default();
        change
    }

    /// What stacks would cost at a step, of a second, if the next window were like this one.
    fn expected(&self, step: u8, elapsed: u64) -> f64 {
        let mean = self.spent as f64 / self.stacks.max(1) as f64;
        self.demand.stacks_at(self.lanes(step)) * mean * WINDOW_NS as f64 / elapsed as f64
    }

    /// The finest step from one on that would cost little enough.
    fn fitting(&self, from: u8, elapsed: u64) -> u8 {
        let room = MARGIN * self.budget;
        (from..COARSEST)
            .find(|&step| self.expected(step, elapsed) <= room)
            .unwrap_or(COARSEST)
    }

    /// The step that brings cost down to the budget.
    fn coarser(&mut self, elapsed: u64) -> u8 {
        if self.trying {
            // The last try came too early.
            self.trying = false;
            self.patience = (2 * self.patience).min(PATIENCE.1);
        }
        (self.low, self.fits) = (0, self.finest);
        self.fitting((self.step + 1).min(COARSEST), elapsed)
    }

    /// The step that would still fit the budget, if cost has been low for long enough.
    fn finer(&mut self, elapsed: u64) -> u8 {
        let fits = self.fitting(self.finest, elapsed);
        if fits >= self.step {
            (self.low, self.fits) = (0, self.finest);
            if self.since_change > 2 * self.patience {
                // What was tried is here to stay.
                self.trying = false;
                self.patience = (self.patience / 2).max(PATIENCE.0);
            }
            return self.step;
        }
        self.low = self.low.saturating_add(windows_in(elapsed));
        self.fits = self.fits.max(fits);
        // An interval that was coarsened by too much is put right at once, by what stacks cost with it.
        let settles = !self.trying && self.since_change < SETTLING && self.stacks >= ENOUGH;
        if !settles && self.low < self.patience {
            return self.step;
        }
        self.trying |= !settles;
        let fits = if settles { fits } else { self.fits };
        fits.max(self.step.saturating_sub(AT_ONCE)).min(self.step)
    }
}

/// A window that nothing ended stands for several.
fn windows_in(elapsed: u64) -> u32 {
    u32::try_from(elapsed / WINDOW_NS)
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests;
