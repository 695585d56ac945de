//! Where the whole number goes that nvidia-smi shows for a process: every byte that is known, line by
//! line, and what is left.
//!
//! | line | known by |
//! |---|---|
//! | a library's memory | its allocations of the device layer that are live |
//! | pools | the reserve that the driver last said, and the live blocks in it |
//! | contexts, code, limits, streams | how much less was free after a call than before it |
//! | unexplained | the number, less all lines |
//!
//! Managed memory moves between device and host, imports are another process's, and what is
//! page-locked is no device's: they are listed beside, never added.

use super::Sum;
use super::moment::{Forgotten, Found, Past};
use super::view::{Devices, ProcessView};
use crate::model::{DeviceUse, FoundBy, Process, UseSample};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use vramtrace_format::footprint::Footprint;
use vramtrace_format::record::{GRAPH_POOL, Kind, Layer, NO_DEVICE, Op, Record};

/// The number that is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Bytes of the device that the process uses, as nvidia-smi shows them.
    pub process: Option<u64>,
    /// Which process of the list it is was not certain.
    pub assumed: bool,
    /// Used bytes of the whole device, of all processes.
    pub device: u64,
    /// Part of that which is not this process's, where it is known: others' and the driver's.
    pub others: Option<u64>,
    /// When that was, event time.
    pub time: u64,
}

impl From<&UseSample> for Shown {
    fn from(sample: &UseSample) -> Shown {
        // Where the driver's own reserve is among what is in use, cuMemGetInfo counts otherwise.
        let comparable = sample.reserved_bytes.is_some();
        let others = |process| sample.used_bytes.saturating_sub(process);
        Shown {
            process: sample.process_bytes,
            assumed: sample.found_by == FoundBy::Assumed,
            device: sample.used_bytes,
            others: sample.process_bytes.filter(|_| comparable).map(others),
            time: sample.time,
        }
    }
}

/// How a line is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// By the events of allocations.
    Events,
    /// By the driver's own figure for a pool.
    Gauge,
    /// By how much less memory was free after a call than before it.
    Measured,
}

impl Basis {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Basis::Events => "events",
            Basis::Gauge => "gauge",
            Basis::Measured => "measured",
        }
    }
}

/// What a line is about; the word is a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Memory that a library, or the program, asked the driver for.
    Library,
    /// PyTorch's caching allocator: what it reserved.
    TorchReserved,
    /// A pool of stream-ordered memory, or several.
    Pools,
    /// The pool of memory of graphs.
    GraphPool,
    /// The process's contexts.
    Context,
    /// Modules and functions that were loaded.
    Code,
    /// Stacks, heaps and buffers of kernels that were enlarged.
    Limits,
    /// Streams: what the driver sets up for each.
    Streams,
    /// Within another line: handed out.
    InUse,
    /// Within another line: kept and not handed out.
    Cached,
}

impl Part {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Library => "library",
            Part::TorchReserved => "torch-reserved",
            Part::Pools => "pools",
            Part::GraphPool => "graph-pool",
            Part::Context => "context",
            Part::Code => "code",
            Part::Limits => "limits",
            Part::Streams => "streams",
            Part::InUse => "in-use",
            Part::Cached => "cached",
        }
    }
}

/// A line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub part: Part,
    /// Name of the library; empty for other parts.
    pub name: String,
    /// File of the library; empty where it is not known, or there is none.
    pub file: String,
    /// Bytes; negative where code that was unloaded gave back more than was seen taken.
    pub bytes: i64,
    /// Allocations, or measured calls.
    pub count: u64,
    /// How it is known.
    pub basis: Basis,
    /// What it is made of, as far as that is known.
    pub within: Vec<Line>,
}

/// Listed beside the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Page-locked host memory of the whole process: allocated, and registered.
    pub pinned: Sum,
    /// Managed memory: its pages are on the device or on the host.
    pub managed: Sum,
    /// Memory of other processes that is visible here.
    pub imports: Sum,
    /// Physical memory on the host made by cuMemCreate.
    pub host_physical: Sum,
}

