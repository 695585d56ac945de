//! Allocations that failed: by hand, and against a model that remembers everything.

#![allow(missing_docs, dead_code)]

mod support;
#[path = "support/week.rs"]
mod week;

use std::collections::BTreeMap;
use support::*;
use vramtrace_format::Op;
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::leaks::{Asked, Options};
use vramtrace_reader::analysis::oom::{Fate, Fits, Oom};
use vramtrace_reader::model::{NoNames, Process};
use vramtrace_reader::trace::Trace;
use week::Random;

const GIB: u64 = 1 << 30;

/// A failed allocation, and what the driver says then.
fn fail(file: &mut TraceFile, kind: Kind, size: u64, stack: u32, free: Option<u64>) {
    let failed = Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        space: 0,
        key: 0,
        ..allocation(kind, 0, size, stack)
    };
    file.event(failed);
    if let Some(free) = free {
        file.event(Record {
            op: Op::MemInfo as u8,
            size: 80 * GIB,
            aux: free,
            stack: 0,
            ..failed
        });
    }
}

/// 50 GiB of weights, a pool of 8 GiB of which 2 are used, 20 GiB of activations. 10 GiB are refused,
/// the activations freed, 10 GiB granted; 6 GiB from the pool refused and done without; 100 GiB
/// refused three times, and that was that.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let [a, b, c, d] = [0x500, 0x600, 0x700, 0x800].map(|offset| file.program_stack(offset));
    file.at(SECOND).alloc(Kind::Device, 50 * GIB, a);
    let pool = Record {
        aux: 0,
        ..allocation(Kind::Pool, 7, 8 * GIB, c)
    };
    file.event(pool);
    let block = Record {
        aux: 7,
        ..allocation(Kind::Async, 0x7e00_0000_0000, 2 * GIB, c)
    };
    file.event(block);
    let activations = file.at(25 * SECOND).alloc(Kind::Device, 20 * GIB, b);
    file.at(30 * SECOND);
    fail(&mut file, Kind::Device, 10 * GIB, d, Some(GIB));
    file.free(&activations);
    file.at(30 * SECOND + SECOND / 2)
        .alloc(Kind::Device, 10 * GIB, d);
    file.at(40 * SECOND);
    fail(&mut file, Kind::Async, 6 * GIB, c, Some(GIB));
    file.at(45 * SECOND).alloc(Kind::Device, 512, b);
    for attempt in 0..3 {
        file.at(50 * SECOND + attempt);
        fail(&mut file, Kind::Device, 100 * GIB, d, Some(11 * GIB));
    }
    file.control().last_time = 52 * SECOND + 2;
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let (code, text) = run(&["oom", "a.vrt"], dir.path());
    let expected = "\
train (pid 4711) on node7, traced for 52.0 s, exited

10.00 GiB refused at 30.0 s: retried and granted 500.0 ms later
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100) · thread train (4711)
    the driver had 1.00 GiB of 80.00 GiB free; 1.00 GiB belonged to others: processes, \
contexts, the driver
    3.00 GiB were missing even without the 6.00 GiB that caches hold unused
    #0  ??  (train+0x800)
    #1  ??  (train+0x1000)
    held then on GPU 0 (NVIDIA H100): 72.00 GiB in 3 allocations in use, 20.00 GiB of it \
allocated in the 10.0 s before, 6.00 GiB cached
        50.00 GiB in 1 allocation  ??  (train+0x500) ← ??  (train+0x1000)
        20.00 GiB in 1 allocation  ??  (train+0x600) ← ??  (train+0x1000)
         2.00 GiB in 1 allocation  ??  (train+0x700) ← ??  (train+0x1000)

6.00 GiB refused at 40.0 s: caught; the process made 1 allocation after it
    cudaMallocAsync · async memory (framework layer) · GPU 0 (NVIDIA H100) · thread train \
(4711)
    the driver had 1.00 GiB of 80.00 GiB free; 11.00 GiB belonged to others: processes, \
contexts, the driver
    it would have fitted without the 6.00 GiB that caches hold unused
    #0  ??  (train+0x700)
    #1  ??  (train+0x1000)
    held then on GPU 0 (NVIDIA H100): 62.00 GiB in 3 allocations in use, 10.00 GiB of it \
allocated in the 10.0 s before, 6.00 GiB cached
        50.00 GiB in 1 allocation  ??  (train+0x500) ← ??  (train+0x1000)
        10.00 GiB in 1 allocation  ??  (train+0x800) ← ??  (train+0x1000)
         2.00 GiB in 1 allocation  ??  (train+0x700) ← ??  (train+0x1000)

100.00 GiB refused at 50.0 s, after 3 attempts: the last that was tried; the process \
ended 2.0 s later
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100) · thread train (4711)
    the driver had 11.00 GiB of 80.00 GiB free; 1.00 GiB belonged to others: processes, \
