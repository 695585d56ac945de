//! Stream-ordered memory: blocks of a pool.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::pools;

/// The per-thread default stream's handle, CU_STREAM_PER_THREAD, stands for the null stream in
/// `_ptsz` functions.
fn per_thread(stream: Handle) -> usize {
    if stream.is_null() { 2 } else { stream as usize }
}

driver_hooks! { HOOKS:
    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle)
        = |call, real| pools::allocate(call, address, bytes as u64, stream as usize, None, real);
    fn cuMemAllocAsync_ptsz(address: *mut u64, bytes: usize, stream: Handle)
        = |call, real| pools::allocate(call, address, bytes as u64, per_thread(stream), None, real);
    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: Handle, stream: Handle)
        = |call, real| pools::allocate(call, address, bytes as u64, stream as usize, Some(pool as usize), real);
    fn cuMemAllocFromPoolAsync_ptsz(address: *mut u64, bytes: usize, pool: Handle, stream: Handle)
        = |call, real| pools::allocate(call, address, bytes as u64, per_thread(stream), Some(pool as usize), real);
    fn cuMemFreeAsync(address: u64, stream: Handle)
        = |call, real| pools::free(call, address, stream as usize, real);
    fn cuMemFreeAsync_ptsz(address: u64, stream: Handle)
        = |call, real| pools::free(call, address, per_thread(stream), real);
}
