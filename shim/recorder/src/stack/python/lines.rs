//! From an instruction to its source line: the line tables of code objects, as each version of
//! CPython writes them.
//!
//! Pure functions over the table's bytes; whatever the bytes are, the answer is a number or none.
//! Sources: CPython's `Objects/lnotab_notes.txt` (3.8 to 3.10) and `Objects/locations.md` (3.11 and
//! newer). The tests compare every instruction of installed standard libraries with what the
//! interpreter itself (`PyCode_Addr2Line`) says.

/// How a version writes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `co_lnotab`, up to 3.9: pairs of (bytes of code, signed lines), each moving both on.
    Lnotab,
    /// `co_linetable` of 3.10: pairs of (bytes of code, signed lines; −128 no line), each a range.
    Ranges,
    /// `co_linetable` from 3.11 on: location entries of variable size.
    Locations,
}

impl Table {
    /// The line of the instruction at `offset` bytes of a code object whose table is `bytes` and
    /// whose first line is `first`. An offset below 0 is a frame that has not begun: the first
    /// line. `None` where an instruction has no line, or the table does not reach so far.
    pub fn line(self, bytes: &[u8], first: i32, offset: i64) -> Option<u32> {
        if offset < 0 {
            return u32::try_from(first).ok();
        }
        let line = match self {
            Table::Lnotab => lnotab(bytes, first, offset),
            Table::Ranges => ranges(bytes, first, offset)?,
            Table::Locations => locations(bytes, first, offset)?,
        };
        u32::try_from(line).ok()
    }
}

fn lnotab(bytes: &[u8], first: i32, offset: i64) -> i32 {
    let (mut line, mut at) = (first, 0i64);
    for pair in bytes.chunks_exact(2) {
        at += i64::from(pair[0]);
        if at > offset {
            break;
        }
        line = line.wrapping_add(i32::from(pair[1] as i8));
    }
    line
}

fn ranges(bytes: &[u8], first: i32, offset: i64) -> Option<i32> {
    const NO_LINE: i8 = -128;
    let (mut line, mut end) = (first, 0i64);
    for pair in bytes.chunks_exact(2) {
        end += i64::from(pair[0]);
        let delta = pair[1] as i8;
        if delta != NO_LINE {
            line = line.wrapping_add(i32::from(delta));
        }
        if offset < end {
            return (delta != NO_LINE).then_some(line);
        }
    }
    None
}

/// An entry begins with a byte that has bit 7 set; no other byte has it.
fn locations(bytes: &[u8], first: i32, offset: i64) -> Option<i32> {
    const NO_LOCATION: u8 = 15;
    let (mut line, mut end) = (first, 0i64);
    let mut at = 0;
    while let Some(&head) = bytes.get(at) {
        at += 1;
        let body = bytes.get(at..).unwrap_or_default();
        let length = body.iter().take_while(|&&byte| byte & 0x80 == 0).count();
        let body = &body[..length];
        at += length;
        let kind = (head >> 3) & 15;
        line = line.wrapping_add(match kind {
            13 | 14 => signed(body),
            10..=12 => i32::from(kind) - 10,
            _ => 0,
        });
        // Lengths count code units of two bytes.
        end += 2 * (i64::from(head & 7) + 1);
        if offset < end {
            return (kind != NO_LOCATION).then_some(line);
        }
    }
    None
}

/// A signed number of variable size: six bits a byte, lowest first, bit 6 "more"; the lowest bit
/// of all is the sign.
fn signed(bytes: &[u8]) -> i32 {
    let mut value = 0u32;
    for (index, &byte) in bytes.iter().enumerate().take(6) {
        value |= u32::from(byte & 0x3f) << (6 * index as u32).min(31);
        if byte & 0x40 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1) as i32;
    if value & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_table() {
        // def f(): (line 10) with statements in lines 11, 13 and 12.
        assert_eq!(
            [0, 2, 4, 6, 8].map(|at| Table::Lnotab.line(&[0, 1, 4, 2, 4, 255], 10, at)),
            [Some(11), Some(11), Some(13), Some(13), Some(12)]
        );
        assert_eq!(
            [0, 2, 4, 6, 8].map(|at| Table::Ranges.line(&[4, 1, 2, 128, 2, 2], 10, at)),
            [Some(11), Some(11), None, Some(13), None]
        );
        // Two units in line + 1 (kind 11), one without location, one 100 lines back (kind 13),
        // one with the long form (kind 14).
        let table = [
            0x80 | (11 << 3) | 1,
            4,
            5,
            0x80 | (15 << 3),
            0x80 | (13 << 3),
            0x40 | (201 & 0x3f),
            201 >> 6,
            0x80 | (14 << 3),
            6,
            0,
            1,
            2,
        ];
        assert_eq!(
            [-2, 0, 2, 4, 6, 8, 10].map(|at| Table::Locations.line(&table, 200, at)),
            [
                Some(200),
                Some(201),
                Some(201),
                None,
                Some(101),
                Some(104),
                None
            ]
        );
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_a_number_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300), first: i32, offset in -10i64..10_000) {
            for table in [Table::Lnotab, Table::Ranges, Table::Locations] {
                table.line(&bytes, first, offset);
            }
        }
    }

    /// Prints, for every function of some modules: format, first line, table, and for each
    /// instruction what the interpreter's own C function says.
    const ORACLE: &str = r#"
import ctypes, sys, types, importlib
ask = ctypes.pythonapi.PyCode_Addr2Line
ask.argtypes, ask.restype = [ctypes.py_object, ctypes.c_int], ctypes.c_int
kind = "lnotab" if sys.version_info < (3, 10) else "ranges" if sys.version_info < (3, 11) else "locations"
def show(code):
    table = code.co_lnotab if kind == "lnotab" else code.co_linetable
    lines = [ask(code, at) for at in range(-2, len(code.co_code), 2)]
    print(kind, code.co_firstlineno, table.hex() or "-", ",".join(map(str, lines)))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            show(inner)
for name in ["argparse", "ast", "asyncio.base_events", "inspect", "json.decoder", "tarfile", "typing", "zipfile"]:
    module = importlib.import_module(name)
    with open(module.__file__, "rb") as source:
        show(compile(source.read(), module.__file__, "exec"))
"#;

    #[test]
    fn lines_are_what_the_interpreter_says() {
        let mut compared = 0;
        for python in super::super::testing::interpreters() {
            let output = std::process::Command::new(&python)
                .args(["-I", "-S", "-c", ORACLE])
                .output()
                .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
            assert!(output.status.success(), "{python:?}: {output:?}");
            let output = String::from_utf8(output.stdout).expect("plain text");
            for record in output.lines() {
                let fields: Vec<&str> = record.split(' ').collect();
                let [kind, first, table, lines] = fields[..] else {
                    panic!("{record}")
                };
                let kind = match kind {
                    "lnotab" => Table::Lnotab,
                    "ranges" => Table::Ranges,
                    _ => Table::Locations,
                };
                let table: Vec<u8> = (0..table.len() / 2)
                    .map(|at| u8::from_str_radix(&table[2 * at..2 * at + 2], 16).expect("hex"))
                    .collect();
                let first: i32 = first.parse().expect("a line");
                for (index, line) in lines.split(',').enumerate() {
                    let expected = u32::try_from(line.parse::<i32>().expect("a line")).ok();
                    let offset = 2 * index as i64 - 2;
                    assert_eq!(
                        kind.line(&table, first, offset),
                        expected,
                        "{python:?}, offset {offset}: {record}"
                    );
                    compared += 1;
                }
            }
        }
        println!("{compared} instructions compared");
    }
}
