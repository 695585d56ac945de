//! Events that change no sum, and that reports explain with.

use vramtrace_format::record::{Kind, Op};
use vramtrace_reader::trace::Trace;
use vramtrace_tests::{Run, program};

#[test]
fn exports_and_limits() {
    let finished = Run::new(program("exports")).succeeds();
    assert_eq!(finished.leaks().total("gpu").1, 3, "{finished:#?}");
    let trace = Trace::open(&finished.trace()).expect("a trace");
    let of = |lane, op: Op| trace.events_of(lane).filter(move |e| e.op() == Some(op));
    let mut exports: Vec<_> = (0..2)
        .flat_map(|lane| of(lane, Op::Exported))
        .map(|event| (event.aux, event.kind(), event.size))
        .collect();
    exports.sort_by_key(|export| export.0);
    let [ipc, physical, pool, block] = exports[..] else {
        panic!("{exports:?}")
    };
    assert_eq!(ipc, (1, Some(Kind::Device), 1000));
    assert_eq!(physical, (2, Some(Kind::Vmm), 2 << 20));
    assert_eq!((pool.0, pool.1), (3, Some(Kind::Pool)));
    assert_eq!(block, (4, Some(Kind::Async), 3000));

    let limits: Vec<_> = of(0, Op::LimitSet).collect();
    let [limit] = limits[..] else {
        panic!("{limits:?}")
    };
    assert_eq!((limit.key, limit.size), (2, 64 << 20));
    let around = |seq: u64| of(0, Op::MemInfo).any(|event| event.seq == seq && event.aux > 0);
    assert!(around(limit.seq - 1) && around(limit.seq + 1));
}
