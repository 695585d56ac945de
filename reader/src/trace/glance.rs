//! The sums of a trace that somebody is writing, read again and again: what a monitor wants.
//!
//! Unlike [`super::Trace`] this keeps the file open, reads neither rings nor live tables, and takes a
//! few kilobytes a trace. Everything goes through `pread`: a file that is cut off meanwhile is an error,
//! not a signal. The accounts are all as of one event. Rows of the totals are read in pieces, each as of
//! one event of its own, unless the writer is faster than they can be copied: then single words of a
//! row may be one event apart.

use super::error::Problem;
use super::kept::{Kept, Run};
use super::sections::{Extent, Sections};
use super::source::{Source, Through};
use bytemuck::Zeroable;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};
use vramtrace_format::Section;
use vramtrace_format::account::Account;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::footprint::Footprint;
use vramtrace_format::journal::{Journal, State};
use vramtrace_format::layout::{Control, Header};
use vramtrace_format::record::Record;
use vramtrace_format::reported::Reported;
use vramtrace_format::sampling::Head as SamplingHead;
use vramtrace_format::totals::Totals;

/// Bytes of totals that are looked through; those of a trace of 4 GiB are fewer.
const MOST_TOTALS: u64 = 512 << 20;
/// Bytes of the cold section that are read at once.
const MOST_COLD: u64 = 64 << 20;
/// Rows that are copied at once, first and when the writer was faster.
const PIECES: [usize; 3] = [512, 64, 8];
/// Tries with pieces of one size.
const TRIES: usize = 3;
/// A word that stands still this long in the middle of an event belongs to a process that is dead or
/// stopped.
const STUCK: Duration = Duration::from_millis(40);

/// An open trace whose sums are read from time to time.
pub struct Glance {
    source: Source,
    sections: Sections,
    cold_read: u64,
    cold_damaged: bool,
    kept: Kept,
}

/// Rows from several places that are read at one moment.
#[derive(Default)]
struct Batch {
    rows: Vec<Totals>,
    used: usize,
    runs: Vec<Run>,
}

/// What was read without the totals.
pub struct Sums {
    /// The last event that is in the accounts.
    pub seq: u64,
    /// Account rows, all as of that event.
    pub accounts: Vec<Account>,
    /// Counters of the process.
    pub control: Control,
    /// What a framework itself said that it holds, by device.
    pub reported: Vec<Reported>,
    /// What the driver holds for itself, by device.
    pub footprints: Vec<Footprint>,
    /// Which stacks were taken, and what that cost; `None` in older traces.
    pub sampling: Option<SamplingHead>,
    /// The process stands in the middle of an event: it was killed or stopped there.
    pub interrupted: bool,
}

