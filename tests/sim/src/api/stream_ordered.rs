//! Stream-ordered allocation.

use crate::ffi::Out;
use crate::gate::{WORK, driver};

driver! {
    /// From the current pool of the stream's device; a graph node while the stream captures.
    [WORK] fn cuMemAllocAsync + cuMemAllocAsync_ptsz(out: Out<u64>, bytes: usize, stream: u64) |c| {
        out.check()?;
        let stream = c.memory_stream(stream)?;
        if bytes == 0 {
            return out.set(0);
        }
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
        let stream = c.memory_stream(stream)?;
        if bytes == 0 {
            return out.set(0);
        }
        let addr = c.alloc_async(stream, pool, bytes as u64)?;
        out.set(addr)
    }

    /// Logical: the pool keeps the memory. 0 is legal.
    [WORK] fn cuMemFreeAsync + cuMemFreeAsync_ptsz(addr: u64, stream: u64) |c| {
        let stream = c.memory_stream(stream)?;
        if addr == 0 {
            return Ok(());
        }
        c.free_async_on(stream, addr)
    }
}
