//! Forks, threads, and the many ways in which a process ends.

use std::collections::BTreeSet;
use vramtrace_tests::{Check, Finished, Leaks, Left, Run, artifacts, program, vramtrace};

fn process(what: &str) -> Run {
    Run::new(program("process")).arg(what)
}

fn left(bytes: u64, function: &str) -> Left {
    Left {
        kind: "device".into(),
        api: "cuMemAlloc_v2".into(),
        bytes,
        count: 1,
        function: function.into(),
    }
}

/// What each of its traces says, as bytes that leaked.
fn bytes_by_trace(finished: &Finished) -> BTreeSet<u64> {
    let traces = finished.scratch.traces();
    let leaked = |leaks: Leaks| {
        assert!(leaks.complete(), "{}", leaks.incomplete_because());
        leaks.total("gpu").0
    };
    let bytes: BTreeSet<u64> = traces
        .iter()
        .map(|trace| leaked(Leaks::of(trace, &["--point", "teardown"])))
        .collect();
    assert_eq!(bytes.len(), traces.len(), "{bytes:?}");
    bytes
}

/// Whichever of several threads comes first, there is one trace, and all are in it.
#[test]
fn all_threads_come_first() {
    let rounds = if std::env::var_os("VRAMTRACE_TEST_FULL").is_some() {
        3000
    } else {
        200
    };
    for _ in 0..rounds {
        let finished = Run::new(program("first"))
            .env("VRAMTRACE_SIZE", "1MiB")
            .env("VRAMTRACE_STACKS", "off")
            .succeeds();
        let leaks = finished.leaks();
        assert!(leaks.complete(), "{}", leaks.incomplete_because());
        assert_eq!(leaks.total("gpu"), (8000, 8));
    }
}

#[test]
fn a_child_forked_before_the_first_use_has_a_trace_of_its_own() {
    let finished = process("fork-before").succeeds();
    assert_eq!(bytes_by_trace(&finished), BTreeSet::from([1000, 2000]));
}

/// The child of a process that used CUDA writes nothing into its parent's trace. (Where the
/// driver lets it allocate after all, that goes into a trace of its own.)
#[test]
fn a_child_forked_after_the_first_use() {
    for how in ["fork-after", "clone", "_Fork"] {
        let finished = process(how).succeeds();
        let traces = finished.scratch.traces();
        assert_eq!(
            traces.len(),
            if how == "fork-after" { 1 } else { 2 },
            "{how}: {traces:?}"
        );
        let of_parent = |trace: &&std::path::PathBuf| {
            Leaks::of(trace, &["--point", "teardown"]).total("gpu").0 != 100
        };
        let parent = traces.iter().find(of_parent).expect("the parent's trace");
        let leaks = Leaks::of(parent, &["--point", "teardown"]);
        leaks.assert_are(&[left(1000, "leak"), left(2222, "hold_global")]);
        let check = Check::of(parent);
        assert_eq!(
            (check.loss("frees_failed"), check.loss("frees_unmatched")),
            (0, 0),
            "{how}"
        );
    }
}

#[test]
fn programs_started_by_a_traced_one_are_traced() {
    for how in ["fork-exec", "vfork-exec", "spawn"] {
        let finished = process(how).succeeds();
        assert_eq!(
            bytes_by_trace(&finished),
            BTreeSet::from([3222, 3000]),
            "{how}"
        );
    }
}

/// The same pid, and a second trace beside the first.
#[test]
fn a_program_that_becomes_another() {
    let finished = process("exec").succeeds();
    assert_eq!(bytes_by_trace(&finished), BTreeSet::from([3222, 3000]));
    let names = finished.scratch.files();
    assert!(
        names.iter().any(|name| name.ends_with(".2.vrt")),
        "{names:?}"
    );
}

/// However a process ends, what it left is known; what its destructors free is teardown.
#[test]
fn every_way_to_end() {
    for (how, code, freed_in_teardown, end) in [
        ("return", 0, true, "exited"),
        ("exit", 0, true, "exited"),
        ("_exit", 0, false, "killed"),
        ("quick_exit", 0, false, "killed"),
        ("abort", -6, false, "killed"),
        ("signal", -15, false, "killed"),
    ] {
        let finished = process(how).finish();
        assert_eq!(finished.code(), code, "{finished:#?}");
        let leaks = Leaks::of(&finished.trace(), &["--point", "teardown"]);
        assert_eq!(
            leaks.as_left(),
            [left(1000, "leak"), left(2222, "hold_global")],
            "{how}"
        );
        let released = if freed_in_teardown { (2222, 1) } else { (0, 0) };
        assert_eq!(leaks.total("teardown"), released, "{how}");
        // Without a Python interpreter, reports are about the end.
        assert_eq!(finished.leaks().point(), "end", "{how}");
        assert_eq!(leaks.json["processes"][0]["end"], end, "{how}");
        if freed_in_teardown {
            let at_end = Leaks::of(&finished.trace(), &["--point", "end"]);
            at_end.assert_are(&[left(1000, "leak")]);
        }
    }
}

