//! Where nvidia-smi's number goes: by hand, and what is said where something is not known.

#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use support::*;
use vramtrace_format::Section;
use vramtrace_format::cold::Cold;
use vramtrace_format::footprint::{Footprint, Part as Grown};
use vramtrace_format::record::{GRAPH_POOL, Kind, Op, Record};
use vramtrace_reader::analysis::moment::Found;
use vramtrace_reader::analysis::reconcile::{
    Answer, Basis, Line, Part, Question, Reconciled, Shown, reconcile,
};
use vramtrace_reader::model::{DeviceUse, FoundBy, Process, UseSample};
use vramtrace_reader::trace::Trace;

const CONTEXT: u64 = 500 * MIB;
const OTHERS: u64 = 9 * MIB;

fn set_footprint(file: &mut TraceFile, footprint: Footprint) {
    let at = file.layout.of(Section::Footprints).offset as usize;
    file.bytes()[at..at + size_of::<Footprint>()].copy_from_slice(bytemuck::bytes_of(&footprint));
}

fn ask(file: &mut TraceFile, moment: Option<Found>, shown: Option<Shown>) -> Reconciled {
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    let process = Process::read(Trace::open(&path).unwrap());
    let question = Question {
        moment,
        shown: shown.into_iter().map(|shown| (0, shown)).collect(),
        devices: Vec::new(),
    };
    let mut answer = Answer::default();
    reconcile(&mut answer, &process, &question);
    assert_eq!(answer.without, Vec::<String>::new());
    let [tree] = &answer.trees[..] else {
        panic!("{answer:?}")
    };
    tree.clone()
}

fn lines(tree: &Reconciled) -> BTreeMap<(Part, &str), &Line> {
    let named = |line| -> ((Part, &str), &Line) {
        let line: &Line = line;
        ((line.part, line.name.as_str()), line)
    };
    tree.lines.iter().map(named).collect()
}

fn grew(file: &mut TraceFile, bytes: i64) {
    file.event(Record {
        key: 0x100,
        aux: bytes as u64,
        ..control_event(Op::CodeGrew)
    });
}

/// A process with something of everything; the last two events are later than its last sample.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Module(module(6, "/x/nvidia/nccl/lib/libnccl.so.2")));
    let program = file.program_stack(0x500);
    let nccl = file.stack(&[native(2, 1), native(5, 2), native(6, 3), native(1, 4)]);
    let torch = file.stack(&[native(2, 1), native(3, 2), native(4, 3), native(1, 5)]);
    file.at(SECOND).alloc(Kind::Device, 10 * MIB, program);
    file.alloc(Kind::Array, MIB, program);
    for _ in 0..3 {
        file.alloc(Kind::Vmm, 20 * MIB, nccl);
    }
    let segment = file.alloc(Kind::Device, 100 * MIB, torch);
    file.alloc_at(Kind::Torch, segment.key, 30 * MIB, torch);
    file.alloc_at(Kind::Torch, segment.key + 64 * MIB, 5 * MIB, torch);
    file.alloc_at(Kind::Pool, 0x2000, 64 * MIB, 0);
    let block = Record {
        aux: 0x2000,
        ..allocation(Kind::Async, 0x7700_0000_0000, 40 * MIB, program)
    };
    file.event(block);
    file.alloc_at(Kind::Pool, GRAPH_POOL, 2 * MIB, 0);
    file.alloc(Kind::Pinned, 7 * MIB, program);
    file.alloc(Kind::Managed, 3 * MIB, program);
    file.alloc(Kind::Import, 11 * MIB, program);
    grew(&mut file, 4 * MIB as i64);
    grew(&mut file, 2 * MIB as i64);
    file.at(5 * SECOND);
    grew(&mut file, 8 * MIB as i64);
    file.alloc(Kind::Device, 200 * MIB, program);
    let mut footprint = Footprint {
        used_at_start: CONTEXT + OTHERS,
        measured_at: SECOND,
        total: 80 << 30,
        ..Footprint::default()
    };
    for bytes in [4, 2, 8] {
        footprint.grew(Grown::Code, bytes * MIB as i64);
    }
    footprint.grew(Grown::Limit, MIB as i64);
    footprint.grew(Grown::Stream, 70 * MIB as i64);
    set_footprint(&mut file, footprint);
    file
}

