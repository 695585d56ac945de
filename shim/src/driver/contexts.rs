//! Contexts and their ends.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::allocation::out_of;
use crate::memory::{Real, SUCCESS, attach, context, errors, footprint, green, limits};
use vramtrace_format::footprint::Part;

/// A context may have appeared in `made`.
fn create(call: &Call, made: *const usize, device: i32, primary: bool, real: impl Real) -> u32 {
    let (result, _) = if primary && context::has_primary(device) {
        (real(), None)
    } else {
        footprint::around(Part::Context, real)
    };
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let handle = unsafe { out_of(result, made) };
    if result != SUCCESS {
        errors::look_at(result, call.api());
    }
    context::created(call, result, handle, device, primary)
}

/// Another context is made current.
fn switch(real: impl Real) -> u32 {
    let result = real();
    footprint::context_is_current();
    result
}

driver_hooks! { HOOKS:
    fn cuInit(flags: u32)
        = |_call, real| real();
    fn cuCtxCreate(context: *mut usize, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuCtxCreate_v2(context: *mut usize, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuCtxCreate_v3(context: *mut usize, affinity: Handle, count: i32, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuCtxCreate_v4(context: *mut usize, parameters: Handle, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuGLCtxCreate(context: *mut usize, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuGLCtxCreate_v2(context: *mut usize, flags: u32, device: i32)
        = |call, real| create(call, context, device, false, real);
    fn cuVDPAUCtxCreate(context: *mut usize, flags: u32, device: i32, vdpau: u32, get_address: Handle)
        = |call, real| create(call, context, device, false, real);
    fn cuVDPAUCtxCreate_v2(context: *mut usize, flags: u32, device: i32, vdpau: u32, get_address: Handle)
        = |call, real| create(call, context, device, false, real);
    fn cuCtxSetCurrent(context: Handle)
        = |_call, real| switch(real);
    fn cuCtxPushCurrent(context: Handle)
        = |_call, real| switch(real);
    fn cuCtxPushCurrent_v2(context: Handle)
        = |_call, real| switch(real);
    fn cuCtxAttach(context: *mut usize, flags: u32)
        = |_call, real| attach::attach(context, real);
    fn cuCtxDetach(context: Handle)
        = |call, real| attach::detach(call, context as usize, real);
    fn cuCtxDestroy(context: Handle)
        = |call, real| context::destroy(call, context as usize, real);
    fn cuCtxDestroy_v2(context: Handle)
        = |call, real| context::destroy(call, context as usize, real);
    fn cuDevicePrimaryCtxRetain(context: *mut usize, device: i32)
        = |call, real| create(call, context, device, true, real);
    fn cuDevicePrimaryCtxRelease(device: i32)
        = |call, real| context::reset(call, device, true, real);
    fn cuDevicePrimaryCtxRelease_v2(device: i32)
        = |call, real| context::reset(call, device, true, real);
    fn cuDevicePrimaryCtxReset(device: i32)
        = |call, real| context::reset(call, device, false, real);
    fn cuDevicePrimaryCtxReset_v2(device: i32)
        = |call, real| context::reset(call, device, false, real);
    fn cuCtxSetLimit(limit: u32, value: usize)
        = |call, real| limits::set(call, limit, value as u64, real);
    fn cuGreenCtxCreate(context: *mut usize, resources: Handle, device: i32, flags: u32)
        = |call, real| green::create(call, context, device, real);
    fn cuGreenCtxDestroy(context: Handle)
        = |call, real| green::destroy(call, context as usize, real);
    fn cuCtxFromGreenCtx(context: *mut usize, green: Handle)
        = |_call, real| green::face(context, green as usize, real);
}
