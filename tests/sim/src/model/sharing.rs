//! Memory that crosses processes: IPC handles, shareable handles, imported external memory.
//!
//! Nothing has a name in a file system. A handle names its process and one of its descriptors, which
//! `/proc/<pid>/fd` opens for the same user; a shareable handle is a descriptor itself and carries
//! what the importer must know behind the bytes. So nothing is left behind, however a process ends.

use super::State;
use super::external::External;
use super::live::Kind;
use super::mapping::{Mapping, duplicate, duplicate_raw, file_len, memfd, open_of_process};
use super::pool::{Imported, Pool};
use super::slab::Slab;
use super::virtual_memory::{HANDLE_FD, Physical};
use crate::abi::error::{
    INVALID_CONTEXT, INVALID_VALUE, NOT_SUPPORTED, OPERATING_SYSTEM, R, UNKNOWN,
};
use crate::abi::memory::{AllocationProp, Location, Opaque64, PoolProps};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// Bytes behind a shareable file's memory that describe it.
pub const TRAILER: u64 = 4096;
const PAGE: u64 = 4096;
const MAGIC_PHYSICAL: u64 = 0x7672_616d_5f70_6879;
const MAGIC_POOL: u64 = 0x7672_616d_5f70_6f6f;
const MAGIC_IPC: u64 = 0x7672_616d_5f69_7063;
const MAGIC_POINTER: u64 = 0x7672_616d_5f70_7472;
const MAGIC_EVENT: u64 = 0x7672_616d_5f65_766e;

/// What this process has opened of others.
pub struct Sharing {
    /// IPC memory by device address.
    ipc: BTreeMap<u64, Opened>,
    pub external: Slab<External>,
    /// External semaphores: nothing waits here, so that only identity is left.
    pub semaphores: Slab<()>,
}

struct Opened {
    /// What was opened: context, process, device, offset and the allocation's number.
    key: [u64; 5],
    refs: u32,
    _device: Mapping,
    _data: Mapping,
}

impl Sharing {
    pub const fn new() -> Self {
        Sharing {
            ipc: BTreeMap::new(),
            external: Slab::new(8),
            semaphores: Slab::new(9),
        }
    }

    /// The mapping behind an IPC address goes.
    pub fn close_ipc(&mut self, base: u64) {
        self.ipc.remove(&base);
    }
}

fn pack(words: [u64; 8]) -> Opaque64 {
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Opaque64(bytes)
}

fn unpack(handle: &Opaque64, magic: u64) -> R<[u64; 8]> {
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(handle.0.chunks_exact(8)) {
        *word = chunk.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    }
    if words[0] == magic {
        Ok(words)
    } else {
        Err(INVALID_VALUE)
    }
}

fn write_words(fd: &OwnedFd, at: u64, words: &[u64; 8]) -> R {
    let file = File::from(duplicate(fd)?);
    file.write_all_at(&pack(*words).0, at)
        .map_err(|_| OPERATING_SYSTEM)
}

fn read_words(fd: &OwnedFd, at: u64, magic: u64) -> R<[u64; 8]> {
    let file = File::from(duplicate(fd)?);
    let mut bytes = Opaque64([0; 64]);
    file.read_exact_at(&mut bytes.0, at)
        .map_err(|_| INVALID_VALUE)?;
    unpack(&bytes, magic)
}

/// Describes a physical allocation behind its bytes.
pub fn write_physical(fd: &OwnedFd, size: u64, prop: &AllocationProp) -> R {
    let location = u64::from(prop.location.kind) << 32 | u64::from(prop.location.id as u32);
    let types = u64::from(prop.handle_types);
    write_words(
        fd,
        size,
        &[MAGIC_PHYSICAL, size, location, types, 0, 0, 0, 0],
    )
}

fn location(word: u64) -> Location {
    Location {
        kind: (word >> 32) as u32,
        id: word as u32 as i32,
    }
}

/// A mapping of part of a shared file: device addresses that fault, the bytes, and how far into
/// both the part begins.
fn map_part(fd: &OwnedFd, offset: u64, size: u64) -> R<(Mapping, Mapping, u64)> {
    let start = offset / PAGE * PAGE;
    let skip = offset - start;
    let len = size
        .checked_add(skip)
        .ok_or(INVALID_VALUE)?
        .next_multiple_of(PAGE);
    let data = Mapping::shared(fd.as_raw_fd(), start, len)?;
    Ok((Mapping::reserve(len, 0)?, data, skip))
}

