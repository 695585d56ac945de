//! Graph nodes: adding each type, and reading and changing its parameters.

use crate::abi::copy::Memcpy3D;
use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, R};
use crate::abi::graph::{
    AllocParams, EdgeData, HostParams, KernelParams, KernelParamsV2, MemsetParams, NodeParams,
    node_type,
};
use crate::abi::memory::{Location, PoolProps};
use crate::ffi::{In, Items, Out};
use crate::gate::{Call, INIT, driver};
use crate::model::graph::Op;

/// Adds a node with the dependencies that the caller lists.
fn add(c: &mut Call, out: Out<u64>, g: u64, deps: Items<u64>, n: usize, op: Op) -> R {
    out.check()?;
    let deps = deps.read(n)?;
    let node = c.add_node(g, deps, op)?;
    out.set(node)
}

fn op(c: &Call, node: u64) -> R<Op> {
    c.graphs.nodes.get(node).map(|n| n.op).ok_or(INVALID_VALUE)
}

/// Changes a node's parameters; its type stays.
fn set(c: &mut Call, node: u64, op: Op) -> R {
    let node = c.graphs.nodes.get_mut(node).ok_or(INVALID_VALUE)?;
    if node.op.kind() != op.kind() {
        return Err(INVALID_VALUE);
    }
    node.op = op;
    Ok(())
}

/// A kernel operation, if its function is known.
pub fn kernel(c: &Call, v1: KernelParams, kernel: u64, ctx: u64) -> R<Op> {
    let handle = if v1.func != 0 { v1.func } else { kernel };
    let known =
        c.modules.functions.get(handle).is_some() || c.modules.kernels.get(handle).is_some();
    if !known {
        return Err(INVALID_VALUE);
    }
    Ok(Op::Kernel(KernelParamsV2 { v1, kernel, ctx }))
}

/// A host function operation.
pub fn host(p: HostParams) -> R<Op> {
    if p.f.is_none() {
        Err(INVALID_VALUE)
    } else {
        Ok(Op::Host(p.f, p.data))
    }
}

fn alloc(c: &mut Call, g: u64, deps: Vec<u64>, p: &AllocParams) -> R<(u64, u64)> {
    if p.pool.kind != 1 || p.pool.handle_types != 0 {
        return Err(INVALID_VALUE);
    }
    if p.pool.location.kind != 1 {
        return Err(NOT_SUPPORTED);
    }
    c.device(p.pool.location.id)?;
    let node = c.add_alloc_node(g, deps, p.pool.location.id as u32, p.bytes)?;
    match op(c, node)? {
        Op::Alloc { addr, .. } => Ok((node, addr)),
        _ => Err(INVALID_VALUE),
    }
}

fn free(c: &Call, addr: u64) -> R<Op> {
    if c.graphs.owns(addr) {
        Ok(Op::Free(addr))
    } else {
        Err(INVALID_VALUE)
    }
}

/// The operation that generic node parameters describe; memory and child nodes are not covered.
pub fn generic(c: &Call, p: &NodeParams) -> R<Op> {
    // SAFETY: all members of the union are plain integers (and a nullable function pointer, for
    // which any caller's value is one it will be called with), so that any bytes are valid.
    unsafe {
        match p.kind {
            node_type::KERNEL => kernel(
                c,
                p.union.kernel.v1,
                p.union.kernel.kernel,
                p.union.kernel.ctx,
            ),
            node_type::MEMCPY => Ok(Op::Copy(p.union.memcpy.copy.into())),
            node_type::MEMSET => Ok(Op::Fill(p.union.memset)),
            node_type::HOST => host(p.union.host),
            node_type::EMPTY => Ok(Op::Empty),
            node_type::WAIT_EVENT => Ok(Op::Wait(p.union.words[0])),
            node_type::EVENT_RECORD => Ok(Op::Record(p.union.words[0])),
            node_type::MEM_FREE => free(c, p.union.words[0]),
            _ => Err(NOT_SUPPORTED),
        }
    }
}

