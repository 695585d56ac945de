//! Leak reports of traces that can be checked by hand.

#![allow(missing_docs)]

mod support;

use std::path::Path;
use support::*;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_reader::analysis::leaks::{
    By, Cached, EntryEnd, Leaks, Options, Point, Suspicion, leaks,
};
use vramtrace_reader::analysis::{Filter, Sum};
use vramtrace_reader::model::{NoNames, Process, Unhidden};
use vramtrace_reader::trace::Trace;

fn process(file: &mut TraceFile) -> Process {
    let dir = tempfile::tempdir().unwrap();
    Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap())
}

fn found(file: &mut TraceFile, options: &Options) -> Leaks {
    leaks(&process(file), options, &mut NoNames)
}

fn sum(bytes: u64, count: u64) -> Sum {
    Sum { bytes, count }
}

/// A program with one leak that grows, one freed allocation per second, and pinned memory.
fn growing() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let (a, b) = (file.program_stack(0x500), file.program_stack(0x600));
    for second in 1..=30 {
        file.at(second * SECOND);
        file.alloc(Kind::Device, 10 * MIB, a);
        let freed = file.alloc(Kind::Device, 7 * MIB, b);
        file.free(&freed);
    }
    file.at(31 * SECOND).alloc(Kind::Pinned, 4096, b);
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    growing().write(dir.path(), "a.vrt");
    let expected = "\
train (pid 4711) on node7, traced for 31.0 s, exited

300.00 MiB in 30 allocations leaked
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    first at 1.0 s, last at 30.0 s · thread train (4711) · kept growing, 10.00 MiB a second
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

4.00 KiB in 1 allocation leaked
    cudaMallocHost · pinned host memory
    at 31.0 s · thread train (4711)
    #0  ??  (train+0x600)
    #1  ??  (train+0x1000)

note: /opt/app/train is not on this machine; its functions are not named. Put the file, or its \
debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
0101010101010101010101010101010101010101)
SUMMARY: 300.00 MiB in 30 allocations of GPU memory leaked, 4.00 KiB in 1 allocation of \
page-locked host memory
Next: vramtrace timeline a.vrt
";
    assert_eq!(
        run(&["leaks", "a.vrt"], dir.path()),
        (0, expected.to_owned())
    );
}

#[test]
fn the_document() {
    let dir = tempfile::tempdir().unwrap();
    growing().write(dir.path(), "a.vrt");
    let (code, text) = run(&["leaks", "--json", "a.vrt"], dir.path());
    assert_eq!(code, 0);
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ages = [0, 1].map(|at| {
        document["groups"][at]
            .as_object_mut()
            .unwrap()
            .remove("age")
    });
    let [Some(age), Some(pinned)] = ages else {
        panic!("{ages:?}");
    };
    assert_eq!(
        (&age["shape"], &pinned["shape"]),
        (&"growing".into(), &"few".into())
    );
    assert_eq!(
        age["made"],
        serde_json::json!({"bytes": 300 * MIB, "count": 30})
    );
    let slope = age["slope"].as_f64().unwrap();
    assert!((slope - 10.0 * MIB as f64).abs() < 100.0, "{age:#}");
    let expected = serde_json::json!({
        "schema": "vramtrace.leaks/1",
        "complete": true,
        "incomplete_because": [],
        "lost_events": 0,
        "point": "end",
        "from": null,
        "processes": [{
            "id": 0, "pid": 4711, "program": "/opt/app/train", "rank": null, "host": "node7",
            "start_ns": START, "duration_ns": 31 * SECOND, "end": "exited", "trace": "a.vrt",
        }],
        "devices": [{
            "id": 0, "uuid": "GPU-11111111-2222-3333-4444-555555555555", "pci": "0000:01:00.0",
            "index": 0, "name": "NVIDIA H100", "total_bytes": 80u64 << 30,
        }],
        "total": {
            "gpu": {"bytes": 300 * MIB, "count": 30},
            "host": {"bytes": 4096, "count": 1},
            "cached": {"bytes": 0, "reserved": 0, "used": 0},
            "teardown": {"bytes": 0, "count": 0},
            "corrupted": {"bytes": 0, "count": 0},
            "imports": {"bytes": 0, "count": 0},
            "mappings": {"bytes": 0, "count": 0},
            "reservations": {"bytes": 0, "count": 0},
        },
        "groups": [
            {
                "process": 0, "device": 0, "layer": "device", "kind": "device",
                "api": "cudaMalloc", "bytes": 300 * MIB, "count": 30,
                "first_ns": START + SECOND, "last_ns": START + 30 * SECOND,
                "threads": [{"id": 4711, "name": "train"}], "ranges": [],
                "suspicion": "high", "end": "live",
                "stack": [frame(0x500), frame(0x1000)],
                "stack_truncated": false, "stack_missing": null,
            },
            {
                "process": 0, "device": null, "layer": "host", "kind": "pinned",
                "api": "cudaMallocHost", "bytes": 4096, "count": 1,
                "first_ns": START + 31 * SECOND, "last_ns": START + 31 * SECOND,
                "threads": [{"id": 4711, "name": "train"}], "ranges": [],
                "suspicion": "low", "end": "live",
                "stack": [frame(0x600), frame(0x1000)],
                "stack_truncated": false, "stack_missing": null,
            },
        ],
        "omitted": {"groups": 0, "bytes": 0, "count": 0},
        "warnings": ["/opt/app/train is not on this machine; its functions are not named. Put \
            the file, or its debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
            0101010101010101010101010101010101010101)"],
        "suppressed": [],
        "freed_before_end": [],
            "caches": [],
        "torch": [],
    });
    assert_eq!(document, expected);
}

