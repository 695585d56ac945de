//! The critical section: everything that happens to the trace, in one order.
//!
//! A [`Ledger`] belongs to whoever holds the recorder's lock. Each call here is short, never
//! blocks, and never calls anything outside this process's memory.

use crate::clock::Clock;
use crate::file::Sections;
use crate::sampling::{self, Cost, Governor};
use vramtrace_format::account::{self, Account};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::footprint::Footprint;
use vramtrace_format::live::Place;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE, Op, Record, Space};
use vramtrace_format::reported;
use vramtrace_format::sampling::interval;
use vramtrace_format::stacks::{self, Interned};

/// The trace of this process, as its writer sees it.
pub struct Ledger {
    trace: Sections,
    clock: Clock,
    seq: u64,
    teardown: bool,
    ending: Vec<Ending>,
    /// Ranges in the trace.
    ranges: u32,
    /// Bytes of the cold section that ranges and marks took, who may have about a quarter each.
    taken: [u64; 2],
    other_marks: bool,
    governor: Governor,
}

/// Who shares the cold section with facts that reports cannot do without.
#[derive(Clone, Copy)]
enum Guest {
    Ranges = 0,
    Marks = 1,
}

/// A context that the driver may be ending right now: its keys are given out again before what
/// ended with it is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Its id.
    pub context: u16,
    /// How what it owns ends.
    pub how: Op,
    /// Whether an entry of it ends with it.
    pub ends: fn(&Record) -> bool,
}

/// What a framework's allocator says that it holds on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Bytes of the blocks that it has handed out.
    pub allocated: u64,
    /// Bytes that it has from the driver.
    pub reserved: u64,
    /// Whether it is the only one in the process: of several, each knows its own part, and nothing
    /// of this can be compared.
    pub alone: bool,
}

/// By whom an allocation ends.
#[derive(Clone, Copy, Debug)]
pub struct By {
    /// How it ends.
    pub how: Op,
    /// API that ends it.
    pub api: u16,
    /// Thread that calls it.
    pub thread: u32,
    /// Stream it is ordered on.
    pub stream: u32,
}

impl Ledger {
    /// Over a new trace.
    pub fn new(trace: Sections, clock: Clock) -> Ledger {
        Ledger {
            trace,
            clock,
            seq: 0,
            teardown: false,
            ending: Vec::new(),
            ranges: 0,
            taken: [0; 2],
            other_marks: false,
            governor: Governor::new(0, None),
        }
    }

    /// Stacks are taken as this governor says; `budget` is its own, in millionths of a core.
    pub fn govern(&mut self, governor: Governor, budget: u32) {
        let sampling = &mut *self.trace.sampling;
        sampling.head.budget = budget;
        sampling.head.finest = governor.finest();
        sampling.begin(0, governor.step());
        sampling::choose_clock(&self.clock);
        let steps = governor.lanes(governor.step());
        sampling::begin(steps, governor.is_limited());
        self.governor = governor;
    }

    /// A stack was taken, or was not to be; the event that it belongs to is recorded.
    #[inline(always)]
    pub(crate) fn took_stack(&mut self, cost: Cost) {
        if cost.is_any() {
            self.charge(cost);
        }
        if self.governor.is_due(self.trace.control.last_time) {
            self.look();
        }
    }

    /// An allocation was recorded that was not sampled.
    #[inline(always)]
    pub(crate) fn not_sampled(&mut self, cost: Cost) {
        self.trace.sampling.head.not_sampled += 1;
        self.took_stack(cost);
    }

    #[inline(never)]
    fn charge(&mut self, cost: Cost) {
        cost.add_event(&mut self.clock, &mut self.trace.sampling.head);
        let (walk, fresh) = cost.of_stack(&mut self.clock);
        let walk = match walk {
            Some(ns) => self.governor.believe(ns),
            None if cost.stacks != 0 => self.governor.mean(),
            None => 0,
        };
        let ns = u64::from(cost.stacks) * walk + fresh;
        if cost.stacks != 0 {
            let lane = usize::from(cost.lane);
            self.governor.took(lane, cost.size, cost.sampled, ns);
        }
        self.trace.sampling.took(u64::from(cost.stacks), ns);
    }