impl State {
    /// cuIpcGetMemHandle.
    pub fn ipc_handle(&mut self, addr: u64) -> R<Opaque64> {
        let alloc = *self.live.find(addr).ok_or(INVALID_VALUE)?;
        if alloc.kind != Kind::Linear {
            return Err(INVALID_VALUE);
        }
        let arena = self.device(alloc.device as i32)?.arena_of(alloc.base);
        let fd = arena.fd().ok_or(NOT_SUPPORTED)?;
        let offset = arena.offset(alloc.base);
        let slot = if alloc.exported == 0 {
            arena.export(alloc.id)
        } else {
            alloc.exported - 1
        };
        let export_at = arena.export_offset(slot);
        if let Some(a) = self.live.get_mut(alloc.base) {
            a.exported = slot + 1;
        }
        Ok(pack([
            MAGIC_IPC,
            u64::from(std::process::id()) << 32 | fd as u64,
            u64::from(alloc.device),
            offset,
            alloc.size,
            alloc.id,
            export_at,
            0,
        ]))
    }

    /// cuIpcOpenMemHandle: the same handle opened again is the same address, counted.
    pub fn open_ipc(&mut self, ctx: u64, handle: &Opaque64) -> R<u64> {
        let w = unpack(handle, MAGIC_IPC)?;
        let (pid, fd) = ((w[1] >> 32) as u32, w[1] as u32);
        if pid == std::process::id() {
            return Err(INVALID_CONTEXT);
        }
        let key = [ctx, w[1], w[2], w[3], w[5]];
        if let Some((&base, opened)) = self.sharing.ipc.iter_mut().find(|(_, o)| o.key == key) {
            opened.refs += 1;
            return Ok(base);
        }
        let fd = open_of_process(pid, fd)?;
        let mut id = [0; 8];
        let file = File::from(duplicate(&fd)?);
        file.read_exact_at(&mut id, w[6])
            .map_err(|_| INVALID_VALUE)?;
        if u64::from_le_bytes(id) != w[5] {
            return Err(INVALID_VALUE);
        }
        let (device, data, skip) = map_part(&fd, w[3], w[4])?;
        let (base, bytes) = (device.addr() + skip, data.addr() + skip);
        let ordinal = self.device_of(ctx)?;
        self.add(base, w[4], w[4], Kind::Ipc, ordinal, ctx, bytes);
        self.sharing.ipc.insert(
            base,
            Opened {
                key,
                refs: 1,
                _device: device,
                _data: data,
            },
        );
        Ok(base)
    }

    /// cuIpcCloseMemHandle.
    pub fn close_ipc(&mut self, base: u64) -> R {
        let opened = self.sharing.ipc.get_mut(&base).ok_or(INVALID_VALUE)?;
        opened.refs -= 1;
        if opened.refs == 0 {
            self.end(base);
        }
        Ok(())
    }

    /// cuIpcGetEventHandle.
    pub fn event_handle(&self, event: u64) -> Opaque64 {
        pack([
            MAGIC_EVENT,
            u64::from(std::process::id()),
            event,
            0,
            0,
            0,
            0,
            0,
        ])
    }

    /// cuIpcOpenEventHandle: valid handles only; the event itself is complete, as all are.
    pub fn check_event_handle(&self, handle: &Opaque64) -> R {
        let w = unpack(handle, MAGIC_EVENT)?;
        if w[1] == u64::from(std::process::id()) {
            Err(INVALID_CONTEXT)
        } else {
            Ok(())
        }
    }

    /// cuMemExportToShareableHandle: a descriptor for the caller to own.
    pub fn export_physical(&self, handle: u64) -> R<RawFd> {
        let physical = self
            .virtual_memory
            .physical
            .get(handle)
            .ok_or(INVALID_VALUE)?;
        let fd = physical.fd.as_ref().ok_or(INVALID_VALUE)?;
        Ok(duplicate(fd)?.into_raw_fd())
    }

