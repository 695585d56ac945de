//! What one thread makes and another writes: reading a trace and formatting what is in it take about as long as
//! each other.

use super::progress::Progress;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes that go from one thread to the other at once.
const PIECE: usize = 400 << 10;
/// Pieces that wait to be written.
const WAITING: usize = 4;

/// What one thread hands to the other.
struct Piece<T> {
    items: Vec<T>,
    /// Steps of the work that it took to make it.
    steps: u64,
}

/// Where items are put by what makes them.
pub struct Feed<T> {
    piece: Piece<T>,
    full: SyncSender<Piece<T>>,
    empty: Receiver<Vec<T>>,
    unwanted: bool,
}

impl<T: Copy> Feed<T> {
    /// Items that are to stay together, as those of a row.
    #[inline]
    pub fn push(&mut self, items: &[T]) {
        self.piece.items.extend_from_slice(items);
        if self.piece.items.len() >= const { PIECE / size_of::<T>() } {
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
        let mut items = self.empty.try_recv().unwrap_or_default();
        items.clear();
        let piece = std::mem::replace(&mut self.piece, Piece { items, steps: 0 });
        // Who writes has given up when this fails, and says why itself.
        self.unwanted |= self.full.send(piece).is_err();
    }
}

/// Has items made, and hands them to `sink` in their order, many at once; what `make` gives in the end.
pub fn through<T: Copy + Send, R: Send>(
    make: impl FnOnce(&mut Feed<T>) -> R + Send,
    progress: &mut Progress,
    mut sink: impl FnMut(&[T]) -> io::Result<()>,
) -> io::Result<R> {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel(WAITING);
        let (used, empty) = channel();
        let maker = scope.spawn(move || {
            let items = Vec::new();
            let mut feed = Feed {
                piece: Piece { items, steps: 0 },
                full,
                empty,
                unwanted: false,
            };
            let made = make(&mut feed);
            feed.hand_over();
            made
        });
        for piece in pieces {
            sink(&piece.items)?;
            progress.advance(piece.steps);
            // It has ended if it does not want its memory back.
            let _ = used.send(piece.items);
        }
        match maker.join() {
            Ok(made) => Ok(made),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_their_order() {
        let mut next = 0;
        let make = |feed: &mut Feed<u64>| {
            for n in 0..100_000 {
                assert!(feed.step());
                feed.push(&[n, 0]);
            }
            "made"
        };
        let made = through(make, &mut Progress::new("testing", 1), |items| {
            for row in items.chunks_exact(2) {
                assert_eq!(row, [next, 0]);
                next += 1;
            }
            Ok(())
        });
        assert_eq!(made.unwrap(), "made");
        assert_eq!(next, 100_000);
    }

    #[test]
    fn who_cannot_write_ends_it() {
        let mut made = 0u64;
        let make = |feed: &mut Feed<u64>| {
            while feed.step() {
                feed.push(&[made]);
                made += 1;
            }
        };
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let result = through(make, &mut Progress::new("testing", 1), |_| Err(full()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(made >= (PIECE / size_of::<u64>()) as u64);
    }
}
