//! What there is to tell of one process, in its order: on which track each slice lies, and what the counters say.

use crate::analysis::slices::{Slice, Slices};
use crate::analysis::timeline::change;
use crate::export::log::Log;
use crate::export::pipe::Feed;
use crate::export::samples::Selection;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use vramtrace_format::account::ACCOUNT_ROWS;
use vramtrace_format::record::{Layer, Op, Record};

/// What a track is for.
#[derive(Clone, Copy, Debug)]
pub enum TrackOf {
    /// Live bytes of a layer of a device, or of the host.
    Live(Option<u8>, Layer),
    /// Free memory of a device.
    FreeMemory(u8),
    /// Slices of a device, or of the host.
    Allocations(u8),
    /// Ranges of a thread; 0: those that the process started.
    Ranges(u32),
    /// Marks.
    Marks,
    /// What else happened.
    Others,
}

/// Something to be written. Times are Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// A new track; they are numbered in their order.
    Track(TrackOf),
    /// A counter's value.
    Counter { at: u64, track: u64, value: u64 },
    /// A slice begins: an allocation with its number, and whether it is known when it was made.
    Begin {
        at: u64,
        track: u64,
        seq: u64,
        what: Record,
        is_dated: bool,
    },
    /// The slice of a range begins.
    BeginRange { at: u64, track: u64, range: Slice },
    /// The slice on a track that began last and has not ended ends.
    End { at: u64, track: u64 },
    /// An event that is no allocation.
    Instant { at: u64, track: u64, event: Record },
}

/// The most ranges that are told: the longest.
const MOST_RANGES: usize = 1 << 20;
/// Levels of them: all that there are.
const ALL_LEVELS: usize = usize::MAX;

/// By account: its track and live bytes.
pub type Counters = [Option<(u64, u64)>; ACCOUNT_ROWS];

/// An allocation whose slice has not begun, with the thread and stream that made it, and when that was.
#[derive(Clone, Copy)]
struct Open {
    what: Record,
    time: Option<u64>,
}

/// Lanes of the slices of one device, or of the host.
#[derive(Default)]
struct Lanes {
    tracks: Vec<u64>,
    free: BinaryHeap<Reverse<usize>>,
}

/// One process while it is told.
pub struct Telling<'a> {
    log: &'a Log<'a>,
    selection: &'a Selection,
    counters: Counters,
    /// The number of the last track.
    last_track: u64,
    /// Free memory of devices: tracks.
    free_memory: BTreeMap<u8, u64>,
    marks: Option<u64>,
    others: Option<u64>,
    lanes: BTreeMap<u8, Lanes>,
    /// Allocations that are not told yet, by number.
    waiting: BTreeMap<u64, Open>,
    /// The latest time so far, Unix nanoseconds.
    now: u64,
    /// Slices that have begun: device and lane.
    begun: FxHashMap<u64, (u8, u32)>,
}

