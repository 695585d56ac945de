//! How long each analysis takes, and how many events a second each export writes, with how much memory, from a
//! trace that is full: 1 GiB, half of it framework blocks, a million allocations live at the end.
//!
//! With `VRAMTRACE_BENCH_AGAINST=PROGRAM`, another build of `vramtrace` does the same in turn, and the ratio of the two says what a
//! busy machine cannot hide. `VRAMTRACE_BENCH_ONLY=WORD` leaves out what does not have that word in its arguments.

#[path = "child/mod.rs"]
mod child;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{TraceFile, native};
use vramtrace_format::record::Kind;

const SIZE: u64 = 1 << 30;
const LIVE: u64 = 1_000_000;
const STACKS: u64 = 20_000;

/// Names the directory where a process of this benchmark is to write the trace.
const BUILD: &str = "VRAMTRACE_BENCH_BUILD";

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    if let Some(directory) = std::env::var_os(BUILD) {
        println!("{}", build(Path::new(&directory)));
        return;
    }
    let place = tempfile::tempdir().expect("a directory for the trace");
    let trace = place.path().join("full.vrt");
    let kept = built(place.path());
    println!(
        "a trace of {} MiB with {kept} events in its log",
        SIZE >> 20
    );
    analyses(place.path(), &trace);
    println!(
        "{:<38} {:>8} {:>8} {:>12} {:>9} {:>9} {:>8}  before, s",
        "", "clock s", "CPU s", "events/s", "peak MiB", "file MiB", "plain s"
    );
    for arguments in [
        &["flamegraph", "-o", "out.svg"][..],
        &["export", "-o", "out.pb.gz"],
        &["export", "-o", "out.speedscope.json"],
        &["export", "-o", "out.folded"],
        &["export", "-o", "out.csv"],
        &["export", "-o", "out.csv", "--table", "events"],
        &["export", "-o", "out.jsonl"],
        &["export", "-o", "/dev/null", "--format", "json"],
        &["export", "-o", "out.parquet", "--table", "allocations"],
        &["export", "-o", "out.parquet", "--table", "events"],
        &["export", "-o", "out.parquet"],
        &["export", "-o", "out.pftrace"],
        &["export", "-o", "out.pickle"],
    ] {
        if !wanted(arguments) {
            continue;
        }
        let output = place.path().join(arguments[2]);
        let (mut bytes, mut plain) = (0, f64::INFINITY);
        let (own, other) = in_turn(
            &[arguments, &["-f"]].concat(),
            &[&trace],
            place.path(),
            || {
                if output.starts_with(place.path()) {
                    bytes = size(&output);
                    // Not all of them fit on a small disk at once.
                    let _ = std::fs::remove_file(&output);
                    let _ = std::fs::remove_dir_all(&output);
                    plain = plain.min(written(place.path(), bytes));
                }
            },
        );
        println!(
            "{:<38} {:>8.2} {:>8.2} {:>12.0} {:>9} {:>9} {:>8.2}  {}",
            arguments[1..]
                .join(" ")
                .replace("-o ", "")
                .replace("--table ", ""),
            own.clock,
            own.seconds,
            kept as f64 / own.clock,
            own.peak >> 10,
            bytes >> 20,
            if plain.is_finite() { plain } else { 0.0 },
            before(own, other),
        );
    }
}

/// Seconds that it takes to write so many bytes to a file and nothing else: where an export takes little longer
/// than that, it is the disk that is measured.
fn written(place: &Path, mut bytes: u64) -> f64 {
    let path = place.join("plain");
    // Memory that was freed just now is handed out again at once, which no export has of it.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let zeros = vec![0; 1 << 16];
    let begun = Instant::now();
    let mut file = std::fs::File::create(&path).expect("a file");
    while bytes > 0 {
        let part = bytes.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])
            .expect("room for it");
        bytes -= part;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(&path);
    seconds
}

/// Bytes of a file, or of all files in a directory.
fn size(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(files) => files
            .flatten()
            .map(|file| file.metadata().map_or(0, |own| own.len()))
            .sum(),
        Err(_) => path.metadata().map_or(0, |own| own.len()),
    }
}

