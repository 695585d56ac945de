//! One GPU: its memory, and what is charged to it.

use super::arena::Arena;
use super::pool::CHUNK;
use crate::abi::error::{Error, OUT_OF_MEMORY, R};
use std::collections::BTreeMap;

/// A simulated GPU.
pub struct Device {
    /// Bytes of memory.
    pub total: u64,
    /// Bytes in use: contexts, pages of linear memory, pool reserves, virtual memory.
    pub used: u64,
    pub arena: Arena,
    /// For the v1 functions, made when one of them allocates.
    pub low: Option<Arena>,
    /// The pool that always exists.
    pub default_pool: u64,
    /// What cuMemAllocAsync takes from.
    pub pool: u64,
    pub primary: Primary,
    pub graph: GraphMemory,
    /// The error that everything on it answers since a kernel failed; 0 while healthy. No context
    /// of the process recovers, and none can be made.
    pub failed: u32,
    /// The context that the kernel was in.
    pub failed_ctx: u64,
}

/// The device's primary context.
#[derive(Default)]
pub struct Primary {
    /// Handle; 0 until it is retained for the first time. It stays the same afterwards.
    pub ctx: u64,
    pub retained: u32,
    pub flags: u32,
}

/// The device's graph memory pool, in bytes (cuDeviceGetGraphMemAttribute). It grows by pieces of
/// 32 MiB, which one executable graph's allocations share, and keeps them until it is trimmed; the
/// driver counts what it keeps as used.
#[derive(Default)]
pub struct GraphMemory {
    /// Live bytes by executable graph.
    live: BTreeMap<u64, u64>,
    /// What they need, in whole pieces.
    needed: u64,
    pub reserved: u64,
    pub used_high: u64,
    pub reserved_high: u64,
}

impl Device {
    /// A device with nothing on it.
    pub fn new(total: u64) -> R<Device> {
        Ok(Device {
            total,
            used: 0,
            // Generous, so that fragmented addresses never fail what the memory has room for.
            arena: Arena::new((total * 4).clamp(64 << 30, 1 << 40).max(total))
                .or_else(|_| Arena::new(total))?,
            low: None,
            default_pool: 0,
            pool: 0,
            primary: Primary::default(),
            graph: GraphMemory::default(),
            failed: 0,
            failed_ctx: 0,
        })
    }

    /// The error that a failed device answers.
    pub fn healthy(&self) -> R {
        if self.failed == 0 {
            Ok(())
        } else {
            Err(Error(self.failed))
        }
    }

    /// Bytes that can still be charged.
    pub fn room(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// Charges bytes, or fails when they are not there.
    pub fn charge(&mut self, bytes: u64) -> R {
        if bytes > self.room() {
            return Err(OUT_OF_MEMORY);
        }
        self.used += bytes;
        Ok(())
    }

    /// Takes a charge back.
    pub fn discharge(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// The arena that an address of this device belongs to.
    pub fn arena_of(&mut self, addr: u64) -> &mut Arena {
        match &mut self.low {
            Some(low) if low.contains(addr) => low,
            _ => &mut self.arena,
        }
    }

    /// Linear memory of `taken` bytes; charged.
    pub fn alloc_linear(&mut self, taken: u64, low: bool) -> R<u64> {
        let room = self.room();
        let arena = if low {
            if self.low.is_none() {
                self.low = Some(Arena::low(512 << 20)?);
            }
            self.low.as_mut().ok_or(OUT_OF_MEMORY)?
        } else {
            &mut self.arena
        };
        let (addr, delta) = arena.alloc(taken, room)?;
        self.used += delta;
        Ok(addr)
    }

    /// Gives linear memory back and discharges it.
    pub fn free_linear(&mut self, addr: u64, taken: u64, dirty: bool) {
        let delta = self.arena_of(addr).free(addr, taken, dirty);
        self.discharge(delta);
    }
}

impl GraphMemory {
    /// What all live allocations need, with this many bytes for one executable graph.
    fn needed_with(&self, exec: u64, bytes: u64) -> u64 {
        self.needed - self.bytes(exec).next_multiple_of(CHUNK) + bytes.next_multiple_of(CHUNK)
    }

    fn set(&mut self, exec: u64, bytes: u64) {
        self.needed = self.needed_with(exec, bytes);
        if bytes == 0 {
            self.live.remove(&exec);
        } else {
            self.live.insert(exec, bytes);
        }
    }

    fn bytes(&self, exec: u64) -> u64 {
        self.live.get(&exec).copied().unwrap_or(0)
    }

    /// What an allocation of an executable graph would charge to the device.
    pub fn growth(&self, exec: u64, bytes: u64) -> u64 {
        self.needed_with(exec, self.bytes(exec) + bytes)
            .saturating_sub(self.reserved)
    }

    /// Accounts an allocation that went live, whose growth was charged.
    pub fn take(&mut self, exec: u64, bytes: u64) {
        self.reserved += self.growth(exec, bytes);
        self.set(exec, self.bytes(exec) + bytes);
        self.used_high = self.used_high.max(self.reserved);
        self.reserved_high = self.reserved_high.max(self.reserved);
    }

    /// Accounts one that ended.
    pub fn give(&mut self, exec: u64, bytes: u64) {
        self.set(exec, self.bytes(exec).saturating_sub(bytes));
    }

    /// Lets go of what no live allocation needs; answers the bytes to discharge.
    pub fn trim(&mut self) -> u64 {
        let unused = self.reserved - self.needed;
        self.reserved = self.needed;
        unused
    }
}
