//! What is to be seen at one moment: figures that are put together, in the order in which they are shown.
//! Nothing is made harmless yet: that is done where it is printed.

use super::settings::Settings;
use crate::live::names::Named;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::record::{Kind, Layer};

/// What a series of the model is about. Processes and devices are the model's numbers; of what belongs to
/// no device, that is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeriesKey {
    /// What all traced processes have of a device.
    Device(u32),
    /// What a process has in a layer of one of its devices, by ordinal.
    Account(u32, Option<u8>, Layer),
    /// What a process has of a kind of memory.
    Kind(u32, Option<u8>, Kind),
    /// What a stack, and API function, of a process has.
    Place(u32, Option<u8>, Kind, u32, u16),
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// When, Unix nanoseconds.
    pub unix_ns: u64,
    /// When, since the first sample.
    pub at: Duration,
    /// Devices, by number.
    pub devices: Vec<DeviceRow>,
    /// Processes, one row for each device.
    pub processes: Vec<ProcessRow>,
    /// What holds memory, as the settings put it together.
    pub groups: Vec<GroupRow>,
    /// What allocators hold.
    pub pools: Vec<PoolRow>,
    /// Failed allocations, newest first.
    pub failures: Vec<FailureRow>,
    /// Traces that could not be read: path, and why not.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Processes that run, that have ended, and of which that is not known.
    pub states: [usize; 3],
    /// What one should know: sentences.
    pub notes: Vec<String>,
    /// Names are still being found.
    pub naming: bool,
    /// Some stacks are sampled: what is by stack are estimates.
    pub sampled: bool,
}

/// A device that traced processes use.
#[derive(Clone, Debug, Default)]
pub struct DeviceRow {
    /// What tells it apart.
    pub key: String,
    /// `GPU 0`: its number on this machine; without NVML, in its processes.
    pub label: String,
    /// Product name.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// Bytes of memory; 0 unknown.
    pub total: u64,
    /// Bytes in use, by whomever, by NVML.
    pub used: Option<u64>,
    /// Bytes that traced processes took from the driver.
    pub traced: u64,
    /// The part of it that their allocators hold without using it.
    pub cached: u64,
    /// Traced processes on it that have not ended.
    pub processes: usize,
    /// Growth of `traced`, bytes a second.
    pub growth: Option<f64>,
    /// `traced` over time.
    pub series: Option<SeriesKey>,
}

/// A process on one device, or one that uses none.
#[derive(Clone, Debug, Default)]
pub struct ProcessRow {
    /// Its number in the model.
    pub process: u32,
    /// Its trace.
    pub trace: PathBuf,
    /// Its number here, where known, else as it sees itself.
    pub pid: u32,
    /// Name of its program.
    pub name: String,
    /// Path of its program.
    pub program: String,
    /// Which of several ranks.
    pub rank: Option<u32>,
    /// Name of its machine, or its container.
    pub host: String,
    /// `running`, `exited`, `killed`, `unknown`; `vanished` if its trace did.
    pub state: &'static str,
    /// It has ended: its figures are the last ones.
    pub ended: bool,
    /// Its device, by [`DeviceRow::key`].
    pub device: Option<String>,
    /// The device's label.
    pub gpu: String,
    /// Bytes it took from the driver there.
    pub live: u64,
    /// Allocations of these.
    pub count: u64,
    /// Most that `live` ever was.
    pub peak: u64,
    /// Bytes that its allocators handed out.
    pub framework: u64,
    /// Bytes that its allocators hold without using them.
    pub cached: u64,
    /// Page-locked host memory; of the whole process, in its first row.
    pub host_memory: u64,
    /// What nvidia-smi shows for it.
    pub shown: Option<u64>,
    /// Allocations that failed.
    pub failed: u64,
    /// Growth of `live`, bytes a second.
    pub growth: Option<f64>,
    /// Its figures may be wrong: something was not recorded.
    pub inexact: bool,
    /// `live` over time.
    pub series: Option<SeriesKey>,
}

/// What tells groups apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The process's number in the model, where it is about one.
    pub process: Option<u32>,
    /// The device, by [`DeviceRow::key`].
    pub device: Option<String>,
    /// Layer.
    pub layer: Layer,
    /// Kind, where it is about one.
    pub kind: Option<Kind>,
    /// Stack and API function, where it is about one.
    pub place: Option<(u32, u16)>,
    /// What else it was made by.
    pub word: String,
}

/// Memory that belongs together.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// What tells it apart.
    pub key: GroupKey,
    /// Live bytes; an estimate if `estimated`.
    pub bytes: u64,
    /// Live allocations that are known.
    pub count: u64,
    /// Stacks are sampled: `bytes` is an estimate.
    pub estimated: bool,
    /// Growth, bytes a second.
    pub growth: Option<f64>,
    /// Whose it is: program, rank and number; empty if of several.
    pub process: String,
    /// Its trace.
    pub trace: Option<PathBuf>,
    /// Label of its device; empty for host memory.
    pub gpu: String,
    /// Where it was allocated, or what else it was made by.
    pub label: String,
    /// More of that, where it is about one place.
    pub named: Option<Arc<Named>>,
    /// What it is put together of, over time.
    pub series: Vec<SeriesKey>,
    /// It is what no other row of the list tells of.
    pub rest: bool,
}

/// An allocator of a process on a device.
#[derive(Clone, Debug)]
pub struct PoolRow {
    /// The process's number in the model.
    pub process: u32,
    /// Program, rank and number.
    pub label: String,
    /// Label of the device.
    pub gpu: String,
    /// `torch` or `pool`.
    pub allocator: &'static str,
    /// Bytes that it has of the driver.
    pub reserved: u64,
    /// Bytes of it that are handed out.
    pub used: u64,
}

/// An allocation that failed.
#[derive(Clone, Debug)]
pub struct FailureRow {
    /// The process's number in the model.
    pub process: u32,
    /// Its trace.
    pub trace: PathBuf,
    /// Program, rank and number.
    pub label: String,
    /// Label of the device; empty for host memory.
    pub gpu: String,
    /// What is known of it.
    pub failure: crate::live::FailureSample,
}

impl Picture {
    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.failures.is_empty()
    }

    /// The device that the settings limit it to.
    pub fn device(&self, settings: &Settings) -> Option<&DeviceRow> {
        let key = settings.device.as_ref()?;
        self.devices.iter().find(|device| device.key == *key)
    }
}
