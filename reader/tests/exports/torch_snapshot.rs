//! Memory snapshots, read by Python's own pickle and replayed backwards as PyTorch's viewers do.
//! check_snapshot.py says what they would not stand.

use super::program::{hostile, random, story};
use super::support::*;
use super::{export, json, vramtrace};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use vramtrace_format::record::{Kind, Op, Record};

/// What a snapshot says of each GPU; `None` without Python.
fn snapshot(trace: &Path, args: &[&str]) -> Option<Vec<Value>> {
    let bytes = export(trace, &[&["--format", "torch-snapshot"], args].concat());
    let file = trace.with_extension("pickle");
    std::fs::write(&file, bytes).unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/exports/check_snapshot.py"
    );
    let mut python = Command::new("python3");
    python.arg(script).arg(&file);
    // PyTorch's own functions, where scripts/check-exports has brought them.
    python.args(std::env::var_os("VRAMTRACE_TEST_MEMORY_VIZ"));
    let out = match python.output() {
        Ok(out) => out,
        Err(error) => {
            eprintln!("SKIPPED memory snapshots: python3: {error}");
            return None;
        }
    };
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Some(serde_json::from_slice(&out.stdout).unwrap())
}

#[test]
fn the_story() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let expected = |blocks: u64, count: u64, steps: u64, peak: u64| {
        vec![serde_json::json!({
            "blocks": blocks, "count": count, "segments": blocks, "steps": steps, "peak": peak,
        })]
    };
    // 13 segments with a block each, and 3 of them freed again, which is two steps for the block.
    for (args, all) in [
        (&[][..], expected(10 * MIB, 10, 2 * 13 + 3 * 3, 10 * MIB)),
        (&["--kind", "async"], expected(3 * MIB, 3, 6, 3 * MIB)),
        (&["--to", "2s"], expected(10 * MIB, 10, 20, 10 * MIB)),
        (
            &["--from", "2s", "--to", "4s"],
            expected(7 * MIB, 7, 9, 10 * MIB),
        ),
    ] {
        if let Some(found) = snapshot(&trace, args) {
            assert_eq!(found, all, "{args:?}");
        }
    }
}

/// An expandable segment: reserved addresses, memory mapped piece by piece, a block over a border,
/// the last piece unmapped; beside it an ordinary segment, and memory that nobody mapped.
#[test]
fn expandable_segments_are_one() {
    const AT: u64 = 0x7f00_0000_0000;
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let allocator = file.stack(&[native(2, 0x10), native(4, 9), native(1, 3)]);
    let program = file.program_stack(0x500);
    let mut mapped = Vec::new();
    for piece in 0..3u64 {
        file.at(SECOND * (piece + 1));
        let physical = file.alloc_at(Kind::Vmm, piece + 1, 2 * MIB, allocator);
        let mut mapping = allocation(Kind::Mapping, AT + piece * 2 * MIB, 2 * MIB, allocator);
        mapping.aux = piece + 1;
        mapped.push((physical, file.event(mapping)));
    }
    let across = file
        .at(5 * SECOND)
        .alloc_at(Kind::Torch, AT + MIB, 2 * MIB, program);
    let gone = file.alloc_at(Kind::Torch, AT + 4 * MIB, MIB, program);
    file.at(6 * SECOND).free(&gone);
    file.free(&mapped[2].1);
    file.free(&mapped[2].0);
    let failed = file.free(&across);
    file.event(Record {
        op: Op::Restore as u8,
        ..across
    });
    assert_eq!(failed.ended_seq(), across.seq);
    let segment = file.at(7 * SECOND).alloc(Kind::Device, 20 * MIB, allocator);
    file.alloc_at(Kind::Torch, segment.key + 512, 1024, program);
    file.alloc_at(Kind::Vmm, 9, 4 * MIB, program);
    file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 1 << 40, program)
    });
    let trace = file.exit().write(dir.path(), "a.vrt");
    let Some(found) = snapshot(&trace, &[]) else {
        return;
    };
    let expected = serde_json::json!({
        "blocks": 6 * MIB + 1024, "count": 3, "segments": 28 * MIB, "steps": 11, "peak": 7 * MIB,
    });
    let mut found = found[0].clone();
    // What is mapped nowhere has no history: it is there all the time.
    assert!(found["peak"].as_u64().unwrap() >= 7 * MIB);
    found["peak"] = (7 * MIB).into();
    assert_eq!(found, expected);
}

#[test]
fn names_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let trace = hostile().write(dir.path(), "a.vrt");
    snapshot(&trace, &[]);
}

#[test]
fn sums_are_those_of_leaks() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, size, length) in [
        (1, 4 << 20, 3_000),
        (2, 4 << 20, 3_000),
        (3, 1 << 20, 9_000),
        (5, 1 << 20, 15_000),
        (7, 1 << 20, 15_000),
    ] {
        let trace = random(seed, size, length).write(dir.path(), "a.vrt");
        let leaks = json(
            &trace,
            &["leaks", "--to", "end", "--no-builtin-suppressions"],
        );
        for device in 0..2u64 {
            let mut sums = (0, 0);
            for group in leaks["groups"].as_array().unwrap() {
                // What ended with its context is gone.
                if group["device"] == device && group["end"] == "live" {
                    sums.0 += group["bytes"].as_u64().unwrap();
                    sums.1 += group["count"].as_u64().unwrap();
                }
            }
            let only = device.to_string();
            let Some(found) = snapshot(&trace, &["--device", &only]) else {
                return;
            };
            let found = &found[device as usize];
            let is = (
                found["blocks"].as_u64().unwrap(),
                found["count"].as_u64().unwrap(),
            );
            assert_eq!(is, sums, "seed {seed}, GPU {device}");
        }
    }
}

#[test]
fn one_process_a_file() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    story().write(dir.path(), "b.vrt");
    let out = vramtrace(&["export", "-o", "x.pickle", "a.vrt", "b.vrt"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(!dir.path().join("x.pickle").exists());
}
