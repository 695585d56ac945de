//! A stream-ordered memory pool: chunks reserved from its device, blocks handed out of them.
//!
//! A free is logical: the block goes back to the pool, the chunk stays reserved. Chunks without live
//! blocks are released when the pool is trimmed: by cuMemPoolTrimTo, or at the next synchronisation
//! down to the release threshold. What was freed counts as used there until the host has waited for
//! the very stream that it was freed on, or for the context (cuda.h on cuMemPoolTrimTo: it "can count
//! as outstanding"; which calls count was found out on an H100, CUDA 13.0).

use super::arena::{Arena, GRAIN, PAGE};
use super::mapping::Mapping;
use super::ranges::Ranges;
use crate::abi::error::{OUT_OF_MEMORY, R};
use crate::abi::memory::{Location, PoolProps};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// What a pool reserves at least.
pub const CHUNK: u64 = 32 << 20;

/// One pool.
pub struct Pool {
    pub location: Location,
    pub handle_types: u32,
    /// Upper bound on `reserved`, 0 for none.
    pub max_size: u64,
    /// Bytes that a synchronisation leaves reserved.
    pub threshold: u64,
    /// The three reuse policies, attributes 1 to 3.
    pub reuse: [u32; 3],
    /// Bytes taken from the device.
    pub reserved: u64,
    pub reserved_high: u64,
    /// Bytes asked for by live blocks.
    pub used: u64,
    pub used_high: u64,
    /// Access granted to other devices.
    pub access: BTreeMap<i32, u32>,
    /// The default pool cannot be destroyed.
    pub is_default: bool,
    /// cuMemPoolDestroy was called; the pool goes when its last block does.
    pub destroyed: bool,
    /// Another process's pool: only imported pointers live in it.
    pub imported: Option<Imported>,
    /// Imported pointers that are still live.
    pub imported_live: u64,
    chunks: BTreeMap<u64, Chunk>,
    heap: Ranges,
    /// Live blocks, and the bytes that they take.
    live: u64,
    taken: u64,
}

/// The memory of another process's pool.
pub struct Imported {
    /// The exporting process.
    pub pid: u32,
    /// Its pool's number there.
    pub pool: u64,
    /// Its arena's file.
    pub fd: OwnedFd,
    /// The parts of it that are mapped here, by device address.
    pub mapped: BTreeMap<u64, (Mapping, Mapping)>,
}

struct Chunk {
    len: u64,
    live: u32,
    /// Streams that blocks of it were freed on, and that nobody has waited for since.
    unseen: BTreeSet<u64>,
    dirty: bool,
}

impl Pool {
    /// A pool with nothing reserved.
    pub fn new(props: &PoolProps, is_default: bool) -> Pool {
        Pool {
            location: props.location,
            handle_types: props.handle_types,
            max_size: props.max_size,
            threshold: 0,
            reuse: [1; 3],
            reserved: 0,
            reserved_high: 0,
            used: 0,
            used_high: 0,
            access: BTreeMap::new(),
            is_default,
            destroyed: false,
            imported: None,
            imported_live: 0,
            chunks: BTreeMap::new(),
            heap: Ranges::new(GRAIN),
            live: 0,
            taken: 0,
        }
    }

    /// The device whose memory the pool hands out, None for a pool of host memory.
    pub fn device(&self) -> Option<usize> {
        (self.location.kind == 1).then(|| usize::try_from(self.location.id).ok())?
    }

    /// Whether nothing allocated from it is live.
    pub fn is_idle(&self) -> bool {
        self.live == 0 && self.imported_live == 0
    }

