//! The segments of PyTorch's caching allocator, each with an exact map of what is in it, and the
//! pools of the driver, of which only sums are known.

use crate::analysis::Sum;
use crate::model::Process;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use vramtrace_format::record::{Kind, Record, Space};

/// Pool id of a device's graph pool, less the device.
const GRAPH_POOLS: u64 = 0x1000;
/// Ids of ordinary pools begin here.
const POOLS: u64 = 0x2000;

/// A part of a segment: a block, or what lies free between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it is handed out.
    pub used: bool,
}

/// Memory that a caching allocator took from the driver in one piece, and hands out in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Device ordinal.
    pub device: u8,
    /// Its address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it is made of mapped physical memory (`expandable_segments`), of which unused parts
    /// can go back.
    pub expandable: bool,
    /// Its blocks, which tile it, by address.
    pub blocks: Vec<Block>,
}

impl Segment {
    /// Bytes handed out, and in how many blocks.
    pub fn used(&self) -> Sum {
        let mut sum = Sum::default();
        let used = self.blocks.iter().filter(|block| block.used);
        used.for_each(|block| sum.add(block.size, 1));
        sum
    }

    /// Bytes that are not handed out.
    pub fn free(&self) -> u64 {
        self.size - self.used().bytes.min(self.size)
    }

    /// The largest piece of that.
    pub fn largest_free(&self) -> u64 {
        let free = self.blocks.iter().filter(|block| !block.used);
        free.map(|block| block.size).max().unwrap_or(0)
    }

    /// The largest block that is handed out.
    pub fn largest_used(&self) -> u64 {
        let used = self.blocks.iter().filter(|block| block.used);
        used.map(|block| block.size).max().unwrap_or(0)
    }
}

/// A pool of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Device ordinal.
    pub device: u8,
    /// Its number in the trace.
    pub id: u64,
    /// Whether it is the device's pool for graphs.
    pub of_graphs: bool,
    /// Bytes that it holds, as last sampled.
    pub reserved: u64,
    /// Blocks that are handed out.
    pub used: Sum,
}

impl Pool {
    /// Bytes that it holds and that are not handed out.
    pub fn free(&self) -> u64 {
        self.reserved.saturating_sub(self.used.bytes)
    }
}

/// Everything that allocators hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Segments by device and address.
    pub segments: Vec<Segment>,
    /// Pools by device and number.
    pub pools: Vec<Pool>,
    /// Blocks that lie in no segment that the trace knows.
    pub homeless: Sum,
}

/// A range of addresses that may be a segment.
struct Range {
    device: u8,
    start: u64,
    end: u64,
    expandable: bool,
    by_allocator: bool,
}

/// What allocators hold of a live set.
pub fn held<'r>(process: &Process, live: impl Iterator<Item = &'r Record> + Clone) -> Held {
    let blocks: BTreeMap<u64, u64> = live
        .clone()
        .filter(|entry| entry.kind() == Some(Kind::Torch))
        .map(|entry| (entry.key, entry.size))
        .collect();
    let mut ranges = ranges(process, live.clone());
    ranges.sort_by_key(|range| (range.device, range.start));
    let mut found = Held {
        pools: pools(live),
        ..Held::default()
    };
    for size in blocks.values() {
        found.homeless.add(*size, 1);
    }
    for range in ranges {
        let inside = blocks.range(range.start..range.end);
        let inside: Vec<(u64, u64)> = inside.map(|(&at, &size)| (at, size)).collect();
        if inside.is_empty() && !range.by_allocator {
            continue;
        }
        for (_, size) in &inside {
            found.homeless.bytes = found.homeless.bytes.saturating_sub(*size);
            found.homeless.count = found.homeless.count.saturating_sub(1);
        }
        found.segments.push(Segment {
            device: range.device,
            address: range.start,
            size: range.end - range.start,
            expandable: range.expandable,
            blocks: tiles(range.start, range.end, &inside),
        });
    }
    found
}

/// Blocks and what is between them. What reaches beyond the end, or into the next one, is cut: a
/// damaged trace may say so.
fn tiles(start: u64, end: u64, blocks: &[(u64, u64)]) -> Vec<Block> {
    let mut tiles = Vec::with_capacity(2 * blocks.len() + 1);
    let mut at = start;
    let mut put = |from: u64, to: u64, used: bool| {
        if from < to {
            tiles.push(Block {
                address: from,
                size: to - from,
                used,
            });
        }
    };
    for &(address, size) in blocks {
        let from = address.max(at);
        let to = address.saturating_add(size).clamp(from, end);
        put(at, from, false);
        put(from, to, true);
        at = to;
    }
    put(at, end, false);
    tiles
}

