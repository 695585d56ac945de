//! Launches: a function's first one may load its code and enlarge what all kernels share. All others
//! pass through: the cost of asking is a load and a comparison (docs/design.md has the measurement).

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::Real;
use crate::memory::code::{self, Use};

#[inline(always)]
fn launch(call: &Call, function: Handle, real: impl Real) -> u32 {
    code::first_use(call, function as usize, Use::Launch, real)
}

driver_hooks! { HOOKS:
    fn cuLaunchKernel(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared: u32, stream: Handle, parameters: Handle, extra: Handle)
        = |call, real| launch(call, function, real);
    fn cuLaunchKernel_ptsz(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared: u32, stream: Handle, parameters: Handle, extra: Handle)
        = |call, real| launch(call, function, real);
    fn cuLaunchKernelEx(config: Handle, function: Handle, parameters: Handle, extra: Handle)
        = |call, real| launch(call, function, real);
    fn cuLaunchKernelEx_ptsz(config: Handle, function: Handle, parameters: Handle, extra: Handle)
        = |call, real| launch(call, function, real);
    fn cuLaunchCooperativeKernel(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared: u32, stream: Handle, parameters: Handle)
        = |call, real| launch(call, function, real);
    fn cuLaunchCooperativeKernel_ptsz(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared: u32, stream: Handle, parameters: Handle)
        = |call, real| launch(call, function, real);
}