/// An exit handler that the program registered after its first use of CUDA cleans up in time.
#[test]
fn an_exit_handler_frees() {
    let finished = process("atexit").succeeds();
    finished.leaks().assert_are(&[left(1000, "leak")]);
    assert_eq!(finished.leaks().total("teardown"), (0, 0));
}

/// Calls of a driver that is already going down are not leaks and not failures.
#[test]
fn a_driver_that_is_gone_at_exit() {
    let finished = process("return")
        .env("VRAMTRACE_SIM_EXIT", "deinit")
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let leaks = Leaks::of(&finished.trace(), &["--point", "teardown"]);
    leaks.assert_are(&[left(1000, "leak"), left(2222, "hold_global")]);
    assert_eq!(finished.check().loss("frees_failed"), 0);
}

#[test]
fn a_program_that_closes_every_descriptor() {
    let finished = process("closes").succeeds();
    let leaks = Leaks::of(&finished.trace(), &["--point", "teardown"]);
    leaks.assert_are(&[
        left(1000, "leak"),
        left(1500, "leak"),
        left(2222, "hold_global"),
    ]);
}

/// Whether everything was recorded; then the sums are exact. A machine that stops a thread for
/// long in a critical section can make the recorder lose events; then it says so.
fn storms(what: &str, threads: &str) -> bool {
    let mut all = true;
    for stacks in ["native", "off"] {
        let finished = process(what)
            .arg(threads)
            .env("VRAMTRACE_STACKS", stacks)
            .env("VRAMTRACE_SIZE", "16MiB")
            .succeeds();
        let leaks = finished.leaks();
        let check = finished.check();
        assert_eq!(check.loss("recorder_panics"), 0);
        assert_ne!(check.verdict(), "damaged", "{:#}", check.json);
        if !leaks.complete() {
            assert!(
                leaks.incomplete_because().contains("events-lost"),
                "{}",
                leaks.incomplete_because()
            );
            assert!(check.loss("events_lost") > 0);
            all = false;
            continue;
        }
        let expected = &finished.left()[0];
        assert_eq!(
            leaks.total("gpu"),
            (expected.bytes, expected.count),
            "{stacks}"
        );
        for loss in [
            "events_lost",
            "frees_unmatched",
            "frees_unseen",
            "calls_unrecorded",
        ] {
            assert_eq!(check.loss(loss), 0, "{loss}: {:#}", check.json);
        }
        let groups = leaks.json["groups"].as_array().expect("groups");
        let threads_of =
            |group: &serde_json::Value| group["threads"].as_array().map_or(0, Vec::len);
        let seen: usize = groups.iter().map(threads_of).sum();
        assert!(seen >= threads.parse().expect("a number"), "{seen} threads");
    }
    all
}

#[test]
fn storms_of_threads_are_exact_or_say_that_they_are_not() {
    storms("threads", "64");
    storms("leaving", "16");
}

#[test]
fn sixty_four_threads_in_a_storm_are_exact() {
    assert!(storms("threads", "64"));
}

#[test]
fn threads_that_end_while_others_allocate_are_exact() {
    assert!(storms("leaving", "16"));
}

#[test]
fn run_follows_children() {
    let scratch = vramtrace_tests::Scratch::new();
    let finished = Run::new(&artifacts().reader)
        .plain()
        .arg("run")
        .arg("-o")
        .arg(scratch.path().join("%e.%p.vrt"))
        .arg("--")
        .arg(program("process"))
        .arg("fork-exec")
        .env("VRAMTRACE_LIB", &artifacts().shim)
        .without("VRAMTRACE_OUTPUT")
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(scratch.traces().len(), 2, "{finished:#?}");
    let output = vramtrace([
        "leaks".as_ref(),
        "--json".as_ref(),
        "--point".as_ref(),
        "teardown".as_ref(),
        scratch.path().as_os_str(),
    ]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["total"]["gpu"]["bytes"], 6222);
    assert_eq!(json["processes"].as_array().map(Vec::len), Some(2));
}
