//! Timelines: JSON (`vramtrace.timeline/1`), CSV, and charts for terminals.

use super::chart::{LABELS, chart};
use super::json::{DeviceJson, ProcessJson, document, list};
use super::style::Style;
use super::words::{bytes, counted, duration, foreign, shell, short};
use crate::analysis::timeline::{Series, Timeline};
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: &'a [String],
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    series: Vec<SeriesJson>,
    marks: Vec<MarkJson<'a>>,
}

#[derive(Serialize)]
struct MarkJson<'a> {
    process: usize,
    time_ns: u64,
    domain: Option<&'a str>,
    text: &'a str,
}

#[derive(Serialize)]
struct SeriesJson {
    process: usize,
    device: Option<usize>,
    layer: &'static str,
    live_bytes: u64,
    peak_bytes: u64,
    peak_ns: u64,
    exact_from_ns: Option<u64>,
    start_ns: u64,
    span_ns: u64,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    start_ns: u64,
    min: u64,
    max: u64,
    last: u64,
}

/// The document.
pub fn json(timeline: &Timeline) -> String {
    document(&Document {
        schema: "vramtrace.timeline/1",
        complete: timeline.inexact.is_empty(),
        incomplete_because: &timeline.inexact,
        processes: list(&timeline.processes),
        devices: list(&timeline.devices),
        series: timeline
            .series
            .iter()
            .map(|series| SeriesJson {
                process: series.process,
                device: series.device,
                layer: series.layer.name(),
                live_bytes: series.live_bytes,
                peak_bytes: series.peak_bytes,
                peak_ns: series.start_ns.saturating_add(series.peak_at),
                exact_from_ns: exact_from_ns(series),
                start_ns: series.start_ns,
                span_ns: series.span_ns,
                points: starts(series)
                    .map(|(start_ns, span)| Point {
                        start_ns,
                        min: span.min,
                        max: span.max,
                        last: span.last,
                    })
                    .collect(),
            })
            .collect(),
        marks: timeline
            .marks
            .iter()
            .map(|mark| MarkJson {
                process: mark.process,
                time_ns: timeline.processes[mark.process]
                    .start_ns
                    .saturating_add(mark.at),
                domain: Some(mark.domain.as_str()).filter(|domain| !domain.is_empty()),
                text: &mark.text,
            })
            .collect(),
    })
}

fn exact_from_ns(series: &Series) -> Option<u64> {
    (series.exact_from != u64::MAX).then(|| series.start_ns.saturating_add(series.exact_from))
}

fn starts(series: &Series) -> impl Iterator<Item = (u64, &crate::analysis::timeline::Span)> + '_ {
    series.spans.iter().enumerate().map(|(index, span)| {
        let since = series.span_ns.saturating_mul(index as u64);
        (series.start_ns.saturating_add(since), span)
    })
}

/// A table with one line per span.
pub fn csv(timeline: &Timeline) -> String {
    let mut out =
        "pid,rank,device,uuid,layer,start_ns,end_ns,min_bytes,max_bytes,last_bytes\n".to_owned();
    for series in &timeline.series {
        let process = &timeline.processes[series.process];
        let device = series.device.map(|id| &timeline.devices[id]);
        let rank = process
            .rank
            .map(|rank| rank.to_string())
            .unwrap_or_default();
        let index = device
            .map(|device| device.index.to_string())
            .unwrap_or_default();
        let uuid = device
            .map(|device| quoted(&device.uuid))
            .unwrap_or_default();
        for (start, span) in starts(series) {
            let _ = writeln!(
                out,
                "{},{rank},{index},{uuid},{},{start},{},{},{},{}",
                process.pid,
                series.layer.name(),
                start.saturating_add(series.span_ns),
                span.min,
                span.max,
                span.last
            );
        }
    }
    out
}

