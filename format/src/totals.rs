//! Totals by call stack: who allocated how much, how much of it is live, what it held at the peak.

use crate::index::{self, Index};
use crate::record::{Kind, Op, Record};
use crate::sampling::Weight;
use bytemuck::{Pod, Zeroable};
use std::cell::Cell;

/// How the allocations of a row ended, or that they have not. Part of a row's key, so that what
/// ended with a context stays exact without keeping an entry for each allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    /// Not ended: the ordinary row of a stack.
    Live = 0,
    /// Its context was destroyed while they were live.
    Context = 1,
    /// The device was reset while they were live.
    Reset = 2,
    /// Freed while the process was going down.
    Teardown = 3,
}

impl End {
    /// The end with this number in the file format.
    pub const fn from_u8(number: u8) -> Option<End> {
        match number {
            0 => Some(End::Live),
            1 => Some(End::Context),
            2 => Some(End::Reset),
            3 => Some(End::Teardown),
            _ => None,
        }
    }

    /// In which ended row an event keeps what it takes out of the live set, if in any.
    pub const fn of(op: Op) -> Option<End> {
        match op {
            Op::EndByContext => Some(End::Context),
            Op::EndByReset => Some(End::Reset),
            Op::FreeInTeardown => Some(End::Teardown),
            _ => None,
        }
    }
}

/// What a row stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TotalsKey {
    /// Stack id; [`crate::stacks::OTHER_STACKS`] in the rows that take what found no row.
    pub stack: u32,
    /// API that allocated.
    pub api: u16,
    /// Device ordinal, [`crate::record::NO_DEVICE`] for host memory.
    pub device: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// An [`End`].
    pub end: u8,
    /// 1 in a used row.
    pub used: u8,
    /// 0.
    pub reserved: [u8; 6],
}

/// One row. Bytes are bytes asked for; times are event times.
///
/// A free changes only the [`Totals::FREE_WORDS`] words behind the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Totals {
    /// What the row stands for.
    pub key: TotalsKey,
    /// Bytes live now; in an ended row, bytes that ended this way.
    pub live_bytes: u64,
    /// Allocations live now; in an ended row, allocations that ended this way.
    pub live_count: u64,
    /// The account's peak epoch that the two shares below belong to.
    pub peak_epoch: u64,
    /// Bytes live at the account's peak, if `peak_epoch` is the account's; else `live_bytes` is
    /// (the row has not changed since the peak).
    pub peak_bytes: u64,
    /// Allocations live at the account's peak, by the same rule.
    pub peak_count: u64,
    /// Last allocation (or end) counted here.
    pub last_time: u64,
    /// Bytes ever allocated.
    pub alloc_bytes: u64,
    /// Allocations ever made.
    pub alloc_count: u64,
    /// First event of the row.
    pub first_time: u64,
    /// What its sampled allocations stand for beyond themselves.
    pub sampled: Sampled,
}

/// What the sampled allocations of a row stand for beyond themselves ([`crate::sampling`]). All of it
/// is an estimate; what the row itself says is not, and holds none of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sampled {
    /// Bytes live now; in an ended row, bytes that ended this way.
    pub live_bytes: u64,
    /// The account's peak epoch that the next word belongs to.
    pub peak_epoch: u64,
    /// Bytes live at the account's peak, by the same rule as [`Totals::peak_bytes`].
    pub peak_bytes: u64,
    /// Bytes ever allocated.
    pub alloc_bytes: u64,
    /// Allocations ever made, in parts of 2^-[`crate::sampling::COUNT_BITS`].
    pub alloc_count: u64,
}

impl Sampled {
    /// Adds what the allocation of an event stands for; `epoch` is the account's peak epoch before
    /// the event.
    pub fn apply(&mut self, op: Op, weight: Weight, epoch: u64) {
        if self.peak_epoch != epoch {
            self.peak_epoch = epoch;
            self.peak_bytes = self.live_bytes;
        }
        if op.begins_allocation() {
            self.live_bytes = self.live_bytes.wrapping_add(weight.bytes);
        } else if op.ends_allocation() {
            self.live_bytes = self.live_bytes.wrapping_sub(weight.bytes);
        }
        if op == Op::Alloc {
            self.alloc_bytes = self.alloc_bytes.wrapping_add(weight.bytes);
            self.alloc_count = self.alloc_count.wrapping_add(weight.count);
        }
    }

    /// Keeps what an ending event took out of the live set, in an ended row.
    pub fn keep_ended(&mut self, weight: Weight) {
        self.live_bytes = self.live_bytes.wrapping_add(weight.bytes);
    }

