//! What was found at one moment.

use super::names::Named;
use crate::model::State;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::record::{Kind, Layer};

/// All processes of a directory at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When, Unix nanoseconds.
    pub unix_ns: u64,
    /// How long it took to find out.
    pub took: Duration,
    /// Processes, by name of their trace.
    pub processes: Vec<ProcessSample>,
    /// Traces that could not be read, at most 32 of those that never could.
    pub failed: Vec<Failed>,
    /// How many could not be read.
    pub unreadable: u64,
    /// What NVML says of devices that the processes use.
    pub devices: Vec<DeviceState>,
    /// Traces of processes that have ended (and are not told of any more).
    pub ended: u64,
    /// Traces without events for long, of processes that cannot be seen from here.
    pub quiet: u64,
    /// Traces that are not followed because there are too many processes.
    pub omitted_processes: u64,
    /// Files that were not looked at because there are too many.
    pub omitted_entries: u64,
    /// Why the directory itself could not be read, if so.
    pub directory_error: Option<String>,
    /// Reads that failed, since the beginning.
    pub read_errors: u64,
    /// Names of call sites are still being found.
    pub naming: bool,
    /// Why NVML says nothing, if it does not.
    pub nvml_error: Option<String>,
}

/// A trace that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its name in the directory.
    pub trace: PathBuf,
    /// Whose it was when it could be read.
    pub identity: Option<Identity>,
    /// Why not; it continues a sentence that begins with the name.
    pub why: String,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Process id as it sees itself.
    pub pid: u32,
    /// Process id as it is seen from here; 0 unknown.
    pub outer_pid: u32,
    /// Path of its executable.
    pub program: String,
    /// File name of that, or its short name.
    pub name: String,
    /// Which of several ranks.
    pub rank: Option<u32>,
    /// Name of its machine, or of its container.
    pub host: String,
    /// When it started, clock ticks since boot.
    pub start_ticks: u64,
    /// When its trace began, Unix nanoseconds.
    pub start_unix_ns: u64,
    /// Version of its libvramtrace.so.
    pub recorder: String,
    /// CUDA driver, as `13.0`; empty unknown.
    pub driver: String,
    /// Python, as `3.12.1`; empty if there is none.
    pub python: String,
}

/// One process.
#[derive(Clone, Debug)]
pub struct ProcessSample {
    /// Name of its trace in the directory.
    pub trace: PathBuf,
    /// A short word that no other process of the directory has.
    pub id: String,
    /// Who it is.
    pub identity: Identity,
    /// Whether it runs.
    pub state: State,
    /// Devices that it knows.
    pub devices: Vec<Device>,
    /// Sums by device and layer.
    pub accounts: Vec<AccountSample>,
    /// Sums by device and kind.
    pub kinds: Vec<KindSample>,
    /// What allocators hold and use.
    pub allocators: Vec<AllocatorSample>,
    /// The largest free block of PyTorch's segments by device, as it was found last; empty where nobody looks
    /// ([`super::Options::largest_free`]).
    pub largest_free: Vec<LargestFree>,
    /// What call sites hold, largest first; those whose names are not known yet are in `other`.
    pub sites: Vec<SiteSample>,
    /// What all other call sites hold, by device and layer.
    pub other: Vec<OtherSites>,
    /// The rows of the sums by stack that hold most, largest first; what they do not hold is elsewhere.
    /// Empty unless [`super::Options::places`] asks for them.
    pub places: Vec<PlaceSample>,
    /// Allocations that failed lately, oldest first, as far as the event log had them when they were
    /// looked for. Empty unless [`super::Options::failures`] asks for them.
    pub failures: Vec<FailureSample>,
    /// What is not in the trace.
    pub losses: LossSample,
    /// What recording costs the process; `None` where that is not measured.
    pub overhead: Option<Overhead>,
    /// Its last event.
    pub seq: u64,
    /// When that was, Unix nanoseconds.
    pub last_event_unix_ns: u64,
    /// The sums may be one event apart: it stands in the middle of one.
    pub interrupted: bool,
    /// Its process ids, from the one here to its own.
    pub(super) pids: Vec<u32>,
    /// CLOCK_MONOTONIC when its trace began, nanoseconds.
    pub(super) began: u64,
}

/// A device as its process knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Ordinal in the process.
    pub ordinal: u8,
    /// `GPU-…`; empty if the trace does not say.
    pub uuid: String,
    /// PCI bus id; empty if the trace does not say.
    pub pci: String,
    /// Product name; empty if the trace does not say.
    pub name: String,
    /// Bytes of memory; 0 unknown.
    pub total_bytes: u64,
    /// What NVML calls it: its number on this machine, where known.
    pub number: Option<u32>,
    /// What the driver took for itself as far as it was measured (contexts after the first, code,
    /// limits, streams), bytes.
    pub own_growth: i64,
    /// Bytes that were in use on the device, by whomever, when the process's first context was there.
    pub used_at_start: Option<u64>,
    /// What nvidia-smi shows of the process here.
    pub shown: Option<Shown>,
}

/// What nvidia-smi shows of a process on a device, and how far that is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// NVML's number for the process.
    pub process_bytes: u64,
    /// What the driver holds for the process itself, where that is known.
    pub own_bytes: Option<i64>,
    /// The rest: neither asked for nor known to be the driver's.
    pub unexplained_bytes: i64,
}

/// What NVML says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// `GPU-…`, or `MIG-…`.
    pub uuid: String,
    /// Its number on this machine; `None` where NVML does not say.
    pub number: Option<u32>,
    /// Product name, as processes know it.
    pub name: String,
    /// Bytes of memory.
    pub total_bytes: u64,
    /// Bytes in use, by whomever.
    pub used_bytes: u64,
    /// Bytes that the driver keeps for itself; `None` where they are among those in use.
    pub reserved_bytes: Option<u64>,
}

