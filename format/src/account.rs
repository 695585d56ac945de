//! One row per device and layer: the sums that are always exact.

use crate::history::{self, Cell};
use crate::publish::in_order;
use crate::record::{Layer, NO_DEVICE, Op, Record};
use bytemuck::{Pod, Zeroable};

/// Devices with accounts of their own; a process's further devices share the last.
pub const MAX_DEVICES: usize = 32;
/// Two layers a device, and host memory.
pub const ACCOUNT_ROWS: usize = 2 * MAX_DEVICES + 1;
/// Row of page-locked host memory (and of events that belong to no device).
pub const HOST_ROW: usize = 2 * MAX_DEVICES;

/// Sums of one layer of one device (or of host memory). Bytes are bytes asked for.
///
/// The first [`Account::USUAL_WORDS`] words are all that an allocation or a free changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Account {
    /// Bytes live now.
    pub live_bytes: u64,
    /// Allocations live now.
    pub live_count: u64,
    /// Bytes ever allocated.
    pub alloc_bytes: u64,
    /// Allocations ever made.
    pub alloc_count: u64,
    /// Most bytes that were ever live.
    pub peak_bytes: u64,
    /// Increased whenever `live_bytes` passes `peak_bytes`; gives [`crate::totals::Totals`] their
    /// shares of the peak without touching more than one row an event.
    pub peak_epoch: u64,
    /// The second that the next two words tell of, as [`Cell::span`] counts; 0 none yet. Its cell
    /// enters the history when the second is over.
    pub second: u32,
    /// 1 + index of this account's history series; 0 none.
    pub series: u32,
    /// Fewest bytes live during that second.
    pub second_min: u64,
    /// Most bytes live during that second.
    pub second_max: u64,
    /// When the peak was reached, event time. To the second where a free that failed reached it.
    pub peak_time: u64,
    /// Bytes that ended with their context or by a reset.
    pub ended_bytes: u64,
    /// Allocations that ended so.
    pub ended_count: u64,
    /// By how much gauges grew in place, less by how much they shrank (wrapping).
    pub resized_bytes: u64,
    /// Bytes of allocations that found no room in the live table; in none of the sums above.
    pub dropped_bytes: u64,
    /// Allocations of that kind. Above 0 the live set is not exact.
    pub dropped_count: u64,
    /// Allocations that failed; stays at its greatest value.
    pub failed_count: u32,
    /// Frees of something that was not live here; stays at its greatest value.
    pub unmatched_count: u32,
}

const _: () = assert!(size_of::<Account>() == 128);

/// The account row of a device's layer.
#[inline(always)]
pub fn index(device: u8, layer: Layer) -> usize {
    match layer {
        Layer::Host => HOST_ROW,
        _ if device == NO_DEVICE => HOST_ROW,
        layer => usize::from(device).min(MAX_DEVICES - 1) * 2 + layer as usize,
    }
}

/// Which device and layer a row stands for; `None` as device for host memory.
pub fn of_index(row: usize) -> (Option<u8>, Layer) {
    match row {
        HOST_ROW => (None, Layer::Host),
        row if row % 2 == 0 => (Some((row / 2) as u8), Layer::Device),
        row => (Some((row / 2) as u8), Layer::Framework),
    }
}

impl Account {
    /// Words at the start that an allocation or a free changes.
    pub const USUAL_WORDS: usize = 10;

