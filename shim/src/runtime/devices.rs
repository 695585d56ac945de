//! Devices, their resets, and libraries of device code: labels.

use super::Handle;
use crate::hook::runtime_hooks;
use std::ffi::c_char;

runtime_hooks! { HOOKS:
    fn cudaDeviceReset();
    fn cudaThreadExit();
    fn cudaSetDevice(device: i32);
    fn cudaInitDevice(device: i32, device_flags: u32, flags: u32);
    fn cudaDeviceSetLimit(limit: u32, value: usize);
    fn cudaThreadSetLimit(limit: u32, value: usize);
    fn cudaGreenCtxCreate(context: *mut Handle, resources: Handle, device: i32, flags: u32);
    fn cudaExecutionCtxDestroy(context: Handle);
    fn cudaLibraryLoadData(library: *mut Handle, code: Handle, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32);
    fn cudaLibraryLoadFromFile(library: *mut Handle, file: *const c_char, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32);
    fn cudaLibraryUnload(library: Handle);
}
