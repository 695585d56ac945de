//! Graphs and captures.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::out;
use crate::memory::{capture, graphs, pools};
use std::ffi::c_char;
use vramtrace_format::record::GRAPH_POOL;

/// `flags` of a CUDA_GRAPH_INSTANTIATE_PARAMS: its first word.
fn flags_of(parameters: *const u64) -> u64 {
    // SAFETY: the program's parameter of a call that reads it itself; null is an error there.
    unsafe { out(parameters) }.unwrap_or(0)
}

driver_hooks! { HOOKS:
    // What nodes do to memory is asked for when their graph is instantiated.
    fn cuGraphAddMemAllocNode(node: *mut usize, graph: Handle, after: Handle, count: usize, parameters: Handle)
        = |_call, real| real();
    fn cuGraphAddMemFreeNode(node: *mut usize, graph: Handle, after: Handle, count: usize, address: u64)
        = |_call, real| real();
    fn cuGraphAddNode(node: *mut usize, graph: Handle, after: Handle, count: usize, parameters: Handle)
        = |_call, real| real();
    fn cuGraphAddNode_v2(node: *mut usize, graph: Handle, after: Handle, edges: Handle, count: usize, parameters: Handle)
        = |_call, real| real();
    fn cuGraphAddNode_v3(node: *mut usize, graph: Handle, after: Handle, edges: Handle, count: usize, parameters: Handle)
        = |_call, real| real();
    fn cuGraphInstantiate(executable: *mut usize, graph: Handle, error_node: Handle, log: *mut c_char, room: usize)
        = |_call, real| graphs::instantiate(executable, graph as usize, 0, real);
    fn cuGraphInstantiate_v2(executable: *mut usize, graph: Handle, error_node: Handle, log: *mut c_char, room: usize)
        = |_call, real| graphs::instantiate(executable, graph as usize, 0, real);
    fn cuGraphInstantiateWithFlags(executable: *mut usize, graph: Handle, flags: u64)
        = |_call, real| graphs::instantiate(executable, graph as usize, flags, real);
    fn cuGraphInstantiateWithParams(executable: *mut usize, graph: Handle, parameters: *mut u64)
        = |_call, real| graphs::instantiate(executable, graph as usize, flags_of(parameters), real);
    fn cuGraphInstantiateWithParams_ptsz(executable: *mut usize, graph: Handle, parameters: *mut u64)
        = |_call, real| graphs::instantiate(executable, graph as usize, flags_of(parameters), real);
    fn cuGraphLaunch(executable: Handle, stream: Handle)
        = |call, real| graphs::launch(call, executable as usize, stream as usize, real);
    fn cuGraphLaunch_ptsz(executable: Handle, stream: Handle)
        = |call, real| graphs::launch(call, executable as usize, if stream.is_null() { 2 } else { stream as usize }, real);
    fn cuGraphUpload(executable: Handle, stream: Handle)
        = |_call, real| real();
    fn cuGraphUpload_ptsz(executable: Handle, stream: Handle)
        = |_call, real| real();
    fn cuGraphExecUpdate(executable: Handle, graph: Handle, error_node: Handle, outcome: Handle)
        = |_call, real| graphs::update(executable as usize, graph as usize, real);
    fn cuGraphExecUpdate_v2(executable: Handle, graph: Handle, outcome: Handle)
        = |_call, real| graphs::update(executable as usize, graph as usize, real);
    fn cuGraphExecDestroy(executable: Handle)
        = |_call, real| graphs::destroy(executable as usize, real);
    fn cuGraphDestroy(graph: Handle)
        = |_call, real| real();
    fn cuDeviceGraphMemTrim(device: i32)
        = |_call, real| graphs::trim(device, real);
    fn cuDeviceGetGraphMemAttribute(device: i32, attribute: u32, value: *mut u64)
        = |_call, real| {
            let result = real();
            // CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT: the program asked, so use the answer.
            if result == 0 && attribute == 2 && vramtrace_recorder::is_on() {
                // SAFETY: the program's out-parameter of a call that succeeded.
                if let Some(bytes) = unsafe { out(value) } {
                    pools::reserve_is(GRAPH_POOL + device as u64, device as u8, bytes);
                }
            }
            result
        };
    fn cuStreamBeginCapture(stream: Handle)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginCapture_ptsz(stream: Handle)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginCapture_v2_ptsz(stream: Handle, mode: u32)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginCaptureToGraph(stream: Handle, graph: Handle, after: Handle, edges: Handle, count: usize, mode: u32)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginCaptureToGraph_ptsz(stream: Handle, graph: Handle, after: Handle, edges: Handle, count: usize, mode: u32)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginRecaptureToGraph(stream: Handle, mode: u32, graph: Handle, callback: Handle, data: Handle)
        = |_call, real| capture::begin(real);
    fn cuStreamBeginRecaptureToGraph_ptsz(stream: Handle, mode: u32, graph: Handle, callback: Handle, data: Handle)
        = |_call, real| capture::begin(real);
    fn cuStreamEndCapture(stream: Handle, graph: *mut usize)
        = |_call, real| capture::end(real);
    fn cuStreamEndCapture_ptsz(stream: Handle, graph: *mut usize)
        = |_call, real| capture::end(real);
}
