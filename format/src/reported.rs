//! What a framework itself says that it holds: its own sums, which the sums of its events have to
//! come to.

use crate::account::MAX_DEVICES;
use crate::publish::publish;
use bytemuck::{Pod, Zeroable};

/// Rows of the section, one for each device; further devices share the last.
pub const REPORTED_ROWS: usize = MAX_DEVICES;

/// What PyTorch's caching allocator said of one device with its last event there. Not journalled:
/// a kill may leave a row that is one event old, or half written; which of that it is, it says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Reported {
    /// The event it was said with; 0 while the row is written, and before the first.
    pub seq: u64,
    /// Bytes of all blocks that are handed out on the device, this event included.
    pub allocated: u64,
    /// Bytes of all segments that it has from the driver there.
    pub reserved: u64,
    /// `seq` once more.
    pub again: u64,
}

const _: () = assert!(size_of::<Reported>() == 32);

impl Reported {
    /// Replaces the row; whoever reads meanwhile sees that it is not whole.
    #[inline(always)]
    pub fn set(&mut self, seq: u64, allocated: u64, reserved: u64) {
        publish(&mut self.seq, 0);
        self.allocated = allocated;
        self.reserved = reserved;
        self.again = seq;
        publish(&mut self.seq, seq);
    }

    /// The row, if there is one and it is whole.
    pub fn whole(&self) -> Option<Reported> {
        (self.seq != 0 && self.seq == self.again).then_some(*self)
    }
}

/// The row of a device.
#[inline(always)]
pub fn row_of(device: u8) -> usize {
    usize::from(device).min(REPORTED_ROWS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests_only::killed_after;

    #[test]
    fn a_row_that_a_kill_left_half_written_is_none() {
        let mut row = Reported::default();
        assert_eq!(row.whole(), None);
        row.set(7, 100, 200);
        assert_eq!(row.whole(), Some(row));
        let mut done = false;
        for after in 0.. {
            let mut killed = row;
            done = killed_after(after, || killed.set(8, 300, 400));
            let whole = killed.whole().map(|row| (row.seq, row.allocated));
            assert!([None, Some((8, 300))].contains(&whole), "{whole:?}");
            if done {
                assert_eq!(whole, Some((8, 300)));
                break;
            }
        }
        assert!(done);
    }
}
