//! `vramtrace.reconcile/1`.

use crate::analysis::Sum;
use crate::analysis::reconcile::{Answer, Beside, Line, Reconciled};
use crate::report::json::{DeviceJson, ProcessJson, SumJson, document, list};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    trees: Vec<TreeJson<'a>>,
    without: &'a [String],
}

#[derive(Serialize)]
struct TreeJson<'a> {
    process: usize,
    device: usize,
    at_ns: u64,
    /// What nvidia-smi shows; `None` where nobody sampled it.
    shown: Option<ShownJson>,
    explained: i64,
    unexplained: Option<i64>,
    lines: Vec<LineJson<'a>>,
    beside: BesideJson,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ShownJson {
    process_bytes: Option<u64>,
    assumed: bool,
    device_bytes: u64,
    others_bytes: Option<u64>,
    at_ns: u64,
    known_since: i64,
}

#[derive(Serialize)]
struct LineJson<'a> {
    part: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    bytes: i64,
    count: u64,
    basis: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    within: Vec<LineJson<'a>>,
}

#[derive(Serialize)]
struct BesideJson {
    pinned: SumJson,
    managed: SumJson,
    imports: SumJson,
    host_physical: SumJson,
}

/// The document.
pub fn json(answer: &Answer) -> String {
    document(&Document {
        schema: "vramtrace.reconcile/1",
        processes: list(&answer.processes),
        devices: list(&answer.devices.all),
        trees: answer
            .trees
            .iter()
            .map(|of| tree(of, answer.processes[of.process].start_ns))
            .collect(),
        without: &answer.without,
    })
}

fn tree(tree: &Reconciled, start_ns: u64) -> TreeJson<'_> {
    TreeJson {
        process: tree.process,
        device: tree.device,
        at_ns: tree.at_ns,
        shown: tree.shown.map(|shown| ShownJson {
            process_bytes: shown.process,
            assumed: shown.assumed,
            device_bytes: shown.device,
            others_bytes: shown.others,
            at_ns: start_ns.saturating_add(shown.time),
            known_since: shown.since,
        }),
        explained: tree.explained,
        unexplained: tree.unexplained,
        lines: tree.lines.iter().map(line).collect(),
        beside: beside(&tree.beside),
        notes: &tree.notes,
    }
}

fn line(of: &Line) -> LineJson<'_> {
    LineJson {
        part: of.part.name(),
        name: &of.name,
        file: &of.file,
        bytes: of.bytes,
        count: of.count,
        basis: of.basis.name(),
        within: of.within.iter().map(line).collect(),
    }
}

fn beside(beside: &Beside) -> BesideJson {
    let sum = |sum: Sum| SumJson::from(sum);
    BesideJson {
        pinned: sum(beside.pinned),
        managed: sum(beside.managed),
        imports: sum(beside.imports),
        host_physical: sum(beside.host_physical),
    }
}
