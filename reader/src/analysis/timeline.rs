//! Live bytes over time, per device and layer.
//!
//! As far as the rings reach every change is known; before that the history's cells, each at the
//! finest resolution that still holds its time. Both are put into equal spans of time, so that an
//! answer has the size that was asked for whatever the trace holds.

use super::Filter;
use super::view::{DeviceView, Devices, ProcessView};
use crate::model::Process;
use std::io;
use vramtrace_format::account::{self, ACCOUNT_ROWS, Account};
use vramtrace_format::history::{Cell, History, LEVELS, cells_per_level, span_ns};
use vramtrace_format::record::{Layer, Op, Record};

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

/// Live bytes of one layer of one device, or of host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Id of its process.
    pub process: usize,
    /// Id of its device in the answer; `None` for host memory.
    pub device: Option<usize>,
    /// Layer.
    pub layer: Layer,
    /// Most bytes that were ever live.
    pub peak_bytes: u64,
    /// When that was, nanoseconds since the trace began.
    pub peak_at: u64,
    /// Live at the end.
    pub live_bytes: u64,
    /// From when on every event is known, nanoseconds since the trace began; before, spans may
    /// be blurred by the coarser history.
    pub exact_from: u64,
    /// Start of the first span, Unix nanoseconds.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Processes by id.
    pub processes: Vec<ProcessView>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
    /// Series that were ever used.
    pub series: Vec<Series>,
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