fn wanted(arguments: &[&str]) -> bool {
    let only = std::env::var("VRAMTRACE_BENCH_ONLY").unwrap_or_default();
    arguments.join(" ").contains(&only)
}

/// What the other build took, and how many times that is what this one took.
fn before(own: Taken, other: Option<Taken>) -> String {
    other.map_or(String::new(), |other| {
        format!(
            "{:.2} ({:.2}), CPU {:.2} ({:.2}), {} MiB",
            other.clock,
            other.clock / own.clock,
            other.seconds,
            other.seconds / own.seconds,
            other.peak >> 10
        )
    })
}

/// How long each analysis takes.
fn analyses(place: &Path, trace: &Path) {
    println!(
        "{:<38} {:>8} {:>8} {:>9}  before, s",
        "", "clock s", "CPU s", "peak MiB"
    );
    for arguments in [
        &["leaks"][..],
        &["leaks", "--to", "peak"],
        &["summary"],
        &["timeline"],
        &["timeline", "--by", "stack"],
        &["peak"],
        &["growth"],
        &["churn"],
        &["fragmentation"],
        &["oom"],
        &["reconcile"],
        &["diff"],
    ] {
        if !wanted(arguments) {
            continue;
        }
        // Two sides of one trace are as much work as two traces.
        let traces: &[&Path] = match arguments[0] {
            "diff" => &[trace, trace],
            _ => &[trace],
        };
        let (own, other) = in_turn(&[arguments, &["--json"]].concat(), traces, place, || {});
        println!(
            "{:<38} {:>8.2} {:>8.2} {:>9}  {}",
            arguments.join(" "),
            own.clock,
            own.seconds,
            own.peak >> 10,
            before(own, other)
        );
    }
}

/// What a command took.
#[derive(Clone, Copy)]
struct Taken {
    /// Seconds by the clock, which on a shared machine says how busy that is.
    clock: f64,
    /// Seconds of processor time.
    seconds: f64,
    /// Peak resident memory, KiB.
    peak: i64,
}

/// Rounds of which the fastest counts.
const ROUNDS: usize = 3;

/// What this build takes and, where there is one, the other, in turn: of each the fastest round. `after` each run, so that
/// none finds, and has to replace, what another has written.
fn in_turn(
    arguments: &[&str],
    traces: &[&Path],
    place: &Path,
    mut after: impl FnMut(),
) -> (Taken, Option<Taken>) {
    let other = std::env::var_os("VRAMTRACE_BENCH_AGAINST");
    let faster = |a: Taken, b: Taken| if a.clock < b.clock { a } else { b };
    let mut rounds = (0..ROUNDS).map(|_| {
        let mut taken = |program: &Path| {
            let taken = run(program, arguments, traces, place);
            after();
            taken
        };
        let other = other.as_ref().map(|other| taken(Path::new(other)));
        let own = taken(Path::new(env!("CARGO_BIN_EXE_vramtrace")));
        (own, other)
    });
    let first = rounds.next().expect("a round");
    rounds.fold(first, |(own, other), round| {
        let others = other.zip(round.1).map(|(a, b)| faster(a, b));
        (faster(own, round.0), others)
    })
}

/// Runs a command.
// `wait` waits for the child: the standard library's way does not say what it used.
#[expect(clippy::zombie_processes)]
fn run(program: &Path, arguments: &[&str], traces: &[&Path], place: &Path) -> Taken {
    let begun = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .args(traces)
        .current_dir(place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let (seconds, peak) = child::wait(child.id());
    Taken {
        clock: begun.elapsed().as_secs_f64(),
        seconds,
        peak,
    }
}

/// Has the trace written by a process of its own; how many events its log still has. A command's peak is never less than
/// the peak of the process that starts it (Linux carries that over `execve`), and who writes the trace has all of it in memory.
fn built(directory: &Path) -> u64 {
    let own = std::env::current_exe().expect("this program's path");
    let output = Command::new(own)
        .env(BUILD, directory)
        .stderr(Stdio::inherit())
        .output()
        .expect("a process that writes the trace");
    assert!(output.status.success(), "the trace was not written");
    let kept = String::from_utf8_lossy(&output.stdout);
    kept.trim().parse().expect("how many events it has")
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
