//! The process that a trace is about: who it was, what it used, what it has, what is not known.
//!
//! In: an opened [`Trace`]. Out: a [`Process`] that gives the numbers of the format their
//! meaning (names behind ids, events in order, what was lost) and judges nothing: analyses do.

mod device_use;
mod identity;
mod library;
mod losses;
mod merge;
mod python;
mod ranges;
mod sampling;
mod snapshot;
mod stacks;
mod torch;

pub use device_use::{DeviceUse, FoundBy, UseSample};
pub use identity::State;
pub use library::Library;
pub use losses::{Losses, Reason};
pub use merge::{Loops, Name, NoNames, Remembered};
pub use python::{PythonStacks, is_own_file};
pub use ranges::Ranges;
pub use sampling::{InForce, Sampling};
pub use stacks::{Role, Unhidden, VisibleStack};
pub use torch::Torch;

use crate::symbols::Archived;
use crate::trace::{Events, Trace};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use vramtrace_format::account::{self, Account};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::live::is_live;
use vramtrace_format::record::{Layer, NO_DEVICE, Op, Record};
use vramtrace_format::totals::{End, Totals};

/// A context that can't be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The event that said so; 0 if only a note did.
    pub seq: u64,
    /// When, event time.
    pub time: u64,
    /// The driver's error code; 0 unknown.
    pub error: u64,
    /// Device of the context, where it is known.
    pub device: Option<u8>,
}

/// What was seen of CUDA in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CudaUse {
    /// Nothing at all.
    Nothing,
    /// Contexts and the like, but no memory: that is rare, so it may have gone past the recorder.
    NoMemory,
    /// Memory.
    Memory,
}

impl CudaUse {
    /// What reports say where there is something to say; a sentence about "it".
    pub const fn remark(self) -> Option<&'static str> {
        match self {
            CudaUse::Nothing => Some("made no CUDA call that was seen"),
            CudaUse::NoMemory => Some(
                "used CUDA, but no allocation was seen; if there were any, they went past the \
                 recorder",
            ),
            CudaUse::Memory => None,
        }
    }
}

/// Everything a trace says about its process.
pub struct Process {
    /// The trace itself.
    pub trace: Trace,
    /// Who it was. All empty if the record is missing.
    pub identity: cold::Process,
    /// Whether it runs, or how it ended.
    pub state: State,
    /// How the recorder was set up.
    pub config: cold::Config,
    /// Version of the CUDA driver, as cuDriverGetVersion counts.
    pub driver: Option<u32>,
    /// Devices by ordinal.
    pub devices: BTreeMap<u8, cold::Device>,
    /// Contexts by id.
    pub contexts: BTreeMap<u16, cold::Context>,
    /// Contexts after their first sticky error.
    pub corrupted: BTreeMap<u16, Corruption>,
    /// Streams by id.
    pub streams: FxHashMap<u32, cold::Stream>,
    /// Programs and libraries by id.
    pub modules: FxHashMap<u32, cold::Module>,
    /// The Python interpreter, if there is one.
    pub interpreter: Option<cold::Interpreter>,
    /// What nvidia-smi showed of the process, by device ordinal; where `vramtrace run` could ask.
    pub device_use: BTreeMap<u8, DeviceUse>,
    /// What the recorder wants reports to say.
    pub notes: Vec<cold::Note>,
    /// What is not in the trace.
    pub losses: Losses,
    /// What PyTorch's allocator says of itself, by device.
    pub torch: Vec<Torch>,
    /// NVTX ranges.
    pub ranges: Ranges,
    /// Which stacks were taken.
    pub sampling: Sampling,
    /// Of what moment this is, if it is a snapshot of a trace.
    pub snapshot: Option<cold::Snapshot>,
    /// See [`Process::rescues`]: as of the last record of them.
    rescues: BTreeMap<u8, cold::Rescues>,
    /// Of a trace in an archive: the symbols that came with it.
    pub symbols: Option<Arc<Archived>>,
    apis: FxHashMap<u32, String>,
    threads: FxHashMap<u32, String>,
    marks: FxHashMap<u32, String>,
    mark_domains: FxHashMap<u32, String>,
    python: FxHashMap<u32, cold::PythonCode>,
    roles: FxHashMap<u32, Role>,
    same_module: FxHashMap<u32, u32>,
    duration_ns: u64,
}

