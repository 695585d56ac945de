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
    /// Ends of allocations whose own event is in the log, in order of the allocations: read from start to end
    /// they cost no search, and less memory than a map.
    ends: Vec<(u64, Ended)>,
    /// Ends of allocations from before the log, by allocation.
    early: Vec<(u64, Record)>,
    /// Events that look like ends and are none: frees that failed, and all but the last of several.
    void: FxHashSet<u64>,
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
    /// Reads through the event log, once; twice where a free failed. `see` is shown every event, the first time.
    pub fn of(process: &'p Process, mut see: impl FnMut(&Record)) -> Lifetimes<'p> {
        let mut restored = FxHashSet::default();
        let mut found = Lifetimes::ends(process, &FxHashSet::default(), |event| {
            if event.op == Op::Restore as u8 {
                restored.insert(place(event));
            }
            see(event);
        });
        if !restored.is_empty() {
            // Which frees failed is known only when what they freed has come back.
            found = Lifetimes::ends(process, &restored, |_| {});
        }
        let again = &found.again;
        let live = process.live().chain(process.marked());
        let mut entries: Vec<(u64, &Record)> = live
            .filter(|entry| entry.kind().is_some())
            .map(|entry| (again.get(&entry.seq).copied().unwrap_or(entry.seq), entry))
            .collect();
        entries.sort_unstable_by_key(|(seq, _)| *seq);
        found.entries = entries;
        found
    }

    /// What the events say; `restored` are the places where frees failed.
    fn ends(
        process: &'p Process,
        restored: &FxHashSet<Place>,
        mut see: impl FnMut(&Record),
    ) -> Lifetimes<'p> {
        let mut found = Lifetimes::default();
        let mut first = [None; 2];
        let mut early: FxHashMap<u64, Record> = FxHashMap::default();
        // By place: the free, and what it freed.
        let mut freed: FxHashMap<Place, (u64, u64)> = FxHashMap::default();
        for event in process.events() {
            see(&event);
            let kind = event.kind();
            let first = *first[event.lane()].get_or_insert(event.seq);
            let (Some(op), Some(_)) = (event.op(), kind) else {
                continue;
            };
            if op.ends_allocation() {
                let seq = found.origin(event.ended_seq());
                if seq >= first {
                    found.ends.push((seq, Ended::by(&event, op)));
                } else if let Some(other) = early.insert(seq, event) {
                    found.void.insert(other.seq);
                }
                if !restored.is_empty() && restored.contains(&place(&event)) {
                    freed.insert(place(&event), (event.seq, seq));
                }
            } else if op == Op::Restore
                && let Some((free, seq)) = freed.remove(&place(&event))
            {
                found.void.insert(free);
                early.remove(&seq);
                found.again.insert(event.seq, seq);
            }
        }
        let Lifetimes { ends, void, .. } = &mut found;
        if !void.is_empty() {
            ends.retain(|(_, end)| !void.contains(&end.seq));
        }
        // Ends of one allocation stay in their order. Most programs free much of what they allocate soon,
        // so that runs of the list are in order already.
        ends.sort_by_key(|(seq, _)| *seq);
        ends.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                void.insert(kept.1.seq);
                *kept = *later;
            }
            same
        });
        found.early = early.into_iter().collect();
        found.early.sort_unstable_by_key(|(seq, _)| *seq);
        found
    }

    /// The first number of an allocation that an event names.
    #[inline]
    pub fn origin(&self, seq: u64) -> u64 {
        self.again.get(&seq).copied().unwrap_or(seq)
    }

    /// The allocation that an event ends for good, by its first number; `None` for a free that failed, and for
    /// what ends nothing.
    #[inline]
    pub fn ended_by(&self, event: &Record) -> Option<u64> {
        let ends = event.op().is_some_and(Op::ends_allocation) && event.kind().is_some();
        (ends && !self.void.contains(&event.seq)).then(|| self.origin(event.ended_seq()))
    }

    /// All of them, in the order of [`Lifetime::seq`]; `process` is the one they were read from.
    pub fn iter(&self, process: &'p Process) -> Iter<'_, 'p> {
        Iter {
            of: self,
            events: process.events().peekable(),
            ends: 0,
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
    ends: usize,
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

impl Iter<'_, '_> {
    /// The end of an allocation that is not before those asked for so far.
    fn end(&mut self, seq: u64) -> Option<Ended> {
        let rest = &self.of.ends[self.ends..];
        self.ends += rest.iter().take_while(|(own, _)| *own < seq).count();
        let (own, end) = self.of.ends.get(self.ends)?;
        (*own == seq).then_some(*end)
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
            None => self.end(seq),
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
