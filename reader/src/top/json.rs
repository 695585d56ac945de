//! One picture as a document. Field names are a contract: add, never rename.

use super::picture::{GroupRow, Picture};
use super::settings::Settings;
use crate::report::json::document;
use crate::report::words::foreign;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    unix_ns: u64,
    /// The time that growth is about.
    growth_over_s: f64,
    by: &'static str,
    running: usize,
    ended: usize,
    unseen: usize,
    devices: Vec<Device<'a>>,
    processes: Vec<Process<'a>>,
    groups: Vec<Group<'a>>,
    pools: Vec<Pool<'a>>,
    failures: Vec<Failure<'a>>,
    unreadable: Vec<Unreadable>,
    sampled: bool,
    names_complete: bool,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Device<'a> {
    label: &'a str,
    uuid: &'a str,
    name: &'a str,
    total_bytes: Option<u64>,
    used_bytes: Option<u64>,
    traced_bytes: u64,
    cached_bytes: u64,
    processes: usize,
    growth_bytes_per_s: Option<f64>,
}

#[derive(Serialize)]
struct Process<'a> {
    process: u32,
    trace: String,
    pid: u32,
    program: &'a str,
    path: &'a str,
    rank: Option<u32>,
    host: &'a str,
    state: &'static str,
    device: Option<&'a str>,
    gpu: &'a str,
    live_bytes: u64,
    live_count: u64,
    peak_bytes: u64,
    framework_bytes: u64,
    cached_bytes: u64,
    host_bytes: u64,
    nvidia_smi_bytes: Option<u64>,
    failures: u64,
    growth_bytes_per_s: Option<f64>,
    exact: bool,
}

#[derive(Serialize)]
struct Group<'a> {
    process: Option<u32>,
    trace: Option<String>,
    device: Option<&'a str>,
    gpu: &'a str,
    layer: &'static str,
    kind: Option<&'static str>,
    bytes: u64,
    count: u64,
    estimated: bool,
    growth_bytes_per_s: Option<f64>,
    /// What it was made by.
    value: &'a str,
    callers: &'a [String],
    python: Option<&'a str>,
    line: Option<&'a str>,
    library: Option<&'a str>,
    api: Option<&'a str>,
    stack: Option<u32>,
    rest: bool,
}

#[derive(Serialize)]
struct Pool<'a> {
    process: u32,
    gpu: &'a str,
    allocator: &'static str,
    reserved_bytes: u64,
    used_bytes: u64,
}

#[derive(Serialize)]
struct Failure<'a> {
    process: u32,
    trace: String,
    event: u64,
    unix_ns: u64,
    gpu: &'a str,
    kind: &'static str,
    asked_bytes: u64,
    free_bytes: Option<u64>,
    attempts: u64,
    rescued: bool,
    framework: bool,
    site: Option<&'a str>,
    callers: &'a [String],
}

#[derive(Serialize)]
struct Unreadable {
    trace: String,
    why: String,
}

/// The document. `over` is the time that growth is about.
pub fn json(picture: &Picture, settings: &Settings, most: usize, over: Duration) -> String {
    let [running, ended, unseen] = picture.states;
    let devices = picture.devices.iter().map(|row| Device {
        label: &row.label,
        uuid: &row.uuid,
        name: &row.name,
        total_bytes: (row.total > 0).then_some(row.total),
        used_bytes: row.used,
        traced_bytes: row.traced,
        cached_bytes: row.cached,
        processes: row.processes,
        growth_bytes_per_s: finite(row.growth),
    });
    let processes = picture.processes.iter().map(|row| Process {
        process: row.process,
        trace: row.trace.to_string_lossy().into_owned(),
        pid: row.pid,
        program: &row.name,
        path: &row.program,
        rank: row.rank,
        host: &row.host,
        state: row.state,
        device: row.device.as_deref(),
        gpu: &row.gpu,
        live_bytes: row.live,
        live_count: row.count,
        peak_bytes: row.peak,
        framework_bytes: row.framework,
        cached_bytes: row.cached,
        host_bytes: row.host_memory,
        nvidia_smi_bytes: row.shown,
        failures: row.failed,
        growth_bytes_per_s: finite(row.growth),
        exact: !row.inexact,
    });
    let pools = picture.pools.iter().map(|row| Pool {
        process: row.process,
        gpu: &row.gpu,
        allocator: row.allocator,
        reserved_bytes: row.reserved,
        used_bytes: row.used,
    });
    let failures = picture.failures.iter().map(|row| Failure {
        process: row.process,
        trace: row.trace.to_string_lossy().into_owned(),
        event: row.failure.seq,
        unix_ns: row.failure.unix_ns,
        gpu: &row.gpu,
        kind: row.failure.kind.name(),
        asked_bytes: row.failure.asked_bytes,
        free_bytes: row.failure.free_bytes,
        attempts: row.failure.attempts,
        rescued: row.failure.rescued,
        framework: row.failure.framework,
        site: row.failure.named.as_ref().map(|named| &*named.site),
        callers: row
            .failure
            .named
            .as_ref()
            .map_or(&[], |named| &named.callers),
    });
    let unreadable = picture.unreadable.iter().map(|(trace, why)| Unreadable {
        trace: trace.to_string_lossy().into_owned(),
        why: why.clone(),
    });
    harmless(document(&Document {
        schema: "vramtrace.top/1",
        unix_ns: picture.unix_ns,
        growth_over_s: over.as_secs_f64(),
        by: settings.by.word(),
        running,
        ended,
        unseen,
        devices: devices.collect(),
        processes: processes.collect(),
        groups: picture.groups.iter().take(most).map(group).collect(),
        pools: pools.collect(),
        failures: failures.collect(),
        unreadable: unreadable.collect(),
        sampled: picture.sampled,
        names_complete: !picture.naming,
        notes: &picture.notes,
    }))
}

/// The same document, with what could do something to a terminal that it is printed on written out. Such
/// characters are in texts only, where JSON lets any be written that way.
fn harmless(document: String) -> String {
    if document.is_ascii() {
        return document;
    }
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        if c.is_ascii() || foreign(text) == text {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// A number that JSON has.
fn finite(rate: Option<f64>) -> Option<f64> {
    rate.filter(|rate| rate.is_finite())
}

fn group(row: &GroupRow) -> Group<'_> {
    let named = row.named.as_deref();
    Group {
        process: row.key.process,
        trace: row
            .trace
            .as_ref()
            .map(|trace| trace.to_string_lossy().into_owned()),
        device: row.key.device.as_deref(),
        gpu: &row.gpu,
        layer: row.key.layer.name(),
        kind: row.key.kind.map(|kind| kind.name()),
        bytes: row.bytes,
        count: row.count,
        estimated: row.estimated,
        growth_bytes_per_s: finite(row.growth),
        value: &row.label,
        callers: named.map_or(&[], |named| &named.callers),
        python: named.and_then(|named| named.python.as_deref()),
        line: named.and_then(|named| named.line.as_deref()),
        library: named.and_then(|named| named.library.as_deref()),
        api: named.and_then(|named| named.api.as_deref()),
        stack: row.key.place.map(|place| place.0),
        rest: row.rest,
    }
}
