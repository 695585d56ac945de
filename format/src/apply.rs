//! What an event does to the tables: the one place that says so.
//!
//! The recorder calls it for every event, the reader for the one that a crash interrupted.

use crate::account::{self, Account};
use crate::curves::Curves;
use crate::history::{self, Cell, History};
use crate::journal::{CellKind, Journal, Saved, State, Undo};
use crate::layout::Control;
use crate::live::{LiveTable, Place, VACATED, is_vacant};
use crate::publish::crash_point;
use crate::record::{Kind, Op, Record};
use crate::ring::Ring;
use crate::totals::{End, Totals, TotalsKey, TotalsTable};

/// The tables of a trace that events change.
pub struct Tables<'a> {
    /// Undo journal.
    pub journal: &'a mut Journal,
    /// Account rows, [`account::ACCOUNT_ROWS`] of them.
    pub accounts: &'a mut [Account],
    /// Live tables: device layer and host, framework layer.
    pub live: [LiveTable<'a>; 2],
    /// Totals by stack.
    pub totals: TotalsTable<'a>,
    /// Live bytes over time.
    pub history: History<'a>,
    /// The same of some rows of the totals.
    pub curves: Curves<'a>,
}

/// What applying an event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// As it should.
    Yes,
    /// The live table had no room: the allocation is counted as dropped.
    Dropped,
    /// It ends or changes an allocation that is not live.
    NotLive,
}

/// All words of an account.
const ACCOUNT_WORDS: usize = size_of::<Account>() / 8;
const LIVE_CELL: [CellKind; 2] = [CellKind::LiveDevice, CellKind::LiveFramework];

