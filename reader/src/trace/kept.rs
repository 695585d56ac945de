//! Which rows of a table a sparse file really keeps, found out again only when that may have changed.
//!
//! Most of a table's section is holes: behind the rows that were ever used, and, in traces whose recorder still hashed
//! rows over the section, between them. Asking the file system for each of them costs more than reading what is between them, so the answer is kept until the file has
//! another number of blocks.

use super::sections::Extent;
use super::source::Source;
use std::io;
use std::time::{Duration, Instant};

/// Holes of up to so many bytes are read rather than left out: a system call costs as much.
const SMALL_HOLE: u64 = 8 << 10;
/// An answer is believed for so long though the number of blocks stays: some file systems count late.
const BELIEVED: Duration = Duration::from_secs(60);

/// Rows in succession.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: u64,
    /// How many.
    pub rows: u64,
}

/// The rows of one table that are not all in holes.
#[derive(Debug, Default)]
pub struct Kept {
    runs: Vec<Run>,
    blocks: u64,
    since: Option<Instant>,
}

impl Kept {
    /// All rows of the table that may be anything but zero, in order.
    pub fn runs(&mut self, source: &Source, table: Extent) -> io::Result<&[Run]> {
        // Before the holes are looked for: what comes meanwhile is found the next time.
        let blocks = source.blocks_now()?;
        let known = self.since.is_some_and(|at| at.elapsed() < BELIEVED);
        if !known || blocks != self.blocks {
            find(source, table, &mut self.runs);
            (self.blocks, self.since) = (blocks, Some(Instant::now()));
        }
        Ok(&self.runs)
    }
}

fn find(source: &Source, table: Extent, runs: &mut Vec<Run>) {
    runs.clear();
    if table.row_size == 0 {
        return;
    }
    let end = table.at(table.rows);
    let mut at = table.offset;
    while at < end
        && let Some((from, until)) = source.data(at, end)
    {
        let first = (from - table.offset) / table.row_size;
        let last = (until - table.offset).div_ceil(table.row_size);
        let last = last.min(table.rows);
        match runs.last_mut() {
            Some(run) if table.at(first) <= table.at(run.first + run.rows) + SMALL_HOLE => {
                run.rows = last - run.first;
            }
            _ => runs.push(Run {
                first,
                rows: last - first,
            }),
        }
        at = table.at(last).max(until);
    }
    runs.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Every row that is not zero is in a run, also one that comes later; holes that are large are in none,
    /// where the file system knows holes.
    #[test]
    fn all_that_is_kept_is_found_when_it_comes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        let table = Extent {
            offset: 4096,
            rows: 100_000,
            promised: 100_000,
            row_size: 128,
        };
        let write = |row: u64| file.write_all_at(&[1; 128], table.at(row)).unwrap();
        let source = Source::new(file.try_clone().unwrap(), 16 << 20);
        let mut kept = Kept::default();
        kept.runs(&source, table).unwrap();
        let mut rows = vec![0, 1, 40, 5_000, 5_100, 99_999];
        rows.iter().for_each(|&row| write(row));
        for later in [70_000, 20_000] {
            write(later);
            rows.push(later);
            let runs = kept.runs(&source, table).unwrap();
            let holds = |row| {
                let inside = |run: &&Run| (run.first..run.first + run.rows).contains(&row);
                runs.iter().filter(inside).count() == 1
            };
            assert!(rows.iter().all(|&row| holds(row)), "{runs:?}");
            assert!(runs.iter().all(|run| run.first + run.rows <= table.rows));
        }
        // The same answer without asking.
        let runs = kept.runs(&source, table).unwrap().to_vec();
        assert_eq!(kept.runs(&source, table).unwrap(), runs);
    }
}
