//! Graphs and captures: labels.

use super::Handle;
use crate::hook::runtime_hooks;

runtime_hooks! { HOOKS:
    fn cudaGraphAddMemAllocNode(node: *mut Handle, graph: Handle, after: Handle, count: usize, parameters: Handle);
    fn cudaGraphAddMemFreeNode(node: *mut Handle, graph: Handle, after: Handle, count: usize, address: Handle);
    fn cudaGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: u64);
    fn cudaGraphInstantiateWithParams(executable: *mut Handle, graph: Handle, parameters: Handle);
    fn cudaGraphInstantiateWithParams_ptsz(executable: *mut Handle, graph: Handle, parameters: Handle);
    fn cudaGraphLaunch(executable: Handle, stream: Handle);
    fn cudaGraphLaunch_ptsz(executable: Handle, stream: Handle);
    fn cudaGraphUpload(executable: Handle, stream: Handle);
    fn cudaGraphUpload_ptsz(executable: Handle, stream: Handle);
    fn cudaGraphExecDestroy(executable: Handle);
    fn cudaGraphDestroy(graph: Handle);
    fn cudaDeviceGraphMemTrim(device: i32);
    fn cudaStreamBeginCapture(stream: Handle, mode: u32);
    fn cudaStreamBeginCapture_ptsz(stream: Handle, mode: u32);
    fn cudaStreamBeginCaptureToGraph(stream: Handle, graph: Handle, after: Handle, edges: Handle, count: usize, mode: u32);
    fn cudaStreamBeginCaptureToGraph_ptsz(stream: Handle, graph: Handle, after: Handle, edges: Handle, count: usize, mode: u32);
    fn cudaStreamBeginRecaptureToGraph(stream: Handle, mode: u32, graph: Handle, callback: Handle);
    fn cudaStreamBeginRecaptureToGraph_ptsz(stream: Handle, mode: u32, graph: Handle, callback: Handle);
    fn cudaStreamEndCapture(stream: Handle, graph: *mut Handle);
    fn cudaStreamEndCapture_ptsz(stream: Handle, graph: *mut Handle);
}
