//! How long each analysis takes, and how many events a second of processor time each export, with how much memory, from a
//! trace that is full: 1 GiB, half of it framework blocks, a million allocations live at the end.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{TraceFile, native};
use vramtrace_format::record::Kind;

const SIZE: u64 = 1 << 30;
const LIVE: u64 = 1_000_000;
const STACKS: u64 = 20_000;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let place = tempfile::tempdir().expect("a directory for the trace");
    let trace = place.path().join("full.vrt");
    let kept = build(place.path());
    println!(
        "a trace of {} MiB with {kept} events in its log",
        SIZE >> 20
    );
    analyses(place.path(), &trace);
    println!(
        "{:<28} {:>8} {:>14} {:>10} {:>10}",
        "", "CPU s", "events/s", "peak MiB", "file MiB"
    );
    for arguments in [
        &["flamegraph", "-o", "out.svg"][..],
        &["export", "-o", "out.pb.gz"],
        &["export", "-o", "out.speedscope.json"],
        &["export", "-o", "out.csv"],
        &["export", "-o", "out.jsonl"],
        &["export", "-o", "out.parquet", "--table", "allocations"],
        &["export", "-o", "out.parquet", "--table", "events"],
        &["export", "-o", "out.pftrace"],
        &["export", "-o", "out.pickle"],
    ] {
        let (_, seconds, peak) = run(&[arguments, &["-f"]].concat(), &[&trace], place.path());
        let output = place.path().join(arguments[2]);
        let bytes = output.metadata().map_or(0, |metadata| metadata.len());
        // Not all of them fit on a small disk at once.
        let _ = std::fs::remove_file(&output);
        println!(
            "{:<28} {seconds:>8.2} {:>14.0} {:>10} {:>10}",
            arguments[1..]
                .join(" ")
                .replace("-o ", "")
                .replace("--table ", ""),
            kept as f64 / seconds,
            peak >> 10,
            bytes >> 20,
        );
    }
}

/// How long each analysis takes: by the clock, which on a shared machine says how busy that is, and in processor time.
fn analyses(place: &Path, trace: &Path) {
    println!(
        "{:<28} {:>8} {:>8} {:>10}",
        "", "clock s", "CPU s", "peak MiB"
    );
    for arguments in [
        &["leaks"][..],
        &["leaks", "--to", "peak"],
        &["summary"],
        &["timeline"],
        &["peak"],
        &["growth"],
        &["churn"],
        &["fragmentation"],
        &["oom"],
        &["reconcile"],
        &["diff"],
    ] {
        // Two sides of one trace are as much work as two traces.
        let traces: &[&Path] = match arguments[0] {
            "diff" => &[trace, trace],
            _ => &[trace],
        };
        let (clock, seconds, peak) = run(&[arguments, &["--json"]].concat(), traces, place);
        println!(
            "{:<28} {clock:>8.2} {seconds:>8.2} {:>10}",
            arguments.join(" "),
            peak >> 10
        );
    }
}

/// Runs the command; seconds by the clock, seconds of processor time, peak resident memory in KiB.
// `wait` waits for the child: the standard library's way does not say what it used.
#[expect(clippy::zombie_processes)]
fn run(arguments: &[&str], traces: &[&Path], place: &Path) -> (f64, f64, i64) {
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(arguments)
        .args(traces)
        .current_dir(place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let (seconds, peak) = wait(child.id());
    (begun.elapsed().as_secs_f64(), seconds, peak)
}

/// Waits for a child; the processor time that it took, which says more than the clock on a busy machine,
/// in seconds, and its peak resident memory, KiB.
fn wait(pid: u32) -> (f64, i64) {
    // SAFETY: rusage is plain data; the call fills it, and waits for a child of ours.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        let waited = libc::wait4(pid as i32, &mut status, 0, &mut usage);
        assert_eq!(waited, pid as i32);
        assert_eq!(status, 0, "the command failed");
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let taken = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        (taken, usage.ru_maxrss)
    }
}

/// Writes the trace; how many events its log still has.
fn build(directory: &Path) -> u64 {
    let mut file = TraceFile::new(SIZE);
    let stack = |file: &mut TraceFile, n: u64| {
        let frame = |depth: u64| native(1 + u32::from(depth % 5 == 4), 0x1000 + n * 64 + depth);
        file.stack(&(0..25).map(frame).collect::<Vec<_>>())
    };
    let stacks: Vec<u32> = (0..STACKS).map(|n| stack(&mut file, n)).collect();
    let mut live = 0;
    let mut round = 0u64;
    while live < LIVE {
        round += 1;
        file.time = round * 20_000;
        let at = stacks[(round * 7919 % STACKS) as usize];
        let kind = [Kind::Torch, Kind::Device][(round % 2) as usize];
        let entry = file.alloc(kind, 512 + round % 100_000, at);
        if round % 10 < 7 {
            file.free(&entry);
        } else {
            live += 1;
        }
    }
    file.exit();
    file.write(directory, "full.vrt");
    let parts = file.parts();
    let rings = parts.rings.each_ref().map(|ring| ring.len() as u64);
    (0..2)
        .map(|lane| parts.control.ring_written[lane].min(rings[lane]))
        .sum()
}
