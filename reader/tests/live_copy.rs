//! Copies of a trace that a thread keeps writing are equal to what the events say.

#![allow(missing_docs)]

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;
use vramtrace_format::account::Account;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::totals::{Totals, TotalsKey};
use vramtrace_reader::trace::{Copy, Trace};

/// A program: allocations of all layers that come and go, pools that are resized, contexts that
/// end, frees that fail, teardown.
fn program(seed: u64, length: usize, keys: u64) -> Vec<Record> {
    let mut random = seed | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut live: Vec<Record> = Vec::new();
    let mut events: Vec<Record> = Vec::new();
    let kinds = [
        Kind::Device,
        Kind::Torch,
        Kind::Async,
        Kind::Pinned,
        Kind::Pool,
        Kind::Mapping,
    ];
    while events.len() < length {
        let seq = events.len() as u64 + 1;
        let time = seq * 50_000;
        let choice = next(100);
        let event = if choice < 52 || live.is_empty() {
            let kind = kinds[next(kinds.len() as u64) as usize];
            let key = next(keys) * 512;
            let mut event = allocation(kind, key, 1 + next(1 << 20), 1 + next(40) as u32);
            if live
                .iter()
                .any(|e| (e.space, e.key) == (event.space, event.key))
            {
                continue;
            }
            event.device = if kind == Kind::Pinned {
                event.device
            } else {
                next(2) as u8
            };
            event.seq = seq;
            event.time = time;
            live.push(event);
            event
        } else if choice < 56 {
            let index = next(live.len() as u64) as usize;
            let entry = &mut live[index];
            if entry.kind != Kind::Pool as u8 {
                continue;
            }
            let size = next(1 << 22);
            let event = Record {
                op: Op::Resize as u8,
                aux: entry.size,
                size,
                seq,
                time,
                ..*entry
            };
            entry.size = size;
            event
        } else {
            let index = next(live.len() as u64) as usize;
            let op = match choice {
                56..90 => Op::Free,
                90..93 => Op::EndByContext,
                93..95 => Op::FreeUnseen,
                _ => Op::FreeInTeardown,
            };
            let entry = live.swap_remove(index);
            Record {
                seq,
                time,
                ..ending(&entry, op)
            }
        };
        events.push(event);
    }
    events
}

/// What two equal traces have in common, whatever their slots.
#[derive(Debug, PartialEq)]
struct State {
    live: BTreeMap<(u8, u64), Record>,
    accounts: Vec<Account>,
    totals: BTreeMap<String, Totals>,
}

impl State {
    fn of(live: &[Record], accounts: &[Account], totals: &[Totals]) -> State {
        let is_live = |entry: &&Record| vramtrace_format::live::is_live(entry.op);
        let entries: Vec<&Record> = live.iter().filter(is_live).collect();
        let by_key: BTreeMap<_, _> = entries.iter().map(|e| ((e.space, e.key), **e)).collect();
        assert_eq!(by_key.len(), entries.len(), "a key is there twice");
        State {
            live: by_key,
            // Which series an account has depends on nothing that a copy shows.
            accounts: accounts
                .iter()
                .map(|row| Account { series: 0, ..*row })
                .collect(),
            totals: totals
                .iter()
                .filter(|row| row.key.used != 0)
                .map(|row| (format!("{:?}", TotalsKey { used: 1, ..row.key }), *row))
                .collect(),
        }
    }

    fn difference(&self, truth: &State) -> Option<String> {
        for key in self.live.keys().chain(truth.live.keys()) {
            let (got, truth) = (self.live.get(key), truth.live.get(key));
            if got != truth {
                return Some(format!("{key:?} is {got:?} instead of {truth:?}"));
            }
        }
        for (row, (got, truth)) in self.accounts.iter().zip(&truth.accounts).enumerate() {
            if got != truth {
                return Some(format!("account {row} is {got:?} instead of {truth:?}"));
            }
        }
        for key in self.totals.keys().chain(truth.totals.keys()) {
            let (got, truth) = (self.totals.get(key), truth.totals.get(key));
            if got != truth {
                return Some(format!("totals are {got:?} instead of {truth:?}"));
            }
        }
        None
    }

