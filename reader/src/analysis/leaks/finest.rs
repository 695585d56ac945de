//! Which live entries count, each byte once, at the finest layer known.
//!
//! | memory | counts as |
//! |---|---|
//! | device, managed, array, vmm | itself, unless it is a segment of PyTorch's caching allocator |
//! | such a segment | `cached`, less the live blocks in it |
//! | torch, async, graph | itself |
//! | pool | `cached`, less its live blocks |
//! | import, mapping, reservation | nothing; listed apart |
//!
//! A segment is known by the live blocks that lie in it, or by the allocator's frames in its
//! stack (a segment may hold cached blocks only).

use super::{Aside, Cached, EntryEnd, Item, Point, Window};
use crate::analysis::estimate::Weighted;
use crate::analysis::moment::Found;
use crate::analysis::{Filter, Sum};
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use vramtrace_format::record::{GRAPH_POOL, Kind, Layer, Op, Record};
use vramtrace_format::totals::{End, Totals, TotalsKey};

/// What is not handed to the sink.
#[derive(Default)]
pub(crate) struct Rest {
    pub caches: BTreeMap<u8, Cached>,
    pub aside: Aside,
    pub unknown_kinds: u64,
    pub timeless: Sum,
    /// Segments of PyTorch's allocator whose blocks are not known, which count as they are.
    pub opaque: Sum,
}

impl Rest {
    /// A cache holds `reserved` bytes of a device, and doesn't use so many of them.
    fn cache(&mut self, device: u8, reserved: u64, unused: u64) {
        let cached = self.caches.entry(device).or_default();
        cached.merge(Cached { reserved, unused });
    }
}

/// Hands all leaked memory to `sink`.
pub(crate) fn items(
    process: &Process,
    point: Point,
    window: &Window,
    filter: &Filter,
    mut sink: impl FnMut(Item),
) -> Rest {
    let mut rest = Rest::default();
    let marks = Marks::of(process, point, window);
    let mut known = Known::of(process, &marks);
    for (entry, end) in marks.entries(process) {
        let Some(kind) = entry.kind() else {
            rest.unknown_kinds += 1;
            continue;
        };
        let outside = window.from.is_some_and(|from| !from.is_before(entry));
        if outside || !filter.takes(entry.device, kind) {
            continue;
        }
        let aside = match kind {
            Kind::Import => Some(&mut rest.aside.imports),
            Kind::Mapping => Some(&mut rest.aside.mappings),
            Kind::Reservation => Some(&mut rest.aside.reservations),
            _ => None,
        };
        if let Some(aside) = aside {
            aside.add(entry.size, 1);
        } else if let Some(cached) = known.cached_in(process, entry, kind) {
            rest.cache(entry.device, entry.size, cached);
        } else {
            if known.is_opaque(process, entry, kind) {
                rest.opaque.add(entry.size, 1);
            }
            sink(Item {
                stack: entry.stack,
                api: entry.api,
                device: entry.device,
                kind,
                end,
                thread: (entry.thread != 0).then_some(entry.thread),
                range: entry.range.into(),
                stream: entry.stream,
                context: entry.context,
                bytes: entry.size,
                count: 1,
                first_time: entry.time,
                last_time: entry.time,
                key: Some((entry.space, entry.key)),
                weighted: Weighted::of(entry),
            });
        }
    }
    if window.from.is_none() && window.to.is_none() {
        ended(process, &marks, filter, &mut known, &mut rest, &mut sink);
    } else if window.to.is_none() {
        let mut timeless = Sum::default();
        let mut left_out = Rest::default();
        let mut sum = |item: Item| {
            let earlier = |from| matches!(from, Found::Time(time) if item.last_time <= time);
            if !window.from.is_some_and(earlier) {
                timeless.add(item.bytes, item.count);
            }
        };
        ended(process, &marks, filter, &mut known, &mut left_out, &mut sum);
        rest.timeless = timeless;
    }
    rest
}

/// Which marked entries are used, and where the sums have to stand in for those that later
/// entries took the place of.
struct Marks<'w> {
    point: Point,
    window: &'w Window,
    teardown_seq: u64,
    /// Devices and kinds of which marked entries are missing.
    summed: Vec<(u8, u8)>,
}

