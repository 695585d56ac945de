//! JSON lines: each row of each table is one object on one line, `"type"` says of which
//! (`process`, `device`, `frame`, `allocation`, `event`). Moments are Unix nanoseconds; what is not
//! known is left out.

use super::progress::Progress;
use super::tables::{Cell, Source, Table, decimal};
use std::io::{self, Write};

/// Writes tables, one after the other.
pub fn write(
    source: &mut Source<'_, '_>,
    tables: &[Table],
    progress: &mut Progress,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut line = Vec::new();
    for &table in tables {
        let columns = table.columns();
        let head = format!("{{\"type\":\"{}\"", table.row_name());
        source.rows(table, progress, &mut |row| {
            line.clear();
            line.extend_from_slice(head.as_bytes());
            for (column, cell) in columns.iter().zip(row) {
                if *cell == Cell::Null {
                    continue;
                }
                line.extend_from_slice(b",\"");
                line.extend_from_slice(column.name.as_bytes());
                line.extend_from_slice(b"\":");
                match cell {
                    Cell::Null => {}
                    Cell::Number(number) => decimal(*number, &mut line),
                    Cell::Text(text) => serde_json::to_writer(&mut line, text)?,
                }
            }
            line.extend_from_slice(b"}\n");
            out.write_all(&line)
        })?;
    }
    Ok(())
}
