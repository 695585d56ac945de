//! The live set: one slot per allocation that exists now.
//!
//! [`Record`]s in no particular order. Entries never move; the slot that was vacated last is taken
//! first, so that as many slots are in use as there were allocations at once, and those that come
//! and go stay in the caches. `op` is a slot's state:
//!
//! | `op` | the slot |
//! |---|---|
//! | 0 | never used |
//! | [`VACATED`] | vacant again |
//! | [`Op::Alloc`], [`Op::Restore`] | live |
//! | [`Op::FreeInTeardown`] | freed while the process was going down; kept for reports, may be overwritten |
//!
//! A reader looks at all slots. The writer knows by a [`LiveIndex`], in its own memory, where keys
//! are and which slots are vacant.

use crate::index::{self, Index, Spot};
use crate::record::{Op, Record, Space};
use std::cell::Cell;

/// State of a slot that is vacant again.
pub const VACATED: u8 = 255;
/// How many slots are looked at for one that teardown left, where no other is vacant: bounded work
/// matters more in someone else's allocation path.
const LOOKED_AT: usize = 128;
/// No slot.
const NONE: u64 = u64::MAX;

/// What a search for a place to insert found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The key is live in this slot.
    Live(usize),
    /// The key is not live, and is to be inserted here.
    Vacant(usize),
    /// There is no room.
    Full,
}

/// What the writer of a live table knows of it.
#[derive(Clone)]
pub struct LiveIndex {
    index: Index,
    /// The slot that was vacated last; its `key` is the one vacated before it, and so on to
    /// [`NONE`].
    vacated: u64,
    /// Slots from here on were never used.
    fresh: usize,
    /// Where the search for slots that teardown left goes on.
    hand: usize,
    /// Where in the index the last key was found, which often is removed next.
    found: Cell<Spot>,
}

impl LiveIndex {
    /// Of an empty table of so many slots; `None` if there is no memory for it.
    pub fn for_slots(slots: usize) -> Option<LiveIndex> {
        Some(LiveIndex {
            index: Index::for_rows(slots)?,
            vacated: NONE,
            fresh: 0,
            hand: 0,
            found: Cell::default(),
        })
    }
}

/// One live table.
pub struct LiveTable<'a> {
    slots: &'a mut [Record],
    /// Without it every search looks at all slots.
    known: Option<&'a mut LiveIndex>,
}

/// Whether a slot in this state holds a live allocation.
#[inline]
pub fn is_live(state: u8) -> bool {
    state == Op::Alloc as u8 || state == Op::Restore as u8
}

/// Whether a slot in this state holds nothing.
#[inline]
pub fn is_vacant(state: u8) -> bool {
    state == 0 || state == VACATED
}

#[inline(always)]
fn hash(space: u8, key: u64) -> u32 {
    index::hash(key ^ (u64::from(space) << 57))
}

#[inline(always)]
fn holds(slot: &Record, space: u8, key: u64) -> bool {
    is_live(slot.op) && slot.key == key && slot.space == space
}

impl<'a> LiveTable<'a> {
    /// Over the slots of a live section, for who applies an event or two.
    pub fn new(slots: &'a mut [Record]) -> LiveTable<'a> {
        LiveTable { slots, known: None }
    }

    /// Over the slots of a live section, for its writer.
    pub fn indexed(slots: &'a mut [Record], known: &'a mut LiveIndex) -> LiveTable<'a> {
        LiveTable {
            slots,
            known: Some(known),
        }
    }

