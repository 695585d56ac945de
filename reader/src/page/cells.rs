//! What stacks allocated and freed in each part of the time, so that a selection of time says who.

use rustc_hash::FxHashMap;

/// Sums of one stack in one part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Bytes allocated, and in how many allocations.
    pub made: [i64; 2],
    /// Bytes that were gone again, and in how many allocations.
    pub gone: [i64; 2],
    /// Part of `made` that was never freed.
    pub kept: [i64; 2],
}

impl Cell {
    fn add(&mut self, what: What, bytes: i64, count: i64) {
        let sums = match what {
            What::Made => &mut self.made,
            What::Gone => &mut self.gone,
            What::Kept => &mut self.kept,
        };
        sums[0] = sums[0].saturating_add(bytes);
        sums[1] = sums[1].saturating_add(count);
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Cell) {
        let add = |one: &mut [i64; 2], other: &[i64; 2]| {
            one[0] = one[0].saturating_add(other[0]);
            one[1] = one[1].saturating_add(other[1]);
        };
        add(&mut self.made, &other.made);
        add(&mut self.gone, &other.gone);
        add(&mut self.kept, &other.kept);
    }
}

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Allocated.
    Made,
    /// Freed, or gone with its context.
    Gone,
    /// Allocated and never freed.
    Kept,
}

/// All cells of a page. Where they become too many, two neighbouring parts of the time become one.
///
/// Events come in the order of their times, so that nearly all of them are about the part that the last one was about. The cells
/// of that part lie side by side, by stack; they join the others when another part begins.
pub struct Cells {
    /// Length of a part, nanoseconds: part `n` has the times from `n` times that, below the next.
    width: u64,
    /// Parts of the time.
    buckets: u32,
    most: usize,
    cells: FxHashMap<(u32, u32), Cell>,
    /// The part that is being filled, its cells by stack, and which of these there are.
    current: u32,
    filling: Vec<Cell>,
    filled: Vec<u32>,
}

/// The fewest parts that a page has.
const FEWEST: u32 = 32;

impl Cells {
    /// None yet, of all the time in so many parts.
    pub fn new(length: u64, buckets: u32, most: usize) -> Cells {
        let buckets = buckets.next_power_of_two();
        Cells {
            width: (length / u64::from(buckets)).saturating_add(1),
            buckets,
            most,
            cells: FxHashMap::default(),
            current: 0,
            filling: Vec::new(),
            filled: Vec::new(),
        }
    }

    /// Adds to what a stack did at a time since the page's beginning.
    pub fn add(&mut self, key: u32, time: u64, what: What, bytes: i64, count: i64) {
        let bucket = self.bucket(time);
        if bucket == self.current {
            self.fill(key).add(what, bytes, count);
        } else if what == What::Kept {
            // What was kept is known when it ends: it may lie anywhere before.
            self.cells
                .entry((key, bucket))
                .or_default()
                .add(what, bytes, count);
            self.bound();
        } else {
            self.settle();
            // There may be longer parts by now.
            self.current = self.bucket(time);
            self.fill(key).add(what, bytes, count);
        }
    }

    fn bucket(&self, time: u64) -> u32 {
        (time / self.width).min(u64::from(self.buckets - 1)) as u32
    }

    /// The cell of a stack in the part that is being filled.
    fn fill(&mut self, key: u32) -> &mut Cell {
        let at = key as usize;
        if at >= self.filling.len() {
            self.filling.resize(at + 1, Cell::default());
        }
        let cell = &mut self.filling[at];
        if *cell == Cell::default() {
            self.filled.push(key);
        }
        cell
    }

    /// The cells that are being filled join the others.
    fn settle(&mut self) {
        for key in self.filled.drain(..) {
            let cell = std::mem::take(&mut self.filling[key as usize]);
            self.cells
                .entry((key, self.current))
                .or_default()
                .merge(&cell);
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.cells.len() > self.most.saturating_mul(2) && self.buckets > FEWEST {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let old = std::mem::take(&mut self.cells);
        for ((key, bucket), cell) in old {
            let cells = self.cells.entry((key, bucket / 2)).or_default();
            cells.merge(&cell);
        }
        self.buckets /= 2;
        self.current /= 2;
        self.width = self.width.saturating_mul(2);
    }

    /// The number of parts, their length, and all cells by stack and part: no more than allowed, unless
    /// stacks alone are as many.
    pub fn finish(mut self) -> (u32, u64, Vec<(u32, u32, Cell)>) {
        self.settle();
        while self.cells.len() > self.most && self.buckets > FEWEST {
            self.halve();
        }
        let (buckets, width) = (self.buckets, self.width);
        let cells = self.cells.into_iter();
        let mut cells: Vec<(u32, u32, Cell)> = cells
            .filter(|(_, cell)| *cell != Cell::default())
            .map(|((key, bucket), cell)| (key, bucket, cell))
            .collect();
        cells.sort_unstable_by_key(|(key, bucket, _)| (*key, *bucket));
        (buckets, width, cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_longer_where_they_are_too_many() {
        let mut cells = Cells::new(1_000_000, 512, 300);
        for n in 0..1000u64 {
            cells.add((n % 8) as u32, n * 1000, What::Made, 10, 1);
            cells.add((n % 8) as u32, n * 1000, What::Gone, 4, 1);
        }
        let (buckets, width, cells) = cells.finish();
        assert!(
            cells.len() <= 300 && buckets == 32,
            "{} {buckets}",
            cells.len()
        );
        assert!(width * u64::from(buckets) > 1_000_000);
        let made: i64 = cells.iter().map(|(_, _, cell)| cell.made[0]).sum();
        let gone: i64 = cells.iter().map(|(_, _, cell)| cell.gone[0]).sum();
        assert_eq!((made, gone), (10_000, 4_000));
        // Each is in the part that its time is in.
        let first: i64 = cells
            .iter()
            .filter(|(_, part, _)| *part == 0)
            .map(|(_, _, c)| c.made[1])
            .sum();
        assert_eq!(first as u64, width.div_ceil(1000));
    }
}
