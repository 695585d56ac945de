//! Live bytes over time, in fixed space, at resolutions that coarsen with age.
//!
//! Each account that was ever used owns a series: a head cell, then [`LEVELS`] rings of
//! [`CELLS_PER_LEVEL`] cells (fewer in a small file). A cell of level 0 covers one second, each
//! further level four times as much: the last minutes to the second, a day to about 4 minutes,
//! three weeks to about an hour; the span of a cell stays below 1/100 of its age. A cell of
//! level 0 is folded into all coarser levels when it is left. Minimum, maximum and last value do
//! not depend on how often the same thing is folded in, so history needs no journal.

use bytemuck::{Pod, Zeroable};

/// Rings of a series.
pub const LEVELS: usize = 7;
/// Cells of a level in a series of full depth.
pub const CELLS_PER_LEVEL: usize = 512;
/// A cell of level 0, nanoseconds.
pub const FINEST_NS: u64 = 1_000_000_000;
/// How much coarser each level is.
pub const COARSENING: u64 = 4;
/// A small file has few series rather than uselessly shallow ones.
const MIN_CELLS_PER_LEVEL: usize = 32;
/// Series that a file should have room for: four devices with two layers, and host memory.
const WISHED_SERIES: usize = 9;

/// Live bytes during one span of time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Cell {
    /// 1 + which span of its level's length since the start of the trace; 0 never used. In a
    /// series' head: that of the newest cell of level 0.
    pub span: u64,
    /// Fewest live bytes. In a series' head: where that newest cell is, so that the usual event
    /// needs no division.
    pub min: u64,
    /// Most live bytes.
    pub max: u64,
    /// Live bytes at the end of the span.
    pub last: u64,
}

const _: () = assert!(size_of::<Cell>() == 32);

/// Length of a level's cells, nanoseconds.
pub const fn span_ns(level: usize) -> u64 {
    FINEST_NS * COARSENING.pow(level as u32)
}

/// Cells of a level, for a history section of this many cells.
pub fn cells_per_level(cells: usize) -> usize {
    (cells / WISHED_SERIES)
        .saturating_sub(1)
        .div_euclid(LEVELS)
        .clamp(MIN_CELLS_PER_LEVEL, CELLS_PER_LEVEL)
}

/// The history section.
pub struct History<'a> {
    cells: &'a mut [Cell],
    per_level: usize,
}

