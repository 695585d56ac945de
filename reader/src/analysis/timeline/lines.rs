//! Joins history and event logs: the course of live bytes of accounts and of stacks, in equal spans of
//! time.
//!
//! The event log gives every change since it begins; what was live before its first event follows from
//! what is live at the end. Before that, history's pieces. Both know the same numbers, so that they
//! meet without a step.

use super::past::{Past, merged};
use super::{Part, Resolution, Span, change};
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::account;
use vramtrace_format::record::Op;
use vramtrace_format::stacks::OTHER_STACKS;
use vramtrace_format::totals::{End, TotalsKey};

/// What a line is to be drawn of.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    /// An account, by its row.
    Account(usize),
    /// Rows of the totals, all of one account, that belong together.
    Rows(Vec<TotalsKey>),
}

/// A line to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Of what.
    pub of: Of,
    /// Live bytes at the end.
    pub live: u64,
    /// Which event log tells of it.
    pub lane: usize,
}

/// The course of live bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Nothing is known before this event time.
    pub known_from: u64,
    /// From this event time on every change is known; `u64::MAX` never.
    pub exact_from: u64,
    /// How finely it is known from when on.
    pub resolution: Vec<Resolution>,
    /// Spans of which nothing is known, the first so many.
    pub unknown: usize,
    /// All others, oldest first.
    pub spans: Vec<Span>,
}

/// Live bytes less those before the event log, while that is read.
struct Log {
    lane: usize,
    exact_from: Option<u64>,
    now: i64,
    /// Before the first span.
    before: i64,
    spans: Vec<Option<(i64, i64, i64)>>,
}

/// The spans that lines are drawn in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Where the first begins, event time.
    pub start: u64,
    /// Length of each, nanoseconds.
    pub width: u64,
    /// How many.
    pub spans: usize,
}

impl Grid {
    /// Equal spans of a part of a process's time.
    pub fn of(part: Part, spans: usize) -> Grid {
        let length = part.to.saturating_sub(part.from);
        Grid {
            start: part.from,
            width: (length / spans.max(1) as u64).saturating_add(1),
            spans,
        }
    }

    /// The span that a time lies in; `None` before the first. May be beyond the last.
    fn span_at(&self, time: u64) -> Option<usize> {
        time.checked_sub(self.start)
            .map(|since| usize::try_from(since / self.width).unwrap_or(usize::MAX))
    }
}

/// Draws lines; `past` says what is known of a line's parts before its event log begins, which is told.
pub(crate) fn draw(
    process: &Process,
    wanted: &[Wanted],
    grid: Grid,
    past: impl Fn(&Of, u64) -> Vec<Past>,
) -> Vec<Line> {
    let logs = read(process, wanted, grid);
    let draw = |(wanted, log): (&Wanted, Log)| {
        let exact_from = log.exact_from.unwrap_or(u64::MAX);
        let pasts = match exact_from {
            0 => Vec::new(),
            _ => past(&wanted.of, exact_from),
        };
        line(wanted, &log, grid, &pasts)
    };
    wanted.iter().zip(logs).map(draw).collect()
}

/// Reads the event log once for all of them.
fn read(process: &Process, wanted: &[Wanted], grid: Grid) -> Vec<Log> {
    let whole = |lane: usize| process.losses.rings[lane].overwritten == 0;
    let fresh = |wanted: &Wanted| Log {
        lane: wanted.lane,
        exact_from: None,
        now: 0,
        before: 0,
        spans: vec![None; grid.spans],
    };
    let mut logs: Vec<Log> = wanted.iter().map(fresh).collect();
    for log in &mut logs {
        if whole(log.lane) {
            log.begin(0, grid);
        }
    }
    let mut accounts = [None; account::ACCOUNT_ROWS];
    let mut rows: FxHashMap<TotalsKey, usize> = FxHashMap::default();
    for (index, wanted) in wanted.iter().enumerate() {
        match &wanted.of {
            Of::Account(row) => accounts[*row] = Some(index),
            Of::Rows(keys) => rows.extend(keys.iter().map(|key| (*key, index))),
        }
    }
    // What found no row of its own counts in that of other stacks.
    let sums_up = rows.keys().any(|key| key.stack == OTHER_STACKS);
    let own: FxHashSet<TotalsKey> = match sums_up {
        true => process.totals().iter().map(|row| row.key).collect(),
        false => FxHashSet::default(),
    };
    let mut events = process.events();
    let mut missing = (events.overtaken(), events.damaged());
    let mut time = 0;
    while let Some(event) = events.next() {
        let now_missing = (events.overtaken(), events.damaged());
        if now_missing != missing {
            // Changes are missing: what is known begins anew.
            missing = now_missing;
            for (log, wanted) in logs.iter_mut().zip(wanted) {
                *log = fresh(wanted);
            }
        }
        let lane = event.lane();
        time = event.time.max(time);
        if event.op != Op::Restore as u8 {
            for log in logs.iter_mut().filter(|log| log.lane == lane) {
                if log.exact_from.is_none() {
                    log.begin(time, grid);
                }
            }
        }
        let Some((row, change)) = change(&event) else {
            continue;
        };
        if let Some(index) = accounts[row] {
            logs[index].change(time, change as i64, grid);
        }
        if !rows.is_empty()
            && let Some(op) = event.op()
        {
            let mut key = TotalsKey::of(op, &event, End::Live);
            if sums_up && !own.contains(&key) {
                key = key.coarsened();
            }
            if let Some(&index) = rows.get(&key) {
                logs[index].change(time, change as i64, grid);
            }
        }
    }
    logs
}