    /// Whether stacks are to be sampled by another interval.
    #[cold]
    #[inline(never)]
    fn look(&mut self) {
        let before = self.governor.step();
        let Some(change) = self.governor.look(self.trace.control.last_time) else {
            return;
        };
        self.event(Record {
            op: Op::SamplingChanged as u8,
            device: NO_DEVICE,
            key: interval(before),
            size: interval(change.to),
            aux: u64::from(change.cost),
            thread: crate::process::thread_id(),
            ..Record::default()
        });
        let (seq, time) = (self.seq, self.trace.control.last_time);
        self.trace
            .sampling
            .change(seq, time, change.to, change.cost);
        sampling::put_in_force(self.governor.lanes(change.to));
    }

    /// From now on a context may be ending.
    pub fn begin_ending(&mut self, ending: Ending) {
        self.ending.push(ending);
    }

    /// What ended with a context is recorded, if anything did.
    pub fn finish_ending(&mut self, context: u16) {
        if let Some(at) = self.ending.iter().position(|e| e.context == context) {
            self.ending.swap_remove(at);
        }
    }

    /// Why the key of a live entry was given out again: it ended with its context, or was freed
    /// unseen.
    #[cold]
    fn why_gone(&self, lane: usize, at: usize) -> Op {
        let entry = self.trace.tables.live[lane].slot(at);
        let ended = |entry: &&Ending, of: &Record| entry.context == of.context && (entry.ends)(of);
        entry
            .and_then(|of| self.ending.iter().find(|ending| ended(ending, of)))
            .map_or(Op::FreeUnseen, |ending| ending.how)
    }

    /// See [`Clock::forget_counter`].
    pub fn forget_counter(&mut self) {
        self.clock.forget_counter();
    }

    /// The trace itself, to be read.
    pub(crate) fn sections(&self) -> &Sections {
        &self.trace
    }

    /// Number of the last event.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// The process's counters and flags.
    pub fn control(&mut self) -> &mut vramtrace_format::layout::Control {
        self.trace.control
    }

    /// What the driver holds for itself on a device, the sums of that device's own layer, and what time
    /// it is.
    pub fn footprint(&mut self, device: u8) -> Option<(&mut Footprint, &Account, u64)> {
        let account = account::index(device, Layer::Device);
        let row = self.trace.footprints.get_mut(usize::from(device))?;
        let account = self.trace.tables.accounts.get(account)?;
        Some((row, account, self.clock.now()))
    }

    /// Records an allocation. `seq` and `time` of the record are filled in here. Returns its time.
    #[inline(always)]
    pub fn allocated(&mut self, entry: &mut Record) -> u64 {
        let Some(kind) = entry.kind() else { return 0 };
        let lane = kind.lane();
        let slot = match self.trace.tables.live[lane].place(entry.space, entry.key) {
            Place::Vacant(at) => Some(at),
            Place::Live(at) => self.end_unseen(lane, at, entry),
            Place::Full => None,
        };
        self.write(Op::Alloc, kind, entry, slot);
        entry.time
    }

    /// The key was handed out again, so what had it is gone.
    #[cold]
    fn end_unseen(&mut self, lane: usize, at: usize, entry: &Record) -> Option<usize> {
        let by = By {
            how: self.why_gone(lane, at),
            api: entry.api,
            thread: entry.thread,
            stream: entry.stream,
        };
        self.end_otherwise(lane, at, by, &mut Record::default());
        match self.trace.tables.live[lane].place(entry.space, entry.key) {
            Place::Vacant(at) => Some(at),
            _ => None,
        }
    }

    /// Records that the allocation at a key ends. Looks in the `first` lane, then in the other.
    /// False if nothing with that key is live; else its entry, unchanged, is in `entry`.
    #[inline(always)]
    pub fn freed(
        &mut self,
        first: usize,
        space: Space,
        key: u64,
        by: By,
        entry: &mut Record,
    ) -> bool {
        let Some(at) = self.trace.tables.live[first].find(space, key) else {
            return self.freed_elsewhere(1 - first, space, key, by, entry);
        };
        if by.how == Op::Free && !self.teardown {
            self.end_as(Op::Free, first, at, by, entry);
        } else {
            self.end_otherwise(first, at, by, entry);
        }
        true
    }

