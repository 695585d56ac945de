//! Memory management: linear and managed memory, and what is known about an address.

use crate::abi::error::{INVALID_VALUE, NOT_FOUND, R};
use crate::ffi::{Out, narrow};
use crate::gate::{CONTEXT, Call, FREE, INIT, MEMORY, UNSAFE, WORK, driver};

/// CU_MEM_ATTACH_GLOBAL and CU_MEM_ATTACH_HOST.
const ATTACH: [u32; 2] = [1, 2];

fn pitch(c: &mut Call, width: u64, height: u64, element: u32, low: bool) -> R<(u64, u64)> {
    if width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
        return Err(INVALID_VALUE);
    }
    let (pitch, bytes) = Call::pitched(width, height)?;
    let ctx = c.ctx;
    Ok((c.alloc_linear(ctx, bytes, low)?, pitch))
}

fn info(c: &mut Call) -> R<(u64, u64)> {
    let ordinal = c.device_of(c.ctx)?;
    let device = c.device(ordinal as i32)?;
    Ok((device.room(), device.total))
}

/// The allocation around an address: start and bytes.
fn range(c: &mut Call, addr: u64) -> R<(u64, u64)> {
    if let Some(a) = c.live.find(addr) {
        return Ok((a.base, a.size));
    }
    if let Some((start, len, _)) = c.virtual_memory.mapping(addr) {
        return Ok((start, len));
    }
    let host = c.host.find(addr).ok_or(NOT_FOUND)?;
    Ok((host.base, host.size))
}

fn free(c: &mut Call, addr: u64) -> R {
    if addr == 0 { Ok(()) } else { c.free(addr) }
}

driver! {
    /// Free and total bytes in 32 bits; what does not fit is cut to the largest value.
    [WORK] fn cuMemGetInfo(free: Out<u32>, total: Out<u32>) |c| {
        let (f, t) = info(c)?;
        free.set(narrow(f).unwrap_or(u32::MAX))?;
        total.set(narrow(t).unwrap_or(u32::MAX))
    }

    /// Free and total bytes of the current device.
    [WORK] fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |c| {
        let (f, t) = info(c)?;
        free.set_if(f as usize);
        total.set_if(t as usize);
        Ok(())
    }

    /// 32-bit addresses.
    [MEMORY] fn cuMemAlloc(out: Out<u32>, bytes: u32) |c| {
        out.check()?;
        let ctx = c.ctx;
        let addr = c.alloc_linear(ctx, bytes.into(), true)?;
        out.set(narrow(addr)?)
    }

    /// Linear memory.
    [MEMORY] fn cuMemAlloc_v2(out: Out<u64>, bytes: usize) |c| {
        out.check()?;
        let ctx = c.ctx;
        let addr = c.alloc_linear(ctx, bytes as u64, false)?;
        out.set(addr)
    }

    /// 32-bit addresses.
    [MEMORY] fn cuMemAllocPitch(
        out: Out<u32>, pitch_out: Out<u32>, width: u32, height: u32, element: u32,
    ) |c| {
        out.check()?;
        pitch_out.check()?;
        let (addr, p) = pitch(c, width.into(), height.into(), element, true)?;
        pitch_out.set(narrow(p)?)?;
        out.set(narrow(addr)?)
    }

    /// Rows padded to 512 bytes.
    [MEMORY] fn cuMemAllocPitch_v2(
        out: Out<u64>, pitch_out: Out<usize>, width: usize, height: usize, element: u32,
    ) |c| {
        out.check()?;
        pitch_out.check()?;
        let (addr, p) = pitch(c, width as u64, height as u64, element, false)?;
        pitch_out.set(p as usize)?;
        out.set(addr)
    }

    /// 32-bit addresses.
    [FREE | UNSAFE] fn cuMemFree(addr: u32) |c| { free(c, addr.into()) }

    /// Takes linear, managed, pool, graph, imported and external memory; 0 is legal. Needs no context.
    [FREE | UNSAFE] fn cuMemFree_v2(addr: u64) |c| { free(c, addr) }

    /// 32-bit addresses.
    [WORK] fn cuMemGetAddressRange(base: Out<u32>, size: Out<u32>, addr: u32) |c| {
        let (start, len) = range(c, addr.into())?;
        base.set_if(narrow(start)?);
        size.set_if(narrow(len)?);
        Ok(())
    }

    /// Start and bytes of the allocation around an address; either output may be NULL, and with
    /// both NULL nothing is asked and nothing checked.
    [INIT] fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<usize>, addr: u64) |c| {
        if base.is_null() && size.is_null() {
            return Ok(());
        }
        c.check_context(WORK)?;
        let (start, len) = range(c, addr)?;
        base.set_if(start);
        size.set_if(len as usize);
        Ok(())
    }

    /// Memory that host and device address alike.
    [MEMORY] fn cuMemAllocManaged(out: Out<u64>, bytes: usize, flags: u32) |c| {
        out.check()?;
        if !ATTACH.contains(&flags) {
            return Err(INVALID_VALUE);
        }
        let ctx = c.ctx;
        let addr = c.alloc_managed(ctx, bytes as u64)?;
        out.set(addr)
    }

    /// Which stream may use managed memory; nothing runs concurrently here.
    [WORK] fn cuStreamAttachMemAsync + cuStreamAttachMemAsync_ptsz(
        stream: u64, addr: u64, len: usize, flags: u32,
    ) |c| {
        c.stream(stream)?;
        let _ = (len, flags);
        c.live.find(addr).map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// No dma-buf exists for simulated memory.
    [CONTEXT] fn cuMemGetHandleForAddressRange(
        out: Out<std::ffi::c_void>, addr: u64, size: usize, kind: u32, flags: u64,
    ) |_c| {
        let _ = (out, addr, size, kind, flags);
        Err(crate::abi::error::NOT_SUPPORTED)
    }
}
