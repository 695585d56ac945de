//! Everything that the formats with single allocations and events share: what is asked about, the
//! named stacks, what each allocation counts as.

use super::progress::Progress;
use super::samples::{Part, Selection};
use super::stacks::{self, Stacks};
use crate::analysis::leaks;
use crate::analysis::lifetimes::{Lifetime, Lifetimes};
use crate::analysis::moment::Found;
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::record::{Kind, Op, Record};

/// What an allocation's bytes count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Memory that the program asked for, at the finest layer known: what `leaks` counts.
    Memory,
    /// What a caching allocator or a pool holds: its blocks are counted instead.
    Cache,
    /// Not memory of its own: imports, mappings, reservations.
    Aside,
}

impl Role {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Memory => "memory",
            Role::Cache => "cache",
            Role::Aside => "aside",
        }
    }
}

/// The word for how an allocation stands at the end of its trace.
pub fn state(lifetime: &Lifetime, process: &Process) -> &'static str {
    match lifetime.end.map(|end| end.op) {
        Some(Op::Free) => "freed",
        Some(Op::FreeUnseen) => "free-unseen",
        Some(Op::EndByContext) => "context",
        Some(Op::EndByReset) => "reset",
        Some(Op::FreeInTeardown) => "teardown",
        _ if !lifetime.live => "unknown",
        _ if process.corruption_of(&corruptible(lifetime)).is_some() => "corrupted",
        _ => "live",
    }
}

/// Whether it was corrupted is asked by the entry's number.
fn corruptible(lifetime: &Lifetime) -> Record {
    Record {
        op: Op::Alloc as u8,
        ..lifetime.what
    }
}

/// One process of an export.
pub struct Log<'p> {
    /// Which of the processes.
    pub id: usize,
    /// The process.
    pub process: &'p Process,
    /// Its allocations.
    pub lifetimes: Lifetimes<'p>,
    part: Part,
    /// Live entries that are caches.
    caches: FxHashSet<u64>,
    /// Whether PyTorch's blocks are known, and which stacks are its allocator's.
    torch: bool,
    torch_stacks: FxHashMap<u32, bool>,
}

/// How often [`Log::of`] and one pass over events or allocations go through the event log.
const PASSES: u64 = 2;

impl<'p> Log<'p> {
    /// Reads one process.
    pub fn of(
        process: &'p Process,
        id: usize,
        selection: &Selection,
        progress: &mut Progress,
    ) -> Log<'p> {
        let is_block = |kind: u8| kind == Kind::Torch as u8;
        Log {
            id,
            process,
            lifetimes: Lifetimes::of(process, || progress.tick()),
            part: selection.parts.get(id).cloned().unwrap_or_default(),
            caches: leaks::caches(process),
            torch: process.totals().iter().any(|row| is_block(row.key.kind)),
            torch_stacks: FxHashMap::default(),
        }
    }

    /// Whether an allocation was there in the part of the process's life that is asked about.
    pub fn takes(&self, lifetime: &Lifetime, selection: &Selection) -> bool {
        let Some(kind) = lifetime.what.kind() else {
            return false;
        };
        let ended_before = |from: Found| match (from, &lifetime.end) {
            (_, None) => false,
            // Its end is not known, but that it was in teardown: the last thing there is.
            (_, Some(end)) if end.seq == 0 => false,
            (Found::Event(seq), Some(end)) => end.seq <= seq,
            (Found::Time(time), Some(end)) => end.time <= time,
        };
        let begun_after = |to: Found| match (to, &lifetime.begun) {
            (Found::Event(seq), _) => lifetime.seq > seq,
            (Found::Time(time), Some(begun)) => begun.time > time,
            (Found::Time(_), None) => false,
        };
        selection.filter.takes(lifetime.what.device, kind)
            && !self.part.from.is_some_and(ended_before)
            && !self.part.to.is_some_and(begun_after)
    }

    /// Whether an event is asked about. Those of no memory are where no memory is asked for.
    pub fn takes_event(&self, event: &Record, selection: &Selection) -> bool {
        let filter = &selection.filter;
        let wanted = match event.kind() {
            Some(kind) => filter.takes(event.device, kind),
            None => filter.layers.is_empty() && filter.kinds.is_empty(),
        };
        wanted && !self.is_before(event) && !self.is_after(event)
    }

    /// Whether an event was before the part of the process's life that is asked about.
    pub fn is_before(&self, event: &Record) -> bool {
        self.part.from.is_some_and(|from| !from.is_before(event))
    }

    /// Whether it was after that.
    pub fn is_after(&self, event: &Record) -> bool {
        self.part.to.is_some_and(|to| to.is_before(event))
    }

    /// What an allocation counts as. Where segments of PyTorch's allocator have ended, they are known
    /// by their stacks alone.
    pub fn role(&mut self, lifetime: &Lifetime) -> Role {
        let what = &lifetime.what;
        match what.kind() {
            None => Role::Aside,
            Some(kind) if !kind.counted() => Role::Aside,
            Some(Kind::Pool) => Role::Cache,
            Some(Kind::Device | Kind::Managed | Kind::Vmm) => {
                let process = self.process;
                let by_stack = self.torch
                    && *self
                        .torch_stacks
                        .entry(what.stack)
                        .or_insert_with(|| process.is_torch_allocator(what.stack));
                if by_stack || lifetime.live && self.caches.contains(&what.seq) {
                    Role::Cache
                } else {
                    Role::Memory
                }
            }
            Some(_) => Role::Memory,
        }
    }
}

/// Reads all processes, and names all stacks that their allocations and events have.
pub fn read<'p>(
    processes: &'p [Process],
    selection: &Selection,
    progress: &mut Progress,
) -> (Vec<Log<'p>>, Stacks) {
    let mut logs = Vec::new();
    let mut places: FxHashSet<stacks::Place> = FxHashSet::default();
    for (id, process) in processes.iter().enumerate() {
        let mut last = None;
        let mut add = |record: &Record| {
            let place = (id, record.stack, record.allocating_api());
            if last != Some(place) {
                last = Some(place);
                places.insert(place);
            }
        };
        process.events().for_each(|event| add(&event));
        process.live().for_each(&mut add);
        for entry in process.marked() {
            places.insert((id, entry.stack, entry.api));
        }
        logs.push(Log::of(process, id, selection, progress));
    }
    let stacks = Stacks::of(processes, places, selection.wanted());
    (logs, stacks)
}

/// A bar for so many passes over all events, after [`read`].
pub fn bar(processes: &[Process], passes: u64) -> Progress {
    let events = |process: &Process| {
        let reach = [0, 1].map(|lane| process.trace.reach(lane));
        let kept = reach.map(|ring| ring.written.min(ring.capacity));
        kept[0].saturating_add(kept[1])
    };
    let all: u64 = processes.iter().map(events).fold(0, u64::saturating_add);
    Progress::new("exporting", all.saturating_mul(PASSES + passes))
}
