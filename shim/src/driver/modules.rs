//! Modules and libraries: device code. Its size is not visible; that it was loaded is recorded.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::allocation::out_of;
use crate::memory::{Real, SUCCESS, context, errors};
use std::ffi::c_char;
use vramtrace_format::record::{Op, Record};
use vramtrace_recorder as recorder;

fn event(call: &Call, op: Op, handle: u64) {
    let (context, device) = context::current();
    recorder::event(&Record {
        op: op as u8,
        key: handle,
        context,
        device,
        api: call.api(),
        ..Record::default()
    });
}

fn load(call: &Call, module: *const usize, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { out_of(result, module) };
    if let Some(handle) = made
        && recorder::is_on()
    {
        event(call, Op::ModuleLoaded, handle as u64);
    }
    result
}

fn unload(call: &Call, module: Handle, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    if result == SUCCESS && recorder::is_on() {
        event(call, Op::ModuleUnloaded, module as u64);
    }
    result
}

driver_hooks! { HOOKS:
    fn cuModuleLoad(module: *mut usize, file: *const c_char)
        = |call, real| load(call, module, real);
    fn cuModuleLoadData(module: *mut usize, image: Handle)
        = |call, real| load(call, module, real);
    fn cuModuleLoadDataEx(module: *mut usize, image: Handle, count: u32, options: Handle, values: Handle)
        = |call, real| load(call, module, real);
    fn cuModuleLoadFatBinary(module: *mut usize, image: Handle)
        = |call, real| load(call, module, real);
    fn cuModuleUnload(module: Handle)
        = |call, real| unload(call, module, real);
    fn cuLibraryLoadData(library: *mut usize, code: Handle, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32)
        = |call, real| load(call, library, real);
    fn cuLibraryLoadFromFile(library: *mut usize, file: *const c_char, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32)
        = |call, real| load(call, library, real);
    fn cuLibraryUnload(library: Handle)
        = |call, real| unload(call, library, real);
}