/// Of the story, in MiB: 10 + 1 program, 60 NCCL, 100 torch, 64 + 2 pools, 500 context, 6 code,
/// 1 limits, 70 streams.
const KNOWN: u64 = 814 * MIB;

fn sampled(process: Option<u64>) -> Shown {
    Shown {
        process,
        assumed: false,
        device: KNOWN + 5 * MIB + OTHERS,
        others: process.map(|_| OTHERS),
        left: None,
        time: 2 * SECOND,
        since: 0,
    }
}

/// What NVML said: bytes of the process, and of all others.
fn number(time: u64, process: u64, others: u64) -> UseSample {
    UseSample {
        time,
        process_bytes: Some(process),
        used_bytes: process + others,
        reserved_bytes: Some(0),
        total_bytes: 80 << 30,
        found_by: FoundBy::Pid,
    }
}

#[test]
fn every_byte_has_a_line_and_the_rest_is_unexplained() {
    let shown = sampled(Some(KNOWN + 5 * MIB));
    let tree = ask(&mut story(), Some(Found::Time(2 * SECOND)), Some(shown));
    assert_eq!(tree.explained, KNOWN as i64);
    assert_eq!(tree.unexplained, Some(5 * MIB as i64));
    let lines = lines(&tree);
    let mib = |part, name| lines[&(part, name)].bytes / MIB as i64;
    assert_eq!(mib(Part::Library, "train"), 11);
    assert_eq!(mib(Part::Library, "NCCL"), 60);
    assert_eq!(lines[&(Part::Library, "NCCL")].file, "libnccl.so.2");
    assert_eq!(mib(Part::TorchReserved, "PyTorch's caching allocator"), 100);
    assert_eq!(mib(Part::Pools, ""), 64);
    assert_eq!(mib(Part::GraphPool, ""), 2);
    assert_eq!(mib(Part::Context, ""), 500);
    assert_eq!(mib(Part::Code, ""), 6);
    assert_eq!(mib(Part::Limits, ""), 1);
    assert_eq!(mib(Part::Streams, ""), 70);
    let within = |part, name| -> Vec<i64> {
        let within = &lines[&(part, name)].within;
        within.iter().map(|line| line.bytes / MIB as i64).collect()
    };
    assert_eq!(
        within(Part::TorchReserved, "PyTorch's caching allocator"),
        [35, 65]
    );
    assert_eq!(within(Part::Pools, ""), [40, 24]);
    assert_eq!(tree.beside.pinned.bytes, 7 * MIB);
    assert_eq!(tree.beside.managed.bytes, 3 * MIB);
    assert_eq!(tree.beside.imports.bytes, 11 * MIB);
}

#[test]
fn at_the_end_everything_later_counts_too() {
    let tree = ask(&mut story(), None, None);
    assert_eq!(tree.unexplained, None);
    // Nobody said what other processes used: their part is in the context's line, and said.
    assert_eq!(tree.explained, (KNOWN + 208 * MIB + OTHERS) as i64);
    assert!(
        tree.notes
            .iter()
            .any(|note| note.contains("other processes"))
    );
}

#[test]
fn where_only_the_device_is_known_that_is_explained() {
    let tree = ask(
        &mut story(),
        Some(Found::Time(2 * SECOND)),
        Some(sampled(None)),
    );
    assert_eq!(tree.explained, (KNOWN + OTHERS) as i64);
    assert_eq!(tree.unexplained, Some(5 * MIB as i64));
}

