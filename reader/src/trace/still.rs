//! The trace of a running process as a file that stands still: the consistent copy of its tables,
//! and of its rings the events up to that copy's last one, laid out as the recorder does.

use super::Trace;
use super::sections::Extent;
use super::source::Through;
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use vramtrace_format::journal::Journal;
use vramtrace_format::layout::{Header, PAGE};
use vramtrace_format::live::is_live;
use vramtrace_format::record::Record;
use vramtrace_format::{Section, layout::SectionEntry};

/// Bytes that are copied at once.
const BUFFER: usize = 1 << 20;

impl Trace {
    /// Writes what this trace was at the moment of its copy into an empty file, in as many bytes as
    /// the trace has (most of them holes). Where the ring lost events to the writer meanwhile, the
    /// file's ring is as short as what was left.
    pub fn write_still(&self, file: &File) -> io::Result<()> {
        let sections = self.sections();
        let mut header = sections.header;
        let mut control = self.copy.control;
        file.set_len(header.file_size)?;
        for lane in 0..2 {
            let (rows, written) = self.write_ring(lane, file)?;
            control.ring_written[lane] = written;
            let kind = [Section::RingDevice, Section::RingFramework][lane];
            if rows != sections.ring(lane).rows {
                shorten(&mut header, kind, rows);
            }
        }
        let mut first = vec![0; PAGE as usize];
        self.bytes(0, &mut first)?;
        first[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        file.write_all_at(&first, 0)?;
        let journal = Journal {
            // Complete, up to this event.
            state: match self.copy.seq {
                0 => 0,
                seq => seq << 8 | 0xff,
            },
            ..Journal::zeroed()
        };
        put(file, sections.of(Section::Control), &[control])?;
        put(file, sections.of(Section::Journal), &[journal])?;
        put(file, sections.of(Section::Accounts), &self.copy.accounts)?;
        put(file, sections.of(Section::Stacks), &self.stacks)?;
        put(file, sections.of(Section::Totals), &self.copy.totals)?;
        put(file, sections.of(Section::Footprints), &self.footprints)?;
        put(file, sections.of(Section::Reported), &self.reported)?;
        put(file, sections.of(Section::Ranges), &self.range_counts)?;
        for lane in 0..2 {
            let is_here = |row: &&Record| row.lane() == lane;
            let rows: Vec<Record> = self.copy.live.iter().filter(is_here).copied().collect();
            let live = rows.iter().filter(|row| is_live(row.op)).count() as u64;
            let extent = sections.live(lane);
            if live > extent.rows {
                return Err(io::Error::other(
                    "its live table is fuller than it has room",
                ));
            }
            put(file, extent, &rows)?;
        }
        let cold = Extent {
            rows: control.cold_used.min(sections.of(Section::Cold).rows),
            ..sections.of(Section::Cold)
        };
        self.copy_plain(cold, file)?;
        self.copy_plain(sections.of(Section::Sampling), file)?;
        let (history, curves) = (sections.of(Section::History), sections.of(Section::Curves));
        match &self.copy.past {
            Some(past) => {
                put(file, history, &past.history)?;
                put(file, curves, &past.curves)?;
            }
            None => {
                self.copy_plain(history, file)?;
                self.copy_plain(curves, file)?;
            }
        }
        Ok(())
    }

    /// Copies bytes as they are at this moment.
    fn copy_plain(&self, extent: Extent, file: &File) -> io::Result<()> {
        let (mut at, end) = (extent.offset, extent.at(extent.rows));
        let mut buffer = vec![0; BUFFER];
        while at < end {
            let part = &mut buffer[..BUFFER.min((end - at) as usize)];
            self.source.bytes(at, part)?;
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes one ring; returns its rows and how many events were ever written to it.
    fn write_ring(&self, lane: usize, file: &File) -> io::Result<(u64, u64)> {
        let ring = self.sections().ring(lane);
        // In their order, behind each other: where each belongs is known when all are there.
        let scratch = tempfile::tempfile()?;
        let mut out = BufWriter::new(&scratch);
        let mut kept = 0u64;
        for event in self.events_of(lane) {
            out.write_all(bytemuck::bytes_of(&event))?;
            kept += 1;
        }
        out.flush()?;
        drop(out);
        let kept = kept.min(ring.rows);
        let written = self.written_by_then(lane)?.max(kept);
        if kept == 0 {
            // What was written and is gone all the same stays counted.
            return Ok((if written == 0 { ring.rows } else { 0 }, written));
        }
        // The ring has wrapped, or the first events are gone: it begins anew at its end.
        let rows = if kept == written { ring.rows } else { kept };
        let first = written.saturating_sub(kept) % rows;
        let size = ring.row_size;
        let mut buffer = vec![0; BUFFER / size as usize * size as usize];
        let mut done = 0;
        while done < kept {
            let to = (first + done) % rows;
            let most = (kept - done).min(rows - to).min(buffer.len() as u64 / size);
            let part = &mut buffer[..(most * size) as usize];
            scratch.read_exact_at(part, done * size)?;
            file.write_all_at(part, ring.at(to))?;
            done += most;
        }
        Ok((rows, written))
    }

    /// Events of a ring up to the copy's event: the counters were read after the tables.
    pub(super) fn written_by_then(&self, lane: usize) -> io::Result<u64> {
        let ring = self.sections.ring(lane);
        let written = self.copy.control.ring_written[lane];
        if !self.copy.moving || ring.rows == 0 || ring.rows != ring.promised {
            return Ok(written);
        }
        let mut by_then = written;
        while by_then > written.saturating_sub(ring.rows) {
            let at = ring.at((by_then - 1) % ring.rows);
            let mut seq = [0];
            self.source.words(Through::Calls, at, &mut seq)?;
            if seq[0] <= self.copy.seq && seq[0] != 0 {
                break;
            }
            by_then -= 1;
        }
        Ok(by_then)
    }
}

/// Rows at the start of a section; what has no room there is left out.
fn put<T: Pod>(file: &File, extent: Extent, rows: &[T]) -> io::Result<()> {
    let rows = &rows[..rows.len().min(extent.rows as usize)];
    file.write_all_at(bytemuck::cast_slice(rows), extent.offset)
}

fn shorten(header: &mut Header, kind: Section, rows: u64) {
    let known = |entry: &&mut SectionEntry| entry.kind == kind as u32;
    for entry in header.sections.iter_mut().filter(known) {
        entry.length = rows * u64::from(entry.entry_size);
    }
}
