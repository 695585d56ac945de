//! Sampled stacks: which intervals there are, what a sampled allocation stands for, and where a trace
//! keeps what was sampled when.
//!
//! Under an interval of R bytes a point falls on every R-th allocated byte on average, at random
//! (a Poisson process), and an allocation has its stack taken if a point falls on it: with the
//! probability p = 1 - exp(-size / R). Allocations of R bytes and more always have theirs. One that was
//! sampled stands for 1 / p of its kind, so that sums of size / p are right on average for every stack
//! (Horvitz and Thompson's estimator), whatever intervals came after each other. Only stacks are
//! estimated: every allocation is counted, with its size.
//!
//! [`crate::Record::sampled`] says for each allocation by which interval it stands for others. What the
//! tables add up are whole numbers, the same when an allocation ends as when it began.

use bytemuck::{Pod, Zeroable};

/// The coarsest step there is: 384 TiB, more than a program allocates in a day.
pub const COARSEST: u8 = 95;

/// The interval of a step, bytes; 0 at step 0, where all stacks are taken. Steps are the powers of two
/// and what lies halfway between them: 3, 4, 6, 8, 12, …
pub const fn interval(step: u8) -> u64 {
    match step {
        0 => 0,
        step if step > COARSEST => interval(COARSEST),
        step => (2 + (step as u64 & 1)) << (step >> 1),
    }
}

/// The coarsest step whose interval is at most so many bytes; of 1 and 2 bytes, step 0.
pub const fn step_of(bytes: u64) -> u8 {
    let mut step = 0;
    while step < COARSEST && interval(step + 1) <= bytes {
        step += 1;
    }
    step
}

/// Fractional bits of [`Weight::count`].
pub const COUNT_BITS: u32 = 12;

/// What a sampled allocation stands for beyond itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes: size / p - size.
    pub bytes: u64,
    /// Allocations, in parts of 2^-[`COUNT_BITS`]: 1 / p - 1.
    pub count: u64,
}

/// What an allocation of `size` bytes that was sampled at a step stands for beyond itself: nothing at
/// step 0 and from the interval on, where every stack is taken.
pub fn weight(size: u64, step: u8) -> Weight {
    let (size, interval) = (size.max(1), interval(step));
    if size >= interval {
        return Weight::default();
    }
    let more = 1.0 / odds(size as f64 / interval as f64);
    Weight {
        bytes: (size as f64 * more + 0.5) as u64,
        count: (more * f64::from(1 << COUNT_BITS) + 0.5) as u64,
    }
}

/// The probability that the stack of an allocation of `size` bytes is taken at a step.
pub fn probability(size: u64, step: u8) -> f64 {
    let (size, interval) = (size.max(1), interval(step));
    if size >= interval {
        return 1.0;
    }
    let odds = odds(size as f64 / interval as f64);
    odds / (1.0 + odds)
}

/// exp(x) - 1 for x from 0 to 1: how much more likely an allocation is to be taken than not. A sum, to
/// within the last bits of what it stands for: the C library's function of newer systems is not to be
/// had on older ones.
fn odds(x: f64) -> f64 {
    let mut sum = 1.0;
    let mut term = 19u32;
    while term > 1 {
        sum = 1.0 + sum * x / f64::from(term);
        term -= 1;
    }
    x * sum
}

/// Rows of the section: a [`Head`], one [`Step`] for each step, and the last [`Change`]s.
pub const ROWS: usize = 1 + COARSEST as usize + 1 + CHANGES;
/// Changes of the interval that are kept, the newest ones.
pub const CHANGES: usize = 64;

/// One row of the section, as its words.
pub type Row = [u64; 8];

/// The whole section: what was sampled when, and what stacks cost. Written by whoever holds the trace, by
/// plain stores that no journal saves: a kill leaves it at most one event behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sampling {
    /// Sums and settings.
    pub head: Head,
    /// By step.
    pub steps: [Step; COARSEST as usize + 1],
    /// The n-th change, from 0, is at n mod [`CHANGES`].
    pub changes: [Change; CHANGES],
}

/// Sums and settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Head {
    /// What stacks may cost, in millionths of a core; 0 no limit.
    pub budget: u32,
    /// The finest step that is asked for; 255 no stack of any allocation.
    pub finest: u8,
    /// The step in force.
    pub step: u8,
    /// 0.
    pub reserved: u16,
    /// Since when that step is in force, event time.
    pub since: u64,
    /// What stacks took altogether, nanoseconds; measured.
    pub stack_ns: u64,
    /// Stacks that were taken.
    pub stacks: u64,
    /// What events took that were measured, nanoseconds, without their stacks.
    pub event_ns: u64,
    /// Events that were measured.
    pub events: u64,
    /// Changes of the step.
    pub changes: u64,
    /// Allocations whose stack was not taken because they were not sampled.
    pub not_sampled: u64,
}

/// What [`Head::finest`] says where no stack of any allocation is wanted.
pub const NONE: u8 = 255;

/// One step, over the whole life of the process, but for the time since [`Head::since`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Step {
    /// How long it was in force, nanoseconds.
    pub ns: u64,
    /// What stacks took meanwhile, nanoseconds.
    pub stack_ns: u64,
    /// Stacks that were taken meanwhile.
    pub stacks: u64,
    /// When it was in force for the first time, event time.
    pub first: u64,
    /// When it was in force last, event time.
    pub last: u64,
    /// How often it was put in force.
    pub times: u64,
    /// 0.
    pub reserved: [u64; 2],
}

