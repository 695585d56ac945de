//! Pools of stream-ordered memory: where their memory is, and when it goes.

use vramtrace_tests::{Finished, Run, program};

fn pools(what: &str, failures: &str) -> Finished {
    Run::new(program("pools"))
        .arg(what)
        .env("VRAMTRACE_SIM_DEVICES", "2")
        .env("VRAMTRACE_SIM_FAIL", failures)
        .succeeds()
}

/// Bytes that pools still hold on the devices: the device layer's live bytes.
fn reserved(finished: &Finished) -> u64 {
    finished.leaks().json["total"]["cached"]["bytes"]
        .as_u64()
        .expect("total.cached.bytes")
}

#[test]
fn a_destroyed_pool_holds_nothing_once_its_last_block_is_freed() {
    for (what, failures) in [
        ("destroyed", ""),
        ("destroyed-empty", ""),
        ("destroyed-failing", "cuMemFreeAsync:1:code=1"),
    ] {
        let finished = pools(what, failures);
        finished.leaks().assert_are(&[]);
        assert_eq!(reserved(&finished), 0, "{what}");
        assert_eq!(finished.check().loss("frees_unmatched"), 0, "{what}");
    }
}

#[test]
fn a_pool_that_could_not_be_destroyed_is_as_it_was() {
    let finished = pools("kept", "cuMemPoolDestroy:1:code=1");
    finished.leaks().assert_are(&finished.left());
    assert!(finished.stdout.starts_with("destroy 1\n"), "{finished:#?}");
}

#[test]
fn blocks_are_on_the_device_of_their_pool() {
    let finished = pools("other-device", "");
    let leaks = finished.leaks();
    assert_eq!(leaks.total("gpu"), (12000, 2));
    for group in leaks.groups() {
        assert_eq!(group.device, Some(1), "{group:?}");
    }
    assert_eq!(leaks.json["devices"].as_array().map(Vec::len), Some(2));
}

#[test]
fn blocks_of_a_pool_of_host_memory_are_host_memory() {
    let finished = pools("host", "");
    let leaks = finished.leaks();
    leaks.assert_are(&finished.left());
    assert_eq!(leaks.groups()[0].end, "live");
    assert_eq!(reserved(&finished), 0);
}
