//! Virtual memory management.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::free;
use crate::memory::exports::{Export, exported};
use crate::memory::{errors, vmm};
use vramtrace_format::record::{Kind, Space};

driver_hooks! { HOOKS:
    fn cuMemCreate(handle: *mut u64, bytes: usize, properties: *const u32, flags: u64)
        = |call, real| vmm::create(call, handle, bytes as u64, properties, real);
    fn cuMemRelease(handle: u64)
        = |call, real| vmm::release(call, handle, real);
    fn cuMemRetainAllocationHandle(handle: *mut u64, address: Handle)
        = |call, real| vmm::retain(call, handle, address as u64, real);
    fn cuMemAddressReserve(address: *mut u64, bytes: usize, alignment: usize, wish: u64, flags: u64)
        = |call, real| vmm::reserve(call, address, bytes as u64, real);
    fn cuMemAddressFree(address: u64, bytes: usize)
        = |call, real| free(call, Kind::Reservation.lane(), Space::Reservation, address, 0, real);
    fn cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64)
        = |call, real| vmm::map(call, address, bytes as u64, handle, real);
    fn cuMemUnmap(address: u64, bytes: usize)
        = |call, real| vmm::unmap(call, address, bytes as u64, real);
    fn cuMemSetAccess(address: u64, bytes: usize, access: Handle, count: usize)
        = |call, real| {
            let result = real();
            errors::look_at(result, call.api());
            result
        };
    fn cuMemExportToShareableHandle(shared: Handle, handle: u64, kind: u32, flags: u64)
        = |call, real| exported(call, Export::Physical(handle), real);
    fn cuMemImportFromShareableHandle(handle: *mut u64, shared: Handle, kind: u32)
        = |call, real| vmm::import(call, handle, 0, real);
}
