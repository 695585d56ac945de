//! The summary for people.

use super::Shown;
use crate::analysis::Sum;
use crate::analysis::estimate::Estimate;
use crate::analysis::leaks::Point;
use crate::analysis::summary::{AccountView, NvidiaSmiView, ProcessSummary, Summary};
use crate::report::frames::up_to_main;
use crate::report::head::or_look;
use crate::report::leaks::{process_line, sum, symbol_warnings};
use crate::report::lines::{lines, without_plumbing};
use crate::report::losses;
use crate::report::ranks::lines as rank_lines;
use crate::report::sampling;
use crate::report::style::Style;
use crate::report::words::{bytes, count, counted, duration, foreign, shell, short, utc};
use std::fmt::Write;
use vramtrace_format::record::Kind;

/// Frames shown of a top stack.
const FRAMES: usize = 6;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let summary = shown.summary;
    let mut out = String::new();
    for process in &summary.processes {
        of_process(&mut out, summary, process, style);
        out.push('\n');
    }
    top(&mut out, shown, style);
    rank_lines(
        &mut out,
        summary.ranks().as_ref(),
        "GPU memory at the peak of the device layer",
        style,
    );
    symbol_warnings(&mut out, &shown.symbols, style);
    last_line(&mut out, summary, style);
    let traces: Vec<String> = summary
        .processes
        .iter()
        .map(|process| shell(&process.view.trace))
        .collect();
    let _ = writeln!(out, "Next: vramtrace leaks {}", traces.join(" "));
    let views = summary.processes.iter().map(|process| &process.view);
    or_look(&mut out, views.map(|view| view.trace.as_path()));
    out
}

fn place(summary: &Summary, device: Option<usize>) -> String {
    match device.and_then(|id| summary.devices.get(id)) {
        Some(device) if device.name.is_empty() => format!("GPU {}", device.index),
        Some(device) => format!("GPU {} ({})", device.index, foreign(&device.name)),
        None => "Host memory".to_owned(),
    }
}

fn of_process(out: &mut String, summary: &Summary, process: &ProcessSummary, style: Style) {
    process_line(out, &process.view, Point::End, style);
    let mut facts = vec![format!("began {}", utc(process.view.start_ns))];
    if let Some(driver) = &process.driver {
        facts.push(format!("CUDA driver {driver}"));
    }
    facts.push(counted(process.events, "event"));
    facts.push(counted(process.stacks, "call stack"));
    let _ = writeln!(out, "    {}", style.dim(&facts.join(" · ")));
    if let Some(python) = &process.python {
        let _ = writeln!(out, "    {}", style.dim(&foreign(&python.line())));
    }
    for line in sampling::costs(&process.view) {
        let _ = writeln!(out, "    {}", style.dim(&line));
    }
    if let Some(remark) = process.cuda_use.remark() {
        let _ = writeln!(out, "    {} it {remark}", style.warn("note:"));
    }
    if !process.accounts.is_empty() {
        out.push('\n');
        table(out, summary, process, style);
    }
    if process.kinds.len() > 1 {
        out.push('\n');
        kinds(out, summary, process);
    }
    if !process.nvidia_smi.is_empty() {
        out.push('\n');
    }
    for shown in &process.nvidia_smi {
        let line = nvidia_smi(summary, process, shown);
        let _ = writeln!(out, "    {line}");
    }
    for (device, torch) in &process.torch {
        let _ = writeln!(
            out,
            "    {}, PyTorch says: {} in tensors{}",
            place(summary, Some(*device)),
            bytes(torch.allocated),
            match torch.seen {
                Some(_) if torch.differs() => "; the trace has another number",
                Some(_) => "; the trace has the same tensors",
                None => "",
            }
        );
    }
    if !process.ranges.is_empty() {
        out.push('\n');
        ranges(out, process, style);
    }
    for (device, sums) in &process.rescues {
        let _ = writeln!(
            out,
            "    {}: {} refused and tried once more, {} of them granted; pools gave back {}",
            place(summary, Some(*device)),
            counted(sums.tried, "allocation"),
            count(sums.saved),
            bytes(sums.bytes)
        );
    }
    if process.snapshots > 0 {
        let number = counted(process.snapshots as u64, "snapshot");
        let trace = shell(&process.view.trace);
        let line = format!("{number} of failed allocations: vramtrace oom {trace}");
        let _ = writeln!(out, "    {}", style.dim(&line));
    }
    for (device, error) in &process.corrupted {
        let line = format!(
            "{}: a context broke with CUDA error {error}",
            place(summary, *device)
        );
        let _ = writeln!(out, "    {}", style.bad(&line));
    }
    let mut warn = |lines: Vec<String>| {
        for line in lines {
            let _ = writeln!(out, "    {} {}", style.warn("note:"), foreign(&line));
        }
    };
    warn(process.damage.clone());
    warn(losses::reasons(&process.losses));
    warn(losses::lines(&process.losses));
    // Notes about Python are said with the other facts.
    let said =
        |(code, text): &(String, String)| (!code.starts_with("python")).then(|| text.clone());
    warn(process.notes.iter().filter_map(said).collect());
}

