//! The undo journal: what makes one event all or nothing.
//!
//! Before the application of an event changes words of cells, their old content is saved here,
//! and then one word says how much of the journal is valid, or later that the event is complete.
//! Whoever opens the file after a crash puts the saved words back and applies the event, which
//! lies complete in its ring, again.

use crate::publish::{crash_point, publish};
use bytemuck::{Pod, Zeroable};

/// Room for what one event saves: a head word and the words themselves for the live slot (8), a
/// totals row (11), an account (16) and the totals row of what ended (11); of both rows the words of
/// what is sampled (5 each).
const ROOM: usize = 64;
/// Count that means "complete".
const DONE: u64 = 0xff;

/// Which cell words were saved of; numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    pub const fn from_u8(number: u8) -> Option<CellKind> {
        match number {
            1 => Some(CellKind::Account),
            2 => Some(CellKind::Totals),
            3 => Some(CellKind::LiveDevice),
            4 => Some(CellKind::LiveFramework),
            _ => None,
        }
    }
}

/// Some words of a cell before their change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved<'a> {
    /// Which table the cell is in.
    pub kind: CellKind,
    /// Its index there.
    pub index: usize,
    /// The first of its words that was saved.
    pub first: usize,
    /// What they were.
    pub words: &'a [u64],
}

const INDEX_BITS: u32 = 40;

fn head(kind: CellKind, index: usize, first: usize, count: usize) -> u64 {
    (kind as u64) << 56 | (first as u64) << 48 | (count as u64) << INDEX_BITS | index as u64
}

/// The journal section.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Journal {
    /// `seq << 8 | count`: the event being applied and how many of `words` are valid; or
    /// `seq << 8 | 0xff`: that event, and every one before it, is completely applied.
    pub state: u64,
    /// Saved words, each run behind a head: kind (8 bits), first word in the cell (8), words (8),
    /// index of the cell (40).
    pub words: [u64; ROOM],
}

const _: () = assert!(size_of::<Journal>() == 8 * (1 + ROOM));

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
        /// Words of the journal to go back by.
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
                saved: (count as usize).min(ROOM),
            },
        }
    }

    /// What the first `count` words of the journal saved, in the order of saving. Ends at what
    /// makes no sense.
    pub fn saved(&self, count: usize) -> impl DoubleEndedIterator<Item = Saved<'_>> {
        let mut rest = &self.words[..count.min(ROOM)];
        let mut found = Vec::new();
        while let Some((&head, after)) = rest.split_first() {
            let byte = |shift: u32| (head >> shift) as u8;
            let count = usize::from(byte(INDEX_BITS));
            let (Some(kind), Some(words)) = (CellKind::from_u8(byte(56)), after.get(..count))
            else {
                break;
            };
            found.push(Saved {
                kind,
                index: (head & ((1 << INDEX_BITS) - 1)) as usize,
                first: usize::from(byte(48)),
                words,
            });
            rest = &after[count..];
        }
        found.into_iter()
    }

    /// The event `seq`, which its ring holds completely, is completely applied.
    #[inline(always)]
    pub(crate) fn commit(&mut self, seq: u64) {
        publish(&mut self.state, seq << 8 | DONE);
    }

    /// Nothing was applied after all (recovery puts the file back to before the event).
    pub(crate) fn rewind(&mut self, seq: u64) {
        self.commit(seq);
    }
}

/// What one event has saved so far.
pub(crate) struct Undo {
    seq: u64,
    used: usize,
}

impl Undo {
    /// Nothing yet of the event `seq`.
    #[inline(always)]
    pub(crate) fn new(seq: u64) -> Undo {
        Undo { seq, used: 0 }
    }

    /// Saves `COUNT` words of a cell, from word `first` on. The caller changes them only after the
    /// next [`Undo::arm`].
    #[inline(always)]
    pub(crate) fn save<T: Pod, const COUNT: usize>(
        &mut self,
        journal: &mut Journal,
        kind: CellKind,
        index: usize,
        first: usize,
        cell: &T,
    ) {
        let old = &bytemuck::cast_slice::<T, u64>(std::slice::from_ref(cell))[first..][..COUNT];
        let room = &mut journal.words[self.used..][..1 + COUNT];
        room[0] = head(kind, index, first, COUNT);
        room[1..].copy_from_slice(old);
        self.used += 1 + COUNT;
        crash_point();
    }

    /// From here on, what was saved is what a crash puts back.
    #[inline(always)]
    pub(crate) fn arm(&self, journal: &mut Journal) {
        publish(&mut journal.state, self.seq << 8 | self.used as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back_in_order() {
        let mut journal = Journal::zeroed();
        let mut undo = Undo::new(7);
        undo.save::<_, 2>(
            &mut journal,
            CellKind::Totals,
            (1 << 40) - 1,
            3,
            &[1u64, 2, 3, 4, 5, 6],
        );
        undo.save::<_, 1>(&mut journal, CellKind::LiveFramework, 5, 0, &[9u64]);
        undo.arm(&mut journal);
        let State::Interrupted { seq: 7, saved } = journal.state() else {
            panic!("{:?}", journal.state())
        };
        let saved: Vec<_> = journal.saved(saved).collect();
        let first = Saved {
            kind: CellKind::Totals,
            index: (1 << 40) - 1,
            first: 3,
            words: &[4, 5],
        };
        let second = Saved {
            kind: CellKind::LiveFramework,
            index: 5,
            first: 0,
            words: &[9],
        };
        assert_eq!(saved, [first, second]);
        journal.commit(7);
        assert_eq!(journal.state(), State::Complete { seq: 7 });
    }

    #[test]
    fn nonsense_ends_the_list() {
        let mut journal = Journal::zeroed();
        journal.words[0] = head(CellKind::Account, 0, 0, 200);
        assert_eq!(journal.saved(ROOM).count(), 0);
        journal.words[0] = 99 << 56;
        assert_eq!(journal.saved(usize::MAX).count(), 0);
    }
}
