//! The page of `vramtrace report`: one HTML file that shows traces in a browser.
//!
//! In: processes. Out: a document that is as large as screens need, whatever the number of events
//! ([`Page::of`]), and the HTML around it ([`Page::write`]). Everything on the page is computed here
//! or by the analyses that the other commands show; the page's program (`reader/page`) adds up and
//! draws. What came from the traced program never becomes part of the HTML: the document is
//! compressed and encoded, and the page's program puts texts into the page as texts.

mod answers;
mod budget;
mod cells;
mod document;
mod gauge;
mod html;
mod keys;
mod maps;
mod names;
mod pass;
mod picks;

pub use answers::Answers;
pub use budget::Budget;
pub use html::document;

use crate::analysis::Filter;
use crate::analysis::head::Head;
use crate::analysis::leaks::{Point, Window};
use crate::analysis::timeline::{Timeline, timeline};
use crate::analysis::view::Devices;
use crate::model::Process;
use crate::report::frames::Frames;
use crate::report::words::{count, counted, duration};
use cells::Cells;
use document::*;
use keys::Keys;
use names::Texts;
use pass::{Gathered, Passed, Share, pass};
use rustc_hash::FxHashSet;
use std::io::{self, Write};
use vramtrace_format::record::NO_DEVICE;

/// A page, ready to be written.
pub struct Page {
    document: Document,
    answers: Answers,
}

impl Page {
    /// Draws up the page of these processes. `tick` hears of every event.
    pub fn of(
        processes: &[Process],
        answers: Answers,
        budget: &Budget,
        frames: &mut Frames,
        mut tick: impl FnMut(),
    ) -> io::Result<Page> {
        let start = |process: &Process| process.trace.header().start_unix_ns;
        let base = processes.iter().map(start).min().unwrap_or(0);
        let offsets: Vec<u64> = processes.iter().map(|p| start(p) - base).collect();
        let ends = processes.iter().zip(&offsets);
        let ends = ends.map(|(process, offset)| offset.saturating_add(process.duration_ns()));
        let length = ends.max().unwrap_or(0);
        let accounts: usize = processes.iter().map(|p| p.accounts().count()).sum();
        let share = Share {
            accounts,
            processes: processes.len(),
            spans: budget.spans_of(accounts + processes.len()),
        };
        let timeline = timeline(processes, &[], &Filter::default(), share.spans)?;
        let mut gathered = Gathered {
            keys: Keys::default(),
            cells: Cells::new(length, budget.buckets, budget.cells),
            maps: maps::Maps::new(budget.tiles),
        };
        let mut passed = Vec::new();
        for (id, process) in processes.iter().enumerate() {
            let offset = offsets[id];
            let to = &mut gathered;
            passed.push(pass(id, process, offset, to, budget, &share, &mut tick));
            let mut caches = crate::analysis::usage::Caches::of(process);
            gathered.keys.learn(id, process, &mut caches);
        }
        gathered.maps.finish();
        let mut page = Assembling {
            processes,
            offsets: &offsets,
            budget,
            texts: Texts::new(budget.name),
            devices: Devices::default(),
            thinned: Vec::new(),
        };
        let mut document = page.document(base, length, gathered, passed, timeline, frames);
        document.warnings.extend_from_slice(answers.warnings());
        document.warnings.sort_unstable();
        document.warnings.dedup();
        Ok(Page { document, answers })
    }

    /// The document, as the page's program gets it.
    pub fn json(&self) -> String {
        self.answers.beside(&self.document)
    }

    /// Files whose symbols could not be had; sentences.
    pub fn warnings(&self) -> &[String] {
        &self.document.warnings
    }

    /// What was left out for want of room; sentences.
    pub fn thinned(&self) -> &[String] {
        &self.document.thinned
    }

    /// Writes the HTML.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        html::write(&self.json(), out)
    }
}

/// A page while it is put together.
struct Assembling<'a> {
    processes: &'a [Process],
    offsets: &'a [u64],
    budget: &'a Budget,
    texts: Texts,
    devices: Devices,
    thinned: Vec<String>,
}

