//! A consistent copy of the tables of a trace that may be changing.
//!
//! The writer is never stopped. Its journal's word says which event is completely applied, or
//! that one is being applied. Rows are copied in pieces, and a piece counts only if the word was
//! complete and the same before and after it; that tags the piece with an event. The copy is then
//! brought to one common event by applying what the rings say happened in between
//! ([`super::roll`]).
//!
//! A file whose word stands still in the middle of an event (its process was killed or stopped
//! there) is copied as it is, and the event is taken back and applied again in the copy
//! ([`super::recover`]).

use super::recover;
use super::roll;
use super::sections::{Extent, Sections};
use super::source::{Source, Through};
use bytemuck::{Pod, Zeroable};
use std::io;
use std::time::{Duration, Instant};
use vramtrace_format::account::Account;
use vramtrace_format::history::Cell;
use vramtrace_format::journal::{Journal, State};
use vramtrace_format::layout::Control;
use vramtrace_format::live::is_vacant;
use vramtrace_format::record::Record;
use vramtrace_format::totals::Totals;
use vramtrace_format::{Section, layout};

/// The tables of a trace, all as of one event.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The last event that is in it.
    pub seq: u64,
    /// Counters of the process; read last, so a running process may be ahead of `seq` in them.
    pub control: Control,
    /// Account rows.
    pub accounts: Vec<Account>,
    /// Live entries, and those that were freed in teardown and are still kept.
    pub live: Vec<Record>,
    /// Used rows.
    pub totals: Vec<Totals>,
    /// The event that a kill had interrupted and that was applied again.
    pub recovered: Option<u64>,
    /// History and curves with that event in them, if there was one.
    pub past: Option<Past>,
    /// The file changed while it was being copied.
    pub moving: bool,
    /// Why the parts may not fit together, if they may not.
    pub inexact: Option<String>,
}

/// What a trace knows of the time before its rings begin.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Cells of the history section.
    pub history: Vec<Cell>,
    /// Words of the section of curves.
    pub curves: Vec<u64>,
}

/// Most rows that are copied at once.
const PIECE: usize = 2048;
/// Tries with a piece of one size before it is halved.
const TRIES: u32 = 3;
/// Whole copies that are begun before giving an inexact answer.
const ATTEMPTS: u32 = 6;
/// A word that stands still this long in the middle of an event belongs to a dead or stopped
/// process. (An event takes microseconds; a preempted writer is back within this.)
const STUCK: Duration = Duration::from_millis(40);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why one attempt came to nothing.
pub(super) enum Failed {
    /// The system said no.
    Io(io::Error),
    /// The writer was faster.
    Overtaken(&'static str),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

/// Copies the tables. Fails only if the file cannot be read.
pub fn copy(source: &Source, sections: &Sections) -> io::Result<Copy> {
    let mut copier = Copier {
        source,
        sections,
        through: Through::Calls,
        moving: false,
    };
    let mut reason = "";
    for _ in 0..ATTEMPTS {
        match copier.attempt() {
            Ok(copy) => return Ok(copy),
            Err(Failed::Io(error)) => return Err(error),
            Err(Failed::Overtaken(why)) => reason = why,
        }
    }
    let mut copy = copier.as_it_is()?;
    copy.inexact = Some(format!(
        "the program allocates faster than its trace can be copied ({reason}); a larger \
         VRAMTRACE_SIZE keeps more events to catch up with"
    ));
    Ok(copy)
}

pub(super) struct Copier<'a> {
    pub source: &'a Source,
    pub sections: &'a Sections,
    pub through: Through,
    moving: bool,
}

/// What the journal's word settled on.
enum Settled {
    /// This event and all before it are applied.
    Complete(u64),
    /// In the middle of an event, and not moving.
    Stuck(u64),
}

impl Copier<'_> {
    fn word(&self) -> io::Result<u64> {
        self.source.word(self.through, self.sections.journal_word())
    }

