//! `vramtrace.summary/1`.

use super::Shown;
use crate::analysis::summary::{AccountView, KindView, NvidiaSmiView, ProcessSummary, TopStack};
use crate::model::CudaUse;
use crate::report::frames::ShownFrame;
use crate::report::json::{DeviceJson, ProcessJson, PythonJson, SumJson, document, list};
use crate::report::losses::{self, LossesJson};
use crate::report::ranks::RanksJson;
use crate::report::sampling::EstimateJson;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    processes: Vec<ProcessSummaryJson<'a>>,
    devices: Vec<DeviceJson>,
    top: Vec<TopJson<'a>>,
    warnings: &'a [String],
    /// Where there are several ranks: which of them is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<RanksJson>,
}

#[derive(Serialize)]
struct ProcessSummaryJson<'a> {
    #[serde(flatten)]
    process: ProcessJson,
    driver: Option<&'a str>,
    recorder: &'a str,
    settings: &'a [String],
    used_cuda: bool,
    memory_seen: bool,
    events: u64,
    stacks: u64,
    complete: bool,
    incomplete_because: Vec<String>,
    accounts: Vec<AccountJson>,
    kinds: Vec<KindJson>,
    nvidia_smi: Vec<NvidiaSmiJson>,
    torch: Vec<TorchJson>,
    ranges: Vec<RangeJson<'a>>,
    rescues: Vec<RescuesJson>,
    /// Snapshots of failed allocations beside the trace.
    snapshots: usize,
    corrupted_contexts: Vec<CorruptedJson>,
    losses: LossesJson,
    damage: &'a [String],
    python: Option<PythonJson>,
    notes: Vec<NoteJson<'a>>,
}

/// Allocations that were tried once more after pools were trimmed.
#[derive(Serialize)]
struct RescuesJson {
    device: usize,
    tried: u64,
    saved: u64,
    given_back_bytes: u64,
}

#[derive(Serialize)]
struct AccountJson {
    device: Option<usize>,
    layer: &'static str,
    live: SumJson,
    peak_bytes: u64,
    peak_ns: u64,
    allocated: SumJson,
    freed: SumJson,
    ended: SumJson,
    failed_count: u64,
    unmatched_count: u64,
    dropped: SumJson,
}

#[derive(Serialize)]
struct KindJson {
    device: Option<usize>,
    kind: &'static str,
    layer: &'static str,
    live: SumJson,
    allocated: SumJson,
    at_peak: SumJson,
}

#[derive(Serialize)]
struct NvidiaSmiJson {
    device: usize,
    samples: usize,
    process_peak_bytes: Option<u64>,
    process_peak_ns: Option<u64>,
    process_last_bytes: Option<u64>,
    process_last_ns: Option<u64>,
    assumed: bool,
    used_peak_bytes: u64,
    used_last_bytes: u64,
    reserved_bytes: Option<u64>,
    total_bytes: u64,
    device_layer_peak_bytes: u64,
}

#[derive(Serialize)]
struct TorchJson {
    device: usize,
    #[serde(flatten)]
    torch: crate::report::json::TorchJson,
}

#[derive(Serialize)]
struct RangeJson<'a> {
    range: &'a str,
    space: &'static str,
    entered: u64,
    live: SumJson,
}

#[derive(Serialize)]
struct CorruptedJson {
    device: Option<usize>,
    error: Option<u64>,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    code: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct TopJson<'a> {
    process: usize,
    device: Option<usize>,
    layer: &'static str,
    kind: &'static str,
    api: &'a str,
    at_peak: SumJson,
    live: SumJson,
    allocated: SumJson,
    /// Where stacks were sampled, of each of these three.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimates: Option<EstimatesJson>,
    stack: &'a [ShownFrame],
    stack_missing: Option<&'static str>,
}

#[derive(Serialize)]
struct EstimatesJson {
    at_peak: Option<EstimateJson>,
    live: Option<EstimateJson>,
    allocated: Option<EstimateJson>,
}

impl EstimatesJson {
    fn of(stack: &TopStack) -> Option<EstimatesJson> {
        let [at_peak, live, allocated] = stack.estimates.map(|one| one.map(EstimateJson::from));
        let any = at_peak.is_some() || live.is_some() || allocated.is_some();
        any.then_some(EstimatesJson {
            at_peak,
            live,
            allocated,
        })
    }
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let summary = shown.summary;
    let complete = |process: &ProcessSummary| process.losses.live_inexact.is_empty();
    document(&Document {
        schema: "vramtrace.summary/1",
        complete: summary.processes.iter().all(complete),
        processes: summary.processes.iter().map(process).collect(),
        devices: list(&summary.devices),
        top: summary
            .top
            .iter()
            .zip(&shown.stacks)
            .map(|(stack, frames)| top(stack, frames))
            .collect(),
        warnings: &shown.symbols,
        ranks: RanksJson::of(shown.summary.ranks().as_ref()),
    })
}

