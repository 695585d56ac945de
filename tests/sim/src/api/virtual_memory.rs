//! Virtual memory management and multicast objects.

use crate::abi::error::{INVALID_DEVICE, INVALID_VALUE, R};
use crate::abi::memory::{AccessDesc, AllocationProp, Location, MulticastProp};
use crate::ffi::{In, Items, Out};
use crate::gate::{Call, INIT, driver};
use crate::model::virtual_memory::{Binding, GRANULARITY, HANDLE_FD, Multicast, Physical};
use std::ffi::c_void;

fn multicast(c: &mut Call, handle: u64) -> R<(&mut Multicast, u64)> {
    let p = c
        .virtual_memory
        .physical
        .get_mut(handle)
        .ok_or(INVALID_VALUE)?;
    let size = p.size;
    Ok((p.multicast.as_mut().ok_or(INVALID_VALUE)?, size))
}

fn bind(c: &mut Call, handle: u64, at: u64, memory: u64, memory_at: u64, size: u64) -> R {
    let (m, total) = multicast(c, handle)?;
    let complete = m.devices.len() == m.wanted as usize;
    if !complete || size == 0 || at.checked_add(size).is_none_or(|end| end > total) {
        return Err(INVALID_VALUE);
    }
    let p = c
        .virtual_memory
        .physical
        .get_mut(memory)
        .ok_or(INVALID_VALUE)?;
    if p.multicast.is_some() || memory_at.checked_add(size).is_none_or(|end| end > p.size) {
        return Err(INVALID_VALUE);
    }
    p.maps += 1;
    let device = p.prop.location.id;
    multicast(c, handle)?.0.bindings.push(Binding {
        device,
        at,
        size,
        memory,
        memory_at,
    });
    Ok(())
}

