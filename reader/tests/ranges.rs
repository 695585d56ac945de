//! NVTX ranges of traces that can be checked by hand.

#![allow(missing_docs)]

mod support;

use serde_json::Value;
use support::*;
use vramtrace_format::Section;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Op, Record};

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
