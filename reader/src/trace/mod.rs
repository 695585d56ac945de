//! Opening a trace file: checks its header, makes a consistent copy of its tables (also while it
//! is being written), and reads events and history on demand.
//!
//! In: a path. Out: a [`Trace`] whose parts belong to one moment, or an [`OpenError`] that says
//! what is wrong. A live file is never seen as memory of ours, and nothing in a file can make the
//! reader panic, loop, or take memory beyond a fixed multiple of what the file really holds.

mod append;
mod copy;
mod curves;
mod error;
mod events;
pub mod find;
mod glance;
mod kept;
mod recover;
mod roll;
mod sections;
mod snapshot;
mod source;
mod still;

pub use append::{Refusal, append};
pub use copy::{Copy, Past};
pub use curves::{Curve, OpenSpan};
pub use error::{OpenError, Problem};
pub use events::{Events, Reach};
pub use glance::{Glance, Sums};
pub use sections::{Extent, MAX_FILE, Sections};
pub use source::Piece;

use bytemuck::Zeroable;
use source::{Source, Through};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::footprint::Footprint;
use vramtrace_format::history::Cell;
use vramtrace_format::layout::Header;
use vramtrace_format::reported::Reported;
use vramtrace_format::sampling::Sampling;
use vramtrace_format::{Record, Section};

/// Something in a file that is not as it should be, though it gave an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// One sentence: what, where.
    pub what: String,
    /// Whether the live set, and with it leaks, may be wrong because of it.
    pub affects_live: bool,
}

/// An opened trace.
pub struct Trace {
    /// Where it was opened.
    pub path: PathBuf,
    /// Bytes the file has.
    pub file_len: u64,
    /// Tables, as of one event.
    pub copy: Copy,
    /// What a framework itself said that it holds, by device, with which event.
    pub reported: Vec<Reported>,
    /// Cold records, in order.
    pub cold: Vec<Cold>,
    /// Complete words of the stack table.
    pub stacks: Vec<u64>,
    /// What the driver holds for itself, by device; none in traces that do not say.
    pub footprints: Vec<Footprint>,
    /// How often each NVTX range was entered, by its id; see [`Section::Ranges`].
    pub range_counts: Vec<u64>,
    /// What was sampled when, and what stacks cost; `None` in traces that do not say.
    pub sampling: Option<Box<Sampling>>,
    /// What is wrong with the file.
    pub damage: Vec<Damage>,
    sections: Sections,
    source: Source,
}

impl Trace {
    /// Opens and copies a trace.
    pub fn open(path: &Path) -> Result<Trace, OpenError> {
        Trace::read(path).map_err(|problem| OpenError::new(path, problem))
    }

    fn read(path: &Path) -> Result<Trace, Problem> {
        // Not blocking: a fifo with a trace's name must not hang us.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(Problem::Io)?;
        let metadata = file.metadata().map_err(Problem::Io)?;
        if !metadata.is_file() {
            return Err(Problem::NotAFile);
        }
        Trace::of(path, Source::new(file, metadata.len()))
    }

    /// Opens a trace of `len` bytes that lies in the file of an archive, in these pieces (in order,
    /// not overlapping). `path` is what reports call it.
    pub(crate) fn open_within(
        path: &Path,
        file: File,
        len: u64,
        pieces: Vec<Piece>,
    ) -> Result<Trace, OpenError> {
        Trace::of(path, Source::within(file, len, pieces))
            .map_err(|problem| OpenError::new(path, problem))
    }

    fn of(path: &Path, source: Source) -> Result<Trace, Problem> {
        let sections = Sections::read(&source)?;
        // First: what it says is of an event that the tables have, too.
        let reported = sections.reported(&source).map_err(Problem::Io)?;
        let copy = copy::copy(&source, &sections).map_err(Problem::Io)?;
        let mut trace = Trace {
            path: path.to_owned(),
            file_len: source.len(),
            copy,
            reported,
            cold: Vec::new(),
            stacks: Vec::new(),
            footprints: Vec::new(),
            range_counts: Vec::new(),
            sampling: None,
            damage: Vec::new(),
            sections,
            source,
        };
        trace.note_cut();
        // Read last: whatever a row refers to was complete before the row was.
        trace.read_cold().map_err(Problem::Io)?;
        trace.read_stacks().map_err(Problem::Io)?;
        let footprints = trace.sections.footprints(&trace.source);
        trace.footprints = footprints.map_err(Problem::Io)?;
        trace.read_range_counts().map_err(Problem::Io)?;
        let sampling = trace.sections.sampling(&trace.source);
        trace.sampling = sampling.map_err(Problem::Io)?;
        Ok(trace)
    }

    /// Copies plain bytes of the file, as they are at this moment.
    pub fn bytes(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.source.bytes(offset, into)
    }

    /// Opens only what names the frames of its stacks: there are no sums, no live entries, and no events.
    pub fn open_for_names(path: &Path) -> Result<Trace, OpenError> {
        Trace::read_names(path).map_err(|problem| OpenError::new(path, problem))
    }

