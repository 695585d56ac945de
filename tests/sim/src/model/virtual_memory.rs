//! Virtual memory management: reservations of addresses, physical allocations, and the mappings
//! between them. Physical memory lives until nobody holds its handle *and* nothing maps it.

use super::State;
use super::mapping::{Mapping, memfd};
use super::slab::Slab;
use crate::abi::error::{INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, R};
use crate::abi::memory::{AccessDesc, AllocationProp};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// Allocation granularity, minimum and recommended.
pub const GRANULARITY: u64 = 2 << 20;
/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
pub const HANDLE_FD: u32 = 1;

/// All of it.
pub struct VirtualMemory {
    pub physical: Slab<Physical>,
    reservations: BTreeMap<u64, Mapping>,
    mappings: BTreeMap<u64, Mapped>,
}

/// A physical allocation, or a multicast object.
pub struct Physical {
    pub size: u64,
    pub prop: AllocationProp,
    /// Handles to it.
    pub refs: u32,
    /// Mappings, bindings and sparse arrays that use it.
    pub maps: u32,
    /// The bytes; None for a multicast object.
    pub data: Option<Mapping>,
    /// The shareable file, when a shareable handle was asked for.
    pub fd: Option<OwnedFd>,
    /// Another process's memory: not charged here.
    pub imported: bool,
    pub multicast: Option<Multicast>,
}

/// What makes a physical object a multicast one.
pub struct Multicast {
    pub wanted: u32,
    pub devices: Vec<i32>,
    pub bindings: Vec<Binding>,
}

/// Memory bound into a multicast object.
#[derive(Clone, Copy)]
pub struct Binding {
    pub device: i32,
    pub at: u64,
    pub size: u64,
    pub memory: u64,
    pub memory_at: u64,
}

/// One mapping made by one cuMemMap.
struct Mapped {
    len: u64,
    physical: u64,
    offset: u64,
    /// Access by device ordinal; -1 is the host.
    access: BTreeMap<i32, u32>,
}

impl VirtualMemory {
    pub const fn new() -> Self {
        VirtualMemory {
            physical: Slab::new(7),
            reservations: BTreeMap::new(),
            mappings: BTreeMap::new(),
        }
    }

    fn reservation(&self, addr: u64, len: u64) -> R<&Mapping> {
        let (_, r) = self
            .reservations
            .range(..=addr)
            .next_back()
            .ok_or(INVALID_VALUE)?;
        let end = addr.checked_add(len).ok_or(INVALID_VALUE)?;
        if end <= r.addr() + r.len() {
            Ok(r)
        } else {
            Err(INVALID_VALUE)
        }
    }

    /// Whether the address lies in a reservation.
    pub fn is_reserved(&self, addr: u64) -> bool {
        self.reservation(addr, 1).is_ok()
    }

    /// The reservation around an address: start and length.
    pub fn reserved_range(&self, addr: u64) -> Option<(u64, u64)> {
        self.reservation(addr, 1).ok().map(|r| (r.addr(), r.len()))
    }

    fn mapped(&self, addr: u64) -> Option<(u64, &Mapped)> {
        let (&start, m) = self.mappings.range(..=addr).next_back()?;
        (addr - start < m.len).then_some((start, m))
    }

    /// The mapping around an address: start, length and physical handle.
    pub fn mapping(&self, addr: u64) -> Option<(u64, u64, u64)> {
        self.mapped(addr)
            .map(|(start, m)| (start, m.len, m.physical))
    }

    /// cuMemAddressReserve.
    pub fn reserve(&mut self, size: u64, alignment: u64, hint: u64) -> R<u64> {
        if size == 0
            || !size.is_multiple_of(GRANULARITY)
            || (alignment & (alignment.wrapping_sub(1))) != 0
        {
            return Err(INVALID_VALUE);
        }
        let alignment = alignment.max(GRANULARITY);
        let wanted = if hint != 0 && hint.is_multiple_of(alignment) {
            Mapping::reserve_at(hint, size).ok()
        } else {
            None
        };
        let mapping = match wanted {
            Some(mapping) => mapping,
            None => Mapping::reserve_aligned(size, alignment)?,
        };
        let addr = mapping.addr();
        self.reservations.insert(addr, mapping);
        Ok(addr)
    }