    /// A block: its address, what it takes, and the bytes newly reserved.
    pub fn alloc(&mut self, bytes: u64, arena: &mut Arena, room: u64) -> R<(u64, u64, u64)> {
        let taken = self.heap.round(bytes).ok_or(OUT_OF_MEMORY)?;
        let mut reserved = 0;
        let addr = match self.heap.alloc(taken) {
            Some(addr) => addr,
            None => {
                reserved = self.grow(taken, arena, room)?;
                self.heap.alloc(taken).ok_or(OUT_OF_MEMORY)?
            }
        };
        if let Some((_, chunk)) = self.chunks.range_mut(..=addr).next_back() {
            chunk.live += 1;
        }
        self.live += 1;
        self.taken += taken;
        self.used += bytes;
        self.used_high = self.used_high.max(self.used);
        Ok((addr, taken, reserved))
    }

    fn grow(&mut self, taken: u64, arena: &mut Arena, room: u64) -> R<u64> {
        let limit = match self.max_size {
            0 => room,
            max => room.min(max.saturating_sub(self.reserved)),
        };
        let fits = |unit: u64| {
            taken
                .checked_next_multiple_of(unit)
                .filter(|&len| len <= limit)
        };
        let len = fits(CHUNK).or_else(|| fits(PAGE)).ok_or(OUT_OF_MEMORY)?;
        let start = arena.take_pages(len)?;
        self.chunks.insert(
            start,
            Chunk {
                len,
                live: 0,
                unseen: BTreeSet::new(),
                dirty: false,
            },
        );
        self.heap.add(start, len);
        self.reserved += len;
        self.reserved_high = self.reserved_high.max(self.reserved);
        Ok(len)
    }

    /// Takes a block back.
    pub fn free(&mut self, addr: u64, bytes: u64, taken: u64, dirty: bool) {
        self.heap.free(addr, taken);
        if let Some((_, chunk)) = self.chunks.range_mut(..=addr).next_back() {
            chunk.live = chunk.live.saturating_sub(1);
            chunk.dirty |= dirty;
        }
        self.live = self.live.saturating_sub(1);
        self.taken = self.taken.saturating_sub(taken);
        self.used = self.used.saturating_sub(bytes);
    }

    /// The block that was at an address was freed on a stream, and nobody has waited for it.
    pub fn freed_on(&mut self, addr: u64, stream: u64) {
        if let Some((_, chunk)) = self.chunks.range_mut(..=addr).next_back() {
            chunk.unseen.insert(stream);
        }
    }

    /// The piece of the reserve that an address lies in: memory is mapped in pieces of 32 MiB.
    pub fn piece(&self, addr: u64) -> Option<(u64, u64)> {
        let (&start, chunk) = self.chunks.range(..=addr).next_back()?;
        let at = start + (addr - start) / CHUNK * CHUNK;
        Some((at, CHUNK.min(start + chunk.len - at)))
    }

    /// The host has seen that all frees of a stream are done, or of all streams.
    pub fn see_frees(&mut self, stream: Option<u64>) {
        for chunk in self.chunks.values_mut() {
            match stream {
                Some(stream) => drop(chunk.unseen.remove(&stream)),
                None => chunk.unseen.clear(),
            }
        }
    }

    /// Whether a synchronisation has something to release.
    pub fn wants_trim(&self) -> bool {
        self.reserved > self.threshold && self.reserved > self.taken
    }

    /// Releases chunks without live blocks until at most `keep` bytes are reserved; answers the
    /// bytes released.
    pub fn trim(&mut self, keep: u64, arena: &mut Arena) -> u64 {
        let mut released = 0;
        let idle: Vec<u64> = self
            .chunks
            .iter()
            .filter(|(_, c)| c.live == 0 && c.unseen.is_empty())
            .map(|(&s, _)| s)
            .collect();
        for start in idle {
            let Some(chunk) = self.chunks.get(&start) else {
                continue;
            };
            let (len, dirty) = (chunk.len, chunk.dirty);
            if self.reserved <= keep || self.reserved - len < keep {
                continue;
            }
            if self.heap.remove(start, len) {
                self.chunks.remove(&start);
                arena.give_pages(start, len, dirty);
                self.reserved -= len;
                released += len;
            }
        }
        released
    }
}
