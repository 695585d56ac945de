//! `VRAMTRACE_ON_OOM=rescue`: an allocation that fails for lack of memory is tried once more after the
//! pools of its device gave back what they do not use. Whatever the policy, the program sees what it
//! sees without us, but for that.

use serde_json::Value;
use vramtrace_tests::{Finished, Run, program, read_json};

const POLICIES: [&str; 3] = ["record", "snapshot", "rescue"];
/// Families whose memory pools can give back.
const DEVICE: [&str; 8] = [
    "linear", "pitched", "async", "pool", "vmm", "array", "array3d", "mipmap",
];

fn oom(what: &str, which: &str) -> Run {
    Run::new(program("oom"))
        .args([what, which])
        .env("VRAMTRACE_SIM_MEMORY", "2GiB")
}

fn with(policy: &str, what: &str, which: &str) -> Finished {
    oom(what, which).env("VRAMTRACE_ON_OOM", policy).succeeds()
}

fn failures(finished: &Finished) -> Vec<Value> {
    let document = read_json("oom", &finished.trace(), &[]);
    assert_eq!(document["forgotten"], 0, "{document:#}");
    let failures = document["failures"].as_array();
    failures.expect("failures").clone()
}

fn snapshots(finished: &Finished) -> usize {
    let files = finished.scratch.files();
    files.iter().filter(|name| name.contains(".oom-")).count()
}

#[test]
fn what_pools_hoard_is_given_back() {
    for family in DEVICE {
        let plain = oom("hoarded", family).plain().succeeds();
        assert_eq!(plain.stdout, format!("{family} 2\n"));
        for policy in ["record", "snapshot"] {
            let finished = with(policy, "hoarded", family);
            assert_eq!(finished.observable(), plain.observable(), "{policy}");
            let [failure] = &failures(&finished)[..] else {
                panic!("{family}")
            };
            assert_eq!(failure["rescue"], Value::Null);
            // Both pools' reserves: 800 MiB, and 500 rounded up to whole pieces of 32.
            assert_eq!(failure["held"]["cached_bytes"], 1312u64 << 20, "{family}");
            assert_eq!(failure["fits"], "without-cache", "{family}");
            assert_eq!(snapshots(&finished), usize::from(policy == "snapshot"));
        }
        let finished = with("rescue", "hoarded", family);
        assert_eq!(finished.stdout, format!("{family} 0\n"));
        assert_eq!(finished.stderr, "");
        let [failure] = &failures(&finished)[..] else {
            panic!("{family}")
        };
        assert_eq!(failure["fate"], "rescued", "{family}: {failure:#}");
        assert_eq!(failure["asked_bytes"], 1u64 << 30);
        let rescue = &failure["rescue"];
        assert_eq!(rescue["saved"], true);
        assert_eq!(rescue["waited"], true);
        assert_eq!(rescue["given_back_bytes"], 1312u64 << 20, "{family}");
        // Nothing that would be worth keeping happened.
        assert_eq!(snapshots(&finished), 0);
        let leaks = finished.leaks();
        assert!(leaks.complete());
        assert_eq!(leaks.total("gpu"), (1 << 30, 1), "{family}");
        let summary = read_json("summary", &finished.trace(), &[]);
        let sums = &summary["processes"][0]["rescues"][0];
        assert_eq!(
            (&sums["tried"], &sums["saved"]),
            (&1.into(), &1.into()),
            "{summary:#}"
        );
    }
}

#[test]
fn what_is_in_use_is_not() {
    for family in DEVICE {
        let plain = oom("full", family).plain().succeeds();
        assert_eq!(plain.stdout, format!("{family} 2\n"));
        for policy in POLICIES {
            let finished = with(policy, "full", family);
            assert_eq!(finished.observable(), plain.observable(), "{policy}");
            let [failure] = &failures(&finished)[..] else {
                panic!("{family}")
            };
            assert_eq!(failure["fate"], "last", "{family}");
            assert_eq!(failure["fits"], "never", "{family}");
            assert_eq!(failure["attempts"], 1, "{family}");
            if policy == "rescue" {
                assert_eq!(failure["rescue"]["saved"], false);
                assert_eq!(failure["rescue"]["given_back_bytes"], 0);
            }
            assert_eq!(snapshots(&finished), usize::from(policy != "record"));
            assert_eq!(finished.leaks().total("gpu"), (1300 << 20, 1));
        }
    }
}

/// Managed memory is charged to no device of the simulated driver: its first call fails on demand.
#[test]
fn managed_memory_is_tried_once_more() {
    let run = |policy| {
        oom("full", "managed")
            .env("VRAMTRACE_ON_OOM", policy)
            .env("VRAMTRACE_SIM_FAIL", "cuMemAllocManaged:1")
            .succeeds()
    };
    assert_eq!(run("record").stdout, "managed 2\n");
    assert_eq!(run("snapshot").stdout, "managed 2\n");
    assert_eq!(run("rescue").stdout, "managed 0\n");
}

