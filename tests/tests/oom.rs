//! Allocations that fail for lack of memory, through the real library and the real command.

use serde_json::Value;
use vramtrace_tests::{Run, program, read_json};

#[test]
fn what_was_asked_and_free_and_who_held_the_rest() {
    let finished = Run::new(program("failures"))
        .arg("out-of-memory")
        .env("VRAMTRACE_SIM_MEMORY", "4GiB")
        .succeeds();
    assert!(
        finished.stdout.starts_with("alloc 2\nasync 2\n"),
        "{}",
        finished.stdout
    );
    let document = read_json("oom", &finished.trace(), &[]);
    let failures = document["failures"].as_array().expect("failures");
    let of = |name: &str| -> Vec<&Value> { failures.iter().map(|one| &one[name]).collect() };
    assert_eq!(
        of("api"),
        ["cuMemAlloc_v2", "cuMemAllocAsync"],
        "{document:#}"
    );
    assert_eq!(of("asked_bytes"), [1u64 << 42, 1 << 42]);
    assert_eq!(of("total_bytes"), [4u64 << 30, 4 << 30]);
    assert_eq!(of("fits"), ["never", "never"]);
    for failure in failures {
        assert_eq!(
            failure["stack"][0]["function"], "out_of_memory",
            "{failure:#}"
        );
        let free = failure["free_bytes"].as_u64().expect("free bytes");
        assert!((1 << 30..4 << 30).contains(&free), "{free}");
        let held = &failure["held"];
        assert_eq!(
            (&held["used"]["bytes"], &held["used"]["count"]),
            (&1000.into(), &1.into())
        );
        assert_eq!(held["groups"][0]["stack"][0]["function"], "leak");
    }
    assert_eq!(document["forgotten"], 0);
}
