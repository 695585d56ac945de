//! Differences: by hand, and against a model that remembers everything.

#![allow(missing_docs, dead_code)]

mod support;
#[path = "support/week.rs"]
#[allow(dead_code)]
mod week;

use std::collections::BTreeMap;
use support::*;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::Sum;
use vramtrace_reader::analysis::diff::{Diff, Side};
use vramtrace_reader::analysis::leaks::{Options, Window};
use vramtrace_reader::analysis::moment::{Found, Past};
use vramtrace_reader::model::Process;
use vramtrace_reader::report::frames::Frames;
use vramtrace_reader::trace::Trace;
use week::Random;

/// A Python program of some version: its functions lie elsewhere in the tables, and its lines have
/// moved.
struct Version {
    file: TraceFile,
    moved: u32,
    first_code: u32,
}

impl Version {
    fn new(moved: u32, first_code: u32) -> Version {
        let mut file = TraceFile::new(1 << 20);
        for (n, function) in ["step", "load", "log", "<module>"].into_iter().enumerate() {
            file.cold(Cold::PythonCode(cold::PythonCode {
                id: first_code + n as u32,
                file: format!("/builds/{first_code}/app/train.py"),
                function: function.into(),
                first_line: 1,
            }));
        }
        Version {
            file,
            moved,
            first_code,
        }
    }

    fn hold(&mut self, function: u32, line: u32, kind: Kind, sizes: &[u64]) {
        let frame = |function, line, entry| Frame::Python {
            code: self.first_code + function,
            line,
            entry,
        };
        let frames = [frame(function, line + self.moved, false), frame(3, 1, true)];
        let stack = self.file.stack(&frames);
        for &size in sizes {
            self.file.alloc(kind, size, stack);
        }
    }
}

/// Before: step at two lines, load, log. After: another build, in which step's lines have moved and
/// one of them holds more, load is gone, log holds less, and something pinned is new.
fn versions() -> [TraceFile; 2] {
    let mut before = Version::new(0, 1);
    before.hold(0, 10, Kind::Device, &[MIB]);
    before.hold(0, 20, Kind::Device, &[MIB, MIB]);
    before.hold(1, 30, Kind::Device, &[4 * MIB]);
    before.hold(2, 40, Kind::Async, &[MIB, MIB, MIB]);
    let mut after = Version::new(10, 21);
    after.hold(2, 40, Kind::Async, &[MIB]);
    after.hold(0, 10, Kind::Device, &[MIB]);
    after.hold(0, 20, Kind::Device, &[9 * MIB, MIB]);
    after.hold(3, 50, Kind::Pinned, &[512]);
    before.file.exit();
    after.file.exit();
    [before.file, after.file]
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let [mut before, mut after] = versions();
    before.write(dir.path(), "a.vrt");
    after.write(dir.path(), "b.vrt");
    let expected = "\
before: train (pid 4711) on node7, traced for 0 ns, exited
after: train (pid 4711) on node7, traced for 0 ns, exited

+8.00 MiB  grown: 2.00 MiB in 2 allocations → 10.00 MiB in 2 allocations
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    #0  step  /builds/21/app/train.py:30
    #1  <module>  /builds/21/app/train.py:1

−4.00 MiB  gone: 4.00 MiB in 1 allocation
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    #0  load  /builds/1/app/train.py:30
    #1  <module>  /builds/1/app/train.py:1

−2.00 MiB  shrunk: 3.00 MiB in 3 allocations → 1.00 MiB in 1 allocation
    cudaMallocAsync · async memory (framework layer) · GPU 0 (NVIDIA H100)
    #0  log  /builds/21/app/train.py:50
    #1  <module>  /builds/21/app/train.py:1

+512 B  new: 512 B in 1 allocation
    cudaMallocHost · pinned host memory
    #0  <module>  /builds/21/app/train.py:60
    #1  <module>  /builds/21/app/train.py:1

Unchanged: 1 group, 1.00 MiB in 1 allocation
SUMMARY: GPU memory +2.00 MiB (10.00 MiB → 12.00 MiB), page-locked host memory +512 B (0 B → 512 B); \
groups: 1 new, 1 grown, 1 shrunk, 1 gone
Next: vramtrace leaks b.vrt
";
    let (code, text) = run(&["diff", "a.vrt", "b.vrt"], dir.path());
    assert_eq!(text, expected);
    assert_eq!(code, 0);
    let (_, text) = run(&["diff", "--json", "a.vrt", "b.vrt"], dir.path());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], "vramtrace.diff/1");
    let changes = document["changes"].as_array().unwrap();
    let brief: Vec<_> = changes
        .iter()
        .map(|change| {
            (
                change["change"].as_str().unwrap(),
                change["delta"].as_i64().unwrap(),
            )
        })
        .collect();
    let mib = MIB as i64;
    let expected = [
        ("grown", 8 * mib),
        ("gone", -4 * mib),
        ("shrunk", -2 * mib),
        ("new", 512),
    ];
    assert_eq!(brief, expected);
    assert_eq!(document["after"]["total"]["gpu"]["bytes"], 12 * MIB);
    assert_eq!(
        (&changes[1]["shown"], &changes[0]["shown"]),
        (&"before".into(), &"after".into())
    );
}