fn frame(offset: u64) -> serde_json::Value {
    serde_json::json!({
        "language": "native", "function": null, "file": null, "line": null,
        "module": "/opt/app/train", "offset": offset,
    })
}

#[test]
fn segments_count_as_their_blocks() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let allocator = file.stack(&[native(2, 1), native(3, 1), native(4, 7), native(1, 0x500)]);
    let segment = file.alloc(Kind::Device, 20 * MIB, stack);
    file.alloc_at(Kind::Torch, segment.key + 2 * MIB, 3 * MIB, stack);
    // Only cached blocks: known by the allocator's frame.
    file.alloc(Kind::Device, 2 * MIB, allocator);
    // Expandable segment: two physical allocations, a block across both.
    let base = 0x7fff_0000_0000;
    for n in 0..2 {
        file.alloc_at(Kind::Vmm, 100 + n, 2 * MIB, stack);
        let mapping = Record {
            aux: 100 + n,
            ..allocation(Kind::Mapping, base + n * 2 * MIB, 2 * MIB, stack)
        };
        file.event(mapping);
    }
    file.alloc_at(Kind::Torch, base + MIB, 2 * MIB, stack);
    file.alloc_at(Kind::Reservation, base, 90 << 30, stack);
    // The program's own.
    file.alloc(Kind::Device, 5 * MIB, stack);
    let leaks = found(&mut file, &Options::default());
    assert_eq!(leaks.gpu, sum(10 * MIB, 3));
    assert_eq!(
        leaks.caches[&0],
        Cached {
            reserved: 26 * MIB,
            unused: 21 * MIB
        }
    );
    assert_eq!(leaks.aside.mappings, sum(4 * MIB, 2));
    assert_eq!(leaks.aside.reservations, sum(90 << 30, 1));
    let kinds: Vec<_> = leaks
        .groups
        .iter()
        .map(|g| (g.kind, g.bytes, g.count))
        .collect();
    assert_eq!(
        kinds,
        [
            (Some(Kind::Torch), 5 * MIB, 2),
            (Some(Kind::Device), 5 * MIB, 1)
        ]
    );
}

#[test]
fn pools_are_caches_and_their_blocks_count() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc_at(Kind::Pool, 7, 64 * MIB, stack);
    file.alloc_at(Kind::Pool, 0x1000, 8 * MIB, stack);
    for pool in [7, 7] {
        let block = file.alloc(Kind::Async, 0, stack);
        file.free(&block);
        let key = block.key;
        file.event(Record {
            aux: pool,
            ..allocation(Kind::Async, key, 10 * MIB, stack)
        });
    }
    file.event(Record {
        aux: 0xdead,
        ..allocation(Kind::Graph, 0x9000_0000, 3 * MIB, stack)
    });
    file.alloc_at(Kind::Import, 0x5000, 77, stack);
    let leaks = found(&mut file, &Options::default());
    assert_eq!(leaks.gpu, sum(23 * MIB, 3));
    assert_eq!(leaks.caches[&0].unused, 49 * MIB);
    assert_eq!(leaks.aside.imports, sum(77, 1));
}