    fn attempt(&mut self) -> Result<Copy, Failed> {
        if let Settled::Stuck(word) = self.settle()? {
            return self.interrupted(word);
        }
        let dropped = dropped_count(self.source, self.sections)?;
        // Accounts first: they give each later event its peak epoch.
        let (accounts, account_tags) = self.tagged::<Account>(Section::Accounts)?;
        let mut live = Vec::new();
        for lane in 0..2 {
            self.guarded(self.sections.live(lane), |_, rows: &[Record], _| {
                live.extend(rows.iter().filter(|row| is_kept(row)));
            })?;
        }
        let (totals, totals_tags) = self.tagged::<Totals>(Section::Totals)?;
        let start = account_tags.oldest();
        let Settled::Complete(end) = self.settle()? else {
            return Err(Failed::Overtaken("it stopped meanwhile"));
        };
        if end == start && self.unapplied(end)? {
            let word = self.word()?;
            return self.interrupted(word);
        }
        let mut copy = Copy {
            seq: end,
            control: Control::zeroed(),
            accounts,
            live,
            totals,
            recovered: None,
            past: None,
            moving: self.moving || end != start,
            inexact: None,
        };
        if end != start {
            let events = roll::events_between(self, start, end)?;
            roll::forward(&mut copy, &account_tags, &totals_tags, &events);
            if dropped_count(self.source, self.sections)? != dropped {
                copy.inexact = Some(
                    "allocations found no room in the live table while it was copied".to_owned(),
                );
            }
        }
        copy.totals.retain(|row| row.key.used != 0);
        copy.control = self.sections.control(self.source)?;
        Ok(copy)
    }

    /// Waits until no event is being applied.
    fn settle(&mut self) -> io::Result<Settled> {
        let mut word = self.word()?;
        let mut since = Instant::now();
        let mut misses = 0u32;
        loop {
            if let Some(seq) = complete(word) {
                return Ok(Settled::Complete(seq));
            }
            let now = self.word()?;
            if now != word {
                since = Instant::now();
                word = now;
                self.moved();
            } else if since.elapsed() >= STUCK {
                return Ok(Settled::Stuck(word));
            } else if misses > 64 {
                std::thread::sleep(Duration::from_millis(1));
            }
            misses = misses.saturating_add(1);
        }
    }

    /// All rows of a section, and which event each is as of.
    fn tagged<T: Pod>(&mut self, section: Section) -> Result<(Vec<T>, Tags), Failed> {
        let extent = self.sections.of(section);
        let mut all = vec![T::zeroed(); extent.rows as usize];
        let mut tags = Tags::default();
        self.guarded(extent, |at, rows: &[T], seq| {
            all[at..at + rows.len()].copy_from_slice(rows);
            tags.push(at, seq);
        })?;
        Ok((all, tags))
    }

    fn moved(&mut self) {
        self.moving = true;
        self.through = Through::Mapping;
    }

    /// Copies all rows of a section in pieces, each tagged with the event it is as of.
    fn guarded<T: Pod>(
        &mut self,
        extent: Extent,
        mut sink: impl FnMut(usize, &[T], u64),
    ) -> Result<(), Failed> {
        let rows = extent.rows as usize;
        let mut buffer = vec![T::zeroed(); PIECE.min(rows)];
        let (mut at, mut piece, mut tries) = (0, PIECE, 0);
        let begun = Instant::now();
        let mut last_word = (0, begun);
        while at < rows {
            let count = piece.min(rows - at);
            let before = self.word()?;
            if let Some(seq) = complete(before) {
                let into = bytemuck::cast_slice_mut(&mut buffer[..count]);
                self.source
                    .words(self.through, extent.at(at as u64), into)?;
                if self.word()? == before {
                    sink(at, &buffer[..count], seq);
                    at += count;
                    piece = (piece * 2).min(PIECE);
                    tries = 0;
                    continue;
                }
                tries += 1;
                if tries >= TRIES {
                    piece = (count / 2).max(1);
                    tries = 0;
                }
                if begun.elapsed() >= PATIENCE {
                    return Err(Failed::Overtaken("its tables never stand still"));
                }
                self.moved();
            } else if before == last_word.0 {
                if last_word.1.elapsed() >= STUCK {
                    return Err(Failed::Overtaken("it stopped meanwhile"));
                }
                std::thread::yield_now();
            }
            if before != last_word.0 {
                last_word = (before, Instant::now());
            }
        }
        Ok(())
    }

