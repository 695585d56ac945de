//! The stack table: every distinct call stack once, found by content.
//!
//! Appended and never changed: a header word, then the frames, innermost first. A stack's id is
//! the index of its header word, so ids need no table of their own.

use crate::publish::publish;

/// No stack was wanted or could be taken.
pub const NO_STACK: u32 = 0;
/// Id in rows that sum up stacks which found no row of their own.
pub const OTHER_STACKS: u32 = u32::MAX;
/// The stack table was full.
pub const STACK_TABLE_FULL: u32 = u32::MAX - 1;
/// The event came through the slow lane, without its stack.
pub const STACK_SKIPPED: u32 = u32::MAX - 2;
/// The allocation was not among those whose stack was sampled.
pub const NOT_SAMPLED: u32 = u32::MAX - 3;
/// First of the ids that stand for no stack, [`NO_STACK`] apart.
pub const FIRST_RESERVED: u32 = u32::MAX - 15;

/// Frames kept of one stack in each language; the outermost ones go first.
pub const MAX_FRAMES: usize = 256;
/// Frames of a stored stack: native ones, then Python ones.
pub const MAX_STORED: usize = 2 * MAX_FRAMES;
/// Flag in a header: the stack was longer than what is kept, or the walk ended early.
pub const TRUNCATED: u16 = 1;

/// One frame, as it is stored: 4 bits what it is, 60 bits of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// A return address in a module: module id (cold record `Module`) and the address relative
    /// to the module's load bias, as its ELF file numbers it.
    Native {
        /// Below 2²⁰.
        module: u32,
        /// Below 2⁴⁰.
        offset: u64,
    },
    /// A return address in no known module (generated code).
    Raw(u64),
    /// A Python frame. In a stack they come after the native ones, innermost first too.
    Python {
        /// Id of its function (cold record `PythonCode`); 0 unknown.
        code: u32,
        /// Line in its file, below 2²⁴; 0 unknown.
        line: u32,
        /// The outermost of those that one native call of the interpreter's loop ran: where native
        /// and Python frames are put into one order.
        entry: bool,
    },
}

const TAG_SHIFT: u32 = 60;
const MODULE_SHIFT: u32 = 40;
const OFFSET_MASK: u64 = (1 << MODULE_SHIFT) - 1;
const LINE_BITS: u32 = 24;
const ENTRY: u64 = 1 << 56;

impl Frame {
    /// As stored.
    pub fn encode(self) -> u64 {
        match self {
            Frame::Native { module, offset } => {
                (1 << TAG_SHIFT)
                    | (u64::from(module & 0xf_ffff) << MODULE_SHIFT)
                    | (offset & OFFSET_MASK)
            }
            Frame::Raw(address) => (2 << TAG_SHIFT) | (address & !(0xf << TAG_SHIFT)),
            Frame::Python { code, line, entry } => {
                (3 << TAG_SHIFT)
                    | if entry { ENTRY } else { 0 }
                    | (u64::from(code) << LINE_BITS)
                    | u64::from(line.min((1 << LINE_BITS) - 1))
            }
        }
    }

    /// From a stored word; `None` for a tag this version does not know.
    pub fn decode(word: u64) -> Option<Frame> {
        match word >> TAG_SHIFT {
            1 => Some(Frame::Native {
                module: ((word >> MODULE_SHIFT) & 0xf_ffff) as u32,
                offset: word & OFFSET_MASK,
            }),
            2 => Some(Frame::Raw(word & !(0xf << TAG_SHIFT))),
            3 => Some(Frame::Python {
                code: (word >> LINE_BITS) as u32,
                line: (word & ((1 << LINE_BITS) - 1)) as u32,
                entry: word & ENTRY != 0,
            }),
            _ => None,
        }
    }
}

/// Header word: frame count (16 bits) | flags (16) | content hash (32).
fn header(count: usize, flags: u16, hash: u32) -> u64 {
    count as u64 | (u64::from(flags) << 16) | (u64::from(hash) << 32)
}

fn hash(frames: &[u64], flags: u16) -> u32 {
    let mut hash = u64::from(flags) ^ (frames.len() as u64) << 16;
    for &frame in frames {
        hash = (hash.rotate_left(5) ^ frame).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash >> 32) as u32 ^ hash as u32
}

/// The writer's side.
pub struct StackTable<'a> {
    words: &'a mut [u64],
    index: &'a mut [u32],
}

/// What interning a stack came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interned {
    /// Known before.
    Known(u32),
    /// Added.
    Added(u32),
    /// No room.
    Full,
}