/// One change of the step in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Change {
    /// Its event.
    pub seq: u64,
    /// When, event time.
    pub time: u64,
    /// The step before.
    pub from: u8,
    /// The step from here on.
    pub to: u8,
    /// 0.
    pub reserved: [u8; 2],
    /// What stacks cost before it, in millionths of a core.
    pub cost: u32,
    /// 0.
    pub unused: [u64; 5],
}

const _: () = assert!(size_of::<Sampling>() == ROWS * size_of::<Row>());
const _: () = assert!(size_of::<Head>() == 64 && size_of::<Step>() == 64);
const _: () = assert!(size_of::<Change>() == 64);

impl Sampling {
    /// The step in force changes at an event; `cost` is what stacks cost before, in millionths of a
    /// core.
    pub fn change(&mut self, seq: u64, time: u64, to: u8, cost: u32) {
        let from = self.head.step;
        if let Some(step) = self.steps.get_mut(usize::from(from)) {
            step.ns = step.ns.saturating_add(time.saturating_sub(self.head.since));
            step.last = time;
        }
        self.begin(time, to);
        let at = (self.head.changes % CHANGES as u64) as usize;
        self.changes[at] = Change {
            seq,
            time,
            from,
            to,
            cost,
            ..Change::default()
        };
        self.head.changes += 1;
    }

    /// A step is in force from here on.
    pub fn begin(&mut self, time: u64, step: u8) {
        self.head.step = step;
        self.head.since = time;
        if let Some(step) = self.steps.get_mut(usize::from(step)) {
            if step.times == 0 {
                step.first = time;
            }
            step.last = time;
            step.times += 1;
        }
    }

    /// Stacks were taken, `ns` long altogether.
    #[inline(always)]
    pub fn took(&mut self, stacks: u64, ns: u64) {
        self.head.stacks = self.head.stacks.wrapping_add(stacks);
        self.head.stack_ns = self.head.stack_ns.wrapping_add(ns);
        if let Some(step) = self.steps.get_mut(usize::from(self.head.step)) {
            step.stacks = step.stacks.wrapping_add(stacks);
            step.stack_ns = step.stack_ns.wrapping_add(ns);
        }
    }

    /// The last changes that are kept, oldest first.
    pub fn last_changes(&self) -> impl Iterator<Item = &Change> {
        let kept = self.head.changes.min(CHANGES as u64);
        let first = self.head.changes - kept;
        (first..self.head.changes).map(|n| &self.changes[(n % CHANGES as u64) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_powers_of_two_and_what_lies_between() {
        let first: Vec<u64> = (0..8).map(interval).collect();
        assert_eq!(first, [0, 3, 4, 6, 8, 12, 16, 24]);
        assert_eq!(interval(COARSEST), 3 << 47);
        assert_eq!(interval(255), 3 << 47);
        for step in 1..=COARSEST {
            assert_eq!(step_of(interval(step)), step);
            assert_eq!(step_of(interval(step) - 1), step - 1);
            assert!(interval(step) > interval(step - 1));
        }
        assert_eq!(interval(step_of(512 << 10)), 512 << 10);
        assert_eq!(step_of(u64::MAX), COARSEST);
    }

    #[test]
    fn a_weight_is_what_the_probability_leaves_out() {
        for step in 1..=COARSEST {
            let interval = interval(step);
            for size in [1, 2, 512, 4096, interval / 3, interval - 1] {
                if size == 0 || size >= interval {
                    continue;
                }
                let p = -(-(size as f64) / interval as f64).exp_m1();
                assert!((probability(size, step) / p - 1.0).abs() < 1e-12);
                let weight = weight(size, step);
                let bytes = size as f64 * (1.0 / p - 1.0);
                assert!((weight.bytes as f64 - bytes).abs() <= 0.5 + bytes * 1e-12);
                let count = (1.0 / p - 1.0) * 4096.0;
                assert!((weight.count as f64 - count).abs() <= 0.5 + count * 1e-12);
            }
            assert_eq!(weight(interval, step), Weight::default());
            assert!((probability(interval, step) - 1.0).abs() < f64::EPSILON);
        }
        assert_eq!(weight(512, 0), Weight::default());
        assert_eq!(weight(0, 20), weight(1, 20));
    }

    #[test]
    fn time_and_cost_are_kept_by_step() {
        let mut sampling: Box<Sampling> = Box::new(Sampling::zeroed());
        sampling.begin(0, 0);
        sampling.took(3, 30);
        for n in 0..100u64 {
            let to = [5, 0][(n % 2) as usize];
            sampling.change(n, 10 * (n + 1), to, 7);
            sampling.took(1, 2);
        }
        assert_eq!((sampling.head.stacks, sampling.head.stack_ns), (103, 230));
        assert_eq!((sampling.steps[0].ns, sampling.steps[5].ns), (500, 500));
        assert_eq!((sampling.steps[0].times, sampling.steps[5].times), (51, 50));
        assert_eq!(sampling.steps[5].first, 10);
        assert_eq!(sampling.steps[0].stacks, 53);
        let kept: Vec<u64> = sampling.last_changes().map(|change| change.seq).collect();
        assert_eq!(kept, (36..100).collect::<Vec<u64>>());
    }
}
