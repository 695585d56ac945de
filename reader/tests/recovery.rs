//! Traces of processes that were killed, rings that wrapped, files that were cut off.

#![allow(missing_docs)]

mod support;

use support::*;
use vramtrace_format::journal::CellKind;
use vramtrace_format::live::VACATED;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_reader::analysis::check::{Verdict, check};
use vramtrace_reader::analysis::leaks::{Options, leaks};
use vramtrace_reader::model::{NoNames, Process, State};
use vramtrace_reader::trace::{Problem, Trace};

fn open(file: &mut TraceFile) -> Trace {
    let dir = tempfile::tempdir().unwrap();
    Trace::open(&file.write(dir.path(), "t.vrt")).unwrap()
}

fn keys_of(slots: &[Record]) -> Vec<u64> {
    slots.iter().map(|slot| slot.key).collect()
}

/// The file as a kill would leave it after the event's first `done` cells were changed.
fn killed(before: &TraceFile, event: &Record, done: usize) -> TraceFile {
    let mut file = before.clone();
    let mut parts = file.parts();
    let mut keys = parts.live.each_ref().map(|slots| keys_of(slots));
    parts.record(event);
    // What a writer notes in a slot that it vacated comes after the event.
    for (slots, keys) in parts.live.iter_mut().zip(&mut keys) {
        let vacated = slots.iter_mut().zip(keys);
        let vacated = vacated.filter(|(slot, _)| slot.op == VACATED);
        vacated.for_each(|(slot, key)| slot.key = *key);
    }
    let journal = *parts.journal;
    let saved: Vec<_> = journal.saved(journal.words.len()).collect();
    let used: usize = saved.iter().map(|saved| 1 + saved.words.len()).sum();
    parts.journal.state = (event.seq << 8) | used as u64;
    for cell in saved.into_iter().skip(done) {
        let words: &mut [u64] = match cell.kind {
            CellKind::Account => bytemuck::cast_slice_mut(&mut parts.accounts[cell.index..][..1]),
            CellKind::Totals => bytemuck::cast_slice_mut(&mut parts.totals[cell.index..][..1]),
            CellKind::LiveDevice => bytemuck::cast_slice_mut(&mut parts.live[0][cell.index..][..1]),
            CellKind::LiveFramework => {
                bytemuck::cast_slice_mut(&mut parts.live[1][cell.index..][..1])
            }
        };
        words[cell.first..][..cell.words.len()].copy_from_slice(cell.words);
    }
    file
}

#[test]
fn an_interrupted_event_is_put_right_wherever_the_kill_came() {
    let mut before = TraceFile::new(1 << 20);
    let stack = before.program_stack(0x500);
    for _ in 0..100 {
        let entry = before.alloc(Kind::Device, 512, stack);
        before.free(&entry);
    }
    let kept = before.alloc(Kind::Device, 4096, stack);
    // So that no cell saved by an earlier event is mistaken for one of the killed event.
    *before.parts().journal = bytemuck::Zeroable::zeroed();
    before.parts().journal.state = (before.seq << 8) | 0xff;
    for (event, live) in [
        (allocation(Kind::Device, 0x1000, 100, stack), 2),
        (ending(&kept, Op::EndByContext), 0),
    ] {
        let event = Record {
            seq: before.seq + 1,
            time: 5,
            ..event
        };
        let mut whole = before.clone();
        whole.parts().record(&event);
        let truth = open(&mut whole);
        for done in 0..=4 {
            let trace = open(&mut killed(&before, &event, done));
            assert_eq!(trace.copy.recovered, Some(event.seq), "{done}");
            assert_eq!(trace.copy.accounts, truth.copy.accounts, "{done}");
            assert_eq!(trace.copy.totals, truth.copy.totals, "{done}");
            assert_eq!(trace.copy.live, truth.copy.live, "{done}");
            assert_eq!(trace.copy.seq, event.seq);
            assert_eq!(trace.events().last().unwrap(), event);
            let process = Process::read(trace);
            assert_eq!(process.live().count(), live);
            assert_eq!(check(&process, 0).verdict, Verdict::Whole, "{done}");
        }
    }
}

#[test]
fn an_event_that_is_complete_in_its_ring_has_happened() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Device, 512, stack);
    let event = Record {
        seq: 2,
        time: 9,
        ..allocation(Kind::Torch, 0x77, 300, stack)
    };
    for counted in [true, false] {
        let mut file = file.clone();
        file.parts().ring(1, &event);
        if !counted {
            file.control().ring_written[1] -= 1;
        }
        let trace = open(&mut file);
        assert_eq!(trace.copy.recovered, Some(2));
        assert_eq!(trace.copy.seq, 2);
        assert_eq!(
            trace.events().map(|event| event.seq).collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(trace.copy.live.len(), 2);
    }
    // One that is not complete has not.
    file.parts().ring(1, &Record { seq: 0, ..event });
    let trace = open(&mut file);
    assert_eq!((trace.copy.recovered, trace.copy.seq), (None, 1));
}