    #[cold]
    fn freed_elsewhere(
        &mut self,
        lane: usize,
        space: Space,
        key: u64,
        by: By,
        entry: &mut Record,
    ) -> bool {
        let at = self.trace.tables.live[lane].find(space, key);
        if let Some(at) = at {
            self.end_otherwise(lane, at, by, entry);
        }
        at.is_some()
    }

    /// As the program going down, or something rarer than a free, ends it.
    #[cold]
    fn end_otherwise(&mut self, lane: usize, at: usize, by: By, entry: &mut Record) {
        let how = if by.how == Op::Free && self.teardown {
            Op::FreeInTeardown
        } else {
            by.how
        };
        self.end_as(how, lane, at, by, entry);
    }

    #[inline(always)]
    fn end_as(&mut self, how: Op, lane: usize, at: usize, by: By, entry: &mut Record) {
        let Some(live) = self.trace.tables.live[lane].slot(at) else {
            return;
        };
        *entry = *live;
        let Some(kind) = live.kind() else { return };
        let mut event = live.ended(how, by.api, by.thread, by.stream);
        self.write(how, kind, &mut event, Some(at));
    }

    /// A free turned out to have failed: its entry is live again, unchanged but for its number.
    pub fn restore(&mut self, entry: &Record) {
        let Some(kind) = entry.kind() else { return };
        let table = &mut self.trace.tables.live[kind.lane()];
        if let Place::Vacant(at) = table.place(entry.space, entry.key) {
            self.seq += 1;
            let event = Record {
                seq: self.seq,
                op: Op::Restore as u8,
                ..*entry
            };
            let now = self.clock.now();
            self.commit(Op::Restore, kind, &event, Some(at), now);
        }
    }

    /// Changes a sampled gauge to `bytes`; creates it if it does not exist.
    pub fn gauge(&mut self, mut entry: Record) {
        let Some(kind) = entry.kind() else { return };
        let Some(space) = entry.space() else { return };
        let lane = kind.lane();
        match self.trace.tables.live[lane].find(space, entry.key) {
            Some(at) => {
                let old = self.trace.tables.live[lane]
                    .slot(at)
                    .copied()
                    .unwrap_or_default();
                if old.size != entry.size {
                    entry.stack = old.stack;
                    entry.aux = old.size;
                    entry.api = old.api;
                    entry.op = Op::Resize as u8;
                    self.write(Op::Resize, kind, &mut entry, Some(at));
                }
            }
            None if entry.size == 0 => {}
            None => {
                entry.op = Op::Alloc as u8;
                self.allocated(&mut entry);
            }
        }
    }

    /// Records any other event.
    pub fn event(&mut self, mut event: Record) {
        self.number(&mut event);
        let Sections {
            control,
            tables,
            rings,
            ..
        } = &mut self.trace;
        let lane = event.lane();
        rings[lane].write(&event, &mut control.ring_written[lane]);
        tables.apply(&event, None, control);
        control.last_time = event.time;
    }

    /// Records that a range ended that was entered at a [`sampling::reading`]; nothing where the program
    /// has forbidden itself the counter, by which that was known.
    pub fn range_ended(&mut self, mut event: Record, entered: u64) {
        if let Some(took) = sampling::since(entered, &mut self.clock) {
            event.aux = self.clock.now().saturating_sub(took);
            self.event(event);
        }
    }

    /// A framework said, with the last event, what it holds on a device by its own account.
    #[inline(always)]
    pub fn reported(&mut self, device: u8, holds: Holds) {
        if let Some(row) = self.trace.reported.get_mut(reported::row_of(device)) {
            let seq = if holds.alone { self.seq } else { 0 };
            row.set(seq, holds.allocated, holds.reserved);
        }
    }

    /// From now on frees are teardown.
    pub fn begin_teardown(&mut self, thread: u32) {
        if !self.teardown {
            self.teardown = true;
            self.event(Record {
                op: Op::TeardownBegins as u8,
                thread,
                ..Record::default()
            });
            self.trace.control.teardown_seq = self.seq;
        }
    }

    /// The live entries that `matches`, from slot `from` on, at most `room` slots of one lane:
    /// ends each `by`. Returns where to go on; `None` at the end of the table.
    pub fn end_matching(
        &mut self,
        lane: usize,
        from: usize,
        room: usize,
        by: By,
        matches: &dyn Fn(&Record) -> bool,
    ) -> Option<usize> {
        let slots = self.trace.tables.live[lane].slots().len();
        let until = (from + room).min(slots);
        for at in from..until {
            let found = self.trace.tables.live[lane]
                .slot(at)
                .is_some_and(|slot| vramtrace_format::live::is_live(slot.op) && matches(slot));
            if found {
                self.end_otherwise(lane, at, by, &mut Record::default());
            }
        }
        (until < slots).then_some(until)
    }