impl<'a> Telling<'a> {
    /// Nothing is told yet; there are so many tracks.
    pub fn new(
        log: &'a Log<'a>,
        selection: &'a Selection,
        counters: Counters,
        last_track: u64,
    ) -> Telling<'a> {
        Telling {
            log,
            selection,
            counters,
            last_track,
            free_memory: BTreeMap::new(),
            marks: None,
            others: None,
            lanes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            now: 0,
            begun: FxHashMap::default(),
        }
    }

    /// Tells all of it. Returns how many ranges were left out.
    pub fn tell(mut self, feed: &mut Feed<Told>) -> u64 {
        let log = self.log;
        let mut ranges = Slices::new(log.process, MOST_RANGES, ALL_LEVELS);
        for lifetime in log.lifetimes.iter(log.process) {
            if !feed.step() {
                return 0;
            }
            let forgotten_end = lifetime.end.is_some_and(|end| end.seq == 0);
            if !lifetime.logged && !forgotten_end {
                let begun = lifetime.begun;
                let open = Open {
                    what: Record {
                        thread: begun.map_or(0, |begun| begun.thread),
                        stream: begun.map_or(0, |begun| begun.stream),
                        ..lifetime.what
                    },
                    time: begun.map(|begun| begun.time),
                };
                self.waiting.insert(lifetime.seq, open);
            }
        }
        let (mut told, mut last) = (None, 0);
        for event in log.process.events() {
            if !feed.step() {
                return 0;
            }
            if log.is_after(&event) {
                // Of what has begun by now, when it ends.
                if event.op() == Some(Op::RangeEnded) && event.aux <= last {
                    ranges.event(&event);
                }
                continue;
            }
            last = event.time.max(last);
            if told.is_none() && !log.is_before(&event) {
                told = Some(event.time);
                ranges.forget_ended();
                self.catch_up(event.time, feed);
            }
            ranges.event(&event);
            self.event(&event, told.is_some(), feed);
        }
        // Where nothing happens in the part that is asked about, what is there is still told.
        if told.is_none() {
            self.catch_up(log.process.duration_ns(), feed);
        }
        let filter = &self.selection.filter;
        if !filter.layers.is_empty() || !filter.kinds.is_empty() {
            return 0;
        }
        let found = ranges.finish();
        self.ranges(found, told.unwrap_or(u64::MAX), feed);
        ranges.left_out
    }

    /// Tells ranges that did not end before a time.
    fn ranges(&mut self, mut found: Vec<Slice>, from: u64, feed: &mut Feed<Told>) {
        found.retain(|range| range.end >= from);
        // By track: ranges of a thread lie in each other, those of the process beside each other.
        let place = |range: &Slice| match range.thread {
            0 => (0, range.depth),
            thread => (thread, 0),
        };
        found.sort_by_key(|range| (place(range), range.start, range.depth));
        for of_track in found.chunk_by(|one, other| place(one) == place(other)) {
            let track = self.track(TrackOf::Ranges(of_track[0].thread), feed);
            let mut open: Vec<&Slice> = Vec::new();
            let end = |range: &Slice| Told::End {
                at: self.log.process.unix_ns(range.end),
                track,
            };
            for range in of_track {
                let is_over = |open: &mut &Slice| open.depth >= range.depth || open.end < range.end;
                while let Some(over) = open.pop_if(is_over) {
                    feed.push(&[end(over)]);
                }
                let at = self.log.process.unix_ns(range.start);
                let range_of = *range;
                feed.push(&[Told::BeginRange {
                    at,
                    track,
                    range: range_of,
                }]);
                open.push(range);
            }
            while let Some(over) = open.pop() {
                feed.push(&[end(over)]);
            }
        }
    }

    /// Tells what was there already.
    fn catch_up(&mut self, time: u64, feed: &mut Feed<Told>) {
        for (seq, open) in std::mem::take(&mut self.waiting) {
            self.begin(seq, &open, open.time.unwrap_or(time), feed);
        }
        let at = self.log.process.unix_ns(time);
        for &(track, value) in self.counters.iter().flatten() {
            feed.push(&[Told::Counter { at, track, value }]);
        }
    }

    fn event(&mut self, event: &Record, told: bool, feed: &mut Feed<Told>) {
        let lifetimes = &self.log.lifetimes;
        let time = self.log.process.unix_ns(event.time);
        // What comes back after a free that failed has its time of old.
        self.now = self.now.max(time);
        if let Some((row, change)) = change(event)
            && let Some((track, value)) = &mut self.counters[row]
        {
            *value = value.wrapping_add(change);
            if told {
                let (at, track, value) = (self.now, *track, *value);
                feed.push(&[Told::Counter { at, track, value }]);
            }
        }
        let Some(op) = event.op() else { return };
        if op.begins_allocation() {
            let seq = lifetimes.origin(event.seq);
            if seq != event.seq {
                return;
            }
            let open = Open {
                what: *event,
                time: Some(event.time),
            };
            if told {
                self.begin(seq, &open, event.time, feed);
            } else {
                self.waiting.insert(seq, open);
            }
        } else if op.ends_allocation() {
            if let Some(seq) = lifetimes.ended_by(event) {
                self.waiting.remove(&seq);
                self.end(seq, time, feed);
            }
        } else if told && !matches!(op, Op::Resize | Op::RangeEnded) {
            self.instant(event, op, time, feed);
        }
    }

    fn track(&mut self, of: TrackOf, feed: &mut Feed<Told>) -> u64 {
        feed.push(&[Told::Track(of)]);
        self.last_track += 1;
        self.last_track
    }

    fn begin(&mut self, seq: u64, open: &Open, time: u64, feed: &mut Feed<Told>) {
        let what = open.what;
        let Some(kind) = what.kind() else { return };
        if !self.selection.filter.takes(what.device, kind) {
            return;
        }
        let free = self.lanes.entry(what.device).or_default().free.pop();
        let (lane, track) = match free {
            Some(Reverse(lane)) => (lane, self.lanes[&what.device].tracks[lane]),
            None => {
                let track = self.track(TrackOf::Allocations(what.device), feed);
                let tracks = &mut self.lanes.entry(what.device).or_default().tracks;
                tracks.push(track);
                (tracks.len() - 1, track)
            }
        };
        self.begun.insert(seq, (what.device, lane as u32));
        feed.push(&[Told::Begin {
            at: self.log.process.unix_ns(time),
            track,
            seq,
            what,
            is_dated: open.time.is_some(),
        }]);
    }

    fn end(&mut self, seq: u64, at: u64, feed: &mut Feed<Told>) {
        let Some((device, lane)) = self.begun.remove(&seq) else {
            return;
        };
        let Some(lanes) = self.lanes.get_mut(&device) else {
            return;
        };
        lanes.free.push(Reverse(lane as usize));
        let track = lanes.tracks[lane as usize];
        feed.push(&[Told::End { at, track }]);
    }

    fn instant(&mut self, event: &Record, op: Op, at: u64, feed: &mut Feed<Told>) {
        if !self.log.takes_event(event, self.selection) {
            return;
        }
        if op == Op::MemInfo {
            let track = match self.free_memory.get(&event.device) {
                Some(track) => *track,
                None => {
                    let track = self.track(TrackOf::FreeMemory(event.device), feed);
                    self.free_memory.insert(event.device, track);
                    track
                }
            };
            let value = event.aux;
            return feed.push(&[Told::Counter { at, track, value }]);
        }
        let (known, of) = match op {
            Op::Mark => (self.marks, TrackOf::Marks),
            _ => (self.others, TrackOf::Others),
        };
        let track = known.unwrap_or_else(|| self.track(of, feed));
        match op {
            Op::Mark => self.marks = Some(track),
            _ => self.others = Some(track),
        }
        let event = *event;
        feed.push(&[Told::Instant { at, track, event }]);
    }
}
