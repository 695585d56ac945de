//! What lies where in allocators' segments, at moments spread over the time.
//!
//! A segment that looks as it did at the moment before is stored once. A map has no more detail than a
//! screen shows: neighbours that are smaller than a thousandth of their segment are one tile.

use super::pass::Live;
use crate::analysis::fragmentation::held;
use crate::model::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::record::{GRAPH_POOL, Kind, NO_DEVICE, Space};

/// What a row of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A segment of PyTorch's caching allocator.
    Segment,
    /// One of mapped physical memory.
    Expandable,
    /// A stream-ordered pool; where its blocks lie in physical memory is not known.
    Pool,
    /// A device's pool for graphs, likewise.
    GraphPool,
    /// What the program has from the driver directly, oldest first.
    Direct,
}

impl Holder {
    /// The word that the page uses.
    pub const fn name(self) -> &'static str {
        match self {
            Holder::Segment => "segment",
            Holder::Expandable => "expandable",
            Holder::Pool => "pool",
            Holder::GraphPool => "graph-pool",
            Holder::Direct => "direct",
        }
    }
}

/// A piece of a row: a block, a hole, or several that are too small to be drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Bytes.
    pub size: u64,
    /// Bytes of these in blocks.
    pub used: u64,
    /// Blocks.
    pub blocks: u64,
    /// Who made the largest of these; [`NOBODY`] where there is none.
    pub key: u32,
}

/// No owner.
pub const NOBODY: u32 = u32::MAX;

/// A row as it was for some time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Id of the process.
    pub process: usize,
    /// Device ordinal.
    pub device: u8,
    /// What it is.
    pub holder: Holder,
    /// Address of a segment, number of a pool.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Its pieces.
    pub tiles: Vec<Tile>,
}

/// All rows at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Id of the process.
    pub process: usize,
    /// Event time.
    pub time: u64,
    /// Numbers in [`Maps::rows`].
    pub rows: Vec<u32>,
    /// Rows that were too many, the smallest.
    pub left_out: usize,
}

/// Maps of all processes.
#[derive(Default)]
pub struct Maps {
    numbers: FxHashMap<Row, u32>,
    /// By number.
    pub rows: Vec<Row>,
    /// In the order of processes and times.
    pub samples: Vec<Sample>,
    /// Moments that were left out.
    pub left_out: usize,
    tiles: usize,
    most_tiles: usize,
}

/// Tiles of one row.
const FINEST: u64 = 1024;
/// Rows of one moment.
const ROWS: usize = 1500;

/// Puts pieces into tiles.
struct Tiling {
    least: u64,
    tiles: Vec<Tile>,
    pending: Tile,
    largest: u64,
}

impl Tiling {
    fn of(size: u64) -> Tiling {
        Tiling {
            least: size / FINEST,
            tiles: Vec::new(),
            pending: Tile {
                key: NOBODY,
                ..Tile::default()
            },
            largest: 0,
        }
    }

    fn add(&mut self, size: u64, owner: Option<u32>) {
        if size >= self.least {
            self.flush();
        }
        let pending = &mut self.pending;
        pending.size = pending.size.saturating_add(size);
        if let Some(owner) = owner {
            pending.used = pending.used.saturating_add(size);
            pending.blocks += 1;
            if size >= self.largest {
                (pending.key, self.largest) = (owner, size);
            }
        }
        if self.pending.size >= self.least {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.pending.size > 0 {
            self.tiles.push(self.pending);
        }
        self.pending = Tile {
            key: NOBODY,
            ..Tile::default()
        };
        self.largest = 0;
    }

    fn finish(mut self) -> Vec<Tile> {
        self.flush();
        self.tiles
    }
}

impl Maps {
    /// None yet; there will be about so many tiles at most.
    pub fn new(most_tiles: usize) -> Maps {
        Maps {
            most_tiles,
            ..Maps::default()
        }
    }

