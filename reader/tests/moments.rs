//! What was allocated at any moment, against a model that remembers everything.

#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use support::*;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record};
use vramtrace_reader::analysis::moment::{Found, Past};
use vramtrace_reader::model::Process;
use vramtrace_reader::trace::Trace;

type Live = BTreeMap<(u8, u64), (u64, u32)>;

/// A history of `length` random events; the live set after each, by key: bytes and stack.
fn random(seed: u64, length: usize, size: u64) -> (TraceFile, Vec<Live>) {
    let mut state = seed;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut file = TraceFile::new(size);
    let stacks: Vec<u32> = (0..4).map(|n| file.program_stack(0x500 + n * 16)).collect();
    let mut entries: Vec<Record> = Vec::new();
    let mut model = vec![Live::new()];
    let kinds = [
        Kind::Device,
        Kind::Async,
        Kind::Pinned,
        Kind::Torch,
        Kind::Pool,
    ];
    while model.len() <= length {
        let time = model.len() as u64 * SECOND;
        file.at(time);
        let mut live = model.last().unwrap().clone();
        let put = |live: &mut Live, entry: &Record| {
            live.insert((entry.space, entry.key), (entry.size, entry.stack));
        };
        let chosen = (!entries.is_empty()).then(|| random(entries.len() as u64) as usize);
        match (random(10), chosen) {
            (0..4, _) | (_, None) => {
                let kind = kinds[random(5) as usize];
                // Few keys, so that they come again.
                let key = 0x1000 * (1 + random(40));
                let stack = stacks[random(4) as usize];
                let entry = allocation(kind, key, 512 + random(100), stack);
                if live.contains_key(&(entry.space, key)) {
                    continue;
                }
                let entry = file.event(entry);
                put(&mut live, &entry);
                entries.push(entry);
            }
            (4, Some(at)) if entries[at].kind() == Some(Kind::Pool) => {
                let old = entries[at];
                let size = old.size + 1 + random(9);
                file.event(Record {
                    op: Op::Resize as u8,
                    size,
                    aux: old.size,
                    ..old
                });
                entries[at].size = size;
                put(&mut live, &entries[at]);
            }
            (5, Some(at)) => {
                // A free that fails: the entry is back under a new number.
                file.end(&entries[at], Op::Free);
                let (space, key) = (entries[at].space, entries[at].key);
                let mut gone = live.clone();
                gone.remove(&(space, key));
                model.push(gone);
                let old = entries[at];
                entries[at] = file.event(Record {
                    op: Op::Restore as u8,
                    ..old
                });
            }
            (n, Some(at)) => {
                let entry = entries.swap_remove(at);
                let how = [
                    Op::Free,
                    Op::FreeUnseen,
                    Op::EndByContext,
                    Op::FreeInTeardown,
                ];
                file.end(&entry, how[n as usize % 4]);
                live.remove(&(entry.space, entry.key));
            }
        }
        model.push(live);
    }
    file.exit();
    (file, model)
}

fn live(past: &Past) -> Live {
    let entries = past.live.iter();
    entries
        .map(|entry| ((entry.space, entry.key), (entry.size, entry.stack)))
        .collect()
}

fn process(file: &mut TraceFile, directory: &Path) -> Process {
    let path = file.write(directory, "a.vrt");
    Process::read(Trace::open(&path).unwrap())
}

#[test]
fn every_moment_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..8 {
        let (mut file, model) = random(seed, 300, 1 << 20);
        let process = process(&mut file, dir.path());
        for (seq, expected) in model.iter().enumerate() {
            let past = Past::of(&process, Found::Event(seq as u64)).unwrap();
            // In the instant between a failed free and its entry's return, the memory was there.
            let back = model
                .get(seq + 1)
                .is_some_and(|next| next.len() > expected.len())
                && seq > 0
                && model[seq - 1].len() > expected.len()
                && model[seq - 1] == model[seq + 1];
            let expected = if back { &model[seq + 1] } else { expected };
            assert_eq!(&live(&past), expected, "seed {seed}, event {seq}");
            assert_eq!(past.undated, 0);
        }
    }
}

#[test]
fn what_the_event_log_forgot_is_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, model) = random(7, 9000, 1 << 20);
    let process = process(&mut file, dir.path());
    let (mut known, mut undated) = (0, 0);
    let reaches = |seq: &usize| Past::of(&process, Found::Event(*seq as u64)).is_ok();
    let coarse = (0..model.len()).step_by(50).find(reaches).unwrap();
    // Around the place from where on the event log knows everything, and some of the rest.
    let near = coarse - 60..coarse + 60;
    let far = (coarse + 60..model.len()).step_by(97);
    for seq in near.chain(far) {
        let expected = &model[seq];
        match Past::of(&process, Found::Event(seq as u64)) {
            Ok(past) => {
                known += 1;
                undated += past.undated;
                let live = live(&past);
                let back = seq > 0 && model.get(seq + 1) == Some(&model[seq - 1]);
                assert!(
                    &live == expected || (back && live == model[seq + 1]),
                    "event {seq}"
                );
                for entry in &past.live {
                    assert!(entry.seq <= seq as u64 || entry.op == Op::Restore as u8);
                }
            }
            Err(forgotten) => {
                assert_eq!(known, 0, "event {seq}: later than one that is known");
                assert!(forgotten.began > seq as u64 * SECOND);
            }
        }
    }
    assert!(known > 60 && known < 180, "{known} {undated}");
    assert!(undated > 0, "{known}");
}

