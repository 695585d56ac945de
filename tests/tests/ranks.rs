//! Several ranks of one program: do reports say which of them is different?

use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use vramtrace_tests::{Run, Scratch, program, vramtrace};

const MIB: u64 = 1 << 20;

/// A directory with the traces of ranks that keep so many MiB each.
fn ranks(kept: &[u64]) -> Scratch {
    let scratch = Scratch::new();
    for (rank, mib) in kept.iter().enumerate() {
        let trace = scratch.path().join(format!("rank{rank}.vrt"));
        Run::new(program("rank"))
            .args([mib.to_string()])
            .env("VRAMTRACE_OUTPUT", trace)
            .env("RANK", rank.to_string())
            .succeeds();
    }
    scratch
}

fn text(arguments: &[&str], traces: &Path) -> String {
    let arguments = arguments.iter().map(OsStr::new);
    let output = vramtrace(arguments.chain([traces.as_os_str()]));
    String::from_utf8(output.stdout).expect("text")
}

fn json(arguments: &[&str], traces: &Path) -> Value {
    let all = [arguments, &["--json"]].concat();
    serde_json::from_str(&text(&all, traces)).expect("a document")
}

/// Rank 2 leaks four times as much as the others.
#[test]
fn the_one_that_is_different_is_named() {
    let scratch = ranks(&[10, 10, 40, 10]);
    for command in ["leaks", "peak", "summary"] {
        let said = text(&[command], scratch.path());
        for line in [
            "    rank 0    10.00 MiB\n",
            "    rank 2    40.00 MiB   30.00 MiB more than usual (4.0 times as much)\n",
            "    rank 2 is different from the others\n",
        ] {
            assert!(said.contains(line), "{command}: {line}{said}");
        }
        let found = &json(&[command], scratch.path())["ranks"];
        assert_eq!(found["different"], serde_json::json!([2]), "{command}");
        assert_eq!(found["usual_bytes"], 10 * MIB, "{command}");
        let bytes = |rank: usize| found["all"][rank]["bytes"].as_u64();
        let all: Vec<Option<u64>> = (0..4).map(bytes).collect();
        assert_eq!(
            all,
            [10, 10, 40, 10].map(|mib| Some(mib * MIB)),
            "{command}"
        );
    }
}

/// `--by rank` has one group for each, the largest first.
#[test]
fn groups_by_rank() {
    let scratch = ranks(&[10, 10, 40, 10]);
    for arguments in [&["leaks", "--by", "rank"][..], &["peak", "--by", "rank"]] {
        let found = json(arguments, scratch.path());
        let groups: Vec<&Value> = match arguments[0] {
            "leaks" => found["groups"].as_array().expect("groups").iter().collect(),
            _ => {
                let peaks = found["peaks"].as_array().expect("peaks").iter();
                peaks.filter_map(|peak| peak["groups"].get(0)).collect()
            }
        };
        let mut held: Vec<(&str, u64)> = groups
            .iter()
            .map(|group| {
                let value = group["value"].as_str().expect("a rank");
                (value, group["bytes"].as_u64().expect("bytes"))
            })
            .collect();
        if arguments[0] == "leaks" {
            assert_eq!(held[0], ("rank 2", 40 * MIB), "{arguments:?}");
        }
        held.sort_unstable();
        let expected: Vec<(&str, u64)> = vec![
            ("rank 0", 10 * MIB),
            ("rank 1", 10 * MIB),
            ("rank 2", 40 * MIB),
            ("rank 3", 10 * MIB),
        ];
        assert_eq!(held, expected, "{arguments:?}");
    }
}

#[test]
fn equal_ranks_and_single_processes() {
    let scratch = ranks(&[10, 10, 10]);
    let said = text(&["leaks"], scratch.path());
    assert!(
        said.contains("no rank is different from the others"),
        "{said}"
    );
    let one = scratch.path().join("rank0.vrt");
    let said = text(&["leaks"], &one);
    assert!(!said.contains("By rank"), "{said}");
    assert!(json(&["leaks"], &one).get("ranks").is_none());
}
