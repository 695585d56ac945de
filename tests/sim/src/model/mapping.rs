//! The host memory behind the simulation: reservations, and shared memory behind file descriptors.
//!
//! Owns every `mmap`, and so the argument why addresses of the backing are valid: a [`Mapping`] is
//! dropped only together with the object that hands out its addresses.

use crate::abi::error::{Error, INVALID_VALUE, OPERATING_SYSTEM, OUT_OF_MEMORY, R};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One mapping of this process, unmapped when dropped.
pub struct Mapping {
    addr: u64,
    len: u64,
}

impl Mapping {
    /// Address space that faults on every access: what device addresses are made of.
    pub fn reserve(len: u64, hint: u64) -> R<Mapping> {
        Self::map(
            hint,
            len,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    }

    /// Address space exactly at `addr`, or an error when something is there.
    pub fn reserve_at(addr: u64, len: u64) -> R<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let mapping = Self::map(addr, len, libc::PROT_NONE, flags, -1, 0)?;
        // Kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint.
        if mapping.addr == addr {
            Ok(mapping)
        } else {
            Err(OUT_OF_MEMORY)
        }
    }

    /// Address space as [`Mapping::reserve`], at a multiple of `alignment` (a power of two of at least
    /// a page, as is `len`). Never gives up more than what is too much: what it let go of and asked
    /// for again, another thread might have mapped in between.
    pub fn reserve_aligned(len: u64, alignment: u64) -> R<Mapping> {
        let room = Self::reserve(len.checked_add(alignment).ok_or(OUT_OF_MEMORY)?, 0)?;
        let addr = room.addr.next_multiple_of(alignment);
        let end = addr + len;
        let before = Mapping {
            addr: room.addr,
            len: addr - room.addr,
        };
        let after = Mapping {
            addr: end,
            len: room.addr + room.len - end,
        };
        // All of it belongs to the three parts now, of which two are dropped.
        std::mem::forget(room);
        drop((before, after));
        Ok(Mapping { addr, len })
    }

    /// Private memory of this process, zeroed, without pages until touched.
    pub fn private(len: u64) -> R<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Self::map(0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    }

    /// A shared file's bytes. `offset` is a multiple of the page size.
    pub fn shared(fd: RawFd, offset: u64, len: u64) -> R<Mapping> {
        Self::map(
            0,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            offset,
        )
    }

    fn map(addr: u64, len: u64, prot: i32, flags: i32, fd: RawFd, offset: u64) -> R<Mapping> {
        let size = usize::try_from(len).map_err(|_| OUT_OF_MEMORY)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| INVALID_VALUE)?;
        let flags = flags | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED (only with NOREPLACE, which fails instead) mmap never touches
        // an existing mapping; all other argument errors are reported by MAP_FAILED.
        let got = unsafe { libc::mmap(addr as *mut _, size, prot, flags, fd, offset) };
        if got == libc::MAP_FAILED {
            return Err(OUT_OF_MEMORY);
        }
        Ok(Mapping {
            addr: got as u64,
            len,
        })
    }

    /// First address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Gives the pages of a part back to the system; its content becomes zero.
    pub fn discard(&self, offset: u64, len: u64, shared: bool) {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return;
        }
        let advice = if shared {
            libc::MADV_REMOVE
        } else {
            libc::MADV_DONTNEED
        };
        // SAFETY: the range lies inside this mapping, which belongs to us alone. A refusal only
        // means that the pages stay.
        unsafe { libc::madvise((self.addr + offset) as *mut _, len as usize, advice) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us and is not used after its owner is gone. An empty one is
        // refused by the system, without effect.
        unsafe { libc::munmap(self.addr as *mut _, self.len as usize) };
    }
}

/// A shared memory file without a name: no litter, gone with its last descriptor.
pub fn memfd(len: u64) -> R<OwnedFd> {
    let limit = file_size_limit();
    if limit.is_some_and(|limit| len > limit) {
        // ftruncate beyond RLIMIT_FSIZE kills the process with SIGXFSZ.
        return Err(OUT_OF_MEMORY);
    }
    // SAFETY: the name is a NUL-terminated constant.
    let fd = unsafe { libc::memfd_create(c"vramtrace-sim".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(OPERATING_SYSTEM);
    }
    // SAFETY: a descriptor that we just made and that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let file = File::from(fd);
    file.set_len(len).map_err(|_| OUT_OF_MEMORY)?;
    Ok(file.into())
}

fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: an out-parameter of the right type.
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    (rc == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Opens a descriptor of another process of the same user.
pub fn open_of_process(pid: u32, fd: u32) -> R<OwnedFd> {
    let path = format!("/proc/{pid}/fd/{fd}");
    // INVALID_VALUE: the handle is stale, because its process or its descriptor is gone.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    file.map(OwnedFd::from).map_err(|_| INVALID_VALUE)
}

/// A second descriptor of a file, for the caller to own.
pub fn duplicate(fd: &OwnedFd) -> R<OwnedFd> {
    fd.try_clone().map_err(|_| OPERATING_SYSTEM)
}

/// A copy of a descriptor that belongs to the caller.
pub fn duplicate_raw(fd: RawFd) -> R<OwnedFd> {
    // SAFETY: fcntl on any number is harmless; a bad one is EBADF.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(INVALID_VALUE);
    }
    // SAFETY: a descriptor that we just made.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The length of the file behind a descriptor.
pub fn file_len(fd: &OwnedFd) -> R<u64> {
    // SAFETY: fstat writes one stat into the zeroed buffer.
    let (rc, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd.as_raw_fd(), &mut stat), stat)
    };
    if rc != 0 {
        Err(Error(1))
    } else {
        u64::try_from(stat.st_size).map_err(|_| INVALID_VALUE)
    }
}

/// Copies bytes between two host addresses.
///
/// # Safety
/// Both ranges must be mapped, `src` readable and `dst` writable. They may overlap.
pub unsafe fn copy_bytes(dst: u64, src: u64, len: u64) {
    // SAFETY: handed to the caller.
    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, len as usize) };
}
