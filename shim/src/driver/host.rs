//! Page-locked host memory.

use super::Handle;
use crate::hook::{Call, driver_hooks};
use crate::memory::Again;
use crate::memory::allocation::{New, allocate, free, out};
use vramtrace_format::record::{Kind, Space};

fn pinned(call: &Call, address: *const usize, bytes: u64, flags: u32, real: impl Again) -> u32 {
    allocate(call, Kind::Pinned, bytes, real, || {
        // SAFETY: the program's out-parameter; called only after success.
        let key = unsafe { out(address) }? as u64;
        Some(New {
            kind: Kind::Pinned,
            space: Space::Host,
            key,
            size: bytes,
            aux: flags.into(),
        })
    })
}

fn registered(call: &Call, address: Handle, bytes: u64, flags: u32, real: impl Again) -> u32 {
    allocate(call, Kind::Registered, bytes, real, || {
        Some(New {
            kind: Kind::Registered,
            space: Space::Host,
            key: address as u64,
            size: bytes,
            aux: flags.into(),
        })
    })
}

driver_hooks! { HOOKS:
    fn cuMemAllocHost(address: *mut usize, bytes: u32)
        = |call, real| pinned(call, address, bytes.into(), 0, real);
    fn cuMemAllocHost_v2(address: *mut usize, bytes: usize)
        = |call, real| pinned(call, address, bytes as u64, 0, real);
    fn cuMemHostAlloc(address: *mut usize, bytes: usize, flags: u32)
        = |call, real| pinned(call, address, bytes as u64, flags, real);
    fn cuMemFreeHost(address: Handle)
        = |call, real| free(call, Kind::Pinned.lane(), Space::Host, address as u64, 0, real);
    fn cuMemHostRegister(address: Handle, bytes: usize, flags: u32)
        = |call, real| registered(call, address, bytes as u64, flags, real);
    fn cuMemHostRegister_v2(address: Handle, bytes: usize, flags: u32)
        = |call, real| registered(call, address, bytes as u64, flags, real);
    fn cuMemHostUnregister(address: Handle)
        = |call, real| free(call, Kind::Registered.lane(), Space::Host, address as u64, 0, real);
}