#[test]
fn what_ended_with_its_context_leaked_and_says_so() {
    let mut file = TraceFile::new(1 << 20);
    let (a, b) = (file.program_stack(0x500), file.program_stack(0x600));
    file.at(SECOND);
    let entries = [
        file.alloc(Kind::Device, MIB, a),
        file.alloc(Kind::Device, MIB, a),
        file.alloc(Kind::Device, 3 * MIB, b),
        file.alloc(Kind::Mapping, 9 * MIB, b),
    ];
    file.at(9 * SECOND);
    file.end(&entries[0], Op::EndByContext);
    file.end(&entries[1], Op::EndByContext);
    file.end(&entries[2], Op::EndByReset);
    file.end(&entries[3], Op::EndByContext);
    file.exit();
    let leaks = found(&mut file, &Options::default());
    assert_eq!(leaks.gpu, sum(5 * MIB, 3));
    let ends: Vec<_> = leaks
        .groups
        .iter()
        .map(|g| (g.end, g.bytes, g.count))
        .collect();
    assert_eq!(
        ends,
        [
            (Some(EntryEnd::Reset), 3 * MIB, 1),
            (Some(EntryEnd::Context), 2 * MIB, 2)
        ]
    );
    // Made, not ended, then.
    assert_eq!(leaks.groups[1].first_ns, START + SECOND);
    assert_eq!(leaks.groups[1].last_ns, START + SECOND);
}

#[test]
fn a_broken_context_is_not_a_leak() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Device, 2 * MIB, stack);
    file.event(Record {
        context: 1,
        aux: 719,
        ..control_event(Op::ContextCorrupted)
    });
    let other = Record {
        context: 2,
        ..allocation(Kind::Device, 0x40, 5, stack)
    };
    file.event(other);
    let leaks = found(&mut file, &Options::default());
    assert_eq!((leaks.gpu, leaks.corrupted), (sum(5, 1), sum(2 * MIB, 1)));
    assert_eq!(leaks.groups[0].end, Some(EntryEnd::Corrupted));
}

fn interpreted() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Note(cold::Note {
        code: "python".into(),
        text: String::new(),
    }));
    file
}

#[test]
fn what_exit_handlers_free_is_no_leak_of_a_plain_program() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let global = file.alloc(Kind::Device, MIB, stack);
    file.alloc(Kind::Device, 2 * MIB, stack);
    file.teardown();
    file.end(&global, Op::FreeInTeardown);
    let leaks = found(&mut file, &Options::default());
    assert_eq!((leaks.point, leaks.gpu), (Point::End, sum(2 * MIB, 1)));
}

#[test]
fn teardown_is_the_default_point_of_an_interpreter() {
    let mut file = interpreted();
    let stack = file.program_stack(0x500);
    let early = file.alloc(Kind::Device, MIB, stack);
    file.free(&early);
    let module_global = file.alloc(Kind::Device, 4 * MIB, stack);
    file.alloc(Kind::Device, 2 * MIB, stack);
    file.teardown();
    file.end(&module_global, Op::FreeInTeardown);
    let late = file.alloc(Kind::Device, 8 * MIB, stack);
    file.end(&late, Op::FreeInTeardown);
    file.alloc(Kind::Device, 16 * MIB, stack);
    let at_teardown = found(&mut file, &Options::default());
    assert_eq!(at_teardown.point, Point::Teardown);
    assert_eq!(at_teardown.gpu, sum(6 * MIB, 2));
    assert_eq!(at_teardown.teardown_only, sum(4 * MIB, 1));
    let at_end = found(
        &mut file,
        &Options {
            point: Some(Point::End),
            ..Options::default()
        },
    );
    assert_eq!(at_end.gpu, sum(18 * MIB, 2));
}

