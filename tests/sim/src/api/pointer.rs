//! Unified addressing: what an address is.

use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, R};
use crate::ffi::{Items, Out};
use crate::gate::{Call, INIT, driver};
use crate::model::arena::PAGE;
use crate::model::live::{Alloc, Kind};
use crate::model::pool::CHUNK;
use std::ffi::c_void;

/// What is known about an address.
struct Facts {
    alloc: Alloc,
    /// CU_MEMORYTYPE: 1 host, 2 device.
    kind: u32,
    /// The mapping around a virtual address, else the allocation.
    mapping: (u64, u64),
    handle_types: u32,
    /// CUmemAccess_flags of its device.
    access: u32,
}

fn facts(c: &mut Call, addr: u64) -> Option<Facts> {
    if let Some(&alloc) = c.live.find(addr) {
        let handle_types = match alloc.kind {
            Kind::Pool(p) => c.pools.get(p).map_or(0, |p| p.handle_types),
            _ => 0,
        };
        return Some(Facts {
            alloc,
            kind: 2,
            mapping: mapping(c, &alloc, addr),
            handle_types,
            access: 3,
        });
    }
    if let Some(&alloc) = c.host.find(addr) {
        return Some(Facts {
            alloc,
            kind: 1,
            mapping: mapping(c, &alloc, addr),
            handle_types: 0,
            access: 3,
        });
    }
    let (start, len, physical) = c.virtual_memory.mapping(addr)?;
    let range = c
        .virtual_memory
        .reserved_range(addr)
        .unwrap_or((start, len));
    let p = c.virtual_memory.physical.get(physical)?;
    let (on_device, device) = (p.prop.location.kind == 1, p.prop.location.id.max(0) as u32);
    let alloc = Alloc {
        base: range.0,
        size: range.1,
        taken: len,
        kind: Kind::Linear,
        device,
        ctx: 0,
        // Virtual mappings have no allocation of ours: number them by where they are.
        id: start,
        data: start,
        dirty: false,
        exported: 0,
    };
    let kind = if on_device { 2 } else { 1 };
    Some(Facts {
        alloc,
        kind,
        mapping: (start, len),
        handle_types: p.prop.handle_types,
        access: c.virtual_memory.access(addr, device as i32).unwrap_or(0),
    })
}

/// What is mapped as one piece around an address of an allocation: pages, which small allocations
/// share, or the pieces that pools grow by.
fn mapping(c: &Call, a: &Alloc, addr: u64) -> (u64, u64) {
    match a.kind {
        Kind::Pool(pool) => c.pools.get(pool).and_then(|p| p.piece(addr)),
        Kind::Graph(_) => Some((a.base + (addr - a.base) / CHUNK * CHUNK, CHUNK)),
        Kind::Linear | Kind::Managed | Kind::Host(_) | Kind::Global => {
            Some((a.base / PAGE * PAGE, a.taken.next_multiple_of(PAGE)))
        }
        _ => None,
    }
    .unwrap_or((a.base, a.size))
}

fn attribute(c: &mut Call, out: Out<c_void>, id: u32, addr: u64) -> R {
    let f = facts(c, addr);
    let Some(f) = f else { return nothing(out, id) };
    let a = f.alloc;
    let host_usable = f.kind == 1 || a.kind == Kind::Managed;
    match id {
        1 => out.cast::<u64>().set(match a.kind {
            // These outlive contexts.
            Kind::Pool(_) | Kind::PoolImport(_) | Kind::Graph(_) => 0,
            _ => a.ctx,
        }),
        2 => out.cast::<u32>().set(f.kind),
        3 => out.cast::<u64>().set(addr),
        4 if host_usable => out.cast::<u64>().set(addr),
        4 => Err(INVALID_VALUE),
        5 => out.cast::<[u64; 2]>().set([a.id, 0]),
        6 => out.cast::<u32>().set(u32::from(a.kind == Kind::Managed)),
        7 => out.cast::<u64>().set(a.id),
        8 => out.cast::<u32>().set(u32::from(a.kind == Kind::Managed)),
        9 => out.cast::<i32>().set(a.device as i32),
        10 => out
            .cast::<u32>()
            .set(u32::from(a.kind == Kind::Linear && a.ctx != 0)),
        11 => out.cast::<u64>().set(a.base),
        12 => out.cast::<u64>().set(a.size),
        13 => out.cast::<u32>().set(1),
        14 => out.cast::<u64>().set(u64::from(f.handle_types)),
        15 => out.cast::<u32>().set(u32::from(f.kind == 2)),
        16 => out.cast::<u32>().set(f.access),
        17 => out.cast::<u64>().set(match a.kind {
            Kind::Pool(pool) | Kind::PoolImport(pool) => pool,
            _ => 0,
        }),
        18 => out.cast::<u64>().set(f.mapping.1),
        19 => out.cast::<u64>().set(f.mapping.0),
        20 => out.cast::<u64>().set(a.id),
        21 => out.cast::<u32>().set(0),
        _ => Err(INVALID_VALUE),
    }
}

/// The answers about an address that is nobody's: some attributes have one.
fn nothing(out: Out<c_void>, id: u32) -> R {
    match id {
        9 => out.cast::<i32>().set(-2).and(Err(INVALID_VALUE)),
        _ => Err(INVALID_VALUE),
    }
}

/// Bytes of an attribute's value.
fn width(id: u32) -> usize {
    match id {
        5 => 16,
        2 | 6 | 8 | 9 | 10 | 13 | 15 | 16 | 21 => 4,
        _ => 8,
    }
}

driver! {
    /// One attribute.
    [INIT] fn cuPointerGetAttribute(out: Out<c_void>, id: u32, addr: u64) |c| {
        out.check()?;
        attribute(c, out, id, addr)
    }

    /// Several; what does not apply is zero instead of an error.
    [INIT] fn cuPointerGetAttributes(
        count: u32, ids: Items<u32>, outs: Items<Out<c_void>>, addr: u64,
    ) |c| {
        let (ids, outs) = (ids.read(count as usize)?, outs.read(count as usize)?);
        for (id, out) in ids.into_iter().zip(outs) {
            if attribute(c, out, id, addr).is_err() {
                let zero: &[u8] = &[0; 16];
                out.cast::<u8>().fill(zero, width(id))?;
                if id == 9 {
                    out.cast::<i32>().set(-2)?;
                }
            }
        }
        Ok(())
    }

    /// Only synchronous memory operations can be asked for, and they are the rule here.
    [INIT] fn cuPointerSetAttribute(value: Out<u32>, id: u32, addr: u64) |c| {
        let _ = value.get()?;
        if id != 6 {
            return Err(NOT_SUPPORTED);
        }
        c.live.find(addr).map(|_| ()).ok_or(INVALID_VALUE)
    }
}
