//! Memory pools.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::out;
use crate::memory::{SUCCESS, pools};

/// The device of a CUmemPoolProps: its location's id, where that is a device (type 1).
fn device_of(properties: *const u32) -> Option<u8> {
    if properties.is_null() {
        return None;
    }
    // SAFETY: the program's parameter of a call that succeeded: allocation type, handle types,
    // location type, location id, in 32 bits each.
    let (kind, id) = unsafe {
        (
            properties.add(2).read_unaligned(),
            properties.add(3).read_unaligned(),
        )
    };
    (kind == 1).then_some(id as u8)
}

fn created(result: u32, pool: *const usize, properties: *const u32) -> u32 {
    if result != SUCCESS {
        return result;
    }
    // SAFETY: the program's out-parameter of a call that succeeded.
    let handle = unsafe { out(pool) };
    pools::created(
        result,
        handle,
        device_of(properties).unwrap_or(vramtrace_format::record::NO_DEVICE),
        false,
    )
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
        = |_call, real| real();
    fn cuMemPoolExportPointer(data: Handle, address: u64)
        = |_call, real| real();
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
        = |_call, real| real();
    fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: i32)
        = |_call, real| real();
    fn cuMemGetMemPool(pool: *mut usize, location: Handle, kind: u32)
        = |_call, real| real();
    fn cuMemGetDefaultMemPool(pool: *mut usize, location: Handle, kind: u32)
        = |_call, real| real();
}
