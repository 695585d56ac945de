//! The undo journal: what makes one event all or nothing.
//!
//! Before the application of an event changes a cell, the cell's old content is saved here; one
//! word says how many saved cells are valid, or that the event is complete. Whoever opens the
//! file after a crash puts the saved cells back and applies the event, which lies complete in its
//! ring, again.

use crate::publish::publish;
use bytemuck::{Pod, Zeroable};

/// Cells that one event can change: live slot, two totals rows, account, and the accounts of
/// nothing else.
pub const MAX_SAVED: usize = 6;
/// Count that means "complete".
const DONE: u64 = 0xff;

/// Which cell was saved; numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CellKind {
    /// An [`crate::account::Account`].
    Account = 1,
    /// A [`crate::totals::Totals`] row.
    Totals = 2,
    /// A slot of the device layer's live table.
    LiveDevice = 3,
    /// A slot of the framework layer's live table.
    LiveFramework = 4,
}

impl CellKind {
    /// The kind with this number in the file format.
    pub const fn from_u32(number: u32) -> Option<CellKind> {
        match number {
            1 => Some(CellKind::Account),
            2 => Some(CellKind::Totals),
            3 => Some(CellKind::LiveDevice),
            4 => Some(CellKind::LiveFramework),
            _ => None,
        }
    }
}

/// A cell before its change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Saved {
    /// A [`CellKind`].
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// Its index in its section.
    pub index: u64,
    /// Its content; a live slot uses the first 64 bytes.
    pub content: [u64; 16],
}

/// The journal section.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Journal {
    /// `seq << 8 | count`: the event being applied and how many of `saved` are valid; or
    /// `seq << 8 | 0xff`: that event, and every one before it, is completely applied.
    pub state: u64,
    /// 0.
    pub reserved: [u64; 7],
    /// Old contents, in the order of the changes.
    pub saved: [Saved; MAX_SAVED],
}

/// What the journal's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything up to this event is applied.
    Complete {
        /// The last applied event; 0 none yet.
        seq: u64,
    },
    /// This event was interrupted.
    Interrupted {
        /// The event.
        seq: u64,
        /// Saved cells to put back.
        saved: usize,
    },
}

impl Journal {
    /// Reads the word.
    pub fn state(&self) -> State {
        let seq = self.state >> 8;
        match self.state & 0xff {
            _ if self.state == 0 => State::Complete { seq: 0 },
            DONE => State::Complete { seq },
            count => State::Interrupted {
                seq,
                saved: (count as usize).min(MAX_SAVED),
            },
        }
    }

    /// The event `seq`, which its ring holds completely, is about to be applied.
    #[inline]
    pub(crate) fn begin(&mut self, seq: u64) {
        publish(&mut self.state, seq << 8);
    }

    /// Saves a cell. The caller changes it only afterwards.
    #[inline]
    pub(crate) fn save<T: Pod>(&mut self, kind: CellKind, index: usize, cell: &T) {
        const { assert!(size_of::<T>() == 64 || size_of::<T>() == 128) };
        let count = (self.state & 0xff) as usize;
        let saved = &mut self.saved[count];
        saved.kind = kind as u32;
        saved.index = index as u64;
        bytemuck::bytes_of_mut(&mut saved.content)[..size_of::<T>()]
            .copy_from_slice(bytemuck::bytes_of(cell));
        let state = self.state + 1;
        publish(&mut self.state, state);
    }

    /// The event is completely applied.
    #[inline]
    pub(crate) fn commit(&mut self) {
        let state = self.state | DONE;
        publish(&mut self.state, state);
    }

    /// Nothing was applied after all (recovery puts the file back to before the event).
    pub(crate) fn rewind(&mut self, seq: u64) {
        publish(&mut self.state, (seq << 8) | DONE);
    }
}