/// 1 MiB at 1 s, a mark, 4 MiB at 2 s, out of memory at 3 s, 4 MiB freed at 4 s, 2 MiB at 5 s.
fn story(directory: &Path) {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.at(SECOND).alloc(Kind::Device, MIB, stack);
    file.cold(Cold::Mark(cold::Name {
        id: 9,
        text: "epoch 1".into(),
    }));
    file.event(Record {
        aux: 9,
        ..control_event(Op::Mark)
    });
    let big = file.at(2 * SECOND).alloc(Kind::Device, 4 * MIB, stack);
    file.at(3 * SECOND).event(Record {
        aux: 2,
        op: Op::AllocFailed as u8,
        ..allocation(Kind::Device, 0, 80 << 30, stack)
    });
    file.at(4 * SECOND).free(&big);
    file.at(5 * SECOND).alloc(Kind::Device, 2 * MIB, stack);
    file.exit().write(directory, "a.vrt");
}

#[test]
fn moments_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    story(dir.path());
    for (options, bytes, count) in [
        (&[][..], 3 * MIB, 2),
        (&["--to", "end"], 3 * MIB, 2),
        (&["--to", "peak"], 5 * MIB, 2),
        (&["--point", "peak"], 5 * MIB, 2),
        (&["--to", "oom"], 5 * MIB, 2),
        (&["--to", "epoch 1"], MIB, 1),
        (&["--to", "mark:epoch 1"], MIB, 1),
        (&["--to", "1"], MIB, 1),
        (&["--to", "0"], 0, 0),
        (&["--to", "2500ms"], 5 * MIB, 2),
        (&["--to", "@1767225602000000000"], 5 * MIB, 2),
        (&["--from", "epoch 1"], 2 * MIB, 1),
        (&["--from", "1.5s", "--to", "peak"], 4 * MIB, 1),
        (&["--from", "oom"], 2 * MIB, 1),
        (&["--from", "end"], 0, 0),
    ] {
        let out = vramtrace(
            &[&["leaks", "--json", "a.vrt"], options].concat(),
            dir.path(),
        );
        let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let gpu = &document["total"]["gpu"];
        assert_eq!(
            (&gpu["bytes"], &gpu["count"]),
            (&bytes.into(), &count.into()),
            "{options:?}"
        );
        assert_eq!(document["complete"], true, "{options:?}");
    }
    for (options, why) in [
        (["--to", "epoch 2"], "there is no mark `epoch 2`"),
        (["--to", "1000"], "it has 6 events"),
        (["--from", "teardown"], "it has not begun to go down"),
        (["--to", "@5"], "that was before it began"),
    ] {
        let out = vramtrace(&[&["leaks", "a.vrt"], &options[..]].concat(), dir.path());
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{options:?}");
        assert!(said.contains(why), "{said}");
    }
    let out = vramtrace(
        &["leaks", "--from", "1.5s", "--to", "peak", "a.vrt"],
        dir.path(),
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let summary = "SUMMARY: 4.00 MiB in 1 allocation of GPU memory live at peak \
                   (only allocated after 1.5 s)\n";
    assert!(text.contains(summary), "{text}");
}

#[test]
fn sums_without_times_make_a_window_inexact() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let entry = file.at(2 * SECOND).alloc(Kind::Device, MIB, stack);
    file.at(3 * SECOND).end(&entry, Op::EndByReset);
    file.event(Record {
        device: NO_DEVICE,
        ..control_event(Op::Mark)
    });
    file.exit().write(dir.path(), "a.vrt");
    for (from, code) in [("1s", 4), ("2s", 0)] {
        let out = vramtrace(&["leaks", "--fail", "--from", from, "a.vrt"], dir.path());
        assert_eq!(out.status.code(), Some(code), "{from}");
    }
}

#[test]
fn a_part_of_a_timeline_is_a_part_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    story(dir.path());
    let timeline = |options: &[&str]| {
        let args = ["timeline", "--json", "--points", "3", "a.vrt"];
        let out = vramtrace(&[&args[..], options].concat(), dir.path());
        assert_eq!(out.status.code(), Some(0), "{options:?}");
        let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        document["series"][0].clone()
    };
    let values = |series: &serde_json::Value, what: &str| {
        let points = series["points"].as_array().unwrap();
        let value = |point: &serde_json::Value| point[what].as_u64().unwrap() / MIB;
        points.iter().map(value).collect::<Vec<u64>>()
    };
    // Nothing happens in the first third of this part; what was before it is still there.
    let part = timeline(&["--from", "1200ms", "--to", "3s"]);
    assert_eq!(part["start_ns"], START + 1_200_000_000);
    assert_eq!(values(&part, "max"), [1, 5, 5]);
    assert_eq!(values(&part, "min"), [1, 1, 5]);
    let part = timeline(&["--from", "oom"]);
    assert_eq!(part["start_ns"], START + 3 * SECOND);
    assert_eq!(values(&part, "last"), [5, 1, 3]);
    let out = vramtrace(
        &["timeline", "--from", "end", "--to", "oom", "a.vrt"],
        dir.path(),
    );
    assert_eq!(out.status.code(), Some(2));
}