    /// The slots that were ever used.
    #[inline]
    pub fn slots(&self) -> &[Record] {
        let used = self.known.as_ref().map(|known| known.fresh);
        &self.slots[..used.unwrap_or(usize::MAX).min(self.slots.len())]
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// One slot.
    #[inline]
    pub fn slot(&self, at: usize) -> Option<&Record> {
        self.slots.get(at)
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, at: usize) -> Option<&mut Record> {
        self.slots.get_mut(at)
    }

    #[inline(always)]
    fn is(&self, space: u8, key: u64) -> impl Fn(usize) -> bool {
        move |at| {
            let slot = self.slots.get(at);
            slot.is_some_and(|slot| holds(slot, space, key))
        }
    }

    /// The slot where `key` is live.
    #[inline(always)]
    pub fn find(&self, space: Space, key: u64) -> Option<usize> {
        let space = space as u8;
        match &self.known {
            Some(known) => {
                let (at, spot) = known
                    .index
                    .find(hash(space, key), self.is(space, key))
                    .ok()?;
                known.found.set(spot);
                Some(at)
            }
            None => self.slots.iter().position(|slot| holds(slot, space, key)),
        }
    }

    /// Where `key` is, or a slot that is set aside for it: its allocation has to be recorded there.
    #[inline(always)]
    pub fn place(&mut self, space: u8, key: u64) -> Place {
        let hash = hash(space, key);
        let found = match &self.known {
            Some(known) => known.index.find(hash, self.is(space, key)),
            None => return place_among_all(self.slots, space, key),
        };
        let (gap, known) = match (found, &mut self.known) {
            (Ok((at, _)), _) => return Place::Live(at),
            (Err(gap), Some(known)) => (gap, known),
            (Err(_), None) => return Place::Full,
        };
        let vacated = usize::try_from(known.vacated).unwrap_or(usize::MAX);
        let at = match self.slots.get(vacated) {
            Some(slot) if slot.op == VACATED => {
                known.vacated = slot.key;
                vacated
            }
            _ if known.fresh < self.slots.len() => {
                known.fresh += 1;
                known.fresh - 1
            }
            _ => match known.left_by_teardown(self.slots) {
                Some(at) => at,
                None => return Place::Full,
            },
        };
        match known.index.insert(gap, hash, at) {
            true => Place::Vacant(at),
            false => {
                if self.slots.get(at).is_some_and(|slot| is_vacant(slot.op)) {
                    self.vacate(at);
                }
                Place::Full
            }
        }
    }

    /// The entry in this slot has ended, and that is complete in the file: neither is any of this
    /// there, nor does a reader miss it.
    #[inline(always)]
    pub(crate) fn ended(&mut self, at: usize) {
        if let Some(known) = &mut self.known
            && let Some(slot) = self.slots.get(at)
        {
            let last = known.found.get();
            known.index.remove(last, hash(slot.space, slot.key), at);
            if slot.op == VACATED {
                self.vacate(at);
            }
        }
    }

    /// Makes a slot the next to be taken.
    #[inline(always)]
    fn vacate(&mut self, at: usize) {
        if let Some(known) = &mut self.known
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.op = VACATED;
            slot.key = known.vacated;
            known.vacated = at as u64;
        }
    }

    /// Live entries, in slot order.
    pub fn live(&self) -> impl Iterator<Item = &Record> {
        self.slots().iter().filter(|slot| is_live(slot.op))
    }
}

impl LiveIndex {
    /// A slot whose entry was freed in teardown: worth keeping, so taken only where nothing else is
    /// vacant.
    #[cold]
    fn left_by_teardown(&mut self, slots: &[Record]) -> Option<usize> {
        for _ in 0..LOOKED_AT.min(slots.len()) {
            let at = self.hand % slots.len();
            self.hand = at + 1;
            if slots[at].op == Op::FreeInTeardown as u8 {
                return Some(at);
            }
        }
        None
    }
}

#[cold]
fn place_among_all(slots: &[Record], space: u8, key: u64) -> Place {
    let first = |is: &dyn Fn(&Record) -> bool| slots.iter().position(is);
    if let Some(at) = first(&|slot| holds(slot, space, key)) {
        return Place::Live(at);
    }
    first(&|slot| is_vacant(slot.op))
        .or_else(|| first(&|slot| slot.op == Op::FreeInTeardown as u8))
        .map_or(Place::Full, Place::Vacant)
}