#[test]
fn the_number_is_taken_when_as_much_was_held() {
    let sample = |time, process| number(time, process, OTHERS);
    // At 5 s 208 MiB come; who asks about 5.1 s has a number 0.2 s before, and one 0.9 s after.
    let samples = [
        sample(2 * SECOND, KNOWN),
        sample(5 * SECOND - SECOND / 10, KNOWN),
        sample(6 * SECOND, KNOWN + 208 * MIB),
    ];
    let chosen = |samples: &[UseSample]| {
        let mut file = story();
        for record in DeviceUse::records(0, "GPU-1", samples) {
            file.cold(Cold::DeviceUse(record));
        }
        let dir = tempfile::tempdir().unwrap();
        let process = Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap());
        let moment = Some(Found::Time(5 * SECOND + SECOND / 10));
        let question = Question::recorded(&process, moment, Vec::new());
        let mut answer = Answer::default();
        reconcile(&mut answer, &process, &question);
        answer.trees.remove(0)
    };
    let tree = chosen(&samples);
    assert_eq!(tree.shown.unwrap().time, 6 * SECOND);
    assert_eq!(tree.unexplained, Some(0));
    assert!(!tree.notes.iter().any(|note| note.contains("was taken")));
    let tree = chosen(&samples[..2]);
    assert_eq!(tree.unexplained, Some(-(208 * MIB as i64)));
    let note =
        "nvidia-smi's number was taken 0.2 s before this moment, when 208.00 MiB less was known of";
    assert!(tree.notes.iter().any(|one| one == note), "{:?}", tree.notes);
}

/// Two processes that begin at the same time on one card: when this one's context was made, 450 MiB of the
/// other's were in use; later it has 2 GiB.
#[test]
fn another_process_on_the_card_is_not_this_ones_context() {
    let other = 450 * MIB;
    let chosen = |first: u64, later: u64| {
        let mut file = story();
        let at = file.layout.of(Section::Footprints).offset as usize;
        let row = &mut file.bytes()[at..at + size_of::<Footprint>()];
        let mut footprint: Footprint = *bytemuck::from_bytes(row);
        footprint.used_at_start += other;
        row.copy_from_slice(bytemuck::bytes_of(&footprint));
        let sample = |time, process, others| number(time, process, OTHERS + others);
        // By 6 s 208 MiB more were allocated, and 3 MiB nobody knows of.
        let samples = [
            sample(2 * SECOND, KNOWN, first),
            sample(6 * SECOND, KNOWN + 211 * MIB, later),
        ];
        for record in DeviceUse::records(0, "GPU-1", &samples) {
            file.cold(Cold::DeviceUse(record));
        }
        let dir = tempfile::tempdir().unwrap();
        let process = Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap());
        let question = Question::recorded(&process, None, Vec::new());
        let mut answer = Answer::default();
        reconcile(&mut answer, &process, &question);
        let tree = answer.trees.remove(0);
        let context = lines(&tree)[&(Part::Context, "")].clone();
        (tree, context)
    };
    let (tree, context) = chosen(2048 * MIB, 2048 * MIB);
    // Whether streams and limits were there at the first number is not known, so that it does not say less.
    assert_eq!(context.bytes, (CONTEXT + 3 * MIB) as i64);
    assert_eq!(context.basis, Basis::Derived);
    assert_eq!(tree.unexplained, Some(0));
    assert!(
        tree.notes
            .iter()
            .any(|note| note.contains("other processes used more or less"))
    );
    // Where the other has what it had, the difference is a measurement.
    let (tree, context) = chosen(other, other);
    assert_eq!(
        (context.bytes, context.basis),
        (CONTEXT as i64, Basis::Measured)
    );
    assert_eq!(tree.unexplained, Some(3 * MIB as i64));
}

