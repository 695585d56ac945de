//! Short-lived allocations: by hand, and against a model that remembers everything.

#![allow(missing_docs, dead_code)]

mod support;
#[path = "support/week.rs"]
mod week;

use std::collections::{BTreeMap, HashMap};
use support::*;
use vramtrace_format::Op;
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::Sum;
use vramtrace_reader::analysis::churn::{Churn, Pooling};
use vramtrace_reader::analysis::leaks::{Asked, Options};
use vramtrace_reader::model::{NoNames, Process};
use vramtrace_reader::trace::Trace;
use week::Random;

const MS: u64 = 1_000_000;

/// In each of ten seconds: two buffers of 1 MiB for 100 ms, one after the other, and one of 4 KiB for
/// 3 s; asynchronous ones of 1 KiB for 50 µs; something that stays. One free fails and is made again.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let [a, b, c, d] = [0x500, 0x600, 0x700, 0x800].map(|offset| file.program_stack(offset));
    file.at(MS).alloc(Kind::Device, 5 * MIB, d);
    let mut long: Vec<(u64, Record)> = Vec::new();
    for second in 0..10 {
        let start = second * SECOND + 2 * MS;
        for (due, entry) in std::mem::take(&mut long) {
            if due <= start {
                file.at(due).free(&entry);
            } else {
                long.push((due, entry));
            }
        }
        for n in 0..2 {
            let at = start + n * 200 * MS;
            let mut entry = file.at(at).alloc(Kind::Device, MIB, a);
            file.at(at + 100 * MS);
            if second == 5 && n == 0 {
                file.free(&entry);
                let back = Record {
                    op: Op::Restore as u8,
                    ..entry
                };
                entry = file.event(back);
            }
            file.free(&entry);
        }
        for n in 0..5 {
            let at = start + 500 * MS + n * MS;
            let entry = file.at(at).alloc(Kind::Async, 1024, c);
            file.at(at + 50_000).free(&entry);
        }
        long.push((
            start + 3 * SECOND,
            file.at(start + 600 * MS).alloc(Kind::Device, 4096, b),
        ));
    }
    file.control().last_time = 10 * SECOND;
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let (code, text) = run(&["churn", "a.vrt"], dir.path());
    let expected = "\
train (pid 4711) on node7, traced for 10.0 s, exited

50 short-lived allocations of 1.00 KiB each, 5.00 a second
    cudaMallocAsync · async memory (framework layer) · GPU 0 (NVIDIA H100)
    half live under 65.5 µs, 9 of 10 under 65.5 µs; from 10 µs to 100 s, by decades |█        |
    in the whole run 50.00 KiB in 50 allocations freed
    #0  ??  (train+0x700)
    #1  ??  (train+0x1000)

20 short-lived allocations of 1.00 MiB each, 2.00 a second
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    half live under 134.2 ms, 9 of 10 under 134.2 ms; from 10 µs to 100 s, by decades |    █    |
    in the whole run 20.00 MiB in 20 allocations freed
    if its memory were kept: 19 of 20 calls would find a block of their size, with 1.00 MiB kept in \
1 block
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

0 short-lived allocations
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    half live under 4.3 s, 9 of 10 under 4.3 s; from 10 µs to 100 s, by decades |     █   |
    in the whole run 28.00 KiB in 7 allocations freed; 7 freed here had lived longer, or are older \
than the log
    if its memory were kept: 7 of 10 calls would find a block of their size, with 12.00 KiB kept in \
3 blocks
    #0  ??  (train+0x600)
    #1  ??  (train+0x1000)

Event log: 10.0 s of the device layer and the host, 10.0 s of the framework layer
note: /opt/app/train is not on this machine; its functions are not named. Put the file, or its \
debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
0101010101010101010101010101010101010101)
SUMMARY: 70 allocations (20.05 MiB) lived up to 1.0 s each
Next: vramtrace timeline a.vrt
";
    assert_eq!(text, expected);
    assert_eq!(code, 0);
}

#[test]
fn the_document_and_parts_of_the_time() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let document = |more: &[&str]| -> serde_json::Value {
        let args = [&["churn", "--json", "a.vrt"], more].concat();
        serde_json::from_str(&run(&args, dir.path()).1).unwrap()
    };
    let all = document(&[]);
    assert_eq!(all["schema"], "vramtrace.churn/1");
    let group = &all["groups"][1];
    assert_eq!(
        group["freed"],
        serde_json::json!({"bytes": 20 * MIB, "count": 20})
    );
    let lives = serde_json::json!([{"below_ns": 1 << 27, "count": 20}]);
    assert_eq!(group["lifetimes"], lives);
    let pooling = serde_json::json!({
        "allocations": 20, "reused": 19, "kept_bytes": MIB, "kept_blocks": 1,
    });
    assert_eq!(group["pooling"], pooling);
    assert_eq!(all["groups"][0]["pooling"], serde_json::Value::Null);
    let later = document(&["--from", "5s", "--kind", "device"]);
    assert_eq!(later["total"]["count"], 10);
    assert_eq!(later["groups"][0]["freed"], serde_json::Value::Null);
    assert_eq!(document(&["--shorter-than", "1ms"])["total"]["count"], 50);
    let by_thread = document(&["--by", "thread"]);
    assert_eq!(by_thread["groups"][0]["value"], "train (4711)");
    assert_eq!(by_thread["total"]["count"], 70);
}

