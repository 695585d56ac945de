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

/// A live set by what its entries mean for allocators: looked through once, since it may be long.
#[derive(Default)]
struct Split<'r> {
    /// Addresses and sizes of PyTorch's blocks, by address.
    blocks: Vec<(u64, u64)>,
    /// Device and managed memory.
    linear: Vec<&'r Record>,
    reservations: Vec<&'r Record>,
    physical: Vec<&'r Record>,
    mappings: Vec<&'r Record>,
    /// Pools, and what is in them.
    pooled: Vec<&'r Record>,
}

impl<'r> Split<'r> {
    fn of(live: impl Iterator<Item = &'r Record>) -> Split<'r> {
        let mut split = Split::default();
        for entry in live {
            let kind = match entry.kind() {
                Some(Kind::Torch) => {
                    split.blocks.push((entry.key, entry.size));
                    continue;
                }
                Some(Kind::Device | Kind::Managed) => &mut split.linear,
                Some(Kind::Reservation) => &mut split.reservations,
                Some(Kind::Vmm) => &mut split.physical,
                Some(Kind::Mapping) => &mut split.mappings,
                Some(Kind::Pool | Kind::Async | Kind::Graph) => &mut split.pooled,
                _ => continue,
            };
            kind.push(entry);
        }
        split.blocks.sort_unstable();
        // An address has one block; a damaged trace may say otherwise.
        split.blocks.dedup_by_key(|(at, _)| *at);
        split
    }
}

/// What allocators hold of a live set.
pub fn held<'r>(process: &Process, live: impl Iterator<Item = &'r Record> + Clone) -> Held {
    let split = Split::of(live);
    let blocks = &split.blocks;
    let mut ranges = ranges(process, &split);
    ranges.sort_unstable_by_key(|range| (range.device, range.start, range.end));
    let mut found = Held {
        pools: pools(&split.pooled),
        ..Held::default()
    };
    for (_, size) in blocks {
        found.homeless.add(*size, 1);
    }
    let mut next = 0;
    for range in ranges {
        // Ranges come in the order of blocks, but begin anew with each device, and may overlap where the trace is
        // damaged.
        if next > 0 && blocks[next - 1].0 >= range.start {
            next = 0;
        }
        next = reach(blocks, next, range.start);
        let inside = &blocks[next..reach(blocks, next, range.end)];
        if inside.is_empty() && !range.by_allocator {
            continue;
        }
        for (_, size) in inside {
            found.homeless.bytes = found.homeless.bytes.saturating_sub(*size);
            found.homeless.count = found.homeless.count.saturating_sub(1);
        }
        found.segments.push(Segment {
            device: range.device,
            address: range.start,
            size: range.end - range.start,
            expandable: range.expandable,
            blocks: tiles(range.start, range.end, inside),
        });
    }
    found
}

/// The first block from the `from`-th on that is not below an address: close to it, most often.
fn reach(blocks: &[(u64, u64)], from: usize, address: u64) -> usize {
    let rest = &blocks[from..];
    let below = |&(at, _): &(u64, u64)| at < address;
    let mut step = 8;
    while step < rest.len() && below(&rest[step]) {
        step *= 2;
    }
    from + rest[..rest.len().min(step + 1)].partition_point(below)
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
fn ranges(process: &Process, split: &Split<'_>) -> Vec<Range> {
    let mut by_stack: FxHashMap<u32, bool> = FxHashMap::default();
    let mut is_allocator = |stack: u32| {
        let known = by_stack.entry(stack);
        *known.or_insert_with(|| process.is_torch_allocator(stack))
    };
    let mut ranges = Vec::with_capacity(split.linear.len());
    let linear = split.linear.iter();
    for entry in linear.filter(|entry| entry.space() == Some(Space::Device)) {
        ranges.push(Range {
            device: entry.device,
            start: entry.key,
            end: entry.key.saturating_add(entry.size),
            expandable: false,
            by_allocator: is_allocator(entry.stack),
        });
    }
    let reserved: BTreeMap<u64, u64> = split
        .reservations
        .iter()
        .map(|entry| (entry.key, entry.key.saturating_add(entry.size)))
        .collect();
    let reservation = |address: u64| {
        let before = reserved.range(..=address).next_back();
        before
            .filter(|(_, end)| address < **end)
            .map(|(start, _)| *start)
    };
    // A mapping belongs to a process's own address space; its memory's device is its segment's.
    let devices: FxHashMap<u64, u8> = split
        .physical
        .iter()
        .map(|entry| (entry.key, entry.device))
        .collect();
    let mut mappings = split.mappings.clone();
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

fn pools(pooled: &[&Record]) -> Vec<Pool> {
    let mut pools: BTreeMap<(u8, u64), Pool> = BTreeMap::new();
    let mut used: FxHashMap<u64, Sum> = FxHashMap::default();
    for entry in pooled {
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
    fn blocks_are_found_from_anywhere() {
        let blocks: Vec<(u64, u64)> = (0..100).map(|n| (n * 10, 10)).collect();
        for from in [0, 1, 50, 99, 100] {
            for address in [0, 5, 10, 505, 990, 995, 2000] {
                let expected = blocks.partition_point(|(at, _)| *at < address).max(from);
                assert_eq!(reach(&blocks, from, address), expected, "{from} {address}");
            }
        }
    }

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