fn table(out: &mut String, summary: &Summary, process: &ProcessSummary, style: Style) {
    let mut rows =
        vec![["", "peak", "at", "live now", "allocated", "freed", "failed"].map(str::to_owned)];
    for account in &process.accounts {
        rows.push(row(summary, process, account));
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if !style.fits(2 + widths.iter().map(|width| width + 2).sum::<usize>()) {
        let [titles, rows @ ..] = &rows[..] else {
            return;
        };
        for row in rows {
            let _ = writeln!(out, "    {}", row[0]);
            for (title, cell) in titles.iter().zip(row).skip(1) {
                let _ = writeln!(out, "        {title:<9}  {cell}");
            }
        }
        return;
    }
    for row in &rows {
        let _ = write!(out, "    {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(out, "  {cell:>width$}");
        }
        out.push('\n');
    }
}

fn row(summary: &Summary, process: &ProcessSummary, account: &AccountView) -> [String; 7] {
    let name = match account.device {
        Some(_) => format!(
            "{}, {} layer",
            place(summary, account.device),
            account.layer.name()
        ),
        None => place(summary, None),
    };
    let in_count =
        |sum: crate::analysis::Sum| format!("{} in {}", bytes(sum.bytes), count(sum.count));
    let mut freed = account.freed;
    freed.merge(account.ended);
    [
        name,
        bytes(account.peak_bytes),
        duration(account.peak_ns.saturating_sub(process.view.start_ns)),
        in_count(account.live),
        in_count(account.allocated),
        in_count(freed),
        count(account.failed_count),
    ]
}

fn nvidia_smi(summary: &Summary, process: &ProcessSummary, shown: &NvidiaSmiView) -> String {
    let numbers = match (shown.peak, shown.last) {
        (Some((peak, at)), Some((last, _))) => format!(
            "{}{} at its peak (at {}), {} at last; the device layer's peak was {}",
            bytes(peak),
            if shown.assumed {
                ", of a process assumed to be this one,"
            } else {
                ""
            },
            duration(at.saturating_sub(process.view.start_ns)),
            bytes(last),
            bytes(shown.device_layer_peak_bytes)
        ),
        _ => format!(
            "nothing of this process; {} in use on the device at most, {} at last",
            bytes(shown.used_peak_bytes),
            bytes(shown.used_last_bytes)
        ),
    };
    format!(
        "{}, nvidia-smi: {numbers}",
        place(summary, Some(shown.device))
    )
}

fn kinds(out: &mut String, summary: &Summary, process: &ProcessSummary) {
    for kind in &process.kinds {
        let _ = writeln!(
            out,
            "    {}, {}: {} at the peak of its layer, {} live now",
            place(summary, kind.device),
            kind.kind.name(),
            bytes(kind.at_peak.bytes),
            bytes(kind.live.bytes)
        );
    }
}

/// NVTX ranges that are shown.
const RANGES: usize = 5;

fn ranges(out: &mut String, process: &ProcessSummary, style: Style) {
    out.push_str("    Live now, by the NVTX range that it was allocated in:\n");
    for range in process.ranges.iter().take(RANGES) {
        let host = if range.host { " of host memory" } else { "" };
        let times = counted(range.entered, "time");
        let _ = writeln!(
            out,
            "        {} in {}{host}: {} {}",
            bytes(range.live.bytes),
            counted(range.live.count, "allocation"),
            short(&range.name),
            style.dim(&format!("(entered {times})"))
        );
    }
    if process.ranges.len() > RANGES {
        let more = counted((process.ranges.len() - RANGES) as u64, "more range");
        let line = format!("… {more}; all with vramtrace leaks --by range --to end");
        let _ = writeln!(out, "        {}", style.dim(&line));
    }
}

fn top(out: &mut String, shown: &Shown<'_>, style: Style) {
    if shown.stacks.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "{}",
        style.strong("Largest at the peak of their layer:")
    );
    for (top, frames) in shown.summary.top.iter().zip(&shown.stacks) {
        let _ = writeln!(
            out,
            "{}; {} live now · {} · {} · {}",
            style.strong(&held(top.at_peak, top.estimates[0])),
            held_bytes(top.live.bytes, top.estimates[1]),
            if top.kind == Kind::Torch {
                "PyTorch's allocator".to_owned()
            } else if top.api.is_empty() {
                "unknown call".to_owned()
            } else {
                foreign(&top.api)
            },
            top.kind.name(),
            place(shown.summary, top.device)
        );
        let frames = lines(&without_plumbing(&frames[..up_to_main(frames)]));
        for line in frames.iter().take(FRAMES) {
            let _ = writeln!(out, "    {line}");
        }
        if frames.len() > FRAMES {
            let more = counted((frames.len() - FRAMES) as u64, "more line");
            let _ = writeln!(out, "    {}", style.dim(&format!("… {more}")));
        }
        if let Some(missing) = top.stack.missing {
            let _ = writeln!(out, "    ({missing})");
        }
    }
    out.push('\n');
}

fn held(known: Sum, estimate: Option<Estimate>) -> String {
    match estimate {
        Some(estimate) => sampling::estimated(estimate, known),
        None => sum(known),
    }
}

fn held_bytes(known: u64, estimate: Option<Estimate>) -> String {
    match estimate {
        Some(estimate) => format!("about {}", bytes(estimate.bytes.estimate)),
        None => bytes(known),
    }
}

fn last_line(out: &mut String, summary: &Summary, style: Style) {
    let exact = |process: &&ProcessSummary| process.losses.live_inexact.is_empty();
    let inexact = summary.processes.len() - summary.processes.iter().filter(exact).count();
    let events: u64 = summary
        .processes
        .iter()
        .fold(0, |sum, process| sum.saturating_add(process.events));
    let line = format!(
        "SUMMARY: {}, {}, {}",
        counted(summary.processes.len() as u64, "process").replace("processs", "processes"),
        counted(events, "event"),
        match inexact {
            0 => "what is live is exact".to_owned(),
            _ => "what is live is not exact".to_owned(),
        }
    );
    let _ = writeln!(out, "{}", style.strong(&line));
}
