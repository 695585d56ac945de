//! Which of several ranks is different: ranks of one program do the same, so that one that holds more than the
//! others holds something that they do not.
//!
//! What is usual is the median, and how far ranks are usually from it the median of their distances to it: neither
//! moves with the one that is different.

use super::view::ProcessView;
use std::collections::BTreeMap;

/// A rank differs by at least this part of what is usual …
const PART: u64 = 20;
/// … and by at least so many bytes …
const BYTES: u64 = 64 << 10;
/// … and by at least so many times as much as ranks usually do.
const TIMES: u64 = 5;

/// What one rank holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfRank {
    /// The rank.
    pub rank: u32,
    /// Ids of its processes.
    pub processes: Vec<usize>,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Whether it is different from the others; of two ranks nobody can tell which is.
    pub differs: bool,
}

/// Several ranks of one program side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// By rank, ascending.
    pub all: Vec<OfRank>,
    /// Bytes that a rank holds usually: the median.
    pub usual: u64,
}

impl Ranks {
    /// Compares what processes hold, bytes by process; `None` where there are not at least two ranks.
    pub fn compared(views: &[ProcessView], held: &[u64]) -> Option<Ranks> {
        let mut by_rank: BTreeMap<u32, (Vec<usize>, u64)> = BTreeMap::new();
        for (view, bytes) in views.iter().zip(held) {
            let Some(rank) = view.rank else { continue };
            let of = by_rank.entry(rank).or_default();
            of.0.push(view.id);
            of.1 = of.1.saturating_add(*bytes);
        }
        if by_rank.len() < 2 {
            return None;
        }
        let usual = median(by_rank.values().map(|of| of.1));
        let usually = median(by_rank.values().map(|of| of.1.abs_diff(usual)));
        let least = (usual / PART).max(BYTES).max(usually.saturating_mul(TIMES));
        let tells = by_rank.len() > 2;
        let of_rank = |(rank, (processes, bytes)): (u32, (Vec<usize>, u64))| OfRank {
            rank,
            processes,
            bytes,
            differs: tells && bytes.abs_diff(usual) >= least,
        };
        Some(Ranks {
            all: by_rank.into_iter().map(of_rank).collect(),
            usual,
        })
    }

    /// Those that are different.
    pub fn different(&self) -> impl Iterator<Item = &OfRank> {
        self.all.iter().filter(|of| of.differs)
    }
}

/// The lower of two in the middle, so that it is one of them.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Sampling, State};

    const MIB: u64 = 1 << 20;

    fn different(held: &[(Option<u32>, u64)]) -> Option<Vec<u32>> {
        let view = |(id, (rank, _)): (usize, &(Option<u32>, u64))| ProcessView {
            id,
            pid: 100 + id as u32,
            program: String::new(),
            name: String::new(),
            rank: *rank,
            host: String::new(),
            start_ns: 0,
            duration_ns: 0,
            end: State::Exited,
            trace: "a.vrt".into(),
            sampling: Sampling::default(),
        };
        let views: Vec<ProcessView> = held.iter().enumerate().map(view).collect();
        let bytes: Vec<u64> = held.iter().map(|(_, bytes)| *bytes).collect();
        let ranks = Ranks::compared(&views, &bytes)?;
        Some(ranks.different().map(|of| of.rank).collect())
    }

    fn of_ranks(held: &[u64]) -> Option<Vec<u32>> {
        let held: Vec<_> = (0..).map(Some).zip(held.iter().copied()).collect();
        different(&held)
    }

    #[test]
    fn the_one_that_holds_more_or_less() {
        assert_eq!(
            of_ranks(&[10 * MIB, 10 * MIB, 40 * MIB, 10 * MIB]),
            Some(vec![2])
        );
        assert_eq!(of_ranks(&[10 * MIB, 10 * MIB, 0, 10 * MIB]), Some(vec![2]));
        assert_eq!(of_ranks(&[0, 0, 0, MIB]), Some(vec![3]));
        assert_eq!(of_ranks(&[u64::MAX, 0, 0]), Some(vec![0]));
    }

    #[test]
    fn what_ranks_usually_differ_by_is_no_difference() {
        assert_eq!(of_ranks(&[10 * MIB; 8]), Some(vec![]));
        // Each has another number of samples.
        assert_eq!(
            of_ranks(&[100 * MIB, 104 * MIB, 97 * MIB, 102 * MIB]),
            Some(vec![])
        );
        assert_eq!(
            of_ranks(&[10 * MIB, 20 * MIB, 30 * MIB, 40 * MIB]),
            Some(vec![])
        );
        assert_eq!(of_ranks(&[0, 0, 0, 512]), Some(vec![]));
    }

    #[test]
    fn of_two_nobody_can_tell() {
        assert_eq!(of_ranks(&[10 * MIB, 40 * MIB]), Some(vec![]));
        assert_eq!(of_ranks(&[10 * MIB]), None);
        assert_eq!(different(&[(None, 0), (None, MIB), (None, MIB)]), None);
    }

    #[test]
    fn processes_of_a_rank_are_one() {
        let held = [
            (Some(0), MIB),
            (Some(1), MIB),
            (Some(2), MIB),
            (Some(1), 9 * MIB),
            (None, 99 * MIB),
        ];
        assert_eq!(different(&held), Some(vec![1]));
    }
}