    /// cuMemAddressFree: exactly a reservation, with nothing mapped in it.
    pub fn unreserve(&mut self, addr: u64, size: u64) -> R {
        let exact = self
            .reservations
            .get(&addr)
            .is_some_and(|r| r.len() == size);
        let used = self
            .mappings
            .range(addr..addr.saturating_add(size))
            .next()
            .is_some();
        if !exact || used {
            return Err(INVALID_VALUE);
        }
        self.reservations.remove(&addr);
        Ok(())
    }

    /// cuMemMap.
    pub fn map(&mut self, addr: u64, size: u64, offset: u64, handle: u64) -> R {
        let physical = self
            .physical
            .get_mut(handle)
            .filter(|p| p.refs > 0)
            .ok_or(INVALID_VALUE)?;
        if size == 0 {
            return Err(INVALID_VALUE);
        }
        // Only all of it.
        if offset != 0 || size != physical.size {
            return Err(NOT_SUPPORTED);
        }
        if !addr.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        self.reservation(addr, size)?;
        let before = self.mappings.range(..addr + size).next_back();
        if before.is_some_and(|(&start, m)| start + m.len > addr) {
            return Err(INVALID_VALUE);
        }
        if let Some(physical) = self.physical.get_mut(handle) {
            physical.maps += 1;
        }
        let mapped = Mapped {
            len: size,
            physical: handle,
            offset,
            access: BTreeMap::new(),
        };
        self.mappings.insert(addr, mapped);
        Ok(())
    }

    /// cuMemUnmap: all mappings that a range covers. It must begin in a reservation and not cut a
    /// mapping; otherwise it may have holes, reach beyond the reservation, and cover no mapping at
    /// all. Answers the mappings' physical handles.
    pub fn unmap(&mut self, addr: u64, size: u64) -> R<Vec<u64>> {
        let end = addr
            .checked_add(size)
            .filter(|_| size > 0 && self.is_reserved(addr))
            .ok_or(INVALID_VALUE)?;
        let cut = |at: u64| self.mapped(at).is_some_and(|(start, _)| start != at);
        if cut(addr) || cut(end) {
            return Err(INVALID_VALUE);
        }
        let whole: Vec<u64> = self.mappings.range(addr..end).map(|(&a, _)| a).collect();
        Ok(whole
            .iter()
            .filter_map(|a| self.mappings.remove(a))
            .map(|m| m.physical)
            .collect())
    }

    /// The mappings of a range that begins and ends with a mapping; between them may be holes.
    fn whole_mappings(&self, addr: u64, size: u64) -> R<Vec<u64>> {
        let end = addr.checked_add(size).ok_or(INVALID_VALUE)?;
        let mut found = Vec::new();
        let mut last = 0;
        if self.mappings.contains_key(&addr) {
            for (&start, mapped) in self.mappings.range(addr..end) {
                found.push(start);
                last = start + mapped.len;
            }
        }
        if last == end {
            Ok(found)
        } else {
            Err(INVALID_VALUE)
        }
    }

    /// cuMemSetAccess.
    pub fn set_access(&mut self, addr: u64, size: u64, descs: &[AccessDesc], devices: usize) -> R {
        let whole = self.whole_mappings(addr, size)?;
        for desc in descs {
            let known = match desc.location.kind {
                1 => usize::try_from(desc.location.id).is_ok_and(|d| d < devices),
                2..=4 => true,
                _ => false,
            };
            if !known {
                return Err(INVALID_DEVICE);
            }
            if !matches!(desc.flags, 0 | 1 | 3) {
                return Err(INVALID_VALUE);
            }
        }
        for start in whole {
            let Some(mapped) = self.mappings.get_mut(&start) else {
                continue;
            };
            for desc in descs {
                let who = if desc.location.kind == 1 {
                    desc.location.id
                } else {
                    -1
                };
                mapped.access.insert(who, desc.flags);
            }
        }
        Ok(())
    }

    /// cuMemGetAccess.
    pub fn access(&self, addr: u64, who: i32) -> R<u32> {
        let (_, mapped) = self.mapped(addr).ok_or(INVALID_VALUE)?;
        Ok(mapped.access.get(&who).copied().unwrap_or(0))
    }

