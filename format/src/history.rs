//! Live bytes over time, in fixed space, at resolutions that coarsen with age.
//!
//! Each account that was ever used owns a series: [`LEVELS`] rings of [`CELLS_PER_LEVEL`] cells
//! (fewer in a small file). A cell of level 0 covers one second, each further level four times as
//! much: the last minutes to the second, a day to about 4 minutes, three weeks to about an hour;
//! the span of a cell stays below 1/100 of its age. The second that is not over yet stands in the
//! account itself, which every event writes anyway; when it is over, its cell enters all levels.
//! Minimum, maximum and last value do not depend on how often the same thing is folded in, so
//! history needs no journal.

use crate::publish::publish;
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
    /// 1 + which span of its level's length since the start of the trace; 0 never used.
    pub span: u64,
    /// Fewest live bytes.
    pub min: u64,
    /// Most live bytes.
    pub max: u64,
    /// Live bytes at the end of the span.
    pub last: u64,
}

const _: () = assert!(size_of::<Cell>() == 32);

impl Cell {
    /// What happened in a part of this cell's span, or in another one, which then takes its place. May be
    /// interrupted at each store, and done again.
    pub(crate) fn fold(&mut self, part: Cell) {
        if self.span == part.span {
            self.min = self.min.min(part.min);
            self.max = self.max.max(part.max);
            self.last = part.last;
        } else {
            publish(&mut self.span, 0);
            self.min = part.min;
            self.max = part.max;
            self.last = part.last;
            publish(&mut self.span, part.span);
        }
    }
}

/// Length of a level's cells, nanoseconds.
pub const fn span_ns(level: usize) -> u64 {
    FINEST_NS * COARSENING.pow(level as u32)
}

/// The span of level 0 that a time lies in. (136 years fit.)
#[inline(always)]
pub fn second_of(time: u64) -> u32 {
    ((time / FINEST_NS) as u32).saturating_add(1)
}

/// Event time at which a second starts, as [`second_of`] counts; 0 for none.
pub fn start_of(second: u32) -> u64 {
    u64::from(second.saturating_sub(1)) * FINEST_NS
}

/// Cells of a level, for a history section of this many cells.
pub fn cells_per_level(cells: usize) -> usize {
    (cells / WISHED_SERIES)
        .div_euclid(LEVELS)
        .clamp(MIN_CELLS_PER_LEVEL, CELLS_PER_LEVEL)
}

/// The history section.
pub struct History<'a> {
    cells: &'a mut [Cell],
    per_level: usize,
    /// Cells of a series.
    series_len: usize,
}

impl<'a> History<'a> {
    /// Over the cells of the history section.
    pub fn new(cells: &'a mut [Cell]) -> History<'a> {
        let per_level = cells_per_level(cells.len());
        History {
            cells,
            per_level,
            series_len: LEVELS * per_level,
        }
    }

    /// How many series there is room for.
    pub fn capacity(&self) -> u64 {
        (self.cells.len() / self.series_len) as u64
    }

    /// The used cells of one level of one series, in no particular order; none if there is no
    /// such series. The newest second is still in its account.
    pub fn level(&self, series: u64, level: usize) -> impl Iterator<Item = &Cell> {
        let start = self.range(series).map_or(self.cells.len(), |range| {
            range.start + level * self.per_level
        });
        self.cells
            .get(start..start + self.per_level)
            .unwrap_or_default()
            .iter()
            .filter(|cell| cell.span != 0)
    }

    /// A second is over: its cell enters every level. Does nothing for a series there is no room
    /// for.
    #[cold]
    pub fn enter(&mut self, series: u64, second: Cell) {
        let Some(range) = self.range(series) else {
            return;
        };
        let series = &mut self.cells[range];
        for level in 0..LEVELS {
            let span = second.span.saturating_sub(1) / COARSENING.pow(level as u32) + 1;
            let cell = &mut series[level * self.per_level + span as usize % self.per_level];
            cell.fold(Cell { span, ..second });
        }
    }

    #[inline]
    fn range(&self, series: u64) -> Option<std::ops::Range<usize>> {
        let start = (series as usize).checked_mul(self.series_len)?;
        let end = start.checked_add(self.series_len)?;
        (end <= self.cells.len()).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// An account whose live bytes change, and its history.
    fn change(history: &mut History<'_>, account: &mut Account, series: u64, time: u64, now: u64) {
        let before = std::mem::replace(&mut account.live_bytes, now);
        if let Some(over) = account.note_change(time, before) {
            history.enter(series, over);
        }
    }

    fn cells() -> Vec<Cell> {
        vec![Cell::default(); WISHED_SERIES * LEVELS * CELLS_PER_LEVEL]
    }

    #[test]
    fn a_week_of_seconds_keeps_its_extremes() {
        let mut cells = cells();
        let mut history = History::new(&mut cells);
        assert_eq!(history.capacity(), WISHED_SERIES as u64);
        let mut account = Account::default();
        let week = 7 * 24 * 3600;
        for second in 0..week {
            let now = if second == 1234 {
                1 << 40
            } else {
                1000 + second
            };
            change(&mut history, &mut account, 0, second * FINEST_NS, now);
        }
        let top = history.level(0, LEVELS - 1).map(|cell| cell.max).max();
        assert_eq!(
            top,
            Some(1 << 40),
            "a spike of one second on day one is still there"
        );
        let newest = history.level(0, 0).max_by_key(|cell| cell.span).unwrap();
        assert_eq!(newest.last, 1000 + week - 2);
        assert_eq!(account.this_second().unwrap().last, 1000 + week - 1);
    }

    proptest! {
        #[test]
        fn every_level_is_the_fold_of_its_seconds(steps in prop::collection::vec((0u64..5_000_000_000, 0u64..1000), 1..300)) {
            let mut cells = cells();
            let mut history = History::new(&mut cells);
            let mut account = Account::default();
            let mut seconds: BTreeMap<u64, Cell> = BTreeMap::new();
            let (mut time, mut before) = (0, 0);
            for (wait, now) in steps {
                time += wait;
                change(&mut history, &mut account, 1, time, now);
                let cell = seconds.entry(time / FINEST_NS).or_insert(Cell { min: before, max: before, ..Cell::default() });
                *cell = Cell { span: 0, min: cell.min.min(now), max: cell.max.max(now), last: now };
                before = now;
            }
            let (newest, open) = seconds.pop_last().unwrap();
            prop_assert_eq!(account.this_second(), Some(Cell { span: newest + 1, ..open }));
            for level in 0..LEVELS {
                let mut expected: BTreeMap<u64, Cell> = BTreeMap::new();
                for (second, cell) in &seconds {
                    let span = second / COARSENING.pow(level as u32) + 1;
                    let sum = expected.entry(span).or_insert(Cell { span, ..*cell });
                    *sum = Cell { span, min: sum.min.min(cell.min), max: sum.max.max(cell.max), last: cell.last };
                }
                let kept: BTreeMap<u64, Cell> = history.level(1, level).map(|cell| (cell.span, *cell)).collect();
                let oldest = expected.keys().last().map_or(0, |last| last.saturating_sub(CELLS_PER_LEVEL as u64 - 1));
                for (span, cell) in expected.range(oldest..) {
                    prop_assert_eq!(kept.get(span), Some(cell), "level {}", level);
                }
            }
        }
    }
}