impl<'a> History<'a> {
    /// Over the cells of the history section.
    pub fn new(cells: &'a mut [Cell]) -> History<'a> {
        let per_level = cells_per_level(cells.len());
        History { cells, per_level }
    }

    /// How many series there is room for.
    pub fn capacity(&self) -> u64 {
        (self.cells.len() / self.series_len()) as u64
    }

    /// The used cells of one level of one series, in no particular order; none if there is no
    /// such series. The newest cell of level 0 is not yet folded into the coarser levels.
    pub fn level(&self, series: u64, level: usize) -> impl Iterator<Item = &Cell> {
        let start = self.range(series).map_or(self.cells.len(), |range| {
            range.start + 1 + level * self.per_level
        });
        self.cells
            .get(start..start + self.per_level)
            .unwrap_or_default()
            .iter()
            .filter(|cell| cell.span != 0)
    }

    /// Live bytes changed from `before` to `now`. Does nothing for a series there is no room for.
    #[inline]
    pub fn record(&mut self, series: u64, time: u64, before: u64, now: u64) {
        let Some(range) = self.range(series) else {
            return;
        };
        let per_level = self.per_level;
        let cells = &mut self.cells[range];
        let span = time / FINEST_NS + 1;
        let newest = cells[0];
        if newest.span == span
            && let Some(cell) = cells.get_mut(newest.min as usize)
        {
            cell.min = cell.min.min(now);
            cell.max = cell.max.max(now);
            cell.last = now;
        } else {
            enter(
                cells,
                per_level,
                Cell {
                    span,
                    min: before.min(now),
                    max: before.max(now),
                    last: now,
                },
            );
        }
    }

    fn series_len(&self) -> usize {
        1 + LEVELS * self.per_level
    }

    #[inline]
    fn range(&self, series: u64) -> Option<std::ops::Range<usize>> {
        let start = (series as usize).checked_mul(self.series_len())?;
        let end = start.checked_add(self.series_len())?;
        (end <= self.cells.len()).then_some(start..end)
    }
}

/// Opens a cell of level 0, after folding the one that is left into every coarser level.
#[cold]
fn enter(series: &mut [Cell], per_level: usize, opened: Cell) {
    let newest = series[0].span;
    let left = series[1 + newest as usize % per_level];
    if newest != 0 && left.span == newest {
        for level in 1..LEVELS {
            let span = (newest - 1) / COARSENING.pow(level as u32) + 1;
            let cell = &mut series[1 + level * per_level + span as usize % per_level];
            if cell.span == span {
                cell.min = cell.min.min(left.min);
                cell.max = cell.max.max(left.max);
                cell.last = left.last;
            } else {
                *cell = Cell { span, ..left };
            }
        }
    }
    let at = 1 + opened.span as usize % per_level;
    series[at] = opened;
    series[0] = Cell {
        span: opened.span,
        min: at as u64,
        ..Cell::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_week_of_seconds_keeps_its_extremes() {
        let mut cells = vec![Cell::default(); WISHED_SERIES * (1 + LEVELS * CELLS_PER_LEVEL)];
        let mut history = History::new(&mut cells);
        assert_eq!(history.capacity(), WISHED_SERIES as u64);
        let week = 7 * 24 * 3600;
        let mut before = 0;
        for second in 0..week {
            let now = if second == 1234 {
                1 << 40
            } else {
                1000 + second
            };
            history.record(0, second * FINEST_NS, before, now);
            before = now;
        }
        let top = history.level(0, LEVELS - 1).map(|cell| cell.max).max();
        assert_eq!(
            top,
            Some(1 << 40),
            "a spike of one second on day one is still there"
        );
        let newest = history.level(0, 0).max_by_key(|cell| cell.span).unwrap();
        assert_eq!(newest.last, 1000 + week - 1);
    }

    proptest! {
        #[test]
        fn every_level_is_the_fold_of_its_seconds(steps in prop::collection::vec((0u64..5_000_000_000, 0u64..1000), 1..300)) {
            let mut cells = vec![Cell::default(); WISHED_SERIES * (1 + LEVELS * CELLS_PER_LEVEL)];
            let mut history = History::new(&mut cells);
            let mut seconds: BTreeMap<u64, Cell> = BTreeMap::new();
            let (mut time, mut before) = (0, 0);
            for (wait, now) in steps {
                time += wait;
                history.record(1, time, before, now);
                let cell = seconds.entry(time / FINEST_NS).or_insert(Cell { min: before, max: before, ..Cell::default() });
                *cell = Cell { span: 0, min: cell.min.min(now), max: cell.max.max(now), last: now };
                before = now;
            }
            let newest = time / FINEST_NS;
            for level in 0..LEVELS {
                let mut expected: BTreeMap<u64, Cell> = BTreeMap::new();
                for (second, cell) in seconds.iter().filter(|(second, _)| level == 0 || **second < newest) {
                    let span = second / COARSENING.pow(level as u32) + 1;
                    let sum = expected.entry(span).or_insert(Cell { span, ..*cell });
                    *sum = Cell { span, min: sum.min.min(cell.min), max: sum.max.max(cell.max), last: cell.last };
                }
                let kept: BTreeMap<u64, Cell> = history.level(1, level).map(|cell| (cell.span, *cell)).collect();
                let oldest = expected.keys().rev().nth(CELLS_PER_LEVEL - 1).copied().unwrap_or(0);
                for (span, cell) in expected.range(oldest.max(expected.keys().last().map_or(0, |last| last.saturating_sub(CELLS_PER_LEVEL as u64 - 1)))..) {
                    prop_assert_eq!(kept.get(span), Some(cell), "level {}", level);
                }
            }
        }
    }
}
