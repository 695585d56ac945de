//! Stream capture: which streams write into which graph, and which calls that forbids.

use super::State;
use super::graph::{Graph, Op};
use crate::abi::error::{
    ILLEGAL_STATE, INVALID_HANDLE, INVALID_VALUE, R, STREAM_CAPTURE_IMPLICIT,
    STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_MERGE, STREAM_CAPTURE_UNJOINED,
    STREAM_CAPTURE_UNMATCHED, STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD,
};
use crate::thread;
use std::collections::{BTreeMap, BTreeSet};

/// CUstreamCaptureMode.
const GLOBAL: u32 = 0;
/// CUstreamCaptureMode.
const RELAXED: u32 = 2;

/// The captures in progress, by id.
pub struct Captures {
    open: BTreeMap<u64, Capture>,
    next: u64,
}

/// One capture.
pub struct Capture {
    /// The stream that it began on, and must end on.
    pub origin: u64,
    pub graph: u64,
    mode: u32,
    thread: u32,
    invalidated: bool,
    /// Captures into a graph of the caller's, which survives when the capture fails.
    borrowed: bool,
}

impl Captures {
    pub const fn new() -> Self {
        Captures {
            open: BTreeMap::new(),
            next: 1,
        }
    }

    /// Whether nothing is capturing: the fast path of every call.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether this capture is still in progress.
    pub fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// A capture in progress.
    pub fn get(&self, id: u64) -> Option<&Capture> {
        self.open.get(&id)
    }

    /// Spoils a capture: it can only be ended, and ends with an error.
    pub fn invalidate(&mut self, id: u64) {
        if let Some(capture) = self.open.get_mut(&id) {
            capture.invalidated = true;
        }
    }

    /// A potentially unsafe call by this thread: refused, and the captures that forbid it are
    /// spoilt, unless both sides agreed to relax.
    pub fn unsafe_call(&mut self) -> R {
        let (mine, mode) = (thread::id(), thread::mode());
        if mode == RELAXED {
            return Ok(());
        }
        let mut refused = false;
        for capture in self.open.values_mut() {
            let own = capture.thread == mine && capture.mode != RELAXED;
            let foreign = mode == GLOBAL && capture.mode == GLOBAL;
            if own || foreign {
                capture.invalidated = true;
                refused = true;
            }
        }
        if refused {
            Err(STREAM_CAPTURE_UNSUPPORTED)
        } else {
            Ok(())
        }
    }
}

impl Capture {
    /// CUstreamCaptureStatus: 1 active, 2 invalidated.
    pub fn status(&self) -> u32 {
        if self.invalidated { 2 } else { 1 }
    }
}

impl State {
    /// The capture that a stream takes part in; an error when it is spoilt.
    pub fn capture_of(&self, stream: u64) -> R<Option<u64>> {
        let id = self.streams.get(stream).ok_or(INVALID_HANDLE)?.capture;
        match self.captures.get(id) {
            None => Ok(None),
            Some(c) if c.invalidated => Err(STREAM_CAPTURE_INVALIDATED),
            Some(_) => Ok(Some(id)),
        }
    }