/// … and once only.
#[test]
fn it_is_tried_once_only() {
    let finished = oom("full", "managed")
        .env("VRAMTRACE_ON_OOM", "rescue")
        .env("VRAMTRACE_SIM_FAIL", "cuMemAllocManaged:from=1")
        .env("VRAMTRACE_SIM_LOG", "1")
        .succeeds();
    assert_eq!(finished.stdout, "managed 2\n");
    let calls = finished.stderr.matches("cuMemAllocManaged").count();
    assert_eq!(calls, 2, "{}", finished.stderr);
}

/// Pools of the device have nothing to give to host memory.
#[test]
fn host_memory_is_not_rescued() {
    for policy in POLICIES {
        let finished = oom("hoarded", "pinned")
            .env("VRAMTRACE_ON_OOM", policy)
            .env("VRAMTRACE_SIM_FAIL", "cuMemHostAlloc:1")
            .succeeds();
        assert_eq!(finished.stdout, "pinned 2\n");
        let [failure] = &failures(&finished)[..] else {
            panic!("one")
        };
        assert_eq!(failure["rescue"], Value::Null);
        assert_eq!(failure["layer"], "host");
        assert_eq!(snapshots(&finished), usize::from(policy != "record"));
    }
}

/// Another error is the program's own business.
#[test]
fn other_errors_are_left_alone() {
    for policy in POLICIES {
        let finished = oom("hoarded", "linear")
            .env("VRAMTRACE_ON_OOM", policy)
            .env("VRAMTRACE_SIM_FAIL", "cuMemAlloc_v2:from=1:code=801")
            .succeeds();
        assert_eq!(finished.stdout, "linear 801\n");
        assert!(failures(&finished).is_empty());
        assert_eq!(snapshots(&finished), 0);
    }
}

/// Trimming would destroy the capture, so it is not done, and the capture is what it is without us.
#[test]
fn never_while_a_capture_is_open() {
    let plain = oom("capture", "linear").plain().succeeds();
    assert_eq!(plain.stdout, "linear 2\ncapturing 0 1\nend 0 1\n");
    for policy in POLICIES {
        let finished = with(policy, "capture", "linear");
        assert_eq!(finished.observable(), plain.observable(), "{policy}");
        let [failure] = &failures(&finished)[..] else {
            panic!("one")
        };
        assert_eq!(failure["rescue"], Value::Null);
        // Asking for free memory is harmless in a capture, and was done.
        assert!(failure["free_bytes"].is_u64());
    }
}

/// The memory of another device than the current one: its pools are trimmed, and what the current
/// device has free is not taken for what that one has.
#[test]
fn memory_of_another_device() {
    let run = |policy| {
        oom("elsewhere", "")
            .env("VRAMTRACE_SIM_DEVICES", "2")
            .env("VRAMTRACE_ON_OOM", policy)
            .succeeds()
    };
    let finished = run("record");
    assert_eq!(finished.stdout, "create 2\npool 2\n");
    for failure in failures(&finished) {
        let device = read_json("oom", &finished.trace(), &[])["devices"]
            .as_array()
            .and_then(|all| all.iter().position(|one| one["index"] == 1));
        assert_eq!(failure["device"], device.expect("device 1"), "{failure:#}");
        assert_eq!(failure["free_bytes"], Value::Null, "{failure:#}");
    }
    // Its work is not waited for, and what the stream freed counts as used until somebody does.
    let rescued = run("rescue");
    let first = &failures(&rescued)[0]["rescue"];
    assert_eq!(first["waited"], false, "{first:#}");
}

/// Pools that other threads make and destroy while pools are trimmed.
#[test]
fn pools_come_and_go_meanwhile() {
    for policy in ["record", "rescue"] {
        let finished = with(policy, "destroys", "200");
        assert_eq!(finished.stdout, "over\n");
        assert_eq!(finished.stderr, "");
        let leaks = finished.leaks();
        assert!(leaks.complete());
        assert_eq!(leaks.total("gpu"), (1300 << 20, 1), "{:#}", leaks.json);
    }
}

/// A program that probes in a loop is not slowed down by rescues that gave nothing, and the sums
/// know how many were tried.
#[test]
fn a_storm_of_failures() {
    let plain = oom("storm", "3000").plain().succeeds();
    let finished = with("rescue", "storm", "3000");
    assert_eq!(finished.observable(), plain.observable());
    let summary = read_json("summary", &finished.trace(), &[]);
    let process = &summary["processes"][0];
    let tried = process["rescues"][0]["tried"].as_u64().expect("tried");
    assert!((1..3000).contains(&tried), "{tried}");
    assert_eq!(process["rescues"][0]["saved"], 0);
    assert_eq!(process["accounts"][0]["failed_count"], 3000);
}
