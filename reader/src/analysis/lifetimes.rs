//! Every allocation that a trace still knows, from its beginning to its end, in the order in which
//! they were made.
//!
//! What is known of one comes from up to three places: its own event, the event that ended it
//! (which repeats most of it), and, while it lives, its live entry. Where the event log has
//! forgotten the beginning, when that was and by which thread is not known; what had ended by then
//! is forgotten altogether. Memory grows with the number of ends in the event log, some 64 bytes
//! each, and with that of live entries; rows are made as they are asked for.

use crate::model::Process;
use crate::trace::Events;
use rustc_hash::{FxHashMap, FxHashSet};
use std::iter::Peekable;
use vramtrace_format::record::{Op, Record};

/// How an allocation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Event time.
    pub time: u64,
    /// Thread.
    pub thread: u32,
    /// Stream id; 0 none.
    pub stream: u32,
    /// See [`vramtrace_format::record::Kind`].
    pub aux: u64,
}

/// How an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What ended it.
    pub op: Op,
    /// The event; 0 if the event log has forgotten it.
    pub seq: u64,
    /// Event time; 0 if forgotten.
    pub time: u64,
    /// Bytes it had then: a pool's reserve changes.
    size: u64,
    /// Thread; 0 if forgotten.
    pub thread: u32,
    /// Stream id; 0 none.
    pub stream: u32,
    /// API function; 0 unknown.
    pub api: u16,
}

/// One allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Number of its event; with the process, who it is.
    pub seq: u64,
    /// What it is: space, key, size (at its end), stack, API, range, device, kind, context. Nothing
    /// else of this record means anything.
    pub what: Record,
    /// How it began; `None` if the event log has forgotten that.
    pub begun: Option<Begun>,
    /// How it ended; `None` if it has not, or if that was not recorded.
    pub end: Option<Ended>,
    /// Whether it is live at the end of the trace.
    pub live: bool,
    /// Whether its own event is still in the event log.
    pub logged: bool,
}

/// What has to be known before the first allocation can be told; by default nothing.
#[derive(Default)]
pub struct Lifetimes<'p> {
    /// By the allocation that they end, as far as its own event is in the log.
    ends: FxHashMap<u64, Ended>,
    /// Ends of allocations from before the log, by allocation.
    early: Vec<(u64, Record)>,
    /// Frees that failed bring entries back under new numbers; by those, the first.
    again: FxHashMap<u64, u64>,
    /// Live and marked entries by the number of the allocation.
    entries: Vec<(u64, &'p Record)>,
}

type Place = (u8, u64);

fn place(event: &Record) -> Place {
    (event.space, event.key)
}

