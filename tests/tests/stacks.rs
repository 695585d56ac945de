//! Call stacks from unusual places: right where they can be, and never a crash.

use serde_json::Value;
use vramtrace_tests::{Build, Finished, Group, Run, artifacts, program, skip};

fn stacks(what: &str) -> Run {
    Run::new(program("stacks"))
        .arg(what)
        .env("VRAMTRACE_STACKS", "native")
}

fn groups(finished: &Finished) -> Vec<Value> {
    finished.leaks().json["groups"]
        .as_array()
        .expect("groups")
        .clone()
}

fn one_group(finished: &Finished) -> (Group, Value) {
    let leaks = finished.leaks();
    assert_eq!(leaks.groups().len(), 1, "{:#}", leaks.json);
    (leaks.groups().remove(0), leaks.json["groups"][0].clone())
}

#[test]
fn a_deep_recursion_is_cut_and_says_so() {
    let (group, json) = one_group(&stacks("recursion").succeeds());
    assert_eq!(json["stack_truncated"], true);
    assert_eq!(group.functions[0], "leak");
    assert!(group.functions.len() > 30);
    assert!(
        group.functions[1..].iter().all(|name| name == "recurse"),
        "{group:?}"
    );
}

#[test]
fn a_thread_with_a_small_stack() {
    let (group, json) = one_group(&stacks("thread").arg("512").succeeds());
    assert_eq!(group.functions[..2], ["leak", "thread_body"]);
    assert_eq!(json["stack_truncated"], false);
    assert_eq!(json["threads"].as_array().map(Vec::len), Some(1));
}

/// The recorder runs on whatever stack its caller has. (Unoptimised, the unwinder alone takes
/// 200 KiB: this is about the library that users get.)
#[test]
fn stacks_that_are_really_small() {
    if !artifacts().optimised {
        return skip(
            "small stacks",
            "this is a debug build; set VRAMTRACE_TEST_PACKAGE",
        );
    }
    for what in ["thread", "fiber", "alternate"] {
        stacks(what).arg("32").succeeds();
    }
}

/// The second plugin lies where the first one was; each block has the stack of its own plugin.
#[test]
fn plugins_that_come_and_go() {
    let plugin = |bytes: &str| {
        Build::of("plugin")
            .flag(format!("-DBYTES={bytes}"))
            .shared()
            .linked()
            .build()
    };
    let (first, second) = (plugin("5111"), plugin("6222"));
    let finished = stacks("plugins").args([&first, &second]).succeeds();
    if !finished.stdout.contains("same address") {
        skip("plugins at one address", "the loader put them elsewhere");
    }
    let mut found: Vec<(u64, u64, String, String)> = Vec::new();
    for group in groups(&finished) {
        let frame = &group["stack"][0];
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        found.push((
            group["bytes"].as_u64().expect("bytes"),
            group["count"].as_u64().expect("count"),
            text(&frame["function"]),
            text(&frame["module"]),
        ));
    }
    found.sort();
    for (bytes, _, function, module) in &found {
        assert_eq!(function, "plugin_allocates");
        let expected = if bytes % 5111 == 0 { &first } else { &second };
        assert_eq!(module, &*expected.to_string_lossy(), "{found:#?}");
    }
    assert_eq!(
        found.iter().map(|(_, count, ..)| count).sum::<u64>(),
        3,
        "{found:#?}"
    );
}

#[test]
fn a_stripped_program_has_offsets() {
    let stripped = Build::of("stacks").stripped().build();
    let finished = Run::new(&stripped)
        .arg("plain")
        .env("VRAMTRACE_STACKS", "native")
        .succeeds();
    let (_, json) = one_group(&finished);
    let frame = &json["stack"][0];
    assert_eq!(frame["module"], *stripped.to_string_lossy(), "{frame:#}");
    assert!(
        frame["function"].is_null() && frame["offset"].as_u64().is_some_and(|offset| offset > 0),
        "{frame:#}"
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_that_was_made_at_run_time() {
    let (group, json) = one_group(&stacks("jit").succeeds());
    assert_eq!((group.bytes, group.count), (3000, 1));
    let frame = &json["stack"][0];
    assert!(
        frame["module"].is_null() && frame["function"].is_null(),
        "{frame:#}"
    );
    assert!(
        frame["offset"]
            .as_u64()
            .is_some_and(|address| address > 4096),
        "{frame:#}"
    );
}

#[test]
fn fibers_and_alternate_stacks() {
    for (what, bytes, count) in [("fiber", 12000, 3), ("alternate", 10000, 2)] {
        let finished = stacks(what).arg("512").succeeds();
        let leaks = finished.leaks();
        assert!(leaks.complete());
        assert_eq!(leaks.total("gpu"), (bytes, count), "{what}");
        assert!(
            leaks
                .groups()
                .iter()
                .any(|group| group.functions.contains(&"main".to_owned())),
            "{:#}",
            leaks.json
        );
    }
}

/// (Who wants Python frames gets native ones from a thread that has no others.)
#[test]
fn no_stacks_where_none_are_wanted() {
    for (setting, frames) in [
        ("off", false),
        ("python", true),
        ("native", true),
        ("both", true),
        ("auto", true),
    ] {
        let finished = stacks("plain").env("VRAMTRACE_STACKS", setting).succeeds();
        let (group, json) = one_group(&finished);
        assert_eq!(group.bytes, 6000);
        assert_eq!(!group.functions.is_empty(), frames, "{setting}: {json:#}");
        assert_eq!(
            json["stack_missing"].is_string(),
            !frames,
            "{setting}: {json:#}"
        );
    }
}
