//! Putting what nvidia-smi showed into a trace whose process has ended.

mod support;

use std::fs;
use std::path::Path;
use support::{MIB, TraceFile};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::{Layout, Section};
use vramtrace_reader::launch::keep_samples::keep;
use vramtrace_reader::launch::sampler::OfTrace;
use vramtrace_reader::model::{FoundBy, Process, UseSample};
use vramtrace_reader::nvml::series::Series;
use vramtrace_reader::trace::{Refusal, Trace};

/// No process can have this pid (the kernel's own limit is 2^22).
const DEAD: u32 = 1 << 30;
const UUID: &str = "GPU-11111111-2222-3333-4444-555555555555";

/// A trace of a process that has ended.
fn trace(size: u64) -> TraceFile {
    let mut file = TraceFile::new(size);
    of_process(&mut file, DEAD);
    file
}

fn of_process(file: &mut TraceFile, pid: u32) {
    let header = file.layout.header(pid, support::START, 1);
    let bytes = bytemuck::bytes_of(&header);
    file.bytes()[..bytes.len()].copy_from_slice(bytes);
}

/// Samples of device 0: the process has most at 700.
fn samples(count: u64) -> OfTrace {
    let mut series = Series::new(UUID.into());
    for time in 0..count {
        series.add(UseSample {
            time,
            process_bytes: Some(if time == 700 { 900 } else { 500 } * MIB),
            found_by: FoundBy::Pid,
            used_bytes: 1000 * MIB,
            reserved_bytes: Some(480 * MIB),
            total_bytes: 80 << 30,
        });
    }
    OfTrace::from([(0, series)])
}

fn read(path: &Path) -> Process {
    let process = Process::read(Trace::open(path).unwrap());
    assert!(
        process.trace.damage.is_empty(),
        "{:?}",
        process.trace.damage
    );
    process
}

/// Fills the cold section, but for `left` bytes.
fn fill(file: &mut TraceFile, left: u64) {
    let room = file.layout.of(Section::Cold).length;
    loop {
        let free = room - file.control().cold_used - left;
        // A name takes 28 bytes beside its text, and is padded.
        let Some(text) = free.checked_sub(32) else {
            break;
        };
        file.cold(Cold::Mark(cold::Name {
            id: 1,
            text: "x".repeat(text.min(8192) as usize),
        }));
    }
}

#[test]
fn they_are_read_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = trace(4 << 20).write(directory.path(), "a.vrt");
    keep(&path, samples(1500)).unwrap();
    let process = read(&path);
    let used = &process.device_use[&0];
    assert_eq!((used.uuid.as_str(), used.samples.len()), (UUID, 1500));
    assert_eq!(used.peak().unwrap().time, 700);
    assert_eq!(used.last().unwrap().time, 1499);
    assert!(used.samples == samples(1500)[&0].samples());
    // What was there is there.
    assert_eq!(process.devices[&0].name, "NVIDIA H100");
    assert_eq!(process.modules.len(), 5);
}

#[test]
fn a_kill_before_the_count_is_written_leaves_the_trace_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = trace(4 << 20);
    let before = file.control().cold_used;
    let path = file.write(directory.path(), "a.vrt");
    keep(&path, samples(100)).unwrap();
    // Everything but the count, which is the last to be written.
    let mut bytes = fs::read(&path).unwrap();
    let control = file.layout.of(Section::Control).offset as usize;
    let at = control + std::mem::offset_of!(vramtrace_format::layout::Control, cold_used);
    bytes[at..at + 8].copy_from_slice(&before.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(read(&path).device_use.is_empty());
    // And somebody else may add to it again.
    keep(&path, samples(7)).unwrap();
    assert_eq!(read(&path).device_use[&0].samples.len(), 7);
}

#[test]
fn where_little_room_is_left_fewer_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = Vec::new();
    for left in [60_000, 20_000, 4_000, 400] {
        let mut file = trace(4 << 20);
        fill(&mut file, left);
        let path = file.write(directory.path(), "a.vrt");
        keep(&path, samples(1500)).unwrap();
        let process = read(&path);
        let used = &process.device_use[&0];
        let times = [used.samples[0].time, used.last().unwrap().time];
        assert_eq!(times, [0, 1499], "{left}");
        assert_eq!(used.peak().unwrap().time, 700, "{left}");
        kept.push(used.samples.len());
    }
    assert_eq!(kept[0], 1500);
    assert!(kept.windows(2).all(|pair| pair[0] > pair[1]), "{kept:?}");
    assert!(kept[3] >= 3, "{kept:?}");
}

#[test]
fn what_must_not_be_touched_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |what: &str, bytes: &[u8]| {
        let path = directory.path().join("a.vrt");
        fs::write(&path, bytes).unwrap();
        let refusal = keep(&path, samples(100)).expect_err(what);
        assert!(fs::read(&path).unwrap() == bytes, "{what}");
        refusal
    };
    let mut full = trace(1 << 20);
    fill(&mut full, 16);
    let refusal = refused("a full one", full.bytes());
    assert!(matches!(refusal, Refusal::NoRoom), "{refusal}");

    let mut running = TraceFile::new(1 << 20);
    of_process(&mut running, std::process::id());
    let refusal = refused("one whose process runs", running.bytes());
    assert!(refusal.to_string().contains("still runs"), "{refusal}");

    let mut whole = trace(1 << 20);
    let end = whole.bytes().len();
    refused("one that was cut off", &whole.bytes()[..end - 4096]);
    refused("none", b"some text");
    let mut newer = trace(1 << 20);
    newer.bytes()[8] = 99;
    refused("a later version", newer.bytes());

    for used in [
        u64::MAX,
        12,
        Layout::for_size(1 << 20).of(Section::Cold).length + 8,
    ] {
        let mut damaged = trace(1 << 20);
        damaged.control().cold_used = used;
        refused("a wrong count", damaged.bytes());
    }
    let mut damaged = trace(1 << 20);
    damaged.parts().cold[0] = 0xff;
    damaged.parts().cold[3] = 0xff;
    refused("a broken record", damaged.bytes());
}
