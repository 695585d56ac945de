//! Timelines: JSON (`vramtrace.timeline/1`), CSV, and charts for terminals.

use super::chart::{LABELS, chart};
use super::frames::ShownFrame;
use super::head::or_look;
use super::json::{DeviceJson, ProcessJson, document, list};
use super::style::Style;
use super::words::{bytes, counted, duration, foreign, shell, short};
use crate::analysis::timeline::{Resolution, Series, Timeline};
use serde::Serialize;
use stacks::StackJson;
use std::fmt::Write;

mod stacks;

pub use stacks::{Shown, text_by_stack};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: &'a [String],
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    series: Vec<SeriesJson<'a>>,
    /// By stack: how many others there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_stacks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a [String]>,
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
struct SeriesJson<'a> {
    process: usize,
    device: Option<usize>,
    layer: &'static str,
    live_bytes: u64,
    peak_bytes: u64,
    peak_ns: u64,
    /// Before, nothing is known of it; null: it is known from its beginning.
    known_from_ns: Option<u64>,
    exact_from_ns: Option<u64>,
    resolution: Vec<ResolutionJson>,
    #[serde(flatten)]
    stack: Option<StackJson<'a>>,
    start_ns: u64,
    span_ns: u64,
    points: Vec<Point>,
}

/// How finely a series is known from when on.
#[derive(Serialize)]
struct ResolutionJson {
    from_ns: u64,
    /// 0: every change is known.
    span_ns: u64,
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
    of_shown(&Shown::without_stacks(timeline))
}

/// The document, with stacks.
pub fn json_by_stack(shown: &Shown<'_>) -> String {
    of_shown(shown)
}

fn of_shown(shown: &Shown<'_>) -> String {
    let timeline = shown.timeline;
    document(&Document {
        schema: "vramtrace.timeline/1",
        complete: timeline.inexact.is_empty(),
        incomplete_because: &timeline.inexact,
        processes: list(&timeline.processes),
        devices: list(&timeline.devices),
        omitted_stacks: timeline.by_stack,
        warnings: timeline.by_stack.map(|_| &shown.symbols[..]),
        series: timeline
            .series
            .iter()
            .zip(&shown.stacks)
            .map(|(series, stack)| of_series(timeline, series, stack))
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

fn of_series<'a>(
    timeline: &Timeline,
    series: &'a Series,
    stack: &'a [ShownFrame],
) -> SeriesJson<'a> {
    let process = &timeline.processes[series.process];
    let unix = |time: u64| process.start_ns.saturating_add(time);
    let resolution = series.resolution.iter();
    SeriesJson {
        process: series.process,
        device: series.device,
        layer: series.layer.name(),
        live_bytes: series.live_bytes,
        peak_bytes: series.peak_bytes,
        peak_ns: unix(series.peak_at),
        known_from_ns: (series.known_from != 0).then(|| unix(series.known_from)),
        exact_from_ns: (series.exact_from != u64::MAX).then(|| unix(series.exact_from)),
        resolution: resolution
            .map(|part| ResolutionJson {
                from_ns: unix(part.from),
                span_ns: part.span_ns,
            })
            .collect(),
        stack: series
            .stack
            .as_ref()
            .map(|placed| StackJson::of(placed, stack)),
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
    }
}

fn starts(series: &Series) -> impl Iterator<Item = (u64, &crate::analysis::timeline::Span)> + '_ {
    series.spans.iter().enumerate().map(|(index, span)| {
        let since = series.span_ns.saturating_mul(index as u64);
        (series.start_ns.saturating_add(since), span)
    })
}

/// A table with one line per span.
pub fn csv(timeline: &Timeline) -> String {
    table(&Shown::without_stacks(timeline))
}

/// A table with one line per span of each stack; a stack is written as its frames, outermost first.
pub fn csv_by_stack(shown: &Shown<'_>) -> String {
    table(shown)
}

fn table(shown: &Shown<'_>) -> String {
    let timeline = shown.timeline;
    let more = match timeline.by_stack {
        Some(_) => ",kind,api,stack",
        None => "",
    };
    let mut out = format!(
        "pid,rank,device,uuid,layer,start_ns,end_ns,min_bytes,max_bytes,last_bytes{more}\n"
    );
    for (series, stack) in timeline.series.iter().zip(&shown.stacks) {
        let more = match &series.stack {
            Some(placed) => stacks::csv_fields(placed, stack),
            None => String::new(),
        };
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
                "{},{rank},{index},{uuid},{},{start},{},{},{},{}{more}",
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

/// The chart of a series, and how far it can be trusted.
fn curve(out: &mut String, timeline: &Timeline, series: &Series, style: Style) {
    let process = &timeline.processes[series.process];
    let values: Vec<u64> = series.spans.iter().map(|span| span.max).collect();
    let from = series.start_ns.saturating_sub(process.start_ns);
    let length = series.span_ns.saturating_mul(values.len() as u64);
    let to = from.saturating_add(length).min(process.duration_ns);
    let marked = timeline.marks.iter();
    let marked = marked.filter(|mark| mark.process == series.process);
    let marked: Vec<u64> = marked.map(|mark| mark.at).collect();
    out.push_str(&chart(&values, from, to, &marked));
    if series.known_from != 0 {
        let unknown = format!(
            "what it held before {} is not known",
            duration(series.known_from)
        );
        let _ = writeln!(out, "{}", style.dim(&unknown));
    }
    if series.exact_from > series.known_from {
        let blurred = match series.exact_from {
            u64::MAX => "from the history only".to_owned(),
            from => format!("before {} from the history", duration(from)),
        };
        let line = format!(
            "{blurred}; spikes are kept, their times are rounded{}",
            rounded(series)
        );
        let _ = writeln!(out, "{}", style.dim(&line));
    }
}

/// ` (to 1h 08m at first, to 8m 32s from 6d 01h on)`.
fn rounded(series: &Series) -> String {
    let parts: Vec<&Resolution> = series
        .resolution
        .iter()
        .filter(|part| part.span_ns != 0)
        .collect();
    let words: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let to = duration(part.span_ns);
            match index {
                0 if parts.len() == 1 => format!("to {to}"),
                0 => format!("to {to} at first"),
                _ => format!("to {to} from {} on", duration(part.from)),
            }
        })
        .collect();
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join(", ")),
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
        curve(&mut out, timeline, series, style);
        out.push('\n');
        let next = timeline.series.get(index + 1);
        if next.is_none_or(|next| next.process != series.process) {
            marks(&mut out, timeline, series.process, LABELS - 2, style);
        }
    }
    if timeline.series.is_empty() {
        out.push_str("No GPU memory was allocated.\n\n");
    }
    end(&mut out, timeline, style);
    out
}

/// What is not certain, and the next command.
fn end(out: &mut String, timeline: &Timeline, style: Style) {
    for reason in &timeline.inexact {
        let _ = writeln!(out, "{} {}", style.warn("not exact:"), foreign(reason));
    }
    let traces: Vec<String> = timeline
        .processes
        .iter()
        .map(|view| shell(&view.trace))
        .collect();
    let _ = writeln!(out, "Next: vramtrace leaks {}", traces.join(" "));
    let views = timeline.processes.iter();
    or_look(out, views.map(|view| view.trace.as_path()));
}
