//! Memory of another API, imported by a file descriptor.

use super::State;
use super::live::Kind;
use super::mapping::{Mapping, duplicate_raw, file_len};
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R, UNKNOWN};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// The page size of the host.
const PAGE: u64 = 4096;

/// Imported external memory.
pub struct External {
    /// The bytes; mipmapped arrays over them keep them too.
    pub memory: Arc<Mapping>,
    /// Mapped buffers by device address.
    buffers: BTreeMap<u64, Mapping>,
}

impl State {
    /// A mapped buffer was freed.
    pub fn unmap_external(&mut self, handle: u64, base: u64) {
        if let Some(external) = self.sharing.external.get_mut(handle) {
            external.buffers.remove(&base);
        }
    }

    /// cuImportExternalMemory of a descriptor; on success it is the driver's.
    pub fn import_external(&mut self, fd: RawFd, size: u64) -> R<u64> {
        let copy = duplicate_raw(fd).map_err(|_| UNKNOWN)?;
        if size == 0 {
            return Err(INVALID_VALUE);
        }
        if file_len(&copy).map_err(|_| UNKNOWN)? < size {
            return Err(UNKNOWN);
        }
        let memory = Arc::new(Mapping::shared(copy.as_raw_fd(), 0, size)?);
        // SAFETY: cuda.h: after a successful import the descriptor belongs to the driver.
        unsafe { libc::close(fd) };
        Ok(self.sharing.external.insert(External {
            memory,
            buffers: BTreeMap::new(),
        }))
    }

    /// cuExternalMemoryGetMappedBuffer.
    pub fn external_buffer(&mut self, ctx: u64, handle: u64, offset: u64, size: u64) -> R<u64> {
        let device = self.device_of(ctx)?;
        let external = self
            .sharing
            .external
            .get_mut(handle)
            .ok_or(INVALID_HANDLE)?;
        if size == 0
            || offset
                .checked_add(size)
                .is_none_or(|end| end > external.memory.len())
        {
            return Err(INVALID_VALUE);
        }
        let reserved = Mapping::reserve(size.next_multiple_of(PAGE), 0)?;
        let (base, data) = (reserved.addr(), external.memory.addr() + offset);
        external.buffers.insert(base, reserved);
        self.add(base, size, size, Kind::External(handle), device, ctx, data);
        Ok(base)
    }

    /// cuDestroyExternalMemory; its buffers end with it.
    pub fn destroy_external(&mut self, handle: u64) -> R {
        self.sharing.external.get(handle).ok_or(INVALID_HANDLE)?;
        for base in self.live.select(|a| a.kind == Kind::External(handle)) {
            self.end(base);
        }
        self.sharing.external.remove(handle);
        Ok(())
    }
}