impl Process {
    /// Reads the process out of its trace.
    pub fn read(trace: Trace) -> Process {
        let mut process = Process {
            identity: cold::Process::default(),
            state: State::Unknown,
            config: cold::Config::default(),
            driver: None,
            devices: BTreeMap::new(),
            contexts: BTreeMap::new(),
            corrupted: BTreeMap::new(),
            streams: FxHashMap::default(),
            modules: FxHashMap::default(),
            interpreter: None,
            device_use: BTreeMap::new(),
            notes: Vec::new(),
            losses: Losses::default(),
            torch: Vec::new(),
            ranges: Ranges::default(),
            sampling: Sampling::default(),
            snapshot: None,
            rescues: BTreeMap::new(),
            symbols: None,
            apis: FxHashMap::default(),
            threads: FxHashMap::default(),
            marks: FxHashMap::default(),
            mark_domains: FxHashMap::default(),
            python: FxHashMap::default(),
            roles: FxHashMap::default(),
            same_module: FxHashMap::default(),
            duration_ns: 0,
            trace,
        };
        for record in std::mem::take(&mut process.trace.cold) {
            process.learn(record);
        }
        process.device_use.values_mut().for_each(DeviceUse::sort);
        let entered = process.trace.range_counts.clone();
        process.ranges.complete(entered);
        process.complete_identity();
        process.name_modules();
        process.duration_ns = process.find_duration();
        process.sampling = Sampling::of(&process.trace, process.duration_ns);
        process.state = State::of(
            &process.identity,
            process.trace.copy.control.clean_exit != 0,
        );
        process.torch = Torch::all(&process.trace);
        process.losses = Losses::of(&process.trace, &process.torch);
        process.find_corrupted();
        process.note_snapshot();
        process
    }

    /// The header says the most important again, for traces whose cold section is lost.
    fn complete_identity(&mut self) {
        let header = self.trace.header();
        if self.identity.pid == 0 {
            self.identity.pid = header.pid;
            self.identity.start_ticks = header.start_ticks;
            self.identity.pid_namespace = header.pid_namespace;
        }
    }

    fn learn(&mut self, record: Cold) {
        match record {
            Cold::Process(identity) => self.identity = identity,
            Cold::Config(config) => self.config = config,
            Cold::Device(device) => drop(self.devices.insert(device.index, device)),
            Cold::Context(context) => drop(self.contexts.insert(context.id, context)),
            Cold::Stream(stream) => drop(self.streams.insert(stream.id, stream)),
            Cold::Module(module) => drop(self.modules.insert(module.id, module)),
            Cold::Api(name) => drop(self.apis.insert(name.id, name.text)),
            Cold::Thread(name) => drop(self.threads.insert(name.id, name.text)),
            Cold::Mark(name) => drop(self.marks.insert(name.id, name.text)),
            Cold::MarkDomain(name) => drop(self.mark_domains.insert(name.id, name.text)),
            Cold::Range(range) => self.ranges.learn(range),
            Cold::Note(note) => self.notes.push(note),
            Cold::Driver(name) => self.driver = Some(name.id),
            Cold::PythonCode(code) => drop(self.python.insert(code.id, code)),
            Cold::Interpreter(interpreter) => self.interpreter = Some(interpreter),
            Cold::Snapshot(snapshot) => self.snapshot = Some(snapshot),
            Cold::Rescues(sums) => drop(self.rescues.insert(sums.device, sums)),
            Cold::DeviceUse(part) => self.device_use.entry(part.device).or_default().learn(part),
            // Later kinds of facts; what they are about is shown by its number.
            #[allow(unreachable_patterns)]
            _ => {}
        }
    }

    /// Adds what nvidia-smi shows of a device now.
    pub fn add_use(&mut self, device: u8, sample: UseSample) {
        let device = self.device_use.entry(device).or_default();
        device.samples.push(sample);
        device.sort();
    }

    /// What the device layer's events say about contexts and about frees that were not seen.
    fn find_corrupted(&mut self) {
        let mut corrupted = BTreeMap::new();
        let mut unseen = 0;
        let mut failed_frees = 0;
        for event in self.trace.events_of(0) {
            match event.op() {
                Some(Op::ContextCorrupted) => {
                    corrupted.entry(event.context).or_insert(Corruption {
                        seq: event.seq,
                        time: event.time,
                        error: event.aux,
                        device: (event.device != NO_DEVICE).then_some(event.device),
                    });
                }
                Some(Op::FreeUnseen) => unseen += 1,
                Some(Op::FreeFailed) => failed_frees += 1,
                _ => {}
            }
        }
        // Where the ring has forgotten the event, the recorder's note still names the context.
        for note in &self.notes {
            let id = note
                .code
                .strip_prefix("context-corrupted:")
                .and_then(|id| id.parse().ok());
            if let Some(id) = id {
                corrupted.entry(id).or_insert(Corruption {
                    seq: 0,
                    time: 0,
                    error: 0,
                    device: None,
                });
            }
        }
        for (id, corruption) in &mut corrupted {
            let context = self.contexts.get(id);
            corruption.device = context.map(|context| context.device).or(corruption.device);
        }
        self.corrupted = corrupted;
        self.losses.frees_unseen = unseen;
        self.losses.frees_failed = failed_frees;
    }

