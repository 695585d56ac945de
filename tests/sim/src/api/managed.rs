//! Managed memory: prefetch, advice, discards. There is one copy of it, so that nothing moves.

use crate::abi::error::{INVALID_VALUE, R};
use crate::abi::memory::Location;
use crate::ffi::{Items, Out};
use crate::gate::{Call, WORK, driver};
use std::ffi::c_void;

driver! {
    /// Prefetching moves nothing: there is one copy of managed memory.
    [WORK] fn cuMemPrefetchAsync + cuMemPrefetchAsync_ptsz(
        addr: u64, bytes: usize, dev: i32, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        let _ = (bytes, dev);
        c.live.find(addr).map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// As above, with a location.
    [WORK] fn cuMemPrefetchAsync_v2 + cuMemPrefetchAsync_v2_ptsz(
        addr: u64, bytes: usize, location: Location, flags: u32, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        let _ = (bytes, location, flags);
        c.live.find(addr).map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// Advice is taken and changes nothing.
    [WORK] fn cuMemAdvise(addr: u64, bytes: usize, advice: u32, dev: i32) |c| {
        let _ = (bytes, dev);
        advise(c, addr, advice)
    }

    /// As above, with a location.
    [WORK] fn cuMemAdvise_v2(
        addr: u64, bytes: usize, advice: u32, location: Location,
    ) |c| {
        let _ = (bytes, location);
        advise(c, addr, advice)
    }

    /// No range has been advised.
    [WORK] fn cuMemRangeGetAttribute(
        out: Out<c_void>, size: usize, attr: u32, addr: u64, bytes: usize,
    ) |c| {
        let _ = bytes;
        c.live.find(addr).ok_or(INVALID_VALUE)?;
        range_attribute(out, size, attr)
    }

    /// Several attributes of a range.
    [WORK] fn cuMemRangeGetAttributes(
        outs: Items<Out<c_void>>, sizes: Items<usize>, attrs: Items<u32>, count: usize, addr: u64,
        bytes: usize,
    ) |c| {
        let _ = bytes;
        c.live.find(addr).ok_or(INVALID_VALUE)?;
        let (outs, sizes) = (outs.read(count)?, sizes.read(count)?);
        for ((out, size), attr) in outs.into_iter().zip(sizes).zip(attrs.read(count)?) {
            range_attribute(out, size, attr)?;
        }
        Ok(())
    }

    /// Prefetches several ranges.
    [WORK] fn cuMemPrefetchBatchAsync + cuMemPrefetchBatchAsync_ptsz(
        addrs: Items<u64>, sizes: Items<usize>, count: usize, locations: u64, indices: u64,
        location_count: usize, flags: u64, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        let _ = (sizes, locations, indices, location_count, flags);
        all_managed(c, &addrs.read(count)?)
    }

    /// Discards several ranges: their content is undefined afterwards, the allocations stay.
    [WORK] fn cuMemDiscardBatchAsync + cuMemDiscardBatchAsync_ptsz(
        addrs: Items<u64>, sizes: Items<usize>, count: usize, flags: u64, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        let _ = (sizes, flags);
        all_managed(c, &addrs.read(count)?)
    }

    /// Both.
    [WORK] fn cuMemDiscardAndPrefetchBatchAsync + cuMemDiscardAndPrefetchBatchAsync_ptsz(
        addrs: Items<u64>, sizes: Items<usize>, count: usize, locations: u64, indices: u64,
        location_count: usize, flags: u64, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        let _ = (sizes, locations, indices, location_count, flags);
        all_managed(c, &addrs.read(count)?)
    }
}

fn all_managed(c: &mut Call, addrs: &[u64]) -> R {
    if addrs.iter().all(|&a| c.live.find(a).is_some()) {
        Ok(())
    } else {
        Err(INVALID_VALUE)
    }
}

/// Nothing was advised or prefetched, which is location -2 for those that name one.
fn range_attribute(out: Out<c_void>, size: usize, attr: u32) -> R {
    if !(1..=8).contains(&attr) || size < 4 {
        return Err(INVALID_VALUE);
    }
    out.cast::<i32>()
        .set(if matches!(attr, 2 | 4) { -2 } else { 0 })
}

fn advise(c: &mut Call, addr: u64, advice: u32) -> R {
    if !(1..=6).contains(&advice) {
        return Err(INVALID_VALUE);
    }
    c.live.find(addr).map(|_| ()).ok_or(INVALID_VALUE)
}
