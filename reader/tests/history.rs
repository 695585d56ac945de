//! History and event log, joined, are what a naive model says: of random programs whose rings wrap,
//! whose events are lost, whose stacks are more than have curves.

#![allow(missing_docs)]

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::*;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::growth::{Growths, Trend};
use vramtrace_reader::analysis::leaks::{Asked, Options};
use vramtrace_reader::analysis::timeline::{
    Part, Series, Span, Stacks, Timeline, timeline, timeline_by_stack,
};
use vramtrace_reader::model::{NoNames, Process, Unhidden};
use vramtrace_reader::trace::Trace;

const KINDS: [Kind; 3] = [Kind::Device, Kind::Async, Kind::Pinned];

/// How time passes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Busy,
    Sleepy,
    Even,
}

/// What was live when: of a stack, or of an account.
#[derive(Default)]
struct Course(Vec<(u64, u64)>);

impl Course {
    fn change(&mut self, time: u64, change: impl Fn(u64) -> u64) {
        let before = self.0.last().map_or(0, |last| last.1);
        self.0.push((time, change(before)));
    }

    /// Of the time from `from` on until before `to`.
    fn span(&self, from: u64, to: u64) -> Span {
        let first = self.0.partition_point(|&(time, _)| time < from);
        let end = self.0.partition_point(|&(time, _)| time < to);
        let at_start = self.0[..first].last().map_or(0, |last| last.1);
        let mut span = Span {
            min: at_start,
            max: at_start,
            last: at_start,
        };
        for &(_, live) in &self.0[first..end] {
            span.min = span.min.min(live);
            span.max = span.max.max(live);
            span.last = live;
        }
        span
    }
}

/// A trace, and the courses of its stacks (by the frame that tells them apart) and of its accounts
/// (by their kind's layer).
struct Told {
    file: TraceFile,
    stacks: BTreeMap<u64, Course>,
    accounts: BTreeMap<&'static str, Course>,
}

fn program(seed: u64, events: usize, losses: u64, pace: Pace) -> Told {
    let mut random = seed | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut file = TraceFile::new(1 << 20);
    // Four of them have curves at a time.
    let stacks = 3 + seed % 10;
    let ids: Vec<u32> = (0..stacks)
        .map(|n| file.program_stack(0x500 + 16 * n))
        .collect();
    let mut told = Told {
        file,
        stacks: BTreeMap::new(),
        accounts: BTreeMap::new(),
    };
    let mut live: Vec<(u64, Record)> = Vec::new();
    let mut freed: Option<(u64, Record)> = None;
    let mut time = SECOND / 2;
    let mut key = 0x7f00_0000_0000;
    for _ in 0..events {
        let choice = next(100);
        // That a free failed is known at once.
        if !(48..51).contains(&choice) || freed.is_none() {
            time += match (pace, next(1000)) {
                (Pace::Busy, 0) => next(100) * SECOND,
                // A process that sleeps for up to a day.
                (Pace::Sleepy, 0) => next(86_400) * SECOND,
                (Pace::Even, _) => next(30 * SECOND),
                (_, 1..100) => next(20 * SECOND),
                (Pace::Busy, _) => next(SECOND / 20),
                _ => next(SECOND),
            };
        }
        told.file.time = time;
        let (number, event) = if choice < 48 || live.is_empty() {
            // Some stacks are busy, some rare.
            let number = next(stacks).min(next(stacks));
            key += 0x1000;
            let kind = KINDS[number as usize % 3];
            let size = 1 + next(1 << (10 + number % 12));
            (number, allocation(kind, key, size, ids[number as usize]))
        } else if choice < 51 && freed.is_some() {
            let (number, entry) = freed.take().unwrap();
            (
                number,
                Record {
                    op: Op::Restore as u8,
                    ..entry
                },
            )
        } else {
            let (number, entry) = live.swap_remove(next(live.len() as u64) as usize);
            let op = [Op::Free, Op::EndByContext, Op::FreeUnseen][(next(20) as usize).min(2)];
            (number, ending(&entry, op))
        };
        let op = event.op().unwrap();
        if next(1000) < losses {
            // Never recorded. What is not known to be live is not freed either.
            let lane = event.kind().unwrap().lane();
            told.file.control().events_lost[lane] += 1;
            continue;
        }
        let layer = event.kind().unwrap().layer().name();
        let stack = told.stacks.entry(0x500 + 16 * number).or_default();
        let account = told.accounts.entry(layer).or_default();
        let (size, grows) = (event.size, op.begins_allocation());
        for course in [stack, account] {
            course.change(
                time,
                |before| if grows { before + size } else { before - size },
            );
        }
        let written = told.file.event(event);
        freed = None;
        if grows {
            live.push((number, written));
        } else if op == Op::Free {
            let allocated = Record {
                op: Op::Alloc as u8,
                seq: event.ended_seq(),
                api: event.allocating_api(),
                aux: 0,
                ..event
            };
            freed = Some((number, allocated));
        }
    }
    told.file.control().last_time = time;
    told.file.exit();
    told
}

