//! What only the simulated driver can be asked: failures on demand, small and several devices,
//! processes that die, exports; and a client that others wrote.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

fn smoke(mode: &str, env: &[(&str, &str)]) -> String {
    common::stdout(&common::run(&common::compile("sim_smoke.c"), &[mode], env))
}

#[test]
fn a_call_fails_on_demand() {
    let fail = |rules| smoke("fail", &[("VRAMTRACE_SIM_FAIL", rules)]);
    assert_eq!(fail("cuMemAlloc_v2:3"), "0 0 2 0 0 0 0 0 0 0 \nfree 0\n");
    assert_eq!(fail("cuMemAlloc_v2"), "2 0 0 0 0 0 0 0 0 0 \nfree 0\n");
    assert_eq!(
        fail("cuMemAlloc_v2:every=4:code=700"),
        "0 0 0 700 0 0 0 700 0 0 \nfree 0\n"
    );
    assert_eq!(
        fail("cuMemAlloc_v2:from=9,cuMemFree*:code=4"),
        "0 0 0 0 0 0 0 0 2 2 \nfree 4\n"
    );
}

#[test]
fn an_unknown_rule_is_reported_and_ignored() {
    let program = common::compile("sim_smoke.c");
    let output = common::run(
        &program,
        &["fail"],
        &[("VRAMTRACE_SIM_FAIL", "cuMemAlloc_v2:soon")],
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("not understood"));
    assert_eq!(common::stdout(&output), "0 0 0 0 0 0 0 0 0 0 \nfree 0\n");
}

#[test]
fn a_device_can_be_full() {
    assert_eq!(
        smoke("oom", &[("VRAMTRACE_SIM_MEMORY", "512MiB")]),
        "context costs: yes\nfull: 2, nothing left, all fit: yes\nasync: 2\nback: yes, then 0\n"
    );
}

#[test]
fn several_devices_have_their_own_memory() {
    let env = [
        ("VRAMTRACE_SIM_DEVICES", "3"),
        ("VRAMTRACE_SIM_MEMORY", "80GiB"),
    ];
    assert_eq!(
        smoke("devices", &env),
        "devices 3, MiB each 81920\none more: 101\nused on 0: yes\nused on 1: yes\nused on 2: yes\n"
    );
}

#[test]
fn a_stale_ipc_handle_is_refused_and_nothing_is_left_behind() {
    let shm = || -> BTreeSet<String> {
        let entries = std::fs::read_dir("/dev/shm")
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let before = shm();
    assert_eq!(
        smoke("stale", &[]),
        "live: 0\nfreed: 1\nprocess gone: 1\nopened before: 0\n"
    );
    // Other programs of the machine may come and go: only our own name would be ours.
    assert!(
        shm()
            .difference(&before)
            .all(|name| !name.contains("vramtrace-sim"))
    );
}

#[test]
fn threads_do_not_disturb_each_other() {
    assert_eq!(smoke("threads", &[]), "bad 0, memory back: yes\n");
}

#[test]
fn addresses_are_reserved_while_others_map_memory() {
    assert_eq!(smoke("reserve", &[]), "bad 0\n");
}

#[test]
fn version_one_functions_give_32_bit_addresses() {
    assert_eq!(
        smoke("v1", &[]),
        "alloc 0\nholds 99, free 0, again 1\nreused yes\n"
    );
}

#[test]
fn it_exports_the_driver_and_nothing_else() {
    let library = common::driver_dir().join("libcuda.so.1");
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&library)
        .output();
    let Ok(output) = output else { return };
    let text = common::stdout(&output);
    let names: Vec<&str> = text
        .lines()
        .filter_map(|l| l.split_whitespace().last())
        .filter(|name| *name != "vramtrace_sim_waiting")
        .collect();
    assert!(names.len() > 600, "{} exports", names.len());
    assert!(names.iter().all(|n| n.starts_with("cu")), "{names:?}");
    // What it must not lack: the variants whose ABI differs.
    for name in [
        "cuMemAlloc",
        "cuMemAlloc_v2",
        "cuMemAllocAsync_ptsz",
        "cuCtxCreate_v4",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn cudarc_allocates_and_copies() {
    let test = std::env::current_exe().expect("own path");
    let target = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("the target folder");
    // `cargo test` builds examples before it runs tests.
    let client = target.join("examples/cudarc_client");
    let said = common::stdout(&common::run(
        &client,
        &[],
        &[("VRAMTRACE_SIM_DEVICES", "2")],
    ));
    assert_eq!(
        said,
        "device 0: copies right\ndevice 1: copies right\ntwo devices: copies right\n"
    );
}
