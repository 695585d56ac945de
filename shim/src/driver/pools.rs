//! Memory pools.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::{out, out_of};
use crate::memory::exports::{Export, exported};
use crate::memory::{SUCCESS, context, pools};
use vramtrace_format::record::NO_DEVICE;

/// CU_MEM_ALLOCATION_TYPE_MANAGED (cuda.h 13.0).
const MANAGED: u32 = 2;

/// The device of a pool with these CUmemPoolProps: allocation type, handle types, and a location,
/// in 32 bits each. A pool of managed memory need not be anywhere: the current device is charged.
fn device_of(properties: *const u32) -> u8 {
    // SAFETY: the program's parameter of a call that succeeded, so it is valid.
    let kind = unsafe { out(properties) };
    let location = properties.wrapping_add(2);
    match (kind.and_then(|_| device_at(location)), kind) {
        (Some(NO_DEVICE), Some(MANAGED)) => context::current().1,
        (device, _) => device.unwrap_or(NO_DEVICE),
    }
}

fn created(result: u32, pool: *const usize, properties: *const u32) -> u32 {
    if result != SUCCESS {
        return result;
    }
    // SAFETY: the program's out-parameter of a call that succeeded.
    let handle = unsafe { out(pool) };
    pools::created(result, handle, device_of(properties), false)
}

/// The device of a CUmemLocation: its id, where that is a device (type 1); host memory otherwise.
fn device_at(location: *const u32) -> Option<u8> {
    if location.is_null() {
        return None;
    }
    // SAFETY: the program's parameter, a type and an id in 32 bits each, of a call that reads it.
    let (kind, id) = unsafe { (location.read_unaligned(), location.add(1).read_unaligned()) };
    Some(if kind == 1 { id as u8 } else { NO_DEVICE })
}

/// The program learned a pool's handle: its device is known from here on.
fn told_pool(result: u32, pool: *const usize, device: Option<u8>) -> u32 {
    // SAFETY: the program's own out-parameter of the call that came to this result.
    pools::met(unsafe { out_of(result, pool) }, device);
    result
}

driver_hooks! { HOOKS:
    fn cuMemPoolCreate(pool: *mut usize, properties: *const u32)
        = |_call, real| created(real(), pool, properties);
    fn cuMemPoolDestroy(pool: Handle)
        = |_call, real| pools::destroy(pool as usize, real);
    fn cuMemPoolTrimTo(pool: Handle, keep: usize)
        = |_call, real| pools::trim(pool as usize, real);
    fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: Handle)
        = |_call, real| real();
    fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: *mut u64)
        = |_call, real| pools::told(pool as usize, attribute, value, real());
    fn cuMemPoolExportToShareableHandle(handle: Handle, pool: Handle, kind: u32, flags: u64)
        = |call, real| exported(call, Export::Pool(pool as usize), real);
    fn cuMemPoolExportPointer(data: Handle, address: u64)
        = |call, real| exported(call, Export::Block(address), real);
    fn cuMemPoolImportFromShareableHandle(pool: *mut usize, handle: Handle, kind: u32, flags: u64)
        = |_call, real| {
            let result = real();
            // SAFETY: the program's out-parameter, read only after success.
            let made = if result == SUCCESS { unsafe { out(pool) } } else { None };
            pools::created(result, made, 0, true)
        };
    fn cuMemPoolImportPointer(address: *mut u64, pool: Handle, data: Handle)
        = |call, real| pools::import_pointer(call, address, pool as usize, real);
    fn cuDeviceSetMemPool(device: i32, pool: Handle)
        = |_call, real| pools::set_current(real(), device as u8, pool as usize);
    // Any location's pool: whichever device it was, the current pools are asked for again.
    fn cuMemSetMemPool(location: Handle, kind: u32, pool: Handle)
        = |_call, real| pools::current_unknown(real());
    fn cuDeviceGetMemPool(pool: *mut usize, device: i32)
        = |_call, real| told_pool(real(), pool, u8::try_from(device).ok());
    fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: i32)
        = |_call, real| told_pool(real(), pool, u8::try_from(device).ok());
    fn cuMemGetMemPool(pool: *mut usize, location: *const u32, kind: u32)
        = |_call, real| told_pool(real(), pool, device_at(location));
    fn cuMemGetDefaultMemPool(pool: *mut usize, location: *const u32, kind: u32)
        = |_call, real| told_pool(real(), pool, device_at(location));
}
