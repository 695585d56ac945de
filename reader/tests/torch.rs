//! PyTorch's own number, against the blocks in the trace.

#![allow(missing_docs)]

mod support;

use std::path::Path;
use support::*;
use vramtrace_format::Section;
use vramtrace_format::layout::{Header, SectionEntry};
use vramtrace_format::record::{Kind, Op};
use vramtrace_format::reported::Reported;
use vramtrace_reader::analysis::leaks::{Answer, Options};
use vramtrace_reader::model::{NoNames, Process, Torch};
use vramtrace_reader::trace::Trace;

/// What PyTorch says of GPU 0.
fn says(file: &mut TraceFile, seq: u64, allocated: u64) {
    let mut row = Reported::default();
    row.set(seq, allocated, 20 * MIB);
    write(file, row);
}

fn write(file: &mut TraceFile, row: Reported) {
    let at = file.layout.of(Section::Reported).offset as usize;
    file.bytes()[at..at + size_of::<Reported>()].copy_from_slice(bytemuck::bytes_of(&row));
}

fn read(file: &mut TraceFile) -> Process {
    let directory = tempfile::tempdir().unwrap();
    let path = file.write(directory.path(), "a.vrt");
    Process::read(Trace::open(&path).unwrap())
}

fn torch(file: &mut TraceFile) -> Option<Torch> {
    read(file).torch.first().copied()
}

#[test]
fn the_number_is_compared_with_the_blocks_of_its_moment() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let first = file.alloc(Kind::Torch, 1024, stack);
    let second = file.alloc(Kind::Torch, 4096, stack);
    assert_eq!(torch(&mut file), None);
    says(&mut file, second.seq, 5120);
    let seen = |file: &mut TraceFile| {
        let torch = torch(file).unwrap();
        (torch.seen, torch.differs())
    };
    assert_eq!(seen(&mut file), (Some(5120), false));
    // Later events, which it did not hear of: of tensors, of others, of another device.
    file.free(&first);
    file.alloc(Kind::Torch, 512, stack);
    file.alloc(Kind::Async, 7000, stack);
    let other = vramtrace_format::Record {
        device: 1,
        ..allocation(Kind::Torch, 0x9000, 512, stack)
    };
    file.event(other);
    assert_eq!(seen(&mut file), (Some(5120), false));
    // One that is missing.
    says(&mut file, second.seq, 5120 + 512);
    assert_eq!(seen(&mut file), (Some(5120), true));
    let process = read(&mut file);
    let [reason] = &process.losses.live_inexact[..] else {
        panic!("{:?}", process.losses)
    };
    assert_eq!(reason.code, "torch-differs");
    assert!(reason.text.contains("5632") && reason.text.contains("5120"));
}

#[test]
fn nothing_is_said_of_what_is_not_known_any_more() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let first = file.alloc(Kind::Torch, 1024, stack);
    says(&mut file, first.seq, 1024);
    let capacity = file.layout.of(Section::RingFramework).length / 64;
    for _ in 0..capacity {
        let block = file.alloc_at(Kind::Torch, 0x5000, 512, stack);
        file.free(&block);
    }
    // It still agrees, so that nothing has to be known.
    assert_eq!(torch(&mut file).unwrap().seen, Some(1024));
    file.alloc(Kind::Torch, 512, stack);
    let forgotten = torch(&mut file).unwrap();
    assert_eq!((forgotten.seen, forgotten.differs()), (None, false));
    assert!(read(&mut file).losses.live_inexact.is_empty());

    // A row that a kill left half written.
    write(
        &mut file,
        Reported {
            seq: 5,
            again: 4,
            ..Reported::default()
        },
    );
    assert_eq!(torch(&mut file), None);

    // PyTorch is not told that its device was reset.
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let block = file.alloc(Kind::Torch, 1024, stack);
    says(&mut file, block.seq, 1024);
    file.end(&block, Op::EndByReset);
    assert_eq!(torch(&mut file).unwrap().seen, None);
}

#[test]
fn a_trace_of_before_there_was_such_a_section() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Torch, 1024, stack);
    let header: &mut Header = bytemuck::from_bytes_mut(&mut file.bytes()[..size_of::<Header>()]);
    let last = header.section_count as usize - 1;
    let reported = |entry: &SectionEntry| entry.kind == Section::Reported as u32;
    let at = header.sections.iter().position(reported).unwrap();
    header.sections.swap(at, last);
    header.section_count -= 1;
    let process = read(&mut file);
    assert_eq!(process.trace.damage, []);
    assert_eq!(process.torch, []);
    assert_eq!(process.live().count(), 1);
}

/// No tensor was seen: the segments are leaks as they are, and that is said.
#[test]
fn segments_whose_tensors_are_not_seen() {
    let mut file = TraceFile::new(1 << 20);
    let allocator = file.stack(&[native(2, 1), native(3, 1), native(4, 7), native(1, 0x500)]);
    let own = file.program_stack(0x500);
    file.alloc(Kind::Device, 20 * MIB, allocator);
    file.alloc(Kind::Device, MIB, own);
    let answer = |file: &mut TraceFile| {
        let process = [read(file)];
        Answer::of(&process, &Options::default(), None, &mut NoNames)
    };
    let found = answer(&mut file);
    assert_eq!(found.gpu.bytes, 21 * MIB);
    let [note] = &found.notes[..] else {
        panic!("{:?}", found.notes)
    };
    assert!(
        note.contains("20971520 bytes in 1 allocations are segments"),
        "{note}"
    );
    // With one they are a cache.
    file.alloc_at(Kind::Torch, 0x10, 512, own);
    let found = answer(&mut file);
    assert_eq!((found.gpu.bytes, found.notes.len()), (MIB + 512, 0));
    assert_eq!(found.cached.reserved, 20 * MIB);
}

/// Each allocation of a group, with its address.
#[test]
fn members_are_listed_where_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.at(SECOND);
    let first = file.alloc(Kind::Torch, 1024, stack);
    file.at(2 * SECOND);
    let second = file.alloc(Kind::Torch, 512, stack);
    file.write(directory.path(), "a.vrt");
    let run = |options: &[&str]| -> serde_json::Value {
        let arguments = [&["leaks", "--json", "a.vrt"], options].concat();
        let output = vramtrace(&arguments, Path::new(directory.path()));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let member = |key: u64, bytes: u64, at: u64| serde_json::json!({"space": "torch", "key": key, "bytes": bytes, "at_ns": START + at, "thread": 4711});
    let listed = run(&["--members"]);
    assert_eq!(
        listed["groups"][0]["members"],
        serde_json::json!([
            member(first.key, 1024, SECOND),
            member(second.key, 512, 2 * SECOND)
        ])
    );
    assert!(run(&[])["groups"][0].get("members").is_none());
    let refused = vramtrace(&["leaks", "--members", "a.vrt"], directory.path());
    assert_eq!(refused.status.code(), Some(2));
}