#[test]
fn what_fails_for_growth() {
    let dir = tempfile::tempdir().unwrap();
    let [mut before, mut after] = versions();
    before.write(dir.path(), "a.vrt");
    after.write(dir.path(), "b.vrt");
    let diff = |more: &[&str]| run(&[&["diff", "--fail-if-grown"], more].concat(), dir.path()).0;
    assert_eq!(diff(&["a.vrt", "b.vrt"]), 1);
    assert_eq!(diff(&["a.vrt", "a.vrt"]), 0);
    assert_eq!(diff(&["--tolerance", "8MiB", "a.vrt", "b.vrt"]), 0);
    assert_eq!(
        diff(&["--tolerance", "8MiB", "--by", "kind", "b.vrt", "a.vrt"]),
        0
    );
    assert_eq!(diff(&["--layer", "framework", "a.vrt", "b.vrt"]), 0);
    // log, in the other direction.
    assert_eq!(diff(&["--layer", "framework", "b.vrt", "a.vrt"]), 1);
    let patterns = dir.path().join("known");
    std::fs::write(&patterns, "leak:step\nleak:<module>\n").unwrap();
    assert_eq!(diff(&["--suppressions", "known", "a.vrt", "b.vrt"]), 0);
    TraceFile::new(1 << 20).write(dir.path(), "none.vrt");
    assert_eq!(diff(&["none.vrt", "none.vrt"]), 4);
    before.control().events_lost[0] = 1;
    before.write(dir.path(), "lost.vrt");
    assert_eq!(diff(&["lost.vrt", "lost.vrt"]), 4);
    assert_eq!(diff(&["a.vrt"]), 2);
}

#[test]
fn as_many_sites_belong_together_in_their_order_others_by_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let changes = |before: &[u32], after: &[u32]| -> Vec<(String, i64)> {
        let write = |name: &str, lines: &[u32]| {
            let mut version = Version::new(0, 1);
            for &line in lines {
                version.hold(0, line, Kind::Device, &[u64::from(line)]);
            }
            version.file.write(dir.path(), name);
        };
        write("a.vrt", before);
        write("b.vrt", after);
        let (_, text) = run(&["diff", "--json", "a.vrt", "b.vrt"], dir.path());
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let changes = document["changes"].as_array().unwrap().iter();
        changes
            .map(|change| {
                let what = change["change"].as_str().unwrap().to_owned();
                (what, change["delta"].as_i64().unwrap())
            })
            .collect()
    };
    let grown = |delta| ("grown".to_owned(), delta);
    assert_eq!(changes(&[10, 20], &[20, 30]), [grown(10), grown(10)]);
    assert_eq!(changes(&[10, 20], &[10, 15, 20]), [("new".to_owned(), 15)]);
    assert_eq!(
        changes(&[10, 20, 30], &[10, 30]),
        [("gone".to_owned(), -20)]
    );
}

fn open(file: &mut TraceFile) -> Process {
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    Process::read(Trace::open(&path).unwrap())
}

/// Live bytes and allocations by the frame that tells stacks apart.
type Held = BTreeMap<u64, Sum>;

