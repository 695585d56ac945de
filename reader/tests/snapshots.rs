//! A snapshot of a trace says what the trace says, and with it `oom` knows what a log has forgotten.

#![allow(missing_docs)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use support::*;
use vramtrace_format::Op;
use vramtrace_format::cold::{Cold, Snapshot};
use vramtrace_format::record::{Kind, Record};
use vramtrace_reader::trace::Trace;

/// Blocks by three stacks, some freed; then an allocation that failed, as event `failed`.
fn story() -> (TraceFile, u64) {
    let mut file = TraceFile::new(1 << 20);
    let stacks: Vec<u32> = (0..3).map(|n| file.program_stack(0x100 + n)).collect();
    for round in 0..300u64 {
        file.at(round * SECOND / 100);
        let entry = file.alloc(Kind::Device, 1 << 20, stacks[round as usize % 3]);
        if round % 4 != 0 {
            file.free(&entry);
        }
    }
    let failed = file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 5 << 30, stacks[1])
    });
    (file, failed.seq)
}

fn snapshot_of(trace: &Path, to: &Path) -> PathBuf {
    let trace = Trace::open(trace).unwrap();
    let mut file = File::create(to).unwrap();
    trace.write_snapshot(&mut file).unwrap();
    to.to_owned()
}

fn json(command: &str, name: &str, directory: &Path) -> serde_json::Value {
    let out = vramtrace(&[command, "--json", name], directory);
    serde_json::from_slice(&out.stdout).unwrap()
}

/// All that an answer says but of whom it is.
fn answer(command: &str, name: &str, directory: &Path) -> serde_json::Value {
    let mut document = json(command, name, directory);
    for field in ["processes", "notes"] {
        document[field] = serde_json::Value::Null;
    }
    document
}

#[test]
fn it_says_what_the_trace_says() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().0.write(dir.path(), "a.vrt");
    snapshot_of(&trace, &dir.path().join("copy"));
    for command in [
        "leaks",
        "peak",
        "timeline",
        "churn",
        "growth",
        "fragmentation",
    ] {
        let [of_copy, of_trace] = ["copy", "a.vrt"].map(|name| answer(command, name, dir.path()));
        assert_eq!(of_copy, of_trace, "{command}");
    }
    let check = json("check", "copy", dir.path());
    assert_eq!(check["traces"][0]["verdict"], "whole", "{check:#}");
    assert_eq!(
        json("leaks", "copy", dir.path())["processes"][0]["end"],
        "snapshot"
    );
    // And one of that again.
    snapshot_of(&dir.path().join("copy"), &dir.path().join("again"));
    let [again, first] = ["again", "copy"].map(|name| answer("leaks", name, dir.path()));
    assert_eq!(again, first);
}

/// As the recorder leaves it: the snapshot of the failure, and a trace that went on until its log had
/// forgotten it.
#[test]
fn it_knows_what_the_log_has_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, failed) = story();
    let before = file.write(dir.path(), "before.vrt");
    let opened = Trace::open(&before).unwrap();
    let mut contents = opened.contents().unwrap();
    contents.add(&Cold::Snapshot(Snapshot {
        number: 1,
        failure: failed,
        seq: failed,
        unix_ns: START,
        trace: "a.vrt".into(),
    }));
    let mut bytes = vec![0; contents.layout().file_size as usize];
    contents
        .write(opened.header(), |at, piece| {
            bytes[at as usize..][..piece.len()].copy_from_slice(piece);
            Ok::<(), ()>(())
        })
        .unwrap();
    std::fs::write(dir.path().join("a.vrt.oom-1"), bytes).unwrap();
    std::fs::remove_file(&before).unwrap();
    let stack = file.program_stack(0x900);
    for _ in 0..4000 {
        let entry = file.alloc(Kind::Device, 512, stack);
        file.free(&entry);
    }
    file.exit();
    file.write(dir.path(), "a.vrt");
    let document = json("oom", "a.vrt", dir.path());
    let failure = &document["failures"][0];
    assert_eq!(document["failures"].as_array().unwrap().len(), 1);
    assert_eq!(document["forgotten"], 0);
    assert_eq!(failure["event"], failed);
    assert_eq!(failure["fate"], "went-on");
    assert_eq!(failure["later_allocations"], 4000);
    assert_eq!(failure["held"]["source"], "snapshot");
    assert_eq!(failure["held"]["used"]["bytes"], 75 * MIB);
    assert_eq!(failure["held"]["groups"].as_array().unwrap().len(), 3);
    // Damaged, it is said, and the rest is answered.
    std::fs::write(dir.path().join("a.vrt.oom-1"), "VRAMTRC").unwrap();
    let (code, said) = run(&["oom", "a.vrt"], dir.path());
    assert!(code == 0 && said.contains("a.vrt.oom-1"), "{code} {said}");
    assert!(said.contains("forgotten everything"), "{said}");
}

#[test]
fn it_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    story().0.write(dir.path(), "a.vrt");
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    for expected in ["a.vrt.snapshot-1", "a.vrt.snapshot-2"] {
        let (code, said) = run(&["snapshot", "a.vrt"], dir.path());
        assert!(code == 0 && said.contains(expected), "{said}");
    }
    assert_eq!(names(), ["a.vrt", "a.vrt.snapshot-1", "a.vrt.snapshot-2"]);
    // Commands do not take them for further processes.
    let all = json("leaks", ".", dir.path());
    assert_eq!(all["processes"].as_array().unwrap().len(), 1);
    std::fs::write(dir.path().join("x"), "precious").unwrap();
    let (code, said) = run(&["snapshot", "a.vrt", "-o", "x"], dir.path());
    assert!(code == 2 && said.contains("-f"), "{said}");
    assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"precious");
    assert_eq!(
        run(&["snapshot", "-f", "a.vrt", "-o", "x"], dir.path()).0,
        0
    );
    assert_eq!(
        run(&["snapshot", "a.vrt", "-o", "no/where"], dir.path()).0,
        3
    );
    assert_eq!(run(&["snapshot", "4194305"], dir.path()).0, 3);
    // What cannot be copied exactly is not.
    let cut = std::fs::read(dir.path().join("a.vrt")).unwrap();
    std::fs::write(dir.path().join("cut.vrt"), &cut[..400_000]).unwrap();
    let (code, said) = run(&["snapshot", "cut.vrt"], dir.path());
    assert!(code == 3 && said.contains("cut.vrt"), "{code} {said}");
    assert_eq!(names().len(), 5);
}
