//! Linear, stream-ordered, host memory and arrays.

use super::{Handle, allocating, freeing};
use crate::hook::runtime_hooks;
use vramtrace_format::record::{Kind, Space};

/// cudaExtent: width, height, depth; passed by value, on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Extent {
    width: usize,
    height: usize,
    depth: usize,
}

runtime_hooks! { HOOKS:
    fn cudaMalloc(address: *mut u64, size: usize)
        = |call, real| allocating(call, Kind::Device, Space::Device, address, || size as u64, real);
    fn cudaMallocPitch(address: *mut u64, pitch: *mut usize, width: usize, height: usize)
        // SAFETY: the program's out-parameter; read only after success.
        = |call, real| allocating(call, Kind::Device, Space::Device, address, || unsafe { *pitch as u64 } * height as u64, real);
    // cudaPitchedPtr begins with the address and the pitch.
    fn cudaMalloc3D(pitched: *mut u64, extent: Extent)
        // SAFETY: as above.
        = |call, real| allocating(call, Kind::Device, Space::Device, pitched, || unsafe { *pitched.add(1) } * (extent.height * extent.depth) as u64, real);
    fn cudaMallocManaged(address: *mut u64, size: usize, flags: u32)
        = |call, real| allocating(call, Kind::Managed, Space::Device, address, || size as u64, real);
    fn cudaFree(address: Handle)
        = |call, real| freeing(call, Kind::Device, Space::Device, address as u64, real);
    fn cudaMallocAsync(address: *mut u64, size: usize, stream: Handle)
        = |call, real| allocating(call, Kind::Async, Space::Device, address, || size as u64, real);
    fn cudaMallocAsync_ptsz(address: *mut u64, size: usize, stream: Handle)
        = |call, real| allocating(call, Kind::Async, Space::Device, address, || size as u64, real);
    fn cudaMallocFromPoolAsync(address: *mut u64, size: usize, pool: Handle, stream: Handle)
        = |call, real| allocating(call, Kind::Async, Space::Device, address, || size as u64, real);
    fn cudaMallocFromPoolAsync_ptsz(address: *mut u64, size: usize, pool: Handle, stream: Handle)
        = |call, real| allocating(call, Kind::Async, Space::Device, address, || size as u64, real);
    fn cudaFreeAsync(address: Handle, stream: Handle)
        = |call, real| freeing(call, Kind::Async, Space::Device, address as u64, real);
    fn cudaFreeAsync_ptsz(address: Handle, stream: Handle)
        = |call, real| freeing(call, Kind::Async, Space::Device, address as u64, real);
    fn cudaMallocHost(address: *mut u64, size: usize)
        = |call, real| allocating(call, Kind::Pinned, Space::Host, address, || size as u64, real);
    fn cudaHostAlloc(address: *mut u64, size: usize, flags: u32)
        = |call, real| allocating(call, Kind::Pinned, Space::Host, address, || size as u64, real);
    fn cudaFreeHost(address: Handle)
        = |call, real| freeing(call, Kind::Pinned, Space::Host, address as u64, real);
    fn cudaHostRegister(address: Handle, size: usize, flags: u32)
        = |call, real| {
            let key = address as u64;
            allocating(call, Kind::Registered, Space::Host, &key, || size as u64, real)
        };
    fn cudaHostUnregister(address: Handle)
        = |call, real| freeing(call, Kind::Registered, Space::Host, address as u64, real);
    // An array's size needs its descriptor, which the driver hook reads: only a label here.
    fn cudaMallocArray(array: *mut u64, channels: Handle, width: usize, height: usize, flags: u32);
    fn cudaMalloc3DArray(array: *mut u64, channels: Handle, extent: Extent, flags: u32);
    fn cudaMallocMipmappedArray(array: *mut u64, channels: Handle, extent: Extent, levels: u32, flags: u32);
    fn cudaFreeArray(array: Handle);
    fn cudaFreeMipmappedArray(array: Handle);
}