/// One device of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// Position among the processes.
    pub process: usize,
    /// Position among the devices.
    pub device: usize,
    /// The moment, Unix nanoseconds.
    pub at_ns: u64,
    /// The number, if there is one.
    pub shown: Option<Shown>,
    /// What the tree adds up to, without what is unexplained.
    pub explained: i64,
    /// The number less that.
    pub unexplained: Option<i64>,
    /// Lines, largest first.
    pub lines: Vec<Line>,
    /// Beside it.
    pub beside: Beside,
    /// What is not exact, and why; sentences.
    pub notes: Vec<String>,
}

impl Reconciled {
    /// The number that the tree is to explain: the process's, or, where only the device's is known,
    /// that.
    pub fn number(&self) -> Option<u64> {
        self.shown
            .map(|shown| shown.process.unwrap_or(shown.device))
    }
}

/// The whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Processes.
    pub processes: Vec<ProcessView>,
    /// Devices.
    pub devices: Devices,
    /// One for each device that a process uses.
    pub trees: Vec<Reconciled>,
    /// Sentences about processes without an answer.
    pub without: Vec<String>,
}

/// What is asked of one process.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The moment; `None` for the end of its trace.
    pub moment: Option<Found>,
    /// The numbers, by device ordinal.
    pub shown: BTreeMap<u8, Shown>,
    /// Devices that it is asked about; all if empty.
    pub devices: Vec<u8>,
}

impl Question {
    /// About a moment of a process whose numbers are in its trace: those that were taken nearest to it.
    /// Without a moment, where the last one was taken.
    pub fn recorded(process: &Process, moment: Option<Found>, devices: Vec<u8>) -> Question {
        let asked = |device: &u8| devices.is_empty() || devices.contains(device);
        let uses = || {
            process
                .device_use
                .iter()
                .filter(|(device, _)| asked(device))
        };
        let last = || {
            let times = uses().filter_map(|(_, all)| Some(all.last()?.time));
            times.max().map(Found::Time)
        };
        let moment = moment.or_else(last);
        let at = moment.and_then(|moment| moment.time(process));
        let nearest = |(device, all): (&u8, &DeviceUse)| {
            let distance = |sample: &&UseSample| sample.time.abs_diff(at?).into();
            let sample = all
                .samples
                .iter()
                .min_by_key(|sample| -> Option<u64> { distance(sample) });
            Some((*device, Shown::from(sample?)))
        };
        Question {
            moment,
            shown: uses().filter_map(nearest).collect(),
            devices,
        }
    }
}

/// A number taken so much before or after the moment is worth a word, nanoseconds.
const FAR: u64 = 1_500_000_000;