    /// Bytes at the account's peak, given the account's epoch.
    pub fn at_peak(&self, epoch: u64) -> u64 {
        if self.peak_epoch == epoch {
            self.peak_bytes
        } else {
            self.live_bytes
        }
    }
}

const _: () = assert!(size_of::<TotalsKey>() == 16 && size_of::<Totals>() == 128);
const _: () = assert!(std::mem::offset_of!(Totals, sampled) == 8 * Totals::SAMPLED_WORDS.0);

impl TotalsKey {
    /// The row that the allocation of an event of this `op` is counted in.
    #[inline(always)]
    pub fn of(op: Op, event: &Record, end: End) -> TotalsKey {
        let api = if op.ends_allocation() {
            event.ended_api()
        } else {
            event.api
        };
        TotalsKey {
            stack: event.stack,
            api,
            device: event.device,
            kind: event.kind,
            end: end as u8,
            used: 1,
            reserved: [0; 6],
        }
    }

    /// Equality by all 16 bytes at once: it is asked for every event.
    #[inline(always)]
    fn is(&self, other: &TotalsKey) -> bool {
        let words: fn(&TotalsKey) -> [u64; 2] = |key| bytemuck::cast(*key);
        let (own, other) = (words(self), words(other));
        (own[0] ^ other[0]) | (own[1] ^ other[1]) == 0
    }

    /// The row for what found no row of its own.
    pub fn coarsened(self) -> TotalsKey {
        TotalsKey {
            stack: crate::stacks::OTHER_STACKS,
            api: 0,
            ..self
        }
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        let low =
            u64::from(self.stack) | (u64::from(self.api) << 32) | (u64::from(self.kind) << 48);
        let high = u64::from(self.device) | (u64::from(self.end) << 8);
        index::hash(low ^ high.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }
}

impl Totals {
    /// Words that every event may change.
    pub(crate) const WORDS: usize = 11;
    /// The first word of [`Totals::sampled`], and how many.
    pub(crate) const SAMPLED_WORDS: (usize, usize) = (11, 5);
    /// The first word that a free changes, and how many words from there on.
    pub(crate) const FREE_WORDS: (usize, usize) = (2, 5);

    /// Adds one event; `epoch` is the account's peak epoch before the event.
    #[inline(always)]
    pub fn apply(&mut self, op: Op, event: &Record, epoch: u64) {
        if self.peak_epoch != epoch {
            // First change since the last new peak: what is live here is this row's share of it.
            self.peak_epoch = epoch;
            self.peak_bytes = self.live_bytes;
            self.peak_count = self.live_count;
        }
        let size = event.size;
        match op {
            Op::Alloc => {
                if self.first_time == 0 {
                    self.first_time = event.time.max(1);
                }
                self.add(size, 1);
                self.alloc_bytes = self.alloc_bytes.wrapping_add(size);
                self.alloc_count = self.alloc_count.wrapping_add(1);
                self.last_time = event.time;
            }
            Op::Restore => self.add(size, 1),
            Op::Resize => {
                self.live_bytes = self.live_bytes.wrapping_sub(event.aux).wrapping_add(size);
                self.last_time = event.time;
            }
            op if op.ends_allocation() => {
                self.live_bytes = self.live_bytes.wrapping_sub(size);
                self.live_count = self.live_count.wrapping_sub(1);
            }
            _ => {}
        }
    }

    /// Keeps what an ending event took out of the live set; called on a row whose end is not
    /// [`End::Live`].
    #[inline]
    pub fn keep_ended(&mut self, event: &Record) {
        if self.first_time == 0 {
            self.first_time = event.time.max(1);
        }
        self.add(event.size, 1);
        self.last_time = event.time;
    }

    #[inline]
    fn add(&mut self, bytes: u64, count: u64) {
        self.live_bytes = self.live_bytes.wrapping_add(bytes);
        self.live_count = self.live_count.wrapping_add(count);
    }

    /// Bytes and allocations this row held when its account was at its peak, given the account's
    /// epoch.
    pub fn at_peak(&self, epoch: u64) -> (u64, u64) {
        if self.peak_epoch == epoch {
            (self.peak_bytes, self.peak_count)
        } else {
            (self.live_bytes, self.live_count)
        }
    }

    /// The row's kind, or `None` for one that this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.key.kind)
    }
}

/// Rows at the table's end that only coarsened keys may use: all of a small file's 64 first
/// devices × kinds × ends that really occur fit many times over.
const OVERFLOW_ROWS: usize = 128;

fn main_rows(rows: usize) -> usize {
    rows.saturating_sub(OVERFLOW_ROWS)
}