/// Sums of one layer of one device, or of host memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccountSample {
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Layer.
    pub layer: Layer,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
    /// Most bytes that were live at once.
    pub peak_bytes: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Allocations ever made.
    pub allocated_count: u64,
    /// Bytes freed; never less than before.
    pub freed_bytes: u64,
    /// Allocations freed; never fewer than before.
    pub freed_count: u64,
    /// Bytes that ended with a context or by a reset.
    pub ended_bytes: u64,
    /// Allocations that failed.
    pub failed_count: u64,
    /// Frees of something that was not live.
    pub unmatched_count: u64,
    /// Change since the sample before; `None` in the first.
    pub rates: Option<Rates>,
}

/// Changes in a second, over the time since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// That time.
    pub over: Duration,
    /// Growth of live bytes a second; negative where they shrank.
    pub growth: f64,
    /// Bytes allocated a second.
    pub allocated_bytes: f64,
    /// Allocations a second.
    pub allocated_count: f64,
    /// Bytes freed a second.
    pub freed_bytes: f64,
}

/// Sums of one kind of memory on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSample {
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Kind.
    pub kind: Kind,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
    /// Bytes held when the layer was at its peak.
    pub peak_bytes: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Allocations ever made.
    pub allocated_count: u64,
    /// Bytes freed; `None` of pools, whose size is a gauge. Never less than before.
    pub freed_bytes: Option<u64>,
}

/// An allocator that holds more than it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allocator {
    /// PyTorch's caching allocator.
    Torch,
    /// The driver's stream-ordered pools and graph pools.
    Pool,
}

impl Allocator {
    /// The word in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Allocator::Torch => "torch",
            Allocator::Pool => "pool",
        }
    }
}

/// What an allocator holds on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocatorSample {
    /// Which.
    pub allocator: Allocator,
    /// Ordinal.
    pub device: u8,
    /// Bytes that it has from the driver.
    pub reserved_bytes: u64,
    /// Bytes of it that are handed out.
    pub used_bytes: u64,
}

impl AllocatorSample {
    /// The part that is held without being handed out, 0 to 1; `None` if nothing is held.
    pub fn unused_ratio(&self) -> Option<f64> {
        let unused = self.reserved_bytes.saturating_sub(self.used_bytes);
        (self.reserved_bytes > 0).then(|| unused as f64 / self.reserved_bytes as f64)
    }
}

/// The largest block on a device that an allocator could hand out in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargestFree {
    /// Ordinal.
    pub device: u8,
    /// Its bytes.
    pub bytes: u64,
}

/// A place in a program that allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSample {
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Kind of memory.
    pub kind: Kind,
    /// Function, file and line.
    pub site: String,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
}

/// What one call stack holds of one kind of memory on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceSample {
    /// Id of the stack in the trace.
    pub stack: u32,
    /// Id of the API function that was called.
    pub api: u16,
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Kind of memory.
    pub kind: Kind,
    /// Live bytes that are known to be this stack's.
    pub live_bytes: u64,
    /// Live allocations that are known to be this stack's.
    pub live_count: u64,
    /// Live bytes, with those that sampled allocations stand for; more than `live_bytes` only where
    /// stacks are sampled, and then an estimate.
    pub estimated_bytes: u64,
    /// It is what no stack was taken of, for which the estimates of others stand.
    pub not_sampled: bool,
    /// What it is called; `None` while that is being found.
    pub named: Option<Arc<Named>>,
}

/// An allocation that failed for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureSample {
    /// Its event.
    pub seq: u64,
    /// When, Unix nanoseconds.
    pub unix_ns: u64,
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Kind of memory.
    pub kind: Kind,
    /// Bytes asked for.
    pub asked_bytes: u64,
    /// Bytes that the driver said were free right after, where it was asked.
    pub free_bytes: Option<u64>,
    /// Attempts at the same in succession.
    pub attempts: u64,
    /// The recorder made pools give memory back, and the program then got what it asked for.
    pub rescued: bool,
    /// A framework's allocator gave up over it.
    pub framework: bool,
    /// Stack and API function.
    pub place: (u32, u16),
    /// What that place is called; `None` while that is being found.
    pub named: Option<Arc<Named>>,
}

/// All call sites of a layer that are not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSites {
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Layer.
    pub layer: Layer,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
}

/// What is not in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossSample {
    /// Events that were never recorded: device layer and host, framework layer.
    pub events: [u64; 2],
    /// Allocations that found no room in the live table.
    pub dropped_count: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Allocations whose stack found no room, or was not taken.
    pub stacks: u64,
    /// Calls that came while the recorder could not record.
    pub calls: u64,
    /// Panics caught in the recorder.
    pub panics: u64,
    /// Entry points that look like memory and were handed out unhooked.
    pub bypassed: u64,
}

impl LossSample {
    /// Whether the sums may be wrong because of it.
    pub fn is_inexact(&self) -> bool {
        let all = [
            self.events[0],
            self.events[1],
            self.dropped_count,
            self.calls,
            self.panics,
        ];
        all.iter().any(|&count| count > 0)
    }
}

/// What recording costs a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overhead {
    /// Seconds of processor time that stacks took since the start.
    pub stacks_seconds: f64,
    /// Seconds that all else took: all events, at what those took that were measured. `None` before any
    /// was.
    pub events_seconds: Option<f64>,
    /// The interval that stacks are sampled by, bytes; 0 all of them, `None` no stack of any allocation.
    pub interval: Option<u64>,
    /// Allocations whose stack was not taken.
    pub not_sampled: u64,
}
