//! Live bytes over time of the stacks that hold or gain most, in fixed space.
//!
//! A few rows of the totals own a curve: [`LEVELS`] rings of [`Cell`]s as accounts have them, but
//! coarser (the finest cell covers 8 seconds, each further level 8 times more), so that a week fits
//! at about an hour a point into a small file. Which rows these are is found out while the program
//! runs: each second in which something happens, some rows are looked at ([`Curves::turn`]), and one
//! that outgrew the least of those with a curve takes its place. Half of the curves are for rows that
//! hold most at all times, the other half for those that gain most.
//!
//! An event only compares. Of each row a [`Note`] keeps the fewest live bytes (since it was looked
//! at), and of rows with a curve the most as well: both since their span began. A span is over when
//! the second of the row's account is that began the next one; then its cells are written. Minimum,
//! maximum and last value do not depend on how often the same thing is folded in, so none of this
//! needs the journal.

use crate::account;
use crate::history::{Cell, FINEST_NS};
use crate::publish::{crash_point, publish};
use crate::record::Kind;
use crate::totals::{End, Totals, TotalsKey};
use bytemuck::{Pod, Zeroable};

/// Rings of a curve.
pub const LEVELS: usize = 5;
/// Most cells of a level.
pub const MAX_CELLS_PER_LEVEL: usize = 256;
/// Most curves; more help nobody, and each span that is over is folded into all of them.
pub const MAX_CURVES: usize = 64;
/// How much coarser each level is, and how many seconds a cell of level 0 has.
pub const COARSENING: u64 = 8;
/// A small file has few curves rather than uselessly shallow ones.
const MIN_CELLS_PER_LEVEL: usize = 32;
/// Curves that a file should have room for.
const WISHED_CURVES: usize = 16;
/// Of a [`Note`] whose row has a curve. No process has as many live bytes.
const HAS_CURVE: u64 = 1 << 63;

/// Length of a level's cells, nanoseconds.
pub const fn span_ns(level: usize) -> u64 {
    FINEST_NS * COARSENING.pow(level as u32 + 1)
}

/// The span of a level that a second lies in, both as [`Cell::span`] counts them.
pub fn span_of(second: u64, level: usize) -> u64 {
    second.saturating_sub(1) / COARSENING.pow(level as u32 + 1) + 1
}

/// What is kept of each row of the totals, with or without a curve.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Note {
    /// Fewest live bytes: of a row with a curve since its span began, otherwise since the row was
    /// looked at.
    pub least: u64,
    /// Of a row with a curve, the complement of the most live bytes since its span began, which has
    /// the highest bit. Otherwise, for the search only, how it gained: 32 bits its high in units of 4
    /// KiB, 31 bits how often it passed that lately, in 65,536ths.
    pub other: u64,
}

impl Note {
    fn of_span(live: u64) -> Note {
        Note {
            least: live,
            other: !live | HAS_CURVE,
        }
    }

    /// Most live bytes since the span began; `None` for a row without a curve.
    pub fn most(&self) -> Option<u64> {
        (self.other & HAS_CURVE != 0).then_some(!self.other)
    }
}

/// What a curve is of. 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Head {
    /// Which of all curves ever begun, from 1; 0 free, or being written.
    pub serial: u64,
    /// Key of the row.
    pub key: TotalsKey,
    /// Its index in the totals.
    pub row: u64,
    /// When the curve began, event time. Not later than the row's first event: all of it is known.
    pub since: u64,
    /// Live bytes then.
    pub first: u64,
    /// How the row gained, as [`Note::other`] says of rows without a curve.
    pub gains: u64,
    /// 0.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Note>() == 16 && size_of::<Head>() == 64);

/// How the search for rows stands. 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Search {
    /// Curves that were ever begun.
    pub begun: u64,
    /// Curves in use, the first so many.
    pub used: u64,
    /// The next row to be looked at.
    pub next: u64,
    /// The second in which rows were looked at last, as [`Cell::span`] counts.
    pub second: u64,
    /// The second in which this pass over all rows began.
    pub pass_began: u64,
    /// Seconds that the last pass took.
    pub pass_took: u64,
    /// 0.
    pub reserved: [u64; 2],
}

const SEARCH_WORDS: usize = size_of::<Search>() / 8;
const NOTE_WORDS: usize = size_of::<Note>() / 8;
const HEAD_WORDS: usize = size_of::<Head>() / 8;
const CELL_WORDS: usize = size_of::<Cell>() / 8;

/// How a section of this size is divided, for a table of totals of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Rows of the totals.
    pub rows: usize,
    /// Curves there is room for.
    pub curves: usize,
    /// Cells of a level of a curve.
    pub per_level: usize,
}

