//! A week through the recorder's own ledger, in a file of 16 MiB and in seconds: the clock is told what time it
//! is. What leaks 1 MiB an hour, under 100 GiB an hour that come and go, is found, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use vramtrace_format::record::{Kind, Op, Record, Space};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::growth::{Growths, Trend};
use vramtrace_reader::analysis::leaks::{Asked, Options};
use vramtrace_reader::model::{NoNames, Process};
use vramtrace_reader::trace::Trace;
use vramtrace_recorder::clock::Clock;
use vramtrace_recorder::file;
use vramtrace_recorder::ledger::{By, Ledger};
use vramtrace_recorder::settings::{Log, OnOom, Sample, Settings, Stacks};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const WEEK: u64 = 168 * HOUR;
/// Stacks: what leaks, what churns; those before hold on to what they take, those after come and go.
const STACKS: u64 = 80;
const LEAK: u64 = 40;
const CHURN: u64 = 41;

/// What the ledger's clock goes by.
static TIME: AtomicU64 = AtomicU64::new(0);

/// One allocation.
struct Life {
    from: u64,
    to: u64,
    stack: u64,
    bytes: u64,
}

fn random() -> impl FnMut(u64) -> u64 {
    let mut state: u64 = 0x5eed;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

fn lives() -> Vec<Life> {
    let mut next = random();
    let mut lives = Vec::new();
    let mut add = |from, to, stack, bytes| {
        lives.push(Life {
            from,
            to,
            stack,
            bytes,
        });
    };
    for hour in 0..168 {
        add(
            hour * HOUR + 600 * SECOND + next(3000) * SECOND,
            u64::MAX,
            LEAK,
            MIB,
        );
    }
    // 1,600 times 64 MiB an hour.
    for n in 0..168 * 1600 {
        let from = n * HOUR / 1600 + next(SECOND);
        add(from, from + SECOND + next(20 * SECOND), CHURN, 64 * MIB);
    }
    for stack in (0..STACKS).filter(|&stack| stack != LEAK && stack != CHURN) {
        if stack < LEAK {
            // Weights and caches, filled within the first hour.
            for n in 0..4 {
                add(
                    SECOND + n * 900 * SECOND,
                    u64::MAX,
                    stack,
                    (2 + stack) * 64 * MIB,
                );
            }
            continue;
        }
        // Sessions of some hours, and what is made anew each day.
        let length = 1 + stack % 24;
        for n in 0..168 / length {
            let from = n * length * HOUR + next(60 * SECOND);
            let to = from + length * HOUR - next(30 * SECOND);
            add(from, to, stack, (1 + next(30)) * 8 * MIB);
        }
    }
    lives
}

fn kind(stack: u64) -> Kind {
    [Kind::Async, Kind::Device][usize::from(stack < LEAK)]
}

fn settings(directory: &std::path::Path) -> Settings {
    let output = directory.join("week.vrt").into_os_string();
    Settings {
        output: Some(output.into_encoded_bytes()),
        run_dir: None,
        size: 16 << 20,
        size_raised: false,
        keep: 0,
        stacks: Stacks::Off,
        sample: Sample::All,
        budget: None,
        log: Log::Quiet,
        on_oom: OnOom::Record,
        shown: Vec::new(),
    }
}

#[test]
fn a_leak_of_a_mebibyte_an_hour_is_the_only_one_that_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = file::create(&settings(directory.path())).expect("a trace");
    let mut ledger = Ledger::new(file.into_sections(), Clock::told(0, &TIME));
    let stacks: Vec<u32> = (0..STACKS)
        .map(|stack| {
            let frames = [Frame::Raw(0x1000 + stack), Frame::Raw(0x9000)];
            ledger.intern(&frames.map(|frame| frame.encode()), 0)
        })
        .collect();
    let lives = lives();
    let mut events: BTreeMap<(u64, usize, bool), ()> = BTreeMap::new();
    for (index, life) in lives.iter().enumerate() {
        events.insert((life.from, index, false), ());
        if life.to < WEEK {
            events.insert((life.to, index, true), ());
        }
    }
    let key = |index: usize| 0x7f00_0000_0000 + 0x1000 * index as u64;
    for (time, index, ends) in events.into_keys() {
        TIME.store(time, Ordering::Relaxed);
        let life = &lives[index];
        let kind = kind(life.stack);
        let mut entry = Record {
            key: key(index),
            size: life.bytes,
            stack: stacks[life.stack as usize],
            thread: 1,
            context: 1,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: kind as u8,
            ..Record::default()
        };
        if ends {
            let by = By {
                how: Op::Free,
                api: 0,
                thread: 1,
                stream: 0,
            };
            let found = ledger.freed(kind.lane(), Space::Device, key(index), by, &mut entry);
            assert!(found, "{index}");
        } else {
            assert_eq!(ledger.allocated(&mut entry), time);
        }
    }
    TIME.store(WEEK, Ordering::Relaxed);
    ledger.event(Record {
        op: Op::Mark as u8,
        ..Record::default()
    });

    let trace = Trace::open(&directory.path().join("week.vrt")).expect("a trace");
    let reach = trace.reach(1);
    assert!(reach.overwritten > 5 * reach.capacity, "{reach:?}");
    let growths = Growths::of(
        &[Process::read(trace)],
        &Options::default(),
        &[],
        &Asked::default(),
        None,
        &mut NoNames,
    );
    let named: Vec<_> = growths
        .growing
        .iter()
        .map(|placed| placed.group.stack.frames.first().cloned())
        .collect();
    assert_eq!(named, [Some(Frame::Raw(0x1000 + LEAK))]);
    let group = &growths.growing[0].group;
    assert_eq!((group.bytes, group.count), (168 * MIB, 168));
    let course = group.course.as_ref().expect("its course is known");
    assert_eq!(course.trend, Trend::Rising);
    let daily = course.slope.median * 86_400.0 / MIB as f64;
    assert!((daily - 24.0).abs() < 0.5, "{daily} MiB a day");

    // The curve says what was held, from its first part to its last.
    assert!(course.from < 24 * HOUR, "{}", course.from);
    let held = |at: u64| {
        let leaks = lives.iter().filter(|life| life.stack == LEAK);
        leaks.filter(|life| life.from <= at).count() as u64 * MIB
    };
    let width = WEEK.div_ceil(256);
    let known = course.spans.len() as u64;
    for (index, span) in course.spans.iter().enumerate() {
        let end = (256 - known + index as u64 + 1) * width;
        // As finely as cells are: two hours.
        let truth = held(end);
        assert!(
            span.last.abs_diff(truth) <= 2 * MIB,
            "{index}: {span:?}, {truth}"
        );
        assert!(
            span.min <= span.last && span.last <= span.max,
            "{index}: {span:?}"
        );
    }
    assert_eq!(course.spans.last().map(|span| span.last), Some(168 * MIB));
}