impl Marks<'_> {
    fn of<'w>(process: &Process, point: Point, window: &'w Window) -> Marks<'w> {
        let mut marks = Marks {
            point,
            window,
            teardown_seq: process.teardown_seq().unwrap_or(u64::MAX),
            summed: Vec::new(),
        };
        if point == Point::Teardown {
            let mut missing: BTreeMap<(u8, u8), Sum> = BTreeMap::new();
            for row in process.totals() {
                if row.key.end == End::Teardown as u8 {
                    let sum = missing.entry((row.key.device, row.key.kind)).or_default();
                    sum.add(row.live_bytes, row.live_count);
                }
            }
            for entry in process.marked() {
                let sum = missing.entry((entry.device, entry.kind)).or_default();
                sum.bytes = sum.bytes.wrapping_sub(entry.size);
                sum.count = sum.count.wrapping_sub(1);
            }
            missing.retain(|_, sum| *sum != Sum::default());
            marks.summed = missing.into_keys().collect();
        }
        marks
    }

    /// Every entry that was live at the point.
    fn entries<'p>(
        &'p self,
        process: &'p Process,
    ) -> impl Iterator<Item = (&'p Record, EntryEnd)> + 'p {
        let before_teardown = move |entry: &&Record| {
            self.point != Point::Teardown
                || entry.seq <= self.teardown_seq
                || entry.op == Op::Restore as u8
        };
        let past = self.window.to.as_ref();
        let now = past.is_none().then(|| process.live());
        let then = past.into_iter().flat_map(|past| &past.live);
        let live = now.into_iter().flatten().chain(then).map(move |entry| {
            let corruption = process.corruption_of(entry);
            let known_then = |seq| past.is_none_or(|past| seq <= past.seq);
            let end = match corruption {
                Some(corruption) if known_then(corruption.seq) => EntryEnd::Corrupted,
                _ => EntryEnd::Live,
            };
            (entry, end)
        });
        let marked = (self.point == Point::Teardown)
            .then(|| process.marked())
            .into_iter()
            .flatten()
            .filter(|entry| !self.is_summed(entry.device, entry.kind))
            .map(|entry| (entry, EntryEnd::Teardown));
        live.chain(marked)
            .filter(move |(entry, _)| before_teardown(entry))
    }

    fn is_summed(&self, device: u8, kind: u8) -> bool {
        self.summed.contains(&(device, kind))
    }
}

/// What has to be known of all entries before one of them can be judged.
#[derive(Default)]
struct Known {
    /// Whether PyTorch's blocks were seen in this process.
    torch: bool,
    /// Address and size of its live blocks, by address.
    blocks: Vec<(u64, u64)>,
    /// Bytes of all blocks before each.
    before: Vec<u64>,
    /// Where to look for an address among them.
    directory: Directory,
    /// Where physical allocations are mapped: id, address, size.
    mappings: FxHashMap<u64, Vec<(u64, u64)>>,
    /// Live bytes in blocks of each pool.
    pools: FxHashMap<u64, u64>,
    by_stack: FxHashMap<u32, bool>,
}

impl Known {
    fn of(process: &Process, marks: &Marks<'_>) -> Known {
        let torch_row = |row: &Totals| row.key.kind == Kind::Torch as u8;
        let mut known = Known {
            torch: process.totals().iter().any(torch_row),
            ..Known::default()
        };
        for (entry, _) in marks.entries(process) {
            match entry.kind() {
                Some(Kind::Torch) => known.blocks.push((entry.key, entry.size)),
                Some(Kind::Async) => known.use_pool(entry.aux, entry.size),
                Some(Kind::Graph) => {
                    known.use_pool(GRAPH_POOL + u64::from(entry.device), entry.size);
                }
                Some(Kind::Mapping) => {
                    let mapped = known.mappings.entry(entry.aux).or_default();
                    mapped.push((entry.key, entry.size));
                }
                _ => {}
            }
        }
        known.torch |= !known.blocks.is_empty();
        known.blocks.sort_unstable();
        let mut sum = 0u64;
        for &(_, bytes) in &known.blocks {
            known.before.push(sum);
            sum = sum.saturating_add(bytes);
        }
        known.before.push(sum);
        known.directory = Directory::of(&known.blocks);
        known
    }

    fn use_pool(&mut self, pool: u64, bytes: u64) {
        let used = self.pools.entry(pool).or_default();
        *used = used.saturating_add(bytes);
    }