/// Explains the numbers of one process, which becomes the answer's next.
pub fn reconcile(answer: &mut Answer, process: &Process, question: &Question) {
    let id = answer.processes.len();
    answer.processes.push(ProcessView::of(process, id));
    answer.devices.add_all(process, id);
    let past = match question.moment.map(|moment| Past::of(process, moment)) {
        None => None,
        Some(Ok(past)) => Some(past),
        Some(Err(Forgotten { .. })) => {
            answer.without.push(format!(
                "pid {}: its event log no longer reaches back to that moment",
                answer.processes[id].pid
            ));
            return;
        }
    };
    let seq = past.as_ref().map(|past| past.seq);
    let live: Vec<&Record> = match &past {
        Some(past) => past.live.iter().collect(),
        None => process.live().collect(),
    };
    let at = question
        .moment
        .and_then(|moment| moment.time(process))
        .unwrap_or_else(|| process.duration_ns());
    let asked = |device: &u8| question.devices.is_empty() || question.devices.contains(device);
    for device in process.devices.keys().copied().filter(asked) {
        let device_id = answer.devices.id_of(process, id, device);
        let shown = question.shown.get(&device).copied();
        let mut tree = Tree::new(process, device);
        live.iter().for_each(|entry| tree.add(entry));
        let (lines, beside, mut notes) = tree.finish(seq, shown);
        let explained = lines.iter().map(|line| line.bytes).sum();
        let number = shown.map(|shown| shown.process.unwrap_or(shown.device));
        if shown.is_some_and(|shown| shown.assumed) {
            notes.push(
                "the driver lists processes by numbers of another namespace: the only one on this \
                 device was taken for this one"
                    .to_owned(),
            );
        }
        if let Some(shown) = shown.filter(|shown| shown.time.abs_diff(at) > FAR) {
            let seconds = shown.time.abs_diff(at) as f64 / 1e9;
            let when = if shown.time < at { "before" } else { "after" };
            notes.push(format!(
                "nvidia-smi's number was taken {seconds:.1} s {when} this moment"
            ));
        }
        answer.trees.push(Reconciled {
            process: id,
            device: device_id,
            at_ns: process.unix_ns(at),
            shown,
            explained,
            unexplained: number.map(|number| (number as i64).saturating_sub(explained)),
            lines,
            beside,
            notes,
        });
    }
}

/// Gathers one device's memory.
struct Tree<'p> {
    process: &'p Process,
    device: u8,
    /// By stack, whose library is looked up once.
    stacks: FxHashMap<u32, Sum>,
    pools: Sum,
    graph_pool: Sum,
    blocks: Sum,
    graph_blocks: Sum,
    tensors: Sum,
    beside: Beside,
}