/// Allocations, and runs of mappings that touch each other within one reservation.
fn ranges<'r>(process: &Process, live: impl Iterator<Item = &'r Record> + Clone) -> Vec<Range> {
    let mut by_stack: FxHashMap<u32, bool> = FxHashMap::default();
    let mut is_allocator = |stack: u32| {
        let known = by_stack.entry(stack);
        *known.or_insert_with(|| process.is_torch_allocator(stack))
    };
    let of_kind = |wanted: Kind| {
        let live = live.clone();
        live.filter(move |entry| entry.kind() == Some(wanted))
    };
    let mut ranges = Vec::new();
    let linear = of_kind(Kind::Device).chain(of_kind(Kind::Managed));
    for entry in linear.filter(|entry| entry.space() == Some(Space::Device)) {
        ranges.push(Range {
            device: entry.device,
            start: entry.key,
            end: entry.key.saturating_add(entry.size),
            expandable: false,
            by_allocator: is_allocator(entry.stack),
        });
    }
    let reserved: BTreeMap<u64, u64> = of_kind(Kind::Reservation)
        .map(|entry| (entry.key, entry.key.saturating_add(entry.size)))
        .collect();
    let reservation = |address: u64| {
        let before = reserved.range(..=address).next_back();
        before
            .filter(|(_, end)| address < **end)
            .map(|(start, _)| *start)
    };
    // A mapping belongs to a process's own address space; its memory's device is its segment's.
    let devices: FxHashMap<u64, u8> = of_kind(Kind::Vmm)
        .map(|entry| (entry.key, entry.device))
        .collect();
    let mut mappings: Vec<&Record> = of_kind(Kind::Mapping).collect();
    mappings.sort_by_key(|entry| entry.key);
    let mut last: Option<(Range, Option<u64>)> = None;
    for entry in mappings {
        let device = devices.get(&entry.aux).copied().unwrap_or(entry.device);
        let (start, end) = (entry.key, entry.key.saturating_add(entry.size));
        let (home, by_allocator) = (reservation(start), is_allocator(entry.stack));
        if let Some((range, its_home)) = &mut last
            && (range.end, range.device, *its_home) == (start, device, home)
        {
            range.end = end;
            range.by_allocator |= by_allocator;
            continue;
        }
        let range = Range {
            device,
            start,
            end,
            expandable: true,
            by_allocator,
        };
        ranges.extend(last.replace((range, home)).map(|(range, _)| range));
    }
    ranges.extend(last.map(|(range, _)| range));
    ranges
}

fn pools<'r>(live: impl Iterator<Item = &'r Record>) -> Vec<Pool> {
    let mut pools: BTreeMap<(u8, u64), Pool> = BTreeMap::new();
    let mut used: FxHashMap<u64, Sum> = FxHashMap::default();
    for entry in live {
        match entry.kind() {
            Some(Kind::Pool) => {
                let pool = Pool {
                    device: entry.device,
                    id: entry.key,
                    of_graphs: (GRAPH_POOLS..POOLS).contains(&entry.key),
                    reserved: entry.size,
                    used: Sum::default(),
                };
                pools.insert((entry.device, entry.key), pool);
            }
            Some(Kind::Async) => used.entry(entry.aux).or_default().add(entry.size, 1),
            Some(Kind::Graph) => {
                let pool = GRAPH_POOLS + u64::from(entry.device);
                used.entry(pool).or_default().add(entry.size, 1);
            }
            _ => {}
        }
    }
    for pool in pools.values_mut() {
        pool.used = used.get(&pool.id).copied().unwrap_or_default();
    }
    pools.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_segment_whatever_the_blocks_are() {
        let shape = |blocks: &[(u64, u64)]| -> Vec<(u64, bool)> {
            let tiles = tiles(100, 200, blocks);
            tiles.iter().map(|tile| (tile.size, tile.used)).collect()
        };
        assert_eq!(shape(&[]), [(100, false)]);
        assert_eq!(shape(&[(100, 100)]), [(100, true)]);
        assert_eq!(
            shape(&[(110, 20), (130, 20)]),
            [(10, false), (20, true), (20, true), (50, false)]
        );
        // Overlapping, and beyond the end.
        assert_eq!(
            shape(&[(100, 50), (120, 40), (190, 99)]),
            [(50, true), (10, true), (30, false), (10, true)]
        );
    }
}
