//! One process at a glance: devices, sums, peak, who holds most, what was lost.

use super::estimate::{Estimate, Weighted};
use super::ranges::{RangeView, ranges};
use super::ranks::Ranks;
use super::view::{DeviceView, Devices, ProcessView};
use super::{Filter, Sum};
use crate::model::{
    CudaUse, FoundBy, Loops, Losses, Process, PythonStacks, Remembered, Torch, Unhidden, UseSample,
    VisibleStack,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vramtrace_format::account::{self, Account};
use vramtrace_format::cold::Rescues;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE};
use vramtrace_format::totals::End;

/// Sums of one layer of one device, or of host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountView {
    /// Id of the device in the answer; `None` for host memory.
    pub device: Option<usize>,
    /// Layer.
    pub layer: Layer,
    /// Live now.
    pub live: Sum,
    /// Most bytes that were live at once.
    pub peak_bytes: u64,
    /// When that was, Unix nanoseconds.
    pub peak_ns: u64,
    /// Ever allocated.
    pub allocated: Sum,
    /// Freed.
    pub freed: Sum,
    /// Ended with a context or by a reset.
    pub ended: Sum,
    /// Allocations that failed.
    pub failed_count: u64,
    /// Frees of something that was not live.
    pub unmatched_count: u64,
    /// Allocations that found no room in the live table; in none of the other sums.
    pub dropped: Sum,
}

/// Sums of one kind of memory on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindView {
    /// Id of the device in the answer; `None` for host memory.
    pub device: Option<usize>,
    /// Kind.
    pub kind: Kind,
    /// Live now.
    pub live: Sum,
    /// Ever allocated.
    pub allocated: Sum,
    /// Held when its layer was at its peak.
    pub at_peak: Sum,
}

/// A call stack that holds or held much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopStack {
    /// Id of its process.
    pub process: usize,
    /// Id of the device in the answer; `None` for host memory.
    pub device: Option<usize>,
    /// Kind of memory.
    pub kind: Kind,
    /// API function; empty if unknown.
    pub api: String,
    /// Held when its layer was at its peak.
    pub at_peak: Sum,
    /// Live now.
    pub live: Sum,
    /// Ever allocated.
    pub allocated: Sum,
    /// What these three stand for, in the same order, where stacks were sampled.
    pub estimates: [Option<Estimate>; 3],
    /// The stack.
    pub stack: VisibleStack,
}

/// What nvidia-smi showed of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaSmiView {
    /// Id of the device in the answer.
    pub device: usize,
    /// Number of samples.
    pub samples: usize,
    /// Its number for the process at its peak, and when that was, Unix nanoseconds. `None` where it
    /// had no number for it.
    pub peak: Option<(u64, u64)>,
    /// Its last number for the process, likewise.
    pub last: Option<(u64, u64)>,
    /// The process could not be told from others by its id: its numbers are those of the only process
    /// that was there.
    pub assumed: bool,
    /// Most bytes that were in use on the device, by whomever.
    pub used_peak_bytes: u64,
    /// Bytes in use on the device at the last sample.
    pub used_last_bytes: u64,
    /// Bytes that the driver keeps for itself; `None` where they are among those in use.
    pub reserved_bytes: Option<u64>,
    /// Bytes of the device.
    pub total_bytes: u64,
    /// Most bytes of the device layer: what of that the process asked for.
    pub device_layer_peak_bytes: u64,
}

