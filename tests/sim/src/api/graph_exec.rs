//! Executable graphs, and the graph memory of devices.

use super::graph_nodes::{generic, host, kernel};
use crate::abi::copy::Memcpy3D;
use crate::abi::error::{GRAPH_EXEC_UPDATE_FAILURE, INVALID_VALUE, R};
use crate::abi::graph::{
    HostParams, InstantiateParams, KernelParams, KernelParamsV2, MemsetParams, NodeParams,
    UpdateInfo,
};
use crate::ffi::{In, Out};
use crate::gate::{Call, INIT, UNSAFE, WORK, driver};
use crate::model::graph::Op;
use std::ffi::{c_char, c_void};

fn instantiate(c: &mut Call, out: Out<u64>, graph: u64, flags: u64) -> R {
    out.check()?;
    let exec = c.instantiate(graph, flags)?;
    c.charge_first_exec();
    out.set(exec)
}

fn with_params(c: &mut Call, out: Out<u64>, graph: u64, params: Out<InstantiateParams>) -> R {
    let mut p = params.get()?;
    p.error_node = 0;
    let made = instantiate(c, out, graph, p.flags);
    // CUgraphInstantiateResult: 0 success, 1 see the return value.
    p.result = u32::from(made.is_err());
    params.set(p)?;
    made
}

fn launch(c: &mut Call, exec: u64, stream: u64) -> R {
    let stream = c.work_stream(stream)?;
    c.forbid_capturing(stream)?;
    c.launch_graph(exec)
}

fn update(c: &mut Call, exec: u64, graph: u64) -> R<UpdateInfo> {
    Ok(match c.update_exec(exec, graph)? {
        Ok(()) => UpdateInfo {
            result: 0,
            error_node: 0,
            error_from_node: 0,
        },
        Err((result, node)) => UpdateInfo {
            result,
            error_node: node,
            error_from_node: 0,
        },
    })
}

fn verdict(info: &UpdateInfo) -> R {
    if info.result == 0 {
        Ok(())
    } else {
        Err(GRAPH_EXEC_UPDATE_FAILURE)
    }
}