    /// Draws the maps of a process at a time.
    pub fn take(
        &mut self,
        id: usize,
        process: &Process,
        live: &FxHashMap<(u8, u64), Live>,
        is_cache: impl Fn(u32) -> bool,
        time: u64,
    ) {
        if self.tiles > self.most_tiles {
            self.left_out += 1;
            return;
        }
        let held = held(process, live.values().map(|live| &live.record));
        let mut rows = Vec::new();
        let row = |device, holder, address, size, tiles| Row {
            process: id,
            device,
            holder,
            address,
            size,
            tiles,
        };
        let mut covered: FxHashMap<(u8, u64), ()> = FxHashMap::default();
        for segment in &held.segments {
            covered.insert((segment.device, segment.address), ());
            let mut tiling = Tiling::of(segment.size);
            for block in &segment.blocks {
                let owner = live.get(&(Space::Torch as u8, block.address));
                let owner = owner.and_then(|owner| owner.key).unwrap_or(NOBODY);
                tiling.add(block.size, block.used.then_some(owner));
            }
            let holder = match segment.expandable {
                true => Holder::Expandable,
                false => Holder::Segment,
            };
            let (device, address, size) = (segment.device, segment.address, segment.size);
            rows.push(row(device, holder, address, size, tiling.finish()));
        }
        let mut in_pools: FxHashMap<u64, Vec<&Live>> = FxHashMap::default();
        let mut direct: FxHashMap<u8, Vec<&Live>> = FxHashMap::default();
        for entry in live.values() {
            let (record, key) = (&entry.record, entry.key);
            match record.kind() {
                Some(Kind::Async) => in_pools.entry(record.aux).or_default().push(entry),
                Some(Kind::Graph) => {
                    let pool = GRAPH_POOL + u64::from(record.device);
                    in_pools.entry(pool).or_default().push(entry);
                }
                Some(Kind::Device | Kind::Managed | Kind::Array | Kind::Vmm)
                    if record.device != NO_DEVICE
                        && !covered.contains_key(&(record.device, record.key))
                        && !key.is_some_and(&is_cache) =>
                {
                    direct.entry(record.device).or_default().push(entry);
                }
                _ => {}
            }
        }
        let add_all = |tiling: &mut Tiling, mut entries: Vec<&Live>| {
            entries.sort_unstable_by_key(|entry| (entry.record.time, entry.record.seq));
            for entry in entries {
                tiling.add(entry.record.size, Some(entry.key.unwrap_or(NOBODY)));
            }
        };
        for pool in &held.pools {
            let size = pool.reserved.max(pool.used.bytes);
            let mut tiling = Tiling::of(size);
            add_all(&mut tiling, in_pools.remove(&pool.id).unwrap_or_default());
            tiling.add(size - pool.used.bytes, None);
            let holder = match pool.of_graphs {
                true => Holder::GraphPool,
                false => Holder::Pool,
            };
            rows.push(row(pool.device, holder, pool.id, size, tiling.finish()));
        }
        // Pools that nobody is known to have made: their reserve is not known either.
        for (pool, entries) in in_pools {
            let Some(first) = entries.first().map(|entry| entry.record) else {
                continue;
            };
            let sizes = entries.iter().map(|entry| entry.record.size);
            let size = sizes.fold(0, u64::saturating_add);
            let mut tiling = Tiling::of(size);
            add_all(&mut tiling, entries);
            let holder = match first.kind() {
                Some(Kind::Graph) => Holder::GraphPool,
                _ => Holder::Pool,
            };
            rows.push(row(first.device, holder, pool, size, tiling.finish()));
        }
        for (device, entries) in direct {
            let sizes = entries.iter().map(|entry| entry.record.size);
            let size = sizes.fold(0, u64::saturating_add);
            let mut tiling = Tiling::of(size);
            add_all(&mut tiling, entries);
            rows.push(row(device, Holder::Direct, 0, size, tiling.finish()));
        }
        rows.retain(|row| !row.tiles.is_empty());
        rows.sort_by_key(|row| std::cmp::Reverse(row.size));
        let left_out = rows.len().saturating_sub(ROWS);
        rows.truncate(ROWS);
        rows.sort_by_key(|row| (row.device, row.holder == Holder::Direct, row.address));
        let mut numbers = Vec::new();
        for row in rows {
            let next = self.rows.len() as u32;
            let tiles = row.tiles.len();
            let number = *self.numbers.entry(row).or_insert(next);
            if number == next {
                self.tiles += tiles;
                self.rows.push(Row {
                    process: id,
                    device: 0,
                    holder: Holder::Direct,
                    address: 0,
                    size: 0,
                    tiles: Vec::new(),
                });
            }
            numbers.push(number);
        }
        self.samples.push(Sample {
            process: id,
            time,
            rows: numbers,
            left_out,
        });
    }

    /// Nothing more is taken.
    pub fn finish(&mut self) {
        for (row, number) in std::mem::take(&mut self.numbers) {
            self.rows[number as usize] = row;
        }
    }
}

/// At which times, and after how many events, maps are drawn.
pub struct Plan {
    times: Vec<u64>,
    next_time: usize,
    every: u64,
    events: u64,
    entries: usize,
    taken: usize,
    all: usize,
}

impl Plan {
    /// About `moments`: half at equal distances of time, half of events. `entries` may be looked at
    /// for all of them.
    pub fn new(length: u64, events: u64, moments: usize, entries: usize, more: &[u64]) -> Plan {
        let half = (moments / 2).max(1) as u64;
        let mut times: Vec<u64> = (1..half).map(|n| length / half * n).collect();
        times.extend_from_slice(more);
        times.sort_unstable();
        times.dedup();
        Plan {
            all: times.len() + half as usize,
            times,
            next_time: 0,
            every: (events / half).max(1),
            events: 0,
            entries,
            taken: 0,
        }
    }

    /// Whether a map is to be drawn before an event at this time, and of which time.
    pub fn before(&mut self, time: u64, previous: u64, live: usize) -> Option<u64> {
        self.events += 1;
        let mut due = None;
        while let Some(&next) = self.times.get(self.next_time)
            && next < time
        {
            due = Some(next.max(previous));
            self.next_time += 1;
        }
        // Several events may have one time; what was between them can't be asked for.
        if time > previous && self.events.is_multiple_of(self.every) {
            due = due.or(Some(previous));
        }
        let due = due?;
        self.taken += 1;
        let left = self.all.saturating_sub(self.taken).max(1);
        // Where so much is live that not all moments can be looked at, only every n-th.
        let stride = (live.saturating_mul(left) / self.entries.max(1)).saturating_add(1);
        if live > self.entries || !self.taken.is_multiple_of(stride) {
            return None;
        }
        self.entries -= live;
        Some(due)
    }
}
