//! NVTX ranges over time, as far as allocations tell: a range is known to have been open at each
//! allocation that was made in it.

use crate::model::Process;
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// A range, from the first to the last allocation in it without one outside in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Thread.
    pub thread: u32,
    /// How many ranges are around it.
    pub depth: u32,
    /// Its name: a number in [`Slices::names`].
    pub name: u32,
    /// Event times.
    pub start: u64,
    /// As [`Slice::start`].
    pub end: u64,
    /// Bytes allocated in it, ranges inside included.
    pub bytes: u64,
    /// Allocations.
    pub count: u64,
}

impl Slice {
    /// Something more was allocated in it.
    fn grow(&mut self, time: u64, bytes: u64) {
        self.end = self.end.max(time);
        self.bytes = self.bytes.saturating_add(bytes);
        self.count += 1;
    }
}

/// Depth beyond which nothing is drawn.
const DEEPEST: usize = 8;

/// Finds slices of one process.
pub struct Slices<'p> {
    process: &'p Process,
    most: usize,
    /// The shortest that is kept, nanoseconds.
    pub shortest: u64,
    /// How many were too short.
    pub left_out: u64,
    paths: FxHashMap<u32, Rc<[u32]>>,
    numbers: FxHashMap<String, u32>,
    /// Names by number.
    pub names: Vec<String>,
    /// By thread: the range of its last allocation, and what is open then.
    open: FxHashMap<u32, (u32, Vec<Slice>)>,
    done: Vec<Slice>,
}

impl<'p> Slices<'p> {
    /// None yet; there will be at most so many.
    pub fn new(process: &'p Process, most: usize) -> Slices<'p> {
        Slices {
            process,
            most,
            shortest: 0,
            left_out: 0,
            paths: FxHashMap::default(),
            numbers: FxHashMap::default(),
            names: Vec::new(),
            open: FxHashMap::default(),
            done: Vec::new(),
        }
    }

    fn path(&mut self, range: u32) -> Rc<[u32]> {
        if let Some(path) = self.paths.get(&range) {
            return Rc::clone(path);
        }
        let name = self.process.ranges.name(range).unwrap_or_default();
        let parts = name.split(" > ").filter(|part| !part.is_empty());
        let path: Rc<[u32]> = parts
            .take(DEEPEST)
            .map(|part| {
                let next = self.names.len() as u32;
                let number = *self.numbers.entry(part.to_owned()).or_insert(next);
                if number == next {
                    self.names.push(part.to_owned());
                }
                number
            })
            .collect();
        self.paths.insert(range, Rc::clone(&path));
        path
    }

    /// Something was allocated.
    pub fn add(&mut self, thread: u32, range: u32, time: u64, bytes: u64) {
        if let Some((same, open)) = self.open.get_mut(&thread)
            && *same == range
        {
            open.iter_mut().for_each(|slice| slice.grow(time, bytes));
            return;
        }
        if range == 0 && !self.open.contains_key(&thread) {
            return;
        }
        let path = self.path(range);
        let (_, mut open) = self.open.remove(&thread).unwrap_or_default();
        let same = open
            .iter()
            .zip(path.iter())
            .take_while(|(slice, name)| slice.name == **name)
            .count();
        for slice in open.drain(same..) {
            self.close(slice);
        }
        for (depth, &name) in path.iter().enumerate().skip(same) {
            open.push(Slice {
                thread,
                depth: depth as u32,
                name,
                start: time,
                end: time,
                bytes: 0,
                count: 0,
            });
        }
        open.iter_mut().for_each(|slice| slice.grow(time, bytes));
        if !open.is_empty() {
            self.open.insert(thread, (range, open));
        }
    }

    fn close(&mut self, slice: Slice) {
        if slice.end - slice.start < self.shortest {
            self.left_out += 1;
            return;
        }
        self.done.push(slice);
        if self.done.len() > self.most.saturating_mul(2) {
            self.prune();
        }
    }

    /// Leaves out the shorter half.
    fn prune(&mut self) {
        let mut lengths: Vec<u64> = self.done.iter().map(|s| s.end - s.start).collect();
        let middle = lengths.len() / 2;
        let (_, median, _) = lengths.select_nth_unstable(middle);
        self.shortest = median.saturating_add(1).max(self.shortest);
        let before = self.done.len();
        self.done.retain(|s| s.end - s.start >= self.shortest);
        self.left_out += (before - self.done.len()) as u64;
    }

    /// All slices, by beginning and depth.
    pub fn finish(&mut self) -> Vec<Slice> {
        let open: Vec<Slice> = self.open.drain().flat_map(|(_, (_, open))| open).collect();
        for slice in open {
            self.close(slice);
        }
        while self.done.len() > self.most {
            self.prune();
        }
        let mut done = std::mem::take(&mut self.done);
        done.sort_unstable_by_key(|s| (s.start, s.depth, s.thread, s.end));
        done
    }
}