impl Log {
    fn begin(&mut self, time: u64, grid: Grid) {
        self.exact_from = Some(time);
        self.put(time, grid);
    }

    fn change(&mut self, time: u64, change: i64, grid: Grid) {
        // An event that came back from before the log began changes nothing that is known of it.
        if self.exact_from.is_none() {
            return;
        }
        self.put(time, grid);
        self.now = self.now.wrapping_add(change);
        self.put(time, grid);
    }

    fn put(&mut self, time: u64, grid: Grid) {
        let now = self.now;
        let Some(at) = grid.span_at(time) else {
            self.before = now;
            return;
        };
        if let Some(span) = self.spans.get_mut(at) {
            let (min, max, _) = span.unwrap_or((now, now, now));
            *span = Some((min.min(now), max.max(now), now));
        }
    }
}

fn line(wanted: &Wanted, log: &Log, grid: Grid, pasts: &[Past]) -> Line {
    let exact_from = log.exact_from.unwrap_or(u64::MAX);
    let known_from = pasts.iter().map(|past| past.known_from).max().unwrap_or(0);
    let known_from = known_from.min(exact_from);
    // What is known of some of the parts says nothing of their sum.
    let pasts = if known_from < exact_from { pasts } else { &[] };
    let unknown = grid.span_at(known_from).unwrap_or(0).min(grid.spans);
    let mut resolutions = Vec::new();
    // What history says, of the spans that begin before the event log.
    let mut sums: Vec<Span> = Vec::new();
    for past in pasts {
        let spans = of_past(past, grid, unknown, exact_from);
        resolutions.push(&past.resolution[..]);
        if sums.is_empty() {
            sums = spans;
        } else {
            // Fewest and most of several are bounds of those of their sum.
            for (sum, span) in sums.iter_mut().zip(spans) {
                sum.min = sum.min.saturating_add(span.min);
                sum.max = sum.max.saturating_add(span.max);
                sum.last = sum.last.saturating_add(span.last);
            }
        }
    }
    let base = wanted.live.wrapping_sub(log.now as u64);
    let at = |relative: i64| {
        let value = base.wrapping_add(relative as u64);
        // What does not add up is a sign of damage, which is said elsewhere.
        if value > u64::MAX / 2 { 0 } else { value }
    };
    let mut carried = at(log.before);
    let known = (unknown..grid.spans).map(|index| {
        let history = sums.get(index - unknown).copied();
        let logged = log.spans.get(index).copied().flatten();
        let logged = logged.map(|(min, max, last)| Span {
            min: at(min),
            max: at(max),
            last: at(last),
        });
        let starts = grid
            .start
            .saturating_add(grid.width.saturating_mul(index as u64));
        let span = match (history, logged) {
            (Some(history), Some(logged)) => Span {
                min: history.min.min(logged.min),
                max: history.max.max(logged.max),
                last: logged.last,
            },
            (Some(history), None) => history,
            (None, Some(logged)) if starts <= exact_from => logged,
            (None, Some(logged)) => Span {
                min: logged.min.min(carried),
                max: logged.max.max(carried),
                last: logged.last,
            },
            (None, None) => Span {
                min: carried,
                max: carried,
                last: carried,
            },
        };
        carried = span.last;
        span
    });
    Line {
        known_from,
        exact_from,
        unknown,
        spans: known.collect(),
        resolution: merged(&resolutions, known_from, exact_from),
    }
}

/// The spans from number `unknown` on that begin before the event log, as one past knows them.
fn of_past(past: &Past, grid: Grid, unknown: usize, exact_from: u64) -> Vec<Span> {
    let end = match exact_from.saturating_sub(grid.start) {
        0 => 0,
        since => usize::try_from(since.div_ceil(grid.width)).unwrap_or(usize::MAX),
    };
    let number = end.min(grid.spans).saturating_sub(unknown);
    let mut spans: Vec<Option<Span>> = vec![None; number];
    let mut carried = past.first;
    for piece in &past.pieces {
        let to = piece.to.min(exact_from);
        if piece.from >= to {
            continue;
        }
        let Some(last) = grid.span_at(to - 1).filter(|&last| last >= unknown) else {
            carried = Some(piece.last);
            continue;
        };
        let first = grid.span_at(piece.from).unwrap_or(0).max(unknown) - unknown;
        let end = (last - unknown).saturating_add(1).min(number);
        for span in spans.get_mut(first..end).unwrap_or_default() {
            let sum = span.unwrap_or(Span {
                min: piece.min,
                max: piece.max,
                last: piece.last,
            });
            *span = Some(Span {
                min: sum.min.min(piece.min),
                max: sum.max.max(piece.max),
                last: piece.last,
            });
        }
    }
    let carry = |span: Option<Span>| {
        let span = match (span, carried) {
            (Some(span), None) => span,
            (Some(span), Some(carried)) => Span {
                min: span.min.min(carried),
                max: span.max.max(carried),
                last: span.last,
            },
            (None, carried) => {
                let still = carried.unwrap_or(0);
                Span {
                    min: still,
                    max: still,
                    last: still,
                }
            }
        };
        carried = Some(span.last);
        span
    };
    spans.into_iter().map(carry).collect()
}

/// The event log that tells of an account.
pub(crate) fn lane_of(row: usize) -> usize {
    usize::from(account::of_index(row).1 == vramtrace_format::record::Layer::Framework)
}