/// A program of random allocations and frees, and what each of its stacks held after every event.
fn random(seed: u64, events: u64) -> (TraceFile, Vec<Held>) {
    let mut random = Random(seed);
    let mut file = TraceFile::new(1 << 20);
    let offsets: Vec<u64> = (0..6).map(|n| 0x500 + 16 * n).collect();
    let stacks: Vec<u32> = offsets
        .iter()
        .map(|&offset| file.program_stack(offset))
        .collect();
    let mut live: Vec<(usize, Record)> = Vec::new();
    let mut held = Held::new();
    let mut after = vec![held.clone()];
    for time in 1..=events {
        file.at(time);
        if !live.is_empty() && random.below(60) < live.len() as u64 {
            let (stack, entry) = live.swap_remove(random.below(live.len() as u64) as usize);
            file.free(&entry);
            let sum = held.get_mut(&offsets[stack]).unwrap();
            (sum.bytes, sum.count) = (sum.bytes - entry.size, sum.count - 1);
            held.retain(|_, sum| sum.count > 0);
        } else {
            let stack = random.below(stacks.len() as u64) as usize;
            let kind = [Kind::Device, Kind::Async][stack % 2];
            let entry = file.alloc(kind, 1 + random.below(1000), stacks[stack]);
            held.entry(offsets[stack]).or_default().add(entry.size, 1);
            live.push((stack, entry));
        }
        after.push(held.clone());
    }
    (file, after)
}

#[test]
fn every_difference_is_what_a_naive_model_says() {
    let mut forgotten = 0;
    for seed in 0..20 {
        // The event log holds some 1,900 and 3,200 events.
        let (mut file, held) = random(seed, 8_000);
        let (mut other, other_held) = random(seed + 100, 300);
        let (process, other) = ([open(&mut file)], [open(&mut other)]);
        let mut random = Random(seed);
        for _ in 0..8 {
            let at = [random.below(8_001), random.below(8_001)];
            let windows = at.map(|seq| Past::of(&process[0], Found::Event(seq)));
            let [Ok(from), Ok(to)] = windows else {
                forgotten += 1;
                continue;
            };
            let window = |to| {
                [Window {
                    from: None,
                    to: Some(to),
                }]
            };
            let windows = [window(from), window(to)];
            let [before, after] = [0, 1].map(|side| Side {
                processes: &process,
                windows: &windows[side],
                moment: None,
            });
            compare(
                &before,
                &after,
                &held[at[0] as usize],
                &held[at[1] as usize],
            );
            let end = Side {
                processes: &other,
                windows: &[],
                moment: None,
            };
            compare(&before, &end, &held[at[0] as usize], &other_held[300]);
        }
    }
    assert!((20..140).contains(&forgotten), "{forgotten} of 160");
}

fn compare(before: &Side<'_>, after: &Side<'_>, was: &Held, is: &Held) {
    let options = Options::default();
    let diff = Diff::of(before, after, &options, None, 0, &mut Frames::default());
    let mut found = BTreeMap::new();
    for change in &diff.changes {
        let Frame::Native { offset, .. } = change.placed.group.stack.frames[0] else {
            panic!("{change:?}");
        };
        assert_eq!(
            found.insert(offset, (change.before.known, change.after.known)),
            None
        );
    }
    let mut expected = BTreeMap::new();
    let mut same = Sum::default();
    for &offset in was.keys().chain(is.keys()) {
        let of = |held: &Held| held.get(&offset).copied().unwrap_or_default();
        let (was, is) = (of(was), of(is));
        // A group that holds as many bytes as before has not changed, unless it was nothing.
        if was.bytes == is.bytes && was.count > 0 && is.count > 0 {
            same = is;
        } else {
            expected.insert(offset, (was, is));
        }
    }
    assert_eq!(found, expected);
    if diff.same.0 == 1 {
        assert_eq!(diff.same.1, same);
    }
    let sum = |held: &Held| {
        let mut sum = Sum::default();
        held.values().for_each(|own| sum.merge(*own));
        sum
    };
    assert_eq!((diff.before.gpu, diff.after.gpu), (sum(was), sum(is)));
}
