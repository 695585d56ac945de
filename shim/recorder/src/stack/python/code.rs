//! What a frame's code object says: file, function, line.

use super::interpreter::Interpreter;
use super::layout::Instruction;
use super::memory::{Memory, at_offset};
use super::walk::{Broken, RawFrame};

/// Longest file name kept, bytes.
const MAX_FILE: usize = 4096;
/// Longest function name kept, bytes.
const MAX_FUNCTION: usize = 1024;
/// No line table is longer; the largest functions of real programs have some hundred kilobytes.
const MAX_TABLE: u64 = 64 << 20;
/// No string that names something is longer, characters.
const MAX_LENGTH: u64 = 1 << 20;

/// A frame, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// File it was compiled from.
    pub file: String,
    /// Qualified name, where code objects have one; else the name.
    pub function: String,
    /// Line where the function begins.
    pub first_line: u32,
    /// Line that it is in; `None` where the instruction has none.
    pub line: Option<u32>,
}

impl Described {
    /// Whether it is a frame of the interpreter's own that looks like a function's: from 3.12 on, a
    /// class that is often called has one between its caller and `__init__`. Its code object is
    /// called `__init__` in a file `__init__`, and has no lines; Python does not show it either.
    pub fn is_shim(&self) -> bool {
        self.line.is_none() && self.file == self.function && self.file == "__init__"
    }
}

/// Reads a frame's code object; every object on the way must be of the type that it should be.
pub fn describe<M: Memory>(
    memory: &M,
    interpreter: &Interpreter,
    frame: &RawFrame,
) -> Result<Described, Broken> {
    let layout = &interpreter.layout;
    let codes = &layout.codes;
    let at = |offset: u16| at_offset(frame.code, offset);
    let pointer = |offset: u16| {
        memory
            .word(at(offset))
            .filter(|pointer| *pointer != 0 && pointer & 7 == 0)
    };
    let file = pointer(codes.file).ok_or(Broken("a code object without file name"))?;
    let file = text(memory, interpreter, file, MAX_FILE)?;
    let name = match codes.qualified {
        0 => pointer(codes.name),
        qualified => pointer(qualified).or_else(|| pointer(codes.name)),
    };
    let name = name.ok_or(Broken("a code object without name"))?;
    let function = text(memory, interpreter, name, MAX_FUNCTION)?;
    let first_line = memory
        .half(at(codes.first_line))
        .ok_or(Broken("a code object without first line"))? as i32;
    let (offset, size) = match layout.instruction {
        Instruction::Index { .. } => {
            let instructions = pointer(codes.instructions)
                .filter(|object| is_a(memory, interpreter, *object, interpreter.bytes_type))
                .ok_or(Broken("a code object without instructions"))?;
            let size = memory.word(at_offset(instructions, layout.size));
            (frame.instruction as i64, size)
        }
        Instruction::Pointer(_) => {
            let start = start(memory, interpreter, frame)
                .ok_or(Broken("a code object without instructions"))?;
            let units = memory.word(at(layout.size));
            let offset = frame.instruction.wrapping_sub(start) as i64;
            (offset, units.map(|units| units.saturating_mul(2)))
        }
    };
    let size = size.ok_or(Broken("a code object without size"))?;
    if offset >= 0 && (offset as u64 >= size || offset % 2 != 0) {
        return Err(Broken("an instruction outside its code"));
    }
    // A frame that has not begun is one unit before its code.
    if offset < -2 {
        return Err(Broken("an instruction before its code"));
    }
    let table = pointer(codes.table).ok_or(Broken("a code object without line table"))?;
    let table = bytes(memory, interpreter, table)?;
    Ok(Described {
        file,
        function,
        first_line: u32::try_from(first_line).unwrap_or(0),
        line: layout.table.line(&table, first_line, offset),
    })
}

fn start<M: Memory>(memory: &M, interpreter: &Interpreter, frame: &RawFrame) -> Option<u64> {
    let codes = &interpreter.layout.codes;
    match codes.copies {
        // The list begins with its size.
        Some(copies) if frame.copy != 0 => {
            let list = memory.word(at_offset(frame.code, copies))?;
            let size = memory.word(list)?;
            (u64::from(frame.copy) < size)
                .then(|| memory.word(list.wrapping_add(8 + 8 * u64::from(frame.copy))))?
        }
        _ => Some(at_offset(frame.code, codes.start)),
    }
}

fn is_a<M: Memory>(memory: &M, interpreter: &Interpreter, object: u64, kind: u64) -> bool {
    memory.word(at_offset(object, interpreter.layout.kind)) == Some(kind)
}

fn bytes<M: Memory>(memory: &M, interpreter: &Interpreter, object: u64) -> Result<Vec<u8>, Broken> {
    let layout = &interpreter.layout;
    if !is_a(memory, interpreter, object, interpreter.bytes_type) {
        return Err(Broken("a line table that is not a bytes object"));
    }
    let size = memory
        .word(at_offset(object, layout.size))
        .filter(|&size| size <= MAX_TABLE)
        .ok_or(Broken("a line table without end"))?;
    let mut bytes = vec![0; size as usize];
    memory
        .read(at_offset(object, layout.bytes), &mut bytes)
        .then_some(bytes)
        .ok_or(Broken("a line table that cannot be read"))
}

/// The content of a string, cut where it is longer than `most` bytes. What is no character (a file
/// name that is not UTF-8 is kept in lone surrogates) becomes U+FFFD.
fn text<M: Memory>(
    memory: &M,
    interpreter: &Interpreter,
    object: u64,
    most: usize,
) -> Result<String, Broken> {
    const READABLE: u32 = 1 << 5;
    const ASCII: u32 = 1 << 6;
    let strings = &interpreter.layout.strings;
    if !is_a(memory, interpreter, object, interpreter.string_type) {
        return Err(Broken("a name that is not a string"));
    }
    let length = memory
        .word(at_offset(object, strings.length))
        .filter(|&length| length <= MAX_LENGTH)
        .ok_or(Broken("a name without end"))?;
    let state = memory
        .half(at_offset(object, strings.state))
        .ok_or(Broken("a name without form"))?
        >> strings.state_shift;
    let width = (state >> 2) & 7;
    if state & READABLE == 0 || !matches!(width, 1 | 2 | 4) || (state & ASCII != 0 && width != 1) {
        return Err(Broken("a name of unknown form"));
    }
    let data = if state & ASCII != 0 {
        strings.ascii
    } else {
        strings.compact
    };
    // No character is shorter than a byte in the end.
    let kept = (length as usize).min(most);
    let mut bytes = vec![0; kept * width as usize];
    if !memory.read(at_offset(object, data), &mut bytes) {
        return Err(Broken("a name that cannot be read"));
    }
    let mut text = String::with_capacity(kept);
    for character in bytes.chunks_exact(width as usize) {
        let mut number = [0; 4];
        number[..character.len()].copy_from_slice(character);
        let character = char::from_u32(u32::from_le_bytes(number));
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        if text.len() + character.len_utf8() > most {
            break;
        }
        text.push(character);
    }
    Ok(text)
}
