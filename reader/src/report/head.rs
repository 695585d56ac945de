//! What every report begins with, and the notes before its summary.

use super::json::{DeviceJson, ProcessJson, list};
use super::leaks::{process_line, symbol_warnings};
use super::style::Style;
use super::words::{foreign, shell};
use crate::analysis::head::Head;
use crate::analysis::leaks::Point;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The fields that all documents have.
#[derive(Serialize)]
pub(crate) struct HeadJson<'a> {
    complete: bool,
    incomplete_because: &'a [String],
    lost_events: u64,
    notes: &'a [String],
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    warnings: &'a [String],
}

impl<'a> HeadJson<'a> {
    /// `warnings`: what symbols could not be had for.
    pub fn of(head: &'a Head, warnings: &'a [String]) -> HeadJson<'a> {
        HeadJson {
            complete: head.complete(),
            incomplete_because: &head.incomplete_because,
            lost_events: head.lost_events,
            notes: &head.notes,
            processes: list(&head.processes),
            devices: list(&head.devices),
            warnings,
        }
    }
}

/// A line for each process.
pub(crate) fn process_lines(out: &mut String, head: &Head, style: Style) {
    for view in &head.processes {
        process_line(out, view, Point::End, style);
    }
}

/// Everything that people should know before they believe the summary.
pub(crate) fn warnings(out: &mut String, head: &Head, symbols: &[String], style: Style) {
    for note in &head.notes {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(note));
    }
    symbol_warnings(out, symbols, style);
    for reason in &head.incomplete_because {
        let _ = writeln!(out, "{} {}", style.warn("not exact:"), foreign(reason));
    }
    for (view, used) in head.processes.iter().zip(&head.cuda_use) {
        if let Some(remark) = used.remark() {
            let _ = writeln!(out, "{} pid {} {remark}", style.warn("note:"), view.pid);
        }
    }
}

/// The next command, with all traces; `check` where this answer is not certain.
pub(crate) fn next(out: &mut String, head: &Head, command: &str) {
    let traces: Vec<String> = head
        .processes
        .iter()
        .map(|view| shell(&view.trace))
        .collect();
    let sound = head.complete() && head.saw_memory();
    let command = if sound { command } else { "check" };
    let _ = writeln!(out, "Next: vramtrace {command} {}", traces.join(" "));
}

/// Beneath the next command, where pictures say more: the command that makes the page. It is named after the trace.
pub(crate) fn or_look<'t>(out: &mut String, traces: impl IntoIterator<Item = &'t Path>) {
    let traces: Vec<&Path> = traces.into_iter().collect();
    let page = match traces[..] {
        [trace] => Path::new(trace.file_name().unwrap_or(trace.as_os_str())).with_extension("html"),
        _ => PathBuf::from("report.html"),
    };
    let names: Vec<String> = traces.iter().map(|trace| shell(trace)).collect();
    let _ = writeln!(
        out,
        "  or: vramtrace report -o {} {}   (all of it to look at, in a browser)",
        shell(&page),
        names.join(" ")
    );
}

/// ` (not exact)` where that is so.
pub(crate) fn inexact(head: &Head) -> &'static str {
    if head.complete() { "" } else { " (not exact)" }
}

/// `GPU 0 (NVIDIA H100)`; of host memory, that.
pub(crate) fn device_name(head: &Head, device: Option<usize>) -> String {
    match device.and_then(|id| head.devices.get(id)) {
        None => "page-locked host memory".to_owned(),
        Some(device) if device.name.is_empty() => format!("GPU {}", device.index),
        Some(device) => format!("GPU {} ({})", device.index, foreign(&device.name)),
    }
}

/// `, pid 4711, rank 1` where there are several processes.
pub(crate) fn of_process(head: &Head, process: usize) -> String {
    if head.processes.len() < 2 {
        return String::new();
    }
    let view = &head.processes[process];
    let rank = view.rank.map(|rank| format!(", rank {rank}"));
    format!(", pid {}{}", view.pid, rank.unwrap_or_default())
}