impl Assembling<'_> {
    fn document(
        &mut self,
        base: u64,
        length: u64,
        gathered: Gathered,
        mut passed: Vec<Passed>,
        timeline: Timeline,
        frames: &mut Frames,
    ) -> Document {
        let head = Head::of(self.processes, &mut self.devices);
        let Gathered {
            mut keys,
            cells,
            mut maps,
        } = gathered;
        let (buckets, width, mut cells) = cells.finish();
        let (numbers, fewer) = keys.merge(self.budget.keys);
        if fewer > 0 {
            self.thinned.push(format!(
                "{} with the fewest bytes are shown as one of each process, device and kind",
                counted(fewer as u64, "stack")
            ));
            let new = |key: u32| numbers[key as usize];
            for (key, ..) in &mut cells {
                *key = new(*key);
            }
            cells.sort_unstable_by_key(|(key, bucket, _)| (*key, *bucket));
            cells.dedup_by(|next, kept| {
                let same = (next.0, next.1) == (kept.0, kept.1);
                if same {
                    kept.2.merge(&next.2);
                }
                same
            });
            let pieces = passed.iter_mut().flat_map(|of| &mut of.tracks);
            let pieces = pieces.flat_map(|track| &mut track.pieces);
            pieces.for_each(|piece| piece.key = new(piece.key));
            let tiles = maps.rows.iter_mut().flat_map(|row| &mut row.tiles);
            let owned = tiles.filter(|tile| tile.key != maps::NOBODY);
            owned.for_each(|tile| tile.key = new(tile.key));
        }
        let named = names::name(self.processes, &keys, &mut self.texts, frames);
        let series = self.series(base, &timeline, &passed);
        let (offsets, processes) = (self.offsets, self.processes);
        let devices = &mut self.devices;
        let mut device = |process: usize, index: u8| {
            (index != NO_DEVICE).then(|| devices.id_of(&processes[process], process, index))
        };
        let map_columns = MapColumns::of(&maps, offsets, &mut device);
        let mut tracks = Vec::new();
        for (id, of) in passed.iter().enumerate() {
            for track in &of.tracks {
                let device = track.device.and_then(|index| device(id, index));
                tracks.push(TrackColumns::of(id, device, offsets[id], track));
            }
        }
        let key_columns = self.keys(&keys, &named.nodes, &document::of_cells(&cells, &keys));
        let (threads, ranges) = self.names(&passed);
        let (slices, marks) = (self.slices(&passed), self.marks(&timeline));
        let smi = self.smi();
        self.say_what_was_thinned(&tracks, &maps, &passed, buckets, width);
        Document {
            schema: "vramtrace.page/1",
            version: env!("CARGO_PKG_VERSION"),
            base_ns: base.to_string(),
            duration_ns: length,
            processes: self.process_rows(&head, &passed),
            devices: self
                .devices
                .all
                .iter()
                .map(|device| DeviceRow {
                    uuid: device.uuid.clone(),
                    name: device.name.clone(),
                    index: device.index,
                    total_bytes: device.total_bytes,
                })
                .collect(),
            series,
            smi,
            frames: named.frames,
            tree: named.tree,
            keys: key_columns,
            cells: CellColumns::of(buckets, width, &cells, keys.all.len()),
            tracks,
            threads,
            ranges,
            slices,
            marks,
            maps: map_columns,
            sampled: self.processes.iter().any(|of| of.sampling.left_out_any()),
            thinned: std::mem::take(&mut self.thinned),
            inexact: head.incomplete_because.clone(),
            notes: head.notes.clone(),
            warnings: named.warnings,
            texts: std::mem::take(&mut self.texts.all),
        }
    }

    fn process_rows(&self, head: &Head, passed: &[Passed]) -> Vec<ProcessRow> {
        let row = |((view, of), process): ((_, &Passed), &Process)| {
            let view: &crate::analysis::view::ProcessView = view;
            let offset = self.offsets[view.id];
            let from = |from: u64| (from != u64::MAX).then(|| offset.saturating_add(from));
            ProcessRow {
                pid: view.pid,
                name: view.name.clone(),
                program: view.program.clone(),
                rank: view.rank,
                host: view.host.clone(),
                start: offset,
                duration: view.duration_ns,
                end: view.end.name(),
                trace: view.trace.to_string_lossy().into_owned(),
                point: Point::suiting(process, None, &Window::default()).name(),
                from: of.from.map(from),
            }
        };
        let views = head.processes.iter().zip(passed);
        views.zip(self.processes).map(row).collect()
    }

    fn series(&mut self, base: u64, timeline: &Timeline, passed: &[Passed]) -> Vec<SeriesRow> {
        let mut rows = Vec::new();
        for series in &timeline.series {
            let offset = self.offsets[series.process];
            let [min, max, last] = spans(&series.spans);
            let exact = series.exact_from;
            rows.push(SeriesRow {
                process: series.process,
                device: series.device,
                what: series.layer.name(),
                // Where the beginning is not known, that is later than the process's.
                start: series.start_ns.saturating_sub(base),
                span: series.span_ns,
                exact_from: (exact != u64::MAX).then(|| offset.saturating_add(exact)),
                peak_bytes: series.peak_bytes,
                peak_at: offset.saturating_add(series.peak_at),
                live_bytes: series.live_bytes,
                min,
                max,
                last,
            });
        }
        for (id, of) in passed.iter().enumerate() {
            let process = &self.processes[id];
            for (index, reserved) in &of.reserved {
                let [min, max, last] = spans(reserved);
                let span = process.duration_ns() / reserved.len().max(1) as u64;
                let span = span.saturating_add(1);
                let peak = reserved.iter().enumerate().rev();
                let peak = peak.max_by_key(|(_, span)| span.max);
                let at = peak.map_or(0, |(at, _)| at as u64);
                rows.push(SeriesRow {
                    process: id,
                    device: Some(self.devices.id_of(process, id, *index)),
                    what: "reserved",
                    start: self.offsets[id],
                    span,
                    exact_from: (of.from[0] != u64::MAX)
                        .then(|| self.offsets[id].saturating_add(of.from[0])),
                    peak_bytes: peak.map_or(0, |(_, span)| span.max),
                    peak_at: self.offsets[id].saturating_add(at.saturating_mul(span)),
                    live_bytes: reserved.last().map_or(0, |span| span.last),
                    min,
                    max,
                    last,
                });
            }
        }
        rows
    }

    fn smi(&mut self) -> Vec<SmiRow> {
        let mut rows = Vec::new();
        for (id, process) in self.processes.iter().enumerate() {
            for (index, of) in &process.device_use {
                // Of neighbours the one that shows most.
                let step = of.samples.len().div_ceil(self.budget.lanes.max(1)).max(1);
                let chosen = of.samples.chunks(step).filter_map(|samples| {
                    let used = |sample: &&crate::model::UseSample| {
                        (sample.process_bytes, sample.used_bytes)
                    };
                    samples.iter().max_by_key(used)
                });
                let chosen: Vec<_> = chosen.collect();
                rows.push(SmiRow {
                    process: id,
                    device: self.devices.id_of(process, id, *index),
                    time: chosen
                        .iter()
                        .map(|sample| self.offsets[id].saturating_add(sample.time))
                        .collect(),
                    process_bytes: chosen.iter().map(|sample| sample.process_bytes).collect(),
                    used_bytes: chosen.iter().map(|sample| sample.used_bytes).collect(),
                });
            }
        }
        rows
    }

    fn keys(&mut self, keys: &Keys, nodes: &[u32], cells: &[cells::Cell]) -> KeyColumns {
        let mut columns = KeyColumns::default();
        for (number, (who, sums)) in keys.all.iter().enumerate() {
            let id = who.process as usize;
            let process = &self.processes[id];
            let layer = who.kind.layer();
            let device = (who.device != NO_DEVICE && layer.name() != "host")
                .then(|| self.devices.id_of(process, id, who.device));
            let merged = who.stack == keys::OTHER;
            let api = process.api(who.api).filter(|_| !merged).unwrap_or("");
            let library = process.library_of(who.stack);
            let library = library.map(|library| library.name).unwrap_or_default();
            columns.process.push(who.process);
            columns.device.push(device);
            columns.kind.push(who.kind.name());
            columns.layer.push(layer.name());
            columns.api.push(self.texts.number(api));
            columns.library.push(self.texts.number(&library));
            columns.node.push(nodes[number]);
            columns.cache.push(u8::from(keys.cache[number]));
            columns.sums(sums, &cells[number], keys.cache[number]);
        }
        columns
    }

    /// Threads and ranges that are spoken of.
    fn names(&mut self, passed: &[Passed]) -> (Vec<NameRow>, Vec<NameRow>) {
        let (mut threads, mut ranges) = (Vec::new(), Vec::new());
        for (id, of) in passed.iter().enumerate() {
            let process = &self.processes[id];
            let pieces = || of.tracks.iter().flat_map(|track| &track.pieces);
            let spoken = pieces().map(|piece| piece.thread);
            let spoken: FxHashSet<u32> = spoken
                .chain(of.slices.iter().map(|slice| slice.thread))
                .collect();
            let row = |texts: &mut Texts, id_in: u32, text: Option<&str>| {
                Some(NameRow {
                    process: id,
                    id: id_in,
                    text: texts.number(text?),
                })
            };
            let texts = &mut self.texts;
            threads.extend(
                spoken
                    .iter()
                    .filter_map(|&of| row(texts, of, process.thread(of))),
            );
            let spoken: FxHashSet<u32> = pieces().map(|piece| piece.range).collect();
            let name = |of: u32| process.ranges.name(of);
            ranges.extend(spoken.iter().filter_map(|&of| row(texts, of, name(of))));
        }
        threads.sort_by_key(|row| (row.process, row.id));
        ranges.sort_by_key(|row| (row.process, row.id));
        (threads, ranges)
    }

    fn slices(&mut self, passed: &[Passed]) -> SliceColumns {
        let mut columns = SliceColumns::default();
        for (id, of) in passed.iter().enumerate() {
            for slice in &of.slices {
                columns.process.push(id);
                columns.thread.push(slice.thread);
                columns.depth.push(slice.depth);
                let name = self.processes[id].ranges.text(slice.range);
                columns
                    .name
                    .push(self.texts.number(name.unwrap_or_default()));
                let start = self.offsets[id].saturating_add(slice.start);
                columns.start.push(start);
                columns.length.push(slice.end - slice.start);
                columns.bytes.push(slice.bytes);
                columns.count.push(slice.count);
                columns.told.push(slice.told.into());
            }
        }
        columns
    }

    fn marks(&mut self, timeline: &Timeline) -> Vec<MarkRow> {
        let all = timeline.marks.len();
        let step = all.div_ceil(self.budget.lanes.max(1)).max(1);
        if step > 1 {
            self.thinned.push(format!(
                "every {step}th of {} marks is shown",
                count(all as u64)
            ));
        }
        let marks = timeline.marks.iter().step_by(step);
        marks
            .map(|mark| MarkRow {
                process: mark.process,
                time: self.offsets[mark.process].saturating_add(mark.at),
                domain: self.texts.number(&mark.domain),
                text: self.texts.number(&mark.text),
            })
            .collect()
    }

    fn say_what_was_thinned(
        &mut self,
        tracks: &[TrackColumns],
        maps: &maps::Maps,
        passed: &[Passed],
        buckets: u32,
        width: u64,
    ) {
        let seen = tracks
            .iter()
            .fold(0u64, |sum, track| sum.saturating_add(track.seen));
        let shown: usize = tracks.iter().map(|track| track.size.len()).sum();
        let finest = tracks.iter().map(|track| track.finest).max();
        if (shown as u64) < seen {
            self.thinned.push(format!(
                "{} of {} allocations are drawn one by one: the {} that take most bytes × time in \
                 every {}, layer by layer; the others are an area for each of the largest stacks, in steps of {}, \
                 and one for all other stacks",
                count(shown as u64),
                count(seen),
                self.budget.in_window,
                duration(finest.unwrap_or(0)),
                duration(width)
            ));
        }
        self.thinned.push(format!(
            "flame graphs and tables of a part of the time count in {buckets} steps of {}",
            duration(width)
        ));
        let left_out: u64 = passed.iter().map(|of| of.ranges_left_out).sum();
        if left_out > 0 {
            self.thinned.push(format!(
                "{} are too short to be drawn",
                counted(left_out, "NVTX range")
            ));
        }
        if maps.left_out > 0 {
            self.thinned.push(format!(
                "maps of segments are missing for {}",
                counted(maps.left_out as u64, "moment")
            ));
        }
        if self.texts.cut > 0 {
            let cut = counted(self.texts.cut, "name");
            let most = self.budget.name;
            self.thinned
                .push(format!("{cut} are cut after {most} characters"));
        }
    }
}
