//! Which allocations are drawn one by one: in each part of the time, at several levels of detail,
//! those that take most of the area (bytes × time).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An allocation, or a part of its life in which its size did not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// From when on, event time.
    pub start: u64,
    /// Until when, event time; the end of the trace where it is live then.
    pub end: u64,
    /// Bytes.
    pub size: u64,
    /// Address, or what else it is known by.
    pub address: u64,
    /// Event that made it.
    pub seq: u64,
    /// Who made it: a number in [`super::keys::Keys`].
    pub key: u32,
    /// Thread; 0 not known.
    pub thread: u32,
    /// NVTX range; 0 none.
    pub range: u32,
    /// How it ended, or that it did not: an event's operation, 0 live.
    pub how: u8,
    /// It began before the event log does: `start` is where that begins.
    pub early: bool,
}

/// The largest of one part of the time.
#[derive(Default)]
struct Window {
    held: BinaryHeap<Reverse<(u128, u64, usize)>>,
}

/// Chooses pieces of one account.
pub struct Picks {
    /// Length of all the time.
    length: u64,
    /// Levels; level `n` has 2ⁿ parts.
    levels: Vec<Vec<Window>>,
    in_window: usize,
    pieces: Vec<Piece>,
    used: Vec<u32>,
    free: Vec<usize>,
    /// All pieces that there were.
    pub seen: u64,
}

impl Picks {
    /// Nothing is chosen yet; at most `most` pieces will be.
    pub fn new(length: u64, in_window: usize, most: usize) -> Picks {
        let in_window = in_window.max(1);
        let mut levels = Vec::new();
        let mut windows = 0usize;
        while levels.len() < 10 {
            let parts = 1usize << levels.len();
            windows += parts;
            if !levels.is_empty() && windows * in_window > most {
                break;
            }
            levels.push((0..parts).map(|_| Window::default()).collect());
        }
        Picks {
            length: length.max(1),
            levels,
            in_window,
            pieces: Vec::new(),
            used: Vec::new(),
            free: Vec::new(),
            seen: 0,
        }
    }

    /// Length of the shortest parts, nanoseconds.
    pub fn finest(&self) -> u64 {
        let parts = self.levels.last().map_or(1, Vec::len) as u64;
        self.length / parts
    }

    /// Length of the shortest parts, as they are told apart.
    fn width(&self) -> u64 {
        let finest = self.levels.len().saturating_sub(1);
        (self.length >> finest).saturating_add(1)
    }

