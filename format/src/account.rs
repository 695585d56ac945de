//! One row per device and layer: the sums that are always exact.

use crate::record::{Layer, NO_DEVICE, Op, Record};
use bytemuck::{Pod, Zeroable};

/// Devices with accounts of their own; a process's further devices share the last.
pub const MAX_DEVICES: usize = 32;
/// Two layers a device, and host memory.
pub const ACCOUNT_ROWS: usize = 2 * MAX_DEVICES + 1;
/// Row of page-locked host memory (and of events that belong to no device).
pub const HOST_ROW: usize = 2 * MAX_DEVICES;

/// Sums of one layer of one device (or of host memory). Bytes are bytes asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Account {
    /// Bytes live now.
    pub live_bytes: u64,
    /// Allocations live now.
    pub live_count: u64,
    /// Most bytes that were ever live.
    pub peak_bytes: u64,
    /// Increased whenever `live_bytes` passes `peak_bytes`; gives [`crate::totals::Totals`] their
    /// shares of the peak without touching more than one row an event.
    pub peak_epoch: u64,
    /// When the peak was reached, event time.
    pub peak_time: u64,
    /// Bytes ever allocated.
    pub alloc_bytes: u64,
    /// Allocations ever made.
    pub alloc_count: u64,
    /// Bytes freed (by the program; also unseen frees and teardown).
    pub freed_bytes: u64,
    /// Frees.
    pub freed_count: u64,
    /// Bytes that ended with their context or by a reset.
    pub ended_bytes: u64,
    /// Allocations that ended so.
    pub ended_count: u64,
    /// Bytes of allocations that found no room in the live table; in none of the sums above.
    pub dropped_bytes: u64,
    /// Allocations of that kind. Above 0 the live set is not exact.
    pub dropped_count: u64,
    /// Allocations that failed.
    pub failed_count: u64,
    /// Frees of something that was not live here.
    pub unmatched_count: u64,
    /// 1 + index of this account's history series; 0 none.
    pub series: u64,
}

const _: () = assert!(size_of::<Account>() == 128);

/// The account row of a device's layer.
#[inline]
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
    /// Adds one event. Sums wrap instead of panicking: a damaged file may hold anything.
    #[inline]
    pub fn apply(&mut self, op: Op, event: &Record) {
        let size = event.size;
        match op {
            Op::Alloc => {
                self.add_live(size, event.time);
                self.live_count = self.live_count.wrapping_add(1);
                self.alloc_bytes = self.alloc_bytes.wrapping_add(size);
                self.alloc_count = self.alloc_count.wrapping_add(1);
            }
            Op::Restore => {
                self.add_live(size, event.time);
                self.live_count = self.live_count.wrapping_add(1);
                self.freed_bytes = self.freed_bytes.wrapping_sub(size);
                self.freed_count = self.freed_count.wrapping_sub(1);
            }
            Op::Free | Op::FreeUnseen | Op::FreeInTeardown => {
                self.live_bytes = self.live_bytes.wrapping_sub(size);
                self.live_count = self.live_count.wrapping_sub(1);
                self.freed_bytes = self.freed_bytes.wrapping_add(size);
                self.freed_count = self.freed_count.wrapping_add(1);
            }
            Op::EndByContext | Op::EndByReset => {
                self.live_bytes = self.live_bytes.wrapping_sub(size);
                self.live_count = self.live_count.wrapping_sub(1);
                self.ended_bytes = self.ended_bytes.wrapping_add(size);
                self.ended_count = self.ended_count.wrapping_add(1);
            }
            Op::Resize => {
                self.live_bytes = self.live_bytes.wrapping_sub(event.aux);
                self.add_live(size, event.time);
            }
            Op::AllocFailed => self.failed_count = self.failed_count.wrapping_add(1),
            Op::FreeUnmatched => self.unmatched_count = self.unmatched_count.wrapping_add(1),
            _ => {}
        }
    }

    #[inline]
    fn add_live(&mut self, bytes: u64, time: u64) {
        self.live_bytes = self.live_bytes.wrapping_add(bytes);
        if self.live_bytes > self.peak_bytes {
            self.peak_bytes = self.live_bytes;
            self.peak_epoch = self.peak_epoch.wrapping_add(1);
            self.peak_time = time;
        }
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
}
