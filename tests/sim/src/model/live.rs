//! Everything that has a device address now: exact and interior look-up.

use super::hash::{Map, map};
use std::collections::BTreeMap;

/// What an allocation is, and so how it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// cuMemAlloc, cuMemAllocPitch.
    Linear,
    /// cuMemAllocManaged; the address is valid on the host too.
    Managed,
    /// A block of a stream-ordered pool.
    Pool(u64),
    /// A graph's allocation node, live since a launch.
    Graph(u64),
    /// Another process's memory by cuIpcOpenMemHandle.
    Ipc,
    /// Another process's pool block by cuMemPoolImportPointer.
    PoolImport(u64),
    /// A buffer of imported external memory.
    External(u64),
    /// A module's global variable; no free call takes it.
    Global,
    /// Pinned host memory (cuMemHostAlloc, cuMemAllocHost), with its flags.
    Host(u32),
    /// The caller's own host memory (cuMemHostRegister), with its flags.
    Registered(u32),
}

/// One live range.
#[derive(Clone, Copy, Debug)]
pub struct Alloc {
    pub base: u64,
    /// What was asked for, in bytes.
    pub size: u64,
    /// What it takes of its heap, in bytes.
    pub taken: u64,
    pub kind: Kind,
    pub device: u32,
    /// The context that it ends with; for kinds that outlive contexts, the one that made it.
    pub ctx: u64,
    /// CU_POINTER_ATTRIBUTE_BUFFER_ID: never given out twice.
    pub id: u64,
    /// Host address of the backing bytes.
    pub data: u64,
    /// Something was written through the driver, so that pages exist behind it.
    pub dirty: bool,
    /// Slot in the arena's export table + 1 when an IPC handle was made, else 0.
    pub exported: u32,
}

const UNIT: u64 = 2 << 20;
const GRAIN: u64 = 512;

/// The live ranges. Ranges never overlap and start at multiples of 512.
pub struct Live {
    exact: Map<Alloc>,
    /// Per 2 MiB of address space that has held small ranges: one bit per 512 bytes, set where a
    /// small range starts. Finds the range around an interior address without an ordered map.
    starts: Map<Box<[u64; 64]>>,
    /// Starts of ranges of 2 MiB and more, or not on a 512-byte boundary.
    large: BTreeMap<u64, ()>,
    next_id: u64,
}

impl Live {
    pub const fn new() -> Self {
        Live {
            exact: map(),
            starts: map(),
            large: BTreeMap::new(),
            next_id: 1,
        }
    }

    fn is_small(alloc: &Alloc) -> bool {
        alloc.size < UNIT && alloc.base.is_multiple_of(GRAIN)
    }

    fn bit(addr: u64) -> (u64, usize, u64) {
        let index = (addr % UNIT / GRAIN) as usize;
        (addr / UNIT, index / 64, 1 << (index % 64))
    }

    /// Adds a range; its id is filled in here.
    pub fn insert(&mut self, mut alloc: Alloc) {
        alloc.id = self.next_id;
        self.next_id += 1;
        if Self::is_small(&alloc) {
            let (unit, word, bit) = Self::bit(alloc.base);
            self.starts.entry(unit).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
        } else {
            self.large.insert(alloc.base, ());
        }
        self.exact.insert(alloc.base, alloc);
    }

    /// The range that starts here.
    pub fn get(&self, base: u64) -> Option<&Alloc> {
        self.exact.get(&base)
    }

    /// The range that starts here, to change it.
    pub fn get_mut(&mut self, base: u64) -> Option<&mut Alloc> {
        self.exact.get_mut(&base)
    }

    /// Ends the range that starts here.
    pub fn remove(&mut self, base: u64) -> Option<Alloc> {
        let alloc = self.exact.remove(&base)?;
        if Self::is_small(&alloc) {
            let (unit, word, bit) = Self::bit(base);
            if let Some(bits) = self.starts.get_mut(&unit) {
                bits[word] &= !bit;
            }
        } else {
            self.large.remove(&base);
        }
        Some(alloc)
    }

    /// The range that this address lies in.
    pub fn find(&self, addr: u64) -> Option<&Alloc> {
        let inside = |base: u64| {
            self.exact
                .get(&base)
                .filter(|a| addr - a.base < a.size.max(1))
        };
        self.small_start(addr).and_then(inside).or_else(|| {
            self.large
                .range(..=addr)
                .next_back()
                .and_then(|(&b, ())| inside(b))
        })
    }

    /// The last start of a small range at or before `addr`, in its unit or the one before (a small
    /// range of a pool may reach over one boundary).
    fn small_start(&self, addr: u64) -> Option<u64> {
        let last = |unit: u64, limit: u64| -> Option<u64> {
            let bits = self.starts.get(&unit)?;
            let (top, rest) = ((limit / 64) as usize, limit % 64);
            let masked = bits[top] & (u64::MAX >> (63 - rest));
            let (word, value) = if masked != 0 {
                (top, masked)
            } else {
                (0..top)
                    .rev()
                    .map(|w| (w, bits[w]))
                    .find(|&(_, v)| v != 0)?
            };
            let index = word as u64 * 64 + u64::from(63 - value.leading_zeros());
            Some(unit * UNIT + index * GRAIN)
        };
        last(addr / UNIT, addr % UNIT / GRAIN)
            .or_else(|| last((addr / UNIT).checked_sub(1)?, UNIT / GRAIN - 1))
    }

    /// The starts of the ranges that satisfy a condition.
    pub fn select(&self, mut want: impl FnMut(&Alloc) -> bool) -> Vec<u64> {
        self.exact
            .values()
            .filter(|a| want(a))
            .map(|a| a.base)
            .collect()
    }
}
