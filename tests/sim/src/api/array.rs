//! Arrays and mipmapped arrays.

use crate::abi::array::{
    DEFERRED_MAPPING, Descriptor, Descriptor3D, Descriptor3DV1, DescriptorV1, MapInfo,
    MemoryRequirements, SPARSE, SparseProperties,
};
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R};
use crate::ffi::{In, Items, Out, narrow};
use crate::gate::{Call, FREE, MEMORY, UNSAFE, WORK, driver};

/// A tile of a sparse array.
const TILE: u64 = 64 << 10;

fn create(c: &mut Call, out: Out<u64>, desc: Descriptor3D) -> R {
    out.check()?;
    let ctx = c.ctx;
    let array = c.create_array(ctx, desc)?;
    out.set(array)
}

fn desc(c: &mut Call, array: u64) -> R<Descriptor3D> {
    c.arrays.get(array).map(|a| a.desc).ok_or(INVALID_HANDLE)
}

fn sparse(desc: &Descriptor3D) -> R<SparseProperties> {
    if desc.flags & SPARSE == 0 {
        return Err(INVALID_VALUE);
    }
    let element = desc.element_bytes().unwrap_or(1);
    Ok(SparseProperties {
        tile: [256, narrow(TILE / 256 / element)?.max(1), 1],
        miptail_first_level: 0,
        miptail_size: 0,
        flags: 0,
        reserved: [0; 4],
    })
}

/// Size and alignment: answered for arrays whose memory the caller provides.
fn requirements(desc: &Descriptor3D, bytes: u64) -> R<MemoryRequirements> {
    if desc.flags & (SPARSE | DEFERRED_MAPPING) == 0 {
        return Err(INVALID_VALUE);
    }
    Ok(MemoryRequirements {
        size: bytes.next_multiple_of(TILE),
        alignment: TILE,
        reserved: [0; 4],
    })
}

/// One entry of cuMemMapArrayAsync: physical memory becomes held by an array, or is let go.
pub fn map_tile(c: &mut Call, info: &MapInfo) -> R {
    let mapped = match info.resource_type {
        0 => c
            .arrays
            .get(info.resource)
            .map(|a| (a.desc, a.mapped.clone())),
        1 => c
            .mipmaps
            .get(info.resource)
            .map(|m| (m.desc, m.mapped.clone())),
        _ => return Err(INVALID_VALUE),
    };
    let (desc, mut mapped) = mapped.ok_or(INVALID_HANDLE)?;
    if desc.flags & (SPARSE | DEFERRED_MAPPING) == 0 {
        return Err(INVALID_VALUE);
    }
    // The simulated driver takes parts as they were mapped, not pieces of them.
    let tile = (info.subresource_type, info.subresource);
    let old = mapped.iter().position(|(other, _)| *other == tile);
    let released = match info.operation {
        1 => {
            let physical = c
                .virtual_memory
                .physical
                .get_mut(info.handle)
                .filter(|p| p.refs > 0)
                .ok_or(INVALID_VALUE)?;
            physical.maps += 1;
            let released = old.map(|at| mapped.swap_remove(at));
            mapped.push((tile, info.handle));
            released
        }
        2 => Some(mapped.swap_remove(old.ok_or(INVALID_VALUE)?)),
        _ => return Err(INVALID_VALUE),
    };
    if info.resource_type == 0 {
        if let Some(a) = c.arrays.get_mut(info.resource) {
            a.mapped = mapped;
        }
    } else if let Some(m) = c.mipmaps.get_mut(info.resource) {
        m.mapped = mapped;
    }
    if let Some((_, physical)) = released {
        c.unmap_physical(physical);
    }
    Ok(())
}

