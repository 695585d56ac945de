//! Linear memory: the plain allocations.

use crate::hook::{Call, driver_hooks};
use crate::memory::Again;
use crate::memory::allocation::{New, allocate, free, out};
use vramtrace_format::record::{Kind, Space};

fn linear(call: &Call, kind: Kind, address: *const u64, bytes: u64, real: impl Again) -> u32 {
    allocate(call, kind, bytes, real, || {
        // SAFETY: the program's out-parameter; called only after success.
        let key = unsafe { out(address) }?;
        Some(New {
            kind,
            space: Space::Device,
            key,
            size: bytes,
            aux: 0,
        })
    })
}

/// Bytes are the pitch that the driver chose times the rows.
fn pitched(
    call: &Call,
    address: *const u64,
    pitch: *const usize,
    width: u64,
    height: u64,
    real: impl Again,
) -> u32 {
    allocate(
        call,
        Kind::Device,
        width.saturating_mul(height),
        real,
        || {
            // SAFETY: the program's out-parameters; called only after success.
            let (key, pitch) = unsafe {
                (
                    out(address)?,
                    out(pitch).map_or(width, |pitch| pitch as u64),
                )
            };
            Some(New {
                kind: Kind::Device,
                space: Space::Device,
                key,
                size: pitch.saturating_mul(height),
                aux: 0,
            })
        },
    )
}

driver_hooks! { HOOKS:
    fn cuMemAlloc(address: *mut u32, bytes: u32)
        = |call, real| allocate(call, Kind::Device, bytes.into(), real, || {
            // SAFETY: the program's out-parameter; called only after success.
            let key = unsafe { out(address) }?;
            Some(New { kind: Kind::Device, space: Space::Device, key: key.into(), size: bytes.into(), aux: 0 })
        });
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize)
        = |call, real| linear(call, Kind::Device, address, bytes as u64, real);
    fn cuMemAllocPitch(address: *mut u32, pitch: *mut u32, width: u32, height: u32, element: u32)
        = |call, real| allocate(call, Kind::Device, u64::from(width) * u64::from(height), real, || {
            // SAFETY: the program's out-parameters; called only after success.
            let (key, pitch) = unsafe { (out(address)?, out(pitch).unwrap_or(width)) };
            let size = u64::from(pitch) * u64::from(height);
            Some(New { kind: Kind::Device, space: Space::Device, key: key.into(), size, aux: 0 })
        });
    fn cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, element: u32)
        = |call, real| pitched(call, address, pitch, width as u64, height as u64, real);
    fn cuMemAllocManaged(address: *mut u64, bytes: usize, flags: u32)
        = |call, real| linear(call, Kind::Managed, address, bytes as u64, real);
    fn cuMemFree(address: u32)
        = |call, real| free(call, Kind::Device.lane(), Space::Device, address.into(), 0, real);
    fn cuMemFree_v2(address: u64)
        = |call, real| free(call, Kind::Device.lane(), Space::Device, address, 0, real);
}