#[test]
fn teardown_is_exact_after_its_entries_were_overwritten() {
    let mut file = interpreted();
    let stack = file.program_stack(0x500);
    let entries: Vec<Record> = (0..500)
        .map(|_| file.alloc(Kind::Device, 1000, stack))
        .collect();
    file.teardown();
    for entry in &entries {
        file.end(entry, Op::FreeInTeardown);
    }
    for (index, slot) in file.parts().live[0].iter_mut().enumerate() {
        if slot.op == Op::FreeInTeardown as u8 && index % 3 == 0 {
            slot.op = 0;
        }
    }
    let leaks = found(&mut file, &Options::default());
    assert_eq!(
        (leaks.gpu, leaks.teardown_only),
        (sum(500_000, 500), sum(500_000, 500))
    );
}

#[test]
fn stacks_that_look_the_same_are_one_group() {
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Module(cold::Module {
        id: 9,
        ..module(1, "/opt/app/train")
    }));
    let stacks = [
        file.stack(&[native(2, 1), native(3, 1), native(1, 0x500)]),
        file.stack(&[native(2, 2), native(5, 2), native(3, 9), native(1, 0x500)]),
        file.stack(&[native(2, 1), native(9, 0x500)]),
    ];
    for stack in stacks {
        file.alloc(Kind::Device, 100, stack);
    }
    let leaks = found(&mut file, &Options::default());
    assert_eq!(leaks.groups.len(), 1);
    assert_eq!(leaks.groups[0].stack.frames, [native(1, 0x500)]);
    let all = Options {
        unhidden: Unhidden {
            cuda: true,
            native: false,
        },
        ..Options::default()
    };
    assert_eq!(found(&mut file, &all).groups.len(), 3);
}

#[test]
fn filters_and_other_groupings() {
    let mut file = growing();
    let host = Filter {
        kinds: vec![Kind::Pinned],
        ..Filter::default()
    };
    let options = Options {
        filter: host,
        ..Options::default()
    };
    let leaks = found(&mut file, &options);
    assert_eq!((leaks.gpu, leaks.host), (Sum::default(), sum(4096, 1)));
    for (by, values) in [
        (By::Kind, ["device", "pinned"]),
        (By::Device, ["GPU 0", "host"]),
        (By::Thread, ["train (4711)", "train (4711)"]),
        (By::Api, ["cudaMalloc", "cudaMallocHost"]),
        (By::Library, ["train", "train"]),
        (By::Layer, ["device", "host"]),
        (By::Python, ["no Python frame", "no Python frame"]),
    ] {
        let options = Options {
            by,
            ..Options::default()
        };
        let groups = found(&mut file, &options).groups;
        let found: Vec<_> = groups.iter().map(|g| g.value.as_deref().unwrap()).collect();
        assert_eq!(found, values, "{by:?}");
    }
}

#[test]
fn several_processes_are_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    growing().write(dir.path(), "a.vrt");
    let mut other = growing();
    other.cold(Cold::Process(cold::Process {
        rank: Some(1),
        ..support::process(4712, "/opt/app/train")
    }));
    other.write(dir.path(), "b.vrt");
    let (code, text) = run(&["leaks", "--json", "."], dir.path());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert_eq!(document["total"]["gpu"]["bytes"], 600 * MIB);
    assert_eq!(document["devices"].as_array().unwrap().len(), 1);
    assert_eq!(document["processes"][1]["rank"], 1);
    assert_eq!(document["groups"].as_array().unwrap().len(), 4);
}

#[test]
fn foreign_names_are_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = growing();
    file.cold(Cold::Process(support::process(
        1,
        "/tmp/\u{1b}[2Jevil\u{202e}\n",
    )));
    file.write(dir.path(), "a.vrt");
    let (_, text) = run(&["leaks", "a.vrt"], dir.path());
    assert!(
        text.starts_with("\\u{1b}[2Jevil\\u{202e}\\n (pid 1)"),
        "{text}"
    );
}

fn run(args: &[&str], directory: &Path) -> (i32, String) {
    let out = vramtrace(args, directory);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    (
        out.status.code().unwrap(),
        String::from_utf8(out.stdout).unwrap(),
    )
}