driver! {
    /// Before 3.2.
    [MEMORY] fn cuArrayCreate(out: Out<u64>, desc: In<DescriptorV1>) |c| {
        create(c, out, Descriptor::from(desc.get()?).into())
    }

    /// One or two dimensions.
    [MEMORY] fn cuArrayCreate_v2(out: Out<u64>, desc: In<Descriptor>) |c| {
        create(c, out, desc.get()?.into())
    }

    /// Before 3.2.
    [MEMORY] fn cuArray3DCreate(out: Out<u64>, desc: In<Descriptor3DV1>) |c| {
        create(c, out, desc.get()?.into())
    }

    /// Up to three dimensions, with flags.
    [MEMORY] fn cuArray3DCreate_v2(out: Out<u64>, desc: In<Descriptor3D>) |c| {
        create(c, out, desc.get()?)
    }

    /// Before 3.2.
    [WORK] fn cuArrayGetDescriptor(out: Out<DescriptorV1>, array: u64) |c| {
        let d = desc(c, array)?;
        out.set(DescriptorV1 {
            width: narrow(d.width)?,
            height: narrow(d.height)?,
            format: d.format,
            channels: d.channels,
        })
    }

    /// Width, height, format.
    [WORK] fn cuArrayGetDescriptor_v2(out: Out<Descriptor>, array: u64) |c| {
        let d = desc(c, array)?;
        out.set(Descriptor {
            width: d.width,
            height: d.height,
            format: d.format,
            channels: d.channels,
        })
    }

    /// Before 3.2.
    [WORK] fn cuArray3DGetDescriptor(out: Out<Descriptor3DV1>, array: u64) |c| {
        let d = desc(c, array)?;
        out.set(Descriptor3DV1 {
            width: narrow(d.width)?,
            height: narrow(d.height)?,
            depth: narrow(d.depth)?,
            format: d.format,
            channels: d.channels,
            flags: d.flags,
        })
    }

    /// Everything.
    [WORK] fn cuArray3DGetDescriptor_v2(out: Out<Descriptor3D>, array: u64) |c| {
        out.set(desc(c, array)?)
    }

    /// Not for levels, which belong to their mipmapped array.
    [FREE] fn cuArrayDestroy(array: u64) |c| {
        c.arrays.get(array).ok_or(INVALID_HANDLE)?;
        c.captures.unsafe_call()?;
        c.destroy_array(array)
    }

    /// Only video formats have planes, and they are not simulated.
    [WORK] fn cuArrayGetPlane(out: Out<u64>, array: u64, plane: u32) |c| {
        out.check()?;
        desc(c, array)?;
        let _ = plane;
        Err(INVALID_VALUE)
    }

    /// Tile shape of a sparse array.
    [WORK] fn cuArrayGetSparseProperties(out: Out<SparseProperties>, array: u64) |c| {
        out.set(sparse(&desc(c, array)?)?)
    }

    /// For deferred and sparse arrays.
    [WORK] fn cuArrayGetMemoryRequirements(
        out: Out<MemoryRequirements>, array: u64, dev: i32,
    ) |c| {
        c.device(dev)?;
        let bytes = c.arrays.get(array).ok_or(INVALID_HANDLE)?.bytes();
        out.set(requirements(&desc(c, array)?, bytes)?)
    }

    /// All levels in one allocation; too many levels are cut.
    [MEMORY] fn cuMipmappedArrayCreate(out: Out<u64>, desc: In<Descriptor3D>, levels: u32) |c| {
        out.check()?;
        let (ctx, desc) = (c.ctx, desc.get()?);
        let mipmap = c.create_mipmap(ctx, desc, levels)?;
        out.set(mipmap)
    }

    /// A view that ends with its mipmapped array.
    [WORK] fn cuMipmappedArrayGetLevel(out: Out<u64>, mipmap: u64, level: u32) |c| {
        out.check()?;
        let array = c.mipmap_level(mipmap, level)?;
        out.set(array)
    }

    /// Also ends one that was mapped from external memory.
    [MEMORY] fn cuMipmappedArrayDestroy(mipmap: u64) |c| {
        c.mipmaps.get(mipmap).ok_or(INVALID_HANDLE)?;
        c.destroy_mipmap(mipmap);
        Ok(())
    }

    /// Tile shape.
    [WORK] fn cuMipmappedArrayGetSparseProperties(out: Out<SparseProperties>, mipmap: u64) |c| {
        let desc = c.mipmaps.get(mipmap).ok_or(INVALID_HANDLE)?.desc;
        out.set(sparse(&desc)?)
    }

    /// For deferred and sparse ones.
    [WORK] fn cuMipmappedArrayGetMemoryRequirements(
        out: Out<MemoryRequirements>, mipmap: u64, dev: i32,
    ) |c| {
        c.device(dev)?;
        let desc = c.mipmaps.get(mipmap).ok_or(INVALID_HANDLE)?.desc;
        let one = desc.width * desc.rows() * desc.slices() * desc.element_bytes().unwrap_or(1);
        // A full chain of levels is a third more than its base.
        out.set(requirements(&desc, one + one / 3)?)
    }

    /// Sparse arrays: maps or unmaps tiles. See `map_tile` for what is kept.
    [WORK | UNSAFE] fn cuMemMapArrayAsync + cuMemMapArrayAsync_ptsz(
        infos: Items<MapInfo>, count: u32, stream: u64,
    ) |c| {
        c.work_stream(stream)?;
        for info in infos.read(count as usize)? {
            map_tile(c, &info)?;
        }
        Ok(())
    }
}
