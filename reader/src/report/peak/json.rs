//! `vramtrace.peak/1`. What is the same as in `vramtrace.leaks/1` has the same name there.

use super::Shown;
use crate::analysis::leaks::Placed;
use crate::analysis::peak::Peak;
use crate::report::frames::ShownFrame;
use crate::report::json::{DeviceJson, ProcessJson, SumJson, document, list};
use crate::report::leaks::Omitted;
use crate::report::place::PlaceJson;
use crate::report::ranks::RanksJson;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: &'a [String],
    lost_events: u64,
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    peaks: Vec<PeakJson<'a>>,
    warnings: &'a [String],
    /// Where there are several ranks: which of them is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<RanksJson>,
}

#[derive(Serialize)]
struct PeakJson<'a> {
    process: usize,
    device: Option<usize>,
    layer: &'static str,
    at_ns: u64,
    bytes: u64,
    adds_up: bool,
    /// What the stacks held, all kinds; `bytes` of it is the peak's if it adds up.
    stacks: SumJson,
    /// The part of it that was asked about.
    total: SumJson,
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    bytes: u64,
    count: u64,
    /// First and last allocation that was ever made there; the last may be after the peak.
    first_ever_ns: u64,
    last_ever_ns: u64,
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let found = shown.peaks;
    document(&Document {
        schema: "vramtrace.peak/1",
        complete: found.complete,
        incomplete_because: &found.incomplete_because,
        lost_events: found.lost_events,
        processes: list(&found.processes),
        devices: list(&found.devices),
        peaks: found
            .peaks
            .iter()
            .zip(&shown.stacks)
            .map(|(peak, stacks)| of_peak(peak, stacks))
            .collect(),
        warnings: &shown.symbols,
        ranks: RanksJson::of(found.ranks().as_ref()),
    })
}

fn of_peak<'a>(peak: &'a Peak, stacks: &'a [Vec<ShownFrame>]) -> PeakJson<'a> {
    PeakJson {
        process: peak.process,
        device: peak.device,
        layer: peak.layer.name(),
        at_ns: peak.at_ns,
        bytes: peak.bytes,
        adds_up: peak.adds_up(),
        stacks: peak.stacks.into(),
        total: peak.asked.into(),
        groups: peak
            .groups
            .iter()
            .zip(stacks)
            .map(|(placed, stack)| of_group(placed, stack))
            .collect(),
        omitted: Omitted::new(peak.omitted_groups, peak.omitted),
    }
}

fn of_group<'a>(placed: &'a Placed, stack: &'a [ShownFrame]) -> GroupJson<'a> {
    let group = &placed.group;
    GroupJson {
        place: PlaceJson::of(placed, stack),
        bytes: group.bytes,
        count: group.count,
        first_ever_ns: group.first_ns,
        last_ever_ns: group.last_ns,
    }
}