/// What the driver holds while two contexts are made at once, and gives back within seconds, was neither
/// this one's context nor is it unexplained later: the number that left least says what stays.
#[test]
fn what_the_driver_gave_back_is_not_the_context() {
    let (transient, others) = (763 * MIB, 518 * MIB);
    let mut file = story();
    let at = file.layout.of(Section::Footprints).offset as usize;
    let row = &mut file.bytes()[at..at + size_of::<Footprint>()];
    let mut footprint: Footprint = *bytemuck::from_bytes(row);
    footprint.used_at_start += transient + others - OTHERS;
    row.copy_from_slice(bytemuck::bytes_of(&footprint));
    let sample = |time, process| number(time, process, others);
    // At 2 s it is still there; from 3 s on it is not; at 6 s 5 MiB more that nobody knows of are.
    let samples = [
        sample(2 * SECOND, KNOWN + transient),
        sample(3 * SECOND, KNOWN),
        sample(6 * SECOND, KNOWN + 213 * MIB),
    ];
    for record in DeviceUse::records(0, "GPU-1", &samples) {
        file.cold(Cold::DeviceUse(record));
    }
    let dir = tempfile::tempdir().unwrap();
    let process = Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap());
    let mut answer = Answer::default();
    reconcile(
        &mut answer,
        &process,
        &Question::recorded(&process, None, Vec::new()),
    );
    let tree = answer.trees.remove(0);
    let context = lines(&tree)[&(Part::Context, "")].clone();
    assert_eq!(
        (context.bytes, context.basis),
        ((CONTEXT + 5 * MIB) as i64, Basis::Derived)
    );
    assert_eq!(tree.unexplained, Some(0));
    assert!(
        tree.notes
            .iter()
            .any(|note| note.contains("gave memory of it back"))
    );
    // While it is there, nobody can know that it will go.
    let early = Question::recorded(&process, Some(Found::Time(2 * SECOND)), Vec::new());
    let mut answer = Answer::default();
    reconcile(&mut answer, &process, &early);
    let tree = answer.trees.remove(0);
    let context = lines(&tree)[&(Part::Context, "")].clone();
    assert_eq!(
        (context.bytes, context.basis, tree.unexplained),
        ((CONTEXT + transient) as i64, Basis::Measured, Some(0))
    );
}

/// When streams and limits came is not known, so that a number from before them leaves too little.
#[test]
fn of_a_process_alone_the_context_is_measured() {
    let mut file = story();
    let sample = |time, process| number(time, process, OTHERS);
    let samples = [2, 3, 4, 6].map(|second| {
        let later = if second < 6 { 0 } else { 208 + 71 };
        sample(second * SECOND, KNOWN + later * MIB - 71 * MIB)
    });
    for record in DeviceUse::records(0, "GPU-1", &samples) {
        file.cold(Cold::DeviceUse(record));
    }
    let dir = tempfile::tempdir().unwrap();
    let process = Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap());
    let mut answer = Answer::default();
    let question = Question::recorded(&process, None, Vec::new());
    reconcile(&mut answer, &process, &question);
    let tree = answer.trees.remove(0);
    let context = lines(&tree)[&(Part::Context, "")].clone();
    assert_eq!(
        (context.bytes, context.basis, tree.unexplained),
        (CONTEXT as i64, Basis::Measured, Some(0))
    );
}

#[test]
fn traces_without_footprints_say_so() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Device, MIB, stack);
    let tree = ask(&mut file, None, None);
    assert_eq!(tree.explained, MIB as i64);
    assert!(tree.notes.iter().any(|note| note.contains("not measured")));
}

#[test]
fn the_command_prints_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "t.vrt");
    let ran = vramtrace(&["reconcile", "t.vrt"], dir.path());
    assert!(ran.status.success(), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "├ CUDA context 509.0 MiB",
        "├ train 211.0 MiB",
        "├ PyTorch's caching allocator 100.0 MiB",
        "│ ├ in use 35.0 MiB",
        "└ enlarged limits 1.0 MiB",
        "page-locked host memory: 7.00 MiB in 1 allocation",
    ] {
        assert!(
            lines.iter().any(|found| found.starts_with(line)),
            "{line}\n{text}"
        );
    }
    let ran = vramtrace(&["reconcile", "--json", "t.vrt"], dir.path());
    let document: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(document["schema"], "vramtrace.reconcile/1");
    assert_eq!(document["trees"][0]["lines"][0]["part"], "context");
}
