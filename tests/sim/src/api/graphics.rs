//! Graphics interoperation: the calls exist, but without a graphics driver no resource ever does.

use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE};
use crate::ffi::{Items, Out};
use crate::gate::{WORK, driver};

driver! {
    /// Graphics interoperation needs a graphics driver.
    [WORK] fn cuGraphicsUnregisterResource(resource: u64) |_c| {
        let _ = resource;
        Err(INVALID_HANDLE)
    }

    /// There are no resources to map.
    [WORK] fn cuGraphicsMapResources + cuGraphicsMapResources_ptsz(
        count: u32, resources: Items<u64>, stream: u64,
    ) |c| {
        c.stream(stream)?;
        if resources.read(count as usize)?.is_empty() { Err(INVALID_VALUE) } else { Err(INVALID_HANDLE) }
    }

    /// There are no resources to unmap.
    [WORK] fn cuGraphicsUnmapResources + cuGraphicsUnmapResources_ptsz(
        count: u32, resources: Items<u64>, stream: u64,
    ) |c| {
        c.stream(stream)?;
        if resources.read(count as usize)?.is_empty() { Err(INVALID_VALUE) } else { Err(INVALID_HANDLE) }
    }

    /// There are no resources.
    [WORK] fn cuGraphicsResourceGetMappedPointer(out: Out<u32>, size: Out<u32>, resource: u64) |_c| {
        let _ = (out, size, resource);
        Err(INVALID_HANDLE)
    }

    /// There are no resources.
    [WORK] fn cuGraphicsResourceGetMappedPointer_v2(
        out: Out<u64>, size: Out<usize>, resource: u64,
    ) |_c| {
        let _ = (out, size, resource);
        Err(INVALID_HANDLE)
    }

    /// There are no resources.
    [WORK] fn cuGraphicsSubResourceGetMappedArray(
        out: Out<u64>, resource: u64, index: u32, level: u32,
    ) |_c| {
        let _ = (out, resource, index, level);
        Err(INVALID_HANDLE)
    }

    /// There are no resources.
    [WORK] fn cuGraphicsResourceGetMappedMipmappedArray(out: Out<u64>, resource: u64) |_c| {
        let _ = (out, resource);
        Err(INVALID_HANDLE)
    }

    /// There are no resources.
    [WORK] fn cuGraphicsResourceSetMapFlags(resource: u64, flags: u32) |_c| {
        let _ = (resource, flags);
        Err(INVALID_HANDLE)
    }

    /// There are no resources.
    [WORK] fn cuGraphicsResourceSetMapFlags_v2(resource: u64, flags: u32) |_c| {
        let _ = (resource, flags);
        Err(INVALID_HANDLE)
    }
}
