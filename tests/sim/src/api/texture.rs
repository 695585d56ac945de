//! Texture and surface objects: identity only, since no kernel reads through them. And the profiler
//! switch, which has nothing to switch.

use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE};
use crate::ffi::{In, Out};
use crate::gate::{ANY, WORK, driver};

/// The head of `CUDA_RESOURCE_DESC`: type (array, mipmapped array, linear, pitched), padding, handle
/// or address.
type Resource = [u64; 2];

driver! {
    /// Over an array or linear memory that exists.
    [WORK] fn cuTexObjectCreate(out: Out<u64>, resource: In<Resource>, texture: u64, view: u64) |c| {
        out.check()?;
        let _ = (texture, view);
        let [kind, target] = resource.get()?;
        let known = match kind as u32 {
            0 => c.arrays.get(target).is_some(),
            1 => c.mipmaps.get(target).is_some(),
            2 | 3 => c.live.find(target).is_some() || c.virtual_memory.mapping(target).is_some(),
            _ => false,
        };
        if !known {
            return Err(INVALID_VALUE);
        }
        let object = c.textures.insert(());
        out.set(object)
    }

    /// Ends it; the resource stays.
    [WORK] fn cuTexObjectDestroy(object: u64) |c| {
        c.textures.remove(object).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Over an array.
    [WORK] fn cuSurfObjectCreate(out: Out<u64>, resource: In<Resource>) |c| {
        out.check()?;
        let [kind, target] = resource.get()?;
        if kind as u32 != 0 || c.arrays.get(target).is_none() {
            return Err(INVALID_VALUE);
        }
        let object = c.textures.insert(());
        out.set(object)
    }

    /// Ends it.
    [WORK] fn cuSurfObjectDestroy(object: u64) |c| {
        c.textures.remove(object).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Deprecated: profiling is not configured through the driver any more.
    [ANY] fn cuProfilerInitialize(config: u64, output: u64, mode: u32) |_c| {
        let _ = (config, output, mode);
        Err(crate::abi::error::NOT_SUPPORTED)
    }

    /// Nothing listens.
    [WORK] fn cuProfilerStart() |_c| { Ok(()) }

    /// Nothing listens.
    [WORK] fn cuProfilerStop() |_c| { Ok(()) }
}
