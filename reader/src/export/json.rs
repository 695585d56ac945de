//! JSON lines: each row of each table is one object on one line, `"type"` says of which
//! (`process`, `device`, `frame`, `allocation`, `event`). Moments are Unix nanoseconds; what is not
//! known is left out.

use super::progress::Progress;
use super::tables::{Cell, Lines, Piece, Source, Spelled, Table};
use std::io::{self, Write};

/// Writes tables, one after the other.
pub fn write(
    source: &mut Source<'_, '_>,
    tables: &[Table],
    progress: &mut Progress,
    out: &mut dyn Write,
) -> io::Result<()> {
    let words = Spelled::of(&source.words, string);
    let mut lines = Lines::default();
    for &table in tables {
        let piece = |text: String| Piece::from(text.as_bytes());
        let head = piece(format!("{{\"type\":\"{}\"", table.row_name()));
        let columns = table.columns().iter();
        let keys: Vec<Piece> = columns
            .map(|column| piece(format!(",\"{}\":", column.name)))
            .collect();
        source.rows(table, progress, &mut |row| {
            lines.piece(&head);
            for (key, cell) in keys.iter().zip(row) {
                if *cell == Cell::Null {
                    continue;
                }
                lines.piece(key);
                lines.cell(cell, &words);
            }
            lines.text(b"}\n");
            if lines.are_enough() {
                out.write_all(lines.take())?;
            }
            Ok(())
        })?;
    }
    out.write_all(lines.take())
}

/// Text as JSON has it.
fn string(text: &str, line: &mut Vec<u8>) {
    // Fails only where writing does, and memory takes everything.
    let _ = serde_json::to_writer(line, text);
}
