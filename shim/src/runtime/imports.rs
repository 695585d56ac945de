//! Memory of other processes and other APIs: labels.

use super::Handle;
use crate::hook::runtime_hooks;

/// cudaIpcMemHandle_t: 64 bytes, passed by value, on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle {
    bytes: [u8; 64],
}

runtime_hooks! { HOOKS:
    fn cudaIpcGetMemHandle(handle: Handle, address: Handle);
    fn cudaIpcOpenMemHandle(address: *mut Handle, handle: IpcHandle, flags: u32);
    fn cudaIpcCloseMemHandle(address: Handle);
    fn cudaImportExternalMemory(memory: *mut Handle, descriptor: Handle);
    fn cudaExternalMemoryGetMappedBuffer(address: *mut Handle, memory: Handle, descriptor: Handle);
    fn cudaExternalMemoryGetMappedMipmappedArray(array: *mut Handle, memory: Handle, descriptor: Handle);
    fn cudaDestroyExternalMemory(memory: Handle);
    fn cudaGraphicsMapResources(count: i32, resources: Handle, stream: Handle);
    fn cudaGraphicsUnmapResources(count: i32, resources: Handle, stream: Handle);
    fn cudaGraphicsUnregisterResource(resource: Handle);
    fn cudaGraphicsResourceGetMappedPointer(address: *mut Handle, size: *mut usize, resource: Handle);
}