    fn read_names(path: &Path) -> Result<Trace, Problem> {
        let file = File::open(path).map_err(Problem::Io)?;
        let file_len = file.metadata().map_err(Problem::Io)?.len();
        let source = Source::new(file, file_len);
        let sections = Sections::read(&source)?;
        let mut control = sections.control(&source).map_err(Problem::Io)?;
        control.ring_written = [0; 2];
        let mut trace = Trace {
            path: path.to_owned(),
            file_len,
            copy: Copy {
                seq: 0,
                control,
                accounts: Vec::new(),
                live: Vec::new(),
                totals: Vec::new(),
                recovered: None,
                moving: false,
                inexact: None,
                past: None,
            },
            reported: Vec::new(),
            cold: Vec::new(),
            stacks: Vec::new(),
            footprints: Vec::new(),
            range_counts: Vec::new(),
            sampling: None,
            damage: Vec::new(),
            sections,
            source,
        };
        trace.read_cold().map_err(Problem::Io)?;
        trace.read_stacks().map_err(Problem::Io)?;
        Ok(trace)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.sections.header
    }

    /// Where everything is.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// All events that the rings still have, oldest first, up to the copy's last event.
    pub fn events(&self) -> Events<'_> {
        Events::new(&self.source, &self.sections, &self.copy)
    }

    /// The events of one ring: 0 device layer and control, 1 framework layer.
    pub fn events_of(&self, lane: usize) -> impl Iterator<Item = Record> + '_ {
        self.events().only(lane.min(1))
    }

    /// How far back a ring reaches.
    pub fn reach(&self, lane: usize) -> Reach {
        let ring = self.sections.ring(lane);
        let written = self.copy.control.ring_written[lane];
        Reach {
            capacity: ring.rows,
            written,
            overwritten: written.saturating_sub(ring.rows),
        }
    }

    /// The history section, as it is at this moment.
    pub fn history(&self) -> io::Result<Vec<Cell>> {
        if let Some(past) = &self.copy.past {
            return Ok(past.history.clone());
        }
        let extent = self.sections.of(Section::History);
        let mut cells = vec![Cell::zeroed(); extent.rows as usize];
        self.source.words(
            Through::Calls,
            extent.offset,
            bytemuck::cast_slice_mut(&mut cells),
        )?;
        Ok(cells)
    }

    fn damaged(&mut self, what: String, affects_live: bool) {
        self.damage.push(Damage { what, affects_live });
    }

    fn note_cut(&mut self) {
        let cut: Vec<(Section, Extent)> = self.sections.cut().collect();
        let (have, whole) = (self.file_len, self.sections.header.file_size);
        if have < whole {
            self.damaged(
                format!("the file is cut off: {have} of {whole} bytes are there"),
                false,
            );
        }
        for (section, extent) in cut {
            let affects_live = matches!(
                section,
                Section::LiveDevice | Section::LiveFramework | Section::Totals
            );
            let what = if extent.row_size == 0 {
                format!("section {section:?} is missing")
            } else {
                format!(
                    "of section {section:?} only {} of {} entries are there",
                    extent.rows, extent.promised
                )
            };
            // The writer's own index is of no use to a reader.
            if section != Section::StackIndex {
                self.damaged(what, affects_live);
            }
        }
    }

    fn read_cold(&mut self) -> io::Result<()> {
        let extent = self.sections.of(Section::Cold);
        let used = self.copy.control.cold_used;
        let mut bytes = vec![0; used.min(extent.rows) as usize];
        self.source.bytes(extent.offset, &mut bytes)?;
        if used > extent.promised {
            self.damaged(
                format!(
                    "its cold section claims {used} of {} bytes",
                    extent.promised
                ),
                false,
            );
        }
        let mut records = cold::records(&bytes);
        self.cold = records.by_ref().collect();
        if let Some(at) = records.damaged_at() {
            self.damaged(
                format!(
                    "a cold record at byte {} makes no sense; names recorded after it are missing",
                    extent.offset + at as u64
                ),
                false,
            );
        }
        Ok(())
    }

    fn read_stacks(&mut self) -> io::Result<()> {
        let extent = self.sections.of(Section::Stacks);
        let used = self.copy.control.stack_words;
        let mut words = vec![0; used.min(extent.rows) as usize];
        self.source
            .words(Through::Calls, extent.offset, &mut words)?;
        if used > extent.promised {
            self.damaged(
                format!(
                    "its stack section claims {used} of {} words",
                    extent.promised
                ),
                false,
            );
        }
        self.stacks = words;
        Ok(())
    }

    fn read_range_counts(&mut self) -> io::Result<()> {
        /// Many more than any version writes.
        const MOST: u64 = 1 << 20;
        let extent = self.sections.of(Section::Ranges);
        let mut counts = vec![0; extent.rows.min(MOST) as usize];
        if !counts.is_empty() {
            self.source
                .words(Through::Calls, extent.offset, &mut counts)?;
        }
        self.range_counts = counts;
        Ok(())
    }
}