/// Where the rows of a table are.
#[derive(Clone)]
pub struct TotalsIndex {
    index: Index,
    /// The next row to be begun.
    next: usize,
    /// The row that was found last: events of stacks that are not taken all have the same.
    last: Cell<usize>,
}

impl TotalsIndex {
    /// Of an empty table of so many rows; `None` if there is no memory for it.
    pub fn for_rows(rows: usize) -> Option<TotalsIndex> {
        Some(TotalsIndex {
            index: Index::for_rows(rows)?,
            next: 0,
            last: Cell::new(0),
        })
    }

    /// Of these rows.
    pub fn of(rows: &[Totals]) -> Option<TotalsIndex> {
        let mut known = TotalsIndex::for_rows(rows.len())?;
        let main = &rows[..main_rows(rows.len())];
        let used = main.iter().enumerate().filter(|(_, row)| row.key.used != 0);
        used.for_each(|(at, row)| known.note(row.key.hash(), at));
        known.next = first_unused(main, 0);
        Some(known)
    }

    fn note(&mut self, hash: u32, at: usize) {
        if let Err(gap) = self.index.find(hash, |row| row == at) {
            self.index.insert(gap, hash, at);
        }
    }
}

fn first_unused(rows: &[Totals], from: usize) -> usize {
    let behind = rows.get(from..).unwrap_or_default();
    let unused = behind.iter().position(|row| row.key.used == 0);
    unused.map_or(rows.len(), |at| from + at)
}

/// The table: rows in the order in which they were first needed, never removed; behind them those
/// for what found no row.
pub struct TotalsTable<'a> {
    rows: &'a mut [Totals],
    /// Without it every search goes through the rows.
    known: Option<&'a mut TotalsIndex>,
}

impl<'a> TotalsTable<'a> {
    /// Over the rows of the totals section, for who applies an event or two.
    pub fn new(rows: &'a mut [Totals]) -> TotalsTable<'a> {
        TotalsTable { rows, known: None }
    }

    /// Over the rows of the totals section, for who applies many.
    pub fn indexed(rows: &'a mut [Totals], known: &'a mut TotalsIndex) -> TotalsTable<'a> {
        TotalsTable {
            rows,
            known: Some(known),
        }
    }

    /// All rows, used or not.
    pub fn rows(&self) -> &[Totals] {
        self.rows
    }

    /// One row.
    #[inline]
    pub fn row_mut(&mut self, index: usize) -> Option<&mut Totals> {
        self.rows.get_mut(index)
    }

    /// The row of `key`, or a free row for it, or the coarsened row. `None` only if even that
    /// finds no room.
    #[inline(always)]
    pub fn locate(&self, key: &TotalsKey) -> Option<(usize, TotalsKey)> {
        let is = |at: usize| self.rows.get(at).is_some_and(|row| row.key.is(key));
        let main = main_rows(self.rows.len());
        let (found, next) = match &self.known {
            Some(known) => {
                let last = known.last.get();
                if is(last) {
                    return Some((last, *key));
                }
                let found = known.index.find(key.hash(), is).ok();
                let found = found.map(|(at, _)| at);
                known.last.set(found.unwrap_or(last));
                (found, known.next)
            }
            None => {
                let found = (0..main).find(|&at| is(at));
                (found, first_unused(&self.rows[..main], 0))
            }
        };
        match found {
            Some(at) => Some((at, *key)),
            None if next < main => Some((next, *key)),
            None => self.coarse(key.coarsened()),
        }
    }

    #[cold]
    fn coarse(&self, key: TotalsKey) -> Option<(usize, TotalsKey)> {
        (main_rows(self.rows.len())..self.rows.len())
            .find(|&at| self.rows[at].key == key || self.rows[at].key.used == 0)
            .map(|at| (at, key))
    }

    /// The row that [`TotalsTable::locate`] found for this key, and whether it is new.
    #[inline(always)]
    pub fn row_for(&mut self, at: usize, key: TotalsKey) -> Option<(&mut Totals, bool)> {
        let is_new = self.rows.get(at)?.key.used == 0;
        if is_new {
            self.begin(at, key);
        }
        self.rows.get_mut(at).map(|row| (row, is_new))
    }

    #[cold]
    fn begin(&mut self, at: usize, key: TotalsKey) {
        let main = main_rows(self.rows.len());
        self.rows[at].key = key;
        if let Some(known) = &mut self.known
            && at < main
        {
            known.note(key.hash(), at);
            known.next = first_unused(&self.rows[..main], known.next);
        }
    }
}
