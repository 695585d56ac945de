//! Live bytes over time, per device and layer, or of stacks.
//!
//! As far as the rings reach every change is known; before that the history's cells, each at the
//! finest resolution that still holds its time. Both are put into equal spans of time, so that an
//! answer has the size that was asked for whatever the trace holds.

mod lines;
mod past;
mod stacks;

pub use past::Resolution;

pub(crate) use lines::{Grid, Line, lane_of};
pub(crate) use stacks::{curved, key_of, of_rows};

use super::Filter;
use super::leaks::Placed;
use super::view::{DeviceView, Devices, ProcessView};
use crate::model::{Loops, Process, Unhidden};
use lines::{Of, Wanted, draw};
use past::Past;
use std::io;
use vramtrace_format::account;
use vramtrace_format::history::History;
use vramtrace_format::record::{Layer, NO_DEVICE, Op, Record};

/// Live bytes during one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Fewest.
    pub min: u64,
    /// Most.
    pub max: u64,
    /// At its end.
    pub last: u64,
}

/// Live bytes of one layer of one device, or of host memory; or the part of it that a stack allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Id of its process.
    pub process: usize,
    /// Id of its device in the answer; `None` for host memory.
    pub device: Option<usize>,
    /// Layer.
    pub layer: Layer,
    /// Of a stack: which.
    pub stack: Option<Placed>,
    /// Most bytes that were ever live; of a stack, in the spans below.
    pub peak_bytes: u64,
    /// When that was, nanoseconds since the trace began; of a stack, where the span begins.
    pub peak_at: u64,
    /// Live at the end.
    pub live_bytes: u64,
    /// Nothing is known before, nanoseconds since the trace began.
    pub known_from: u64,
    /// From when on every event is known, nanoseconds since the trace began; before, spans may
    /// be blurred by the coarser history. `u64::MAX`: never.
    pub exact_from: u64,
    /// How fine the history is from when on, nanoseconds since the trace began, oldest first.
    pub resolution: Vec<Resolution>,
    /// Start of the first span of which anything is known, Unix nanoseconds.
    pub start_ns: u64,
    /// Length of a span, nanoseconds.
    pub span_ns: u64,
    /// Spans, oldest first.
    pub spans: Vec<Span>,
}

/// A point that a program marked in its own time: by NVTX or `vramtrace_mark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkView {
    /// Id of its process.
    pub process: usize,
    /// When, nanoseconds since the trace began.
    pub at: u64,
    /// Its NVTX domain; empty for the default one.
    pub domain: String,
    /// Its text.
    pub text: String,
}

/// The timelines of several processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Processes by id.
    pub processes: Vec<ProcessView>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
    /// Series that were ever used; of stacks, those that held most first.
    pub series: Vec<Series>,
    /// Whether they are of stacks, and then how many others there are.
    pub by_stack: Option<usize>,
    /// Whether all frames of stacks were asked for.
    pub all_frames: bool,
    /// Marks, as far as the event logs reach back: those of the first process in their order, then
    /// of the next.
    pub marks: Vec<MarkView>,
    /// Why parts may be wrong; empty if they are not.
    pub inexact: Vec<String>,
}

/// A part of a process's time, nanoseconds since its trace began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its start.
    pub from: u64,
    /// Its end, not before the start.
    pub to: u64,
}

impl Part {
    /// All of it.
    pub fn all(process: &Process) -> Part {
        Part {
            from: 0,
            to: process.duration_ns(),
        }
    }
}

/// The stacks that timelines are drawn up of.
pub struct Stacks<'l> {
    /// How many; those that hold, or held at some time, most.
    pub top: Option<usize>,
    /// Frames that are shown though they usually are not.
    pub unhidden: Unhidden,
    /// What knows the interpreter's loop.
    pub loops: &'l mut dyn Loops,
}

/// Draws up timelines of `spans` spans each. `parts` has one for each process, or none: then they
/// are of all the time.
pub fn timeline(
    processes: &[Process],
    parts: &[Part],
    filter: &Filter,
    spans: usize,
) -> io::Result<Timeline> {
    draw_up(processes, parts, filter, spans, None)
}

/// As [`timeline`], of stacks.
pub fn timeline_by_stack(
    processes: &[Process],
    parts: &[Part],
    filter: &Filter,
    spans: usize,
    stacks: Stacks<'_>,
) -> io::Result<Timeline> {
    draw_up(processes, parts, filter, spans, Some(stacks))
}