/// A table with one line per mark.
pub fn marks_csv(timeline: &Timeline) -> String {
    let mut out = "pid,rank,time_ns,domain,text\n".to_owned();
    for mark in &timeline.marks {
        let process = &timeline.processes[mark.process];
        let rank = process.rank.map(|rank| rank.to_string());
        let _ = writeln!(
            out,
            "{},{},{},{},{}",
            process.pid,
            rank.unwrap_or_default(),
            process.start_ns.saturating_add(mark.at),
            quoted(&foreign(&mark.domain)),
            quoted(&foreign(&mark.text))
        );
    }
    out
}

/// Marks that are listed below a chart.
const MARKS: usize = 12;

/// The marks of a process: a line below its charts that shows where they are, and what they say.
fn marks(out: &mut String, timeline: &Timeline, process: usize, columns: usize, style: Style) {
    let of_it = || timeline.marks.iter().filter(|mark| mark.process == process);
    for mark in of_it().take(MARKS) {
        let domain = match mark.domain.as_str() {
            "" => String::new(),
            domain => format!("{}: ", short(domain)),
        };
        let _ = writeln!(
            out,
            "{:>width$} {} {domain}{}",
            duration(mark.at),
            style.dim("▲"),
            short(&mark.text),
            width = columns
        );
    }
    let more = of_it().count().saturating_sub(MARKS);
    if more > 0 {
        let line = format!("… {}; all with --json", counted(more as u64, "more mark"));
        let _ = writeln!(out, "{}", style.dim(&line));
    }
    if of_it().next().is_some() {
        out.push('\n');
    }
}

/// A CSV field whose content is somebody else's.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(['=', '+', '-', '@']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Charts.
pub fn text(timeline: &Timeline, style: Style) -> String {
    let mut out = String::new();
    for (index, series) in timeline.series.iter().enumerate() {
        let process = &timeline.processes[series.process];
        let place = match series.device.map(|id| &timeline.devices[id]) {
            Some(device) if device.name.is_empty() => format!("GPU {}", device.index),
            Some(device) => format!("GPU {} ({})", device.index, foreign(&device.name)),
            None => "Host memory".to_owned(),
        };
        let layer = match series.device {
            Some(_) => format!(", {} layer", series.layer.name()),
            None => String::new(),
        };
        let who = match timeline.processes.len() {
            1 => String::new(),
            _ => format!("pid {}: ", process.pid),
        };
        let _ = writeln!(
            out,
            "{who}{}: {} at the end, peak {} at {}",
            style.strong(&format!("{place}{layer}")),
            bytes(series.live_bytes),
            bytes(series.peak_bytes),
            duration(series.peak_at),
        );
        let values: Vec<u64> = series.spans.iter().map(|span| span.max).collect();
        let from = series.start_ns.saturating_sub(process.start_ns);
        let length = series.span_ns.saturating_mul(values.len() as u64);
        let to = from.saturating_add(length).min(process.duration_ns);
        let marked = timeline.marks.iter();
        let marked = marked.filter(|mark| mark.process == series.process);
        let marked: Vec<u64> = marked.map(|mark| mark.at).collect();
        out.push_str(&chart(&values, from, to, &marked));
        let blurred = match series.exact_from {
            0 => String::new(),
            u64::MAX => {
                "from the history only; spikes are kept, their times are rounded".to_owned()
            }
            from => format!(
                "before {} from the history; spikes are kept, their times are rounded",
                duration(from)
            ),
        };
        if !blurred.is_empty() {
            let _ = writeln!(out, "{}", style.dim(&blurred));
        }
        out.push('\n');
        let next = timeline.series.get(index + 1);
        if next.is_none_or(|next| next.process != series.process) {
            marks(&mut out, timeline, series.process, LABELS - 2, style);
        }
    }
    if timeline.series.is_empty() {
        out.push_str("No GPU memory was allocated.\n\n");
    }
    for reason in &timeline.inexact {
        let _ = writeln!(out, "{} {}", style.warn("not exact:"), foreign(reason));
    }
    let traces: Vec<String> = timeline
        .processes
        .iter()
        .map(|view| shell(&view.trace))
        .collect();
    let _ = writeln!(out, "Next: vramtrace leaks {}", traces.join(" "));
    out
}
