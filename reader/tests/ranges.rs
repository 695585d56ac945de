//! NVTX ranges of traces that can be checked by hand.

#![allow(missing_docs)]

mod support;

use serde_json::Value;
use support::*;
use vramtrace_format::Section;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_reader::analysis::slices::{Slice, Slices};
use vramtrace_reader::model::Process;
use vramtrace_reader::trace::Trace;

fn range(id: u32, parent: u32, text: &str) -> Cold {
    Cold::Range(cold::Range {
        id,
        parent,
        domain: String::new(),
        text: text.into(),
        numbers: text.contains('#'),
    })
}

/// Two steps of their own and one for the rest, memory in and out of them, some of it gone with its
/// context.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    for record in [
        range(1, 0, "step 1"),
        range(2, 0, "step #"),
        range(3, 2, "forward"),
    ] {
        file.cold(record);
    }
    let at = file.layout.of(Section::Ranges).offset as usize;
    for (id, entered) in [(1, 1u64), (2, 999), (3, 2000)] {
        file.bytes()[at + 8 * id..][..8].copy_from_slice(&entered.to_le_bytes());
    }
    let stack = file.program_stack(0x500);
    for (key, size, range) in [
        (1, MIB, 0),
        (2, 2 * MIB, 1),
        (3, 4 * MIB, 2),
        (4, 8 * MIB, 3),
        (5, 16 * MIB, 77),
        (6, 32 * MIB, 3),
    ] {
        let made = file.at(key * SECOND).event(Record {
            range,
            ..allocation(Kind::Device, key << 30, size, stack)
        });
        if key == 6 {
            file.at(7 * SECOND).end(&made, Op::EndByContext);
        }
    }
    file.exit();
    file
}

fn groups(file: &mut TraceFile, options: &[&str]) -> (Value, Vec<(String, u64, Option<u64>)>) {
    let dir = tempfile::tempdir().unwrap();
    file.write(dir.path(), "a.vrt");
    let arguments = [&["leaks", "--json", "--by", "range"], options, &["a.vrt"]].concat();
    let out = vramtrace(&arguments, dir.path());
    let document: Value = serde_json::from_slice(&out.stdout).unwrap();
    let group = |group: &Value| {
        (
            group["value"].as_str().unwrap().to_owned(),
            group["bytes"].as_u64().unwrap() / MIB,
            group["entered"].as_u64(),
        )
    };
    let all = document["groups"].as_array().unwrap().iter().map(group);
    let all = all.collect();
    (document, all)
}

fn expected(groups: &[(&str, u64, Option<u64>)]) -> Vec<(String, u64, Option<u64>)> {
    let own =
        |&(name, bytes, entered): &(&str, u64, Option<u64>)| (name.to_owned(), bytes, entered);
    groups.iter().map(own).collect()
}

#[test]
fn what_is_kept_by_range() {
    let (document, found) = groups(&mut story(), &[]);
    assert_eq!(
        found,
        expected(&[
            // It ended with its context, which is kept as a sum by stack.
            ("range not kept", 32, None),
            ("range 77", 16, None),
            ("step # > forward", 8, Some(2000)),
            // The first step of its own belongs to the others.
            ("step #", 6, Some(1000)),
            ("no range", 1, None),
        ])
    );
    assert_eq!(
        document["groups"][3]["ranges"],
        serde_json::json!(["step #"])
    );
    let (_, found) = groups(&mut story(), &["--to", "4s"]);
    assert_eq!(
        found,
        expected(&[
            ("step # > forward", 8, Some(2000)),
            ("step #", 6, Some(1000)),
            ("no range", 1, None),
        ])
    );
}

#[test]
fn in_words() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let text = |arguments: &[&str]| {
        let out = vramtrace(arguments, dir.path());
        String::from_utf8(out.stdout).unwrap()
    };
    let leaks = text(&["leaks", "--by", "range", "a.vrt"]);
    assert!(
        leaks.contains("8.00 MiB in 1 allocation leaked: step # > forward\n"),
        "{leaks}"
    );
    assert!(leaks.contains(" · entered 2,000 times\n"), "{leaks}");
    let stacks = text(&["leaks", "a.vrt"]);
    assert!(
        stacks.contains(" · ranges range 77, step #, step # > forward · "),
        "{stacks}"
    );
    let summary = text(&["summary", "a.vrt"]);
    let live = "    Live now, by the NVTX range that it was allocated in:\n        \
                8.00 MiB in 1 allocation: step # > forward (entered 2,000 times)\n        \
                6.00 MiB in 2 allocations: step # (entered 1,000 times)\n";
    assert!(summary.contains(live), "{summary}");
}

/// Traces of before there were ranges are whole.
#[test]
fn a_trace_without_the_section() {
    let mut file = story();
    file.forget(Section::Ranges);
    let (document, found) = groups(&mut file, &[]);
    assert_eq!(document["complete"], true, "{document}");
    assert_eq!(found[3], ("step #".to_owned(), 6, Some(0)));
    let dir = tempfile::tempdir().unwrap();
    file.write(dir.path(), "a.vrt");
    let out = vramtrace(&["check", "--json", "a.vrt"], dir.path());
    let check: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(check["traces"][0]["verdict"], "whole", "{check}");
}

