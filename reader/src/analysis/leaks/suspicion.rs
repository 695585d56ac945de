//! How much a group looks like a leak that grows, and how much like something kept on purpose.

use crate::analysis::growth::{Shape, Trend};

/// A judgement by when a group's allocations were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suspicion {
    /// One allocation, or all in the first tenth of the run, or growth that stopped: a cache, a
    /// workspace, a singleton.
    Low,
    /// Neither of the others.
    Medium,
    /// It keeps growing, as `growth` judges. Where there are too few allocations for that: four
    /// or more, over at least a quarter of the run, the last in its second half.
    High,
}

impl Suspicion {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Suspicion::Low => "low",
            Suspicion::Medium => "medium",
            Suspicion::High => "high",
        }
    }

    /// Of `count` allocations made from `first` to `last` in a run of `duration`, nanoseconds
    /// since its start, whose ages have this shape.
    pub(super) fn of(count: u64, first: u64, last: u64, duration: u64, shape: Shape) -> Suspicion {
        let long = last.saturating_sub(first) >= duration / 4 && last >= duration / 2;
        match shape {
            _ if count <= 1 || last < duration / 10 => Suspicion::Low,
            Shape::Growing => Suspicion::High,
            Shape::WarmUp => Suspicion::Low,
            Shape::Renewed | Shape::Steps => Suspicion::Medium,
            Shape::Few | Shape::Unclear if count >= 4 && long => Suspicion::High,
            Shape::Few | Shape::Unclear => Suspicion::Medium,
        }
    }

    /// The same where it is known what was held over the whole time: that is said by more than the ages
    /// of what is left. A buffer that is made anew and larger each time is one young allocation.
    pub(super) fn with_course(self, trend: Trend) -> Suspicion {
        match trend {
            Trend::Rising => Suspicion::High,
            Trend::Level => self.min(Suspicion::Medium),
            Trend::Unclear => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told_from_what_was_kept() {
        for (count, first, last, shape, suspicion) in [
            (1, 90, 90, Shape::Few, Suspicion::Low),
            (100, 0, 9, Shape::WarmUp, Suspicion::Low),
            (100, 0, 90, Shape::WarmUp, Suspicion::Low),
            (100, 0, 99, Shape::Growing, Suspicion::High),
            (100, 70, 99, Shape::Renewed, Suspicion::Medium),
            (100, 20, 80, Shape::Steps, Suspicion::Medium),
            (4, 40, 80, Shape::Few, Suspicion::High),
            (3, 40, 80, Shape::Few, Suspicion::Medium),
            (40, 40, 49, Shape::Unclear, Suspicion::Medium),
        ] {
            let found = Suspicion::of(count, first, last, 100, shape);
            assert_eq!(found, suspicion, "{count} {first} {last} {shape:?}");
        }
    }
}