    /// The slots of a lane's live table.
    pub fn live_slots(&self, lane: usize) -> &[Record] {
        self.trace.tables.live[lane].slots()
    }

    /// The live entry at a key.
    pub fn find(&self, lane: usize, space: Space, key: u64) -> Option<Record> {
        let table = &self.trace.tables.live[lane];
        table
            .find(space, key)
            .and_then(|at| table.slot(at))
            .copied()
    }

    /// Appends a cold record.
    pub fn cold(&mut self, record: &Cold) {
        match cold::append(self.trace.cold, self.trace.control.cold_used, record) {
            Some(used) => vramtrace_format::publish_word(&mut self.trace.control.cold_used, used),
            None => self.trace.control.cold_dropped += 1,
        }
    }

    /// Appends what has its own share of the room, in percent; false if that is used up.
    fn guest(&mut self, guest: Guest, share: u64, record: &Cold) -> bool {
        let before = self.trace.control.cold_used;
        if self.taken[guest as usize] >= self.trace.cold.len() as u64 / 100 * share {
            return false;
        }
        let Some(used) = cold::append(self.trace.cold, before, record) else {
            return false;
        };
        vramtrace_format::publish_word(&mut self.trace.control.cold_used, used);
        self.taken[guest as usize] += used - before;
        true
    }

    /// Gives a range its row, and writes what it is, which `describe` says of that row. `None` if
    /// there is no room.
    pub fn range(&mut self, describe: impl FnOnce(u32) -> cold::Range) -> Option<u32> {
        let row = self.ranges + 1;
        let has_row = (row as usize) < self.trace.ranges.len();
        if has_row && self.guest(Guest::Ranges, 25, &Cold::Range(describe(row))) {
            self.ranges = row;
            return Some(row);
        }
        None
    }

    /// Where the counts of ranges stand.
    pub fn range_rows(&self) -> &'static [std::sync::atomic::AtomicU64] {
        self.trace.ranges
    }

    /// Writes what a mark is; false if there is no room. Some of it is left for those that stand for
    /// many.
    pub fn mark(&mut self, records: &[Cold], many: bool) -> bool {
        let share = if many { 30 } else { 25 };
        let mut records = records.iter();
        records.all(|record| self.guest(Guest::Marks, share, record))
    }

    /// Sees that there is a text for marks that found no room.
    pub fn other_marks(&mut self) {
        if !self.other_marks {
            self.other_marks = true;
            self.cold(&Cold::Mark(cold::Name {
                id: 0,
                text: "(other marks)".into(),
            }));
        }
    }

    /// The id of a stack in the trace.
    pub fn intern(&mut self, frames: &[u64], flags: u16) -> u32 {
        if frames.is_empty() {
            return stacks::NO_STACK;
        }
        let control = &mut *self.trace.control;
        match self
            .trace
            .stacks
            .intern(frames, flags, &mut control.stack_words)
        {
            Interned::Known(id) => id,
            Interned::Added(id) => {
                control.stack_count += 1;
                id
            }
            Interned::Full => {
                control.stacks_dropped += 1;
                stacks::STACK_TABLE_FULL
            }
        }
    }

    /// Its place in the one order of events.
    #[inline(always)]
    fn number(&mut self, event: &mut Record) {
        self.seq += 1;
        event.seq = self.seq;
        event.time = self.clock.now();
    }

    #[inline(always)]
    fn write(&mut self, op: Op, kind: Kind, event: &mut Record, slot: Option<usize>) {
        self.number(event);
        self.commit(op, kind, event, slot, event.time);
    }

    #[inline(always)]
    fn commit(&mut self, op: Op, kind: Kind, event: &Record, slot: Option<usize>, now: u64) {
        let Sections {
            control,
            tables,
            rings,
            ..
        } = &mut self.trace;
        let lane = kind.lane();
        rings[lane].write(event, &mut control.ring_written[lane]);
        tables.apply_as(op, kind, event, slot, control);
        control.last_time = now;
    }
}