    /// Unused bytes of an entry that is a cache; `None` for one that is not.
    fn cached_in(&mut self, process: &Process, entry: &Record, kind: Kind) -> Option<u64> {
        if kind == Kind::Pool {
            let used = self.pools.get(&entry.key).copied().unwrap_or(0);
            return Some(entry.size.saturating_sub(used));
        }
        if !self.torch || !matches!(kind, Kind::Device | Kind::Managed | Kind::Vmm) {
            return None;
        }
        let used = if kind == Kind::Vmm {
            let mapped = self.mappings.get(&entry.key);
            let ranges = mapped.map(Vec::as_slice).unwrap_or_default();
            ranges.iter().fold(0u64, |used, &(start, size)| {
                used.saturating_add(self.used_in(start, size))
            })
        } else {
            self.used_in(entry.key, entry.size)
        };
        if used == 0 && !self.is_torch_stack(process, entry.stack) {
            return None;
        }
        Some(entry.size.saturating_sub(used))
    }

    /// Whether it is a segment of PyTorch's allocator in a process of which no block was seen.
    fn is_opaque(&mut self, process: &Process, entry: &Record, kind: Kind) -> bool {
        !self.torch
            && matches!(kind, Kind::Device | Kind::Managed | Kind::Vmm)
            && self.is_torch_stack(process, entry.stack)
    }

    /// Bytes of live blocks within an address range.
    fn used_in(&self, start: u64, size: u64) -> u64 {
        let end = start.saturating_add(size);
        let reach = |at: usize, limit: u64| {
            // Blocks don't overlap, so only the last one before a limit can reach beyond it.
            let block = at.checked_sub(1).and_then(|at| self.blocks.get(at));
            block.map_or(0, |&(at, bytes)| {
                at.saturating_add(bytes).saturating_sub(limit).min(bytes)
            })
        };
        let first = self.directory.below(&self.blocks, start);
        let last = self.directory.below(&self.blocks, end);
        self.before[last]
            .saturating_sub(self.before[first])
            .saturating_add(reach(first, start))
            .saturating_sub(reach(last, end))
            .min(size)
    }

    fn is_torch_stack(&mut self, process: &Process, stack: u32) -> bool {
        *self
            .by_stack
            .entry(stack)
            .or_insert_with(|| process.is_torch_allocator(stack))
    }
}

/// Says about where in a sorted list an address is: entries are looked at in no order, and a search through all of a
/// long list is some twenty misses of the cache each.
#[derive(Default)]
struct Directory {
    least: u64,
    /// Addresses from `least` on are divided into parts of 2^shift bytes.
    shift: u32,
    /// By part: how many blocks are before it; and how many there are.
    before: Vec<u32>,
}

impl Directory {
    fn of(blocks: &[(u64, u64)]) -> Directory {
        let (Some(&(least, _)), Some(&(most, _))) = (blocks.first(), blocks.last()) else {
            return Directory::default();
        };
        // About as many parts as blocks.
        let parts = blocks.len().next_power_of_two() as u64;
        let bits = u64::BITS - (most - least).leading_zeros();
        let shift = bits.saturating_sub(parts.trailing_zeros());
        let last = ((most - least) >> shift) as usize;
        let mut before = vec![0; last + 2];
        for (at, _) in blocks {
            before[((at - least) >> shift) as usize + 1] += 1;
        }
        let mut sum = 0;
        for part in &mut before {
            sum += *part;
            *part = sum;
        }
        Directory {
            least,
            shift,
            before,
        }
    }

    /// How many of the blocks begin below an address.
    fn below(&self, blocks: &[(u64, u64)], address: u64) -> usize {
        let Some(offset) = address.checked_sub(self.least) else {
            return 0;
        };
        let part = usize::try_from(offset >> self.shift).unwrap_or(usize::MAX);
        let (Some(&from), Some(&to)) = (
            self.before.get(part),
            self.before.get(part.saturating_add(1)),
        ) else {
            return blocks.len();
        };
        let (from, to) = (from as usize, to as usize);
        from + blocks[from..to].partition_point(|&(at, _)| at < address)
    }
}

/// Sums of caches that ended.
#[derive(Default)]
struct Cache {
    held: u64,
    used: u64,
}

