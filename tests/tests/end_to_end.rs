//! What leaks is what the report says: every kind of memory, by every route to the driver,
//! through the real library and the real command.

use vramtrace_tests::{Build, Group, Leaks, Run, artifacts, program, vramtrace};

/// Every kind of memory by one route; the program knows what it left.
fn all_kinds_by(route: &str) {
    let finished = Run::new(program("kinds")).arg(route).succeeds();
    assert_eq!(finished.said(), [""; 0]);
    let leaks = finished.leaks();
    leaks.assert_are(&finished.left());
    // external(): the imported memory, and one of two buffers mapped from it.
    assert_eq!(leaks.total("imports"), (3 << 20, 2));
    assert_eq!(leaks.total("corrupted"), (0, 0));
    let check = finished.check();
    assert_eq!(check.verdict(), "whole", "{:#}", check.json);
    assert_eq!(check.loss("frees_unmatched"), 0);
    assert_eq!(check.loss("frees_unseen"), 0);
    assert_eq!(check.loss("entry_points_bypassed"), 0);
}

#[test]
fn by_dlsym() {
    all_kinds_by("dlsym");
}

#[test]
fn by_the_default_handle_after_a_global_dlopen() {
    all_kinds_by("default");
}

#[test]
fn by_cu_get_proc_address() {
    all_kinds_by("proc");
}

#[test]
fn by_cu_get_proc_address_for_per_thread_streams() {
    all_kinds_by("proc-ptsz");
}

#[test]
fn by_the_four_argument_cu_get_proc_address() {
    all_kinds_by("proc-old");
}

#[test]
fn by_the_resolver_that_the_resolver_gives_at_11030() {
    all_kinds_by("proc-self-11030");
}

#[test]
fn by_the_resolver_that_the_resolver_gives_at_12000() {
    all_kinds_by("proc-self-12000");
}

#[test]
fn linked_to_the_driver() {
    let finished = Run::new(Build::of("kinds").linked().build())
        .arg("linked")
        .succeeds();
    finished.leaks().assert_are(&finished.left());
}

#[test]
fn linked_without_lazy_binding() {
    let kinds = Build::of("kinds")
        .linked()
        .flag("-Wl,-z,now")
        .flag("-fPIE")
        .flag("-pie")
        .build();
    let finished = Run::new(kinds).arg("linked").succeeds();
    finished.leaks().assert_are(&finished.left());
}

/// What a traced program prints is what it prints untraced.
#[test]
fn the_program_notices_nothing() {
    let kinds = program("kinds");
    let traced = Run::new(&kinds).arg("dlsym").finish();
    let plain = Run::new(&kinds).arg("dlsym").plain().finish();
    assert_eq!(traced.observable(), plain.observable());
    assert!(plain.scratch.files().is_empty());
}

#[test]
fn a_rust_client_through_cudarc() {
    let finished = Run::new(env!("CARGO_BIN_EXE_cudarc-client")).succeeds();
    let leaks = finished.leaks();
    let left = finished.left();
    assert!(leaks.complete());
    for expected in &left {
        let of_function = |group: &Group| {
            let named = |name: &String| name.ends_with(&format!("::{}", expected.function));
            (group.kind == expected.kind && group.functions.iter().any(named))
                .then_some((group.bytes, group.count))
        };
        let found: Vec<_> = leaks.groups().iter().filter_map(of_function).collect();
        let sum = found
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(
            sum,
            (expected.bytes, expected.count),
            "{expected:?}\n{:#?}",
            leaks.groups()
        );
    }
    let (gpu, host) = (leaks.total("gpu"), leaks.total("host"));
    assert_eq!(
        (gpu.1 + host.1) as usize,
        left.iter().map(|l| l.count as usize).sum::<usize>()
    );
}

/// The exporting process owns the memory; what the other one sees of it is an import.
#[test]
fn memory_shared_between_processes() {
    for (closes, imports) in [("0", 1), ("1", 1), ("2", 0), ("again", 1)] {
        let finished = Run::new(program("ipc")).args(["dlsym", closes]).succeeds();
        let traces = finished.scratch.traces();
        assert_eq!(traces.len(), 2, "{finished:#?}");
        let leaks: Vec<Leaks> = traces.iter().map(|trace| Leaks::of(trace, &[])).collect();
        let (owner, other) = match leaks[0].groups().len() {
            0 => (&leaks[1], &leaks[0]),
            _ => (&leaks[0], &leaks[1]),
        };
        owner.assert_are(&finished.left());
        other.assert_are(&[]);
        assert_eq!(owner.total("imports").1, 0);
        assert_eq!(other.total("imports").1, imports, "closed {closes} times");
    }
}

