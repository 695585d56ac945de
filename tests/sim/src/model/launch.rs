//! Running things: executable graphs, and the operations that they and streams consist of.

use super::State;
use super::arena::Arena;
use super::graph::Op;
use super::live::Kind;
use crate::abi::error::{
    GRAPH_EXEC_UPDATE_FAILURE, INVALID_HANDLE, INVALID_VALUE, LAUNCH_FAILED, NOT_SUPPORTED, R,
};
use crate::gate::Call;
use std::collections::BTreeSet;
use std::ffi::c_void;

/// CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH.
const AUTO_FREE: u64 = 1;
/// CUgraphExecUpdateResult.
pub mod update_result {
    pub const ERROR: u32 = 1;
    pub const TOPOLOGY_CHANGED: u32 = 2;
    pub const TYPE_CHANGED: u32 = 3;
}

/// An executable graph.
pub struct Exec {
    pub graph: u64,
    pub flags: u64,
    /// In an order that respects the edges; children are inlined.
    pub steps: Vec<Step>,
}

/// One node of an executable graph.
#[derive(Clone, Copy)]
pub struct Step {
    pub node: u64,
    pub op: Op,
    pub enabled: bool,
}

impl State {
    /// cuGraphInstantiate.
    pub fn instantiate(&mut self, graph: u64, flags: u64) -> R<u64> {
        let g = self.graphs.graphs.get(graph).ok_or(INVALID_VALUE)?;
        if flags & !0xf != 0 {
            return Err(INVALID_VALUE);
        }
        // The addresses of memory nodes exist once.
        if g.execs > 0 && self.has_memory_nodes(graph) {
            return Err(NOT_SUPPORTED);
        }
        let mut steps = Vec::new();
        self.flatten(graph, &mut steps)?;
        for step in &steps {
            if let Op::Alloc { addr, .. } = step.op {
                self.graphs.hold(addr);
            }
        }
        if let Some(g) = self.graphs.graphs.get_mut(graph) {
            g.execs += 1;
        }
        Ok(self.graphs.execs.insert(Exec {
            graph,
            flags,
            steps,
        }))
    }

    /// Appends a graph's nodes in an order that respects its edges; a cycle is an error.
    fn flatten(&self, graph: u64, steps: &mut Vec<Step>) -> R {
        let mut left = self
            .graphs
            .graphs
            .get(graph)
            .ok_or(INVALID_VALUE)?
            .nodes
            .clone();
        let mut done: BTreeSet<u64> = BTreeSet::new();
        while !left.is_empty() {
            let before = left.len();
            let mut waiting = Vec::new();
            for node in left {
                let Some(n) = self.graphs.nodes.get(node) else {
                    continue;
                };
                if n.deps.iter().all(|d| done.contains(d)) {
                    done.insert(node);
                    if let Op::Child(child) = n.op {
                        self.flatten(child, steps)?;
                    }
                    steps.push(Step {
                        node,
                        op: n.op,
                        enabled: true,
                    });
                } else {
                    waiting.push(node);
                }
            }
            if waiting.len() == before {
                return Err(INVALID_VALUE);
            }
            left = waiting;
        }
        Ok(())
    }

    /// cuGraphExecDestroy; what its launches allocated and nobody freed lives on.
    pub fn destroy_exec(&mut self, exec: u64) -> R {
        let e = self.graphs.execs.remove(exec).ok_or(INVALID_VALUE)?;
        if let Some(g) = self.graphs.graphs.get_mut(e.graph) {
            g.execs = g.execs.saturating_sub(1);
        }
        for step in e.steps {
            if let Op::Alloc { addr, .. } = step.op {
                self.drop_range(addr);
            }
        }
        Ok(())
    }

    /// cuGraphExecUpdate: same nodes in the same order, memory nodes unchanged. On failure the reason and
    /// the node that differs.
    pub fn update_exec(&mut self, exec: u64, graph: u64) -> R<Result<(), (u32, u64)>> {
        let old = &self.graphs.execs.get(exec).ok_or(INVALID_VALUE)?.steps;
        let mut new = Vec::new();
        self.flatten(graph, &mut new)?;
        if old.len() != new.len() {
            return Ok(Err((update_result::TOPOLOGY_CHANGED, 0)));
        }
        for (a, b) in old.iter().zip(&new) {
            if a.op.kind() != b.op.kind() {
                return Ok(Err((update_result::TYPE_CHANGED, b.node)));
            }
            // Only by the very graph that it was made from: addresses exist once.
            if a.op.memory() != b.op.memory() {
                return Ok(Err((update_result::ERROR, b.node)));
            }
        }
        if let Some(exec) = self.graphs.execs.get_mut(exec) {
            for (old, new) in exec.steps.iter_mut().zip(new) {
                old.op = new.op;
            }
        }
        Ok(Ok(()))
    }

