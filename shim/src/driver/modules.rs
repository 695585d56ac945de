//! Modules and libraries, and the functions in them: device code. It has no address that a program
//! sees; what the driver takes for it is measured.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::Real;
use crate::memory::allocation::out_of;
use crate::memory::code::{self, Use};
use std::ffi::c_char;

fn load(call: &Call, module: *const usize, real: impl Real) -> u32 {
    // SAFETY: the program's own out-parameter of the call that came to this result.
    code::load(call, |result| unsafe { out_of(result, module) }, real)
}

fn look_up(call: &Call, owner: Handle, name: *const c_char, real: impl Real) -> u32 {
    // SAFETY: the program's own argument, which the driver reads as well.
    unsafe { code::look_up(call, owner as usize, name, real) }
}

fn ask(call: &Call, function: Handle, real: impl Real) -> u32 {
    code::first_use(call, function as usize, Use::Ask, real)
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
        = |call, real| code::unload(call, module as usize, real);
    fn cuLibraryLoadData(library: *mut usize, code: Handle, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32)
        = |call, real| load(call, library, real);
    fn cuLibraryLoadFromFile(library: *mut usize, file: *const c_char, jit: Handle, jit_values: Handle, jit_count: u32, options: Handle, values: Handle, count: u32)
        = |call, real| load(call, library, real);
    fn cuLibraryUnload(library: Handle)
        = |call, real| code::unload(call, library as usize, real);
    fn cuModuleGetFunction(function: *mut usize, module: Handle, name: *const c_char)
        = |call, real| look_up(call, module, name, real);
    fn cuLibraryGetKernel(kernel: *mut usize, library: Handle, name: *const c_char)
        = |call, real| look_up(call, library, name, real);
    fn cuLibraryGetModule(module: *mut usize, library: Handle)
        = |call, real| ask(call, library, real);
    fn cuKernelGetFunction(function: *mut usize, kernel: Handle)
        = |call, real| ask(call, kernel, real);
    fn cuFuncLoad(function: Handle)
        = |call, real| ask(call, function, real);
    fn cuFuncGetAttribute(value: *mut i32, attribute: u32, function: Handle)
        = |call, real| ask(call, function, real);
    fn cuFuncSetAttribute(function: Handle, attribute: u32, value: i32)
        = |call, real| ask(call, function, real);
    fn cuKernelGetAttribute(value: *mut i32, attribute: u32, kernel: Handle, device: i32)
        = |call, real| ask(call, kernel, real);
    fn cuKernelSetAttribute(attribute: u32, value: i32, kernel: Handle, device: i32)
        = |call, real| ask(call, kernel, real);
}
