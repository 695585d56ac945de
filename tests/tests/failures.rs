//! Calls that fail are the program's business; the live set stays the truth, and the program
//! gets the very errors that it would get without us.

use vramtrace_tests::{Finished, Run, program, read_json};

/// Runs with failures injected into the simulated driver, and makes sure that the program cannot
/// tell.
fn failing(what: &str, failures: &str) -> Finished {
    let run = || {
        Run::new(program("failures"))
            .arg(what)
            .env("VRAMTRACE_SIM_FAIL", failures)
            .env("VRAMTRACE_SIM_MEMORY", "4GiB")
    };
    let plain = run().plain().succeeds();
    let traced = run().succeeds();
    let without_times = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with("between"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        without_times(&traced.stdout),
        without_times(&plain.stdout),
        "traced (left), plain (right)"
    );
    assert_eq!(traced.stderr, plain.stderr);
    traced
}

#[test]
fn a_failed_free_leaves_the_block_as_it_was() {
    for code in ["1", "201", "999"] {
        let finished = failing("failed-free", &format!("cuMemFree_v2:1:code={code}"));
        assert!(
            finished
                .stdout
                .starts_with(&format!("free {code}\nfree 0\n")),
            "{}",
            finished.stdout
        );
        let leaks = finished.leaks();
        assert!(leaks.complete());
        assert_eq!(leaks.total("gpu"), (1000, 1));
        let times = finished
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("between "))
            .expect("times");
        let (before, after) = times.split_once(' ').expect("two times");
        let group = &leaks.json["groups"][0];
        assert_eq!(group["first_ns"], group["last_ns"]);
        let made = group["first_ns"].as_u64().expect("a time");
        // The recorder's clock and this one may differ by less than the program then waits.
        let near = 10_000_000;
        let between = before.parse::<u64>().unwrap() - near..after.parse::<u64>().unwrap() + near;
        assert!(between.contains(&made), "{made} is not in {between:?}");
        assert_eq!(group["stack"][0]["function"], "leak");
        let check = finished.check();
        assert_eq!(
            (check.loss("frees_failed"), check.loss("frees_unmatched")),
            (1, 0)
        );
    }
}

