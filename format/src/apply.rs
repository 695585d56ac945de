//! What an event does to the tables: the one place that says so.
//!
//! The recorder calls it for every event, the reader for the one that a crash interrupted.

use crate::account::{self, Account};
use crate::history::History;
use crate::journal::{CellKind, Journal, State};
use crate::layout::Control;
use crate::live::{LiveTable, Place, TOMBSTONE};
use crate::publish::crash_point;
use crate::record::{Op, Record};
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

const LIVE_CELL: [CellKind; 2] = [CellKind::LiveDevice, CellKind::LiveFramework];

impl Tables<'_> {
    /// Applies an event that its ring holds completely, all or nothing.
    ///
    /// `slot` is where the caller found the event's key (or a vacancy for it) in the live table
    /// of the event's lane, if it has looked already.
    #[inline]
    pub fn apply(&mut self, event: &Record, slot: Option<usize>, control: &mut Control) -> Applied {
        let (Some(op), Some(kind)) = (event.op(), event.kind()) else {
            // Control events change no table.
            self.journal.begin(event.seq);
            self.journal.commit();
            return Applied::Yes;
        };
        self.journal.begin(event.seq);
        let mut swept = None;
        let applied = if op.begins_allocation() {
            self.insert(op, event, slot, control)
        } else if op.ends_allocation() || op == Op::Resize {
            let lane = kind.lane();
            let found = slot.or_else(|| self.live[lane].find(event.space()?, event.key));
            match found {
                Some(at) => {
                    if op != Op::Resize && op != Op::FreeInTeardown {
                        swept = Some(at);
                    }
                    self.change(op, event, at, control)
                }
                None => Applied::NotLive,
            }
        } else {
            self.count(op, event, control, false);
            Applied::Yes
        };
        self.journal.commit();
        if let Some(at) = swept {
            self.live[kind.lane()].sweep(at);
        }
        applied
    }

    fn insert(
        &mut self,
        op: Op,
        event: &Record,
        slot: Option<usize>,
        control: &mut Control,
    ) -> Applied {
        let lane = event.kind().map_or(0, |kind| kind.lane());
        let at = match slot {
            Some(at) => at,
            None => match self.live[lane].place(event.space, event.key) {
                Place::Vacant(at) => at,
                // Recorders close such an entry first; a file that says otherwise is damaged.
                Place::Live(_) => return Applied::NotLive,
                Place::Full => {
                    self.drop_allocation(event);
                    return Applied::Dropped;
                }
            },
        };
        let Some(slot) = self.live[lane].slot_mut(at) else {
            return Applied::NotLive;
        };
        self.journal.save(LIVE_CELL[lane], at, slot);
        *slot = *event;
        crash_point();
        self.count(op, event, control, true);
        Applied::Yes
    }

    fn change(&mut self, op: Op, event: &Record, at: usize, control: &mut Control) -> Applied {
        let lane = event.kind().map_or(0, |kind| kind.lane());
        let Some(slot) = self.live[lane].slot_mut(at) else {
            return Applied::NotLive;
        };
        self.journal.save(LIVE_CELL[lane], at, slot);
        match op {
            Op::Resize => slot.size = event.size,
            Op::FreeInTeardown => slot.op = Op::FreeInTeardown as u8,
            _ => slot.op = TOMBSTONE,
        }
        crash_point();
        self.count(op, event, control, true);
        Applied::Yes
    }

    /// Totals, account and history.
    fn count(&mut self, op: Op, event: &Record, control: &mut Control, by_stack: bool) {
        let Some(kind) = event.kind() else { return };
        let row = account::index(event.device, kind.layer());
        let Some(account) = self.accounts.get_mut(row) else {
            return;
        };
        let epoch = account.peak_epoch;
        if by_stack {
            let key = TotalsKey::of(event, End::Live);
            if let Some(totals) = save_row(&mut self.totals, self.journal, &key) {
                totals.apply(op, event, epoch);
                crash_point();
            }
            if let Some(end) = End::of(op) {
                let key = TotalsKey::of(event, end);
                if let Some(totals) = save_row(&mut self.totals, self.journal, &key) {
                    totals.keep_ended(event);
                    crash_point();
                }
            }
            if !kind.counted() {
                return;
            }
        }
        self.journal.save(CellKind::Account, row, account);
        let before = account.live_bytes;
        account.apply(op, event);
        crash_point();
        if by_stack {
            if account.series == 0 {
                // A series that a crash takes back from its account is simply taken again.
                if control.series_used >= self.history.capacity() {
                    return;
                }
                control.series_used += 1;
                account.series = control.series_used;
            }
            self.history
                .record(account.series - 1, event.time, before, account.live_bytes);
        }
    }

    fn drop_allocation(&mut self, event: &Record) {
        let Some(kind) = event.kind() else { return };
        let row = account::index(event.device, kind.layer());
        if let Some(account) = self.accounts.get_mut(row) {
            self.journal.save(CellKind::Account, row, account);
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
        for index in (0..saved).rev() {
            let saved = self.journal.saved[index];
            let at = saved.index as usize;
            let content: &[u8] = bytemuck::bytes_of(&saved.content);
            match CellKind::from_u32(saved.kind) {
                Some(CellKind::Account) => restore(self.accounts.get_mut(at), content),
                Some(CellKind::Totals) => restore(self.totals.row_mut(at), content),
                Some(CellKind::LiveDevice) => restore(self.live[0].slot_mut(at), content),
                Some(CellKind::LiveFramework) => restore(self.live[1].slot_mut(at), content),
                None => {}
            }
        }
    }
}

fn restore<T: bytemuck::Pod>(cell: Option<&mut T>, content: &[u8]) {
    if let Some(cell) = cell {
        bytemuck::bytes_of_mut(cell).copy_from_slice(&content[..size_of::<T>()]);
    }
}

fn save_row<'t>(
    table: &'t mut TotalsTable<'_>,
    journal: &mut Journal,
    key: &TotalsKey,
) -> Option<&'t mut Totals> {
    let (at, key) = table.locate(key)?;
    let row = table.row_mut(at)?;
    journal.save(CellKind::Totals, at, row);
    row.key = key;
    Some(row)
}

#[cfg(test)]
mod tests;