impl<'a> StackTable<'a> {
    /// Over the stack section and its index.
    pub fn new(words: &'a mut [u64], index: &'a mut [u32]) -> StackTable<'a> {
        StackTable { words, index }
    }

    /// All words, used or not.
    pub fn words(&self) -> &[u64] {
        self.words
    }

    /// The id of a stack, added if it is new. `used` is [`crate::layout::Control::stack_words`].
    ///
    /// A crash in here leaves at most words after `used` and an index entry; both are harmless:
    /// readers look at neither.
    pub fn intern(&mut self, frames: &[u64], flags: u16, used: &mut u64) -> Interned {
        let frames = &frames[..frames.len().min(MAX_STORED)];
        let hash = hash(frames, flags);
        let head = header(frames.len(), flags, hash);
        let slots = self.index.len();
        if slots == 0 {
            return Interned::Full;
        }
        let mut at = ((u64::from(hash) * slots as u64) >> 32) as usize;
        for _ in 0..64.min(slots) {
            let id = self.index[at];
            if id == 0 {
                return self.append(at, head, frames, used);
            }
            let start = id as usize;
            if self.words.get(start) == Some(&head)
                && self.words.get(start + 1..start + 1 + frames.len()) == Some(frames)
            {
                return Interned::Known(id);
            }
            at += 1;
            if at == slots {
                at = 0;
            }
        }
        Interned::Full
    }

    fn append(&mut self, slot: usize, head: u64, frames: &[u64], used: &mut u64) -> Interned {
        // Word 0 stays unused, so that no stack has the id NO_STACK.
        let start = (*used).max(1) as usize;
        let end = start + 1 + frames.len();
        if end > self.words.len() || end >= FIRST_RESERVED as usize {
            return Interned::Full;
        }
        self.words[start] = head;
        self.words[start + 1..end].copy_from_slice(frames);
        publish(used, end as u64);
        self.index[slot] = start as u32;
        Interned::Added(start as u32)
    }
}

/// One stack, as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct StackRef<'a> {
    /// Stored frames, innermost first.
    pub frames: &'a [u64],
    /// [`TRUNCATED`] and later flags.
    pub flags: u16,
}

/// The stack with this id among the section's complete words; `None` for reserved ids and for
/// ids that a damaged file made up.
pub fn lookup(words: &[u64], id: u32) -> Option<StackRef<'_>> {
    if id == NO_STACK || id >= FIRST_RESERVED {
        return None;
    }
    let start = id as usize;
    let head = *words.get(start)?;
    let frames = words.get(start + 1..start + 1 + (head & 0xffff) as usize)?;
    Some(StackRef {
        frames,
        flags: (head >> 16) as u16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equal_stacks_have_one_id_and_come_back_whole(stacks in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..20), 1..60)) {
            let mut words = vec![0u64; 4096];
            let mut index = vec![0u32; 512];
            let mut used = 0;
            let mut ids = std::collections::HashMap::new();
            for stack in &stacks {
                let interned = StackTable::new(&mut words, &mut index).intern(stack, 0, &mut used);
                match interned {
                    Interned::Known(id) => prop_assert_eq!(ids.get(stack), Some(&id)),
                    Interned::Added(id) => prop_assert!(ids.insert(stack.clone(), id).is_none()),
                    Interned::Full => prop_assert!(false, "there was room"),
                }
            }
            for (stack, id) in ids {
                prop_assert_eq!(lookup(&words[..used as usize], id).unwrap().frames, &stack[..]);
            }
        }

        #[test]
        fn frames_round_trip(module in 0u32..1 << 20, offset in 0u64..1 << 40, code: u32, line in 0u32..1 << 24, entry: bool) {
            for frame in [Frame::Native { module, offset }, Frame::Raw(offset), Frame::Python { code, line, entry }] {
                prop_assert_eq!(Frame::decode(frame.encode()), Some(frame));
            }
        }
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let mut words = vec![0u64; 8];
        let mut index = vec![0u32; 8];
        let mut used = 0;
        let first = StackTable::new(&mut words, &mut index).intern(&[1, 2, 3], 0, &mut used);
        let second = StackTable::new(&mut words, &mut index).intern(&[4, 5, 6, 7, 8], 0, &mut used);
        let again = StackTable::new(&mut words, &mut index).intern(&[1, 2, 3], 0, &mut used);
        assert_eq!(
            (first, second, again),
            (Interned::Added(1), Interned::Full, Interned::Known(1))
        );
    }
}
