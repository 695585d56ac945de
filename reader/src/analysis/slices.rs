//! When NVTX ranges were there: slices of a thread's time, nested.
//!
//! A range in which something was recorded says at its end when it was entered. One that has not ended
//! (or whose end the ring has lost, or in a trace from before that was recorded) is known to have been
//! open at each allocation that was made in it.

use crate::model::Process;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use vramtrace_format::record::{Kind, Op, Record};

/// A range, from when it was entered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Thread; 0 if the process started it.
    pub thread: u32,
    /// How many ranges are around it. Those that the process started do not nest: each has the first
    /// place that was free when it began.
    pub depth: u32,
    /// Its id.
    pub range: u32,
    /// Event times.
    pub start: u64,
    /// As [`Slice::start`].
    pub end: u64,
    /// Whether the trace says when it was there. Else it is drawn from the first to the last
    /// allocation in it without one outside in between.
    pub told: bool,
    /// Bytes allocated in it, ranges inside included, as far as the event log goes back.
    pub bytes: u64,
    /// Allocations, likewise.
    pub count: u64,
}

impl Slice {
    /// As far as one moment in it tells.
    fn at(thread: u32, depth: usize, range: u32, time: u64) -> Slice {
        Slice {
            thread,
            depth: depth as u32,
            range,
            start: time,
            end: time,
            told: false,
            bytes: 0,
            count: 0,
        }
    }

    /// Something more was allocated in it.
    fn grow(&mut self, time: u64, (bytes, count): (u64, u64)) {
        self.end = self.end.max(time);
        self.bytes = self.bytes.saturating_add(bytes);
        self.count += count;
    }
}

/// What a thread is in.
#[derive(Default)]
struct Open {
    /// The range of the last allocation, where nothing has ended since.
    range: Option<u32>,
    slices: Vec<Slice>,
    /// By depth: when the last slice ended there or further out. None begins before that.
    ended: Vec<u64>,
}

/// Finds slices of one process.
pub struct Slices<'p> {
    process: &'p Process,
    most: usize,
    deepest: usize,
    /// The shortest that is kept, nanoseconds.
    shortest: u64,
    /// How many were too short.
    pub left_out: u64,
    paths: FxHashMap<u32, Rc<[u32]>>,
    open: FxHashMap<u32, Open>,
    /// By range: threads that were in it and in nothing else, it may be because the process started it.
    outermost: FxHashMap<u32, Vec<u32>>,
    /// By range: what may be a part of one that the process started and has not ended.
    parked: FxHashMap<u32, Vec<Slice>>,
    parked_count: usize,
    done: Vec<Slice>,
    /// The latest time so far.
    now: u64,
    /// The framework layer's ring, where ends are, has begun.
    has_ends: bool,
    /// Whether stacks are PyTorch's allocator's, whose segments are no memory of their own; nothing where it is not used.
    torch: Option<FxHashMap<u32, bool>>,
}

