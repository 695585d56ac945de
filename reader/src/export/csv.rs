//! One table as comma-separated values (RFC 4180): a line of names, then the rows. Text is as it was
//! found; moments are Unix nanoseconds; what is not known is empty.

use super::progress::Progress;
use super::tables::{Lines, Source, Spelled, Table};
use std::io::{self, Write};

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
    let mut lines = Lines::default();
    source.rows(table, progress, &mut |row| {
        for cell in row {
            lines.cell(cell, &words);
            lines.text(b",");
        }
        // The last comma.
        lines.pop();
        lines.text(b"\n");
        if lines.are_enough() {
            out.write_all(lines.take())?;
        }
        Ok(())
    })?;
    out.write_all(lines.take())
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