/// What is said of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSummary {
    /// Who it is.
    pub view: ProcessView,
    /// CUDA driver, as `13.0`.
    pub driver: Option<String>,
    /// Version of the recorder.
    pub recorder: String,
    /// Settings of the recorder.
    pub settings: Vec<String>,
    /// What was seen of CUDA.
    pub cuda_use: CudaUse,
    /// Events since its start.
    pub events: u64,
    /// Distinct call stacks.
    pub stacks: u64,
    /// Sums by device and layer.
    pub accounts: Vec<AccountView>,
    /// Sums by device and kind.
    pub kinds: Vec<KindView>,
    /// What nvidia-smi showed, by device.
    pub nvidia_smi: Vec<NvidiaSmiView>,
    /// What PyTorch's allocator says of itself: device id in the answer, and what.
    pub torch: Vec<(usize, Torch)>,
    /// What NVTX ranges hold, largest first.
    pub ranges: Vec<RangeView>,
    /// Allocations that were tried once more after pools were trimmed: device id in the answer, and
    /// how many.
    pub rescues: Vec<(usize, Rescues)>,
    /// Snapshots that were taken when allocations failed. Analyses look at no other files: whoever
    /// knows of them adds them.
    pub snapshots: usize,
    /// Contexts that broke: device id in the answer, driver's error code.
    pub corrupted: Vec<(Option<usize>, u64)>,
    /// What is not in the trace.
    pub losses: Losses,
    /// Its Python, if there is one.
    pub python: Option<PythonStacks>,
    /// What the recorder wants to be said.
    pub notes: Vec<(String, String)>,
    /// What is wrong with the file.
    pub damage: Vec<String>,
}

/// The summary of several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Processes by id.
    pub processes: Vec<ProcessSummary>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
    /// Stacks that held most at the peak of their layer, largest first.
    pub top: Vec<TopStack>,
}

impl Summary {
    /// What ranks held on a GPU at the peak of its device layer, side by side: of several GPUs of a rank the most.
    pub fn ranks(&self) -> Option<Ranks> {
        let peak = |process: &ProcessSummary| {
            let accounts = process.accounts.iter();
            let device = accounts.filter(|account| account.layer == Layer::Device);
            device.map(|account| account.peak_bytes).max().unwrap_or(0)
        };
        let held: Vec<u64> = self.processes.iter().map(peak).collect();
        let views: Vec<ProcessView> = self.processes.iter().map(|p| p.view.clone()).collect();
        Ranks::compared(&views, &held)
    }
}

/// Sums up all processes; keeps the `top` largest stacks.
pub fn summary(
    processes: &[Process],
    filter: &Filter,
    top: usize,
    loops: &mut dyn Loops,
) -> Summary {
    let mut devices = Devices::default();
    let mut stacks = Vec::new();
    let mut summaries = Vec::new();
    for (id, process) in processes.iter().enumerate() {
        devices.add_all(process, id);
        summaries.push(of_process(process, id, filter, &mut devices));
        stacks.extend(top_stacks(process, id, filter, &mut devices, loops));
    }
    stacks.sort_by_key(|stack| {
        let [at_peak, live, _] = stack.estimates;
        let size = |known: Sum, estimate: Option<Estimate>| {
            Reverse(estimate.map_or(known, |estimate| estimate.sum(known)))
        };
        (
            stack.stack.is_not_sampled(),
            size(stack.at_peak, at_peak),
            size(stack.live, live),
        )
    });
    stacks.truncate(top);
    Summary {
        processes: summaries,
        devices: devices.all,
        top: stacks,
    }
}

fn of_process(
    process: &Process,
    id: usize,
    filter: &Filter,
    devices: &mut Devices,
) -> ProcessSummary {
    let control = &process.trace.copy.control;
    let accounts = process
        .accounts()
        .filter(|(device, layer, _)| filter.takes_account(*device, *layer))
        .map(|(device, layer, row)| {
            let device = device.map(|index| devices.id_of(process, id, index));
            account_view(process, device, layer, row)
        })
        .collect();
    let corrupted = process
        .corrupted
        .values()
        .map(|corruption| {
            let device = corruption
                .device
                .map(|index| devices.id_of(process, id, index));
            (device, corruption.error)
        })
        .collect();
    let rescues = process.rescues().into_iter();
    let rescues = rescues
        .filter(|(device, _)| filter.takes_account(Some(*device), Layer::Device))
        .map(|(device, sums)| (devices.id_of(process, id, device), sums))
        .collect();
    let torch = process.torch.iter();
    let torch = torch
        .map(|&torch| (devices.id_of(process, id, torch.device), torch))
        .collect();
    ProcessSummary {
        view: ProcessView::of(process, id),
        driver: process
            .driver
            .map(|number| format!("{}.{}", number / 1000, number % 1000 / 10)),
        recorder: process.config.version.clone(),
        settings: process.config.settings.clone(),
        cuda_use: process.cuda_use(),
        events: process.trace.copy.seq,
        stacks: control.stack_count,
        accounts,
        kinds: kinds(process, id, filter, devices),
        nvidia_smi: nvidia_smi(process, id, filter, devices),
        torch,
        ranges: ranges(process, filter),
        rescues,
        snapshots: 0,
        corrupted,
        losses: process.losses.clone(),
        python: process.python_stacks(),
        notes: process
            .notes
            .iter()
            .map(|note| (note.code.clone(), note.text.clone()))
            .collect(),
        damage: process
            .trace
            .damage
            .iter()
            .map(|d| d.what.clone())
            .collect(),
    }
}

