//! cuGetProcAddress: through it come all 400 to 500 functions that libcudart uses.

use super::Handle;
use crate::hook::driver_hooks;
use crate::link::driver::substitute_resolved;
use crate::memory::SUCCESS;
use std::ffi::{CStr, c_char};

/// CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM (cuda.h 11.3).
const PER_THREAD: u64 = 2;

/// Puts our function in the place of what the driver found.
fn resolved(
    result: u32,
    symbol: *const c_char,
    function: *mut Handle,
    version: i32,
    flags: u64,
) -> u32 {
    // A success may come with a null function, and neither parameter need be there.
    if result == SUCCESS && !symbol.is_null() && !function.is_null() {
        // SAFETY: parameters of a call that succeeded: a NUL-terminated name and a place that the
        // driver wrote to.
        unsafe {
            *function = substitute_resolved(
                CStr::from_ptr(symbol),
                *function,
                version,
                flags & PER_THREAD != 0,
            );
        }
    }
    result
}

driver_hooks! { HOOKS:
    fn cuGetProcAddress(symbol: *const c_char, function: *mut Handle, version: i32, flags: u64)
        = |_call, real| resolved(real(), symbol, function, version, flags);

    fn cuGetProcAddress_v2(symbol: *const c_char, function: *mut Handle, version: i32, flags: u64, status: *mut u32)
        = |_call, real| resolved(real(), symbol, function, version, flags);
}