impl<'p> Lifetimes<'p> {
    /// Reads through the event log, twice. `tick` hears of every event.
    pub fn of(process: &'p Process, mut tick: impl FnMut()) -> Lifetimes<'p> {
        let mut restored: FxHashSet<Place> = FxHashSet::default();
        let mut first = [None; 2];
        for event in process.events() {
            tick();
            if event.op == Op::Restore as u8 {
                restored.insert(place(&event));
            }
            let lane = event.kind().map_or(0, |kind| kind.lane());
            first[lane].get_or_insert(event.seq);
        }
        let first = first.map(|seq| seq.unwrap_or(u64::MAX));
        let mut ends = FxHashMap::default();
        let mut early: FxHashMap<u64, Record> = FxHashMap::default();
        let mut again: FxHashMap<u64, u64> = FxHashMap::default();
        let mut freed: FxHashMap<Place, u64> = FxHashMap::default();
        for event in process.events() {
            tick();
            let (Some(op), Some(kind)) = (event.op(), event.kind()) else {
                continue;
            };
            if op.ends_allocation() {
                let seq = event.ended_seq();
                let seq = again.get(&seq).copied().unwrap_or(seq);
                if seq < first[kind.lane()] {
                    early.insert(seq, event);
                } else {
                    ends.insert(seq, Ended::by(&event, op));
                }
                if !restored.is_empty() && restored.contains(&place(&event)) {
                    freed.insert(place(&event), seq);
                }
            } else if op == Op::Restore
                && let Some(seq) = freed.remove(&place(&event))
            {
                ends.remove(&seq);
                early.remove(&seq);
                again.insert(event.seq, seq);
            }
        }
        let live = process.live().chain(process.marked());
        let mut entries: Vec<(u64, &Record)> = live
            .filter(|entry| entry.kind().is_some())
            .map(|entry| (again.get(&entry.seq).copied().unwrap_or(entry.seq), entry))
            .collect();
        entries.sort_unstable_by_key(|(seq, _)| *seq);
        let mut early: Vec<(u64, Record)> = early.into_iter().collect();
        early.sort_unstable_by_key(|(seq, _)| *seq);
        Lifetimes {
            ends,
            early,
            again,
            entries,
        }
    }

    /// The first number of an allocation that an event names.
    pub fn origin(&self, seq: u64) -> u64 {
        self.again.get(&seq).copied().unwrap_or(seq)
    }

    /// The event that ended an allocation for good, by the allocation's first number: a free that
    /// failed did not.
    pub fn end_of(&self, seq: u64) -> Option<u64> {
        if let Some(end) = self.ends.get(&seq) {
            return Some(end.seq);
        }
        let at = self.early.binary_search_by_key(&seq, |(seq, _)| *seq);
        at.ok().map(|at| self.early[at].1.seq)
    }

    /// All of them, in the order of [`Lifetime::seq`]; `process` is the one they were read from.
    pub fn iter(&self, process: &'p Process) -> Iter<'_, 'p> {
        Iter {
            of: self,
            events: process.events().peekable(),
            early: 0,
            entries: 0,
        }
    }
}

impl Ended {
    fn by(event: &Record, op: Op) -> Ended {
        Ended {
            op,
            seq: event.seq,
            time: event.time,
            size: event.size,
            thread: event.thread,
            stream: event.stream,
            api: event.api,
        }
    }
}

fn begun(own: &Record) -> Begun {
    Begun {
        time: own.time,
        thread: own.thread,
        stream: own.stream,
        aux: own.aux,
    }
}

/// Iterator over [`Lifetimes`].
pub struct Iter<'a, 'p> {
    of: &'a Lifetimes<'p>,
    events: Peekable<Events<'p>>,
    early: usize,
    entries: usize,
}

impl Iter<'_, '_> {
    /// The next event that begins an allocation.
    fn own(&mut self) -> Option<Record> {
        loop {
            let event = *self.events.peek()?;
            let begins = match event.op() {
                Some(Op::Alloc) => true,
                Some(Op::Restore) => !self.of.again.contains_key(&event.seq),
                _ => false,
            };
            if begins && event.kind().is_some() {
                return Some(event);
            }
            self.events.next();
        }
    }
}

impl Iterator for Iter<'_, '_> {
    type Item = Lifetime;

    fn next(&mut self) -> Option<Lifetime> {
        let own = self.own();
        let early = self.of.early.get(self.early);
        let entry = self.of.entries.get(self.entries);
        let own_seq = own.map(|own| own.seq);
        let early_seq = early.map(|(seq, _)| *seq);
        let entry_seq = entry.map(|(seq, _)| *seq);
        let seq = [own_seq, early_seq, entry_seq]
            .into_iter()
            .flatten()
            .min()?;
        let own = own.filter(|own| own.seq == seq);
        let early = early.filter(|early| early.0 == seq);
        let entry = entry.filter(|entry| entry.0 == seq).map(|entry| entry.1);
        if own.is_some() {
            self.events.next();
        }
        self.early += usize::from(early.is_some());
        self.entries += usize::from(entry.is_some());
        let early = early.map(|(_, event)| event);
        let mut what = *entry.or(own.as_ref()).or(early)?;
        let end = match early {
            Some(event) => event.op().map(|op| Ended::by(event, op)),
            None => self.of.ends.get(&seq).copied(),
        };
        let marked = entry.is_some_and(|entry| entry.op == Op::FreeInTeardown as u8);
        let end = end.or(marked.then_some(Ended {
            op: Op::FreeInTeardown,
            seq: 0,
            time: 0,
            size: what.size,
            thread: 0,
            stream: 0,
            api: 0,
        }));
        if let Some(end) = &end {
            what.size = end.size;
        }
        if entry.is_none() && own.is_none() {
            what.api = what.allocating_api();
        }
        Some(Lifetime {
            seq,
            what,
            begun: entry.or(own.as_ref()).map(begun),
            live: entry.is_some() && !marked,
            logged: own.is_some(),
            end,
        })
    }
}
