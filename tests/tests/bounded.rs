//! A trace never exceeds its size; leaks stay exact in a bounded file, and what is lost is said.

use std::os::unix::fs::MetadataExt;
use vramtrace_tests::{Finished, Leaks, Run, program, vramtrace};

const MIB: u64 = 1 << 20;

fn run(size: &str, what: &str, n: u32) -> Finished {
    let finished = Run::new(program("bounded"))
        .args([what, &n.to_string()])
        .env("VRAMTRACE_SIZE", size)
        .succeeds();
    let meta = std::fs::metadata(finished.trace()).expect("the trace");
    let bound = size
        .trim_end_matches("MiB")
        .parse::<u64>()
        .expect("a size in MiB")
        * MIB;
    assert!(
        meta.len() <= bound && meta.blocks() * 512 <= bound + 64 * 1024,
        "{meta:?}"
    );
    finished
}

/// What the commands for people print together.
fn spoken(finished: &Finished, command: &str) -> String {
    let output = vramtrace([command.as_ref(), finished.trace().as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The rings of a 1 MiB trace hold some thousand events; these are hundreds of thousands.
#[test]
fn a_wrapped_ring_loses_history_and_never_a_leak() {
    let finished = run("1MiB", "churn", 300_000);
    let leaks = finished.leaks();
    leaks.assert_are(&finished.left());
    let check = finished.check();
    assert_eq!(check.verdict(), "history-lost", "{:#}", check.json);
    let overwritten = check.loss("events_overwritten");
    let events = check.json["events"].as_u64().expect("events");
    assert!(events >= 1_200_000, "{:#}", check.json);
    assert_eq!(
        overwritten + check.loss("ring_capacity"),
        events,
        "{:#}",
        check.json
    );
    for command in ["summary", "check"] {
        let text = spoken(&finished, command);
        assert!(
            text.contains("forgot") || text.contains("history"),
            "{command}: {text}"
        );
    }
    assert!(finished.said().is_empty(), "{:?}", finished.stderr);
}

#[test]
fn the_same_with_room_for_everything_says_nothing_is_lost() {
    let finished = run("8MiB", "churn", 1000);
    finished.leaks().assert_are(&finished.left());
    assert_eq!(finished.check().verdict(), "whole");
}

#[test]
fn a_full_live_table_is_not_complete_and_says_why() {
    const LIVE: u32 = 60_000;
    let finished = run("1MiB", "live", LIVE);
    let leaks = finished.leaks();
    assert!(!leaks.complete());
    assert!(
        leaks.incomplete_because().contains("live-table-full"),
        "{}",
        leaks.incomplete_because()
    );
    let check = finished.check();
    assert_eq!(check.verdict(), "inexact");
    let (bytes, count) = leaks.total("gpu");
    assert!(
        count > 100 && bytes == 1000 * count,
        "{count} allocations, {bytes} bytes"
    );
    // What found no room is counted to the byte.
    assert_eq!(count + check.loss("allocations_dropped"), u64::from(LIVE));
    assert_eq!(bytes + check.loss("bytes_dropped"), 1000 * u64::from(LIVE));
    let failed = vramtrace([
        "leaks".as_ref(),
        "--fail".as_ref(),
        finished.trace().as_os_str(),
    ]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(spoken(&finished, "leaks").contains("VRAMTRACE_SIZE"));
}

/// Leaks whose stack found no room are still leaks.
#[test]
fn a_full_stack_table_costs_stacks_and_nothing_else() {
    let finished = run("1MiB", "stacks", 20_000);
    let leaks = finished.leaks();
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    assert_eq!(leaks.total("gpu"), (10 * 500, 10));
    let check = finished.check();
    assert!(check.loss("stacks_dropped") > 1000, "{:#}", check.json);
    assert_eq!(check.verdict(), "history-lost");
    let missing = |group: &serde_json::Value| group["stack_missing"].is_string();
    let groups = leaks.json["groups"].as_array().expect("groups");
    assert!(groups.iter().all(missing), "{groups:#?}");
}

/// A size below the smallest workable one is raised, once, aloud.
#[test]
fn too_small_a_size_is_raised_to_one_mebibyte() {
    let finished = Run::new(program("bounded"))
        .args(["churn", "100"])
        .env("VRAMTRACE_SIZE", "4096")
        .succeeds();
    assert_eq!(finished.said().len(), 1, "{}", finished.stderr);
    assert!(finished.said()[0].contains("VRAMTRACE_SIZE") && finished.said()[0].contains("1 MiB"));
    assert!(
        std::fs::metadata(finished.trace())
            .expect("the trace")
            .len()
            <= MIB
    );
    Leaks::of(&finished.trace(), &[]).assert_are(&finished.left());
}