impl Tables<'_> {
    /// Applies an event that its ring holds completely, all or nothing.
    ///
    /// `slot` is where the caller found the event's key (or a vacancy for it) in the live table
    /// of the event's lane, if it has looked already.
    #[inline(never)]
    pub fn apply(&mut self, event: &Record, slot: Option<usize>, control: &mut Control) -> Applied {
        match (event.op(), event.kind()) {
            (Some(op), Some(kind)) => self.apply_as(op, kind, event, slot, control),
            // Control events change no table.
            _ => {
                self.journal.commit(event.seq);
                Applied::Yes
            }
        }
    }

    /// As [`Tables::apply`], for a caller who knows what the event is: where `op` is a constant,
    /// only what such an event needs is left of this.
    #[inline(always)]
    pub fn apply_as(
        &mut self,
        op: Op,
        kind: Kind,
        event: &Record,
        slot: Option<usize>,
        control: &mut Control,
    ) -> Applied {
        let lane = kind.lane();
        let mut undo = Undo::new(event.seq);
        let mut ended = None;
        let applied = if op.begins_allocation() {
            match slot.map_or_else(
                || self.live[lane].place(event.space, event.key),
                Place::Vacant,
            ) {
                Place::Vacant(at) => self.change(op, kind, event, at, &mut undo, control),
                // Recorders close such an entry first; a file that says otherwise is damaged.
                Place::Live(_) => Applied::NotLive,
                Place::Full => {
                    self.drop_allocation(kind, event, &mut undo);
                    Applied::Dropped
                }
            }
        } else if op.ends_allocation() || op == Op::Resize {
            match slot.or_else(|| self.live[lane].find(event.space()?, event.key)) {
                Some(at) => {
                    if op.ends_allocation() {
                        ended = Some(at);
                    }
                    self.change(op, kind, event, at, &mut undo, control)
                }
                None => Applied::NotLive,
            }
        } else {
            let row = account::index(event.device, kind.layer());
            if let Some(account) = self.accounts.get_mut(row) {
                undo.save::<_, ACCOUNT_WORDS>(self.journal, CellKind::Account, row, 0, account);
                undo.arm(self.journal);
                account.apply(op, event);
                crash_point();
            }
            Applied::Yes
        };
        self.journal.commit(event.seq);
        if let Some(at) = ended {
            self.live[lane].ended(at);
        }
        applied
    }

    /// Puts an entry into its slot, changes it or takes it out; and its totals, its account, and
    /// history with it. Every cell is found and saved first, so that the journal is armed once.
    #[inline(always)]
    fn change(
        &mut self,
        op: Op,
        kind: Kind,
        event: &Record,
        at: usize,
        undo: &mut Undo,
        control: &mut Control,
    ) -> Applied {
        let lane = kind.lane();
        let account_row = account::index(event.device, kind.layer());
        let (Some(entry), Some(account)) = (
            self.live[lane].slot_mut(at),
            self.accounts.get_mut(account_row),
        ) else {
            return Applied::NotLive;
        };
        if is_vacant(entry.op) {
            // Of a vacant slot only that it is vacant matters.
            undo.save::<_, 1>(self.journal, LIVE_CELL[lane], at, Record::STATE_WORD, entry);
        } else if op == Op::Resize || op.begins_allocation() {
            undo.save::<_, 8>(self.journal, LIVE_CELL[lane], at, 0, entry);
        } else {
            undo.save::<_, 1>(self.journal, LIVE_CELL[lane], at, Record::STATE_WORD, entry);
        }
        let row = self.totals.locate(&TotalsKey::of(op, event, End::Live));
        if let Some((at, _)) = row
            && let Some(row) = self.totals.row_mut(at)
        {
            const FREE: (usize, usize) = Totals::FREE_WORDS;
            if op.ends_allocation() && row.key.used != 0 {
                undo.save::<_, { FREE.1 }>(self.journal, CellKind::Totals, at, FREE.0, row);
            } else {
                undo.save::<_, { Totals::WORDS }>(self.journal, CellKind::Totals, at, 0, row);
            }
        }
        if event.sampled != 0
            && let Some((at, _)) = row
            && let Some(row) = self.totals.row_mut(at)
        {
            save_sampled(self.journal, row, at, undo);
        }
        if kind.counted() {
            if Account::is_usual(op) {
                undo.save::<_, { Account::USUAL_WORDS }>(
                    self.journal,
                    CellKind::Account,
                    account_row,
                    0,
                    account,
                );
            } else {
                undo.save::<_, ACCOUNT_WORDS>(
                    self.journal,
                    CellKind::Account,
                    account_row,
                    0,
                    account,
                );
            }
        }
        undo.arm(self.journal);

        match op {
            Op::Alloc | Op::Restore => *entry = *event,
            Op::Resize => entry.size = event.size,
            Op::FreeInTeardown => entry.op = Op::FreeInTeardown as u8,
            _ => entry.op = VACATED,
        }
        crash_point();
        let epoch = account.peak_epoch;
        if kind.counted() {
            let before = account.live_bytes;
            account.apply(op, event);
            if account.is_over(event.time) {
                // The time by value: an event that somebody else may look at has to lie in memory,
                // which costs every event a fifth.
                let past = (&mut self.history, &mut self.curves);
                let rows = self.totals.rows();
                turn(
                    account,
                    account_row,
                    before,
                    event.time,
                    past,
                    rows,
                    control,
                );
            }
            account.note_live();
            crash_point();
        }
        if let Some((at, key)) = row
            && let Some((row, is_new)) = self.totals.row_for(at, key)
        {
            if is_new {
                self.curves.note_new(at, key, event.time);
            }
            row.apply(op, event, epoch);
            if event.sampled != 0 {
                row.sampled.apply(op, event.weight(), epoch);
            }
            crash_point();
            if op.ends_allocation() || op == Op::Resize {
                self.curves.note_less(at, row.live_bytes);
            }
            if op.begins_allocation() || op == Op::Resize {
                self.curves.note_more(at, row.live_bytes);
            }
            crash_point();
        }
        if let Some(end) = End::of(op) {
            // Looked for only now: it may be a new row, as the one above may have been.
            let row = self.totals.locate(&TotalsKey::of(op, event, end));
            if let Some((at, key)) = row
                && let Some(row) = self.totals.row_mut(at)
            {
                undo.save::<_, { Totals::WORDS }>(self.journal, CellKind::Totals, at, 0, row);
                if event.sampled != 0 {
                    save_sampled(self.journal, row, at, undo);
                }
                undo.arm(self.journal);
                let Some((row, _)) = self.totals.row_for(at, key) else {
                    return Applied::Yes;
                };
                row.keep_ended(event);
                if event.sampled != 0 {
                    row.sampled.keep_ended(event.weight());
                }
                crash_point();
            }
        }
        Applied::Yes
    }

    #[cold]
    fn drop_allocation(&mut self, kind: Kind, event: &Record, undo: &mut Undo) {
        let row = account::index(event.device, kind.layer());
        if let Some(account) = self.accounts.get_mut(row) {
            undo.save::<_, ACCOUNT_WORDS>(self.journal, CellKind::Account, row, 0, account);
            undo.arm(self.journal);
            account.dropped_count = account.dropped_count.wrapping_add(1);
            account.dropped_bytes = account.dropped_bytes.wrapping_add(event.size);
        }
    }

    /// Puts right what a kill interrupted: takes back the half-applied event and applies it
    /// again from its ring, where it lies complete. Returns the event if there was one.
    pub fn recover(&mut self, rings: &[Ring<'_>; 2], control: &mut Control) -> Option<u64> {
        let interrupted = match self.journal.state() {
            State::Interrupted { seq, saved } => {
                self.undo(saved);
                self.journal.rewind(seq.saturating_sub(1));
                seq
            }
            // The next event may be complete in its ring without its application having begun.
            State::Complete { seq } => seq + 1,
        };
        let event = *rings.iter().find_map(|ring| ring.newest(interrupted))?;
        self.apply(&event, None, control);
        Some(interrupted)
    }

    fn undo(&mut self, saved: usize) {
        let saved = self.journal.saved(saved).collect::<Vec<_>>();
        for saved in saved.into_iter().rev() {
            let at = saved.index;
            match saved.kind {
                CellKind::Account => restore(self.accounts.get_mut(at), saved),
                CellKind::Totals => restore(self.totals.row_mut(at), saved),
                CellKind::LiveDevice => restore(self.live[0].slot_mut(at), saved),
                CellKind::LiveFramework => restore(self.live[1].slot_mut(at), saved),
            }
        }
    }
}

