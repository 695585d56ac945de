//! How much a group looks like a leak that grows, and how much like something kept on purpose.

/// A judgement by when a group's allocations were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suspicion {
    /// One allocation, or all in the first tenth of the run: a cache, a workspace, a singleton.
    Low,
    /// Neither of the others.
    Medium,
    /// Four or more, over at least a quarter of the run, the last in its second half: it goes on.
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
    /// since its start.
    pub(super) fn of(count: u64, first: u64, last: u64, duration: u64) -> Suspicion {
        if count <= 1 || last < duration / 10 {
            Suspicion::Low
        } else if count >= 4 && last.saturating_sub(first) >= duration / 4 && last >= duration / 2 {
            Suspicion::High
        } else {
            Suspicion::Medium
        }
    }
}
