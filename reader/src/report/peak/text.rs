//! Peaks for people: each with its size and time, then who held it; the summary and the next
//! command last.

use super::Shown;
use crate::analysis::Sum;
use crate::analysis::leaks::{Placed, Point};
use crate::analysis::peak::{Peak, Peaks};
use crate::report::frames::ShownFrame;
use crate::report::leaks::{frames, only, process_line, sum, symbol_warnings, what};
use crate::report::ranks::lines;
use crate::report::sampling::size;
use crate::report::style::Style;
use crate::report::words::{bytes, counted, duration, foreign, shell};
use std::fmt::Write;
use vramtrace_format::record::Layer;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let found = shown.peaks;
    let mut out = String::new();
    for view in &found.processes {
        process_line(&mut out, view, Point::End, style);
    }
    for (peak, stacks) in found.peaks.iter().zip(&shown.stacks) {
        out.push('\n');
        head(&mut out, found, peak, style);
        for (placed, stack) in peak.groups.iter().zip(stacks) {
            out.push('\n');
            group(&mut out, found, peak, placed, stack, style);
        }
        if peak.omitted_groups > 0 {
            let groups = counted(peak.omitted_groups as u64, "smaller group");
            let line = format!(
                "… and {groups} with {}; all with --top 0",
                sum(peak.omitted)
            );
            let _ = writeln!(out, "\n{}", style.dim(&line));
        }
    }
    out.push('\n');
    warnings(&mut out, shown, style);
    lines(
        &mut out,
        found.ranks().as_ref(),
        "GPU memory at the peak of a layer",
        style,
    );
    summary(&mut out, found, style);
    next(&mut out, found);
    out
}

/// `GPU 0 (NVIDIA H100), device layer`, and of whom if there are several.
fn place(found: &Peaks, peak: &Peak) -> String {
    let mut place = match (peak.layer, peak.device.and_then(|id| found.devices.get(id))) {
        (Layer::Host, _) | (_, None) => "page-locked host memory".to_owned(),
        (layer, Some(device)) if device.name.is_empty() => {
            format!("GPU {}, {} layer", device.index, layer.name())
        }
        (layer, Some(device)) => format!(
            "GPU {} ({}), {} layer",
            device.index,
            foreign(&device.name),
            layer.name()
        ),
    };
    if found.processes.len() > 1 {
        let process = &found.processes[peak.process];
        let _ = write!(place, ", pid {}", process.pid);
        if let Some(rank) = process.rank {
            let _ = write!(place, ", rank {rank}");
        }
    }
    place
}

fn when(found: &Peaks, peak: &Peak) -> String {
    let start = found.processes[peak.process].start_ns;
    duration(peak.at_ns.saturating_sub(start))
}

fn head(out: &mut String, found: &Peaks, peak: &Peak, style: Style) {
    let size = Sum {
        bytes: peak.bytes,
        count: peak.stacks.count,
    };
    let line = format!(
        "{}: {} at its peak, at {}",
        place(found, peak),
        sum(size),
        when(found, peak)
    );
    let _ = writeln!(out, "{}", style.strong(&line));
}

fn group(
    out: &mut String,
    found: &Peaks,
    peak: &Peak,
    placed: &Placed,
    stack: &[ShownFrame],
    style: Style,
) {
    let group = &placed.group;
    let percent = peak.percent(group.size().bytes);
    let _ = write!(out, "{} ({percent:.1} %)", style.bad(&size(group)));
    if let Some(value) = &group.value {
        let _ = write!(out, ": {}", style.strong(&foreign(value)));
    }
    out.push('\n');
    let what = what(&found.processes, &found.devices, placed);
    let _ = writeln!(out, "    {}", style.dim(&what));
    let start = found.processes[placed.process].start_ns;
    let at = |ns: u64| duration(ns.saturating_sub(start));
    let (first, last) = (at(group.first_ns), at(group.last_ns));
    let allocated = format!("allocated here first at {first}, last at {last}");
    let _ = writeln!(out, "    {}", style.dim(&allocated));
    if group.value.is_none() {
        frames(out, group, stack, found.all_frames);
    }
}

fn warnings(out: &mut String, shown: &Shown<'_>, style: Style) {
    let found = shown.peaks;
    for note in &found.notes {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(note));
    }
    symbol_warnings(out, &shown.symbols, style);
    for reason in &found.incomplete_because {
        let _ = writeln!(out, "{} {}", style.warn("not exact:"), foreign(reason));
    }
    for (view, used) in found.processes.iter().zip(&found.cuda_use) {
        if let Some(remark) = used.remark() {
            let _ = writeln!(out, "{} pid {} {remark}", style.warn("note:"), view.pid);
        }
    }
}

fn summary(out: &mut String, found: &Peaks, style: Style) {
    let only = match only(&found.filter, None) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let line = match found.largest.map(|largest| &found.peaks[largest]) {
        Some(peak) => {
            let largest = if found.peaks.len() > 1 {
                "largest peak"
            } else {
                "peak"
            };
            let kinds = &found.filter.kinds;
            let of = if kinds.is_empty() {
                sum(peak.stacks)
            } else {
                format!("{} of {}", sum(peak.asked), bytes(peak.bytes))
            };
            style.strong(&format!(
                "SUMMARY: {largest} {of}, {}, at {}{only}",
                place(found, peak),
                when(found, peak)
            ))
        }
        None if found.saw_memory() => style.good(&format!("SUMMARY: nothing was allocated{only}")),
        None => style.warn("SUMMARY: no CUDA memory was seen, so there is no peak"),
    };
    let inexact = if found.complete { "" } else { " (not exact)" };
    let _ = writeln!(out, "{line}{inexact}");
}

/// Who held the largest peak, in more detail where the event log still has it; else its course.
fn next(out: &mut String, found: &Peaks) {
    let trace = |id: usize| shell(&found.processes[id].trace);
    let all = || {
        let traces: Vec<String> = (0..found.processes.len()).map(trace).collect();
        traces.join(" ")
    };
    let command = match found.largest.map(|largest| &found.peaks[largest]) {
        Some(peak) if found.complete && found.in_event_log => {
            format!("leaks --to @{} {}", peak.at_ns, trace(peak.process))
        }
        Some(_) if found.complete => format!("timeline {}", all()),
        _ => format!("check {}", all()),
    };
    let _ = writeln!(out, "Next: vramtrace {command}");
}