/// Saves what only an allocation that stands for others changes of its row.
#[cold]
#[inline(never)]
fn save_sampled(journal: &mut Journal, row: &Totals, at: usize, undo: &mut Undo) {
    const SAMPLED: (usize, usize) = Totals::SAMPLED_WORDS;
    undo.save::<_, { SAMPLED.1 }>(journal, CellKind::Totals, at, SAMPLED.0, row);
}

fn restore<T: bytemuck::Pod>(cell: Option<&mut T>, saved: Saved<'_>) {
    let words = cell.map(|cell| bytemuck::cast_slice_mut::<T, u64>(std::slice::from_mut(cell)));
    let end = saved.first + saved.words.len();
    if let Some(words) = words.and_then(|words| words.get_mut(saved.first..end)) {
        words.copy_from_slice(saved.words);
    }
}

/// The second of an account is over: it enters history, and what belongs to it the curves, with
/// everything as it was before the event, of which the account tells otherwise by now. Whoever is
/// interrupted here does it again, to the same effect.
#[cold]
#[inline(never)]
fn turn(
    account: &mut Account,
    account_row: usize,
    before: u64,
    time: u64,
    (history, curves): (&mut History<'_>, &mut Curves<'_>),
    rows: &[Totals],
    control: &mut Control,
) {
    let (over, second) = (account.second, history::second_of(time));
    if let Some(cell) = account.this_second() {
        let cell = Cell {
            last: before,
            ..cell
        };
        remember(account, cell, history, control);
    }
    curves.turn(account_row, (over, second), time, rows);
    account.turn(second, before);
}

/// A second of an account is over. A series that a crash takes back from its account is simply
/// taken again.
#[cold]
fn remember(account: &mut Account, over: Cell, history: &mut History<'_>, control: &mut Control) {
    if account.series == 0 {
        if control.series_used >= history.capacity() {
            return;
        }
        control.series_used += 1;
        account.series = control.series_used as u32;
    }
    history.enter(u64::from(account.series) - 1, over);
}

#[cfg(test)]
mod tests;