impl Glance {
    /// Looks at the header of an open file. What a monitor needs must all be there: a file that was cut
    /// off is refused.
    pub fn open(file: File) -> Result<Glance, Problem> {
        let metadata = file.metadata().map_err(Problem::Io)?;
        if !metadata.is_file() {
            return Err(Problem::NotAFile);
        }
        let source = Source::new(file, metadata.len());
        let sections = Sections::read(&source)?;
        // A copy that is not finished, or a recorder that lost the race with somebody's `truncate`.
        if source.len() < sections.header.file_size {
            return Err(Problem::Truncated {
                have: source.len(),
                whole: sections.header.file_size,
                missing: "the rest",
            });
        }
        if sections.of(Section::Totals).rows * size_of::<Totals>() as u64 > MOST_TOTALS {
            return Err(Problem::TooLarge {
                size: sections.header.file_size,
                limit: MOST_TOTALS,
            });
        }
        Ok(Glance {
            source,
            sections,
            cold_read: 0,
            cold_damaged: false,
            kept: Kept::default(),
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.sections.header
    }

    /// Whether the file still has the length, and the header, that it was opened with.
    pub fn is_whole(&self) -> io::Result<bool> {
        let mut header = Header::zeroed();
        self.source.bytes(0, bytemuck::bytes_of_mut(&mut header))?;
        let same = bytemuck::bytes_of(&header) == bytemuck::bytes_of(self.header());
        Ok(same && self.source.len_now()? == self.source.len())
    }

    /// The open file, once more.
    pub fn file(&self) -> io::Result<File> {
        self.source.file()
    }

    /// The counters, as they are at this moment.
    pub fn control(&self) -> io::Result<Control> {
        self.sections.control(&self.source)
    }

    /// A word that changes with every event that is applied to the tables.
    pub fn word(&self) -> io::Result<u64> {
        let at = self.sections.journal_word();
        self.source.word(Through::Calls, at)
    }

    /// Everything but the totals.
    pub fn sums(&self) -> io::Result<Sums> {
        let reported = self.sections.reported(&self.source)?;
        let mut interrupted = false;
        let begun = Instant::now();
        let mut standing = (0, begun);
        let mut tries = 0;
        let (accounts, seq) = loop {
            let before = self.word()?;
            let settled = complete(before);
            if settled.is_some() || interrupted {
                let accounts = self.sections.accounts(&self.source)?;
                tries += 1;
                // Faster than a page can be copied: each word is still one that was there.
                if self.word()? == before || tries >= 64 {
                    break (accounts, settled.unwrap_or(before >> 8));
                }
                continue;
            }
            if standing.0 != before {
                standing = (before, Instant::now());
            } else if standing.1.elapsed() >= STUCK {
                interrupted = true;
            } else {
                std::thread::yield_now();
            }
            if begun.elapsed() > 8 * STUCK {
                interrupted = true;
            }
        };
        Ok(Sums {
            seq,
            accounts,
            control: self.control()?,
            reported,
            footprints: self.sections.footprints(&self.source)?,
            sampling: self.sections.sampling_head(&self.source)?,
            interrupted,
        })
    }

    /// Shows every used row of the totals. Holes in the file are passed over.
    pub fn totals(&mut self, mut each: impl FnMut(&Totals)) -> io::Result<()> {
        let extent = self.sections.of(Section::Totals);
        let mut kept = std::mem::take(&mut self.kept);
        let mut batch = Batch {
            rows: vec![Totals::zeroed(); PIECES[0]],
            ..Batch::default()
        };
        for run in kept.runs(&self.source, extent)? {
            let mut rest = *run;
            while rest.rows > 0 {
                let room = PIECES[0] - batch.used;
                let rows = (rest.rows as usize).min(room);
                batch.runs.push(Run {
                    first: rest.first,
                    rows: rows as u64,
                });
                batch.used += rows;
                rest = Run {
                    first: rest.first + rows as u64,
                    rows: rest.rows - rows as u64,
                };
                if batch.used == PIECES[0] {
                    self.show(extent, &mut batch, &mut each)?;
                }
            }
        }
        self.show(extent, &mut batch, &mut each)?;
        self.kept = kept;
        Ok(())
    }

    /// Reads what is in a batch, shows it, and leaves it empty.
    fn show(
        &self,
        extent: Extent,
        batch: &mut Batch,
        each: &mut impl FnMut(&Totals),
    ) -> io::Result<()> {
        let Batch { rows, used, runs } = batch;
        let rows = &mut rows[..*used];
        let before = self.word()?;
        let mut at = 0;
        for run in &*runs {
            let into = &mut rows[at..at + run.rows as usize];
            at += into.len();
            let words = bytemuck::cast_slice_mut(into);
            self.source
                .words(Through::Calls, extent.at(run.first), words)?;
        }
        if complete(before).is_none() || self.word()? != before {
            // Somebody was faster: in smaller pieces.
            let mut at = 0;
            for run in &*runs {
                let into = &mut rows[at..at + run.rows as usize];
                at += into.len();
                self.rows(extent, run.first, into)?;
            }
        }
        rows.iter()
            .filter(|row| row.key.used != 0)
            .for_each(&mut *each);
        runs.clear();
        *used = 0;
        Ok(())
    }

    /// Copies some rows, in pieces that nobody changes meanwhile, if that can be had.
    fn rows(&self, extent: Extent, first: u64, into: &mut [Totals]) -> io::Result<()> {
        let mut done = 0;
        'pieces: while done < into.len() {
            for size in PIECES {
                let until = (done + size).min(into.len());
                for _ in 0..TRIES {
                    let before = self.word()?;
                    let words = bytemuck::cast_slice_mut(&mut into[done..until]);
                    let at = extent.at(first + done as u64);
                    self.source.words(Through::Calls, at, words)?;
                    if complete(before).is_some() && self.word()? == before {
                        done = until;
                        continue 'pieces;
                    }
                }
            }
            // The last and smallest piece, as it was found.
            done = (done + PIECES[PIECES.len() - 1]).min(into.len());
        }
        Ok(())
    }

    /// The newest records of a lane's event log that are newer than event `after`, oldest first, at most
    /// so many. What is being overwritten meanwhile is left out.
    pub fn recent(&self, lane: usize, after: u64, most: u64) -> io::Result<Vec<Record>> {
        let extent = self.sections.ring(lane);
        if extent.rows == 0 {
            return Ok(Vec::new());
        }
        let written = self.control()?.ring_written[lane];
        let count = written.min(extent.rows).min(most);
        let mut found = vec![Record::zeroed(); count as usize];
        let first = written - count;
        let at = first % extent.rows;
        // The log goes round: what is behind its end continues at its beginning.
        let straight = count.min(extent.rows - at) as usize;
        let (tail, head) = found.split_at_mut(straight);
        for (row, into) in [(at, tail), (0, head)] {
            if !into.is_empty() {
                let words = bytemuck::cast_slice_mut(into);
                self.source.words(Through::Calls, extent.at(row), words)?;
            }
        }
        let now = self.control()?.ring_written[lane];
        let overwritten = now
            .saturating_add(1)
            .saturating_sub(extent.rows)
            .saturating_sub(first);
        let mut at = 0;
        found.retain(|record| {
            at += 1;
            at > overwritten && record.seq > after
        });
        Ok(found)
    }

    /// Shows the cold records that came since the last time; `control` is as it was read before.
    pub fn news(&mut self, control: &Control, each: impl FnMut(Cold)) -> io::Result<()> {
        let extent = self.sections.of(Section::Cold);
        let until = control.cold_used.min(extent.rows);
        if until <= self.cold_read || self.cold_damaged {
            return Ok(());
        }
        let length = (until - self.cold_read).min(MOST_COLD);
        let mut bytes = vec![0; length as usize];
        self.source
            .bytes(extent.offset + self.cold_read, &mut bytes)?;
        let mut records = cold::records(&bytes);
        records.by_ref().for_each(each);
        self.cold_damaged = records.damaged_at().is_some();
        self.cold_read += length;
        Ok(())
    }
}

/// The event that the journal's word says is completely applied, if it says so.
fn complete(word: u64) -> Option<u64> {
    let journal = Journal {
        state: word,
        ..Journal::zeroed()
    };
    match journal.state() {
        State::Complete { seq } => Some(seq),
        State::Interrupted { .. } => None,
    }
}