/// Of physical memory that is somebody else's a process sees as much as it maps.
#[test]
fn physical_memory_that_is_imported() {
    let finished = Run::new(program("imports")).succeeds();
    let traces = finished.scratch.traces();
    let leaks: Vec<Leaks> = traces.iter().map(|trace| Leaks::of(trace, &[])).collect();
    let of = |imports: u64| leaks.iter().find(|of| of.total("imports").1 == imports);
    let (Some(owner), Some(other)) = (of(0), of(1)) else {
        panic!("{finished:#?}")
    };
    owner.assert_are(&finished.left());
    other.assert_are(&[]);
    assert_eq!(other.total("imports"), (4 << 20, 1));
}

/// The whole stack, not just its innermost function.
#[test]
fn stacks_lead_to_main() {
    let finished = Run::new(program("kinds"))
        .args(["dlsym", "linear", "pitch"])
        .succeeds();
    for group in finished.leaks().groups() {
        let main = group.functions.iter().position(|name| name == "main");
        assert_eq!(main, Some(1), "{group:?}");
    }
}

#[test]
fn several_devices_are_told_apart() {
    let finished = Run::new(program("devices"))
        .env("VRAMTRACE_SIM_DEVICES", "3")
        .succeeds();
    let leaks = finished.leaks();
    leaks.assert_are(&finished.left());
    let mut by_device: Vec<(Option<u64>, u64)> = leaks
        .groups()
        .iter()
        .map(|group| (group.device, group.bytes))
        .collect();
    by_device.sort();
    assert_eq!(
        by_device,
        [(Some(0), 1000), (Some(1), 2000), (Some(2), 3000)]
    );
    assert_eq!(leaks.json["devices"].as_array().map(Vec::len), Some(3));
}

/// What a destroyed context took with it was never freed by the program: it is a leak, marked. A
/// green context takes nothing with it but its reference to the primary one.
#[test]
fn what_a_context_or_a_reset_ended_is_leaked() {
    for (how, end) in [
        ("destroy", "context"),
        ("reset", "reset"),
        ("release", "reset"),
        ("detach", "context"),
        ("green", "reset"),
        ("green-retained", "live"),
    ] {
        let finished = Run::new(program("contexts"))
            .args(["dlsym", how])
            .succeeds();
        let leaks = finished.leaks();
        leaks.assert_are(&finished.left());
        for group in leaks.groups().iter().filter(|group| group.kind != "vmm") {
            assert_eq!(group.end, end, "{how}: {group:?}");
        }
    }
}

/// A stream that went with its context and one that was made later are two, whatever their handles.
#[test]
fn streams_end_with_their_context() {
    for how in ["streams", "streams-primary"] {
        let finished = Run::new(program("contexts"))
            .args(["dlsym", how])
            .succeeds();
        let leaks = Leaks::of(&finished.trace(), &["--by", "stream", "--top", "100"]);
        let mut groups: Vec<(u64, u64)> = leaks
            .groups()
            .iter()
            .map(|group| (group.bytes, group.count))
            .collect();
        groups.sort_unstable();
        assert_eq!(groups, [[(1000, 1); 8], [(2000, 1); 8]].concat(), "{how}");
    }
}

#[test]
fn the_commands_for_people_work_on_such_a_trace() {
    let finished = Run::new(program("kinds")).arg("dlsym").succeeds();
    let trace = finished.trace();
    for command in ["leaks", "summary", "timeline", "check"] {
        let output = vramtrace([command.as_ref(), trace.as_os_str()]);
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(
            output.stdout.len() > 40 && output.stderr.is_empty(),
            "{command}: {output:?}"
        );
    }
    assert!(artifacts().reader.exists());
}

/// Memory lives on in multicast objects and sparse arrays, whatever handles and mappings are gone.
#[test]
fn physical_memory_lives_as_long_as_something_uses_it() {
    for what in [
        "bound",
        "address",
        "object",
        "tiles-kept",
        "tiles-destroyed",
        "tiles-context",
    ] {
        let finished = Run::new(program("uses")).arg(what).succeeds();
        let leaks = finished.leaks();
        assert_eq!(leaks.as_left(), finished.left(), "{what}");
        assert!(leaks.complete(), "{what}");
        assert_eq!(finished.check().loss("frees_unmatched"), 0, "{what}");
    }
}
