//! Memory pools.

use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, R};
use crate::abi::memory::{AccessDesc, Location, Opaque64, PoolProps};
use crate::ffi::{In, Items, Out};
use crate::gate::{CONTEXT, Call, INIT, UNSAFE, driver};
use crate::model::pool::Pool;
use std::ffi::c_void;

/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
const HANDLE_FD: u32 = 1;

fn pool(c: &mut Call, handle: u64) -> R<&mut Pool> {
    c.pools
        .get_mut(handle)
        .filter(|p| !p.destroyed)
        .ok_or(INVALID_VALUE)
}

/// The pool that a location uses; host locations have none until one is set.
fn pool_at(c: &mut Call, location: In<Location>, kind: u32, default: bool) -> R<u64> {
    let location = location.get()?;
    if kind != 1 {
        return Err(NOT_SUPPORTED);
    }
    match location.kind {
        1 => {
            let device = c.device(location.id)?;
            Ok(if default {
                device.default_pool
            } else {
                device.pool
            })
        }
        2..=4 => Err(NOT_SUPPORTED),
        _ => Err(INVALID_VALUE),
    }
}

fn set_current(c: &mut Call, device: i32, handle: u64) -> R {
    c.device(device)?;
    if pool(c, handle)?.device() != usize::try_from(device).ok() {
        return Err(INVALID_VALUE);
    }
    c.device(device)?.pool = handle;
    Ok(())
}

