//! What the page is given: columns of numbers, and texts by number. Times are nanoseconds since the
//! page's beginning, or since the time of the row before where it says so.

use super::cells::Cell;
use super::keys::{Keys, Sums};
use super::maps::Maps;
use super::names::{FrameColumns, Tree};
use super::pass::Track;
use crate::analysis::timeline::Span;
use serde::Serialize;

/// The document, but for the answers of the other commands, which stand beside it as they are.
#[derive(Serialize)]
pub struct Document {
    pub schema: &'static str,
    pub version: &'static str,
    /// The page's beginning, Unix nanoseconds; as text, since JavaScript's numbers are too short.
    pub base_ns: String,
    pub duration_ns: u64,
    pub processes: Vec<ProcessRow>,
    pub devices: Vec<DeviceRow>,
    pub series: Vec<SeriesRow>,
    pub smi: Vec<SmiRow>,
    pub texts: Vec<String>,
    pub frames: FrameColumns,
    pub tree: Tree,
    pub keys: KeyColumns,
    pub cells: CellColumns,
    pub tracks: Vec<TrackColumns>,
    pub threads: Vec<NameRow>,
    pub ranges: Vec<NameRow>,
    pub slices: SliceColumns,
    pub marks: Vec<MarkRow>,
    pub maps: MapColumns,
    /// Whether stacks were sampled, so that what has none stands apart.
    pub sampled: bool,
    /// Sentences.
    pub thinned: Vec<String>,
    /// Why numbers may be wrong; sentences.
    pub inexact: Vec<String>,
    /// Other things that people should know.
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

/// A process.
#[derive(Serialize)]
pub struct ProcessRow {
    pub pid: u32,
    pub name: String,
    pub program: String,
    pub rank: Option<u32>,
    pub host: String,
    pub start: u64,
    pub duration: u64,
    pub end: &'static str,
    pub trace: String,
    /// What "leaked" is about: `end` or `teardown`.
    pub point: &'static str,
    /// From when on single events are known, by lane (device layer and host, framework layer);
    /// `None` never.
    pub from: [Option<u64>; 2],
}

/// A device.
#[derive(Serialize)]
pub struct DeviceRow {
    pub uuid: String,
    pub name: String,
    pub index: u8,
    pub total_bytes: u64,
}

/// Bytes over time.
#[derive(Serialize)]
pub struct SeriesRow {
    pub process: usize,
    pub device: Option<usize>,
    /// A layer, or `reserved`: what caching allocators and pools hold.
    pub what: &'static str,
    pub start: u64,
    pub span: u64,
    /// From when on every change is known; before, spans are blurred. `None`: never.
    pub exact_from: Option<u64>,
    pub peak_bytes: u64,
    pub peak_at: u64,
    pub live_bytes: u64,
    /// Each less the `last` of the span before.
    pub min: Vec<i64>,
    pub max: Vec<i64>,
    pub last: Vec<i64>,
}

/// What nvidia-smi showed.
#[derive(Serialize)]
pub struct SmiRow {
    pub process: usize,
    pub device: usize,
    pub time: Vec<u64>,
    pub process_bytes: Vec<Option<u64>>,
    pub used_bytes: Vec<u64>,
}

/// A thread or range of a process.
#[derive(Serialize)]
pub struct NameRow {
    pub process: usize,
    pub id: u32,
    pub text: u32,
}

/// A mark.
#[derive(Serialize)]
pub struct MarkRow {
    pub process: usize,
    pub time: u64,
    pub domain: u32,
    pub text: u32,
}

/// Who allocated.
#[derive(Default, Serialize)]
pub struct KeyColumns {
    pub process: Vec<u32>,
    pub device: Vec<Option<usize>>,
    pub kind: Vec<&'static str>,
    pub layer: Vec<&'static str>,
    pub api: Vec<u32>,
    pub library: Vec<u32>,
    pub node: Vec<u32>,
    /// Memory that a caching allocator or a pool took for itself.
    pub cache: Vec<u8>,
    /// What the event log does not know, before it begins: allocated, live then, of that never freed.
    pub before_made: [Vec<i64>; 2],
    pub before_live: [Vec<i64>; 2],
    pub before_kept: [Vec<i64>; 2],
    /// At the peak of its layer of its device.
    pub peak: [Vec<i64>; 2],
}

impl KeyColumns {
    /// Adds the sums of a key, of which the cells know a part.
    pub fn sums(&mut self, sums: &Sums, cells: &Cell, cache: bool) {
        for part in 0..2 {
            let (made, gone) = (cells.made[part], cells.gone[part]);
            let live = sums.live[part].saturating_sub(made.saturating_sub(gone));
            let kept = sums.kept[part].saturating_sub(cells.kept[part]);
            self.before_made[part].push(sums.made[part].saturating_sub(made).max(0));
            self.before_live[part].push(live);
            self.before_kept[part].push(if cache { 0 } else { kept });
            self.peak[part].push(sums.peak[part]);
        }
    }
}

/// What they did in each part of the time.
#[derive(Default, Serialize)]
pub struct CellColumns {
    pub buckets: u32,
    pub width: u64,
    /// How many cells each key has.
    pub of_key: Vec<u32>,
    /// Part of the time, less that of the cell before of the same key.
    pub bucket: Vec<u32>,
    pub made: [Vec<i64>; 2],
    pub gone: [Vec<i64>; 2],
    pub kept: [Vec<i64>; 2],
}

impl CellColumns {
    /// Of cells by key and part.
    pub fn of(buckets: u32, width: u64, cells: &[(u32, u32, Cell)], keys: usize) -> CellColumns {
        let mut columns = CellColumns {
            buckets,
            width,
            of_key: vec![0; keys],
            ..CellColumns::default()
        };
        let mut before = (u32::MAX, 0);
        for &(key, bucket, cell) in cells {
            columns.of_key[key as usize] += 1;
            let since = if before.0 == key { before.1 } else { 0 };
            columns.bucket.push(bucket - since);
            before = (key, bucket);
            for part in 0..2 {
                columns.made[part].push(cell.made[part]);
                columns.gone[part].push(cell.gone[part]);
                columns.kept[part].push(cell.kept[part]);
            }
        }
        columns
    }
}

/// Allocations that are drawn one by one.
#[derive(Serialize)]
pub struct TrackColumns {
    pub process: usize,
    pub device: Option<usize>,
    pub layer: &'static str,
    /// How many there were.
    pub seen: u64,
    /// In any time of this length the largest are here.
    pub finest: u64,
    /// Less that of the row before.
    pub start: Vec<u64>,
    pub length: Vec<u64>,
    pub size: Vec<u64>,
    pub address: Vec<u64>,
    pub key: Vec<u32>,
    pub thread: Vec<u32>,
    pub range: Vec<u32>,
    /// What ended it: an event's operation, 0 live.
    pub how: Vec<u8>,
    /// Rows whose beginning the event log has forgotten.
    pub early: Vec<u32>,
}

impl TrackColumns {
    /// Of a track of a process that began `offset` after the page.
    pub fn of(process: usize, device: Option<usize>, offset: u64, track: &Track) -> TrackColumns {
        let pieces = &track.pieces;
        let mut before = 0;
        TrackColumns {
            process,
            device,
            layer: track.layer.name(),
            seen: track.seen,
            finest: track.finest,
            start: pieces
                .iter()
                .map(|piece| {
                    let start = piece.start.saturating_add(offset);
                    let since = start - before;
                    before = start;
                    since
                })
                .collect(),
            length: pieces
                .iter()
                .map(|piece| piece.end.saturating_sub(piece.start))
                .collect(),
            size: pieces.iter().map(|piece| piece.size).collect(),
            address: pieces.iter().map(|piece| piece.address).collect(),
            key: pieces.iter().map(|piece| piece.key).collect(),
            thread: pieces.iter().map(|piece| piece.thread).collect(),
            range: pieces.iter().map(|piece| piece.range).collect(),
            how: pieces.iter().map(|piece| piece.how).collect(),
            early: (0..)
                .zip(pieces)
                .filter(|(_, piece)| piece.early)
                .map(|(row, _)| row)
                .collect(),
        }
    }
}

/// Ranges.
#[derive(Default, Serialize)]
pub struct SliceColumns {
    pub process: Vec<usize>,
    pub thread: Vec<u32>,
    pub depth: Vec<u32>,
    pub name: Vec<u32>,
    pub start: Vec<u64>,
    pub length: Vec<u64>,
    pub bytes: Vec<u64>,
    pub count: Vec<u64>,
    /// 1 where the trace says when it was there, 0 where only allocations tell.
    pub told: Vec<u8>,
}

/// Maps of segments.
#[derive(Default, Serialize)]
pub struct MapColumns {
    pub process: Vec<usize>,
    pub device: Vec<Option<usize>>,
    pub holder: Vec<&'static str>,
    pub address: Vec<u64>,
    pub size: Vec<u64>,
    /// Tiles of each row.
    pub tiles: Vec<usize>,
    pub tile_size: Vec<u64>,
    pub tile_used: Vec<u64>,
    pub tile_blocks: Vec<u64>,
    /// Who made its largest block, and one; 0 nobody.
    pub tile_key: Vec<u32>,
    pub samples: Vec<SampleRow>,
}

/// The rows of one moment.
#[derive(Serialize)]
pub struct SampleRow {
    pub process: usize,
    pub time: u64,
    pub rows: Vec<u32>,
    pub left_out: usize,
}

impl MapColumns {
    /// Of all maps; `device` says the id of a process's device, `offsets` when processes began.
    pub fn of(
        maps: &Maps,
        offsets: &[u64],
        mut device: impl FnMut(usize, u8) -> Option<usize>,
    ) -> MapColumns {
        let mut columns = MapColumns::default();
        for row in &maps.rows {
            columns.process.push(row.process);
            columns.device.push(device(row.process, row.device));
            columns.holder.push(row.holder.name());
            columns.address.push(row.address);
            columns.size.push(row.size);
            columns.tiles.push(row.tiles.len());
            for tile in &row.tiles {
                columns.tile_size.push(tile.size);
                columns.tile_used.push(tile.used);
                columns.tile_blocks.push(tile.blocks);
                columns.tile_key.push(tile.key.wrapping_add(1));
            }
        }
        let samples = maps.samples.iter().map(|sample| SampleRow {
            process: sample.process,
            time: offsets[sample.process].saturating_add(sample.time),
            rows: sample.rows.clone(),
            left_out: sample.left_out,
        });
        columns.samples = samples.collect();
        columns
    }
}

/// Puts spans into columns.
pub fn spans(spans: &[Span]) -> [Vec<i64>; 3] {
    let mut columns: [Vec<i64>; 3] = Default::default();
    let mut before = 0u64;
    for span in spans {
        for (column, value) in columns.iter_mut().zip([span.min, span.max, span.last]) {
            column.push(value.wrapping_sub(before) as i64);
        }
        before = span.last;
    }
    columns
}

/// The sums of all keys that cells know.
pub fn of_cells(cells: &[(u32, u32, Cell)], keys: &Keys) -> Vec<Cell> {
    let mut sums = vec![Cell::default(); keys.all.len()];
    for (key, _, cell) in cells {
        sums[*key as usize].merge(cell);
    }
    sums
}
