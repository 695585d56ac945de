//! Stream capture.

use crate::abi::error::{INVALID_VALUE, R};
use crate::abi::graph::EdgeData;
use crate::ffi::{Items, Out};
use crate::gate::{Call, INIT, WORK, driver};
use crate::thread;
use std::cell::RefCell;

thread_local! {
    /// cuStreamGetCaptureInfo hands out an array that lives until the next call on the stream. One
    /// per thread is enough for callers, which read it at once.
    static DEPENDENCIES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static EDGES: RefCell<Vec<EdgeData>> = const { RefCell::new(Vec::new()) };
}

/// Where cuStreamGetCaptureInfo writes.
struct Info {
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<u64>,
    deps: Out<*const u64>,
    edges: Out<*const EdgeData>,
    count: Out<usize>,
}

fn info(c: &mut Call, stream: u64, out: Info) -> R {
    out.status.check()?;
    let stream = c.stream(stream)?;
    if c.streams.get(stream).is_some_and(|s| s.legacy) && !c.captures.is_empty() {
        c.ask_legacy()?;
    }
    let (id, deps) = c
        .streams
        .get(stream)
        .map(|s| (s.capture, s.deps.clone()))
        .unwrap_or_default();
    let Some(capture) = c.captures.get(id) else {
        return out.status.set(0);
    };
    out.status.set(capture.status())?;
    if capture.status() != 1 {
        return Ok(());
    }
    out.id.set_if(id);
    out.graph.set_if(capture.graph);
    out.count.set_if(deps.len());
    // A thread whose locals are gone already gets no array, which NULL says.
    let edges = vec![EdgeData::default(); deps.len()];
    out.deps.set_if(keep(&DEPENDENCIES, deps));
    out.edges.set_if(keep(&EDGES, edges));
    Ok(())
}

fn keep<T>(place: &'static std::thread::LocalKey<RefCell<Vec<T>>>, items: Vec<T>) -> *const T {
    place
        .try_with(|p| match p.try_borrow_mut() {
            Ok(mut kept) => {
                *kept = items;
                kept.as_ptr()
            }
            Err(_) => std::ptr::null(),
        })
        .unwrap_or(std::ptr::null())
}

fn update(c: &mut Call, stream: u64, deps: Items<u64>, count: usize, flags: u32) -> R {
    let stream = c.stream(stream)?;
    let capture = c
        .capture_of(stream)?
        .ok_or(crate::abi::error::ILLEGAL_STATE)?;
    let graph = c.captures.get(capture).map_or(0, |c| c.graph);
    let deps = deps.read(count)?;
    if deps
        .iter()
        .any(|&d| c.graphs.nodes.get(d).is_none_or(|n| n.graph != graph))
    {
        return Err(INVALID_VALUE);
    }
    let s = c.streams.get_mut(stream).ok_or(INVALID_VALUE)?;
    match flags {
        0 => s.deps.extend(deps),
        1 => s.deps = deps,
        _ => return Err(INVALID_VALUE),
    }
    Ok(())
}

driver! {
    /// 10.0: always in global mode.
    [WORK] fn cuStreamBeginCapture + cuStreamBeginCapture_ptsz(stream: u64) |c| {
        let stream = c.stream(stream)?;
        c.begin_capture(stream, 0, None)
    }

    /// Since 10.1, with a mode.
    [WORK] fn cuStreamBeginCapture_v2 + cuStreamBeginCapture_v2_ptsz(stream: u64, mode: u32) |c| {
        let stream = c.stream(stream)?;
        c.begin_capture(stream, mode, None)
    }

    /// Into a graph that exists.
    [WORK] fn cuStreamBeginCaptureToGraph + cuStreamBeginCaptureToGraph_ptsz(
        stream: u64, graph: u64, deps: Items<u64>, edges: Items<EdgeData>, count: usize, mode: u32,
    ) |c| {
        let _ = edges;
        let stream = c.stream(stream)?;
        let deps = deps.read(count)?;
        c.begin_capture(stream, mode, Some((graph, deps)))
    }

    /// The graph, or NULL and the reason.
    [WORK] fn cuStreamEndCapture + cuStreamEndCapture_ptsz(stream: u64, out: Out<u64>) |c| {
        out.check()?;
        let stream = c.stream(stream)?;
        let graph = c.end_capture(stream);
        out.set(graph.unwrap_or(0))?;
        graph.map(|_| ())
    }

    /// None, active or invalidated.
    [WORK] fn cuStreamIsCapturing + cuStreamIsCapturing_ptsz(stream: u64, out: Out<u32>) |c| {

        info(c, stream, Info {
            status: out, id: Out::none(), graph: Out::none(), deps: Out::none(), edges: Out::none(),
            count: Out::none(),
        })
    }

    /// 10.1: status and id.
    [WORK] fn cuStreamGetCaptureInfo + cuStreamGetCaptureInfo_ptsz(
        stream: u64, status: Out<u32>, id: Out<u64>,
    ) |c| {
        info(c, stream, Info {
            status, id, graph: Out::none(), deps: Out::none(), edges: Out::none(),
            count: Out::none(),
        })
    }

    /// 11.3: with graph and dependencies.
    [WORK] fn cuStreamGetCaptureInfo_v2 + cuStreamGetCaptureInfo_v2_ptsz(
        stream: u64, status: Out<u32>, id: Out<u64>, graph: Out<u64>, deps: Out<*const u64>,
        count: Out<usize>,
    ) |c| {
        info(c, stream, Info { status, id, graph, deps, edges: Out::none(), count })
    }

    /// 12.3: with edge data.
    [WORK] fn cuStreamGetCaptureInfo_v3 + cuStreamGetCaptureInfo_v3_ptsz(
        stream: u64, status: Out<u32>, id: Out<u64>, graph: Out<u64>, deps: Out<*const u64>,
        edges: Out<*const EdgeData>, count: Out<usize>,
    ) |c| {
        info(c, stream, Info { status, id, graph, deps, edges, count })
    }

    /// Adds to or replaces what the next node depends on.
    [WORK] fn cuStreamUpdateCaptureDependencies + cuStreamUpdateCaptureDependencies_ptsz(
        stream: u64, deps: Items<u64>, count: usize, flags: u32,
    ) |c| {
        update(c, stream, deps, count, flags)
    }

    /// With edge data.
    [WORK] fn cuStreamUpdateCaptureDependencies_v2 + cuStreamUpdateCaptureDependencies_v2_ptsz(
        stream: u64, deps: Items<u64>, edges: Items<EdgeData>, count: usize, flags: u32,
    ) |c| {
        let _ = edges;
        update(c, stream, deps, count, flags)
    }

    /// Swaps the thread's mode with the caller's.
    [INIT] fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) |_c| {
        // Any number is taken, and given back by the next exchange.
        let new = mode.get()?;
        let old = thread::mode();
        thread::set_mode(new);
        mode.set(old)
    }
}
