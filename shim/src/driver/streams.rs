//! Streams: allocations name the stream that they are ordered on, and handles come back; and the driver
//! takes memory for each.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::{Real, footprint, streams};
use vramtrace_format::footprint::Part;

fn create(real: impl Real) -> u32 {
    footprint::around(Part::Stream, real).0
}

fn destroy(stream: Handle, real: impl Real) -> u32 {
    streams::destroy(stream as usize, || footprint::around(Part::Stream, real).0)
}

driver_hooks! { HOOKS:
    fn cuStreamCreate(stream: *mut usize, flags: u32)
        = |_call, real| create(real);
    fn cuStreamCreateWithPriority(stream: *mut usize, flags: u32, priority: i32)
        = |_call, real| create(real);
    fn cuGreenCtxStreamCreate(stream: *mut usize, green: Handle, flags: u32, priority: i32)
        = |_call, real| create(real);
    fn cuStreamDestroy(stream: Handle)
        = |_call, real| destroy(stream, real);
    fn cuStreamDestroy_v2(stream: Handle)
        = |_call, real| destroy(stream, real);
}