fn nvidia_smi(
    process: &Process,
    id: usize,
    filter: &Filter,
    devices: &mut Devices,
) -> Vec<NvidiaSmiView> {
    let shown = process
        .device_use
        .iter()
        .filter(|(device, _)| filter.takes_account(Some(**device), Layer::Device));
    shown
        .filter_map(|(&index, used)| {
            let (newest, fullest) = (used.samples.last()?, used.fullest()?);
            let number = |sample: &UseSample| {
                let bytes = sample.process_bytes?;
                Some((bytes, process.unix_ns(sample.time)))
            };
            let row = account::index(index, Layer::Device);
            let account = process.trace.copy.accounts.get(row);
            Some(NvidiaSmiView {
                device: devices.id_of(process, id, index),
                samples: used.samples.len(),
                peak: used.peak().and_then(number),
                last: used.last().and_then(number),
                assumed: used.peak().is_some_and(|s| s.found_by == FoundBy::Assumed),
                used_peak_bytes: fullest.used_bytes,
                used_last_bytes: newest.used_bytes,
                reserved_bytes: newest.reserved_bytes,
                total_bytes: newest.total_bytes,
                device_layer_peak_bytes: account.map_or(0, |account| account.peak_bytes),
            })
        })
        .collect()
}

fn account_view(
    process: &Process,
    device: Option<usize>,
    layer: Layer,
    row: &Account,
) -> AccountView {
    let sum = |bytes, count| Sum { bytes, count };
    AccountView {
        device,
        layer,
        live: sum(row.live_bytes, row.live_count),
        peak_bytes: row.peak_bytes,
        peak_ns: process.unix_ns(row.peak_time),
        allocated: sum(row.alloc_bytes, row.alloc_count),
        freed: sum(row.freed_bytes(), row.freed_count()),
        ended: sum(row.ended_bytes, row.ended_count),
        failed_count: row.failed_count.into(),
        unmatched_count: row.unmatched_count.into(),
        dropped: sum(row.dropped_bytes, row.dropped_count),
    }
}

/// Sums of a row or of several.
#[derive(Clone, Copy, Default)]
struct Sums {
    live: Sum,
    allocated: Sum,
    at_peak: Sum,
    /// What the three stand for: at the peak, live, allocated.
    weighted: [Weighted; 3],
}

/// Calls `each` with the sums of every ordinary row that is asked about.
fn rows(process: &Process, filter: &Filter, mut each: impl FnMut(u32, u16, u8, Kind, Sums)) {
    let coarsest = process.sampling.coarsest();
    for row in process.totals() {
        let Some(kind) = row.kind() else { continue };
        let key = row.key;
        if key.end != End::Live as u8 || !kind.counted() || !filter.takes(key.device, kind) {
            continue;
        }
        let index = account::index(key.device, kind.layer());
        let account = process.trace.copy.accounts.get(index);
        let epoch = account.map_or(0, |account| account.peak_epoch);
        let (bytes, count) = row.at_peak(epoch);
        let sums = Sums {
            live: Sum {
                bytes: row.live_bytes,
                count: row.live_count,
            },
            allocated: Sum {
                bytes: row.alloc_bytes,
                count: row.alloc_count,
            },
            at_peak: Sum { bytes, count },
            weighted: [
                Weighted::of_bytes(row.sampled.at_peak(epoch), coarsest),
                Weighted::of_bytes(row.sampled.live_bytes, coarsest),
                Weighted::of_all_made(&row.sampled, coarsest),
            ],
        };
        each(key.stack, key.api, key.device, kind, sums);
    }
}