/// By the offset of its stack: short-lived, longer, ever freed, pooling.
type Model = BTreeMap<u64, (Sum, u64, Sum, Option<Pooling>)>;

/// A random program, and what an observer with all its events says. Frees fail now and then.
fn random(seed: u64, steps: u64, limit: u64) -> (TraceFile, Model) {
    let mut random = Random(seed);
    let mut file = TraceFile::new(1 << 20);
    let offsets: Vec<u64> = (0..5).map(|n| 0x500 + 16 * n).collect();
    let stacks: Vec<u32> = offsets.iter().map(|&at| file.program_stack(at)).collect();
    let mut live: Vec<Record> = Vec::new();
    let mut events: Vec<Record> = Vec::new();
    let mut time = 0;
    for _ in 0..steps {
        time += 1 + random.below(1000);
        file.at(time);
        if !live.is_empty() && random.below(40) < live.len() as u64 {
            // Mostly the newest.
            let far = random.below(live.len() as u64);
            let back = random.below(1 + far) as usize;
            let entry = live.swap_remove(live.len() - 1 - back);
            let op = [
                Op::Free,
                Op::Free,
                Op::Free,
                Op::FreeUnseen,
                Op::EndByContext,
            ][random.below(5) as usize];
            events.push(file.end(&entry, op));
            if op == Op::Free && random.below(10) == 0 {
                let restored = file.event(Record {
                    op: Op::Restore as u8,
                    ..entry
                });
                events.push(restored);
                live.push(restored);
            }
        } else {
            let stack = random.below(5) as usize;
            let kind = [Kind::Device, Kind::Async, Kind::Pinned][stack % 3];
            let entry = file.alloc(kind, 1 + random.below(4), stacks[stack]);
            events.push(entry);
            live.push(entry);
        }
    }
    let kept = file.parts().rings.each_ref().map(|ring| ring.len());
    let mut model = Model::new();
    for (&offset, &stack) in offsets.iter().zip(&stacks) {
        let own: Vec<Record> = events
            .iter()
            .filter(|event| event.stack == stack)
            .copied()
            .collect();
        let observed = observe(&events, &own, kept, limit);
        if observed.0.count + observed.1 + observed.2.count > 0 {
            model.insert(offset, observed);
        }
    }
    (file, model)
}

fn observe(
    all: &[Record],
    own: &[Record],
    kept: [usize; 2],
    limit: u64,
) -> (Sum, u64, Sum, Option<Pooling>) {
    let kind = own[0].kind().unwrap();
    let in_lane = |event: &&Record| event.kind().unwrap().lane() == kind.lane();
    let lane: Vec<&Record> = all.iter().filter(in_lane).collect();
    let oldest = lane[lane.len().saturating_sub(kept[kind.lane()])].seq;
    let failed = |free: &Record| {
        let next = own
            .iter()
            .find(|event| event.key == free.key && event.seq > free.seq);
        next.is_some_and(|next| next.op == Op::Restore as u8)
    };
    let (mut short, mut longer, mut freed) = (Sum::default(), 0, Sum::default());
    let mut pooling = Pooling::default();
    let mut idle: HashMap<u64, u64> = HashMap::new();
    for event in own {
        let op = event.op().unwrap();
        let in_log = event.seq >= oldest;
        if op == Op::Alloc && in_log {
            pooling.allocations += 1;
            let idle = idle.entry(event.size).or_default();
            if *idle > 0 {
                *idle -= 1;
                pooling.reused += 1;
            } else {
                pooling.kept.add(event.size, 1);
            }
        }
        if !matches!(op, Op::Free | Op::FreeUnseen) || failed(event) {
            continue;
        }
        freed.add(event.size, 1);
        if !in_log {
            continue;
        }
        *idle.entry(event.size).or_default() += 1;
        let made = own
            .iter()
            .find(|made| made.seq == event.ended_seq())
            .unwrap();
        if made.seq < oldest {
            pooling.kept.add(event.size, 1);
        }
        if made.seq >= oldest && event.time - made.time <= limit {
            short.add(event.size, 1);
        } else {
            longer += 1;
        }
    }
    let calls = kind != Kind::Async && pooling.allocations > 0;
    (short, longer, freed, calls.then_some(pooling))
}

#[test]
fn all_is_counted_as_an_observer_would() {
    let limit = 4_000;
    for seed in 0..10 {
        // The event log holds 1,900 and 3,200 events.
        let steps = [500, 9_000][seed as usize % 2];
        let (mut file, expected) = random(seed, steps, limit);
        let dir = tempfile::tempdir().unwrap();
        let path = file.write(dir.path(), "t.vrt");
        let process = Process::read(Trace::open(&path).unwrap());
        let (options, asked) = (Options::default(), Asked::default());
        let churn = Churn::of(&[process], &options, &[], &asked, limit, None, &mut NoNames);
        let mut found = Model::new();
        for churning in &churn.groups {
            let group = &churning.placed.group;
            let Frame::Native { offset, .. } = group.stack.frames[0] else {
                panic!("{group:?}");
            };
            let short = Sum {
                bytes: group.bytes,
                count: group.count,
            };
            let value = (
                short,
                churning.longer,
                churning.freed.unwrap(),
                churning.pooling,
            );
            assert_eq!(found.insert(offset, value), None);
        }
        assert_eq!(found, expected, "seed {seed}");
    }
}
