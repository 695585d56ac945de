//! Short-lived allocations: how many, for how long, and what keeping their memory would save.
//!
//! Lifetimes come from the event log, where both an allocation and its free are still there. How
//! often a stack freed in the whole run the sums by stack know exactly. How long the driver took
//! for a call is in no trace: an event has one time.

use super::estimate::Weighted;
use super::head::Head;
use super::leaks::{Asked, EntryEnd, Grouping, Item, Options, Placed};
use super::view::Devices;
use super::{Filter, Sum};
use crate::model::{Loops, Process, VisibleStack};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::ops::ControlFlow;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::totals::End;

/// Lifetimes are counted by powers of two of nanoseconds.
const BUCKETS: usize = 64;

/// How long allocations lived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    /// In each: from 2^n to below 2^(n+1) nanoseconds; the first has 0, too.
    buckets: [u64; BUCKETS],
}

impl Default for Lives {
    fn default() -> Lives {
        Lives {
            buckets: [0; BUCKETS],
        }
    }
}

impl Lives {
    fn add(&mut self, ns: u64) {
        self.buckets[ns.max(1).ilog2() as usize] += 1;
    }

    fn merge(&mut self, other: &Lives) {
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own = own.saturating_add(*other);
        }
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What this share of them did not live longer than, nanoseconds; exact to a factor of two.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return 2u64.checked_pow(bucket as u32 + 1).unwrap_or(u64::MAX);
            }
        }
        0
    }

    /// Upper end (nanoseconds) and number, of all that there are.
    pub fn present(&self) -> impl Iterator<Item = (u64, u64)> {
        let buckets = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        buckets.map(|(bucket, &count)| {
            (
                2u64.checked_pow(bucket as u32 + 1).unwrap_or(u64::MAX),
                count,
            )
        })
    }

    /// How many by decades, from under 10 µs to 100 s and more.
    pub fn decades(&self) -> [u64; 9] {
        let mut decades = [0; 9];
        for (bucket, count) in self.buckets.iter().enumerate() {
            // By the middle of the bucket.
            let decade = (3u64.saturating_mul(1 << bucket) / 2).max(1).ilog10();
            decades[decade.clamp(4, 12) as usize - 4] += count;
        }
        decades
    }
}

/// What it would come to if a stack kept its memory and used it again for the same size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pooling {
    /// Allocations in the event log.
    pub allocations: u64,
    /// Those that would have found a block.
    pub reused: u64,
    /// What it would keep at most.
    pub kept: Sum,
}

/// The churn of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Churning {
    /// The group. Its bytes and count are those of its short-lived allocations; its times the
    /// first allocation and the last free of these. Its age says nothing: what is short-lived is
    /// gone.
    pub placed: Placed,
    /// Frees of what had lived longer, or was made before the event log begins.
    pub longer: u64,
    /// Lifetimes, of short-lived and longer ones, where both ends are in the event log.
    pub lives: Lives,
    /// Short-lived allocations a second of event log.
    pub per_second: f64,
    /// What was ever freed there; `None` where sums by stack do not know the group, or only a
    /// part of the time is asked about.
    pub freed: Option<Sum>,
    /// Only of memory that comes from the driver call by call.
    pub pooling: Option<Pooling>,
}

/// The churn of several processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Churn {
    /// Whom it is about.
    pub head: Head,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// The part of the processes' lives.
    pub asked: Asked,
    /// What does not live longer than this is short-lived, nanoseconds.
    pub limit: u64,
    /// How long the event log of each process is, nanoseconds: device layer, framework layer.
    pub logs: Vec<[u64; 2]>,
    /// All short-lived allocations.
    pub short: Sum,
    /// Groups, those with most short-lived allocations first.
    pub groups: Vec<Churning>,
    /// What `top` left out: groups, and their short-lived allocations.
    pub omitted: (usize, Sum),
}

/// A part of a process's time, event times; `None` for all of it.
pub type Part = Option<(u64, u64)>;

