//! Memory that grew and was freed before the end, as a local variable's is when its function returns.

#![allow(missing_docs)]

mod support;

use serde_json::Value;
use std::path::Path;
use support::*;
use vramtrace_format::record::{Kind, Record};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

/// A loop of 300 steps: each keeps 1 MiB in one stack and 2 MiB in another that share their callers, and
/// allocates and frees 40 MiB in a third. All that was kept is freed at the end of the loop.
fn training(ring: u64) -> TraceFile {
    let mut file = TraceFile::new(ring);
    let stack = |file: &mut TraceFile, inner: u64| {
        let frames = [inner, 0x900, 0xa00].map(|offset| native(1, offset));
        file.stack(&frames)
    };
    let (one, two) = (stack(&mut file, 0x500), stack(&mut file, 0x600));
    let temporary = file.program_stack(0x700);
    let model = file.program_stack(0x800);
    file.at(SECOND).alloc(Kind::Device, 8 * MIB, model);
    let mut kept: Vec<Record> = Vec::new();
    for step in 0..300 {
        file.at(2 * SECOND + step * SECOND / 100);
        kept.push(file.alloc(Kind::Device, MIB, one));
        kept.push(file.alloc(Kind::Device, 2 * MIB, two));
        let brief = file.alloc(Kind::Device, 40 * MIB, temporary);
        file.free(&brief);
    }
    file.at(6 * SECOND);
    for entry in &kept {
        file.free(entry);
    }
    file.at(7 * SECOND).exit();
    file
}

fn json(args: &[&str], directory: &Path) -> Value {
    let ran = vramtrace(args, directory);
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
}

#[test]
fn growth_looks_at_the_peak() {
    let dir = tempfile::tempdir().unwrap();
    training(4 << 20).write(dir.path(), "t.vrt");
    let (code, text) = run(&["growth", "t.vrt"], dir.path());
    assert_eq!(code, 0, "{text}");
    for part in [
        "2 groups keep growing",
        "this is about its peak (at 5.0 s), when 948.00 MiB were live; 8.00 MiB of that were left at its end",
        "100 % of what grows above, 2 of 2 groups, comes through:",
        " --to @",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let document = json(&["growth", "--json", "t.vrt"], dir.path());
    let grows = |group: &&Value| group["shape"] == "growing";
    let groups = document["groups"].as_array().unwrap();
    let sizes: Vec<_> = groups
        .iter()
        .filter(grows)
        .map(|group| &group["bytes"])
        .collect();
    assert_eq!(sizes, [&Value::from(600 * MIB), &Value::from(300 * MIB)]);
    assert_eq!(document["common"]["frames"].as_array().unwrap().len(), 2);
    // Where the end is asked about, it is the end.
    let document = json(&["growth", "--json", "--to", "end", "t.vrt"], dir.path());
    assert!(
        !document["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|group| grows(&group))
    );
}

#[test]
fn what_is_older_than_the_event_log_says_nothing_of_when_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    // Room for some 900 of the 1,800 events.
    training(180 << 10).write(dir.path(), "t.vrt");
    let document = json(&["growth", "--json", "t.vrt"], dir.path());
    let groups = document["groups"].as_array().unwrap();
    let grows = |group: &&Value| group["shape"] == "growing";
    assert_eq!(groups.iter().filter(grows).count(), 2, "{document:#}");
    let (_, text) = run(&["leaks", "--to", "peak", "t.vrt"], dir.path());
    assert!(text.contains("are older than the event log"), "{text}");
}

#[test]
fn leaks_says_what_it_does_not_show() {
    let dir = tempfile::tempdir().unwrap();
    training(4 << 20).write(dir.path(), "t.vrt");
    let (_, text) = run(&["leaks", "t.vrt"], dir.path());
    assert!(text.contains("8.00 MiB in 1 allocation leaked"), "{text}");
    assert!(
        text.contains("Freed before the end: 940.00 MiB of the 948.00 MiB that were live at the peak of GPU 0 (at 5.0 s, device layer)"),
        "{text}"
    );
    assert!(text.contains("Next: vramtrace growth "), "{text}");
    let document = json(&["leaks", "--json", "t.vrt"], dir.path());
    let [back] = &document["freed_before_end"].as_array().unwrap()[..] else {
        panic!("{document:#}")
    };
    assert_eq!(back["peak_bytes"], 948 * MIB);
    assert_eq!(back["held_bytes"], 8 * MIB);
    // Somebody who asks about a part of it gets that.
    for more in [["--layer", "device"], ["--to", "peak"], ["--to", "end"]] {
        let args = [&["leaks", "--json", "t.vrt"][..], &more].concat();
        assert_eq!(
            json(&args, dir.path())["freed_before_end"],
            Value::Array(vec![]),
            "{more:?}"
        );
    }
}

#[test]
fn a_process_that_keeps_most_is_looked_at_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    for step in 0..100 {
        file.at(SECOND + step * SECOND / 10)
            .alloc(Kind::Device, MIB, stack);
    }
    file.exit();
    file.write(dir.path(), "t.vrt");
    let document = json(&["leaks", "--json", "t.vrt"], dir.path());
    assert_eq!(document["freed_before_end"], Value::Array(vec![]));
    let (_, text) = run(&["growth", "t.vrt"], dir.path());
    assert!(!text.contains("its peak"), "{text}");
    assert!(text.contains("1 group keeps growing"), "{text}");
}
