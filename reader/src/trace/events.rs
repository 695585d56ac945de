//! The events that are still in the rings, of both, in their one order, read as they are asked
//! for: memory does not depend on how long the rings are.

use super::sections::Extent;
use super::source::{Source, Through};
use super::{Sections, copy::Copy};
use bytemuck::Zeroable;
use vramtrace_format::record::Record;

/// Records in memory per ring.
const PIECE: u64 = 8192;

/// What one ring still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Events that fit.
    pub capacity: u64,
    /// Events ever written.
    pub written: u64,
    /// Events that later ones took the place of.
    pub overwritten: u64,
}

/// Iterator over events; see [`super::Trace::events`].
pub struct Events<'a> {
    rings: [Cursor<'a>; 2],
    last: u64,
    end: u64,
    damaged: u64,
}

impl<'a> Events<'a> {
    pub(super) fn new(source: &'a Source, sections: &'a Sections, copy: &Copy) -> Events<'a> {
        let cursor = |lane| Cursor::new(source, sections, lane, copy);
        Events {
            rings: [cursor(0), cursor(1)],
            last: 0,
            end: copy.seq,
            damaged: 0,
        }
    }

    /// Only one ring's events.
    pub(super) fn only(mut self, lane: usize) -> Events<'a> {
        self.rings[1 - lane].next = self.rings[1 - lane].written;
        self
    }

    /// Records that made no sense so far; they are left out.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Records that the writer took the place of while this was read.
    pub fn overtaken(&self) -> u64 {
        self.rings.iter().map(|ring| ring.overtaken).sum()
    }
}

impl Iterator for Events<'_> {
    type Item = Record;

    #[inline]
    fn next(&mut self) -> Option<Record> {
        loop {
            let end = self.end;
            let [device, framework] = &mut self.rings;
            let ring = match (device.head(end), framework.head(end)) {
                (None, None) => return None,
                (Some(_), None) => device,
                (None, Some(_)) => framework,
                (Some(first), Some(second)) if second < first => framework,
                _ => device,
            };
            let record = ring.take()?;
            if record.seq <= self.last {
                self.damaged += 1;
                continue;
            }
            self.last = record.seq;
            return Some(record);
        }
    }
}

struct Cursor<'a> {
    source: &'a Source,
    sections: &'a Sections,
    lane: usize,
    ring: Extent,
    /// Position of the next record to be taken, counted since the ring's start.
    next: u64,
    written: u64,
    buffer: Vec<Record>,
    at: usize,
    overtaken: u64,
    moving: bool,
}

impl<'a> Cursor<'a> {
    fn new(source: &'a Source, sections: &'a Sections, lane: usize, copy: &Copy) -> Cursor<'a> {
        let ring = sections.ring(lane);
        let whole = ring.rows == ring.promised && ring.rows > 0;
        let mut written = if whole {
            copy.control.ring_written[lane].min(u64::MAX - ring.rows - 1)
        } else {
            0
        };
        let mut cursor = Cursor {
            source,
            sections,
            lane,
            ring,
            next: 0,
            written,
            buffer: Vec::new(),
            at: 0,
            overtaken: 0,
            moving: copy.moving,
        };
        // A kill may have come between a record's completion and its being counted.
        if whole && cursor.seq_at(written) == Some(copy.seq) && copy.seq != 0 {
            written += 1;
            cursor.written = written;
        }
        // In a file that is being written, the oldest record may be the one being replaced.
        let kept = ring.rows.saturating_sub(u64::from(copy.moving));
        cursor.next = written.saturating_sub(kept);
        // A kill may have come while the oldest record was being replaced by one that is not there yet.
        let wrapped = whole && written >= ring.rows;
        if wrapped && !copy.moving && cursor.seq_at(cursor.next) == Some(0) {
            cursor.next += 1;
            cursor.overtaken += 1;
        }
        cursor
    }

    fn seq_at(&self, position: u64) -> Option<u64> {
        let mut word = [0];
        let at = self.ring.at(position % self.ring.rows);
        self.source.words(Through::Calls, at, &mut word).ok()?;
        Some(word[0])
    }

    /// The number of the next record up to `end`. Later ones are newer than the copy, or nonsense;
    /// they lie at the ring's end, or at its start if the writer went on.
    #[inline]
    fn head(&mut self, end: u64) -> Option<u64> {
        loop {
            match self.buffer.get(self.at) {
                Some(record) if record.seq <= end => return Some(record.seq),
                Some(_) => self.at += 1,
                None if self.next >= self.written => return None,
                None => self.fill(),
            }
        }
    }

    #[inline]
    fn take(&mut self) -> Option<Record> {
        let record = self.buffer.get(self.at).copied();
        self.at += 1;
        record
    }

    /// Reads the next piece; gives up on what cannot be read.
    fn fill(&mut self) {
        let first = self.next % self.ring.rows;
        let count = PIECE
            .min(self.ring.rows - first)
            .min(self.written - self.next);
        self.buffer.resize(count as usize, Record::zeroed());
        self.at = 0;
        let words = bytemuck::cast_slice_mut(&mut self.buffer);
        if self
            .source
            .words(Through::Calls, self.ring.at(first), words)
            .is_err()
        {
            self.buffer.clear();
            self.overtaken += self.written - self.next;
            self.next = self.written;
            return;
        }
        if self.moving {
            let now = self
                .sections
                .control(self.source)
                .map_or(u64::MAX, |control| control.ring_written[self.lane]);
            // Positions up to `now - capacity` are gone or being replaced.
            let stable = now.saturating_add(1).saturating_sub(self.ring.rows);
            let gone = stable.saturating_sub(self.next).min(count);
            self.at = gone as usize;
            self.overtaken += gone;
        }
        self.next += count;
    }
}
