//! `vramtrace.leaks/1`.

use super::Shown;
use crate::analysis::Sum;
use crate::analysis::leaks::{EntryEnd, Group};
use crate::report::frames::ShownFrame;
use crate::report::json::{DeviceJson, NamedJson, ProcessJson, SumJson, document, list};
use serde::Serialize;
use vramtrace_format::record::{Kind, Layer};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: &'a [String],
    lost_events: u64,
    point: &'a str,
    from: Option<&'a str>,
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    total: Total,
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
    warnings: &'a [String],
    suppressed: Vec<SuppressedJson<'a>>,
}

#[derive(Serialize)]
struct SuppressedJson<'a> {
    pattern: &'a str,
    bytes: u64,
    count: u64,
}

#[derive(Serialize)]
struct Total {
    gpu: SumJson,
    host: SumJson,
    cached: Bytes,
    teardown: SumJson,
    corrupted: SumJson,
    imports: SumJson,
    mappings: SumJson,
    reservations: SumJson,
}

#[derive(Serialize)]
struct Bytes {
    bytes: u64,
}

/// What `top` left out.
#[derive(Serialize)]
pub(crate) struct Omitted {
    groups: usize,
    bytes: u64,
    count: u64,
}

impl Omitted {
    /// So many groups that hold so much.
    pub(crate) fn new(groups: usize, held: Sum) -> Omitted {
        Omitted {
            groups,
            bytes: held.bytes,
            count: held.count,
        }
    }
}

#[derive(Serialize)]
struct GroupJson<'a> {
    process: usize,
    device: Option<usize>,
    layer: Option<&'static str>,
    kind: Option<&'static str>,
    api: Option<&'a str>,
    bytes: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    threads: Vec<NamedJson>,
    ranges: &'a [String],
    suspicion: &'static str,
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entered: Option<u64>,
    stack: &'a [ShownFrame],
    stack_truncated: bool,
    stack_missing: Option<&'static str>,
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let answer = shown.answer;
    document(&Document {
        schema: "vramtrace.leaks/1",
        complete: answer.complete,
        incomplete_because: &answer.incomplete_because,
        lost_events: answer.lost_events,
        point: answer.point(),
        from: answer.asked.from.as_deref(),
        processes: list(&answer.processes),
        devices: list(&answer.devices),
        total: Total {
            gpu: answer.gpu.into(),
            host: answer.host.into(),
            cached: Bytes {
                bytes: answer.cached,
            },
            teardown: answer.teardown_only.into(),
            corrupted: answer.corrupted.into(),
            imports: answer.aside.imports.into(),
            mappings: answer.aside.mappings.into(),
            reservations: answer.aside.reservations.into(),
        },
        groups: answer
            .groups
            .iter()
            .zip(&shown.stacks)
            .map(|(placed, stack)| group(placed.process, placed.device, &placed.group, stack))
            .collect(),
        omitted: Omitted::new(answer.omitted_groups, answer.omitted),
        warnings: &shown.symbols,
        suppressed: answer
            .suppressed
            .iter()
            .map(|used| SuppressedJson {
                pattern: &used.pattern,
                bytes: used.sum.bytes,
                count: used.sum.count,
            })
            .collect(),
    })
}

fn group<'a>(
    process: usize,
    device: Option<usize>,
    group: &'a Group,
    stack: &'a [ShownFrame],
) -> GroupJson<'a> {
    GroupJson {
        process,
        device,
        layer: group.layer.map(Layer::name),
        kind: group.kind.map(Kind::name),
        api: group.api.as_deref(),
        bytes: group.bytes,
        count: group.count,
        first_ns: group.first_ns,
        last_ns: group.last_ns,
        threads: list(&group.threads),
        ranges: &group.ranges,
        suspicion: group.suspicion.name(),
        end: group.end.map(EntryEnd::name),
        value: group.value.as_deref(),
        entered: group.entered,
        stack,
        stack_truncated: group.stack.truncated,
        stack_missing: group.stack.missing.filter(|_| group.value.is_none()),
    }
}