/// Draws up timelines of `spans` spans each. `parts` has one for each process, or none: then they
/// are of all the time.
pub fn timeline(
    processes: &[Process],
    parts: &[Part],
    filter: &Filter,
    spans: usize,
) -> io::Result<Timeline> {
    let mut devices = Devices::default();
    let mut timeline = Timeline {
        processes: Vec::new(),
        devices: Vec::new(),
        series: Vec::new(),
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
        of_process(
            process,
            id,
            part,
            filter,
            spans.max(1),
            &mut devices,
            &mut timeline,
        )?;
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

/// One account's spans while they are filled.
struct Filling {
    row: usize,
    exact_from: u64,
    /// Live bytes before the ring's first event.
    base: u64,
    now: u64,
    /// Where the first span begins.
    start: u64,
    /// The last time before that of which the live bytes are known, and these.
    before: (u64, u64),
    spans: Vec<Option<Span>>,
}

fn of_process(
    process: &Process,
    id: usize,
    part: Part,
    filter: &Filter,
    spans: usize,
    devices: &mut Devices,
    timeline: &mut Timeline,
) -> io::Result<()> {
    let length = part.to.saturating_sub(part.from);
    let width = (length / spans as u64).saturating_add(1);
    let reach = Reach::of(process);
    let mut cells = process.trace.history()?;
    let per_level = cells_per_level(cells.len());
    let history = History::new(&mut cells);
    let mut fillings: Vec<Filling> = Vec::new();
    for (device, layer, account) in process.accounts() {
        if !filter.takes_account(device, layer)
            || account.alloc_count == 0 && account.peak_bytes == 0
        {
            continue;
        }
        let row = account::index(device.unwrap_or(vramtrace_format::record::NO_DEVICE), layer);
        let lane = usize::from(layer == Layer::Framework);
        let base = account.live_bytes.wrapping_sub(reach.change[row]);
        let mut filling = Filling {
            row,
            exact_from: reach.from[lane],
            // What does not add up is a sign of damage, which is said elsewhere.
            base: if base > u64::MAX / 2 { 0 } else { base },
            now: 0,
            start: part.from,
            before: (0, 0),
            spans: vec![None; spans],
        };
        filling.fill_from_history(&history, account, per_level, width);
        filling.now = filling.base;
        filling.put(filling.exact_from, width);
        fillings.push(filling);
    }
    let mut time = 0;
    for event in process.events() {
        let Some((row, change)) = change(&event) else {
            continue;
        };
        time = event.time.max(time);
        if let Some(filling) = fillings.iter_mut().find(|filling| filling.row == row) {
            filling.put(time, width);
            filling.now = filling.now.wrapping_add(change);
            filling.put(time, width);
        }
    }
    for filling in fillings {
        let (device, layer) = account::of_index(filling.row);
        let account = &process.trace.copy.accounts[filling.row];
        timeline.series.push(Series {
            process: id,
            device: device.map(|index| devices.id_of(process, id, index)),
            layer,
            peak_bytes: account.peak_bytes,
            peak_at: account.peak_time,
            live_bytes: account.live_bytes,
            exact_from: filling.exact_from,
            start_ns: process.unix_ns(part.from),
            span_ns: width,
            spans: filling.finish(),
        });
    }
    Ok(())
}

/// How far back the rings know every change, and what they sum up to.
pub(crate) struct Reach {
    /// By lane, event time.
    from: [u64; 2],
    /// By account row, wrapping.
    pub change: [u64; ACCOUNT_ROWS],
}

impl Reach {
    pub fn of(process: &Process) -> Reach {
        let mut change_of = [0u64; ACCOUNT_ROWS];
        let mut first: [Option<u64>; 2] = [None; 2];
        for event in process.events() {
            let lane = event.kind().map_or(0, |kind| kind.lane());
            if event.op != Op::Restore as u8 {
                first[lane].get_or_insert(event.time);
            }
            if let Some((row, change)) = change(&event) {
                change_of[row] = change_of[row].wrapping_add(change);
            }
        }
        let from = |lane: usize| match (process.losses.rings[lane].overwritten, first[lane]) {
            (0, _) => 0,
            (_, Some(time)) => time,
            (_, None) => u64::MAX,
        };
        Reach {
            from: [from(0), from(1)],
            change: change_of,
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

impl Filling {
    /// Notes the present value at a time.
    fn put(&mut self, time: u64, width: u64) {
        let now = self.now;
        let Some(since) = time.checked_sub(self.start) else {
            self.before = (time, now);
            return;
        };
        let Some(span) = self.spans.get_mut((since / width) as usize) else {
            return;
        };
        let span = span.get_or_insert(Span {
            min: now,
            max: now,
            last: now,
        });
        span.min = span.min.min(now);
        span.max = span.max.max(now);
        span.last = now;
    }

    /// Fills in what the history knows from before the ring.
    fn fill_from_history(
        &mut self,
        history: &History<'_>,
        account: &Account,
        per_level: usize,
        width: u64,
    ) {
        let mut until = self.exact_from;
        for level in 0..LEVELS {
            let length = span_ns(level);
            let mut cells: Vec<Cell> = match account.series.checked_sub(1) {
                Some(series) => history.level(series.into(), level).copied().collect(),
                None => Vec::new(),
            };
            if level == 0 {
                cells.extend(account.this_second());
            }
            cells.sort_unstable_by_key(|cell| cell.span);
            let Some(newest) = cells.last().map(|cell| cell.span) else {
                continue;
            };
            // Older cells may be left over from further back, with gaps between.
            let kept = newest.saturating_sub(per_level as u64);
            let from = kept.saturating_mul(length);
            for cell in cells.iter().filter(|cell| cell.span > kept) {
                let start = (cell.span - 1).saturating_mul(length).max(from);
                let end = cell.span.saturating_mul(length).min(until);
                if start < end {
                    self.blur(cell, start, end, width);
                }
            }
            until = until.min(from);
            if until == 0 {
                break;
            }
        }
    }

    fn blur(&mut self, cell: &Cell, start: u64, end: u64, width: u64) {
        if end <= self.start {
            self.before = self.before.max((end, cell.last));
            return;
        }
        let (start, end) = (start.saturating_sub(self.start), end - self.start);
        let spans = self.spans.len();
        let first = ((start / width) as usize).min(spans);
        let last = (((end - 1) / width) as usize + 1).min(spans);
        for span in &mut self.spans[first..last] {
            let span = span.get_or_insert(Span {
                min: cell.min,
                max: cell.max,
                last: cell.last,
            });
            span.min = span.min.min(cell.min);
            span.max = span.max.max(cell.max);
            span.last = cell.last;
        }
    }

    /// Carries values over spans in which nothing changed.
    fn finish(self) -> Vec<Span> {
        let (_, mut carried) = self.before;
        let carry = |span: Option<Span>| {
            let span = span.map_or(
                Span {
                    min: carried,
                    max: carried,
                    last: carried,
                },
                |span| Span {
                    min: span.min.min(carried),
                    max: span.max.max(carried),
                    last: span.last,
                },
            );
            carried = span.last;
            span
        };
        self.spans.into_iter().map(carry).collect()
    }
}