    /// A piece is complete.
    pub fn add(&mut self, piece: Piece) {
        self.seen += 1;
        if piece.size == 0 {
            return;
        }
        let (start, end) = (piece.start.min(self.length), piece.end.min(self.length));
        let mut at = None;
        // Parts of a level are two of the next finer one, so that it takes one division to know all.
        let finest = self.levels.len().saturating_sub(1);
        let (parts, width) = (1u64 << finest, self.width());
        let first = (start / width).min(parts - 1);
        let last = (end.max(start) / width).min(parts - 1);
        'levels: for level in (0..self.levels.len()).rev() {
            let shift = finest - level;
            let width = width.saturating_mul(1 << shift);
            for part in first >> shift..=last >> shift {
                let from = start.max(part.saturating_mul(width));
                let to = end.min((part + 1).saturating_mul(width));
                // What begins and ends at once is not nothing.
                let area = u128::from(piece.size) * u128::from(to.saturating_sub(from).max(1));
                let window = &self.levels[level][part as usize].held;
                let full = window.len() >= self.in_window;
                if full && window.peek().is_some_and(|least| area <= least.0.0) {
                    // What lies in one of the shortest parts and is too small there is too small in all longer
                    // ones: they have those that are larger here, too.
                    if first == last {
                        break 'levels;
                    }
                    continue;
                }
                let at = *at.get_or_insert_with(|| match self.free.pop() {
                    Some(free) => {
                        self.pieces[free] = piece;
                        free
                    }
                    None => {
                        self.pieces.push(piece);
                        self.used.push(0);
                        self.pieces.len() - 1
                    }
                });
                self.used[at] += 1;
                let window = &mut self.levels[level][part as usize].held;
                window.push(Reverse((area, piece.seq, at)));
                let least = if full { window.pop() } else { None };
                if let Some(Reverse((.., out))) = least {
                    self.used[out] -= 1;
                    if self.used[out] == 0 {
                        self.free.push(out);
                    }
                }
            }
        }
    }

    /// Those that were chosen, in the order of their beginnings.
    pub fn finish(self) -> Vec<Piece> {
        let chosen = self.pieces.into_iter().zip(self.used);
        let mut chosen: Vec<Piece> = chosen
            .filter(|(_, used)| *used > 0)
            .map(|(piece, _)| piece)
            .collect();
        chosen.sort_unstable_by_key(|piece| (piece.start, piece.seq, piece.end));
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(seq: u64, start: u64, end: u64, size: u64) -> Piece {
        Piece {
            start,
            end,
            size,
            seq,
            ..Piece::default()
        }
    }

    #[test]
    fn the_largest_of_each_part_are_kept() {
        let mut picks = Picks::new(1 << 20, 2, 30);
        // One that lasts, many small ones, and in one place some that are large for it.
        picks.add(piece(1, 0, 1 << 20, 1 << 20));
        for n in 0..1000u64 {
            picks.add(piece(2 + n, n * 1000, n * 1000 + 10, 16));
        }
        for n in 0..3u64 {
            picks.add(piece(5000 + n, 900_000 + n, 900_100 + n, 100 + n));
        }
        assert_eq!(picks.seen, 1004);
        let seqs: Vec<u64> = picks.finish().iter().map(|piece| piece.seq).collect();
        assert!(seqs.contains(&1) && seqs.contains(&5002), "{seqs:?}");
        // Of each part one besides the one that lasts.
        assert!((4..=30).contains(&seqs.len()), "{seqs:?}");
    }

    #[test]
    fn what_is_too_small_for_a_short_part_is_in_no_longer_one() {
        // Areas that differ, so that it is clear which are the largest.
        let mut picks = Picks::new(1 << 16, 3, 100);
        let (finest, width) = (picks.levels.len() - 1, picks.width());
        let mut all = Vec::new();
        for seq in 1..3000u64 {
            let start = seq.wrapping_mul(0x9e37_79b9) % (1 << 16);
            let length = 1 + seq.wrapping_mul(0x85eb_ca6b) % 700;
            let end = (start + length).min(1 << 16);
            all.push(piece(seq, start, end, 1_000_000 + seq * 7919 % 1_000_003));
        }
        let mut expected = Vec::new();
        for level in 0..=finest {
            let width = width << (finest - level);
            for part in 0..1u64 << level {
                let area = |piece: &Piece| {
                    let (from, to) = (
                        piece.start / width,
                        (piece.end / width).min((1 << level) - 1),
                    );
                    let inside = piece.end.min((part + 1) * width) as i64;
                    let inside = inside - piece.start.max(part * width) as i64;
                    ((from..=to).contains(&part)).then(|| piece.size * inside.max(1) as u64)
                };
                let mut areas: Vec<(u64, u64)> = all
                    .iter()
                    .filter_map(|piece| Some((area(piece)?, piece.seq)))
                    .collect();
                areas.sort_unstable();
                expected.extend(areas.iter().rev().take(3).map(|(_, seq)| *seq));
            }
        }
        all.iter().for_each(|piece| picks.add(*piece));
        let mut chosen: Vec<u64> = picks.finish().iter().map(|piece| piece.seq).collect();
        chosen.sort_unstable();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn a_piece_is_kept_whole_however_often_it_was_pushed_out() {
        let mut picks = Picks::new(1000, 1, 3);
        picks.add(piece(1, 0, 999, 10));
        picks.add(piece(2, 0, 999, 20));
        picks.add(piece(3, 0, 400, 1000));
        let kept = picks.finish();
        assert_eq!(
            kept.iter().map(|piece| piece.seq).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!(kept[0], piece(2, 0, 999, 20));
    }

    #[test]
    fn nonsense_has_bounds() {
        let mut picks = Picks::new(0, 0, 0);
        picks.add(piece(1, u64::MAX, 0, u64::MAX));
        picks.add(piece(2, 0, u64::MAX, u64::MAX));
        assert_eq!(picks.finish().len(), 1);
        let mut picks = Picks::new(u64::MAX, 2, 100);
        picks.add(piece(1, 0, u64::MAX, u64::MAX));
        assert_eq!(picks.finish().len(), 1);
    }
}