impl<'p> Tree<'p> {
    fn new(process: &'p Process, device: u8) -> Tree<'p> {
        Tree {
            process,
            device,
            stacks: FxHashMap::default(),
            pools: Sum::default(),
            graph_pool: Sum::default(),
            blocks: Sum::default(),
            graph_blocks: Sum::default(),
            tensors: Sum::default(),
            beside: Beside::default(),
        }
    }

    fn add(&mut self, entry: &Record) {
        let Some(kind) = entry.kind() else { return };
        let here = entry.device == self.device;
        let is_host = kind.layer() == Layer::Host || entry.device == NO_DEVICE;
        let sum = match kind {
            Kind::Pinned | Kind::Registered => &mut self.beside.pinned,
            Kind::Vmm if is_host => &mut self.beside.host_physical,
            _ if !here => return,
            Kind::Managed => &mut self.beside.managed,
            Kind::Import => &mut self.beside.imports,
            Kind::Mapping | Kind::Reservation => return,
            Kind::Pool if is_graph_pool(entry) => &mut self.graph_pool,
            Kind::Pool => &mut self.pools,
            Kind::Async => &mut self.blocks,
            Kind::Graph => &mut self.graph_blocks,
            Kind::Torch => &mut self.tensors,
            Kind::Device | Kind::Array | Kind::Vmm => self.stacks.entry(entry.stack).or_default(),
        };
        sum.add(entry.size, 1);
    }

    fn finish(self, seq: Option<u64>, shown: Option<Shown>) -> (Vec<Line>, Beside, Vec<String>) {
        let mut notes = Vec::new();
        let mut lines = self.libraries();
        for (part, reserve, used) in [
            (Part::Pools, self.pools, self.blocks),
            (Part::GraphPool, self.graph_pool, self.graph_blocks),
        ] {
            if reserve.bytes > 0 || used.bytes > 0 {
                let mut line = line(part, reserve, Basis::Gauge);
                line.within = used_and_cached(reserve, used);
                lines.push(line);
            }
        }
        let footprint = self.process.trace.footprints.get(usize::from(self.device));
        match footprint.copied().filter(|row| row.used_at_start != 0) {
            Some(row) => {
                let later = seq.map_or(0, |seq| self.growth_after(seq));
                lines.extend(own(row, later, shown, &mut notes));
            }
            None => notes.push("what the context takes was not measured".to_owned()),
        }
        if self.beside.managed.count > 0 && shown.is_some() {
            notes.push(
                "managed memory that is on the device is part of what is unexplained".to_owned(),
            );
        }
        lines.sort_by_key(|line| (std::cmp::Reverse(line.bytes), line.part, line.name.clone()));
        (lines, self.beside, notes)
    }

    fn libraries(&self) -> Vec<Line> {
        let mut lines: BTreeMap<(Part, String, String), Sum> = BTreeMap::new();
        for (stack, sum) in &self.stacks {
            let library = self.process.library_of(*stack);
            let key = match library {
                Some(library) if library.torch_allocator => {
                    (Part::TorchReserved, library.name, library.file)
                }
                Some(library) => (Part::Library, library.name, library.file),
                None => (Part::Library, "unknown".to_owned(), String::new()),
            };
            lines.entry(key).or_default().merge(*sum);
        }
        let named = |((part, name, file), sum): ((Part, String, String), Sum)| Line {
            name,
            file,
            within: match part {
                Part::TorchReserved if self.tensors.count > 0 => used_and_cached(sum, self.tensors),
                _ => Vec::new(),
            },
            ..line(part, sum, Basis::Events)
        };
        lines.into_iter().map(named).collect()
    }

    /// What code grew by after an event.
    fn growth_after(&self, seq: u64) -> i64 {
        let of_code = |op| matches!(op, Op::ModuleLoaded | Op::ModuleUnloaded | Op::CodeGrew);
        self.process
            .events()
            .filter(|event| event.seq > seq && event.device == self.device)
            .filter(|event| event.op().is_some_and(of_code))
            .fold(0i64, |sum, event| sum.wrapping_add(event.aux as i64))
    }
}

fn is_graph_pool(entry: &Record) -> bool {
    entry.key == GRAPH_POOL + u64::from(entry.device)
}

fn line(part: Part, sum: Sum, basis: Basis) -> Line {
    Line {
        part,
        name: String::new(),
        file: String::new(),
        bytes: i64::try_from(sum.bytes).unwrap_or(i64::MAX),
        count: sum.count,
        basis,
        within: Vec::new(),
    }
}

fn used_and_cached(reserve: Sum, used: Sum) -> Vec<Line> {
    let cached = Sum {
        bytes: reserve.bytes.saturating_sub(used.bytes),
        count: 0,
    };
    vec![
        line(Part::InUse, used, Basis::Events),
        line(Part::Cached, cached, Basis::Events),
    ]
}

/// The driver's own memory.
fn own(row: Footprint, later: i64, shown: Option<Shown>, notes: &mut Vec<String>) -> Vec<Line> {
    // What the device used then was not all this process's. The others are known where both the
    // device's and the process's number are.
    let others = shown.and_then(|shown| shown.others);
    if others.is_none() {
        notes.push(
            "the context's line is all that the device used when it was made, other processes included"
                .to_owned(),
        );
    }
    let others = others.unwrap_or(0);
    if row.unmeasured > 0 {
        notes.push(format!(
            "{} of {} calls for which the driver may take memory were not measured: other memory changed \
             meanwhile",
            row.unmeasured,
            row.unmeasured.saturating_add(row.measured)
        ));
    }
    let measured = |part, bytes: i64, count| Line {
        bytes,
        count,
        ..line(part, Sum::default(), Basis::Measured)
    };
    let first = (row.used_at_start as i64).saturating_sub_unsigned(others);
    let context = first.saturating_add(row.contexts as i64);
    let code = (row.code as i64).wrapping_sub(later);
    let lines = [
        measured(Part::Context, context, 0),
        measured(Part::Code, code, 0),
        measured(Part::Limits, row.limits as i64, 0),
        measured(Part::Streams, row.streams as i64, 0),
    ];
    lines.into_iter().filter(|line| line.bytes != 0).collect()
}