    /// Whether a copy may touch a range: all of it mapped and accessible by some device.
    pub fn check_access(&self, addr: u64, len: u64, write: bool) -> R {
        let need = if write { 3 } else { 1 };
        let end = addr.checked_add(len).ok_or(INVALID_VALUE)?;
        let mut at = addr;
        while at < end {
            let (start, mapped) = self.mapped(at).ok_or(INVALID_VALUE)?;
            if !mapped.access.values().any(|&flags| flags & need == need) {
                return Err(INVALID_VALUE);
            }
            at = start + mapped.len;
        }
        Ok(())
    }

    /// The host address behind a mapped address, and how many bytes follow it there.
    pub fn translate(&self, addr: u64) -> R<(u64, u64)> {
        let (start, mapped) = self.mapped(addr).ok_or(INVALID_VALUE)?;
        let (within, left) = (addr - start, mapped.len - (addr - start));
        let at = mapped.offset + within;
        let physical = self.physical.get(mapped.physical).ok_or(INVALID_VALUE)?;
        if let Some(data) = &physical.data {
            return Ok((data.addr() + at, left));
        }
        // A multicast object's writes reach every bound memory; one of them is simulated.
        let multicast = physical.multicast.as_ref().ok_or(INVALID_VALUE)?;
        let binding = multicast
            .bindings
            .iter()
            .find(|b| at >= b.at && at < b.at + b.size)
            .ok_or(INVALID_VALUE)?;
        let memory = self.physical.get(binding.memory).ok_or(INVALID_VALUE)?;
        let data = memory.data.as_ref().ok_or(INVALID_VALUE)?;
        let into = at - binding.at;
        Ok((
            data.addr() + binding.memory_at + into,
            left.min(binding.size - into),
        ))
    }
}

impl State {
    /// cuMemCreate.
    pub fn create_physical(&mut self, size: u64, prop: AllocationProp) -> R<u64> {
        if prop.kind != 1 || size == 0 || !size.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        if prop.handle_types & !HANDLE_FD != 0 {
            return Err(NOT_SUPPORTED);
        }
        match prop.location.kind {
            1 => self.device(prop.location.id)?.charge(size)?,
            2..=4 => {}
            _ => return Err(INVALID_VALUE),
        }
        let made = self.physical_memory(size, &prop);
        if made.is_err() && prop.location.kind == 1 {
            self.device(prop.location.id)?.discharge(size);
        }
        let (data, fd) = made?;
        Ok(self.virtual_memory.physical.insert(Physical {
            size,
            prop,
            refs: 1,
            maps: 0,
            data: Some(data),
            fd,
            imported: false,
            multicast: None,
        }))
    }

    fn physical_memory(&self, size: u64, prop: &AllocationProp) -> R<(Mapping, Option<OwnedFd>)> {
        if prop.handle_types & HANDLE_FD == 0 {
            return Ok((Mapping::private(size)?, None));
        }
        let fd = memfd(size + super::sharing::TRAILER)?;
        super::sharing::write_physical(&fd, size, prop)?;
        Ok((Mapping::shared(fd.as_raw_fd(), 0, size)?, Some(fd)))
    }

    /// cuMemRelease.
    pub fn release_physical(&mut self, handle: u64) -> R {
        let physical = self
            .virtual_memory
            .physical
            .get_mut(handle)
            .ok_or(INVALID_VALUE)?;
        if physical.refs == 0 {
            return Err(INVALID_VALUE);
        }
        physical.refs -= 1;
        self.drop_physical_if_done(handle);
        Ok(())
    }

    /// One user of the memory is gone.
    pub fn unmap_physical(&mut self, handle: u64) {
        if let Some(physical) = self.virtual_memory.physical.get_mut(handle) {
            physical.maps = physical.maps.saturating_sub(1);
        }
        self.drop_physical_if_done(handle);
    }

    fn drop_physical_if_done(&mut self, handle: u64) {
        let Some(p) = self.virtual_memory.physical.get(handle) else {
            return;
        };
        if p.refs > 0 || p.maps > 0 {
            return;
        }
        let Some(p) = self.virtual_memory.physical.remove(handle) else {
            return;
        };
        if !p.imported
            && p.multicast.is_none()
            && p.prop.location.kind == 1
            && let Ok(device) = self.device(p.prop.location.id)
        {
            device.discharge(p.size);
        }
        for binding in p.multicast.into_iter().flat_map(|m| m.bindings) {
            self.unmap_physical(binding.memory);
        }
    }
}