impl Told {
    fn read(&mut self) -> Process {
        let dir = tempfile::tempdir().unwrap();
        Process::read(Trace::open(&self.file.write(dir.path(), "t.vrt")).unwrap())
    }

    fn course(&self, series: &Series) -> &Course {
        match &series.stack {
            None => &self.accounts[series.layer.name()],
            Some(placed) => match placed.group.stack.frames.first() {
                Some(Frame::Native { offset, .. }) => &self.stacks[offset],
                other => panic!("{other:?}"),
            },
        }
    }
}

fn both(process: &Process, part: Part, spans: usize) -> [Timeline; 2] {
    let processes = std::slice::from_ref(process);
    let stacks = Stacks {
        top: None,
        unhidden: Unhidden::default(),
        loops: &mut NoNames,
    };
    let filter = Filter::default();
    [
        timeline(processes, &[part], &filter, spans).unwrap(),
        timeline_by_stack(processes, &[part], &filter, spans, stacks).unwrap(),
    ]
}

/// From when on spans of a width say all that there is to know of a series: where its pieces are no
/// longer, and fit.
fn exact_from(series: &Series, width: u64) -> u64 {
    if !series.resolution.iter().any(|part| part.span_ns == width) {
        return series.exact_from;
    }
    let finer = series.resolution.iter().find(|part| part.span_ns <= width);
    finer.unwrap().from
}

/// Compares all series in spans of a width; returns how many spans, of stacks, before their event
/// logs, were compared.
fn compare(told: &Told, process: &Process, width: u64) -> usize {
    let duration = process.duration_ns();
    let spans = (duration / width + 1) as usize;
    let part = Part {
        from: 0,
        to: spans as u64 * width - 1,
    };
    let mut compared = 0;
    for timeline in both(process, part, spans) {
        for series in &timeline.series {
            assert_eq!(series.span_ns, width);
            let course = told.course(series);
            let first = (series.start_ns - START) / width;
            assert_eq!(first, series.known_from / width);
            assert_eq!(first as usize + series.spans.len(), spans);
            for (index, span) in series.spans.iter().enumerate() {
                let from = (first + index as u64) * width;
                // Of the first nothing may be known at its beginning.
                let truth = course.span(from.max(series.known_from), from + width);
                let what = || {
                    let (resolution, known) = (&series.resolution, series.known_from);
                    let held = (series.live_bytes, &series.stack);
                    format!("{width} from {from}, known from {known}, {resolution:?}, {held:?}")
                };
                if from.max(series.known_from) >= exact_from(series, width) {
                    assert_eq!(*span, truth, "{}", what());
                    let by_curve = series.stack.is_some() && from < series.exact_from.min(duration);
                    compared += usize::from(by_curve);
                } else {
                    assert!(span.min <= truth.min && span.max >= truth.max, "{}", what());
                }
            }
        }
    }
    compared
}

/// All lengths of pieces that series are known in.
fn lengths(process: &Process) -> BTreeSet<u64> {
    let all = both(process, Part::all(process), 1);
    let series = all.iter().flat_map(|timeline| &timeline.series);
    let lengths = series.flat_map(|series| series.resolution.iter().map(|part| part.span_ns));
    lengths.filter(|&length| length != 0).collect()
}