    /// cuMemImportFromShareableHandle: a new handle to the same memory, charged to its exporter.
    pub fn import_physical(&mut self, fd: RawFd) -> R<u64> {
        let fd = duplicate_raw(fd).map_err(|_| UNKNOWN)?;
        let len = file_len(&fd).map_err(|_| UNKNOWN)?;
        let size = len.checked_sub(TRAILER).ok_or(UNKNOWN)?;
        let w = read_words(&fd, size, MAGIC_PHYSICAL).map_err(|_| UNKNOWN)?;
        let prop = AllocationProp {
            kind: 1,
            // Whoever imported it does not export it.
            handle_types: 0,
            location: location(w[2]),
            win32_meta: 0,
            compression: 0,
            gpu_direct: 0,
            usage: 0,
            reserved: [0; 4],
        };
        let data = Mapping::shared(fd.as_raw_fd(), 0, size)?;
        Ok(self.virtual_memory.physical.insert(Physical {
            size,
            prop,
            refs: 1,
            maps: 0,
            data: Some(data),
            fd: Some(fd),
            imported: true,
            multicast: None,
        }))
    }

    /// cuMemPoolExportToShareableHandle: a descriptor that describes the pool.
    pub fn export_pool(&mut self, handle: u64) -> R<RawFd> {
        let pool = self.pools.get(handle).ok_or(INVALID_VALUE)?;
        let device = pool.device().ok_or(NOT_SUPPORTED)?;
        if pool.handle_types & HANDLE_FD == 0 || pool.imported.is_some() {
            return Err(INVALID_VALUE);
        }
        let arena = &self.device(device as i32)?.arena;
        let arena_fd = arena.fd().ok_or(NOT_SUPPORTED)?;
        let process = u64::from(std::process::id()) << 32 | arena_fd as u64;
        let fd = memfd(TRAILER)?;
        write_words(
            &fd,
            0,
            &[MAGIC_POOL, process, handle, device as u64, 0, 0, 0, 0],
        )?;
        Ok(fd.into_raw_fd())
    }

    /// cuMemPoolImportFromShareableHandle.
    pub fn import_pool(&mut self, fd: RawFd) -> R<u64> {
        let w = duplicate_raw(fd)
            .and_then(|fd| read_words(&fd, 0, MAGIC_POOL))
            .map_err(|_| UNKNOWN)?;
        let (pid, arena_fd) = ((w[1] >> 32) as u32, w[1] as u32);
        let props = PoolProps {
            kind: 1,
            handle_types: HANDLE_FD,
            location: Location {
                kind: 1,
                id: w[3] as i32,
            },
            win32_security: 0,
            max_size: 0,
            usage: 0,
            reserved: [0; 54],
        };
        self.device(props.location.id)?;
        let mut pool = Pool::new(&props, false);
        let fd = open_of_process(pid, arena_fd)?;
        pool.imported = Some(Imported {
            pid,
            pool: w[2],
            fd,
            mapped: BTreeMap::new(),
        });
        Ok(self.pools.insert(pool))
    }

    /// cuMemPoolExportPointer.
    pub fn export_pointer(&mut self, addr: u64) -> R<Opaque64> {
        let alloc = *self.live.find(addr).ok_or(INVALID_VALUE)?;
        let Kind::Pool(pool) = alloc.kind else {
            return Err(INVALID_VALUE);
        };
        if self
            .pools
            .get(pool)
            .is_none_or(|p| p.handle_types & HANDLE_FD == 0)
        {
            return Err(INVALID_VALUE);
        }
        let offset = self.device(alloc.device as i32)?.arena.offset(alloc.base);
        let pid = u64::from(std::process::id());
        Ok(pack([
            MAGIC_POINTER,
            pid,
            pool,
            offset,
            alloc.size,
            alloc.id,
            0,
            0,
        ]))
    }

    /// cuMemPoolImportPointer: an address here for a block of the other process; not owned.
    pub fn import_pointer(&mut self, ctx: u64, pool: u64, data: &Opaque64) -> R<u64> {
        let w = unpack(data, MAGIC_POINTER)?;
        let p = self.pools.get_mut(pool).ok_or(INVALID_VALUE)?;
        let device = p.device().unwrap_or(0) as u32;
        let imported = p.imported.as_mut().ok_or(INVALID_VALUE)?;
        if (u64::from(imported.pid), imported.pool) != (w[1], w[2]) {
            return Err(INVALID_VALUE);
        }
        let (reserved, bytes, skip) = map_part(&imported.fd, w[3], w[4])?;
        let (base, data) = (reserved.addr() + skip, bytes.addr() + skip);
        imported.mapped.insert(base, (reserved, bytes));
        p.imported_live += 1;
        self.add(base, w[4], w[4], Kind::PoolImport(pool), device, ctx, data);
        Ok(base)
    }
}