fn add_generic(c: &mut Call, out: Out<u64>, g: u64, deps: Vec<u64>, params: Out<NodeParams>) -> R {
    out.check()?;
    let mut p = params.get()?;
    let node = match p.kind {
        node_type::MEM_ALLOC => {
            // SAFETY: plain integers; any bytes are valid.
            let a = unsafe { p.union.alloc };
            let (node, addr) = alloc(c, g, deps, &a)?;
            p.union.alloc = AllocParams { dptr: addr, ..a };
            params.set(p)?;
            node
        }
        node_type::GRAPH => {
            // SAFETY: as above.
            let words = unsafe { p.union.words };
            // The ownership is a 32-bit field: 0 clone, 1 move.
            let moved = words[1] as u32 == 1;
            c.add_child(g, deps, words[0], moved)?
        }
        _ => {
            let op = generic(c, &p)?;
            c.add_node(g, deps, op)?
        }
    };
    out.set(node)
}

driver! {
    /// Nothing to do.
    [INIT] fn cuGraphAddEmptyNode(out: Out<u64>, g: u64, deps: Items<u64>, n: usize) |c| {
        add(c, out, g, deps, n, Op::Empty)
    }

    /// Before 12.0.
    [INIT] fn cuGraphAddKernelNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, p: In<KernelParams>,
    ) |c| {
        let op = kernel(c, p.get()?, 0, 0)?;
        add(c, out, g, deps, n, op)
    }

    /// With kernels of libraries.
    [INIT] fn cuGraphAddKernelNode_v2(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, p: In<KernelParamsV2>,
    ) |c| {
        let p = p.get()?;
        let op = kernel(c, p.v1, p.kernel, p.ctx)?;
        add(c, out, g, deps, n, op)
    }

    /// Before 12.0.
    [INIT] fn cuGraphKernelNodeGetParams(node: u64, out: Out<KernelParams>) |c| {
        match op(c, node)? {
            Op::Kernel(k) => out.set(k.v1),
            _ => Err(INVALID_VALUE),
        }
    }

    /// With kernels of libraries.
    [INIT] fn cuGraphKernelNodeGetParams_v2(node: u64, out: Out<KernelParamsV2>) |c| {
        match op(c, node)? {
            Op::Kernel(k) => out.set(k),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Before 12.0.
    [INIT] fn cuGraphKernelNodeSetParams(node: u64, p: In<KernelParams>) |c| {
        let op = kernel(c, p.get()?, 0, 0)?;
        set(c, node, op)
    }

    /// With kernels of libraries.
    [INIT] fn cuGraphKernelNodeSetParams_v2(node: u64, p: In<KernelParamsV2>) |c| {
        let p = p.get()?;
        let op = kernel(c, p.v1, p.kernel, p.ctx)?;
        set(c, node, op)
    }

    /// Attributes do not matter.
    [INIT] fn cuGraphKernelNodeCopyAttributes(dst: u64, src: u64) |c| {
        match (op(c, dst)?, op(c, src)?) {
            (Op::Kernel(_), Op::Kernel(_)) => Ok(()),
            _ => Err(INVALID_VALUE),
        }
    }

    /// A copy.
    [INIT] fn cuGraphAddMemcpyNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, p: In<Memcpy3D>, ctx: u64,
    ) |c| {
        c.context(ctx)?;
        add(c, out, g, deps, n, Op::Copy(p.get()?.into()))
    }

    /// Its parameters.
    [INIT] fn cuGraphMemcpyNodeGetParams(node: u64, out: Out<Memcpy3D>) |c| {
        match op(c, node)? {
            Op::Copy(copy) => out.set(copy.into()),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Other parameters.
    [INIT] fn cuGraphMemcpyNodeSetParams(node: u64, p: In<Memcpy3D>) |c| {
        set(c, node, Op::Copy(p.get()?.into()))
    }

    /// A fill.
    [INIT] fn cuGraphAddMemsetNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, p: In<MemsetParams>, ctx: u64,
    ) |c| {
        c.context(ctx)?;
        add(c, out, g, deps, n, Op::Fill(p.get()?))
    }

    /// Its parameters.
    [INIT] fn cuGraphMemsetNodeGetParams(node: u64, out: Out<MemsetParams>) |c| {
        match op(c, node)? {
            Op::Fill(m) => out.set(m),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Other parameters.
    [INIT] fn cuGraphMemsetNodeSetParams(node: u64, p: In<MemsetParams>) |c| {
        set(c, node, Op::Fill(p.get()?))
    }

    /// A host function.
    [INIT] fn cuGraphAddHostNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, p: In<HostParams>,
    ) |c| {
        add(c, out, g, deps, n, host(p.get()?)?)
    }

    /// Its parameters.
    [INIT] fn cuGraphHostNodeGetParams(node: u64, out: Out<HostParams>) |c| {
        match op(c, node)? {
            Op::Host(f, data) => out.set(HostParams { f, data }),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Other parameters.
    [INIT] fn cuGraphHostNodeSetParams(node: u64, p: In<HostParams>) |c| {
        set(c, node, host(p.get()?)?)
    }

    /// A copy of a graph as one node.
    [INIT] fn cuGraphAddChildGraphNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, child: u64,
    ) |c| {
        out.check()?;
        let node = c.add_child(g, deps.read(n)?, child, false)?;
        out.set(node)
    }

    /// The copy, which belongs to the node.
    [INIT] fn cuGraphChildGraphNodeGetGraph(node: u64, out: Out<u64>) |c| {
        match op(c, node)? {
            Op::Child(child) => out.set(child),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Records an event.
    [INIT] fn cuGraphAddEventRecordNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, event: u64,
    ) |c| {
        c.events.get(event).ok_or(INVALID_VALUE)?;
        add(c, out, g, deps, n, Op::Record(event))
    }

    /// Its event.
    [INIT] fn cuGraphEventRecordNodeGetEvent(node: u64, out: Out<u64>) |c| {
        match op(c, node)? {
            Op::Record(event) => out.set(event),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Another event.
    [INIT] fn cuGraphEventRecordNodeSetEvent(node: u64, event: u64) |c| {
        set(c, node, Op::Record(event))
    }

    /// Waits for an event.
    [INIT] fn cuGraphAddEventWaitNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, event: u64,
    ) |c| {
        c.events.get(event).ok_or(INVALID_VALUE)?;
        add(c, out, g, deps, n, Op::Wait(event))
    }

    /// Its event.
    [INIT] fn cuGraphEventWaitNodeGetEvent(node: u64, out: Out<u64>) |c| {
        match op(c, node)? {
            Op::Wait(event) => out.set(event),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Another event.
    [INIT] fn cuGraphEventWaitNodeSetEvent(node: u64, event: u64) |c| {
        set(c, node, Op::Wait(event))
    }

    /// An allocation: the address is fixed now and written into the parameters.
    [INIT] fn cuGraphAddMemAllocNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, params: Out<AllocParams>,
    ) |c| {
        out.check()?;
        let p = params.get()?;
        let (node, addr) = alloc(c, g, deps.read(n)?, &p)?;
        params.set(AllocParams { dptr: addr, ..p })?;
        out.set(node)
    }

    /// Its parameters.
    [INIT] fn cuGraphMemAllocNodeGetParams(node: u64, out: Out<AllocParams>) |c| {
        let Op::Alloc { device, bytes, addr } = op(c, node)? else { return Err(INVALID_VALUE) };
        let location = Location { kind: 1, id: device as i32 };
        let pool = PoolProps {
            kind: 1, handle_types: 0, location, win32_security: 0, max_size: 0, usage: 0,
            reserved: [0; 54],
        };
        out.set(AllocParams { pool, access: 0, access_count: 0, bytes, dptr: addr })
    }

    /// Frees what an allocation node of some graph allocated.
    [INIT] fn cuGraphAddMemFreeNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, addr: u64,
    ) |c| {
        let op = free(c, addr)?;
        add(c, out, g, deps, n, op)
    }

    /// Its address.
    [INIT] fn cuGraphMemFreeNodeGetParams(node: u64, out: Out<u64>) |c| {
        match op(c, node)? {
            Op::Free(addr) => out.set(addr),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Any type; 12.2.
    [INIT] fn cuGraphAddNode(
        out: Out<u64>, g: u64, deps: Items<u64>, n: usize, params: Out<NodeParams>,
    ) |c| {
        add_generic(c, out, g, deps.read(n)?, params)
    }

    /// Any type, with edge data.
    [INIT] fn cuGraphAddNode_v2(
        out: Out<u64>, g: u64, deps: Items<u64>, data: Items<EdgeData>, n: usize,
        params: Out<NodeParams>,
    ) |c| {
        let _ = data;
        add_generic(c, out, g, deps.read(n)?, params)
    }

    /// Any type but memory nodes.
    [INIT] fn cuGraphNodeSetParams(node: u64, params: In<NodeParams>) |c| {
        let op = generic(c, &params.get()?)?;
        if matches!(op, Op::Free(_)) {
            return Err(NOT_SUPPORTED);
        }
        set(c, node, op)
    }
}
