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

mod context;
mod question;
mod tree;

pub use context::{Known, is_another};
pub use question::{Question, Shown};

use super::Sum;
use super::moment::{Forgotten, Past};
use super::view::{Devices, ProcessView};
use crate::model::Process;
use crate::report::words::bytes;
use tree::Tree;
use vramtrace_format::record::Record;

/// How a line is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// By the events of allocations.
    Events,
    /// By the driver's own figure for a pool.
    Gauge,
    /// By how much less memory was free after a call than before it.
    Measured,
    /// As what nvidia-smi's numbers left at least.
    Derived,
}

impl Basis {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Basis::Events => "events",
            Basis::Gauge => "gauge",
            Basis::Measured => "measured",
            Basis::Derived => "derived",
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
        let explained = lines
            .iter()
            .fold(0, |sum: i64, line| sum.saturating_add(line.bytes));
        let number = shown.map(|shown| shown.process.unwrap_or(shown.device));
        if shown.is_some_and(|shown| shown.assumed) {
            notes.push(
                "the driver lists processes by numbers of another namespace: the only one on this \
                 device was taken for this one"
                    .to_owned(),
            );
        }
        notes.extend(shown.and_then(|shown| taken(&shown, at)));
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

/// When the number was taken, where that is worth a word.
fn taken(shown: &Shown, at: u64) -> Option<String> {
    let apart = shown.time.abs_diff(at);
    if apart <= FAR && shown.since == 0 {
        return None;
    }
    let when = if shown.time < at { "before" } else { "after" };
    let mut note = format!(
        "nvidia-smi's number was taken {:.1} s {when} this moment",
        apart as f64 / 1e9
    );
    if shown.since != 0 {
        let than = if shown.since > 0 { "less" } else { "more" };
        let known = bytes(shown.since.unsigned_abs());
        note += &format!(", when {known} {than} was known of");
    }
    Some(note)
}
