//! What would give memory back, with numbers; nothing where the data does not support it.

use super::segments::{Pool, Segment};
use crate::analysis::Sum;

/// Less than this is not worth a setting: bytes, and share of what is held.
const WORTH: (u64, f64) = (64 << 20, 0.1);
/// PyTorch keeps blocks from this size on in segments of their own size.
const LARGE: u64 = 20 << 20;

/// One piece of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// `expandable_segments:True`: so much lies free between blocks, where it cannot go back.
    Expandable {
        /// Bytes, in so many segments.
        trapped: Sum,
    },
    /// `garbage_collection_threshold`, or `torch.cuda.empty_cache()`: so much lies in segments
    /// without blocks.
    Collect {
        /// Bytes, in so many segments.
        empty: Sum,
    },
    /// `max_split_size_mb`: large segments are kept by small blocks.
    MaxSplit {
        /// What lies free in them, and in how many.
        trapped: Sum,
        /// The setting, MiB: above the blocks that keep them.
        mib: u64,
    },
    /// A release threshold, or a trim: so much does a pool of the driver hold without using it.
    Trim {
        /// The pool.
        pool: u64,
        /// Bytes.
        unused: u64,
    },
}

impl Advice {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Advice::Expandable { .. } => "expandable-segments",
            Advice::Collect { .. } => "garbage-collection-threshold",
            Advice::MaxSplit { .. } => "max-split-size-mb",
            Advice::Trim { .. } => "pool-release-threshold",
        }
    }

    /// Bytes that it is about.
    pub const fn bytes(self) -> u64 {
        match self {
            Advice::Expandable { trapped } | Advice::MaxSplit { trapped, .. } => trapped.bytes,
            Advice::Collect { empty } => empty.bytes,
            Advice::Trim { unused, .. } => unused,
        }
    }
}

/// Advice for one device, what is about most bytes first.
pub fn advice(segments: &[&Segment], pools: &[&Pool]) -> Vec<Advice> {
    let reserved: u64 = segments
        .iter()
        .fold(0, |sum, one| sum.saturating_add(one.size));
    let is_worth = |bytes: u64, of: u64| bytes >= WORTH.0 && bytes as f64 >= WORTH.1 * of as f64;
    let sum = |wanted: &dyn Fn(&Segment) -> bool| {
        let mut sum = Sum::default();
        let wanted = segments.iter().filter(|segment| wanted(segment));
        wanted.for_each(|segment| sum.add(segment.free(), 1));
        sum
    };
    let is_empty = |segment: &Segment| segment.used().count == 0;
    let mut advice = Vec::new();
    let empty = sum(&is_empty);
    if is_worth(empty.bytes, reserved) {
        advice.push(Advice::Collect { empty });
    }
    let is_trapped = |segment: &Segment| !segment.expandable && !is_empty(segment);
    let trapped = sum(&|segment| is_trapped(segment) && segment.free() > 0);
    if is_worth(trapped.bytes, reserved) {
        advice.push(Advice::Expandable { trapped });
    }
    // Kept by blocks that are small beside it, though it was made for a large one.
    let is_split = |segment: &Segment| {
        let small = segment.largest_used() <= segment.size / 4;
        is_trapped(segment) && segment.size >= 2 * LARGE && small
    };
    let split = sum(&is_split);
    if is_worth(split.bytes, reserved) {
        let kept_by = segments.iter().filter(|segment| is_split(segment));
        let largest = kept_by.map(|segment| segment.largest_used()).max();
        let mib = largest.unwrap_or(0).max(LARGE + 1).div_ceil(1 << 20);
        advice.push(Advice::MaxSplit {
            trapped: split,
            mib,
        });
    }
    for pool in pools
        .iter()
        .filter(|pool| is_worth(pool.free(), pool.reserved))
    {
        advice.push(Advice::Trim {
            pool: pool.id,
            unused: pool.free(),
        });
    }
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.bytes()));
    advice
}

#[cfg(test)]
mod tests {
    use super::super::segments::Block;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A segment of so many MiB, with blocks of so many at its start.
    fn segment(mib: u64, blocks: &[u64], expandable: bool) -> Segment {
        let mut at = 0;
        let mut tile = |size: u64, used| {
            let address = at;
            at += size;
            Block {
                address,
                size,
                used,
            }
        };
        let mut tiles: Vec<Block> = blocks.iter().map(|mib| tile(mib * MIB, true)).collect();
        let rest = mib - blocks.iter().sum::<u64>();
        tiles.push(tile(rest * MIB, false));
        Segment {
            device: 0,
            address: 0,
            size: mib * MIB,
            expandable,
            blocks: tiles,
        }
    }

    fn names(segments: &[Segment]) -> Vec<&'static str> {
        let segments: Vec<&Segment> = segments.iter().collect();
        advice(&segments, &[])
            .iter()
            .map(|one| one.name())
            .collect()
    }

    #[test]
    fn advice_is_about_what_is_there() {
        let none: [&str; 0] = [];
        assert_eq!(names(&[segment(1000, &[950], false)]), none);
        assert_eq!(names(&[segment(60, &[], false)]), none, "too little");
        assert_eq!(
            names(&[segment(1000, &[], false)]),
            ["garbage-collection-threshold"]
        );
        assert_eq!(
            names(&[segment(1000, &[500], false)]),
            ["expandable-segments"]
        );
        assert_eq!(
            names(&[segment(1000, &[500], true)]),
            none,
            "they are already"
        );
        let split = [segment(1000, &[10, 30], false)];
        assert_eq!(names(&split), ["expandable-segments", "max-split-size-mb"]);
        let split: Vec<&Segment> = split.iter().collect();
        let mib = advice(&split, &[]).iter().find_map(|one| match one {
            Advice::MaxSplit { mib, .. } => Some(*mib),
            _ => None,
        });
        assert_eq!(mib, Some(30));
    }
}
