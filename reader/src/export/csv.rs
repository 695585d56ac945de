//! One table as comma-separated values (RFC 4180): a line of names, then the rows. Text is as it was
//! found; moments are Unix nanoseconds; what is not known is empty.

use super::progress::Progress;
use super::tables::{Cell, Source, Spelled, Table, decimal};
use std::io::{self, Write};

/// Bytes that are put together before they are handed on.
const BUFFER: usize = 1 << 16;

/// Writes a table.
pub fn write(
    source: &mut Source<'_, '_>,
    table: Table,
    progress: &mut Progress,
    out: &mut dyn Write,
) -> io::Result<()> {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    writeln!(out, "{}", names.join(","))?;
    let words = Spelled::of(&source.words, field);
    let mut lines = Vec::with_capacity(2 * BUFFER);
    source.rows(table, progress, &mut |row| {
        for cell in row {
            match cell {
                Cell::Null => {}
                Cell::Number(number) => decimal(*number, &mut lines),
                Cell::Text(text) => field(text, &mut lines),
                Cell::Word(word) => lines.extend_from_slice(words.get(*word)),
            }
            lines.push(b',');
        }
        // The last comma.
        lines.pop();
        lines.push(b'\n');
        if lines.len() >= BUFFER {
            out.write_all(&lines)?;
            lines.clear();
        }
        Ok(())
    })?;
    out.write_all(&lines)
}

/// Text in a field, in quotation marks where it needs them. Empty text has them, too: it is known.
fn field(text: &str, line: &mut Vec<u8>) {
    let plain = |byte: u8| !matches!(byte, b',' | b'"' | b'\r' | b'\n');
    if !text.is_empty() && text.bytes().all(plain) {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    line.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}