#[test]
fn leaks_are_exact_after_the_ring_wrapped_a_thousand_times() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let capacity = file.parts().rings[0].len() as u64;
    let mut kept = 0;
    for round in 0..capacity * 510 {
        file.time = round * 1000;
        let entry = file.alloc(Kind::Device, 512, stack);
        if round % (capacity * 10) == 0 {
            kept += 1;
        } else {
            file.free(&entry);
        }
    }
    let trace = open(file.exit());
    assert!(trace.reach(0).overwritten > 1000 * capacity);
    let mut events = trace.events();
    assert_eq!(events.by_ref().count() as u64, capacity);
    assert_eq!(events.damaged(), 0);
    let process = Process::read(trace);
    assert!(process.losses.live_inexact.is_empty());
    let found = leaks(&process, &Options::default(), &mut NoNames);
    assert_eq!((found.gpu.count, found.gpu.bytes), (kept, kept * 512));
    assert_eq!(process.state, State::Exited);
    assert_eq!(check(&process, 0).verdict, Verdict::HistoryLost);
}

/// In a ring that has wrapped, the next event takes the place of the oldest one: killed in the middle of
/// that, neither is there, and nothing else is wrong.
#[test]
fn killed_while_the_oldest_event_was_overwritten() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let capacity = file.parts().rings[0].len() as u64;
    for _ in 0..capacity {
        let entry = file.alloc(Kind::Device, 512, stack);
        file.free(&entry);
    }
    let next = Record {
        seq: 0,
        ..allocation(Kind::Device, 0x1000, 100, stack)
    };
    let parts = file.parts();
    let written = parts.control.ring_written[0];
    parts.rings[0][(written % capacity) as usize] = next;
    let trace = open(&mut file);
    let mut events = trace.events();
    assert_eq!(events.by_ref().count() as u64, capacity - 1);
    assert_eq!((events.damaged(), events.overtaken()), (0, 1));
    let checked = check(&Process::read(trace), 0);
    assert_eq!(checked.contradictions, Vec::<String>::new());
    assert_eq!(checked.verdict, Verdict::HistoryLost);
    // Anywhere else an event without a number is damage.
    file.parts().rings[0][((written + 5) % capacity) as usize].seq = 0;
    let checked = check(&Process::read(open(&mut file)), 0);
    assert_eq!(
        (checked.broken_records, checked.verdict),
        (1, Verdict::Damaged)
    );
}

#[test]
fn drops_make_the_answer_inexact_and_say_why() {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    for _ in 0..5000 {
        file.alloc(Kind::Device, 512, stack);
    }
    let process = Process::read(open(&mut file));
    let [reason] = &process.losses.live_inexact[..] else {
        panic!("{:?}", process.losses.live_inexact);
    };
    assert_eq!(reason.code, "live-table-full");
    assert_eq!(check(&process, 0).verdict, Verdict::Inexact);
}

#[test]
fn cut_off_files_answer_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Device, 512, stack);
    let whole = file.exit().bytes().to_vec();
    let path = dir.path().join("t.vrt");
    let ring = file
        .layout
        .of(vramtrace_format::Section::RingFramework)
        .offset as usize;
    std::fs::write(&path, &whole[..ring + 640]).unwrap();
    let process = Process::read(Trace::open(&path).unwrap());
    assert_eq!(
        leaks(&process, &Options::default(), &mut NoNames).gpu.bytes,
        512
    );
    assert!(process.losses.live_inexact.is_empty());
    let checked = check(&process, 0);
    assert_eq!(checked.verdict, Verdict::Damaged);
    assert!(
        checked
            .damage
            .iter()
            .any(|what| what.contains("only 10 of")),
        "{:?}",
        checked.damage
    );
    // Without live tables nothing is certain; without accounts nothing can be said.
    let live = file.layout.of(vramtrace_format::Section::LiveDevice).offset as usize;
    std::fs::write(&path, &whole[..live + 64]).unwrap();
    let process = Process::read(Trace::open(&path).unwrap());
    assert_eq!(process.losses.live_inexact[0].code, "damaged");
    for (length, is_right) in [
        (
            0,
            (|problem| matches!(problem, Problem::Empty)) as fn(&Problem) -> bool,
        ),
        (7, |problem| matches!(problem, Problem::Foreign)),
        (100, |problem| matches!(problem, Problem::Truncated { .. })),
        (9000, |problem| matches!(problem, Problem::Truncated { .. })),
    ] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Trace::open(&path).err().unwrap();
        assert!(is_right(&error.problem), "{length}: {error}");
    }
}
