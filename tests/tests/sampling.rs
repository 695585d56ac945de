//! Sampled stacks through the real library: is every counter exact, and do estimates hold what is true?

use serde_json::Value;
use vramtrace_tests::{Finished, Run, program, read_json, vramtrace};

const ROUNDS: u64 = 3_000;
const THREADS: u64 = 2;

fn storm(settings: &[(&str, &str)]) -> Finished {
    let mut run = Run::new(program("storm"))
        .args([ROUNDS.to_string(), THREADS.to_string()])
        .env("VRAMTRACE_SIZE", "24MiB");
    for (name, value) in settings {
        run = run.env(name, value);
    }
    run.succeeds()
}

/// Bytes and allocations that the program left.
fn left(finished: &Finished) -> (u64, u64) {
    let left = finished.left();
    assert_eq!(left.len(), 2, "{finished:#?}");
    left.iter()
        .fold((0, 0), |sum, one| (sum.0 + one.bytes, sum.1 + one.count))
}

fn sampling(finished: &Finished) -> Value {
    let mut summary = read_json("summary", &finished.trace(), &[]);
    summary["processes"][0]["sampling"].take()
}

/// What is exact whatever was sampled: totals, accounts, and what sums by stack add up to.
fn assert_exact(finished: &Finished) {
    let leaks = finished.leaks();
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    assert_eq!(leaks.total("gpu"), left(finished));
    let groups = leaks.groups();
    let sum = groups
        .iter()
        .fold((0, 0), |sum, one| (sum.0 + one.bytes, sum.1 + one.count));
    assert_eq!(sum, left(finished), "groups add up");
    let check = finished.check();
    let verdict = check.verdict();
    assert!(
        verdict == "whole" || verdict == "history-lost",
        "{:#}",
        check.json
    );
    let summary = read_json("summary", &finished.trace(), &[]);
    let accounts = summary["processes"][0]["accounts"].as_array();
    let framework = accounts.into_iter().flatten();
    let framework: Vec<&Value> = framework
        .filter(|row| row["layer"] == "framework")
        .collect();
    assert_eq!(framework.len(), 1, "{summary:#}");
    assert_eq!(framework[0]["allocated"]["count"], 3 * ROUNDS * THREADS);
    assert_eq!(framework[0]["freed"]["count"], ROUNDS * THREADS);
    let peak = read_json("peak", &finished.trace(), &[]);
    assert_eq!(peak["complete"], true, "{peak:#}");
}

#[test]
fn every_stack_is_taken_unless_something_else_is_asked() {
    let finished = storm(&[]);
    assert_exact(&finished);
    let sampling = sampling(&finished);
    assert_eq!(sampling["sampled"], false, "{sampling:#}");
    assert_eq!(sampling["asked"], "all");
    assert_eq!(sampling["changes"], 0);
    finished.leaks().assert_are(&finished.left());
}

#[test]
fn estimates_hold_what_is_true_and_counters_are_exact() {
    let finished = storm(&[("VRAMTRACE_SAMPLE", "64KiB")]);
    assert_exact(&finished);
    let found = sampling(&finished);
    assert_eq!(found["sampled"], true, "{found:#}");
    assert_eq!(found["asked_interval"], 64 << 10);
    assert_eq!(found["budget_percent"], Value::Null);
    assert!(
        found["not_sampled"].as_u64().expect("a number") > ROUNDS,
        "{found:#}"
    );
    let leaks = finished.leaks();
    let groups = leaks.json["groups"].as_array().expect("groups");
    for truth in finished.left() {
        let of = |group: &&Value| group["stack"][0]["function"] == truth.function.as_str();
        let group = groups
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("{:#}", leaks.json));
        let number = |name: &str| group["estimate"][name].as_f64().expect("a number");
        for (what, truth) in [("bytes", truth.bytes), ("count", truth.count)] {
            // Which stacks are taken is another in each run: five times the stated interval never
            // fails.
            let (estimate, low) = (number(what), number(&format!("{what}_low")));
            let reach = 5.0 * (number(&format!("{what}_high")) - low);
            assert!((estimate - truth as f64).abs() < reach, "{what}: {group:#}");
            assert!(estimate > 0.0 && low <= estimate, "{what}: {group:#}");
        }
        let known = group["count"].as_u64().expect("a number");
        assert!(known < truth.count, "{group:#}");
    }
    let last = groups.last().expect("groups");
    assert!(
        last["stack_missing"]
            .as_str()
            .is_some_and(|why| why.contains("not sampled"))
    );
    for command in ["leaks", "summary", "check", "peak", "growth", "churn"] {
        let output = vramtrace([command.as_ref(), finished.trace().as_os_str()]);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("stacks were sampled"), "{command}: {text}");
    }
    // Profiles add up to what is exact, with nothing left over.
    let folded = finished.scratch.path().join("out.folded");
    let output = vramtrace([
        "export".as_ref(),
        "-o".as_ref(),
        folded.as_os_str(),
        finished.trace().as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&folded).expect("the profile");
    let bytes: u64 = text
        .lines()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(bytes, left(&finished).0);
    assert!(!text.contains("not sampled"), "{text}");
}

#[test]
fn no_stack_is_taken_where_none_is_wanted() {
    let finished = storm(&[("VRAMTRACE_SAMPLE", "off")]);
    assert_exact(&finished);
    let found = sampling(&finished);
    assert_eq!(found["asked"], "off", "{found:#}");
    // The blocks, and what the pool holds is a gauge without stack anyway.
    assert!(found["not_sampled"].as_u64().expect("a number") >= 3 * ROUNDS * THREADS);
}

/// The budget is a ten-millionth of what these stacks take: whatever the machine, it is used up at once.
#[test]
fn a_storm_is_sampled_within_the_budget_and_the_trace_says_so() {
    let finished = storm(&[("VRAMTRACE_BUDGET", "0.001")]);
    assert_exact(&finished);
    let found = sampling(&finished);
    assert_eq!(found["sampled"], true, "{found:#}");
    assert_eq!(found["budget_percent"], 0.001);
    let changes = found["last_changes"].as_array().expect("changes");
    assert!(!changes.is_empty(), "{found:#}");
    assert_eq!(changes[0]["from"], 0);
    assert!(changes[0]["to"].as_u64() > Some(0), "{found:#}");
    let taken = found["stacks"].as_u64().expect("a number");
    let not = found["not_sampled"].as_u64().expect("a number");
    assert!(
        not > ROUNDS && taken + not >= 3 * ROUNDS * THREADS,
        "{found:#}"
    );
    // Every change is an event, too.
    let events = finished.scratch.path().join("out.jsonl");
    let output = vramtrace([
        "export".as_ref(),
        "-o".as_ref(),
        events.as_os_str(),
        finished.trace().as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&events).expect("the events");
    let written = text
        .lines()
        .filter(|line| line.contains("\"sampling\""))
        .count() as u64;
    assert_eq!(Some(written), found["changes"].as_u64(), "{found:#}");
}