fn draw_up(
    processes: &[Process],
    parts: &[Part],
    filter: &Filter,
    spans: usize,
    mut stacks: Option<Stacks<'_>>,
) -> io::Result<Timeline> {
    let mut devices = Devices::default();
    let mut timeline = Timeline {
        processes: Vec::new(),
        devices: Vec::new(),
        series: Vec::new(),
        by_stack: stacks.as_ref().map(|_| 0),
        all_frames: stacks.as_ref().is_some_and(|stacks| stacks.unhidden.cuda),
        marks: Vec::new(),
        inexact: Vec::new(),
    };
    for (id, process) in processes.iter().enumerate() {
        devices.add_all(process, id);
        timeline.processes.push(ProcessView::of(process, id));
        for reason in &process.losses.live_inexact {
            timeline
                .inexact
                .push(format!("{}: {}", reason.code, reason.text));
        }
        let part = parts.get(id).copied().unwrap_or(Part::all(process));
        timeline.marks.extend(marks(process, id, part));
        let spans = spans.max(1);
        match &mut stacks {
            None => of_process(
                process,
                id,
                part,
                filter,
                spans,
                &mut devices,
                &mut timeline,
            )?,
            Some(stacks) => {
                let (found, omitted) =
                    stacks::of_process(process, id, part, filter, spans, stacks)?;
                timeline.series.extend(found.into_iter().map(|mut series| {
                    if let Some(placed) = &mut series.stack {
                        let device = placed.group.device;
                        placed.device = device.map(|index| devices.id_of(process, id, index));
                        series.device = placed.device;
                    }
                    series
                }));
                timeline.by_stack = timeline.by_stack.map(|sum| sum + omitted);
            }
        }
    }
    timeline.devices = devices.all;
    Ok(timeline)
}

fn marks(process: &Process, id: usize, part: Part) -> Vec<MarkView> {
    let is_mark = |event: &Record| {
        event.op() == Some(Op::Mark) && (part.from..=part.to).contains(&event.time)
    };
    let view = |event: Record| {
        let of = event.aux as u32;
        MarkView {
            process: id,
            at: event.time,
            domain: process.mark_domain(of).unwrap_or_default().to_owned(),
            text: match process.mark(of) {
                Some(text) => text.to_owned(),
                None => format!("mark {of}"),
            },
        }
    };
    process.events().filter(is_mark).map(view).collect()
}

/// The lines of all accounts that are asked about.
fn of_process(
    process: &Process,
    id: usize,
    part: Part,
    filter: &Filter,
    spans: usize,
    devices: &mut Devices,
    timeline: &mut Timeline,
) -> io::Result<()> {
    let mut cells = process.trace.history()?;
    let number = cells.len();
    let history = History::new(&mut cells);
    let has_room = process.trace.copy.control.series_used < history.capacity();
    let rows: Vec<usize> = process
        .accounts()
        .filter(|(device, layer, account)| {
            filter.takes_account(*device, *layer)
                && (account.alloc_count != 0 || account.peak_bytes != 0)
        })
        .map(|(device, layer, _)| account::index(device.unwrap_or(NO_DEVICE), layer))
        .collect();
    let account = |row: usize| &process.trace.copy.accounts[row];
    let wanted: Vec<Wanted> = rows
        .iter()
        .map(|&row| Wanted {
            of: Of::Account(row),
            live: account(row).live_bytes,
            lane: lane_of(row),
        })
        .collect();
    let grid = Grid::of(part, spans);
    let lines = draw(process, &wanted, grid, |of, _| match of {
        Of::Account(row) => vec![Past::of_account(&history, number, account(*row), has_room)],
        Of::Rows(_) => Vec::new(),
    });
    for (row, line) in rows.into_iter().zip(lines) {
        let (device, layer) = account::of_index(row);
        let account = account(row);
        timeline.series.push(Series {
            process: id,
            device: device.map(|index| devices.id_of(process, id, index)),
            layer,
            peak_bytes: account.peak_bytes,
            peak_at: account.peak_time,
            live_bytes: account.live_bytes,
            ..Series::of(line, grid, process.unix_ns(part.from))
        });
    }
    Ok(())
}

impl Series {
    /// What a line says; whose it is is left open.
    fn of(line: Line, grid: Grid, start_ns: u64) -> Series {
        let unknown = grid.width.saturating_mul(line.unknown as u64);
        let spans = line.spans.iter().enumerate();
        // The first of equals.
        let most = spans.max_by_key(|(index, span)| (span.max, std::cmp::Reverse(*index)));
        let (at, peak_bytes) = most.map_or((0, 0), |(index, span)| (index as u64, span.max));
        let since = grid.width.saturating_mul(at).saturating_add(unknown);
        Series {
            process: 0,
            device: None,
            layer: Layer::Host,
            stack: None,
            peak_bytes,
            peak_at: grid.start.saturating_add(since),
            live_bytes: 0,
            known_from: line.known_from,
            exact_from: line.exact_from,
            resolution: line.resolution,
            start_ns: start_ns.saturating_add(unknown),
            span_ns: grid.width,
            spans: line.spans,
        }
    }
}

/// Which account an event changes, and by how many bytes (wrapping).
pub(crate) fn change(event: &Record) -> Option<(usize, u64)> {
    let (op, kind) = (event.op()?, event.kind()?);
    if !kind.counted() {
        return None;
    }
    let change = match op {
        _ if op.begins_allocation() => event.size,
        _ if op.ends_allocation() => 0u64.wrapping_sub(event.size),
        Op::Resize => event.size.wrapping_sub(event.aux),
        _ => return None,
    };
    Some((account::index(event.device, kind.layer()), change))
}