driver! {
    /// A pool on a device or on the host.
    [INIT | UNSAFE] fn cuMemPoolCreate(out: Out<u64>, props: In<PoolProps>) |c| {
        out.check()?;
        let props = props.get()?;
        if props.kind != 1 || props.handle_types & !9 != 0 {
            return Err(INVALID_VALUE);
        }
        match props.location.kind {
            1 => { c.device(props.location.id).map_err(|_| INVALID_VALUE)?; }
            2..=4 => {}
            _ => return Err(INVALID_VALUE),
        }
        let handle = c.pools.insert(Pool::new(&props, false));
        out.set(handle)
    }

    /// Deferred while allocations of it are live; a device that used it goes back to its default.
    [INIT | UNSAFE] fn cuMemPoolDestroy(handle: u64) |c| {
        let p = pool(c, handle)?;
        if p.is_default {
            return Err(INVALID_VALUE);
        }
        p.destroyed = true;
        for device in &mut c.devices {
            if device.pool == handle {
                device.pool = device.default_pool;
            }
        }
        c.drop_pool_if_done(handle);
        Ok(())
    }

    /// Releases memory that no live allocation needs, down to a minimum.
    [INIT | UNSAFE] fn cuMemPoolTrimTo(handle: u64, keep: usize) |c| {
        pool(c, handle)?;
        c.trim_pool(handle, keep as u64);
        Ok(())
    }

    /// Policies, threshold, current and highest bytes.
    [INIT | UNSAFE] fn cuMemPoolGetAttribute(handle: u64, attr: u32, value: Out<c_void>) |c| {
        let p = pool(c, handle)?;
        match attr {
            1..=3 => value.cast::<u32>().set(p.reuse[attr as usize - 1]),
            4 => value.cast::<u64>().set(p.threshold),
            5 => value.cast::<u64>().set(p.reserved),
            6 => value.cast::<u64>().set(p.reserved_high),
            7 => value.cast::<u64>().set(p.used),
            8 => value.cast::<u64>().set(p.used_high),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Policies and threshold; a highest value can only be reset to 0, meaning "to the current".
    [INIT | UNSAFE] fn cuMemPoolSetAttribute(handle: u64, attr: u32, value: Out<c_void>) |c| {
        let p = pool(c, handle)?;
        match attr {
            1..=3 => p.reuse[attr as usize - 1] = value.cast::<u32>().get()?,
            4 => p.threshold = value.cast::<u64>().get()?,
            6 | 8 if value.cast::<u64>().get()? != 0 => return Err(INVALID_VALUE),
            6 => p.reserved_high = p.reserved,
            8 => p.used_high = p.used,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }

    /// Lets other devices use the pool's memory.
    [INIT | UNSAFE] fn cuMemPoolSetAccess(handle: u64, descs: Items<AccessDesc>, count: usize) |c| {
        let devices = c.devices.len();
        let p = pool(c, handle)?;
        for desc in descs.read(count)? {
            let known = usize::try_from(desc.location.id).is_ok_and(|d| d < devices);
            if desc.location.kind != 1 || !known {
                return Err(INVALID_VALUE);
            }
            // A device always reaches its own memory.
            if p.location == desc.location && desc.flags != 3 {
                return Err(INVALID_VALUE);
            }
            p.access.insert(desc.location.id, desc.flags);
        }
        Ok(())
    }

    /// Access of one device.
    [INIT | UNSAFE] fn cuMemPoolGetAccess(out: Out<u32>, handle: u64, location: In<Location>) |c| {
        let p = pool(c, handle)?;
        let location = location.get()?;
        let own = if p.location == location { 3 } else { 0 };
        out.set(p.access.get(&location.id).copied().unwrap_or(own))
    }

    /// The pool that the device always has.
    [INIT] fn cuDeviceGetDefaultMemPool(out: Out<u64>, dev: i32) |c| {
        let handle = c.device(dev)?.default_pool;
        out.set(handle)
    }

    /// The pool that cuMemAllocAsync uses.
    [INIT] fn cuDeviceGetMemPool(out: Out<u64>, dev: i32) |c| {
        let handle = c.device(dev)?.pool;
        out.set(handle)
    }

    /// Sets it.
    [INIT | UNSAFE] fn cuDeviceSetMemPool(dev: i32, handle: u64) |c| { set_current(c, dev, handle) }

    /// Since 13.0: by location.
    [INIT] fn cuMemGetDefaultMemPool(out: Out<u64>, location: In<Location>, kind: u32) |c| {
        let handle = pool_at(c, location, kind, true)?;
        out.set(handle)
    }

    /// Since 13.0: by location.
    [INIT] fn cuMemGetMemPool(out: Out<u64>, location: In<Location>, kind: u32) |c| {
        let handle = pool_at(c, location, kind, false)?;
        out.set(handle)
    }

    /// Since 13.0: by location.
    [INIT | UNSAFE] fn cuMemSetMemPool(location: In<Location>, kind: u32, handle: u64) |c| {
        let location = location.get()?;
        if kind != 1 || location.kind != 1 {
            return Err(NOT_SUPPORTED);
        }
        set_current(c, location.id, handle)
    }

    /// A file descriptor that another process can import.
    [INIT | UNSAFE] fn cuMemPoolExportToShareableHandle(
        out: Out<c_void>, handle: u64, kind: u32, flags: u64,
    ) |c| {
        out.check()?;
        if kind != HANDLE_FD || flags != 0 {
            return Err(INVALID_VALUE);
        }
        pool(c, handle)?;
        let fd = c.export_pool(handle)?;
        out.cast::<i32>().set(fd)
    }

    /// The handle is the descriptor itself, passed as a pointer.
    [INIT | UNSAFE] fn cuMemPoolImportFromShareableHandle(
        out: Out<u64>, handle: u64, kind: u32, flags: u64,
    ) |c| {
        out.check()?;
        if kind != HANDLE_FD || flags != 0 {
            return Err(INVALID_VALUE);
        }
        let pool = c.import_pool(handle as i32)?;
        out.set(pool)
    }

    /// What another process needs to find one allocation in an imported pool.
    [CONTEXT | UNSAFE] fn cuMemPoolExportPointer(out: Out<Opaque64>, addr: u64) |c| {
        out.check()?;
        let data = c.export_pointer(addr)?;
        out.set(data)
    }

    /// An address for it here; freed like any other, without freeing the exporter's.
    [CONTEXT | UNSAFE] fn cuMemPoolImportPointer(
        out: Out<u64>, pool: u64, data: In<Opaque64>,
    ) |c| {
        out.check()?;
        let data = data.get()?;
        let ctx = c.ctx;
        let addr = c.import_pointer(ctx, pool, &data)?;
        out.set(addr)
    }
}