    /// The corruption that an entry was hit by, if one was.
    pub fn corruption_of(&self, entry: &Record) -> Option<&Corruption> {
        if self.corrupted.is_empty() {
            return None;
        }
        let hit = match entry.context {
            0 => self
                .corrupted
                .values()
                .find(|corruption| corruption.device == Some(entry.device)),
            context => self.corrupted.get(&context),
        };
        hit.filter(|corruption| {
            corruption.seq == 0 || entry.seq <= corruption.seq || entry.op == Op::Restore as u8
        })
    }

    /// Live entries, in no particular order.
    pub fn live(&self) -> impl Iterator<Item = &Record> {
        self.trace
            .copy
            .live
            .iter()
            .filter(|entry| is_live(entry.op))
    }

    /// Entries that were freed in teardown, as far as later ones did not take their place; what
    /// they sum up to is exact in the ended rows of [`Process::totals`].
    pub fn marked(&self) -> impl Iterator<Item = &Record> {
        let mark = Op::FreeInTeardown as u8;
        self.trace
            .copy
            .live
            .iter()
            .filter(move |entry| entry.op == mark)
    }

    /// Rows of sums by stack.
    pub fn totals(&self) -> &[Totals] {
        &self.trace.copy.totals
    }

    /// Accounts that were ever used: device (`None` for host memory), layer, sums.
    pub fn accounts(&self) -> impl Iterator<Item = (Option<u8>, Layer, &Account)> {
        let rows = self.trace.copy.accounts.iter().enumerate();
        rows.filter(|(_, row)| **row != Account::default())
            .map(|(index, row)| {
                let (device, layer) = account::of_index(index);
                (device, layer, row)
            })
    }

    /// Events that the rings still have, oldest first.
    pub fn events(&self) -> Events<'_> {
        self.trace.events()
    }

    /// What the recorder saw of CUDA.
    pub fn cuda_use(&self) -> CudaUse {
        let copy = &self.trace.copy;
        if !copy.totals.is_empty() || !copy.live.is_empty() || self.accounts().next().is_some() {
            CudaUse::Memory
        } else if copy.seq != 0 || !self.contexts.is_empty() {
            CudaUse::NoMemory
        } else {
            CudaUse::Nothing
        }
    }

    /// Event that began teardown.
    pub fn teardown_seq(&self) -> Option<u64> {
        let seq = self.trace.copy.control.teardown_seq;
        (seq != 0 && seq <= self.trace.copy.seq).then_some(seq)
    }

    /// Unix nanoseconds of an event time.
    pub fn unix_ns(&self, time: u64) -> u64 {
        self.trace.header().start_unix_ns.saturating_add(time)
    }

    /// How long the process is known to have been traced, nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    /// When the last allocation was made that sums by stack know of, event time; the end where there
    /// was none.
    pub fn last_allocation(&self) -> u64 {
        let live = self.totals().iter();
        let live = live.filter(|row| row.key.end == End::Live as u8);
        let last = live.map(|row| row.last_time).max();
        last.unwrap_or(self.duration_ns).min(self.duration_ns)
    }

    fn find_duration(&self) -> u64 {
        let copy = &self.trace.copy;
        let live = copy.live.iter().map(|entry| entry.time).max();
        let peaks = copy.accounts.iter().map(|account| account.peak_time).max();
        let rows = copy.totals.iter().map(|row| row.last_time).max();
        copy.control
            .last_time
            .max(live.unwrap_or(0))
            .max(peaks.unwrap_or(0))
            .max(rows.unwrap_or(0))
    }

    /// File name of the program, or its short name, or nothing.
    pub fn program_name(&self) -> &str {
        let path = &self.identity.program;
        match path.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => &self.identity.name,
        }
    }

    /// Name of an API function.
    pub fn api(&self, id: u16) -> Option<&str> {
        self.apis.get(&u32::from(id)).map(String::as_str)
    }

    /// Names of all API functions, by id.
    pub fn apis(&self) -> impl Iterator<Item = (u32, &str)> {
        self.apis.iter().map(|(id, name)| (*id, name.as_str()))
    }

    /// Names of all threads that have one, by id.
    pub fn threads(&self) -> impl Iterator<Item = (u32, &str)> {
        self.threads.iter().map(|(id, name)| (*id, name.as_str()))
    }

    /// Texts of all marks, by id.
    pub fn marks(&self) -> impl Iterator<Item = (u32, &str)> {
        self.marks.iter().map(|(id, text)| (*id, text.as_str()))
    }

    /// Name of a thread.
    pub fn thread(&self, id: u32) -> Option<&str> {
        self.threads.get(&id).map(String::as_str)
    }

    /// Text of a mark.
    pub fn mark(&self, id: u32) -> Option<&str> {
        self.marks.get(&id).map(String::as_str)
    }

    /// NVTX domain of a mark that is not in the default one.
    pub fn mark_domain(&self, id: u32) -> Option<&str> {
        self.mark_domains.get(&id).map(String::as_str)
    }
}