#[test]
fn failed_allocations_are_counted_and_leave_nothing() {
    let finished = failing("out-of-memory", "");
    assert!(
        finished.stdout.starts_with("alloc 2\nasync 2\n"),
        "{}",
        finished.stdout
    );
    let leaks = finished.leaks();
    assert_eq!(leaks.total("gpu"), (1000, 1));
    assert!(leaks.complete());
    let summary = read_json("summary", &finished.trace(), &[]);
    let text = summary.to_string();
    let failed: u64 = text
        .match_indices("\"failed")
        .filter_map(|(at, _)| {
            text[at..]
                .split_once(':')?
                .1
                .split([',', '}'])
                .next()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert_eq!(failed, 2, "{summary:#}");
}

#[test]
fn an_injected_failure_of_every_allocation() {
    let all = "cuMemAlloc*:every=2,cuMemHostAlloc:every=2,cuArray*:every=2,cuMipmapped*:every=2,cuMemCreate:every=2";
    let run = || {
        Run::new(program("failures"))
            .arg("out-of-memory")
            .env("VRAMTRACE_SIM_FAIL", all)
    };
    assert_eq!(
        run().finish().observable(),
        run().plain().finish().observable()
    );
}

/// After an error that stays no free succeeds any more: what is live then is not leaked.
#[test]
fn a_corrupted_context() {
    let finished = failing("sticky", "cuMemFree_v2:from=2:code=719");
    assert_eq!(finished.stdout, "free 0\nfree 719\nfree 719\nfree 719\n");
    let leaks = finished.leaks();
    assert_eq!(leaks.total("gpu"), (0, 0), "{:#}", leaks.json);
    assert_eq!(leaks.total("corrupted"), (3000, 3));
    assert!(
        leaks.groups().iter().all(|group| group.end == "corrupted"),
        "{:#}",
        leaks.json
    );
    assert!(leaks.complete());
    let summary = read_json("summary", &finished.trace(), &[]);
    assert!(summary.to_string().contains("719"), "{summary:#}");
}

#[test]
fn frees_of_what_was_never_allocated() {
    let finished = failing("unknown", "");
    let leaks = finished.leaks();
    assert_eq!(leaks.total("gpu"), (1000, 1));
    assert!(leaks.complete());
    let check = finished.check();
    assert!(check.loss("frees_failed") >= 4, "{:#}", check.json);
    assert_eq!(check.loss("frees_unmatched"), 0);
}

#[test]
fn an_address_that_comes_back_was_seen_to_go() {
    let finished = failing("reuse", "");
    finished.leaks().assert_are(&[]);
    let check = finished.check();
    assert_eq!(
        (check.loss("frees_unseen"), check.loss("frees_unmatched")),
        (0, 0)
    );
}

/// Our own calls must not destroy a capture, nor save one that the program destroys.
#[test]
fn captures_are_what_they_are_without_us() {
    let finished = failing("capture", "");
    assert!(
        finished.stdout.contains("end 0 1") && finished.stdout.contains("end 901 0"),
        "{}",
        finished.stdout
    );
    let leaks = finished.leaks();
    assert!(leaks.complete());
    // `before` and `beside`, less what the program's own calls freed, and the last graph's block.
    let groups = leaks.groups();
    assert!(
        groups
            .iter()
            .any(|group| group.kind == "graph" && group.bytes == 1002),
        "{groups:#?}"
    );
}

/// What another thread does to the same memory while a call fails is kept: only the failed call's
/// own step is taken back.
#[test]
fn a_failed_call_takes_back_its_own_step_only() {
    let cases = [
        (
            "release",
            "cuMemRelease:1:code=1:until=cuMemMap",
            (2 << 20, 1),
        ),
        ("unmap", "cuMemUnmap:1:code=1:until=cuMemRelease", (0, 0)),
        (
            "retain",
            "cuMemRetainAllocationHandle:1:code=1:until=cuMemUnmap",
            (0, 0),
        ),
        ("map", "cuMemMap:1:code=1:until=cuMemRelease", (0, 0)),
    ];
    for (what, failure, left) in cases {
        let finished = Run::new(program("meanwhile"))
            .arg(what)
            .env("VRAMTRACE_SIM_FAIL", failure)
            .succeeds();
        assert_eq!(finished.stdout, format!("{what} 1\n"));
        let leaks = finished.leaks();
        assert_eq!(leaks.total("gpu"), left, "{what}: {:#}", leaks.json);
        assert!(leaks.complete(), "{what}");
        assert_eq!(finished.check().loss("frees_unmatched"), 0, "{what}");
    }
}

/// A primary context that another thread retains anew before we can look is gone all the same.
#[test]
fn the_last_release_resets_whoever_retains_right_after() {
    let finished = Run::new(program("meanwhile"))
        .arg("last-release")
        .env(
            "VRAMTRACE_SIM_FAIL",
            "cuDevicePrimaryCtxRelease_v2:1:code=0:until=cuDevicePrimaryCtxRetain",
        )
        .succeeds();
    assert_eq!(finished.stdout, "last-release 0\n");
    let leaks = finished.leaks();
    let ends: Vec<_> = leaks
        .groups()
        .into_iter()
        .map(|group| (group.bytes, group.end))
        .collect();
    assert_eq!(ends, [(30, "live".into()), (1000, "reset".into())]);
}

/// What a graph does to memory cannot be asked for during a capture: the report says that it may
/// not know everything.
#[test]
fn a_graph_that_could_not_be_looked_into() {
    let finished = failing("graph-during-capture", "");
    assert_eq!(
        finished.stdout,
        "begin 0\ninstantiate 0\nend 0 0\nlaunch 0\n"
    );
    let leaks = finished.leaks();
    assert!(!leaks.complete());
    assert!(leaks.incomplete_because().contains("calls-unrecorded"));
}
