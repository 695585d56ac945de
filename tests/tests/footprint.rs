//! What the driver takes for itself: is it what a program measures around the same calls?

use vramtrace_format::footprint::Footprint;
use vramtrace_format::record::Op;
use vramtrace_reader::trace::Trace;
use vramtrace_tests::{Finished, Run, program};

fn footprint(finished: &Finished) -> Footprint {
    let trace = Trace::open(&finished.trace()).expect("a trace");
    trace.footprints[0]
}

/// Numbers of the lines that begin so.
fn said(finished: &Finished, what: &str) -> Vec<i64> {
    let numbers = finished.stdout.lines().filter_map(|line| {
        let rest = line.strip_prefix(what)?.strip_prefix(' ')?;
        Some(rest.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    numbers.collect()
}

#[test]
fn contexts_and_code_cost_what_the_program_measures() {
    let finished = Run::new(program("code"))
        .env("VRAMTRACE_SIM_STREAM", "2MiB")
        .succeeds();
    let ours = footprint(&finished);
    let [start] = said(&finished, "start")[..] else {
        panic!("{finished:#?}")
    };
    assert!(start > 0 && ours.measured_at > 0);
    assert_eq!(ours.used_at_start as i64, start);
    assert_eq!(
        vec![ours.contexts as i64],
        said(&finished, "grown contexts")
    );
    assert!(ours.contexts > 0);
    let code = said(&finished, "grown code")[0];
    assert!(code > 0);
    assert_eq!(ours.code as i64, code);
    let streams = said(&finished, "grown streams");
    assert_eq!(
        (vec![ours.streams as i64], streams),
        (vec![2 << 20], vec![2 << 20])
    );
    assert_eq!((ours.limits, ours.unmeasured), (0, 0));
}

#[test]
fn each_load_says_what_it_took() {
    let finished = Run::new(program("code")).succeeds();
    let trace = Trace::open(&finished.trace()).expect("a trace");
    let of_code = |op| matches!(op, Op::ModuleLoaded | Op::ModuleUnloaded | Op::CodeGrew);
    let grown: Vec<i64> = trace
        .events_of(0)
        .filter(|event| event.op().is_some_and(of_code))
        .map(|event| event.aux as i64)
        .collect();
    let events = said(&finished, "event");
    assert_eq!(events.iter().filter(|bytes| **bytes != 0).count(), 3);
    for bytes in events {
        assert!(grown.contains(&bytes), "{bytes}: {grown:?}");
    }
}

/// What is known already is not measured again: the questions to the driver do not grow with the calls.
#[test]
fn what_was_looked_up_once_is_not_measured_again() {
    let questions = |run: Run| {
        let finished = run.env("VRAMTRACE_SIM_LOG", "1").succeeds();
        let asked = |line: &&str| line.contains("cuMemGetInfo_v2 = 0");
        finished.stderr.lines().filter(asked).count()
    };
    let own = questions(Run::new(program("code")).plain());
    let with_us = questions(Run::new(program("code")));
    assert!(
        own > 0 && with_us > own && with_us < own + 100,
        "{own} {with_us}"
    );
}