fn process(process: &ProcessSummary) -> ProcessSummaryJson<'_> {
    ProcessSummaryJson {
        process: (&process.view).into(),
        driver: process.driver.as_deref(),
        recorder: &process.recorder,
        settings: &process.settings,
        used_cuda: process.cuda_use != CudaUse::Nothing,
        memory_seen: process.cuda_use == CudaUse::Memory,
        events: process.events,
        stacks: process.stacks,
        complete: process.losses.live_inexact.is_empty(),
        incomplete_because: losses::reasons(&process.losses),
        accounts: process.accounts.iter().map(account).collect(),
        kinds: process.kinds.iter().map(kind).collect(),
        nvidia_smi: process.nvidia_smi.iter().map(nvidia_smi).collect(),
        torch: process
            .torch
            .iter()
            .map(|(device, torch)| TorchJson {
                device: *device,
                torch: torch.into(),
            })
            .collect(),
        ranges: process
            .ranges
            .iter()
            .map(|range| RangeJson {
                range: &range.name,
                space: if range.host { "host" } else { "gpu" },
                entered: range.entered,
                live: range.live.into(),
            })
            .collect(),
        rescues: process
            .rescues
            .iter()
            .map(|&(device, sums)| RescuesJson {
                device,
                tried: sums.tried,
                saved: sums.saved,
                given_back_bytes: sums.bytes,
            })
            .collect(),
        snapshots: process.snapshots,
        corrupted_contexts: process
            .corrupted
            .iter()
            .map(|&(device, error)| CorruptedJson {
                device,
                error: (error != 0).then_some(error),
            })
            .collect(),
        losses: (&process.losses).into(),
        damage: &process.damage,
        python: process.python.as_ref().map(PythonJson::from),
        notes: process
            .notes
            .iter()
            .map(|(code, text)| NoteJson { code, text })
            .collect(),
    }
}

fn account(account: &AccountView) -> AccountJson {
    AccountJson {
        device: account.device,
        layer: account.layer.name(),
        live: account.live.into(),
        peak_bytes: account.peak_bytes,
        peak_ns: account.peak_ns,
        allocated: account.allocated.into(),
        freed: account.freed.into(),
        ended: account.ended.into(),
        failed_count: account.failed_count,
        unmatched_count: account.unmatched_count,
        dropped: account.dropped.into(),
    }
}

fn kind(kind: &KindView) -> KindJson {
    KindJson {
        device: kind.device,
        kind: kind.kind.name(),
        layer: kind.kind.layer().name(),
        live: kind.live.into(),
        allocated: kind.allocated.into(),
        at_peak: kind.at_peak.into(),
    }
}

fn nvidia_smi(shown: &NvidiaSmiView) -> NvidiaSmiJson {
    let bytes = |number: Option<(u64, u64)>| number.map(|(bytes, _)| bytes);
    let when = |number: Option<(u64, u64)>| number.map(|(_, when)| when);
    NvidiaSmiJson {
        device: shown.device,
        samples: shown.samples,
        process_peak_bytes: bytes(shown.peak),
        process_peak_ns: when(shown.peak),
        process_last_bytes: bytes(shown.last),
        process_last_ns: when(shown.last),
        assumed: shown.assumed,
        used_peak_bytes: shown.used_peak_bytes,
        used_last_bytes: shown.used_last_bytes,
        reserved_bytes: shown.reserved_bytes,
        total_bytes: shown.total_bytes,
        device_layer_peak_bytes: shown.device_layer_peak_bytes,
    }
}

fn top<'a>(stack: &'a TopStack, frames: &'a [ShownFrame]) -> TopJson<'a> {
    TopJson {
        process: stack.process,
        device: stack.device,
        layer: stack.kind.layer().name(),
        kind: stack.kind.name(),
        api: &stack.api,
        at_peak: stack.at_peak.into(),
        live: stack.live.into(),
        allocated: stack.allocated.into(),
        estimates: EstimatesJson::of(stack),
        stack: frames,
        stack_missing: stack.stack.missing,
    }
}
