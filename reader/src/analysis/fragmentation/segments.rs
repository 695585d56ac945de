//! The segments of PyTorch's caching allocator, each with an exact map of what is in it, and the
//! pools of the driver, of which only sums are known.

use super::Sums;
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

/// Device or managed memory.
struct Linear {
    device: u8,
    start: u64,
    end: u64,
    stack: u32,
}

/// Physical memory where it is mapped.
struct Mapping {
    device: u8,
    start: u64,
    end: u64,
    stack: u32,
    /// The physical memory.
    of: u64,
}

/// A live set by what its entries mean for allocators: looked through once, since it may be long, and without what
/// it was made from, so that another thread can go on with it.
#[derive(Default)]
pub struct Split {
    /// Addresses and sizes of PyTorch's blocks.
    blocks: Vec<(u64, u64)>,
    linear: Vec<Linear>,
    /// Where each begins and ends.
    reservations: Vec<(u64, u64)>,
    /// Physical memory: its handle and device.
    physical: Vec<(u64, u8)>,
    mappings: Vec<Mapping>,
}

impl Split {
    /// `pooled` is shown pools, and what is in them.
    pub fn of<'r>(
        live: impl Iterator<Item = &'r Record>,
        mut pooled: impl FnMut(&'r Record),
    ) -> Split {
        let mut split = Split::default();
        for entry in live {
            let (start, end) = (entry.key, entry.key.saturating_add(entry.size));
            let (device, stack) = (entry.device, entry.stack);
            match entry.kind() {
                Some(Kind::Torch) => split.blocks.push((start, entry.size)),
                Some(Kind::Device | Kind::Managed) if entry.space() == Some(Space::Device) => {
                    split.linear.push(Linear {
                        device,
                        start,
                        end,
                        stack,
                    });
                }
                Some(Kind::Reservation) => split.reservations.push((start, end)),
                Some(Kind::Vmm) => split.physical.push((start, device)),
                Some(Kind::Mapping) => split.mappings.push(Mapping {
                    device,
                    start,
                    end,
                    stack,
                    of: entry.aux,
                }),
                Some(Kind::Pool | Kind::Async | Kind::Graph) => pooled(entry),
                _ => {}
            }
        }
        split
    }

    /// Sums of the segments, by device: what [`Sums::of`] makes of [`held`], without the maps.
    pub fn sums(self, allocators: &mut Allocators<'_>) -> BTreeMap<u8, Sums> {
        let mut all: BTreeMap<u8, Sums> = BTreeMap::new();
        for_each(&self.sorted(), allocators, |range, inside| {
            let sums = all.entry(range.device).or_default();
            let (mut used, mut largest_free) = (Sum::default(), 0);
            tiles(range.start, range.end, inside, |block| match block.used {
                true => used.add(block.size, 1),
                false => largest_free = block.size.max(largest_free),
            });
            sums.add(range.end - range.start, used, largest_free);
        });
        all
    }

    /// With its blocks by address.
    fn sorted(mut self) -> Split {
        self.blocks.sort_unstable();
        // An address has one block; a damaged trace may say otherwise.
        self.blocks.dedup_by_key(|(at, _)| *at);
        self
    }
}

/// Which stacks are those of PyTorch's allocator: asked for each allocation, and known once it was asked.
pub struct Allocators<'p> {
    process: &'p Process,
    by_stack: FxHashMap<u32, bool>,
}

impl<'p> Allocators<'p> {
    /// Of a process.
    pub fn of(process: &'p Process) -> Allocators<'p> {
        Allocators {
            process,
            by_stack: FxHashMap::default(),
        }
    }

    fn contains(&mut self, stack: u32) -> bool {
        let process = self.process;
        let known = self.by_stack.entry(stack);
        *known.or_insert_with(|| process.is_torch_allocator(stack))
    }
}

/// What allocators hold of a live set.
pub fn held<'r>(process: &Process, live: impl Iterator<Item = &'r Record>) -> Held {
    let mut pooled = Vec::new();
    let split = Split::of(live, |entry| pooled.push(entry)).sorted();
    let mut found = Held {
        pools: pools(&pooled),
        ..Held::default()
    };
    for (_, size) in &split.blocks {
        found.homeless.add(*size, 1);
    }
    for_each(&split, &mut Allocators::of(process), |range, inside| {
        for (_, size) in inside {
            found.homeless.bytes = found.homeless.bytes.saturating_sub(*size);
            found.homeless.count = found.homeless.count.saturating_sub(1);
        }
        let mut blocks = Vec::with_capacity(2 * inside.len() + 1);
        tiles(range.start, range.end, inside, |block| blocks.push(block));
        found.segments.push(Segment {
            device: range.device,
            address: range.start,
            size: range.end - range.start,
            expandable: range.expandable,
            blocks,
        });
    });
    found
}

/// Hands on each segment, by device and address, with the blocks in it.
fn for_each(
    split: &Split,
    allocators: &mut Allocators<'_>,
    mut see: impl FnMut(&Range, &[(u64, u64)]),
) {
    let blocks = &split.blocks;
    let mut ranges = ranges(split, allocators);
    ranges.sort_unstable_by_key(|range| (range.device, range.start, range.end));
    let mut next = 0;
    for range in ranges {
        // Ranges come in the order of blocks, but begin anew with each device, and may overlap where the trace is
        // damaged.
        if next > 0 && blocks[next - 1].0 >= range.start {
            next = 0;
        }
        next = reach(blocks, next, range.start);
        let inside = &blocks[next..reach(blocks, next, range.end)];
        if !inside.is_empty() || range.by_allocator {
            see(&range, inside);
        }
    }
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
fn tiles(start: u64, end: u64, blocks: &[(u64, u64)], mut see: impl FnMut(Block)) {
    let mut at = start;
    let mut put = |from: u64, to: u64, used: bool| {
        if from < to {
            see(Block {
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
}

/// Allocations, and runs of mappings that touch each other within one reservation.
fn ranges(split: &Split, allocators: &mut Allocators<'_>) -> Vec<Range> {
    let linear = split.linear.iter().map(|own| Range {
        device: own.device,
        start: own.start,
        end: own.end,
        expandable: false,
        by_allocator: allocators.contains(own.stack),
    });
    let mut ranges: Vec<Range> = linear.collect();
    let reserved: BTreeMap<u64, u64> = split.reservations.iter().copied().collect();
    let reservation = |address: u64| {
        let before = reserved.range(..=address).next_back();
        before
            .filter(|(_, end)| address < **end)
            .map(|(start, _)| *start)
    };
    // A mapping belongs to a process's own address space; its memory's device is its segment's.
    let devices: FxHashMap<u64, u8> = split.physical.iter().copied().collect();
    let mut mappings: Vec<&Mapping> = split.mappings.iter().collect();
    mappings.sort_by_key(|own| own.start);
    let mut last: Option<(Range, Option<u64>)> = None;
    for own in mappings {
        let device = devices.get(&own.of).copied().unwrap_or(own.device);
        let (start, end) = (own.start, own.end);
        let (home, by_allocator) = (reservation(start), allocators.contains(own.stack));
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
            let mut shape = Vec::new();
            tiles(100, 200, blocks, |tile| shape.push((tile.size, tile.used)));
            shape
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
