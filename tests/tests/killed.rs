//! A process that is killed at any instant leaves a trace whose live set is the truth, up to the
//! one call that each thread was in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use vramtrace_tests::torch::Form;
use vramtrace_tests::{Check, Leaks, Run, program, skip};

/// As in killed.c: notes a thread can write, and words of its part of the file.
const ROOM: usize = 60_000;
const WORDS: usize = 1 + 4 * ROOM;

/// Bytes and number on the GPU, bytes and number in host memory.
type Sums = [u64; 4];

fn add(sums: Sums, kind: u64, size: u64) -> Sums {
    let [gpu_bytes, gpu, host_bytes, host] = sums;
    match kind {
        2 => [gpu_bytes, gpu, host_bytes + size, host + 1],
        _ => [gpu_bytes + size, gpu + 1, host_bytes, host],
    }
}

/// Every live set that the threads' notes allow, as sums.
fn truth(notes: &[u64], threads: usize) -> BTreeSet<Sums> {
    let mut certain = [0; 4];
    let mut in_flight = Vec::new();
    for thread in 0..threads {
        let part = &notes[thread * WORDS..(thread + 1) * WORDS];
        let mut live = BTreeMap::new();
        let mut begun = None;
        for note in part[1..1 + 4 * part[0] as usize].chunks_exact(4) {
            let [what, kind, size, address] = note else {
                unreachable!("chunks of four")
            };
            begun = None;
            match what {
                1 => begun = Some((*kind, *size)),
                2 => assert!(
                    live.insert(*address, (*kind, *size)).is_none(),
                    "the driver gave {address:#x} twice"
                ),
                3 => begun = live.remove(address),
                4 => {}
                _ => panic!("no such note: {note:?}"),
            }
        }
        certain = live
            .values()
            .fold(certain, |sums, (kind, size)| add(sums, *kind, *size));
        in_flight.extend(begun);
    }
    let mut possible = BTreeSet::from([certain]);
    for (kind, size) in in_flight {
        let with_it: Vec<Sums> = possible.iter().map(|sums| add(*sums, kind, size)).collect();
        possible.extend(with_it);
    }
    possible
}

fn words(file: &Path, threads: usize) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let mut words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("eight bytes")))
        .collect();
    words.resize(threads * WORDS, 0);
    words
}

/// Whether the first thread has got this far.
fn has_written(file: &Path, notes: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut count = [0; 8];
    let read = std::fs::File::open(file).and_then(|file| file.read_exact_at(&mut count, 0));
    read.is_ok() && u64::from_ne_bytes(count) >= notes
}

/// Stops one thread wherever it is, in one of the recorder's critical sections with some luck,
/// lets the others go on for long, and lets it go on too if the round says so. Returns the thread
/// that is still stopped, if any; the error: not permitted here.
fn stop_one(process: u32, round: u64) -> Result<Option<libc::pid_t>, ()> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let number = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().parse().ok();
    let mut threads: Vec<libc::pid_t> = tasks.flatten().filter_map(number).collect();
    threads.sort_unstable();
    if threads.len() < 2 {
        return Ok(None);
    }
    let thread = threads[1 + round as usize % (threads.len() - 1)];
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the thread is our child's; none of these requests touches our memory but the last
    // argument of waitpid.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) != 0 {
            return Err(());
        }
        libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none);
        libc::waitpid(thread, &mut 0, libc::__WALL);
        std::thread::sleep(Duration::from_millis(40));
        if round.is_multiple_of(4) {
            libc::ptrace(libc::PTRACE_DETACH, thread, none, none);
            std::thread::sleep(Duration::from_millis(2));
            return Ok(None);
        }
    }
    Ok(Some(thread))
}

