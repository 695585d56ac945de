//! External memory: Vulkan's, a file descriptor's, another process's.

use super::Handle;
use crate::hook::driver_hooks;
use crate::memory::allocation::{free, out};
use crate::memory::imports;
use vramtrace_format::record::{Kind, Space};

/// Size in a CUDA_EXTERNAL_MEMORY_HANDLE_DESC: type (padded to 8 bytes), a union of 16 bytes,
/// then the size.
fn described_size(descriptor: *const u64) -> u64 {
    if descriptor.is_null() {
        return 0;
    }
    // SAFETY: the program's descriptor of a call that is about to read it itself.
    unsafe { descriptor.add(3).read_unaligned() }
}

/// Size in a CUDA_EXTERNAL_MEMORY_BUFFER_DESC: offset, size.
fn buffer_size(descriptor: *const u64) -> u64 {
    if descriptor.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe { descriptor.add(1).read_unaligned() }
}

driver_hooks! { HOOKS:
    fn cuImportExternalMemory(memory: *mut usize, descriptor: *const u64)
        // SAFETY: the program's out-parameter; read only after success.
        = |call, real| imports::made(call, Space::Import, || unsafe { out(memory) }.map(|m| m as u64), described_size(descriptor), 0, real);
    fn cuDestroyExternalMemory(memory: Handle)
        = |call, real| free(call, Kind::Import.lane(), Space::Import, memory as u64, 0, real);
    // Ends by cuMemFree, so its key is an address like any other.
    fn cuExternalMemoryGetMappedBuffer(address: *mut u64, memory: Handle, descriptor: *const u64)
        // SAFETY: as above.
        = |call, real| imports::made(call, Space::Device, || unsafe { out(address) }, buffer_size(descriptor), memory as u64, real);
    // Ends by cuMipmappedArrayDestroy.
    fn cuExternalMemoryGetMappedMipmappedArray(array: *mut usize, memory: Handle, descriptor: Handle)
        // SAFETY: as above.
        = |call, real| imports::made(call, Space::Mipmap, || unsafe { out(array) }.map(|a| a as u64), 0, memory as u64, real);
}
