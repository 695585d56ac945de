//! Multicast objects and logical endpoints: they bind memory that is counted where it was
//! created, and hold none themselves. But what is bound lives on when it is released.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::bindings::{Bound, bind, unbind};
use crate::memory::vmm;

driver_hooks! { HOOKS:
    // Its handle ends by cuMemRelease like one of cuMemCreate.
    fn cuMulticastCreate(handle: *mut u64, properties: Handle)
        = |call, real| vmm::import(call, handle, 0, real);
    fn cuMulticastAddDevice(handle: u64, device: i32)
        = |_call, real| real();
    fn cuMulticastBindMem(handle: u64, offset: usize, memory: u64, memory_offset: usize, bytes: usize, flags: u64)
        = |call, real| bind(call, handle, None, offset as u64, &Bound::Handle(memory), bytes as u64, real);
    fn cuMulticastBindMem_v2(handle: u64, device: i32, offset: usize, memory: u64, memory_offset: usize, bytes: usize, flags: u64)
        = |call, real| bind(call, handle, Some(device), offset as u64, &Bound::Handle(memory), bytes as u64, real);
    fn cuMulticastBindAddr(handle: u64, offset: usize, address: u64, bytes: usize, flags: u64)
        = |call, real| bind(call, handle, None, offset as u64, &Bound::Address(address), bytes as u64, real);
    fn cuMulticastBindAddr_v2(handle: u64, device: i32, offset: usize, address: u64, bytes: usize, flags: u64)
        = |call, real| bind(call, handle, Some(device), offset as u64, &Bound::Address(address), bytes as u64, real);
    fn cuMulticastUnbind(handle: u64, device: i32, offset: usize, bytes: usize)
        = |call, real| unbind(call, handle, device, offset as u64, bytes as u64, real);
    fn cuLogicalEndpointCreate(endpoint: u32, properties: Handle)
        = |_call, real| real();
    fn cuLogicalEndpointDestroy(endpoint: u32)
        = |_call, real| real();
    fn cuLogicalEndpointBindMem(endpoint: u32, device: i32, offset: u64, memory: u64, memory_offset: u64, bytes: u64, flags: u64)
        = |_call, real| real();
    fn cuLogicalEndpointBindAddr(endpoint: u32, device: i32, offset: u64, address: Handle, bytes: u64, flags: u64)
        = |_call, real| real();
    fn cuLogicalEndpointUnbind(endpoint: u32, device: i32, offset: u64, bytes: u64)
        = |_call, real| real();
    fn cuLogicalEndpointExport(shared: Handle, endpoint: u32, kind: u32)
        = |_call, real| real();
    fn cuLogicalEndpointImport(endpoint: u32, shared: Handle, kind: u32)
        = |_call, real| real();
}