impl Geometry {
    /// Of a section of so many words.
    pub fn of(words: usize, rows: usize) -> Geometry {
        let notes = rows.saturating_mul(NOTE_WORDS);
        let room = words.saturating_sub(SEARCH_WORDS).saturating_sub(notes);
        let per_level = (room / CELL_WORDS / WISHED_CURVES / LEVELS)
            .clamp(MIN_CELLS_PER_LEVEL, MAX_CELLS_PER_LEVEL);
        let curves = room / (HEAD_WORDS + CELL_WORDS * LEVELS * per_level);
        Geometry {
            rows,
            curves: curves.min(MAX_CURVES),
            per_level,
        }
    }

    /// Bytes that a table of totals of this size can make use of.
    pub const fn most_bytes(rows: u64) -> u64 {
        let cells = MAX_CURVES * LEVELS * MAX_CELLS_PER_LEVEL * size_of::<Cell>();
        let fixed = size_of::<Search>() + MAX_CURVES * size_of::<Head>() + cells;
        rows * size_of::<Note>() as u64 + fixed as u64
    }

    /// Where parts begin, in words: notes, heads, cells.
    fn parts(&self) -> [usize; 3] {
        let heads = SEARCH_WORDS.saturating_add(self.rows.saturating_mul(NOTE_WORDS));
        let cells = heads.saturating_add(self.curves * HEAD_WORDS);
        [SEARCH_WORDS, heads, cells]
    }

    fn series_len(&self) -> usize {
        LEVELS * self.per_level
    }

    /// The note of a row, in a section of this geometry.
    pub fn note(&self, words: &[u64], row: u64) -> Option<Note> {
        let row = usize::try_from(row).ok().filter(|&row| row < self.rows)?;
        let from = words.get(self.parts()[0]..)?;
        let at = row.checked_mul(NOTE_WORDS)?;
        Some(Note {
            least: *from.get(at)?,
            other: *from.get(at + 1)?,
        })
    }

    /// The head of a curve that is in use.
    pub fn head(&self, words: &[u64], curve: usize) -> Option<Head> {
        if curve >= self.curves {
            return None;
        }
        let from = words.get(self.parts()[1]..)?;
        let words = from.get(curve * HEAD_WORDS..)?.get(..HEAD_WORDS)?;
        let head: Head = bytemuck::pod_read_unaligned(bytemuck::cast_slice(words));
        (head.serial != 0).then_some(head)
    }

    /// The used cells of a level of a curve, in no particular order. Those of spans before the curve
    /// began are another row's.
    pub fn level<'w>(
        &self,
        words: &'w [u64],
        curve: usize,
        level: usize,
    ) -> impl Iterator<Item = Cell> + use<'w> {
        let from = match curve < self.curves && level < LEVELS {
            true => words.get(self.parts()[2]..),
            false => None,
        };
        let first =
            (curve.min(self.curves) * self.series_len() + level * self.per_level) * CELL_WORDS;
        let cells = from.and_then(|from| from.get(first..first + self.per_level * CELL_WORDS));
        let cells: &[Cell] = cells.map(bytemuck::cast_slice).unwrap_or_default();
        cells.iter().copied().filter(|cell| cell.span != 0)
    }
}

/// The section of curves.
pub struct Curves<'a> {
    search: Option<&'a mut Search>,
    notes: &'a mut [Note],
    heads: &'a mut [Head],
    cells: &'a mut [Cell],
    per_level: usize,
}

