//! Where things lie inside CPython's objects, one table per minor version.
//!
//! x86-64. Sources: each version's `Include/cpython/{code,pystate,unicodeobject,bytesobject}.h`
//! (3.8 to 3.10 also `frameobject.h`) and `Include/internal/pycore_frame.h`. Versions that are not
//! here are not guessed at. A table is used only after [`super::check`] has found real frames where
//! it says.

use super::lines::Table;

/// How a thread state leads to its innermost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Innermost {
    /// A pointer at this offset.
    At(u16),
    /// Through the C frame at the first offset; there, at the second.
    Through(u16, u16),
}

/// Where a frame says how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// An i32 at `at`, counting units of this many bytes.
    Index {
        /// Offset in the frame.
        at: u16,
        /// Bytes.
        unit: u8,
    },
    /// A pointer into the code at this offset of the frame.
    Pointer(u16),
}

/// Which Python frame is the outermost one that a native evaluation loop stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Each frame has a loop of its own.
    Every,
    /// Those with a byte set at this offset.
    Flag(u16),
    /// Those below a frame that the interpreter put in between: whose owner, a byte at this
    /// offset, is at least 3. It stands for no function.
    Shim(u16),
}

/// What makes a code object known from others that were at its address before or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A u32 that no other code object of the process ever had (0 none), at this offset.
    Version(u16),
    /// Nothing but its content.
    Content,
}

/// Strings: `PyASCIIObject` and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strings {
    /// Length in characters.
    pub length: u16,
    /// Hash of the content, −1 not computed.
    pub hash: u16,
    /// Bit field of kind, compact and ASCII.
    pub state: u16,
    /// How far it is shifted.
    pub state_shift: u8,
    /// Data of ASCII strings.
    pub ascii: u16,
    /// Data of other compact strings.
    pub compact: u16,
}

/// Offsets in code objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// File name, a string.
    pub file: u16,
    /// Name, a string.
    pub name: u16,
    /// Qualified name, a string; 0 where there is none.
    pub qualified: u16,
    /// Line table, bytes.
    pub table: u16,
    /// First line, an i32.
    pub first_line: u16,
    /// First instruction, where frames have pointers; else 0.
    pub start: u16,
    /// Instructions, a bytes object, where frames count them; else 0.
    pub instructions: u16,
    /// Where each thread has its own copy of the instructions: offset of the list of copies.
    pub copies: Option<u16>,
    /// What it is known by.
    pub identity: Identity,
}

/// Which table; a walk is compiled for each of them (see [`Shape`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    V8,
    V10,
    V11,
    V12,
    V13,
    V14,
    V13T,
    V14T,
}

/// A layout that is known when the library is compiled: its offsets are parts of instructions.
pub trait Shape {
    /// The layout.
    const LAYOUT: Layout;
}