contexts, the driver
    83.00 GiB were missing even without the 6.00 GiB that caches hold unused
    #0  ??  (train+0x800)
    #1  ??  (train+0x1000)
    held then on GPU 0 (NVIDIA H100): 62.00 GiB in 4 allocations in use, 512 B of it \
allocated in the 10.0 s before, 6.00 GiB cached
        50.00 GiB in 1 allocation  ??  (train+0x500) ← ??  (train+0x1000)
        10.00 GiB in 1 allocation  ??  (train+0x800) ← ??  (train+0x1000)
         2.00 GiB in 1 allocation  ??  (train+0x700) ← ??  (train+0x1000)
            512 B in 1 allocation  ??  (train+0x600) ← ??  (train+0x1000)

note: /opt/app/train is not on this machine; its functions are not named. Put the file, \
or its debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
0101010101010101010101010101010101010101)
SUMMARY: 3 allocations failed for lack of memory; nothing was allocated after 1 of them
Next: vramtrace leaks --to 16 a.vrt
";
    assert_eq!(text, expected);
    assert_eq!(code, 0);
}

#[test]
fn the_document_and_parts_of_it() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let document = |more: &[&str]| -> serde_json::Value {
        let args = [&["oom", "--json", "a.vrt"], more].concat();
        serde_json::from_str(&run(&args, dir.path()).1).unwrap()
    };
    let all = document(&[]);
    assert_eq!(
        (&all["schema"], &all["forgotten"]),
        (&"vramtrace.oom/1".into(), &0.into())
    );
    let of = |name: &str| -> Vec<serde_json::Value> {
        let failures = all["failures"].as_array().unwrap();
        failures
            .iter()
            .map(|failure| failure[name].clone())
            .collect()
    };
    assert_eq!(of("fate"), ["retried", "went-on", "last"]);
    assert_eq!(of("fits"), ["never", "without-cache", "never"]);
    assert_eq!(of("attempts"), [1, 1, 3]);
    assert_eq!(of("others_bytes"), [GIB, 11 * GIB, GIB - 512]);
    assert_eq!(
        of("after_ns"),
        [Some(SECOND / 2), None, Some(2 * SECOND)].map(serde_json::Value::from)
    );
    let held = &all["failures"][0]["held"];
    assert_eq!(held["taken_bytes"], 78 * GIB);
    assert_eq!(held["allocated_in_last_10_s"]["bytes"], 20 * GIB);
    // What is said to come next says the same of that moment.
    let leaks = run(&["leaks", "--json", "--to", "16", "a.vrt"], dir.path()).1;
    let leaks: serde_json::Value = serde_json::from_str(&leaks).unwrap();
    assert_eq!(
        leaks["total"]["gpu"]["bytes"],
        all["failures"][2]["held"]["used"]["bytes"]
    );
    assert_eq!(
        document(&["--layer", "framework"])["failures"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(document(&["--last", "1"])["omitted"], 2);
    assert_eq!(
        document(&["--to", "35s"])["failures"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let by = document(&["--by", "library", "--last", "1"]);
    assert_eq!(by["failures"][0]["held"]["groups"][0]["value"], "train");
}

#[test]
fn what_is_not_in_the_trace_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    // While a stream is captured nobody asks the driver.
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    fail(&mut file, Kind::Device, GIB, stack, None);
    file.write(dir.path(), "a.vrt");
    let text = run(&["oom", "a.vrt"], dir.path()).1;
    assert!(
        text.contains("how much was free is not in the trace"),
        "{text}"
    );
    // The device ring is full of other things: the failure is gone.
    for _ in 0..4000 {
        let entry = file.alloc(Kind::Device, 512, stack);
        file.free(&entry);
    }
    file.write(dir.path(), "b.vrt");
    let text = run(&["oom", "b.vrt"], dir.path()).1;
    let summary = "SUMMARY: 1 allocation failed, of which the event log has forgotten everything";
    assert!(text.contains(summary), "{text}");
    TraceFile::new(1 << 20).write(dir.path(), "c.vrt");
    let text = run(&["oom", "c.vrt"], dir.path()).1;
    assert!(text.contains("SUMMARY: no CUDA memory was seen"), "{text}");
}

/// One failed allocation, as an observer sees it: event of its last attempt, attempts, fate, who
/// held how much.
type Seen = (u64, u64, Fate, BTreeMap<u64, u64>);

fn random(seed: u64, steps: u64) -> (TraceFile, Vec<Seen>) {
    let mut random = Random(seed);
    let mut file = TraceFile::new(1 << 20);
    let offsets: Vec<u64> = (0..4).map(|n| 0x500 + 16 * n).collect();
    let stacks: Vec<u32> = offsets.iter().map(|&at| file.program_stack(at)).collect();
    let mut live: Vec<Record> = Vec::new();
    // Event, who held what.
    let mut events: Vec<(Record, BTreeMap<u64, u64>)> = Vec::new();
    for time in 1..=steps {
        file.at(time);
        let stack = random.below(4) as usize;
        let kind = [Kind::Device, Kind::Managed][stack % 2];
        let thread = 1 + random.below(2) as u32;
        let size = 1 + random.below(2);
        let record = Record {
            thread,
            ..allocation(kind, 0x1000 * time, size, stacks[stack])
        };
        // At last nothing is granted any more.
        let dice = random.below(if time * 10 > steps * 9 { 10 } else { 20 });
        let event = match dice {
            0 => file.event(Record {
                op: Op::AllocFailed as u8,
                aux: 2,
                key: 0,
                ..record
            }),
            1..10 if !live.is_empty() => {
                let entry = live.swap_remove(random.below(live.len() as u64) as usize);
                file.free(&entry)
            }
            _ if dice < 10 => continue,
            _ => {
                let event = file.event(record);
                live.push(event);
                event
            }
        };
        let mut held = BTreeMap::new();
        for entry in &live {
            let stack = stacks
                .iter()
                .position(|&stack| stack == entry.stack)
                .unwrap();
            *held.entry(offsets[stack]).or_default() += entry.size;
        }
        events.push((event, held));
    }
    file.exit();
    let mut seen: Vec<Seen> = Vec::new();
    let is = |event: &Record, op: Op| event.op == op as u8;
    for (at, (event, held)) in events.iter().enumerate() {
        if !is(event, Op::AllocFailed) {
            continue;
        }
        let same = |other: &Record| {
            let of = |event: &Record| (event.thread, event.size, event.kind);
            of(other) == of(event)
        };
        let mine = |(other, _): &&(Record, _)| {
            let asks = is(other, Op::AllocFailed) || is(other, Op::Alloc);
            other.thread == event.thread && asks
        };
        // An attempt that is followed by another at the same is not the last one.
        let next = events[at + 1..].iter().find(mine);
        if next.is_some_and(|(next, _)| is(next, Op::AllocFailed) && same(next)) {
            continue;
        }
        let before = events[..at].iter().rev().filter(mine);
        let attempts = before.take_while(|(other, _)| is(other, Op::AllocFailed) && same(other));
        let attempts = 1 + attempts.count() as u64;
        let later = events[at + 1..]
            .iter()
            .filter(|(other, _)| is(other, Op::Alloc))
            .count();
        let fate = match next.filter(|(next, _)| is(next, Op::Alloc) && same(next)) {
            Some((next, _)) => Fate::Retried(next.time - event.time),
            None if later > 0 => Fate::WentOn(later as u64),
            None => Fate::Last(events.last().unwrap().0.time - event.time),
        };
        seen.push((event.seq, attempts, fate, held.clone()));
    }
    (file, seen)
}

#[test]
fn every_failure_is_as_an_observer_saw_it() {
    let mut kinds = [0; 3];
    for seed in 0..20 {
        let (mut file, mut expected) = random(seed, 60 + 40 * seed);
        let dir = tempfile::tempdir().unwrap();
        let path = file.write(dir.path(), "t.vrt");
        let process = Process::read(Trace::open(&path).unwrap());
        let (options, asked) = (Options::default(), Asked::default());
        let oom = Oom::of(&[process], &options, &[], &asked, None, None, &mut NoNames);
        let mut found: Vec<Seen> = Vec::new();
        for (at, failure) in oom.failures.iter().enumerate() {
            let mut held: BTreeMap<u64, u64> = BTreeMap::new();
            // Of earlier ones it is not found out.
            let detailed = oom.failures.len() - at <= 32;
            assert_eq!(failure.held.is_ok(), detailed);
            for placed in failure.held.iter().flat_map(|held| &held.groups) {
                let Frame::Native { offset, .. } = placed.group.stack.frames[0] else {
                    panic!("{placed:?}");
                };
                *held.entry(offset).or_default() += placed.group.bytes;
            }
            let own = expected.iter_mut().find(|seen| seen.0 == failure.seq);
            if let Some(own) = own.filter(|_| !detailed) {
                own.3.clear();
            }
            assert_eq!(failure.fits(), Fits::Unknown);
            let attempts = failure.placed.group.count;
            kinds[match failure.fate {
                Fate::Retried(_) => 0,
                Fate::WentOn(_) => 1,
                _ => 2,
            }] += 1;
            found.push((failure.seq, attempts, failure.fate, held));
        }
        found.sort_by_key(|seen| seen.0);
        expected.sort_by_key(|seen| seen.0);
        assert_eq!(found, expected, "seed {seed}");
    }
    assert!(kinds.iter().all(|&number| number > 3), "{kinds:?}");
}
