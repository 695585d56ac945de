//! The chain of frames of the calling thread: code object and instruction of each, innermost
//! first, and one number that tells this stack from others.

use super::interpreter::Interpreter;
use super::layout::{self, Entry, Identity, Innermost, Instruction, Layout, Shape, Version};
use super::memory::{Memory, at_offset};
use vramtrace_format::stacks::MAX_FRAMES;

/// 2⁶⁴ over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// No real stack is deeper; a chain that does not end is not followed further.
const MAX_HOPS: usize = 4096;
/// Owners from this one on are the interpreter's own frames, which stand for no function.
const SHIM: u8 = 3;

/// One frame, not yet understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawFrame {
    /// Its code object.
    pub code: u64,
    /// Where it is in its code: bytes from the start, or an address; as the layout says.
    pub instruction: u64,
    /// Which of several copies of its code it runs.
    pub copy: u32,
    /// The outermost one of a run (see [`vramtrace_format::stacks::Frame::Python`]).
    pub entry: bool,
}

/// The frames of a thread.
pub struct Frames {
    /// The first `len` of these, innermost first.
    pub frames: [RawFrame; MAX_FRAMES],
    /// How many.
    pub len: usize,
    /// Outer frames are missing.
    pub truncated: bool,
    /// Differs between stacks of different functions or lines.
    pub hash: u64,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            frames: [RawFrame::default(); MAX_FRAMES],
            len: 0,
            truncated: false,
            hash: 0,
        }
    }
}

impl Frames {
    /// Those that there are.
    pub fn get(&self) -> &[RawFrame] {
        &self.frames[..self.len]
    }
}

/// The chain made no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// Takes the frames of the thread whose state is at `thread`. What was found before the chain
/// stopped making sense is kept.
#[inline]
pub fn walk<M: Memory>(
    memory: &M,
    interpreter: &Interpreter,
    thread: u64,
    into: &mut Frames,
) -> Result<(), Broken> {
    let kind = interpreter.code_type;
    match interpreter.layout.version {
        Version::V8 => walk_as::<M, layout::V8>(memory, kind, thread, into),
        Version::V10 => walk_as::<M, layout::V10>(memory, kind, thread, into),
        Version::V11 => walk_as::<M, layout::V11>(memory, kind, thread, into),
        Version::V12 => walk_as::<M, layout::V12>(memory, kind, thread, into),
        Version::V13 => walk_as::<M, layout::V13>(memory, kind, thread, into),
        Version::V14 => walk_as::<M, layout::V14>(memory, kind, thread, into),
        Version::V13T => walk_as::<M, layout::V13T>(memory, kind, thread, into),
        Version::V14T => walk_as::<M, layout::V14T>(memory, kind, thread, into),
    }
}

#[inline(never)]
fn walk_as<M: Memory, S: Shape>(
    memory: &M,
    code_type: u64,
    thread: u64,
    into: &mut Frames,
) -> Result<(), Broken> {
    let layout = &S::LAYOUT;
    into.len = 0;
    into.truncated = false;
    into.hash = SPREAD;
    let mut frame = innermost(memory, layout, thread).ok_or(Broken("no innermost frame"))?;
    let mut hash = SPREAD;
    let result = 'walk: {
        for _ in 0..MAX_HOPS {
            if frame == 0 {
                break 'walk Ok(());
            }
            if frame & 7 != 0 {
                break 'walk Err(Broken("a frame that is not aligned"));
            }
            let Some(previous) = memory.word(at_offset(frame, layout.previous)) else {
                break 'walk Err(Broken("a frame that cannot be read"));
            };
            if let Entry::Shim(owner) = layout.entry {
                let Some(owner) = memory.byte(at_offset(frame, owner)) else {
                    break 'walk Err(Broken("a frame without owner"));
                };
                if owner >= SHIM {
                    if let Some(last) = into.len.checked_sub(1) {
                        into.frames[last].entry = true;
                        hash = (hash ^ 1).wrapping_mul(SPREAD);
                    }
                    frame = previous;
                    continue;
                }
            }
            let Some((raw, identity)) = one::<M, S>(memory, code_type, frame) else {
                break 'walk Err(Broken("a frame without code object"));
            };
            if into.len == MAX_FRAMES {
                into.truncated = true;
                break 'walk Ok(());
            }
            into.frames[into.len] = raw;
            into.len += 1;
            hash = (hash.rotate_left(23) ^ identity).wrapping_mul(SPREAD);
            frame = previous;
        }
        Err(Broken("a chain of frames without end"))
    };
    if result.is_err() {
        into.truncated = true;
    } else if let Some(last) = into.len.checked_sub(1).filter(|_| !into.truncated) {
        into.frames[last].entry = true;
    }
    into.hash = hash;
    result
}