/// Returns whether the trace says that its live set is exact; then it is.
fn kill_once(
    threads: usize,
    size: &str,
    stacks: &str,
    round: u64,
    stop: bool,
    torch: Option<&Path>,
) -> bool {
    let mut run = Run::new(program("killed"))
        .env("VRAMTRACE_SIZE", size)
        .env("VRAMTRACE_STACKS", stacks);
    if let Some(library) = torch {
        run = run.env("TORCH_LIBRARY", library);
    }
    let file = run.scratch().join("notes");
    let (mut child, scratch) = run
        .args([
            file.as_os_str(),
            threads.to_string().as_ref(),
            round.to_string().as_ref(),
        ])
        .spawn();
    // Somewhere between the first calls and a few thousand later.
    let random = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hangs = Instant::now() + Duration::from_secs(60);
    while !has_written(&file, random % 4 * (random >> 8) % 3000) && Instant::now() < hangs {
        assert!(
            child
                .try_wait()
                .expect("the program can be waited for")
                .is_none(),
            "it ended by itself"
        );
        std::thread::yield_now();
    }
    let until = Instant::now() + Duration::from_nanos((random >> 16) % 8_000_000);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    let stopped = if stop {
        stop_one(child.id(), round).unwrap_or_else(|()| {
            skip("a stopped thread", "ptrace is not permitted here");
            None
        })
    } else {
        None
    };
    child.kill().expect("the program can be killed");
    if let Some(thread) = stopped {
        // A traced thread is its tracer's to collect, and the process is not gone before.
        // SAFETY: waits for a thread that is ours to wait for.
        unsafe { libc::waitpid(thread, &mut 0, libc::__WALL) };
    }
    child.wait().expect("the program can be waited for");

    let possible = truth(&words(&file, threads), threads);
    let traces = scratch.traces();
    let Some(trace) = traces.first() else {
        assert!(
            possible.contains(&[0; 4]),
            "no trace, and certainly live: {possible:?}"
        );
        return true;
    };
    let leaks = Leaks::of(trace, &["--by", "kind"]);
    let (gpu, host) = (leaks.total("gpu"), leaks.total("host"));
    let found = [gpu.0, gpu.1, host.0, host.1];
    // Killed before the first event, the file may not even say who its process was.
    if found != [0; 4] {
        assert_eq!(
            leaks.json["processes"][0]["end"], "killed",
            "{:#}",
            leaks.json["processes"]
        );
    }
    if !leaks.complete() {
        // Where a machine stops a thread for long in a critical section, events can get lost;
        // then that is said.
        assert!(
            leaks.incomplete_because().contains("events-lost"),
            "{}",
            leaks.incomplete_because()
        );
        return false;
    }
    assert!(
        possible.contains(&found),
        "round {round} ({size}, {stacks}): {found:?} is none of {possible:?}\n{}",
        trace.display()
    );
    if round.is_multiple_of(8) {
        let check = Check::of(trace);
        assert!(
            ["whole", "history-lost"].contains(&check.verdict()),
            "round {round}: {:#}",
            check.json
        );
        assert_eq!(check.loss("frees_unseen"), 0);
        assert_eq!(check.loss("frees_unmatched"), 0);
    }
    true
}

fn kill_often(threads: usize, size: &str, rounds: std::ops::Range<u64>, stop: bool) -> usize {
    let stacks = |round: u64| {
        if round.is_multiple_of(2) {
            "off"
        } else {
            "native"
        }
    };
    let inexact = rounds
        .clone()
        .filter(|&round| !kill_once(threads, size, stacks(round), round, stop, None))
        .count();
    println!("{inexact} of {rounds:?} inexact");
    inexact
}

#[test]
fn the_live_set_is_the_truth() {
    assert_eq!(kill_often(1, "8MiB", 0..50, false), 0);
}

#[test]
fn also_when_the_rings_wrapped_many_times() {
    assert_eq!(kill_often(1, "1MiB", 50..100, false), 0);
}

#[test]
fn the_live_set_of_four_threads_is_the_truth() {
    assert!(kill_often(4, "8MiB", 100..150, false) < 10);
}

#[test]
fn of_four_threads_also_when_the_rings_wrapped() {
    assert!(kill_often(4, "1MiB", 150..200, false) < 10);
}

/// Tensors, too, of which the allocator's segments are known by its frames.
#[test]
fn the_live_set_of_tensors_is_the_truth() {
    let library = Form::New.allocator();
    for (threads, rounds) in [(1, 300..330), (4, 330..350)] {
        let exact = |&round: &u64| {
            let size = if round % 2 == 0 { "8MiB" } else { "1MiB" };
            kill_once(threads, size, "native", round, false, Some(&library))
        };
        let all = rounds.end - rounds.start;
        let inexact = all as usize - rounds.filter(exact).count();
        assert!(inexact < 5 && (threads > 1 || inexact == 0), "{inexact}");
    }
}

/// A thread that is stopped while it holds the recorder's lock: the others don't wait, and what
/// they do is either in the trace or said not to be.
#[test]
fn a_stopped_thread_is_waited_for_by_nobody() {
    kill_often(4, "8MiB", 200..260, true);
}