    /// Takes over the parameters of another graph for the steps of one child node. The steps of a
    /// child lie before its own step, in the order that `flatten` gives.
    pub fn update_child(&mut self, exec: u64, node: u64, child: u64) -> R {
        let mut new = Vec::new();
        self.flatten(child, &mut new)?;
        let e = self.graphs.execs.get_mut(exec).ok_or(INVALID_VALUE)?;
        let at = e
            .steps
            .iter()
            .position(|s| s.node == node)
            .ok_or(INVALID_VALUE)?;
        let start = at.checked_sub(new.len()).ok_or(GRAPH_EXEC_UPDATE_FAILURE)?;
        let old = &mut e.steps[start..at];
        if old
            .iter()
            .zip(&new)
            .any(|(a, b)| a.op.kind() != b.op.kind())
        {
            return Err(GRAPH_EXEC_UPDATE_FAILURE);
        }
        for (old, new) in old.iter_mut().zip(new) {
            old.op = new.op;
        }
        Ok(())
    }

    /// Changes one step of an executable graph; the type stays.
    pub fn set_step(&mut self, exec: u64, node: u64, op: Op) -> R {
        let exec = self.graphs.execs.get_mut(exec).ok_or(INVALID_VALUE)?;
        let step = exec
            .steps
            .iter_mut()
            .find(|s| s.node == node)
            .ok_or(INVALID_VALUE)?;
        if step.op.kind() != op.kind() {
            return Err(GRAPH_EXEC_UPDATE_FAILURE);
        }
        step.op = op;
        Ok(())
    }

    /// A graph's allocation goes live: charged to the graph pool, which keeps what it once had.
    fn graph_alloc(&mut self, exec: u64, ctx: u64, device: u32, bytes: u64, addr: u64) -> R {
        if self.live.get(addr).is_some() {
            return Err(INVALID_VALUE);
        }
        let taken = self.graphs.range_len(addr);
        let d = self.device(device as i32)?;
        d.charge(d.graph.growth(exec, taken))?;
        d.graph.take(exec, taken);
        let data = d.arena.data(addr);
        self.graphs.hold(addr);
        self.add(addr, bytes, taken, Kind::Graph(exec), device, ctx, data);
        Ok(())
    }

    /// cuDeviceGraphMemTrim.
    pub fn trim_graph_memory(&mut self, device: i32) -> R {
        let device = self.device(device)?;
        let unused = device.graph.trim();
        device.discharge(unused);
        Ok(())
    }
}

impl Call {
    /// A context's first executable graph costs its device something until the context ends.
    pub fn charge_first_exec(&mut self) {
        let Some(ctx) = self.contexts.get(self.ctx) else {
            return;
        };
        if !ctx.active || ctx.graph_bytes > 0 {
            return;
        }
        let (ctx, device) = (self.ctx, ctx.device);
        let charged = self
            .device(device as i32)
            .and_then(|d| d.charge(super::arena::PAGE));
        if charged.is_ok()
            && let Some(ctx) = self.contexts.get_mut(ctx)
        {
            ctx.graph_bytes = super::arena::PAGE;
        }
    }

    /// Runs an operation now, or makes it a node when the stream is capturing.
    pub fn submit(&mut self, stream: u64, op: Op) -> R {
        match self.capture_op(stream, op)? {
            Some(_) => Ok(()),
            None => self.perform(0, &op),
        }
    }

    /// cuGraphLaunch.
    pub fn launch_graph(&mut self, exec: u64) -> R {
        let e = self.graphs.execs.get(exec).ok_or(INVALID_VALUE)?;
        let (steps, flags) = (e.steps.clone(), e.flags);
        let owned: Vec<u64> = steps
            .iter()
            .filter_map(|s| match s.op {
                Op::Alloc { addr, .. } => Some(addr),
                _ => None,
            })
            .filter(|&addr| self.live.get(addr).is_some())
            .collect();
        if !owned.is_empty() && flags & AUTO_FREE == 0 {
            return Err(INVALID_VALUE);
        }
        for addr in owned {
            self.end(addr);
        }
        let mut fresh = Vec::new();
        for step in &steps {
            if !step.enabled {
                continue;
            }
            let done = self.perform(exec, &step.op);
            if let Op::Alloc { addr, .. } = step.op
                && done.is_ok()
            {
                fresh.push(addr);
            }
            if done.is_err() {
                for addr in fresh {
                    self.end(addr);
                }
                return done;
            }
        }
        Ok(())
    }

