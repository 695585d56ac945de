//! The runtime's ways to driver functions. They go through cuGetProcAddress, which has put our
//! functions in their place already.

use super::Handle;
use crate::hook::runtime_hooks;
use std::ffi::c_char;

runtime_hooks! { HOOKS:
    // CUDA 11's form has no fourth parameter: it is passed on and never read.
    fn cudaGetDriverEntryPoint(symbol: *const c_char, function: *mut Handle, flags: u64, status: Handle);
    fn cudaGetDriverEntryPoint_ptsz(symbol: *const c_char, function: *mut Handle, flags: u64, status: Handle);
    fn cudaGetDriverEntryPointByVersion(symbol: *const c_char, function: *mut Handle, version: u32, flags: u64, status: Handle);
    fn cudaGetDriverEntryPointByVersion_ptsz(symbol: *const c_char, function: *mut Handle, version: u32, flags: u64, status: Handle);
}