fn check(mut told: Told) -> usize {
    let process = told.read();
    // No more than some thousand spans.
    let least = process.duration_ns() / 5_000;
    let lengths = lengths(&process).into_iter();
    let compared = lengths
        .filter(|&width| width > least)
        .map(|width| compare(&told, &process, width));
    let compared = compared.sum();
    // In others nothing is left out.
    compare(&told, &process, process.duration_ns() / 97 + 1);
    compared
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("VRAMTRACE_TEST_FULL").is_some() { 200 } else { 12 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program(seed: u64, events in 10usize..8_000, losses in 0u64..30, pace in prop::sample::select(&[Pace::Busy, Pace::Sleepy, Pace::Even][..])) {
        check(program(seed, events, losses, pace));
    }
}

/// That the comparison above is one: weeks of which the event log keeps a few hours.
#[test]
fn weeks_that_wrap() {
    let compared: usize = (1..=6)
        .map(|seed| check(program(seed, 40_000, 10, Pace::Even)))
        .sum();
    assert!(compared > 300, "{compared}");
}

const HOUR: u64 = 3600 * SECOND;

/// A week in 16 MiB: 1 MiB leaks each hour, in a stack that is one of 80; 100 GiB an hour come and go
/// in pieces of 64 MiB, and half of the stacks hold more than the leak ever will.
fn week() -> Told {
    const LEAK: u64 = 70;
    const CHURN: u64 = 71;
    let mut random = 0x5eed;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut file = TraceFile::new(16 << 20);
    let ids: Vec<u32> = (0..80)
        .map(|n| file.program_stack(0x500 + 16 * n))
        .collect();
    // Time, an order among equals, stack, bytes; until when.
    let mut lives: Vec<(u64, u64, u64, u64)> = Vec::new();
    for stack in 0..80 {
        match stack {
            LEAK => {
                let hourly = (0..168).map(|hour| hour * HOUR + 600 * SECOND + next(3000) * SECOND);
                lives.extend(hourly.map(|at| (at, u64::MAX, stack, MIB)));
            }
            CHURN => {
                for n in 0..168 * 1600 {
                    let at = n * HOUR / 1600 + next(SECOND);
                    lives.push((at, at + SECOND + next(20 * SECOND), stack, 64 * MIB));
                }
            }
            // Weights and caches, filled within the first hour.
            0..40 => {
                let bytes = (2 + stack) * 64 * MIB;
                lives.extend((0..4).map(|n| (SECOND + n * 900 * SECOND, u64::MAX, stack, bytes)));
            }
            // What sessions of some hours hold, and what is made anew each day.
            _ => {
                let length = 1 + stack % 24;
                for n in 0..168 / length {
                    let at = n * length * HOUR + next(60 * SECOND);
                    let until = at + length * HOUR - next(30 * SECOND);
                    lives.push((at, until, stack, (1 + next(30)) * 8 * MIB));
                }
            }
        }
    }
    let mut events: Vec<(u64, usize, bool)> = Vec::new();
    for (index, (from, to, ..)) in lives.iter().enumerate() {
        events.push((*from, index, false));
        if *to < 168 * HOUR {
            events.push((*to, index, true));
        }
    }
    events.sort_unstable();
    let (mut stacks, mut accounts) = (BTreeMap::new(), BTreeMap::new());
    let mut live: BTreeMap<usize, Record> = BTreeMap::new();
    let mut parts = file.parts();
    for (seq, (time, index, ends)) in events.into_iter().enumerate() {
        let (_, _, stack, bytes) = lives[index];
        let kind = [Kind::Async, Kind::Device][usize::from(stack < 40)];
        let event = match ends {
            false => {
                let key = 0x7f00_0000_0000 + 0x1000 * index as u64;
                allocation(kind, key, bytes, ids[stack as usize])
            }
            true => ending(&live.remove(&index).unwrap(), Op::Free),
        };
        let event = Record {
            seq: seq as u64 + 1,
            time,
            ..event
        };
        let stack: &mut Course = stacks.entry(0x500 + 16 * stack).or_default();
        let account: &mut Course = accounts.entry(kind.layer().name()).or_default();
        for course in [stack, account] {
            course.change(
                time,
                |before| if ends { before - bytes } else { before + bytes },
            );
        }
        if !ends {
            live.insert(index, event);
        }
        parts.record(&event);
    }
    parts.control.last_time = 168 * HOUR;
    parts.control.clean_exit = 1;
    Told {
        file,
        stacks,
        accounts,
    }
}

#[test]
fn a_week_of_churn_and_a_small_leak_in_16_mib() {
    let mut told = week();
    let process = told.read();
    let reach = process.trace.reach(1);
    assert!(reach.overwritten > 10 * reach.capacity, "{reach:?}");
    // Its course, at both ends and between.
    let leak = 0x500 + 16 * 70;
    let width = 4096 * SECOND;
    let compared = compare(&told, &process, width);
    assert!(compared > 300, "{compared}");
    let [accounts, by_stack] = both(&process, Part::all(&process), 168);
    for series in &accounts.series {
        assert_eq!(series.known_from, 0, "{:?}", series.layer);
    }
    let is_leak = |series: &&Series| {
        let frames = &series.stack.as_ref().unwrap().group.stack.frames;
        matches!(frames[0], Frame::Native { offset, .. } if offset == leak)
    };
    let series = by_stack.series.iter().find(is_leak).unwrap();
    println!(
        "known from {} s on: {:?}",
        series.known_from / SECOND,
        series.resolution
    );
    // Eighty stacks have sixteen curves; that this one gains is seen on the first day.
    assert!(series.known_from < 24 * HOUR, "{}", series.known_from);
    assert_eq!(series.spans.last().unwrap().last, 168 * MIB);
    let course = told.course(series);
    for (index, span) in series.spans.iter().enumerate() {
        let at = series.start_ns - START + index as u64 * series.span_ns;
        let truth = course.span(at.max(series.known_from), at + series.span_ns);
        // To an hour, in which one leaks.
        assert!(
            span.last.abs_diff(truth.last) <= 2 * MIB,
            "{index}: {span:?} {truth:?}"
        );
    }
    // Who it is, and how fast.
    let growths = Growths::of(
        &[process],
        &Options::default(),
        &[],
        &Asked::default(),
        None,
        &mut NoNames,
    );
    let first = &growths.growing[0].group;
    assert!(matches!(first.stack.frames[0], Frame::Native { offset, .. } if offset == leak));
    assert_eq!(growths.growing.len(), 1, "nothing else grows");
    let course = first.course.as_ref().unwrap();
    let daily = course.slope.median * 86_400.0 / MIB as f64;
    assert!((daily - 24.0).abs() < 0.5, "{daily} MiB a day");
    assert_eq!(course.trend, Trend::Rising);
}
