//! The ends of streams: allocations name the stream that they are ordered on, and handles come back.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::streams;

driver_hooks! { HOOKS:
    fn cuStreamDestroy(stream: Handle)
        = |_call, real| streams::destroy(stream as usize, real);
    fn cuStreamDestroy_v2(stream: Handle)
        = |_call, real| streams::destroy(stream as usize, real);
}
