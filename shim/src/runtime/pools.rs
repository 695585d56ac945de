//! Memory pools: labels.

use super::Handle;
use crate::hook::runtime_hooks;

runtime_hooks! { HOOKS:
    fn cudaMemPoolCreate(pool: *mut Handle, properties: Handle);
    fn cudaMemPoolDestroy(pool: Handle);
    fn cudaMemPoolTrimTo(pool: Handle, keep: usize);
    fn cudaMemPoolSetAttribute(pool: Handle, attribute: u32, value: Handle);
    fn cudaMemPoolExportToShareableHandle(shared: Handle, pool: Handle, kind: u32, flags: u32);
    fn cudaMemPoolImportFromShareableHandle(pool: *mut Handle, shared: Handle, kind: u32, flags: u32);
    fn cudaMemPoolExportPointer(data: Handle, address: Handle);
    fn cudaMemPoolImportPointer(address: *mut Handle, pool: Handle, data: Handle);
    fn cudaDeviceSetMemPool(device: i32, pool: Handle);
    fn cudaMemSetMemPool(location: Handle, kind: u32, pool: Handle);
}