driver! {
    /// Addresses without memory. The hint is taken when it is free.
    [INIT] fn cuMemAddressReserve(
        out: Out<u64>, size: usize, alignment: usize, addr: u64, flags: u64,
    ) |c| {
        out.check()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let addr = c.virtual_memory.reserve(size as u64, alignment as u64, addr)?;
        out.set(addr)
    }

    /// Exactly a reservation, with nothing mapped in it.
    [INIT] fn cuMemAddressFree(addr: u64, size: usize) |c| {
        c.virtual_memory.unreserve(addr, size as u64)
    }

    /// Physical memory without an address.
    [INIT] fn cuMemCreate(
        out: Out<u64>, size: usize, prop: In<AllocationProp>, flags: u64,
    ) |c| {
        out.check()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let handle = c.create_physical(size as u64, prop.get()?)?;
        out.set(handle)
    }

    /// One handle less; mapped memory stays until it is unmapped.
    [INIT] fn cuMemRelease(handle: u64) |c| { c.release_physical(handle) }

    /// Gives physical memory an address.
    [INIT] fn cuMemMap(addr: u64, size: usize, offset: usize, handle: u64, flags: u64) |c| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        c.virtual_memory.map(addr, size as u64, offset as u64, handle)
    }

    /// Whole mappings only, one or several.
    [INIT] fn cuMemUnmap(addr: u64, size: usize) |c| {
        for physical in c.virtual_memory.unmap(addr, size as u64)? {
            c.unmap_physical(physical);
        }
        Ok(())
    }

    /// Which devices may use a mapped range.
    [INIT] fn cuMemSetAccess(
        addr: u64, size: usize, descs: Items<AccessDesc>, count: usize,
    ) |c| {
        let descs = descs.read(count)?;
        if descs.is_empty() {
            return Err(INVALID_VALUE);
        }
        let devices = c.devices.len();
        c.virtual_memory.set_access(addr, size as u64, &descs, devices)
    }

    /// Access of one location.
    [INIT] fn cuMemGetAccess(out: Out<u64>, location: In<Location>, addr: u64) |c| {
        let location = location.get()?;
        let who = if location.kind == 1 { location.id } else { -1 };
        out.set(c.virtual_memory.access(addr, who)?.into())
    }

    /// 2 MiB.
    [INIT] fn cuMemGetAllocationGranularity(
        out: Out<usize>, prop: In<AllocationProp>, option: u32,
    ) |c| {
        let prop = prop.get()?;
        if prop.kind != 1 || option > 1 {
            return Err(INVALID_VALUE);
        }
        if prop.location.kind == 1 {
            c.device(prop.location.id)?;
        }
        out.set(GRANULARITY as usize)
    }

    /// What it was made with.
    [INIT] fn cuMemGetAllocationPropertiesFromHandle(out: Out<AllocationProp>, handle: u64) |c| {
        out.set(c.virtual_memory.physical.get(handle).ok_or(INVALID_VALUE)?.prop)
    }

    /// The handle behind a mapped address, counted once more.
    [INIT] fn cuMemRetainAllocationHandle(out: Out<u64>, addr: u64) |c| {
        out.check()?;
        let (_, _, handle) = c.virtual_memory.mapping(addr).ok_or(INVALID_VALUE)?;
        c.virtual_memory.physical.get_mut(handle).ok_or(INVALID_VALUE)?.refs += 1;
        out.set(handle)
    }

    /// A file descriptor for the caller to own.
    [INIT] fn cuMemExportToShareableHandle(
        out: Out<c_void>, handle: u64, kind: u32, flags: u64,
    ) |c| {
        out.check()?;
        if kind != HANDLE_FD || flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.cast::<i32>().set(c.export_physical(handle)?)
    }

    /// The handle is the descriptor itself, passed as a pointer; it stays the caller's.
    [INIT] fn cuMemImportFromShareableHandle(out: Out<u64>, handle: u64, kind: u32) |c| {
        out.check()?;
        if kind != HANDLE_FD {
            return Err(INVALID_VALUE);
        }
        let imported = c.import_physical(handle as i32)?;
        out.set(imported)
    }

    /// An object that stands for the same offsets of several devices' memories.
    [INIT] fn cuMulticastCreate(out: Out<u64>, prop: In<MulticastProp>) |c| {
        out.check()?;
        let prop = prop.get()?;
        if prop.size == 0 || prop.size % GRANULARITY != 0 || prop.flags != 0 || prop.devices == 0 {
            return Err(INVALID_VALUE);
        }
        if prop.devices as usize > c.devices.len() {
            return Err(INVALID_DEVICE);
        }
        let handle = c.virtual_memory.physical.insert(Physical {
            size: prop.size,
            prop: AllocationProp {
                kind: 1,
                handle_types: prop.handle_types as u32,
                location: Location::default(),
                win32_meta: 0,
                compression: 0,
                gpu_direct: 0,
                usage: 0,
                reserved: [0; 4],
            },
            refs: 1,
            maps: 0,
            data: None,
            fd: None,
            imported: false,
            multicast: Some(Multicast {
                wanted: prop.devices,
                devices: Vec::new(),
                bindings: Vec::new(),
            }),
        });
        out.set(handle)
    }

    /// All devices must be added before memory is bound.
    [INIT] fn cuMulticastAddDevice(handle: u64, dev: i32) |c| {
        c.device(dev)?;
        let (m, _) = multicast(c, handle)?;
        if m.devices.contains(&dev) || m.devices.len() == m.wanted as usize {
            return Err(INVALID_VALUE);
        }
        m.devices.push(dev);
        Ok(())
    }

    /// Binds physical memory by its handle.
    [INIT] fn cuMulticastBindMem(
        handle: u64, at: usize, memory: u64, memory_at: usize, size: usize, flags: u64,
    ) |c| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        bind(c, handle, at as u64, memory, memory_at as u64, size as u64)
    }

    /// Binds physical memory by an address that it is mapped at.
    [INIT] fn cuMulticastBindAddr(
        handle: u64, at: usize, addr: u64, size: usize, flags: u64,
    ) |c| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let (start, _, memory) = c.virtual_memory.mapping(addr).ok_or(INVALID_VALUE)?;
        bind(c, handle, at as u64, memory, addr - start, size as u64)
    }

    /// Takes one device's binding back.
    [INIT] fn cuMulticastUnbind(handle: u64, dev: i32, at: usize, size: usize) |c| {
        c.device(dev)?;
        let (m, _) = multicast(c, handle)?;
        let found = m
            .bindings
            .iter()
            .position(|b| b.device == dev && b.at == at as u64 && b.size == size as u64)
            .ok_or(INVALID_VALUE)?;
        let binding = m.bindings.remove(found);
        c.unmap_physical(binding.memory);
        Ok(())
    }

    /// 2 MiB.
    [INIT] fn cuMulticastGetGranularity(out: Out<usize>, prop: In<MulticastProp>, option: u32) |_c| {
        let prop = prop.get()?;
        if option > 1 || prop.devices == 0 {
            return Err(INVALID_VALUE);
        }
        out.set(GRANULARITY as usize)
    }
}