    /// Whether the event after `seq` lies complete in a ring and nobody begins to apply it.
    fn unapplied(&self, seq: u64) -> io::Result<bool> {
        let control = self.sections.control(self.source)?;
        let waiting = || -> io::Result<bool> {
            for lane in 0..2 {
                if recover::newest(self.source, self.sections, lane, &control)?
                    .iter()
                    .any(|record| Some(record.seq) == seq.checked_add(1))
                {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if !waiting()? {
            return Ok(false);
        }
        std::thread::sleep(STUCK);
        Ok(complete(self.word()?) == Some(seq) && waiting()?)
    }

    /// Copies a file that stands still with an event to be applied (again).
    fn interrupted(&mut self, word: u64) -> Result<Copy, Failed> {
        let control = self.sections.control(self.source)?;
        let copy = recover::recovered(self.source, self.sections)?;
        let after = self.sections.control(self.source)?;
        if self.word()? != word || after.ring_written != control.ring_written {
            return Err(Failed::Overtaken("it went on meanwhile"));
        }
        Ok(Copy {
            moving: self.moving,
            ..copy
        })
    }

    /// Whatever the file says at this moment.
    fn as_it_is(&mut self) -> io::Result<Copy> {
        let mut live = Vec::new();
        for lane in 0..2 {
            plain(
                self.source,
                self.sections.live(lane),
                |rows: &[Record]| {
                    live.extend(rows.iter().filter(|row| is_kept(row)));
                },
            )?;
        }
        let mut totals = Vec::new();
        plain(
            self.source,
            self.sections.of(Section::Totals),
            |rows: &[Totals]| totals.extend(rows.iter().filter(|row| row.key.used != 0)),
        )?;
        let state = state(self.word()?);
        Ok(Copy {
            seq: match state {
                State::Complete { seq } => seq,
                State::Interrupted { seq, .. } => seq.saturating_sub(1),
            },
            control: self.sections.control(self.source)?,
            accounts: self.sections.accounts(self.source)?,
            live,
            totals,
            recovered: None,
            past: None,
            moving: self.moving,
            inexact: None,
        })
    }
}

/// Which event each row of a copied section is as of.
#[derive(Default)]
pub(super) struct Tags {
    /// From which row on which event; ascending rows.
    runs: Vec<(usize, u64)>,
}

impl Tags {
    fn push(&mut self, row: usize, seq: u64) {
        if self.runs.last().is_none_or(|&(_, last)| last != seq) {
            self.runs.push((row, seq));
        }
    }

    /// The event that `row` is as of.
    pub fn of(&self, row: usize) -> u64 {
        let next = self.runs.partition_point(|&(from, _)| from <= row);
        self.runs[..next].last().map_or(0, |&(_, seq)| seq)
    }

    /// The event of the oldest row.
    fn oldest(&self) -> u64 {
        self.runs.first().map_or(0, |&(_, seq)| seq)
    }
}

fn dropped_count(source: &Source, sections: &Sections) -> io::Result<u64> {
    let accounts = sections.accounts(source)?;
    Ok(accounts
        .iter()
        .fold(0, |sum, account| sum.wrapping_add(account.dropped_count)))
}

/// Whether a live slot holds something that reports may want: a live allocation, or one that was
/// freed in teardown.
pub(super) fn is_kept(row: &Record) -> bool {
    !is_vacant(row.op)
}

/// Copies all rows of a section without looking at the journal.
pub(super) fn plain<T: Pod>(
    source: &Source,
    extent: Extent,
    mut sink: impl FnMut(&[T]),
) -> io::Result<()> {
    let rows = extent.rows as usize;
    let mut buffer = vec![T::zeroed(); PIECE.min(rows)];
    let mut at = 0;
    while at < rows {
        let count = PIECE.min(rows - at);
        source.words(
            Through::Calls,
            extent.at(at as u64),
            bytemuck::cast_slice_mut(&mut buffer[..count]),
        )?;
        sink(&buffer[..count]);
        at += count;
    }
    Ok(())
}

fn state(word: u64) -> State {
    Journal {
        state: word,
        ..Journal::zeroed()
    }
    .state()
}

/// The event that the journal's word says is completely applied, if it says so.
fn complete(word: u64) -> Option<u64> {
    match state(word) {
        State::Complete { seq } => Some(seq),
        State::Interrupted { .. } => None,
    }
}

const _: () = assert!(size_of::<Record>().is_multiple_of(8) && layout::PAGE.is_multiple_of(8));