#[test]
fn the_report_for_continuous_integration() {
    let dir = tempfile::tempdir().unwrap();
    growing().write(dir.path(), "a.vrt");
    let mut clean = TraceFile::new(1 << 20);
    clean.cold(Cold::Process(cold::Process {
        rank: Some(1),
        ..support::process(4712, "/opt/app/<train> & co")
    }));
    let stack = clean.program_stack(0x500);
    let entry = clean.alloc(Kind::Device, MIB, stack);
    clean.free(&entry);
    clean.exit().write(dir.path(), "b.vrt");
    let args = [
        "leaks",
        "--json",
        "--junit",
        "out/junit.xml",
        "a.vrt",
        "b.vrt",
    ];
    assert_eq!(run(&args, dir.path()).0, 0);
    let written = || std::fs::read_to_string(dir.path().join("out/junit.xml")).unwrap();
    let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="vramtrace" tests="3" failures="1" errors="0">
  <testsuite name="leaks" tests="3" failures="1" errors="0">
    <testcase classname="vramtrace.leaks" name="train (pid 4711)">
      <failure message="300.00 MiB in 30 allocations of GPU memory, 4.00 KiB in 1 allocation of page-locked host memory leaked">300.00 MiB in 30 allocations leaked
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100) · pid 4711
    first at 1.0 s, last at 30.0 s · thread train (4711) · kept growing, 10.00 MiB a second
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

4.00 KiB in 1 allocation leaked
    cudaMallocHost · pinned host memory · pid 4711
    at 31.0 s · thread train (4711)
    #0  ??  (train+0x600)
    #1  ??  (train+0x1000)</failure>
    </testcase>
    <testcase classname="vramtrace.leaks" name="&lt;train&gt; &amp; co (pid 4712, rank 1)"/>
    <testcase classname="vramtrace.leaks" name="what was leaked is certain"/>
  </testsuite>
</testsuites>
"#;
    assert_eq!(written(), expected);
    // What may be is no failure, and nothing is certain of a file that cannot be read.
    std::fs::write(dir.path().join("c.vrt"), "hello").unwrap();
    let limit = ["--max-leak-bytes", "1GiB", "c.vrt"];
    let out = vramtrace(&[&args[..], &limit].concat(), dir.path());
    assert_eq!(out.status.code(), Some(3));
    let text = written();
    assert!(
        text.contains(r#"tests="3" failures="0" errors="1""#),
        "{text}"
    );
    assert!(
        text.contains(">1 trace could not be read</error>"),
        "{text}"
    );
    // A directory in its place.
    let out = vramtrace(&["leaks", "--junit", "out", "a.vrt"], dir.path());
    assert_eq!(out.status.code(), Some(2));
}

/// A training loop of a few seconds in a process that takes as long to end: it grew as long as anything
/// was allocated. What another stack outlived has stopped.
#[test]
fn what_grew_until_the_program_did_nothing_more_grows() {
    let shapes = |goes_on: bool| {
        let mut file = TraceFile::new(1 << 20);
        let (a, b) = (file.program_stack(0x500), file.program_stack(0x600));
        for step in 0..60 {
            file.at(SECOND + step * SECOND / 20)
                .alloc(Kind::Torch, MIB, a);
        }
        if goes_on {
            let freed = file.at(8 * SECOND).alloc(Kind::Torch, 512, b);
            file.free(&freed);
        }
        file.at(9 * SECOND);
        file.teardown();
        let found = found(&mut file, &Options::default());
        found.groups[0].suspicion
    };
    assert_eq!(shapes(false), Suspicion::High);
    assert_eq!(shapes(true), Suspicion::Low);
}

/// A loop whose first steps are slow leaves more young survivors than old ones, as a cache does that
/// replaces; but nothing was freed.
#[test]
fn what_is_never_freed_is_not_renewed() {
    let suspicion = |frees: bool| {
        let mut file = TraceFile::new(1 << 20);
        let a = file.program_stack(0x500);
        let mut time = SECOND;
        for step in 0..60 {
            let entry = file.at(time).alloc(Kind::Torch, MIB, a);
            time += if step < 8 { SECOND } else { SECOND / 10 };
            if frees && step < 8 {
                file.free(&entry);
                file.alloc(Kind::Torch, MIB, a);
            }
        }
        found(&mut file, &Options::default()).groups[0].suspicion
    };
    assert_eq!(suspicion(false), Suspicion::High);
    assert_eq!(suspicion(true), Suspicion::Medium);
}
