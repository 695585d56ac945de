//! Host memory: pinned by the driver, or the caller's own registered.

use crate::abi::error::{
    HOST_MEMORY_ALREADY_REGISTERED, HOST_MEMORY_NOT_REGISTERED, INVALID_VALUE, R,
};
use crate::ffi::{Out, narrow};
use crate::gate::{Call, FREE, MEMORY, UNSAFE, WORK, driver};
use crate::model::live::{Alloc, Kind};

/// Portable, device map, write combined.
const ALLOC_FLAGS: u32 = 7;
/// Portable, device map, IO memory, read only.
const REGISTER_FLAGS: u32 = 15;
const DEVICE_MAP: u32 = 2;

fn alloc(c: &mut Call, out: Out<u64>, bytes: u64, flags: u32) -> R {
    out.check()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    if bytes == 0 {
        return out.set(0);
    }
    let ctx = c.ctx;
    let addr = c.alloc_host(ctx, bytes, flags)?;
    out.set(addr)
}

fn register(c: &mut Call, p: u64, bytes: u64, flags: u32) -> R {
    if p == 0 || bytes == 0 || flags & !REGISTER_FLAGS != 0 || p.checked_add(bytes).is_none() {
        return Err(INVALID_VALUE);
    }
    let overlaps = c.host.find(p).is_some() || c.host.find(p + bytes - 1).is_some();
    if overlaps {
        return Err(HOST_MEMORY_ALREADY_REGISTERED);
    }
    let ctx = c.owner(c.ctx);
    let device = c.device_of(ctx)?;
    c.host.insert(Alloc {
        base: p,
        size: bytes,
        taken: 0,
        kind: Kind::Registered(flags),
        device,
        ctx,
        id: 0,
        data: p,
        dirty: true,
        exported: 0,
    });
    Ok(())
}

fn device_pointer(c: &mut Call, p: u64, flags: u32) -> R<u64> {
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    if let Some(a) = c.host.find(p) {
        return Ok(a.data + (p - a.base));
    }
    match c.live.find(p) {
        Some(a) if a.kind == Kind::Managed => Ok(p),
        _ => Err(INVALID_VALUE),
    }
}

driver! {
    /// Size in 32 bits.
    [MEMORY] fn cuMemAllocHost(out: Out<u64>, bytes: u32) |c| {
        alloc(c, out, bytes.into(), DEVICE_MAP)
    }

    /// Pinned memory, mapped under unified addressing.
    [MEMORY] fn cuMemAllocHost_v2(out: Out<u64>, bytes: usize) |c| {
        alloc(c, out, bytes as u64, DEVICE_MAP)
    }

    /// Pinned memory with flags.
    [MEMORY] fn cuMemHostAlloc(out: Out<u64>, bytes: usize, flags: u32) |c| {
        alloc(c, out, bytes as u64, flags)
    }

    /// What cuMemHostAlloc or cuMemAllocHost gave; NULL is legal. Needs no context.
    [FREE | UNSAFE] fn cuMemFreeHost(p: u64) |c| {
        if p == 0 { Ok(()) } else { c.free_host(p) }
    }

    /// Before 6.5.
    [MEMORY] fn cuMemHostRegister(p: u64, bytes: usize, flags: u32) |c| {
        register(c, p, bytes as u64, flags)
    }

    /// Pins the caller's memory.
    [MEMORY] fn cuMemHostRegister_v2(p: u64, bytes: usize, flags: u32) |c| {
        register(c, p, bytes as u64, flags)
    }

    /// Exactly the address that was registered.
    [FREE | UNSAFE] fn cuMemHostUnregister(p: u64) |c| {
        match c.host.find(p).map(|a| (a.base, a.kind)) {
            Some((base, Kind::Registered(_))) if base == p => {
                c.end_host(p);
                Ok(())
            }
            Some(_) => Err(INVALID_VALUE),
            None => Err(HOST_MEMORY_NOT_REGISTERED),
        }
    }

    /// 32-bit addresses.
    [WORK] fn cuMemHostGetDevicePointer(out: Out<u32>, p: u64, flags: u32) |c| {
        out.set(narrow(device_pointer(c, p, flags)?)?)
    }

    /// The device address of pinned memory: the same, under unified addressing.
    [WORK] fn cuMemHostGetDevicePointer_v2(out: Out<u64>, p: u64, flags: u32) |c| {
        out.set(device_pointer(c, p, flags)?)
    }

    /// Flags that pinned memory was made with.
    [WORK] fn cuMemHostGetFlags(out: Out<u32>, p: u64) |c| {
        match c.host.find(p).map(|a| a.kind) {
            Some(Kind::Host(flags)) => out.set(flags | DEVICE_MAP),
            Some(Kind::Registered(flags)) => out.set(flags | DEVICE_MAP),
            _ => Err(INVALID_VALUE),
        }
    }
}