    /// Performs one operation; `exec` is the executable graph that it is part of, or 0.
    fn perform(&mut self, exec: u64, op: &Op) -> R {
        match *op {
            // Children are inlined by `flatten`.
            Op::Empty | Op::Child(_) | Op::Wait(_) => Ok(()),
            Op::Kernel(k) => self.run_kernel(if k.v1.func != 0 { k.v1.func } else { k.kernel }),
            Op::Copy(c) => self.copy(&c),
            Op::Fill(m) => self.fill(&m),
            Op::Host(f, data) => {
                let f = f.ok_or(INVALID_VALUE)?;
                // SAFETY: the caller gave this function to be called with this pointer, once per
                // execution, from a thread of the driver's choosing.
                self.unlocked(|| unsafe { f(data as *mut c_void) });
                Ok(())
            }
            Op::Callback(f, data) => {
                let f = f.ok_or(INVALID_VALUE)?;
                // SAFETY: as above; stream 0 and status 0 are valid arguments.
                self.unlocked(|| unsafe { f(0, 0, data as *mut c_void) });
                Ok(())
            }
            Op::Record(event) => {
                if let Some(event) = self.events.get_mut(event) {
                    event.recorded = Some(std::time::Instant::now());
                }
                Ok(())
            }
            Op::Alloc {
                device,
                bytes,
                addr,
            } => {
                let ctx = self.ctx;
                self.graph_alloc(exec, ctx, device, bytes, addr)
            }
            Op::Free(addr) => self.free_async(addr),
        }
    }

    /// A kernel does nothing, except one that is called "trap": after it nothing works on its device.
    fn run_kernel(&mut self, handle: u64) -> R {
        let name = match self.modules.functions.get(handle) {
            Some(f) => &f.name,
            None => &self.modules.kernels.get(handle).ok_or(INVALID_HANDLE)?.name,
        };
        // "trap" alone is a reserved word of PTX: programs that run on a real GPU too need a longer name.
        let name = name.trim_end_matches('\0');
        if name == "trap" || name.starts_with("trap_") || name.ends_with("_trap") {
            let ctx = self.ctx;
            let device = self.device_of(ctx)?;
            let device = self.device(device as i32)?;
            (device.failed, device.failed_ctx) = (LAUNCH_FAILED.0, ctx);
        }
        Ok(())
    }

    /// Stream-ordered allocation: a block now, or an allocation node while capturing.
    pub fn alloc_async(&mut self, stream: u64, pool: u64, bytes: u64) -> R<u64> {
        let ctx = self.ctx;
        let Some(capture) = self.capture_of(stream)? else {
            return self.alloc_pool(ctx, pool, bytes);
        };
        let p = self
            .pools
            .get(pool)
            .filter(|p| !p.destroyed)
            .ok_or(INVALID_VALUE)?;
        let device = p.device().ok_or(NOT_SUPPORTED)? as u32;
        let graph = self.captures.get(capture).map_or(0, |c| c.graph);
        let deps = self
            .streams
            .get(stream)
            .map(|s| s.deps.clone())
            .unwrap_or_default();
        let node = self.add_alloc_node(graph, deps, device, bytes)?;
        if let Some(s) = self.streams.get_mut(stream) {
            s.deps = vec![node];
        }
        match self.graphs.nodes.get(node).map(|n| n.op) {
            Some(Op::Alloc { addr, .. }) => Ok(addr),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Stream-ordered free: now, or a free node while capturing.
    pub fn free_async_on(&mut self, stream: u64, addr: u64) -> R {
        if self.capture_of(stream)?.is_none() {
            let pool = self.live.get(addr).map(|alloc| alloc.kind);
            self.free_async(addr)?;
            if let Some(Kind::Pool(pool)) = pool
                && let Some(pool) = self.pools.get_mut(pool)
            {
                pool.freed_on(addr, stream);
            }
            return Ok(());
        }
        if !self.graphs.owns(addr) {
            return Err(INVALID_VALUE);
        }
        self.capture_op(stream, Op::Free(addr)).map(|_| ())
    }

    /// What a linear allocation of this many bytes would take; for cuMemAllocPitch's checks.
    pub fn pitched(width: u64, height: u64) -> R<(u64, u64)> {
        let pitch = width.checked_next_multiple_of(512).ok_or(INVALID_VALUE)?;
        let bytes = pitch.checked_mul(height).ok_or(INVALID_VALUE)?;
        Arena::taken(bytes)
            .map(|_| (pitch, bytes))
            .ok_or(INVALID_VALUE)
    }
}
