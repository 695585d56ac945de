//! The event rings: logs of fixed size that forget their oldest events.

use crate::publish::{crash_point, prefetch_to_write, publish};
use crate::record::Record;

/// One ring.
pub struct Ring<'a> {
    slots: &'a mut [Record],
    /// Where the next record goes; always `written % slots.len()`.
    at: usize,
}

impl<'a> Ring<'a> {
    /// Over the records of a ring section, of which `written` were written so far.
    pub fn new(slots: &'a mut [Record], written: u64) -> Ring<'a> {
        let at = if slots.is_empty() {
            0
        } else {
            (written % slots.len() as u64) as usize
        };
        Ring { slots, at }
    }

    /// All slots. The record at position `n`, counted from the start, is in slot `n % capacity`.
    pub fn slots(&self) -> &[Record] {
        self.slots
    }

    /// Records it can hold.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Writes a record completely: a reader that finds its `seq` finds all of it.
    #[inline(always)]
    pub fn write(&mut self, record: &Record, written: &mut u64) {
        let Some(slot) = self.slots.get_mut(self.at) else {
            return;
        };
        publish(&mut slot.seq, 0);
        let [seq, rest @ ..] = record.words();
        let words: &mut [u64; 8] = bytemuck::cast_mut(slot);
        // Word by word: they were just made as words, and a wider copy would wait for them.
        for (to, from) in words[1..].iter_mut().zip(rest) {
            *to = from;
        }
        crash_point();
        publish(&mut words[0], seq);
        self.at += 1;
        if self.at == self.slots.len() {
            self.at = 0;
        }
        prefetch_to_write(&self.slots[self.at]);
        let count = *written + 1;
        publish(written, count);
    }

    /// The complete record with this sequence number, if it is the newest one: the one written
    /// last, or the one after it, complete but not yet counted in `written`.
    pub fn newest(&self, seq: u64) -> Option<&Record> {
        let before = self
            .at
            .checked_sub(1)
            .unwrap_or(self.slots.len().saturating_sub(1));
        [before, self.at]
            .iter()
            .filter_map(|&at| self.slots.get(at))
            .find(|slot| slot.seq == seq && seq != 0)
    }
}
