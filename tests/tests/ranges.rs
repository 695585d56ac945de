//! NVTX ranges and marks: what the program says that it did in which range is what the trace says.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use vramtrace_tests::{Build, Finished, Leaks, Run};

/// Bytes and number of allocations by range.
type ByRange = BTreeMap<String, (u64, u64)>;

/// `in BYTES COUNT RANGE` lines.
fn told(output: &str) -> ByRange {
    let mut told = ByRange::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("in ")) {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect(line);
        let (bytes, count): (u64, u64) = (number(), number());
        let sum = told
            .entry(words.next().expect(line).to_owned())
            .or_default();
        *sum = (sum.0 + bytes, sum.1 + count);
    }
    told
}

fn groups(trace: &Path) -> Vec<Value> {
    let leaks = Leaks::of(trace, &["--by", "range"]);
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    leaks.json["groups"].as_array().expect("groups").clone()
}

fn by_range(trace: &Path) -> ByRange {
    let mut sums = ByRange::new();
    for group in groups(trace) {
        let number = |field: &str| group[field].as_u64().expect("a number");
        let range = group["value"].as_str().expect("a range").to_owned();
        let none = sums.insert(range, (number("bytes"), number("count")));
        assert_eq!(none, None, "a range is there twice");
    }
    sums
}

fn entered(trace: &Path, range: &str) -> Option<u64> {
    let groups = groups(trace);
    let group = groups.iter().find(|group| group["value"] == range);
    group.unwrap_or_else(|| panic!("{range}: {groups:#?}"))["entered"].as_u64()
}

fn ranges() -> Build {
    Build::of("ranges")
}

fn runs(arguments: &[&str]) -> Finished {
    let finished = Run::new(ranges().build()).args(arguments).succeeds();
    assert_eq!(finished.stderr, "");
    finished
}

/// The program's own account is the trace's.
fn is_told(finished: &Finished) {
    let told = told(&finished.stdout);
    assert!(!told.is_empty());
    assert_eq!(by_range(&finished.trace()), told);
}

#[test]
fn every_kind_of_range() {
    let finished = runs(&["kinds"]);
    is_told(&finished);
    assert_eq!(entered(&finished.trace(), "again"), Some(41));
    assert_eq!(entered(&finished.trace(), "no range"), None);
}
