//! The device's own address space: linear memory, pools and graphs take their addresses from here.
//!
//! An arena is two mappings of equal length: device addresses, which fault when the host touches
//! them, and the bytes behind them, a memfd (so that another process can map them: IPC). Pinned and
//! managed memory come from an arena whose device addresses are those of the bytes. An arena is much
//! larger than the device's memory, because what limits an allocation is the device's *charge*, not
//! fragmentation of addresses.

use super::hash::{Map, map};
use super::mapping::{Mapping, memfd};
use super::ranges::Ranges;
use crate::abi::error::{OUT_OF_MEMORY, R};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the device hands out: the page size of a GPU's memory.
pub const PAGE: u64 = 2 << 20;
/// Alignment of small allocations.
pub const GRAIN: u64 = 512;
/// Entries of the export table behind the arena's bytes.
const EXPORTS: u64 = 4096;

/// One address space.
pub struct Arena {
    /// First device address.
    base: u64,
    /// Bytes of device addresses.
    len: u64,
    /// Keeps the device addresses reserved; None where they are the bytes' own.
    _reserved: Option<Mapping>,
    data: Mapping,
    fd: Option<OwnedFd>,
    /// Free 2 MiB pages.
    pages: Ranges,
    /// Free pieces of pages that hold small allocations.
    small: Ranges,
    /// Live small allocations per page; an empty page stays here but costs nothing.
    small_live: Map<u32>,
    next_export: u32,
}

/// What an allocation or a free changed in the device's charge, in bytes.
pub type Delta = u64;

impl Arena {
    /// An arena anywhere in the address space.
    pub fn new(span: u64) -> R<Arena> {
        Self::build(Some(Mapping::reserve(span + PAGE, 0)?), span)
    }

    /// An arena whose addresses the host can use too.
    pub fn host(span: u64) -> R<Arena> {
        Self::build(None, span)
    }

    /// An arena below 4 GiB, for the v1 functions with their 32-bit addresses.
    pub fn low(span: u64) -> R<Arena> {
        let device = (1..15u64)
            .find_map(|i| Mapping::reserve_at(i << 28, span + PAGE).ok())
            .ok_or(OUT_OF_MEMORY)?;
        Self::build(Some(device), span)
    }

    fn build(reserved: Option<Mapping>, span: u64) -> R<Arena> {
        let len = span + PAGE;
        let file_len = len + EXPORTS * 8;
        // A process with a file size limit gets private memory, and no IPC.
        let fd = if reserved.is_some() {
            memfd(file_len).ok()
        } else {
            None
        };
        let data = match &fd {
            Some(fd) => Mapping::shared(fd.as_raw_fd(), 0, file_len)?,
            None => Mapping::private(file_len)?,
        };
        let base = reserved.as_ref().map_or(data.addr(), Mapping::addr);
        let mut pages = Ranges::new(PAGE);
        pages.add(base.next_multiple_of(PAGE), span);
        Ok(Arena {
            base,
            len,
            _reserved: reserved,
            data,
            fd,
            pages,
            small: Ranges::new(GRAIN),
            small_live: map(),
            next_export: 0,
        })
    }

    /// Whether the address is one of this arena's.
    pub fn contains(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.base) < self.len
    }

    /// The bytes behind an address.
    pub fn data(&self, addr: u64) -> u64 {
        self.data.addr() + (addr - self.base)
    }

    /// Where an address lies in the shared file.
    pub fn offset(&self, addr: u64) -> u64 {
        addr - self.base
    }

    /// The shared file, if this process may have one.
    pub fn fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes whole pages; the caller charges them.
    pub fn take_pages(&mut self, len: u64) -> R<u64> {
        self.pages.alloc(len).ok_or(OUT_OF_MEMORY)
    }

    /// Gives whole pages back.
    pub fn give_pages(&mut self, start: u64, len: u64, dirty: bool) {
        if dirty {
            self.data
                .discard(self.offset(start), len, self.fd.is_some());
        }
        self.pages.free(start, len);
    }

    /// What a linear allocation of this size takes.
    pub fn taken(bytes: u64) -> Option<u64> {
        let grain = if bytes >= PAGE { PAGE } else { GRAIN };
        Some(bytes.checked_add(grain - 1)? & !(grain - 1))
    }

    /// Linear memory: address and additional charge. `taken` comes from [`Arena::taken`].
    pub fn alloc(&mut self, taken: u64, room: u64) -> R<(u64, Delta)> {
        if taken >= PAGE {
            if taken > room {
                return Err(OUT_OF_MEMORY);
            }
            return Ok((self.take_pages(taken)?, taken));
        }
        let addr = match self.small.alloc(taken) {
            Some(addr) => addr,
            None => {
                if room < PAGE {
                    return Err(OUT_OF_MEMORY);
                }
                let page = self.take_pages(PAGE)?;
                self.small.add(page, PAGE);
                self.small.alloc(taken).ok_or(OUT_OF_MEMORY)?
            }
        };
        let live = self.small_live.entry(addr / PAGE).or_insert(0);
        let delta = if *live == 0 { PAGE } else { 0 };
        if delta > room {
            self.small.free(addr, taken);
            return Err(OUT_OF_MEMORY);
        }
        *live += 1;
        Ok((addr, delta))
    }

    /// Gives linear memory back; answers what the device is charged less.
    pub fn free(&mut self, addr: u64, taken: u64, dirty: bool) -> Delta {
        if taken >= PAGE {
            self.give_pages(addr, taken, dirty);
            return taken;
        }
        self.small.free(addr, taken);
        match self.small_live.get_mut(&(addr / PAGE)) {
            Some(live) => {
                *live = live.saturating_sub(1);
                if *live == 0 { PAGE } else { 0 }
            }
            None => 0,
        }
    }

    /// Notes in the shared file that an allocation can be opened by IPC; answers its slot.
    pub fn export(&mut self, id: u64) -> u32 {
        let slot = self.next_export % EXPORTS as u32;
        self.next_export += 1;
        self.write_export(slot, id);
        slot
    }

    /// Notes that it cannot any more.
    pub fn unexport(&mut self, slot: u32) {
        self.write_export(slot, 0);
    }

    fn write_export(&mut self, slot: u32, id: u64) {
        let addr = self.data.addr() + self.export_offset(slot);
        // SAFETY: the export table lies at the end of the data mapping, which was made long enough
        // for it; 8-byte aligned, since the mapping is page-aligned and the span a page multiple.
        unsafe { (addr as *mut u64).write_volatile(id) };
    }

    /// Where a slot of the export table lies in the shared file.
    pub fn export_offset(&self, slot: u32) -> u64 {
        self.len + u64::from(slot) * 8
    }
}