impl<'a> Curves<'a> {
    /// Over the words of the section, for a table of totals of so many rows. Where the section is too
    /// small, or there is none, there are no curves.
    pub fn new(words: &'a mut [u64], rows: usize) -> Curves<'a> {
        let geometry = Geometry::of(words.len(), rows);
        if geometry.curves == 0 {
            return Curves {
                search: None,
                notes: &mut [],
                heads: &mut [],
                cells: &mut [],
                per_level: geometry.per_level,
            };
        }
        let [notes, heads, cells] = geometry.parts();
        let (search, rest) = words.split_at_mut(notes);
        let (notes, rest) = rest.split_at_mut(heads - notes);
        let (heads, rest) = rest.split_at_mut(cells - heads);
        let cells = geometry.curves * geometry.series_len() * CELL_WORDS;
        Curves {
            search: Some(&mut bytemuck::cast_slice_mut::<u64, Search>(search)[0]),
            notes: bytemuck::cast_slice_mut(notes),
            heads: bytemuck::cast_slice_mut(heads),
            cells: bytemuck::cast_slice_mut(&mut rest[..cells]),
            per_level: geometry.per_level,
        }
    }

    /// A row has more live bytes than before.
    #[inline(always)]
    pub(crate) fn note_more(&mut self, row: usize, live: u64) {
        if let Some(note) = self.notes.get_mut(row)
            && !live < note.other
        {
            // Of rows without a curve it lies below the highest bit, and is never greater.
            note.other = !live | HAS_CURVE;
        }
    }

    /// A row has fewer live bytes than before.
    #[inline(always)]
    pub(crate) fn note_less(&mut self, row: usize, live: u64) {
        if let Some(note) = self.notes.get_mut(row)
            && live < note.least
        {
            note.least = live;
        }
    }

    /// A row is new, and nothing was live in it: it gets a curve if one is free.
    #[cold]
    pub(crate) fn note_new(&mut self, row: usize, key: TotalsKey, time: u64) {
        let Some(search) = self.search.as_deref_mut() else {
            return;
        };
        // An event that a kill interrupted makes its row anew.
        let used = (search.used as usize).min(self.heads.len());
        let known = self.heads[..used].iter().any(|head| head.row == row as u64);
        if used < self.heads.len() && !known && is_wanted(&key) {
            self.begin(used, row, key, 0, time);
        }
    }

    /// The second of an account is over, and another begins at `time` with an event that has not changed
    /// any row yet. If a span is over with it, it enters the curves of the account's rows; then some rows
    /// are looked at.
    pub(crate) fn turn(
        &mut self,
        account: usize,
        (over, second): (u32, u32),
        time: u64,
        rows: &[Totals],
    ) {
        let span = span_of(over.into(), 0);
        if over != 0 && span != span_of(second.into(), 0) {
            self.close(account, span, rows);
        }
        self.look_around(second.into(), time, rows);
    }

    fn close(&mut self, account: usize, span: u64, rows: &[Totals]) {
        for curve in 0..self.heads.len() {
            let head = self.heads[curve];
            let (Some(row), Some(note)) = (
                rows.get(head.row as usize),
                self.notes.get(head.row as usize),
            ) else {
                continue;
            };
            let Some(most) = note.most().filter(|_| head.serial != 0) else {
                continue;
            };
            if account_of(&head.key) != Some(account) {
                continue;
            }
            let live = row.live_bytes;
            let over = Cell {
                span,
                min: note.least,
                max: most,
                last: live,
            };
            // The event that begins a span is done again if a kill interrupted it; then its row's note may have
            // been changed by it already, and says nothing of the span that was over before.
            if self.cells[self.cell_at(curve, 0, span)].span != span {
                self.enter(curve, over);
            }
            self.notes[head.row as usize] = Note::of_span(live);
            crash_point();
        }
    }

    /// A cell of level 0 enters all levels, its own last: where it is there, it is in all.
    fn enter(&mut self, curve: usize, over: Cell) {
        for level in (0..LEVELS).rev() {
            let span = (over.span - 1) / COARSENING.pow(level as u32) + 1;
            let at = self.cell_at(curve, level, span);
            self.cells[at].fold(Cell { span, ..over });
            crash_point();
        }
    }

    fn cell_at(&self, curve: usize, level: usize, span: u64) -> usize {
        (curve * LEVELS + level) * self.per_level + span as usize % self.per_level
    }

    /// Gives a curve to a row.
    fn begin(&mut self, curve: usize, row: usize, key: TotalsKey, live: u64, time: u64) {
        let Some(search) = self.search.as_deref_mut() else {
            return;
        };
        let before = self.heads[curve];
        let head = &mut self.heads[curve];
        publish(&mut head.serial, 0);
        if before.serial != 0
            && let Some(note) = self.notes.get_mut(before.row as usize)
        {
            note.other = before.gains & !HAS_CURVE;
        }
        search.begun = search.begun.wrapping_add(1);
        search.used = search.used.max(curve as u64 + 1);
        let serial = search.begun;
        let gains = self
            .notes
            .get(row)
            .map_or(0, |note| note.other & !HAS_CURVE);
        *head = Head {
            serial: 0,
            key,
            row: row as u64,
            since: time,
            first: live,
            gains,
            reserved: 0,
        };
        // What the last row left is known by its spans, but for those that both have a part of.
        let second = u64::from(crate::history::second_of(time));
        for level in 0..LEVELS {
            let at = self.cell_at(curve, level, span_of(second, level));
            self.cells[at] = Cell::default();
        }
        if let Some(note) = self.notes.get_mut(row) {
            *note = Note::of_span(live);
        }
        crash_point();
        publish(&mut self.heads[curve].serial, serial);
    }
}

/// Whether a row may have a curve.
fn is_wanted(key: &TotalsKey) -> bool {
    key.used != 0 && key.end == End::Live as u8 && account_of(key).is_some()
}

/// The account that a row's memory counts in.
pub fn account_of(key: &TotalsKey) -> Option<usize> {
    let kind = Kind::from_u8(key.kind).filter(|kind| kind.counted())?;
    Some(account::index(key.device, kind.layer()))
}

mod search;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::compare;
