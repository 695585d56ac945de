//! Stream memory operations: writing values, and waiting for them.
//!
//! Work is done when a call returns, so that a wait whose condition does not hold yet cannot be left
//! for later. It waits in the call, with the lock released, for another thread to write the value;
//! a program that would have written it later from the same thread would wait for ever on this
//! driver, and gets `CUDA_ERROR_NOT_SUPPORTED` after a second instead.

use crate::abi::copy::{Copy3D, Side};
use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, R};
use crate::ffi::Items;
use crate::gate::{Call, WORK, driver};
use std::time::{Duration, Instant};

/// `CUstreamBatchMemOpParams`: 48 bytes, whose first word tells what they are.
type Params = [u64; 6];

const PATIENCE: Duration = Duration::from_secs(1);

fn write(c: &mut Call, addr: u64, value: u64, bytes: u64) -> R {
    if !addr.is_multiple_of(bytes) {
        return Err(INVALID_VALUE);
    }
    let from = Side {
        kind: 1,
        host: &raw const value as u64,
        ..Side::default()
    };
    c.copy(&Copy3D::row(Side::address(addr), from, bytes))
}

fn read(c: &mut Call, addr: u64, bytes: u64) -> R<u64> {
    let mut value = 0u64;
    let to = Side {
        kind: 1,
        host: &raw mut value as u64,
        ..Side::default()
    };
    c.copy(&Copy3D::row(to, Side::address(addr), bytes))?;
    Ok(value)
}

/// CUstreamWaitValue_flags: greater or equal (cyclic), equal, and, nor.
fn holds(is: u64, value: u64, bytes: u64, flags: u32) -> bool {
    let (mask, sign) = if bytes == 4 {
        (u64::from(u32::MAX), 1 << 31)
    } else {
        (u64::MAX, 1 << 63)
    };
    match flags & 3 {
        0 => is.wrapping_sub(value) & sign == 0,
        1 => is == value & mask,
        2 => is & value != 0,
        _ => !(is | value) & mask != 0,
    }
}

fn wait(c: &mut Call, addr: u64, value: u64, bytes: u64, flags: u32) -> R {
    if !addr.is_multiple_of(bytes) {
        return Err(INVALID_VALUE);
    }
    let start = Instant::now();
    while !holds(read(c, addr, bytes)?, value, bytes, flags) {
        if start.elapsed() > PATIENCE {
            return Err(NOT_SUPPORTED);
        }
        c.unlocked(|| std::thread::sleep(Duration::from_micros(50)));
    }
    Ok(())
}

fn ready(c: &mut Call, stream: u64) -> R {
    let stream = c.work_stream(stream)?;
    // As nodes of a graph they are not simulated.
    if c.capture_of(stream)?.is_some() {
        Err(NOT_SUPPORTED)
    } else {
        Ok(())
    }
}

fn batch(c: &mut Call, stream: u64, count: u32, params: Items<Params>) -> R {
    ready(c, stream)?;
    for p in params.read(count as usize)? {
        let (addr, value, flags) = (p[1], p[2], p[3] as u32);
        match p[0] as u32 {
            1 => wait(c, addr, value & u64::from(u32::MAX), 4, flags)?,
            2 => write(c, addr, value, 4)?,
            4 => wait(c, addr, value, 8, flags)?,
            5 => write(c, addr, value, 8)?,
            // Flushes and barriers: everything is visible already.
            3 | 6 => {}
            _ => return Err(INVALID_VALUE),
        }
    }
    Ok(())
}

driver! {
    /// Version 1.
    [WORK] fn cuStreamWriteValue32 + cuStreamWriteValue32_ptsz(
        stream: u64, addr: u64, value: u32, flags: u32,
    ) |c| {
        let _ = flags;
        ready(c, stream)?;
        write(c, addr, value.into(), 4)
    }

    /// 32 bits.
    [WORK] fn cuStreamWriteValue32_v2 + cuStreamWriteValue32_v2_ptsz(
        stream: u64, addr: u64, value: u32, flags: u32,
    ) |c| {
        let _ = flags;
        ready(c, stream)?;
        write(c, addr, value.into(), 4)
    }

    /// Version 1.
    [WORK] fn cuStreamWriteValue64 + cuStreamWriteValue64_ptsz(
        stream: u64, addr: u64, value: u64, flags: u32,
    ) |c| {
        let _ = flags;
        ready(c, stream)?;
        write(c, addr, value, 8)
    }

    /// 64 bits.
    [WORK] fn cuStreamWriteValue64_v2 + cuStreamWriteValue64_v2_ptsz(
        stream: u64, addr: u64, value: u64, flags: u32,
    ) |c| {
        let _ = flags;
        ready(c, stream)?;
        write(c, addr, value, 8)
    }

    /// Version 1.
    [WORK] fn cuStreamWaitValue32 + cuStreamWaitValue32_ptsz(
        stream: u64, addr: u64, value: u32, flags: u32,
    ) |c| {
        ready(c, stream)?;
        wait(c, addr, value.into(), 4, flags)
    }

    /// 32 bits.
    [WORK] fn cuStreamWaitValue32_v2 + cuStreamWaitValue32_v2_ptsz(
        stream: u64, addr: u64, value: u32, flags: u32,
    ) |c| {
        ready(c, stream)?;
        wait(c, addr, value.into(), 4, flags)
    }

    /// Version 1.
    [WORK] fn cuStreamWaitValue64 + cuStreamWaitValue64_ptsz(
        stream: u64, addr: u64, value: u64, flags: u32,
    ) |c| {
        ready(c, stream)?;
        wait(c, addr, value, 8, flags)
    }

    /// 64 bits.
    [WORK] fn cuStreamWaitValue64_v2 + cuStreamWaitValue64_v2_ptsz(
        stream: u64, addr: u64, value: u64, flags: u32,
    ) |c| {
        ready(c, stream)?;
        wait(c, addr, value, 8, flags)
    }

    /// Version 1.
    [WORK] fn cuStreamBatchMemOp + cuStreamBatchMemOp_ptsz(
        stream: u64, count: u32, params: Items<Params>, flags: u32,
    ) |c| {
        let _ = flags;
        batch(c, stream, count, params)
    }

    /// Several at once.
    [WORK] fn cuStreamBatchMemOp_v2 + cuStreamBatchMemOp_v2_ptsz(
        stream: u64, count: u32, params: Items<Params>, flags: u32,
    ) |c| {
        let _ = flags;
        batch(c, stream, count, params)
    }
}