    fn of_copy(copy: &Copy) -> State {
        State::of(&copy.live, &copy.accounts, &copy.totals)
    }

    fn of_file(file: &mut TraceFile) -> State {
        let parts = file.parts();
        let live = [&parts.live[0][..], &parts.live[1][..]].concat();
        State::of(&live, parts.accounts, parts.totals)
    }
}

/// Writes `events` to the file at `path`, resting `pause` after each.
fn write(path: &Path, events: &[Record], pause: Duration, stop: &AtomicBool) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let layout = TraceFile::bare(file.metadata().unwrap().len()).layout;
    // SAFETY: a test's own file; readers only ever read it.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
    let mut known = Known::of(&layout);
    let mut parts = Parts::of(&mut map, &layout, &mut known);
    for event in events {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        parts.record(event);
        let begun = Instant::now();
        while begun.elapsed() < pause {
            std::hint::spin_loop();
        }
    }
}

/// What became of the copies of one run.
#[derive(Debug, Default)]
struct Outcome {
    exact: u32,
    /// Of these, made while the file changed.
    moving: u32,
    inexact: u32,
    /// Curves that were looked at.
    curves: u32,
    slowest: Duration,
}

/// Copies the file while it is written, and compares each copy.
fn race(events: &[Record], size: u64, pause: Duration) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = TraceFile::bare(size).write(dir.path(), "live.vrt");
    let mut replayed = TraceFile::bare(size);
    let mut outcome = Outcome::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&path, events, pause, &stop));
        loop {
            let done = writer.is_finished();
            let begun = Instant::now();
            let trace = Trace::open(&path).unwrap();
            outcome.slowest = outcome.slowest.max(begun.elapsed());
            let copy = &trace.copy;
            if let Some(why) = &copy.inexact {
                assert!(!done, "{why}");
                outcome.inexact += 1;
                continue;
            }
            assert!(copy.seq >= replayed.seq, "time goes forward");
            for event in &events[replayed.seq as usize..copy.seq as usize] {
                replayed.parts().record(event);
            }
            replayed.seq = copy.seq;
            let difference = State::of_copy(copy).difference(&State::of_file(&mut replayed));
            if let Some(difference) = difference {
                // The panic must not leave the writer running.
                stop.store(true, Ordering::Relaxed);
                panic!("as of {}: {difference}", copy.seq);
            }
            let now = trace.copy.control.last_time;
            for curve in trace.curves().unwrap() {
                let live = curve.row.live_bytes;
                let open = curve.open.filter(|_| curve.since < now);
                if let Some(open) = open.filter(|_| !copy.moving) {
                    assert!((open.min..=open.max).contains(&live), "{curve:?}");
                }
                for cell in curve.levels.iter().flatten() {
                    assert!(cell.min <= cell.last && cell.last <= cell.max, "{curve:?}");
                }
                outcome.curves += 1;
            }
            if copy.moving {
                outcome.moving += 1;
                let mut last = 0;
                for event in trace.events() {
                    assert!(event.seq > last && event.seq <= copy.seq);
                    assert_eq!(events[event.seq as usize - 1], event);
                    last = event.seq;
                }
            }
            outcome.exact += 1;
            if done {
                break;
            }
        }
    });
    outcome
}

#[test]
fn a_busy_program() {
    let events = program(1, 60_000, 4000);
    let outcome = race(&events, 8 << 20, Duration::from_micros(5));
    println!("{outcome:?}");
    assert!(outcome.moving > 0 && outcome.inexact == 0, "{outcome:?}");
    assert!(outcome.curves > 0, "{outcome:?}");
}

#[test]
fn a_program_that_does_nothing_but_allocate() {
    let length = if cfg!(debug_assertions) {
        300_000
    } else {
        3_000_000
    };
    let events = program(2, length, 4000);
    let outcome = race(&events, 64 << 20, Duration::ZERO);
    println!("{outcome:?}");
    assert!(outcome.exact > 0, "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program(seed: u64, keys in 4u64..20_000, pause in 0u64..4000) {
        let events = program(seed, 8_000, keys);
        race(&events, 4 << 20, Duration::from_nanos(pause));
    }
}
