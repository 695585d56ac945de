//! Everything that the formats with single allocations and events share: what is asked about, the
//! named stacks, what each allocation counts as.

use super::progress::Progress;
use super::samples::{Part, Selection};
use super::stacks::{self, Stacks};
use crate::analysis::leaks;
use crate::analysis::lifetimes::{Lifetime, Lifetimes};
use crate::analysis::moment::Found;
use crate::analysis::timeline::change;
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::account::ACCOUNT_ROWS;
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
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Memory, Role::Cache, Role::Aside];

    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Memory => "memory",
            Role::Cache => "cache",
            Role::Aside => "aside",
        }
    }
}

/// How an allocation stands at the end of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was freed.
    Freed,
    /// Its address was handed out again.
    FreeUnseen,
    /// It ended with its context.
    Context,
    /// It ended with its device's reset.
    Reset,
    /// It was freed while the process went down.
    Teardown,
    /// Its end was lost.
    Unknown,
    /// Its context broke.
    Corrupted,
    /// It is there.
    Live,
}

impl State {
    /// All of them.
    pub const ALL: [State; 8] = [
        State::Freed,
        State::FreeUnseen,
        State::Context,
        State::Reset,
        State::Teardown,
        State::Unknown,
        State::Corrupted,
        State::Live,
    ];

    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            State::Freed => "freed",
            State::FreeUnseen => "free-unseen",
            State::Context => "context",
            State::Reset => "reset",
            State::Teardown => "teardown",
            State::Unknown => "unknown",
            State::Corrupted => "corrupted",
            State::Live => "live",
        }
    }
}

/// How an allocation stands at the end of its trace.
pub fn state(lifetime: &Lifetime, process: &Process) -> State {
    match lifetime.end.map(|end| end.op) {
        Some(Op::Free) => State::Freed,
        Some(Op::FreeUnseen) => State::FreeUnseen,
        Some(Op::EndByContext) => State::Context,
        Some(Op::EndByReset) => State::Reset,
        Some(Op::FreeInTeardown) => State::Teardown,
        _ if !lifetime.live => State::Unknown,
        _ if process.corruption_of(&corruptible(lifetime)).is_some() => State::Corrupted,
        _ => State::Live,
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
    /// By account row: what the events in the log sum up to, wrapping.
    pub changes: [u64; ACCOUNT_ROWS],
    part: Part,
    /// Live entries that are caches.
    caches: FxHashSet<u64>,
    /// Whether PyTorch's blocks are known, and which stacks are its allocator's.
    torch: bool,
    torch_stacks: FxHashMap<u32, bool>,
}

/// How often [`Log::of`] goes through the event log; once more where a free failed.
const PASSES: u64 = 1;

impl<'p> Log<'p> {
    /// Reads one process; `see` is shown every event.
    fn of(
        process: &'p Process,
        id: usize,
        selection: &Selection,
        mut see: impl FnMut(&Record),
    ) -> Log<'p> {
        let mut changes = [0u64; ACCOUNT_ROWS];
        let is_block = |kind: u8| kind == Kind::Torch as u8;
        Log {
            id,
            process,
            lifetimes: Lifetimes::of(process, |event| {
                see(event);
                if let Some((row, change)) = change(event) {
                    changes[row] = changes[row].wrapping_add(change);
                }
            }),
            changes,
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
    let mut places: Vec<stacks::Place> = Vec::new();
    for (id, process) in processes.iter().enumerate() {
        let mut own: FxHashSet<u64> = FxHashSet::default();
        let mut add = |record: &Record| {
            let (stack, api) = (record.stack, record.allocating_api());
            if own.insert(stacks::within(stack, api)) {
                places.push((id, stack, api));
            }
        };
        process.live().for_each(&mut add);
        for entry in process.marked() {
            add(&Record {
                op: Op::Alloc as u8,
                ..*entry
            });
        }
        logs.push(Log::of(process, id, selection, |event| {
            progress.tick();
            add(event);
        }));
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
