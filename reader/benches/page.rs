//! What the page of `vramtrace report` costs: how long it takes to build one of ten million events by two thousand stacks, with
//! how much memory and how large it becomes; then, where there is a browser (`VRAMTRACE_TEST_CHROMIUM`, with the packages of
//! `reader/page` installed), how long it takes to open and how smoothly it pans. `scripts/bench-page` does all of it.
//!
//! `VRAMTRACE_BENCH_PAGES=FOLDER` keeps the traces and the pages there, and takes traces that are there already.

#[path = "child/mod.rs"]
mod child;
#[path = "../tests/support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../tests/support/training.rs"]
mod training;
#[allow(dead_code)]
#[path = "../tests/support/week.rs"]
mod week;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use training::Training;

/// How often each is measured: what else a machine does at the time shows in how these differ.
const TIMES: usize = 3;

/// A trace to be measured.
struct Measured {
    name: &'static str,
    /// Bytes of the trace.
    size: u64,
    steps: u64,
}

const ALL: [Measured; 2] = [
    // Its logs have room for ten million events, and have them all.
    Measured {
        name: "ten-million",
        size: 4 << 30,
        steps: 6_900,
    },
    // Its logs have wrapped.
    Measured {
        name: "one-gibibyte",
        size: 1 << 30,
        steps: 4_000,
    },
];

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let temporary = tempfile::tempdir().expect("a directory for the traces");
    let kept = std::env::var_os("VRAMTRACE_BENCH_PAGES").map(PathBuf::from);
    let place = kept.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(place).expect("a directory for the traces");
    for measured in &ALL {
        let trace = place.join(measured.name).with_extension("vrt");
        if !trace.exists() {
            build(measured, place);
        }
        println!(
            "{}: {} events in the log of a trace of {} MiB",
            measured.name,
            events(&trace),
            measured.size >> 20
        );
        let page = trace.with_extension("html");
        for _ in 0..TIMES {
            let (clock, seconds, peak) = report(&trace, &page);
            let bytes = page.metadata().map_or(0, |metadata| metadata.len());
            println!(
                "  built in {clock:.2} s by the clock, {seconds:.2} s of processor time, {} MiB at most; {:.1} MiB",
                peak >> 10,
                bytes as f64 / f64::from(1 << 20)
            );
        }
        if kept.is_none() {
            let _ = std::fs::remove_file(&trace);
        }
        open(&page);
    }
}

/// Writes a trace.
fn build(measured: &Measured, place: &Path) {
    let training = Training {
        steps: measured.steps,
        blocks: 500,
        stacks: 2_000,
        size: measured.size,
        ..Training::default()
    };
    let name = format!("{}.vrt", measured.name);
    training.record().write(place, &name);
}

/// Events that the trace still has.
fn events(trace: &Path) -> u64 {
    use vramtrace_reader::{model::Process, trace::Trace};
    let process = Process::read(Trace::open(trace).expect("a trace"));
    let rings = process.losses.rings.iter();
    rings
        .map(|ring| ring.written.saturating_sub(ring.overwritten))
        .sum()
}

/// Builds the page; seconds by the clock, seconds of processor time, peak resident memory in KiB.
// `wait` waits for the child: the standard library's way does not say what it used.
#[expect(clippy::zombie_processes)]
fn report(trace: &Path, page: &Path) -> (f64, f64, i64) {
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(["report", "-f", "-o"])
        .args([page, trace])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let (seconds, peak) = child::wait(child.id());
    (begun.elapsed().as_secs_f64(), seconds, peak)
}

/// Opens the page in a browser, several times, and pans.
fn open(page: &Path) {
    let Some(chromium) = std::env::var_os("VRAMTRACE_TEST_CHROMIUM") else {
        println!("  SKIPPED the browser: VRAMTRACE_TEST_CHROMIUM names none");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("page/test/speed.mjs");
    let status = Command::new("node")
        .arg(script)
        .arg(chromium)
        .arg(page)
        .arg(TIMES.to_string())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("  SKIPPED the browser: reader/page/test/speed.mjs did not run");
    }
}
