//! What NVTX calls when it has loaded us: filling in its tables.

use super::callbacks;
use std::ffi::{c_int, c_void};

/// nvtxGetExportTable of one copy of the header.
type GetExportTable = unsafe extern "C" fn(u32) -> *const c_void;

/// NvtxExportTableCallbacks.
#[repr(C)]
struct Callbacks {
    struct_size: usize,
    /// Gives a table of `size` pointers to pointers to functions.
    get_module_function_table:
        Option<unsafe extern "C" fn(u32, *mut *mut *mut *const c_void, *mut u32) -> c_int>,
}

/// NVTX_ETID_CALLBACKS.
const CALLBACKS: u32 = 1;
/// NVTX_CB_MODULE_CORE.
const CORE: u32 = 1;
/// NVTX_CB_MODULE_CORE2.
const CORE2: u32 = 5;

/// What NVTX's header looks for in the library that `NVTX_INJECTION64_PATH` names, and calls once for
/// each copy of itself in the process. Always says that all went well: after a 0 the header would
/// unload us.
///
/// # Safety
/// `get` must be null or NVTX's function for export tables.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtx2(get: Option<GetExportTable>) -> c_int {
    if !super::place::is_wanted() {
        return 1;
    }
    // SAFETY: the caller's contract: a function of this type, whose answer for this number is null or
    // a table of this kind, valid for as long as that copy of the header is loaded.
    let table = get.and_then(|get| unsafe { get(CALLBACKS).cast::<Callbacks>().as_ref() });
    if let Some(table) = table.filter(|table| table.struct_size >= size_of::<Callbacks>()) {
        fill(table, CORE, &callbacks::core());
        fill(table, CORE2, &callbacks::core2());
    }
    1
}

/// Puts functions of ours into one module's table. What is not put there the header makes a function
/// that does nothing.
fn fill(table: &Callbacks, module: u32, functions: &[(usize, *const c_void)]) {
    let Some(get) = table.get_module_function_table else {
        return;
    };
    let (mut slots, mut size) = (std::ptr::null_mut::<*mut *const c_void>(), 0u32);
    // SAFETY: NVTX's own function, with two valid places for its answer.
    let known = unsafe { get(module, &mut slots, &mut size) } != 0;
    if !known || slots.is_null() {
        return;
    }
    for &(number, function) in functions {
        if number >= size as usize {
            continue;
        }
        // SAFETY: within the table's size; each of its entries is null or points to a function
        // pointer of the header's, which it lets its tool write now.
        unsafe {
            let slot = *slots.add(number);
            if !slot.is_null() {
                slot.write(function);
            }
        }
    }
}

/// nvtxExtModuleInfo_t, as far as it is read (nvtxDetail/nvtxExtTypes.h).
#[repr(C)]
pub struct Extension {
    version: u16,
    struct_size: u16,
    module: u16,
    compatible: u16,
    segments: usize,
    first: *const Segment,
}

/// nvtxExtModuleSegment_t.
#[repr(C)]
struct Segment {
    id: usize,
    slots: usize,
    functions: *mut *const c_void,
}

/// NVTX_EXT_PAYLOAD_MODULEID.
const PAYLOAD: u16 = 2;

/// What NVTX's extensions look for in the same library, each when it is first used. Of them all we
/// take part in payloads, whose functions push and pop ranges, too; what is not filled in does
/// nothing. Always says that all went well: without that they would say that loading us failed.
///
/// # Safety
/// `extension` must be null or an extension's description of itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtxExtension(extension: *const Extension) -> c_int {
    if !super::place::is_wanted() {
        return 1;
    }
    // SAFETY: the caller's contract.
    let payload = unsafe { extension.as_ref() }.filter(|of| {
        of.module == PAYLOAD
            && usize::from(of.struct_size) >= size_of::<Extension>()
            && of.segments > 0
    });
    // SAFETY: there is a first one, which is valid during this call.
    let Some(segment) = payload.and_then(|of| unsafe { of.first.as_ref() }) else {
        return 1;
    };
    if !segment.functions.is_null() {
        for (number, function) in callbacks::payload() {
            if number < segment.slots {
                // SAFETY: within the table, which is the extension's to be written now.
                unsafe { segment.functions.add(number).write(function) };
            }
        }
    }
    1
}