impl Cache {
    fn held(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    fn used(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
    }
}

/// What ended with a context or a reset, and what teardown released where only sums are left.
fn ended(
    process: &Process,
    marks: &Marks<'_>,
    filter: &Filter,
    known: &mut Known,
    rest: &mut Rest,
    sink: &mut impl FnMut(Item),
) {
    let coarsest = process.sampling.coarsest();
    let mut origins: FxHashMap<TotalsKey, &Totals> = FxHashMap::default();
    let is_ended = |row: &&Totals| row.key.end != End::Live as u8;
    if !process.totals().iter().any(|row| is_ended(&row)) {
        return;
    }
    for row in process.totals() {
        if row.key.end == End::Live as u8 {
            origins.insert(row.key, row);
        }
    }
    // Caches that ended, and the blocks that ended in them, by device and end.
    let mut caches: BTreeMap<(u8, u8, Layer), Cache> = BTreeMap::new();
    for row in process.totals().iter().filter(is_ended) {
        let (Some(kind), Some(end)) = (row.kind(), End::from_u8(row.key.end)) else {
            rest.unknown_kinds += 1;
            continue;
        };
        let end = match end {
            End::Context => EntryEnd::Context,
            End::Reset => EntryEnd::Reset,
            End::Teardown if marks.is_summed(row.key.device, row.key.kind) => EntryEnd::Teardown,
            End::Teardown | End::Live => continue,
        };
        if row.live_count == 0 || !kind.counted() || !filter.takes(row.key.device, kind) {
            continue;
        }
        let of = |inside| (row.key.device, row.key.end, inside);
        let segment = known.torch
            && matches!(kind, Kind::Device | Kind::Managed | Kind::Vmm)
            && known.is_torch_stack(process, row.key.stack);
        match kind {
            Kind::Pool => caches
                .entry(of(Layer::Device))
                .or_default()
                .held(row.live_bytes),
            _ if segment => caches
                .entry(of(Layer::Framework))
                .or_default()
                .held(row.live_bytes),
            Kind::Torch => caches
                .entry(of(Layer::Framework))
                .or_default()
                .used(row.live_bytes),
            Kind::Async | Kind::Graph => {
                caches
                    .entry(of(Layer::Device))
                    .or_default()
                    .used(row.live_bytes);
            }
            _ => {}
        }
        if kind == Kind::Pool || segment {
            continue;
        }
        let live_key = TotalsKey {
            end: End::Live as u8,
            ..row.key
        };
        let origin = origins.get(&live_key).copied().unwrap_or(row);
        sink(Item {
            stack: row.key.stack,
            api: row.key.api,
            device: row.key.device,
            kind,
            end,
            thread: None,
            range: 0,
            stream: 0,
            context: 0,
            bytes: row.live_bytes,
            count: row.live_count,
            first_time: origin.first_time,
            last_time: origin.last_time,
            key: None,
            weighted: Weighted::of_bytes(row.sampled.live_bytes, coarsest),
        });
    }
    for ((device, ..), cache) in caches {
        if cache.held > 0 {
            let unused = cache.held.saturating_sub(cache.used);
            rest.cache(device, cache.held, unused);
        }
    }
}

/// Event numbers of live entries that are caches: segments of PyTorch's allocator, and pools.
pub(crate) fn caches(process: &Process) -> FxHashSet<u64> {
    let window = Window::default();
    let marks = Marks::of(process, Point::End, &window);
    let mut known = Known::of(process, &marks);
    let mut caches = FxHashSet::default();
    for (entry, _) in marks.entries(process) {
        if let Some(kind) = entry.kind()
            && known.cached_in(process, entry, kind).is_some()
        {
            caches.insert(entry.seq);
        }
    }
    caches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_finds_what_a_search_finds() {
        let addresses: [&[u64]; 6] = [
            &[],
            &[7],
            &[0, u64::MAX],
            &[512, 1024, 1536, 1 << 40, (1 << 40) + 512],
            &[5, 5, 5],
            &[1 << 63, (1 << 63) + 1, (1 << 63) + (1 << 20)],
        ];
        for addresses in addresses {
            let blocks: Vec<(u64, u64)> = addresses.iter().map(|&at| (at, 1)).collect();
            let directory = Directory::of(&blocks);
            let near = addresses
                .iter()
                .flat_map(|&at| [at.saturating_sub(1), at, at.saturating_add(1)]);
            for address in near.chain([0, 1 << 30, u64::MAX]) {
                let expected = blocks.partition_point(|&(at, _)| at < address);
                let found = directory.below(&blocks, address);
                assert_eq!(found, expected, "{address} in {addresses:?}");
            }
        }
    }
}