/// Numbers that are the same in each run.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Programs that push and pop at random, with clocks that are a little off when an end says when its
/// range was entered: of each range whose end is there, a slice in its place among the others. With
/// `lies`, ends say anything.
fn slices_of(seed: u64, lies: bool) -> (Vec<Slice>, usize) {
    let mut state = seed;
    let mut file = TraceFile::new(4 << 20);
    // Every way of nesting two names four deep: two in each one that is not the deepest.
    for id in 1..31 {
        file.cold(range(id, (id - 1) / 2, ["c", "a > b"][id as usize % 2]));
    }
    let inside = |of: u32, pick: u64| 2 * of + 1 + (pick & 1) as u32;
    let mut threads: Vec<Vec<(u32, u64, bool)>> = vec![Vec::new(); 3];
    let mut ends = 0;
    for _ in 0..600 {
        let thread = (random(&mut state) % 3) as usize;
        let now = file.time + 1 + random(&mut state) % 1000;
        file.at(now);
        let open = &mut threads[thread];
        let innermost = open.last().map_or(0, |(id, ..)| *id);
        match random(&mut state) % 4 {
            0 if open.len() < 4 => {
                open.push((inside(innermost, random(&mut state)), now, false));
            }
            1 => {
                let Some((id, entered, held)) = open.pop() else {
                    continue;
                };
                if !held {
                    continue;
                }
                ends += 1;
                let off = random(&mut state) % 3;
                let (thread, began) = match lies {
                    true => ((random(&mut state) % 5) as u32, random(&mut state) << 3),
                    false => (thread as u32 + 1, (entered + off).saturating_sub(1)),
                };
                file.event(Record {
                    thread,
                    range: id as u16,
                    aux: began,
                    ..control_event(Op::RangeEnded)
                });
            }
            _ => {
                open.iter_mut().for_each(|(.., held)| *held = true);
                file.event(Record {
                    thread: thread as u32 + 1,
                    range: innermost as u16,
                    ..allocation(Kind::Device, now << 9, 512, 0)
                });
            }
        }
    }
    file.exit();
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    let process = Process::read(Trace::open(&path).unwrap());
    let mut slices = Slices::new(&process, 10_000, 100);
    process.events().for_each(|event| slices.event(&event));
    (slices.finish(), ends)
}

fn nested(slices: &[Slice]) {
    for (at, one) in slices.iter().enumerate() {
        assert!(one.start <= one.end, "{one:?}");
        for other in &slices[at + 1..] {
            if one.thread != other.thread || one.end <= other.start {
                continue;
            }
            // It begins later and inside.
            assert!(
                one.thread != 0 || one.depth != other.depth,
                "{one:?} {other:?}"
            );
            assert!(
                one.thread == 0 || one.depth < other.depth && one.end >= other.end,
                "{one:?} {other:?}"
            );
        }
    }
}

#[test]
fn slices_lie_in_each_other() {
    for seed in 0..60 {
        let (slices, ends) = slices_of(seed, false);
        nested(&slices);
        assert_eq!(
            slices.iter().filter(|slice| slice.told).count(),
            ends,
            "{seed}"
        );
        nested(&slices_of(seed, true).0);
    }
}

fn found(file: &mut TraceFile, most: usize) -> Vec<Slice> {
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    let process = Process::read(Trace::open(&path).unwrap());
    let mut slices = Slices::new(&process, most, 100);
    process.events().for_each(|event| slices.event(&event));
    slices.finish()
}

fn block(file: &mut TraceFile, time: u64, thread: u32, range: u16) {
    let key = (1 + file.seq) << 20;
    file.at(time).event(Record {
        thread,
        range,
        ..allocation(Kind::Device, key, 512, 0)
    });
}

fn ends(file: &mut TraceFile, thread: u32, range: u16, began: u64, ended: u64) {
    file.at(ended).event(Record {
        thread,
        range,
        aux: began,
        ..control_event(Op::RangeEnded)
    });
}

/// An epoch of the process, steps that a thread pushes in it, and allocations between and outside.
#[test]
fn what_is_in_a_range_of_the_process_is_its_own() {
    let mut file = TraceFile::new(1 << 20);
    file.cold(range(1, 0, "epoch"));
    file.cold(range(2, 0, "step"));
    block(&mut file, 10, 7, 1);
    block(&mut file, 20, 7, 2);
    ends(&mut file, 7, 2, 15, 25);
    block(&mut file, 30, 7, 1);
    block(&mut file, 35, 7, 0);
    block(&mut file, 40, 8, 1);
    ends(&mut file, 0, 1, 5, 50);
    block(&mut file, 60, 7, 1);
    file.exit();
    let short = |slice: &Slice| {
        (
            slice.thread,
            slice.range,
            slice.start,
            slice.end,
            slice.told,
            slice.count,
        )
    };
    let slices: Vec<_> = found(&mut file, 100).iter().map(short).collect();
    assert_eq!(
        slices,
        [
            (0, 1, 5, 50, true, 3),
            (7, 2, 15, 25, true, 1),
            (7, 1, 60, 60, false, 1)
        ]
    );
}

/// Damaged and hostile traces: times that go back, ranges of all the time there is, none longer than another.
#[test]
fn slices_are_bounded_whatever_a_trace_says() {
    let mut file = TraceFile::new(1 << 20);
    file.cold(range(1, 0, "step"));
    ends(&mut file, 7, 1, 90, 100);
    ends(&mut file, 7, 1, 40, 50);
    for _ in 0..50 {
        ends(&mut file, 0, 1, 0, u64::MAX);
    }
    file.exit();
    let slices = found(&mut file, 10);
    assert_eq!(slices.len(), 10);
    assert!(slices.iter().all(|slice| slice.start <= slice.end));
    nested(&slices);
}