impl Churn {
    /// Looks for churn in all processes, each in its part of the time (`parts` has one for each,
    /// or none at all); keeps the `top` groups.
    pub fn of(
        processes: &[Process],
        options: &Options,
        parts: &[Part],
        asked: &Asked,
        limit: u64,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Churn {
        let mut devices = Devices::default();
        let mut found = Churn {
            head: Head::of(processes, &mut devices),
            all_frames: options.unhidden.cuda,
            filter: options.filter.clone(),
            asked: asked.clone(),
            limit,
            logs: Vec::new(),
            short: Sum::default(),
            groups: Vec::new(),
            omitted: (0, Sum::default()),
        };
        for (id, process) in processes.iter().enumerate() {
            let part = parts.get(id).copied().flatten();
            let counting = Counting::read(process, options, part, limit);
            found.logs.push(counting.logs());
            for mut group in counting.finish(loops) {
                let index = group.placed.group.device;
                group.placed.process = id;
                group.placed.device = index.map(|index| devices.id_of(process, id, index));
                found
                    .short
                    .add(group.placed.group.bytes, group.placed.group.count);
                found.groups.push(group);
            }
        }
        if !options.by.is_in_totals() {
            found.head.note(format!(
                "sums by stack do not know the {} of what was freed: only what the event log still \
                 has is counted",
                options.by.word()
            ));
        }
        found.groups.sort_by_key(|churning| {
            let (group, freed) = (&churning.placed.group, churning.freed);
            let size = group.size();
            (
                group.not_sampled,
                Reverse(size.count),
                Reverse(freed.map(|sum| sum.count)),
                Reverse(size.bytes),
            )
        });
        if let Some(top) = top.filter(|&top| top < found.groups.len()) {
            for churning in found.groups.drain(top..) {
                let group = &churning.placed.group;
                found.omitted.0 += 1;
                found.omitted.1.add(group.bytes, group.count);
            }
        }
        found.head.devices = devices.all;
        found
    }

    /// The stacks that are shown, with the process that each belongs to.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &VisibleStack)> {
        let placed = self.groups.iter().map(|churning| &churning.placed);
        placed.map(|placed| (placed.process, &placed.group.stack))
    }
}

/// What is counted for what groups are made of.
#[derive(Clone, Debug, Default)]
struct Counted {
    longer: u64,
    lives: Lives,
    pooling: Pooling,
}

/// What of an allocation its free does not repeat.
#[derive(Clone, Copy, Default)]
struct Begun {
    time: u64,
    thread: u32,
    range: u16,
    stream: u32,
}

impl Begun {
    fn of(event: &Record) -> Begun {
        Begun {
            time: event.time,
            thread: event.thread,
            range: event.range,
            stream: event.stream,
        }
    }
}

/// Whether each allocation of this kind is a call that the driver serves from the device or the
/// host's memory, instead of from a pool of its own.
fn is_call(kind: Kind) -> bool {
    matches!(kind, Kind::Device | Kind::Managed | Kind::Pinned)
}

struct Counting<'p> {
    process: &'p Process,
    options: &'p Options,
    part: Part,
    limit: u64,
    grouping: Grouping<'p>,
    /// By number in the grouping.
    counted: Vec<Counted>,
    /// Blocks that a pool of what has this number, and of this size, would have.
    idle: FxHashMap<(u32, u64), u32>,
    /// First event of each lane.
    first: [Option<u64>; 2],
}

