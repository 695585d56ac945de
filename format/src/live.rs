//! The live set: one slot per allocation that exists now.
//!
//! Open addressing over [`Record`]s. An event touches exactly one slot: entries never move, a
//! removed one leaves a tombstone, and tombstones at the end of a run are swept when their run
//! ends. `op` is a slot's state:
//!
//! | `op` | the slot |
//! |---|---|
//! | 0 | empty: ends every search |
//! | [`TOMBSTONE`] | removed; may be taken, does not end a search |
//! | [`Op::Alloc`], [`Op::Restore`] | live |
//! | [`Op::FreeInTeardown`] | freed while the process was going down; kept for reports, may be overwritten |

use crate::record::{Op, Record, Space};

/// State of a removed slot.
pub const TOMBSTONE: u8 = 255;
/// Longest walk from a key's home slot. An allocation that finds no slot within it is counted as
/// dropped: bounded work matters more in someone else's allocation path.
pub const PROBE_LIMIT: usize = 128;

/// What a search for a place to insert found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The key is live in this slot.
    Live(usize),
    /// The key is not live, and may be inserted here.
    Vacant(usize),
    /// No room within [`PROBE_LIMIT`].
    Full,
}

/// One live table.
pub struct LiveTable<'a> {
    slots: &'a mut [Record],
}

#[inline]
fn home(space: u8, key: u64, slots: usize) -> usize {
    // Fibonacci hashing: addresses come in arithmetic sequences, which it spreads evenly.
    let hash = (key ^ (u64::from(space) << 57)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

/// Whether a slot in this state holds a live allocation.
#[inline]
pub fn is_live(state: u8) -> bool {
    state == Op::Alloc as u8 || state == Op::Restore as u8
}

impl<'a> LiveTable<'a> {
    /// Over the slots of a live section.
    pub fn new(slots: &'a mut [Record]) -> LiveTable<'a> {
        LiveTable { slots }
    }

    /// Where a key's search begins, as an address to prefetch.
    #[inline]
    pub fn home_of(slots: usize, space: Space, key: u64) -> usize {
        if slots == 0 {
            0
        } else {
            home(space as u8, key, slots)
        }
    }

    /// All slots, in whatever state.
    pub fn slots(&self) -> &[Record] {
        self.slots
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

    /// The slot where `key` is live.
    #[inline]
    pub fn find(&self, space: Space, key: u64) -> Option<usize> {
        match self.place(space as u8, key) {
            Place::Live(at) => Some(at),
            _ => None,
        }
    }

    /// Where `key` is, or where it may be inserted.
    #[inline]
    pub fn place(&self, space: u8, key: u64) -> Place {
        let slots = self.slots.len();
        if slots == 0 {
            return Place::Full;
        }
        let mut at = home(space, key, slots);
        let mut vacant = None;
        let mut marked = None;
        for _ in 0..PROBE_LIMIT.min(slots) {
            let slot = &self.slots[at];
            match slot.op {
                0 => return Place::Vacant(vacant.unwrap_or(at)),
                state if is_live(state) => {
                    if slot.key == key && slot.space == space {
                        return Place::Live(at);
                    }
                }
                TOMBSTONE => vacant = vacant.or(Some(at)),
                // Marked in teardown: worth keeping, so taken only where nothing else is free.
                _ => marked = marked.or(Some(at)),
            }
            at += 1;
            if at == slots {
                at = 0;
            }
        }
        vacant.or(marked).map_or(Place::Full, Place::Vacant)
    }

    /// Turns the tombstone at `at`, and those before it, into empty slots if their run ends here.
    /// Safe at any time (no search needs a tombstone that nothing follows), so it is done after
    /// an event is committed and not journalled.
    #[inline]
    pub fn sweep(&mut self, at: usize) {
        let slots = self.slots.len();
        let next = if at + 1 == slots { 0 } else { at + 1 };
        if slots == 0 || self.slots[next].op != 0 {
            return;
        }
        let mut at = at;
        for _ in 0..PROBE_LIMIT {
            let Some(slot) = self.slots.get_mut(at) else {
                return;
            };
            if slot.op != TOMBSTONE {
                return;
            }
            slot.op = 0;
            at = if at == 0 { slots - 1 } else { at - 1 };
        }
    }

    /// Live entries, in slot order.
    pub fn live(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().filter(|slot| is_live(slot.op))
    }
}
