//! JSON lines: each row of each table is one object on one line, `"type"` says of which
//! (`process`, `device`, `frame`, `allocation`, `event`). Moments are Unix nanoseconds; what is not
//! known is left out.

use super::progress::Progress;
use super::tables::{Cell, Source, Spelled, Table, decimal};
use std::io::{self, Write};

/// Bytes that are put together before they are handed on.
const BUFFER: usize = 1 << 16;

/// Writes tables, one after the other.
pub fn write(
    source: &mut Source<'_, '_>,
    tables: &[Table],
    progress: &mut Progress,
    out: &mut dyn Write,
) -> io::Result<()> {
    let words = Spelled::of(&source.words, string);
    let mut lines = Vec::with_capacity(2 * BUFFER);
    for &table in tables {
        let head = format!("{{\"type\":\"{}\"", table.row_name());
        let keys: Vec<String> = table
            .columns()
            .iter()
            .map(|column| format!(",\"{}\":", column.name))
            .collect();
        source.rows(table, progress, &mut |row| {
            lines.extend_from_slice(head.as_bytes());
            for (key, cell) in keys.iter().zip(row) {
                if *cell == Cell::Null {
                    continue;
                }
                lines.extend_from_slice(key.as_bytes());
                match cell {
                    Cell::Null => {}
                    Cell::Number(number) => decimal(*number, &mut lines),
                    Cell::Text(text) => string(text, &mut lines),
                    Cell::Word(word) => lines.extend_from_slice(words.get(*word)),
                }
            }
            lines.extend_from_slice(b"}\n");
            if lines.len() >= BUFFER {
                out.write_all(&lines)?;
                lines.clear();
            }
            Ok(())
        })?;
    }
    out.write_all(&lines)
}

/// Text as JSON has it.
fn string(text: &str, line: &mut Vec<u8>) {
    // Fails only where writing does, and memory takes everything.
    let _ = serde_json::to_writer(line, text);
}