macro_rules! shapes {
    ($($(#[$meta:meta])* $name:ident = $layout:expr;)*) => {
        $(
            $(#[$meta])*
            pub struct $name;
            impl Shape for $name {
                const LAYOUT: Layout = Layout {
                    version: Version::$name,
                    ..$layout
                };
            }
        )*
    };
}

/// Everything that is needed to read the stack of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which one this is.
    pub version: Version,
    /// From the thread state to its innermost frame.
    pub innermost: Innermost,
    /// Code object of a frame.
    pub code: u16,
    /// The frame's caller.
    pub previous: u16,
    /// How far it is.
    pub instruction: Instruction,
    /// Where runs of frames begin.
    pub entry: Entry,
    /// Of a thread's own copies of the code: offset in the frame of which one it is.
    pub copy: u16,
    /// An object's type.
    pub kind: u16,
    /// Size of a variable object: bytes of a bytes object, units of a code object.
    pub size: u16,
    /// Data of a bytes object.
    pub bytes: u16,
    /// Offsets in code objects.
    pub codes: Code,
    /// Offsets in strings.
    pub strings: Strings,
    /// How line tables are written.
    pub table: Table,
}

/// Newest minor version of Python 3 that there is a table for.
pub const NEWEST: u8 = 15;
/// Oldest one.
pub const OLDEST: u8 = 8;

/// With the wchar_t form that 3.12 dropped.
const OLD_STRINGS: Strings = Strings {
    length: 16,
    hash: 24,
    state: 32,
    state_shift: 0,
    ascii: 48,
    compact: 72,
};
const STRINGS: Strings = Strings {
    ascii: 40,
    compact: 56,
    ..OLD_STRINGS
};

shapes! {
    /// 3.8 and 3.9.
    V8 = Layout {
        version: Version::V8,
        innermost: Innermost::At(24),
        code: 32,
        previous: 24,
        instruction: Instruction::Index { at: 104, unit: 1 },
        entry: Entry::Every,
        copy: 0,
        kind: 8,
        size: 16,
        bytes: 32,
        codes: Code {
            file: 104,
            name: 112,
            qualified: 0,
            table: 120,
            first_line: 40,
            start: 0,
            instructions: 48,
            copies: None,
            identity: Identity::Content,
        },
        strings: OLD_STRINGS,
        table: Table::Lnotab,
    };

    /// 3.10.
    V10 = Layout {
        instruction: Instruction::Index { at: 96, unit: 2 },
        table: Table::Ranges,
        ..V8::LAYOUT
    };

    /// 3.11.
    V11 = Layout {
        innermost: Innermost::Through(56, 8),
        code: 32,
        previous: 48,
        instruction: Instruction::Pointer(56),
        entry: Entry::Flag(68),
        codes: Code {
            file: 112,
            name: 120,
            qualified: 128,
            table: 136,
            first_line: 72,
            start: 184,
            instructions: 0,
            copies: None,
            identity: Identity::Content,
        },
        table: Table::Locations,
        ..V8::LAYOUT
    };

    /// 3.12.
    V12 = Layout {
        innermost: Innermost::Through(56, 0),
        code: 0,
        previous: 8,
        entry: Entry::Shim(70),
        codes: Code {
            first_line: 68,
            start: 192,
            identity: Identity::Version(92),
            ..V11::LAYOUT.codes
        },
        strings: STRINGS,
        ..V11::LAYOUT
    };

    /// 3.13.
    V13 = Layout {
        innermost: Innermost::At(72),
        codes: Code {
            start: 200,
            ..V12::LAYOUT.codes
        },
        ..V12::LAYOUT
    };

    /// 3.14 and 3.15.
    V14 = Layout {
        entry: Entry::Shim(74),
        codes: Code {
            start: 208,
            ..V13::LAYOUT.codes
        },
        ..V13::LAYOUT
    };

    /// 3.13, free-threaded: those builds have 16 bytes more in front of every object.
    V13T = Layout {
        kind: 24,
        size: 32,
        bytes: 48,
        codes: Code {
            file: 128,
            name: 136,
            qualified: 144,
            table: 152,
            first_line: 84,
            start: 216,
            instructions: 0,
            copies: None,
            identity: Identity::Version(108),
        },
        strings: Strings {
            length: 32,
            hash: 40,
            state: 48,
            state_shift: 0,
            ascii: 56,
            compact: 72,
        },
        ..V13::LAYOUT
    };

    /// 3.14 and 3.15, free-threaded.
    V14T = Layout {
        entry: Entry::Shim(78),
        copy: 72,
        codes: Code {
            start: 232,
            copies: Some(224),
            ..V13T::LAYOUT.codes
        },
        strings: Strings {
            state_shift: 6,
            ..V13T::LAYOUT.strings
        },
        ..V13T::LAYOUT
    };
}

impl Layout {
    /// The table of Python 3.`minor`; `None` if there is none.
    pub const fn of(minor: u8, free_threaded: bool) -> Option<Layout> {
        Some(match (minor, free_threaded) {
            (8 | 9, false) => V8::LAYOUT,
            (10, false) => V10::LAYOUT,
            (11, false) => V11::LAYOUT,
            (12, false) => V12::LAYOUT,
            (13, false) => V13::LAYOUT,
            (14 | 15, false) => V14::LAYOUT,
            (13, true) => V13T::LAYOUT,
            (14 | 15, true) => V14T::LAYOUT,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_table_for_every_version_from_oldest_to_newest_and_no_other() {
        for minor in 0..=u8::MAX {
            let known = (OLDEST..=NEWEST).contains(&minor);
            assert_eq!(Layout::of(minor, false).is_some(), known, "{minor}");
            assert_eq!(Layout::of(minor, true).is_some(), known && minor >= 13);
        }
    }
}