impl<'p> Slices<'p> {
    /// None yet; there will be at most so many, in at most so many others.
    pub fn new(process: &'p Process, most: usize, deepest: usize) -> Slices<'p> {
        Slices {
            process,
            most,
            deepest,
            shortest: 0,
            left_out: 0,
            paths: FxHashMap::default(),
            open: FxHashMap::default(),
            outermost: FxHashMap::default(),
            parked: FxHashMap::default(),
            parked_count: 0,
            done: Vec::new(),
            now: 0,
            has_ends: false,
            torch: process
                .totals()
                .iter()
                .any(|row| row.key.kind == Kind::Torch as u8)
                .then(FxHashMap::default),
        }
    }

    fn path(&mut self, range: u32) -> Rc<[u32]> {
        if let Some(path) = self.paths.get(&range) {
            return Rc::clone(path);
        }
        let mut path: Vec<u32> = self.process.ranges.outward(range).collect();
        path.reverse();
        let path: Rc<[u32]> = path.into();
        self.paths.insert(range, Rc::clone(&path));
        path
    }

    /// An event, in their order.
    pub fn event(&mut self, event: &Record) {
        if event.op == Op::Restore as u8 {
            return;
        }
        // Where a trace is damaged, time may go back.
        self.now = self.now.max(event.time);
        if event.lane() == 1 && !self.has_ends {
            self.has_ends = true;
            // Ends before this one are lost: what was seen until now may be many visits.
            if self.process.losses.rings[1].overwritten > 0 {
                self.close_everything();
            }
        }
        match event.op() {
            Some(Op::Alloc) => {
                let counts = self.counts(event);
                let sum = (u64::from(counts) * event.size, u64::from(counts));
                self.allocated(event.thread, event.range.into(), self.now, sum);
            }
            Some(Op::RangeEnded) => {
                let (began, ended) = (event.aux.min(self.now), self.now);
                match event.thread {
                    0 => self.process_range_ended(event.range.into(), began, ended),
                    thread => self.ended(thread, event.range.into(), began, ended),
                }
            }
            _ => {}
        }
    }

    /// Whether it is memory that the program asked for: no reserve of an allocator, and each byte once.
    fn counts(&mut self, event: &Record) -> bool {
        match event.kind() {
            None | Some(Kind::Pool) => false,
            Some(kind) if !kind.counted() => false,
            Some(Kind::Device | Kind::Managed | Kind::Vmm) => {
                let process = self.process;
                self.torch.as_mut().is_none_or(|known| {
                    let stack = event.stack;
                    !*known
                        .entry(stack)
                        .or_insert_with(|| process.is_torch_allocator(stack))
                })
            }
            Some(_) => true,
        }
    }

    fn allocated(&mut self, thread: u32, range: u32, time: u64, sum: (u64, u64)) {
        if let Some(open) = self.open.get_mut(&thread)
            && open.range == Some(range)
        {
            let slices = &mut open.slices;
            slices.iter_mut().for_each(|slice| slice.grow(time, sum));
            return;
        }
        if range == 0 && !self.open.contains_key(&thread) {
            return;
        }
        let path = self.path(range);
        let path = &path[..path.len().min(self.deepest)];
        let mut open = self.open.remove(&thread).unwrap_or_default();
        let same = open
            .slices
            .iter()
            .zip(path)
            .take_while(|(slice, range)| slice.range == **range)
            .count();
        self.close_all(&mut open, same);
        open.enter(thread, &path[same..], time);
        if same == 0 && path.len() == 1 {
            self.outermost.entry(range).or_default().push(thread);
        }
        let slices = &mut open.slices;
        slices.iter_mut().for_each(|slice| slice.grow(time, sum));
        open.range = Some(range);
        self.open.insert(thread, open);
    }

    /// A thread popped a range.
    fn ended(&mut self, thread: u32, range: u32, began: u64, ended: u64) {
        let path = self.path(range);
        let Some(depth) = path.len().checked_sub(1) else {
            return;
        };
        if depth >= self.deepest {
            return;
        }
        let mut open = self.open.remove(&thread).unwrap_or_default();
        let around = open.slices.iter().zip(path.iter());
        let same = around.take_while(|(slice, range)| slice.range == **range);
        // What is not on the way to it is over.
        let same = same.count();
        self.close_all(&mut open, same);
        open.enter(thread, &path[same..], ended);
        let Some(mut slice) = open.slices.pop() else {
            return;
        };
        // When it was entered was found out by a clock that ran a little faster or slower than the
        // events' between then and now: what is inside is inside, and what was before is before.
        let floor = open.ended.get(depth).or(open.ended.last());
        slice.start = slice.start.min(began).max(floor.copied().unwrap_or(0));
        slice.end = slice.end.max(ended).max(slice.start);
        slice.told = true;
        for around in &mut open.slices {
            around.start = around.start.min(slice.start);
            around.end = around.end.max(slice.end);
        }
        open.note_end(depth, slice.end);
        open.range = None;
        self.close(slice);
        self.open.insert(thread, open);
    }

    /// The process ended a range that it had started.
    fn process_range_ended(&mut self, range: u32, start: u64, end: u64) {
        let mut slice = Slice {
            end,
            told: true,
            ..Slice::at(0, 0, range, start)
        };
        for thread in self.outermost.remove(&range).unwrap_or_default() {
            let Some(mut open) = self.open.remove(&thread) else {
                continue;
            };
            if open.slices.first().is_some_and(|of| of.range == range) {
                self.close_all(&mut open, 0);
                open.range = None;
            }
            self.open.insert(thread, open);
        }
        let parked = self.parked.remove(&range).unwrap_or_default();
        self.parked_count -= parked.len();
        for part in parked {
            if part.start < start {
                self.keep(part);
                continue;
            }
            slice.bytes = slice.bytes.saturating_add(part.bytes);
            slice.count = slice.count.saturating_add(part.count);
        }
        self.keep(slice);
    }

    /// Nothing that is open is known to go on.
    fn close_everything(&mut self) {
        let open: Vec<Open> = self.open.drain().map(|(_, open)| open).collect();
        for mut open in open {
            self.close_all(&mut open, 0);
        }
        self.outermost.clear();
    }

    /// What has ended until now is not asked about.
    pub fn forget_ended(&mut self) {
        self.done.clear();
        self.parked.clear();
        (self.parked_count, self.shortest, self.left_out) = (0, 0, 0);
    }

    /// Slices from a depth on are over, whenever that was.
    fn close_all(&mut self, open: &mut Open, from: usize) {
        let from = from.min(open.slices.len());
        while open.slices.len() > from
            && let Some(slice) = open.slices.pop()
        {
            open.note_end(open.slices.len(), slice.end);
            self.close(slice);
        }
    }

    fn close(&mut self, slice: Slice) {
        if slice.told || slice.depth > 0 || self.parked_count >= self.most {
            return self.keep(slice);
        }
        self.parked.entry(slice.range).or_default().push(slice);
        self.parked_count += 1;
    }

    fn keep(&mut self, slice: Slice) {
        if slice.end - slice.start < self.shortest {
            self.left_out += 1;
            return;
        }
        self.done.push(slice);
        if self.done.len() > self.most.saturating_mul(2) {
            self.prune();
        }
    }

    /// Leaves out the shorter ones.
    fn prune(&mut self) {
        let length = |slice: &Slice| slice.end - slice.start;
        if self.done.len() <= self.most || self.most == 0 {
            return;
        }
        let least = self.most - 1;
        self.done
            .select_nth_unstable_by_key(least, |slice| Reverse(length(slice)));
        self.shortest = length(&self.done[least]).max(self.shortest);
        self.left_out += (self.done.len() - self.most) as u64;
        self.done.truncate(self.most);
    }

    /// All slices, by beginning and depth.
    pub fn finish(&mut self) -> Vec<Slice> {
        self.close_everything();
        let parked = std::mem::take(&mut self.parked);
        parked
            .into_values()
            .flatten()
            .for_each(|slice| self.keep(slice));
        self.prune();
        let mut done = std::mem::take(&mut self.done);
        done.sort_unstable_by_key(|s| (s.start, s.depth, s.thread, s.end));
        // When those end that are there, with their places; and places that are free again.
        let (mut there, mut free) = (BinaryHeap::new(), BinaryHeap::new());
        for slice in done.iter_mut().filter(|slice| slice.thread == 0) {
            while let Some(&Reverse((end, place))) = there.peek()
                && end <= slice.start
            {
                there.pop();
                free.push(Reverse(place));
            }
            let place = free
                .pop()
                .map_or(there.len() as u32, |Reverse(place)| place);
            there.push(Reverse((slice.end, place)));
            slice.depth = place;
        }
        done
    }
}

impl Open {
    /// It is in these, too, from a time on.
    fn enter(&mut self, thread: u32, ranges: &[u32], time: u64) {
        for &range in ranges {
            let depth = self.slices.len();
            self.slices.push(Slice::at(thread, depth, range, time));
        }
    }

    /// Nothing begins at a depth or further in before this.
    fn note_end(&mut self, depth: usize, end: u64) {
        let before = self.ended.last().copied().unwrap_or(0);
        if self.ended.len() <= depth {
            self.ended.resize(depth + 1, before);
        }
        for ended in &mut self.ended[depth..] {
            *ended = end.max(*ended);
        }
    }
}
