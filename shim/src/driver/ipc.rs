//! Memory shared between processes.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::exports::{Export, exported};
use crate::memory::imports;

/// CUipcMemHandle: 64 bytes, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle {
    bytes: [u8; 64],
}

driver_hooks! { HOOKS:
    fn cuIpcGetMemHandle(handle: Handle, address: u64)
        = |call, real| exported(call, Export::Ipc(address), real);
    fn cuIpcOpenMemHandle(address: *mut u64, handle: IpcHandle, flags: u32)
        = |call, real| imports::open_ipc(call, address, real);
    fn cuIpcOpenMemHandle_v2(address: *mut u64, handle: IpcHandle, flags: u32)
        = |call, real| imports::open_ipc(call, address, real);
    fn cuIpcCloseMemHandle(address: u64)
        = |call, real| imports::close_ipc(call, address, real);
}