impl<'p> Counting<'p> {
    fn new(process: &'p Process, options: &'p Options, part: Part, limit: u64) -> Counting<'p> {
        Counting {
            process,
            options,
            part,
            limit,
            grouping: Grouping::new(process, options).without_ages(),
            counted: Vec::new(),
            idle: FxHashMap::default(),
            first: [None; 2],
        }
    }

    /// Reads the event log once; again where a free failed, since which one is known only when
    /// what it freed has come back.
    fn read(process: &'p Process, options: &'p Options, part: Part, limit: u64) -> Counting<'p> {
        let mut counting = Counting::new(process, options, part, limit);
        if counting.read_events(None).is_break() {
            counting = Counting::new(process, options, part, limit);
            let _ = counting.read_events(Some(&taken_back(process)));
        }
        counting
    }

    /// `taken_back`: frees that failed. Without these, stops where the first of them shows.
    fn read_events(&mut self, taken_back: Option<&FxHashSet<u64>>) -> ControlFlow<()> {
        // Allocations that the log has and that are not freed yet.
        let mut begun: FxHashMap<u64, Begun> = FxHashMap::default();
        for event in self.process.events() {
            if taken_back.is_none() && event.op == Op::Restore as u8 {
                return ControlFlow::Break(());
            }
            if event.op != Op::Restore as u8 {
                self.first[event.lane()].get_or_insert(event.time);
            }
            let (Some(op), Some(kind)) = (event.op(), event.kind()) else {
                continue;
            };
            // A gauge is no allocation; what is not counted has no bytes of its own.
            let churns = kind.counted() && kind != Kind::Pool;
            if !churns || !self.options.filter.takes(event.device, kind) {
                continue;
            }
            if op.begins_allocation() {
                // One that is back was only gone between two events of one call.
                if op == Op::Alloc && is_call(kind) && self.asks_about(event.time) {
                    self.allocated(&event, kind);
                }
                begun.insert(event.seq, Begun::of(&event));
            } else if op.ends_allocation() {
                let own = begun.remove(&event.ended_seq());
                let counts = matches!(op, Op::Free | Op::FreeUnseen);
                let failed = taken_back.is_some_and(|frees| frees.contains(&event.seq));
                if counts && self.asks_about(event.time) && !failed {
                    self.freed(own, &event, kind);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn asks_about(&self, time: u64) -> bool {
        self.part
            .is_none_or(|(from, to)| (from..=to).contains(&time))
    }

    fn allocated(&mut self, event: &Record, kind: Kind) {
        let made = item(event, kind, Sum::default(), event.time);
        let number = self.grouping.number(&made);
        let idle = self.idle.get_mut(&(number as u32, event.size));
        let pooling = &mut counted(&mut self.counted, number).pooling;
        pooling.allocations += 1;
        match idle.filter(|idle| **idle > 0) {
            Some(idle) => {
                *idle -= 1;
                pooling.reused += 1;
            }
            None => {
                pooling.kept.add(event.size, 1);
                // So that it has a group.
                self.grouping.add_to(number, &made);
            }
        }
    }

    fn freed(&mut self, own: Option<Begun>, free: &Record, kind: Kind) {
        let lived = own.map(|own| free.time.saturating_sub(own.time));
        let short = lived.is_some_and(|lived| lived <= self.limit);
        let held = Sum {
            bytes: free.size,
            count: 1,
        };
        let held = if short { held } else { Sum::default() };
        // What allocated it is known from the free, too; in which thread and range is not.
        let known = own.unwrap_or_default();
        let own_event = Record {
            api: free.allocating_api(),
            thread: known.thread,
            range: known.range,
            stream: known.stream,
            time: own.map_or(free.time, |own| own.time),
            ..*free
        };
        let number = self.grouping.add(&item(&own_event, kind, held, free.time));
        let counted = counted(&mut self.counted, number);
        counted.longer += u64::from(!short);
        if let Some(lived) = lived {
            counted.lives.add(lived);
        }
        if is_call(kind) {
            if own.is_none() {
                // A pool would have had it before the log began.
                counted.pooling.kept.add(free.size, 1);
            }
            *self.idle.entry((number as u32, free.size)).or_default() += 1;
        }
    }

    fn logs(&self) -> [u64; 2] {
        let (begin, end) = self.part.unwrap_or((0, u64::MAX));
        let end = end.min(self.process.duration_ns());
        [0, 1].map(|lane| {
            let whole = self.process.losses.rings[lane].overwritten == 0;
            let from = if whole { Some(0) } else { self.first[lane] };
            from.map_or(0, |from| end.saturating_sub(from.max(begin)))
        })
    }

    fn finish(mut self, loops: &mut dyn Loops) -> Vec<Churning> {
        let logs = self.logs();
        let freed = self.part.is_none() && self.options.by.is_in_totals();
        let freed = freed.then(|| self.freed_ever());
        let counted = self.counted;
        let groups = self.grouping.finish_with_members(loops).into_iter();
        let groups = groups.map(|(group, members)| {
            let mut all = Counted::default();
            let mut known: FxHashSet<(u32, u16, u8, u8)> = FxHashSet::default();
            let mut ever = freed.as_ref().map(|_| Sum::default());
            let mut pooled = false;
            for (number, raw) in &members {
                if let Some(own) = counted.get(*number) {
                    all.longer += own.longer;
                    all.lives.merge(&own.lives);
                    all.pooling.allocations += own.pooling.allocations;
                    all.pooling.reused += own.pooling.reused;
                    all.pooling.kept.merge(own.pooling.kept);
                }
                pooled |= !is_call(raw.kind());
                if let (Some(ever), Some(freed)) = (&mut ever, &freed)
                    && known.insert(raw.row())
                {
                    ever.merge(freed.get(&raw.row()).copied().unwrap_or_default());
                }
            }
            let lane = members.first().map_or(0, |(_, raw)| raw.kind().lane());
            let seconds = (logs[lane] as f64 / 1e9).max(1e-9);
            Churning {
                per_second: group.size().count as f64 / seconds,
                longer: all.longer,
                lives: all.lives,
                freed: ever,
                pooling: (!pooled && all.pooling.allocations > 0).then_some(all.pooling),
                placed: Placed {
                    process: 0,
                    device: None,
                    group,
                },
            }
        });
        let churns = |churning: &Churning| {
            let ever = churning.freed.is_some_and(|freed| freed.count > 0);
            ever || churning.placed.group.count > 0 || churning.longer > 0
        };
        groups.filter(churns).collect()
    }

    /// What was ever freed, by row of sums; each gets into the grouping, too, so that what only
    /// they know has a group.
    fn freed_ever(&mut self) -> FxHashMap<(u32, u16, u8, u8), Sum> {
        let mut freed: FxHashMap<(u32, u16, u8, u8), Sum> = FxHashMap::default();
        for row in self.process.totals() {
            let takes = |kind: &Kind| {
                let churns = kind.counted() && *kind != Kind::Pool;
                churns && self.options.filter.takes(row.key.device, *kind)
            };
            let Some(kind) = row.kind().filter(takes) else {
                continue;
            };
            let key = (row.key.stack, row.key.api, row.key.device, row.key.kind);
            let sum = freed.entry(key).or_default();
            // Wrapping: the rows of what ended otherwise may come before the ordinary one.
            if row.key.end == End::Live as u8 {
                let (bytes, count) = (row.alloc_bytes, row.alloc_count);
                sum.bytes = sum.bytes.wrapping_add(bytes).wrapping_sub(row.live_bytes);
                sum.count = sum.count.wrapping_add(count).wrapping_sub(row.live_count);
                let event = Record {
                    stack: row.key.stack,
                    api: row.key.api,
                    device: row.key.device,
                    time: row.first_time,
                    ..Record::default()
                };
                self.grouping
                    .add(&item(&event, kind, Sum::default(), row.last_time));
            } else {
                sum.bytes = sum.bytes.wrapping_sub(row.live_bytes);
                sum.count = sum.count.wrapping_sub(row.live_count);
            }
        }
        freed
    }
}

fn counted(all: &mut Vec<Counted>, number: usize) -> &mut Counted {
    if all.len() <= number {
        all.resize_with(number + 1, Counted::default);
    }
    &mut all[number]
}

/// Frees that failed, by their event: the next thing that happens to their key is that it is back.
fn taken_back(process: &Process) -> FxHashSet<u64> {
    let restores = process
        .events()
        .filter(|event| event.op() == Some(Op::Restore));
    let keys: FxHashSet<(u8, u64)> = restores.map(|event| (event.space, event.key)).collect();
    let mut last: FxHashMap<(u8, u64), u64> = FxHashMap::default();
    let mut taken_back = FxHashSet::default();
    for event in process.events() {
        let key = (event.space, event.key);
        match event.op().filter(|_| keys.contains(&key)) {
            Some(Op::Restore) => taken_back.extend(last.remove(&key)),
            Some(op) if op.ends_allocation() => drop(last.insert(key, event.seq)),
            _ => {}
        }
    }
    taken_back
}

fn item(event: &Record, kind: Kind, held: Sum, last_time: u64) -> Item {
    Item {
        key: None,
        stack: event.stack,
        api: event.api,
        device: event.device,
        kind,
        end: EntryEnd::Live,
        thread: (event.thread != 0).then_some(event.thread),
        range: event.range.into(),
        stream: event.stream,
        context: event.context,
        bytes: held.bytes,
        count: held.count,
        first_time: event.time,
        last_time,
        weighted: if held.count > 0 {
            Weighted::of(event)
        } else {
            Weighted::default()
        },
    }
}