    /// A call that a capturing stream cannot take at all (query, synchronise).
    pub fn forbid_capturing(&mut self, stream: u64) -> R {
        if let Some(id) = self.capture_of(stream)? {
            self.captures.invalidate(id);
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    /// A call that is potentially unsafe unless its stream captures.
    pub fn unsafe_outside_capture(&mut self, stream: u64) -> R {
        if self.captures.is_empty() || self.capture_of(stream)?.is_some() {
            return Ok(());
        }
        self.captures.unsafe_call()
    }

    /// A use of the legacy stream: refused while a stream that it would wait for is capturing, and
    /// those captures are spoilt.
    pub fn implicit_use_of_legacy(&mut self) -> R {
        let blocking = self.captures_that_block_legacy();
        if blocking.is_empty() {
            return Ok(());
        }
        for id in blocking {
            self.captures.invalidate(id);
        }
        Err(STREAM_CAPTURE_IMPLICIT)
    }

    /// Asking whether the legacy stream captures is refused too, but spoils nothing.
    pub fn ask_legacy(&self) -> R {
        if self.captures_that_block_legacy().is_empty() {
            Ok(())
        } else {
            Err(STREAM_CAPTURE_IMPLICIT)
        }
    }

    fn captures_that_block_legacy(&self) -> Vec<u64> {
        let ctx = thread::current();
        self.streams
            .iter()
            .filter(|(_, s)| s.ctx == ctx && s.is_blocking() && s.capture != 0)
            .map(|(_, s)| s.capture)
            .collect()
    }

    /// cuStreamBeginCapture and cuStreamBeginCaptureToGraph.
    pub fn begin_capture(&mut self, stream: u64, mode: u32, into: Option<(u64, Vec<u64>)>) -> R {
        let s = self.streams.get(stream).ok_or(INVALID_HANDLE)?;
        if mode > RELAXED {
            return Err(INVALID_VALUE);
        }
        if s.legacy {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        if s.capture != 0 {
            return Err(ILLEGAL_STATE);
        }
        let borrowed = into.is_some();
        let (graph, deps) = match into {
            Some((graph, deps)) => {
                self.graphs.graphs.get(graph).ok_or(INVALID_VALUE)?;
                (graph, deps)
            }
            None => (self.graphs.graphs.insert(Graph::default()), Vec::new()),
        };
        let id = self.captures.next;
        self.captures.next += 1;
        self.captures.open.insert(
            id,
            Capture {
                origin: stream,
                graph,
                mode,
                thread: thread::id(),
                invalidated: false,
                borrowed,
            },
        );
        if let Some(s) = self.streams.get_mut(stream) {
            s.capture = id;
            s.deps = deps;
        }
        Ok(())
    }

    /// cuStreamEndCapture: the graph's handle.
    pub fn end_capture(&mut self, stream: u64) -> R<u64> {
        let s = self.streams.get(stream).ok_or(INVALID_HANDLE)?;
        let (id, tail) = (s.capture, s.deps.clone());
        let capture = self.captures.get(id).ok_or(ILLEGAL_STATE)?;
        if capture.mode != RELAXED && capture.thread != thread::id() {
            // The capture ends all the same.
            let (graph, borrowed) = (capture.graph, capture.borrowed);
            self.close_capture(id);
            if !borrowed {
                self.destroy_graph(graph)?;
            }
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        if capture.origin != stream {
            self.captures.invalidate(id);
            return Err(STREAM_CAPTURE_UNMATCHED);
        }
        let (graph, borrowed, invalidated) = (capture.graph, capture.borrowed, capture.invalidated);
        let joined = self.all_joined(id, &tail);
        self.close_capture(id);
        let result = match (invalidated, joined) {
            (true, _) => Err(STREAM_CAPTURE_INVALIDATED),
            (_, false) => Err(STREAM_CAPTURE_UNJOINED),
            _ => Ok(graph),
        };
        if result.is_err() && !borrowed {
            self.destroy_graph(graph)?;
        }
        result
    }

    /// Whether the ends of all other streams of a capture lead to the origin's end.
    fn all_joined(&self, id: u64, tail: &[u64]) -> bool {
        let mut reached: BTreeSet<u64> = BTreeSet::new();
        let mut todo: Vec<u64> = tail.to_vec();
        while let Some(node) = todo.pop() {
            if reached.insert(node)
                && let Some(node) = self.graphs.nodes.get(node)
            {
                todo.extend(&node.deps);
            }
        }
        self.streams
            .iter()
            .filter(|(_, s)| s.capture == id)
            .all(|(_, s)| s.deps.iter().all(|d| reached.contains(d)))
    }

    fn close_capture(&mut self, id: u64) {
        self.captures.open.remove(&id);
        for (_, s) in self.streams.iter_mut() {
            if s.capture == id {
                s.capture = 0;
                s.deps.clear();
            }
        }
    }

    /// A stream is going away: a capture that began on it dies, one that it only joined is spoilt.
    pub fn abandon_capture(&mut self, stream: u64) {
        let Some(s) = self.streams.get(stream) else {
            return;
        };
        let id = s.capture;
        let Some(capture) = self.captures.get(id) else {
            return;
        };
        if capture.origin != stream {
            self.captures.invalidate(id);
            return;
        }
        let (graph, borrowed) = (capture.graph, capture.borrowed);
        self.close_capture(id);
        if !borrowed {
            // The graph cannot be unknown here: the capture owned it.
            let _ = self.destroy_graph(graph);
        }
    }

    /// Makes a stream part of a capture, or adds dependencies to one that is.
    pub fn join_capture(&mut self, stream: u64, capture: u64, nodes: &[u64]) -> R {
        let s = self.streams.get_mut(stream).ok_or(INVALID_HANDLE)?;
        if s.capture != 0 && s.capture != capture {
            let other = s.capture;
            self.captures.invalidate(other);
            self.captures.invalidate(capture);
            return Err(STREAM_CAPTURE_MERGE);
        }
        if s.legacy {
            self.captures.invalidate(capture);
            return Err(STREAM_CAPTURE_IMPLICIT);
        }
        s.capture = capture;
        for &node in nodes {
            if !s.deps.contains(&node) {
                s.deps.push(node);
            }
        }
        Ok(())
    }

    /// If the stream is capturing, the operation becomes a node and its handle is answered.
    pub fn capture_op(&mut self, stream: u64, op: Op) -> R<Option<u64>> {
        let Some(id) = self.capture_of(stream)? else {
            return Ok(None);
        };
        let graph = self.captures.get(id).map_or(0, |c| c.graph);
        let deps = self
            .streams
            .get(stream)
            .map(|s| s.deps.clone())
            .unwrap_or_default();
        let node = self.add_node(graph, deps, op)?;
        if let Some(s) = self.streams.get_mut(stream) {
            s.deps = vec![node];
        }
        Ok(Some(node))
    }
}