    /// Adds one event to the sums. They wrap instead of panicking: a damaged file may hold
    /// anything.
    #[inline(always)]
    pub fn apply(&mut self, op: Op, event: &Record) {
        let size = event.size;
        match op {
            Op::Alloc => {
                self.live_count = self.live_count.wrapping_add(1);
                self.alloc_bytes = self.alloc_bytes.wrapping_add(size);
                self.alloc_count = self.alloc_count.wrapping_add(1);
                self.set_live(self.live_bytes.wrapping_add(size), event.time);
            }
            Op::Restore => {
                self.live_count = self.live_count.wrapping_add(1);
                // It has the time of its allocation. A peak that it makes again was reached after the
                // last one, and not before the last second in which anything changed.
                let time = event
                    .time
                    .max(self.peak_time)
                    .max(history::start_of(self.second));
                self.set_live(self.live_bytes.wrapping_add(size), time);
            }
            Op::Resize => {
                let growth = size.wrapping_sub(event.aux);
                self.resized_bytes = self.resized_bytes.wrapping_add(growth);
                self.set_live(self.live_bytes.wrapping_add(growth), event.time);
            }
            Op::AllocFailed | Op::FrameworkOom => {
                self.failed_count = self.failed_count.saturating_add(1);
            }
            Op::FreeUnmatched => self.unmatched_count = self.unmatched_count.saturating_add(1),
            op if op.ends_allocation() => {
                self.live_bytes = self.live_bytes.wrapping_sub(size);
                self.live_count = self.live_count.wrapping_sub(1);
                if matches!(op, Op::EndByContext | Op::EndByReset) {
                    self.ended_bytes = self.ended_bytes.wrapping_add(size);
                    self.ended_count = self.ended_count.wrapping_add(1);
                }
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn set_live(&mut self, bytes: u64, time: u64) {
        self.live_bytes = bytes;
        if bytes > self.peak_bytes {
            self.peak_bytes = bytes;
            self.peak_epoch = self.peak_epoch.wrapping_add(1);
            self.peak_time = time;
        }
    }

    /// Whether events of this op change nothing but the usual words.
    #[inline(always)]
    pub(crate) fn is_usual(op: Op) -> bool {
        matches!(
            op,
            Op::Alloc | Op::Restore | Op::Free | Op::FreeUnseen | Op::FreeInTeardown
        )
    }

    /// Bytes freed (by the program; also unseen frees and teardown).
    pub fn freed_bytes(&self) -> u64 {
        self.alloc_bytes
            .wrapping_add(self.resized_bytes)
            .wrapping_sub(self.live_bytes)
            .wrapping_sub(self.ended_bytes)
    }

    /// Frees.
    pub fn freed_count(&self) -> u64 {
        self.alloc_count
            .wrapping_sub(self.live_count)
            .wrapping_sub(self.ended_count)
    }

    /// Live bytes so far in the second that is not in the history yet.
    pub fn this_second(&self) -> Option<Cell> {
        (self.second != 0).then_some(Cell {
            span: u64::from(self.second),
            min: self.second_min,
            max: self.second_max,
            last: self.live_bytes,
        })
    }

    /// Whether the second that is kept here is over at `time`. A time that lies further back counts as
    /// this second.
    #[inline(always)]
    pub(crate) fn is_over(&self, time: u64) -> bool {
        history::second_of(time) > self.second
    }

    /// Live bytes are what they will be counted as, in a second that is not over.
    #[inline(always)]
    pub(crate) fn note_live(&mut self) {
        self.second_min = self.second_min.min(self.live_bytes);
        self.second_max = self.second_max.max(self.live_bytes);
    }

    /// Live bytes changed at `time`, `before` being what they were. A second that is over is
    /// returned, for the history; a time that lies further back counts as this second.
    #[inline(always)]
    pub fn note_change(&mut self, time: u64, before: u64) -> Option<Cell> {
        let second = history::second_of(time);
        if second > self.second {
            return self.begin_second(second, before);
        }
        self.note_live();
        None
    }

    /// A second is over, and in history; another begins with `before` bytes. Interrupted before its
    /// last store, the second is still the one that is over.
    pub(crate) fn turn(&mut self, second: u32, before: u64) {
        self.second_min = before;
        self.second_max = before;
        in_order();
        self.second = second;
        in_order();
    }

    #[cold]
    fn begin_second(&mut self, second: u32, before: u64) -> Option<Cell> {
        let over = self.this_second().map(|cell| Cell {
            last: before,
            ..cell
        });
        self.second = second;
        self.second_min = before.min(self.live_bytes);
        self.second_max = before.max(self.live_bytes);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_indices_are_inverse() {
        for row in 0..ACCOUNT_ROWS {
            let (device, layer) = of_index(row);
            assert_eq!(index(device.unwrap_or(NO_DEVICE), layer), row);
        }
        assert_eq!(index(200, Layer::Device), index(31, Layer::Device));
        assert_eq!(index(0, Layer::Host), HOST_ROW);
    }

    #[test]
    fn a_peak_reached_by_a_free_that_failed_is_not_dated_back() {
        let mut account = Account::default();
        let mut event = |op: Op, size, time| {
            let event = Record {
                size,
                time,
                ..Record::default()
            };
            let before = account.live_bytes;
            account.apply(op, &event);
            account.note_change(time, before);
            (account.peak_bytes, account.peak_time)
        };
        let second = 1_000_000_000;
        event(Op::Alloc, 100, second);
        event(Op::Free, 100, 8 * second);
        assert_eq!(event(Op::Alloc, 60, 8 * second + 5), (100, second));
        assert_eq!(event(Op::Restore, 100, second), (160, 8 * second));
        event(Op::Free, 100, 8 * second + 6);
        assert_eq!(event(Op::Alloc, 70, 8 * second + 7), (160, 8 * second));
        assert_eq!(event(Op::Restore, 100, second), (230, 8 * second));
    }

    #[test]
    fn what_was_freed_follows_from_the_other_sums() {
        let mut account = Account::default();
        let event = |size, aux| Record {
            size,
            aux,
            ..Record::default()
        };
        for (op, event) in [
            (Op::Alloc, event(100, 0)),
            (Op::Alloc, event(30, 0)),
            (Op::Resize, event(50, 30)),
            (Op::Free, event(100, 0)),
            (Op::Restore, event(100, 0)),
            (Op::EndByReset, event(100, 0)),
            (Op::Resize, event(10, 50)),
            (Op::FreeInTeardown, event(10, 0)),
        ] {
            account.apply(op, &event);
        }
        assert_eq!((account.live_bytes, account.live_count), (0, 0));
        assert_eq!((account.ended_bytes, account.ended_count), (100, 1));
        assert_eq!((account.freed_bytes(), account.freed_count()), (10, 1));
        assert_eq!(account.peak_bytes, 150);
    }
}
