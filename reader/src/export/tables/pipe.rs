//! Rows made by one thread and written by another: reading a trace and formatting what is in it take about
//! as long as each other.

use super::{Cell, Sink};
use crate::export::progress::Progress;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

/// Cells that go from one thread to the other at once: some 400 KiB.
const CELLS: usize = 24_000;
/// Pieces that wait to be written.
const WAITING: usize = 4;

/// What one thread hands to the other.
#[derive(Default)]
struct Piece {
    cells: Vec<Cell<'static>>,
    /// Steps of the work that it took to make it.
    steps: u64,
}

/// Where rows are put by what makes them.
pub struct Rows {
    piece: Piece,
    full: SyncSender<Piece>,
    empty: Receiver<Vec<Cell<'static>>>,
    unwanted: bool,
}

impl Rows {
    /// A row.
    #[inline]
    pub fn push(&mut self, row: &[Cell<'static>]) {
        self.piece.cells.extend_from_slice(row);
        if self.piece.cells.len() >= CELLS {
            self.hand_over();
        }
    }

    /// An event or an allocation was looked at; whether to go on.
    #[inline]
    #[must_use]
    pub fn step(&mut self) -> bool {
        self.piece.steps += 1;
        !self.unwanted
    }

    fn hand_over(&mut self) {
        let mut cells = self.empty.try_recv().unwrap_or_default();
        cells.clear();
        let piece = std::mem::replace(&mut self.piece, Piece { cells, steps: 0 });
        // Who writes has given up when this fails, and says why itself.
        self.unwanted |= self.full.send(piece).is_err();
    }
}

/// Has rows of so many cells made, and hands them to `sink`, in their order.
pub fn through(
    width: usize,
    make: impl FnOnce(&mut Rows) + Send,
    progress: &mut Progress,
    sink: &mut Sink<'_>,
) -> io::Result<()> {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel(WAITING);
        let (used, empty) = channel();
        scope.spawn(move || {
            let mut rows = Rows {
                piece: Piece::default(),
                full,
                empty,
                unwanted: false,
            };
            make(&mut rows);
            rows.hand_over();
        });
        for piece in pieces {
            for row in piece.cells.chunks_exact(width) {
                sink(row)?;
            }
            progress.advance(piece.steps);
            // It has ended if it does not want its memory back.
            let _ = used.send(piece.cells);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_their_order() {
        let mut next = 0;
        let make = |rows: &mut Rows| {
            for n in 0..100_000 {
                assert!(rows.step());
                rows.push(&[Cell::Number(n), Cell::Null]);
            }
        };
        through(2, make, &mut Progress::new("testing", 1), &mut |row| {
            assert_eq!(row, [Cell::Number(next), Cell::Null]);
            next += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(next, 100_000);
    }

    #[test]
    fn who_cannot_write_ends_it() {
        let mut made = 0u64;
        let make = |rows: &mut Rows| {
            while rows.step() {
                rows.push(&[Cell::Number(made)]);
                made += 1;
            }
        };
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let result = through(1, make, &mut Progress::new("testing", 1), &mut |_| {
            Err(full())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(made >= CELLS as u64);
    }
}
