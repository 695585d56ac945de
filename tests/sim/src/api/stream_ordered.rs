//! Stream-ordered allocation.

use crate::abi::error::INVALID_VALUE;
use crate::ffi::Out;
use crate::gate::{WORK, driver};

driver! {
    /// From the current pool of the stream's device; a graph node while the stream captures.
    [WORK] fn cuMemAllocAsync + cuMemAllocAsync_ptsz(out: Out<u64>, bytes: usize, stream: u64) |c| {
        out.check()?;
        let stream = c.work_stream(stream)?;
        let owner = c.streams.get(stream).map_or(0, |s| s.ctx);
        let device = c.device_of(owner)?;
        let pool = c.device(device as i32)?.pool;
        let addr = c.alloc_async(stream, pool, bytes as u64)?;
        out.set(addr)
    }

    /// From a given pool, which may be another device's.
    [WORK] fn cuMemAllocFromPoolAsync + cuMemAllocFromPoolAsync_ptsz(
        out: Out<u64>, bytes: usize, pool: u64, stream: u64,
    ) |c| {
        out.check()?;
        let stream = c.work_stream(stream)?;
        let addr = c.alloc_async(stream, pool, bytes as u64)?;
        out.set(addr)
    }

    /// Logical: the pool keeps the memory. 0 is not legal.
    [WORK] fn cuMemFreeAsync + cuMemFreeAsync_ptsz(addr: u64, stream: u64) |c| {
        if addr == 0 {
            return Err(INVALID_VALUE);
        }
        let stream = c.work_stream(stream)?;
        c.free_async_on(stream, addr)
    }
}