impl Sums {
    fn merge(&mut self, other: Sums) {
        self.live.merge(other.live);
        self.allocated.merge(other.allocated);
        self.at_peak.merge(other.at_peak);
        for (own, other) in self.weighted.iter_mut().zip(other.weighted) {
            own.merge(other);
        }
    }
}

fn kinds(process: &Process, id: usize, filter: &Filter, devices: &mut Devices) -> Vec<KindView> {
    let mut by_kind: BTreeMap<(u8, Kind), Sums> = BTreeMap::new();
    rows(process, filter, |_, _, device, kind, sums| {
        by_kind.entry((device, kind)).or_default().merge(sums);
    });
    by_kind
        .into_iter()
        .map(|((device, kind), sums)| KindView {
            device: device_id(process, id, device, devices),
            kind,
            live: sums.live,
            allocated: sums.allocated,
            at_peak: sums.at_peak,
        })
        .collect()
}

fn top_stacks(
    process: &Process,
    id: usize,
    filter: &Filter,
    devices: &mut Devices,
    loops: &mut dyn Loops,
) -> Vec<TopStack> {
    let mut merged: FxHashMap<(VisibleStack, u16, u8, Kind), Sums> = FxHashMap::default();
    let mut visible: FxHashMap<u32, VisibleStack> = FxHashMap::default();
    let mut loops = Remembered::new(loops);
    // What PyTorch's allocator asks the driver for is told by its tensors; whoever happened to need a new
    // segment says nothing. Who asks for the device layer gets it.
    let tensors: FxHashSet<u8> = process
        .accounts()
        .filter(|(_, layer, account)| *layer == Layer::Framework && account.peak_bytes > 0)
        .filter_map(|(device, ..)| device)
        .filter(|_| filter.layers.is_empty())
        .collect();
    let mut segments: FxHashMap<u32, bool> = FxHashMap::default();
    rows(process, filter, |stack, api, device, kind, sums| {
        if kind.layer() == Layer::Device
            && tensors.contains(&device)
            && *segments.entry(stack).or_insert_with(|| {
                let library = process.library_of(stack);
                library.is_some_and(|library| library.torch_allocator)
            })
        {
            return;
        }
        let stack = visible
            .entry(stack)
            .or_insert_with(|| process.visible(stack, Unhidden::default(), &mut loops));
        let key = (stack.clone(), api, device, kind);
        merged.entry(key).or_default().merge(sums);
    });
    let mut stacks: Vec<TopStack> = merged
        .into_iter()
        .map(|((stack, api, device, kind), sums)| TopStack {
            process: id,
            device: device_id(process, id, device, devices),
            kind,
            api: process.api(api).unwrap_or_default().to_owned(),
            at_peak: sums.at_peak,
            live: sums.live,
            allocated: sums.allocated,
            estimates: [
                sums.weighted[0].estimate(sums.at_peak),
                sums.weighted[1].estimate(sums.live),
                sums.weighted[2].estimate(sums.allocated),
            ],
            stack,
        })
        .collect();
    // A fixed order for what is otherwise equal, whatever the map's order was.
    let frames = |stack: &TopStack| -> Vec<u64> {
        stack
            .stack
            .frames
            .iter()
            .map(|frame| frame.encode())
            .collect()
    };
    stacks.sort_by_cached_key(|stack| (stack.device, stack.kind, stack.api.clone(), frames(stack)));
    stacks
}

fn device_id(process: &Process, id: usize, index: u8, devices: &mut Devices) -> Option<usize> {
    (index != NO_DEVICE).then(|| devices.id_of(process, id, index))
}
