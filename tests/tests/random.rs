//! Random programs over every kind of memory, several devices, contexts and pools, whose calls fail
//! now and then: what the trace says is live, and how the rest ended, is what the program says.

use std::collections::BTreeMap;
use vramtrace_tests::{Finished, Run, full, program};

/// Calls that fail without effect. Each period is one that no other divides, so that failures
/// meet in ever new ways.
const FAILURES: &str = "cuMemFree_v2:every=7:code=1,cuMemFreeAsync:every=11:code=1,cuMemFreeHost:every=5:code=1,\
    cuMemHostUnregister:every=3:code=1,cuArrayDestroy:every=4:code=1,cuMipmappedArrayDestroy:every=3:code=1,\
    cuMemRelease:every=5:code=1,cuMemUnmap:every=4:code=1,cuMemMap:every=7:code=1,\
    cuMemRetainAllocationHandle:every=3:code=1,cuMemCreate:every=9,cuMemAlloc_v2:every=13,\
    cuMemAllocAsync:every=17,cuMemAllocFromPoolAsync:every=6,cuMemHostAlloc:every=8,cuArrayCreate_v2:every=5,\
    cuCtxDestroy_v2:every=3:code=1,cuCtxDetach:every=3:code=1,cuCtxCreate_v2:every=5,cuGreenCtxDestroy:every=3:code=1,\
    cuGreenCtxCreate:every=4,cuDevicePrimaryCtxRelease_v2:every=3:code=1,cuDevicePrimaryCtxReset_v2:every=2:code=1,\
    cuDevicePrimaryCtxRetain:every=4,cuMemPoolDestroy:every=3:code=1,cuMemPoolCreate:every=4,cuGraphLaunch:every=4:code=1";

/// Kind, device (-1 the host), end → bytes and number.
type Sums = BTreeMap<(String, i64, String), (u64, u64)>;

fn add(sums: &mut Sums, kind: &str, device: i64, end: &str, bytes: u64, count: u64) {
    let sum = sums
        .entry((kind.into(), device, end.into()))
        .or_insert((0, 0));
    *sum = (sum.0 + bytes, sum.1 + count);
}

fn truth(finished: &Finished) -> Sums {
    let mut sums = Sums::new();
    for line in finished.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["truth", kind, device, end, bytes, count] = words[..] else {
            panic!("{line}")
        };
        let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{line}"));
        let device = device.parse().unwrap_or_else(|_| panic!("{line}"));
        add(&mut sums, kind, device, end, number(bytes), number(count));
    }
    sums
}

fn reported(finished: &Finished) -> Sums {
    let mut sums = Sums::new();
    for group in finished.leaks().groups() {
        let device = group.device.map_or(-1, |device| device as i64);
        add(
            &mut sums,
            &group.kind,
            device,
            &group.end,
            group.bytes,
            group.count,
        );
    }
    sums
}

fn check(seed: u64, steps: u32, threads: u32, failures: &str) {
    let run = || {
        Run::new(program("random"))
            .args([seed.to_string(), steps.to_string(), threads.to_string()])
            .env("VRAMTRACE_SIM_DEVICES", "3")
            .env("VRAMTRACE_SIM_FAIL", failures)
            .env("VRAMTRACE_STACKS", "off")
    };
    let finished = run().succeeds();
    let what = format!("seed {seed}, {steps} steps, {threads} threads");
    assert_eq!(
        reported(&finished),
        truth(&finished),
        "the reader (left) and the program (right) differ: {what}"
    );
    let leaks = finished.leaks();
    assert!(leaks.complete(), "{what}: {}", leaks.incomplete_because());
    let losses = finished.check();
    for loss in ["frees_unmatched", "frees_unseen", "calls_unrecorded"] {
        assert_eq!(losses.loss(loss), 0, "{what}: {loss}");
    }
    if threads == 1 {
        assert_eq!(finished.stdout, run().plain().succeeds().stdout, "{what}");
    }
}

fn seeds() -> u64 {
    if full() { 200 } else { 8 }
}

#[test]
fn random_programs() {
    for seed in 0..seeds() {
        check(seed, 4000, 1, "");
    }
}

#[test]
fn random_programs_whose_calls_fail() {
    for seed in 0..seeds() {
        check(1000 + seed, 4000, 1, FAILURES);
    }
}

#[test]
fn random_threads() {
    for seed in 0..seeds() {
        check(2000 + seed, 2000, 4, FAILURES);
    }
}