fn innermost<M: Memory>(memory: &M, layout: &Layout, thread: u64) -> Option<u64> {
    match layout.innermost {
        Innermost::At(at) => memory.word(at_offset(thread, at)),
        Innermost::Through(at, next) => {
            let native = memory.word(at_offset(thread, at))?;
            if native == 0 || native & 7 != 0 {
                return None;
            }
            memory.word(at_offset(native, next))
        }
    }
}

/// A frame, and what tells it from others.
#[inline(always)]
fn one<M: Memory, S: Shape>(memory: &M, code_type: u64, frame: u64) -> Option<(RawFrame, u64)> {
    let layout = &S::LAYOUT;
    // Newer versions keep marks in the lowest bits of references.
    let code = memory.word(at_offset(frame, layout.code))? & !3;
    if code == 0 || code & 7 != 0 || memory.word(at_offset(code, layout.kind))? != code_type {
        return None;
    }
    let instruction = match layout.instruction {
        Instruction::Index { at, unit } => {
            let index = memory.half(at_offset(frame, at))? as i32;
            (i64::from(index) * i64::from(unit)) as u64
        }
        Instruction::Pointer(at) => memory.word(at_offset(frame, at))?,
    };
    let entry = match layout.entry {
        Entry::Every => true,
        Entry::Flag(at) => memory.byte(at_offset(frame, at))? != 0,
        Entry::Shim(_) => false,
    };
    let copy = match layout.codes.copies {
        Some(_) => memory.half(at_offset(frame, layout.copy))?,
        None => 0,
    };
    let identity = match layout.codes.identity {
        Identity::Version(at) => u64::from(memory.half(at_offset(code, at))?),
        Identity::Content => content::<M, S>(memory, code)?,
    };
    let raw = RawFrame {
        code,
        instruction,
        copy,
        entry,
    };
    let identity = (code ^ (identity << 32) ^ identity)
        .wrapping_mul(SPREAD)
        .wrapping_add(instruction ^ u64::from(entry));
    Some((raw, identity))
}

/// What tells a code object from one that was at its address before, where versions do not: a
/// program that compiles functions one after the other gets the same addresses again. The names'
/// hashes or tails, the first line, and the line table's size and tail.
#[inline(always)]
fn content<M: Memory, S: Shape>(memory: &M, code: u64) -> Option<u64> {
    let layout = &S::LAYOUT;
    let codes = &layout.codes;
    let pointer = |at: u16| {
        memory
            .word(at_offset(code, at))
            .filter(|pointer| *pointer != 0 && pointer & 7 == 0)
    };
    let (name, file, table) = (
        pointer(codes.name)?,
        pointer(codes.file)?,
        pointer(codes.table)?,
    );
    // Names are interned, so their hashes are always there; those of files need not be.
    let name_hash = memory.word(at_offset(name, layout.strings.hash))?;
    let file_length = memory.word(at_offset(file, layout.strings.length))?;
    // Only a compact string has its characters behind its head; an instance of a subclass has not.
    const COMPACT: u32 = 1 << 5;
    let state = memory.half(at_offset(file, layout.strings.state))? >> layout.strings.state_shift;
    let file_tail = if state & COMPACT != 0 {
        tail(memory, at_offset(file, layout.strings.ascii), file_length)?
    } else {
        0
    };
    let table_size = memory.word(at_offset(table, layout.size))?;
    let table_tail = tail(memory, at_offset(table, layout.bytes), table_size)?;
    let first_line = memory.half(at_offset(code, codes.first_line))?;
    // Turned by different amounts, so that equal changes of two parts do not cancel each other.
    let mixed = name_hash
        ^ file_tail.rotate_left(19)
        ^ table_tail.rotate_left(37)
        ^ (file ^ file_length << 48).rotate_left(8)
        ^ (table ^ table_size << 48).rotate_left(27)
        ^ u64::from(first_line) << 40;
    Some(mixed)
}

/// The last eight of `len` bytes, or those that there are. (What follows a string's head has room
/// for its characters at whatever width they have, and allocations for a word: this stays inside.)
#[inline(always)]
fn tail<M: Memory>(memory: &M, start: u64, len: u64) -> Option<u64> {
    match len.checked_sub(8) {
        Some(before) => memory.word(start.wrapping_add(before)),
        None => Some(memory.word(start)? & ((1 << (8 * len)) - 1)),
    }
}