driver! {
    /// 10.0: no flags, an error node and a log.
    [INIT | UNSAFE] fn cuGraphInstantiate(
        out: Out<u64>, graph: u64, error: Out<u64>, log: Out<c_char>, size: usize,
    ) |c| {
        error.set_if(0);
        if size > 0 {
            log.set_if(0);
        }
        instantiate(c, out, graph, 0)
    }

    /// 11.0: the same with the error node optional.
    [INIT | UNSAFE] fn cuGraphInstantiate_v2(
        out: Out<u64>, graph: u64, error: Out<u64>, log: Out<c_char>, size: usize,
    ) |c| {
        error.set_if(0);
        if size > 0 {
            log.set_if(0);
        }
        instantiate(c, out, graph, 0)
    }

    /// 11.4: what cuda.h calls cuGraphInstantiate since 12.0.
    [INIT | UNSAFE] fn cuGraphInstantiateWithFlags(out: Out<u64>, graph: u64, flags: u64) |c| {
        instantiate(c, out, graph, flags)
    }

    /// 12.0: with an upload stream and a result.
    [INIT | UNSAFE] fn cuGraphInstantiateWithParams + cuGraphInstantiateWithParams_ptsz(
        out: Out<u64>, graph: u64, params: Out<InstantiateParams>,
    ) |c| {
        with_params(c, out, graph, params)
    }

    /// Flags that it was made with.
    [INIT] fn cuGraphExecGetFlags(exec: u64, out: Out<u64>) |c| {
        out.set(c.graphs.execs.get(exec).ok_or(INVALID_VALUE)?.flags)
    }

    /// Runs it; not in a capturing stream.
    [WORK] fn cuGraphLaunch + cuGraphLaunch_ptsz(exec: u64, stream: u64) |c| {
        launch(c, exec, stream)
    }

    /// Nothing needs to be uploaded.
    [WORK] fn cuGraphUpload + cuGraphUpload_ptsz(exec: u64, stream: u64) |c| {
        let stream = c.work_stream(stream)?;
        c.forbid_capturing(stream)?;
        c.graphs.execs.get(exec).map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// Its graph lives on, and so does what it allocated.
    [INIT | UNSAFE] fn cuGraphExecDestroy(exec: u64) |c| { c.destroy_exec(exec) }

    /// Before 12.0.
    [INIT] fn cuGraphExecUpdate(exec: u64, graph: u64, node: Out<u64>, result: Out<u32>) |c| {
        let info = update(c, exec, graph)?;
        node.set_if(info.error_node);
        result.set_if(info.result);
        verdict(&info)
    }

    /// Takes over the parameters of a graph of the same shape.
    [INIT] fn cuGraphExecUpdate_v2(exec: u64, graph: u64, out: Out<UpdateInfo>) |c| {
        out.check()?;
        let info = update(c, exec, graph)?;
        out.set(info)?;
        verdict(&info)
    }

    /// Before 12.0.
    [INIT] fn cuGraphExecKernelNodeSetParams(exec: u64, node: u64, p: In<KernelParams>) |c| {
        let op = kernel(c, p.get()?, 0, 0)?;
        c.set_step(exec, node, op)
    }

    /// With kernels of libraries.
    [INIT] fn cuGraphExecKernelNodeSetParams_v2(exec: u64, node: u64, p: In<KernelParamsV2>) |c| {
        let p = p.get()?;
        let op = kernel(c, p.v1, p.kernel, p.ctx)?;
        c.set_step(exec, node, op)
    }

    /// A copy node's parameters.
    [INIT] fn cuGraphExecMemcpyNodeSetParams(exec: u64, node: u64, p: In<Memcpy3D>, ctx: u64) |c| {
        c.context(ctx)?;
        c.set_step(exec, node, Op::Copy(p.get()?.into()))
    }

    /// A fill node's parameters.
    [INIT] fn cuGraphExecMemsetNodeSetParams(
        exec: u64, node: u64, p: In<MemsetParams>, ctx: u64,
    ) |c| {
        c.context(ctx)?;
        c.set_step(exec, node, Op::Fill(p.get()?))
    }

    /// A host node's parameters.
    [INIT] fn cuGraphExecHostNodeSetParams(exec: u64, node: u64, p: In<HostParams>) |c| {
        c.set_step(exec, node, host(p.get()?)?)
    }

    /// A child's parameters: the new child must have the old one's shape.
    [INIT] fn cuGraphExecChildGraphNodeSetParams(exec: u64, node: u64, child: u64) |c| {
        c.update_child(exec, node, child)
    }

    /// A record node's event.
    [INIT] fn cuGraphExecEventRecordNodeSetEvent(exec: u64, node: u64, event: u64) |c| {
        c.set_step(exec, node, Op::Record(event))
    }

    /// A wait node's event.
    [INIT] fn cuGraphExecEventWaitNodeSetEvent(exec: u64, node: u64, event: u64) |c| {
        c.set_step(exec, node, Op::Wait(event))
    }

    /// A node's parameters by its generic form.
    [INIT] fn cuGraphExecNodeSetParams(exec: u64, node: u64, params: In<NodeParams>) |c| {
        let op = generic(c, &params.get()?)?;
        c.set_step(exec, node, op)
    }

    /// Disabled nodes do nothing.
    [INIT] fn cuGraphNodeSetEnabled(exec: u64, node: u64, enabled: u32) |c| {
        let exec = c.graphs.execs.get_mut(exec).ok_or(INVALID_VALUE)?;
        let step = exec.steps.iter_mut().find(|s| s.node == node).ok_or(INVALID_VALUE)?;
        if !matches!(step.op, Op::Kernel(_) | Op::Copy(_) | Op::Fill(_)) {
            return Err(INVALID_VALUE);
        }
        step.enabled = enabled != 0;
        Ok(())
    }

    /// Whether it does.
    [INIT] fn cuGraphNodeGetEnabled(exec: u64, node: u64, out: Out<u32>) |c| {
        let exec = c.graphs.execs.get(exec).ok_or(INVALID_VALUE)?;
        let step = exec.steps.iter().find(|s| s.node == node).ok_or(INVALID_VALUE)?;
        out.set(step.enabled.into())
    }

    /// Gives memory back that no live graph allocation uses.
    [INIT] fn cuDeviceGraphMemTrim(dev: i32) |c| { c.trim_graph_memory(dev) }

    /// Bytes used and reserved, now and at most. What was freed counts as used until it is trimmed.
    [INIT] fn cuDeviceGetGraphMemAttribute(dev: i32, attr: u32, value: Out<c_void>) |c| {
        let graph = &c.device(dev)?.graph;
        let bytes = match attr {
            0 | 2 => graph.reserved,
            1 => graph.used_high,
            3 => graph.reserved_high,
            _ => return Err(INVALID_VALUE),
        };
        value.cast::<u64>().set(bytes)
    }

    /// The highest values can be reset to 0, meaning "to the current".
    [INIT] fn cuDeviceSetGraphMemAttribute(dev: i32, attr: u32, value: Out<c_void>) |c| {
        let graph = &mut c.device(dev)?.graph;
        if value.cast::<u64>().get()? != 0 {
            return Err(INVALID_VALUE);
        }
        match attr {
            1 => graph.used_high = graph.reserved,
            3 => graph.reserved_high = graph.reserved,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }
}
