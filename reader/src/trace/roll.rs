//! Brings a copy whose parts are of different moments to one event, by what the rings say.

use super::copy::{Copier, Copy, Failed, Tags, is_kept};
use super::sections::Extent;
use super::source::Through;
use bytemuck::Zeroable;
use rustc_hash::FxHashMap;
use vramtrace_format::account;
use vramtrace_format::record::{Op, Record};
use vramtrace_format::totals::{End, TotalsIndex, TotalsKey, TotalsTable};

/// Records read from a ring at once.
const PIECE: u64 = 4096;

/// All events after `start`, up to `end`, in order.
pub(super) fn events_between(
    copier: &Copier<'_>,
    start: u64,
    end: u64,
) -> Result<Vec<Record>, Failed> {
    let mut events = Vec::new();
    for lane in 0..2 {
        tail(copier, lane, start, end, &mut events)?;
    }
    events.sort_unstable_by_key(|event| event.seq);
    events.dedup_by_key(|event| event.seq);
    if events.len() as u64 != end - start {
        return Err(Failed::Overtaken(
            "its rings do not reach back far enough any more",
        ));
    }
    Ok(events)
}

/// Collects the events of one ring, newest first, until one is not after `start`.
fn tail(
    copier: &Copier<'_>,
    lane: usize,
    start: u64,
    end: u64,
    events: &mut Vec<Record>,
) -> Result<(), Failed> {
    let ring: Extent = copier.sections.ring(lane);
    let capacity = ring.rows;
    if capacity == 0 || capacity != ring.promised {
        return Ok(());
    }
    let mut written = copier.sections.control(copier.source)?.ring_written[lane];
    let mut next = written;
    let mut buffer = vec![Record::zeroed(); PIECE.min(capacity) as usize];
    while next > 0 {
        // A piece never wraps around the ring's end.
        let last = (next - 1) % capacity;
        let count = PIECE.min(last + 1).min(next);
        let rows = &mut buffer[..count as usize];
        copier.source.words(
            Through::Calls,
            ring.at(last + 1 - count),
            bytemuck::cast_slice_mut(rows),
        )?;
        written = copier.sections.control(copier.source)?.ring_written[lane].max(written);
        for (index, record) in rows.iter().enumerate().rev() {
            let position = next - count + index as u64;
            // The record being written now takes the place of the one `capacity` before it.
            if position.saturating_add(capacity) <= written {
                return Err(Failed::Overtaken("its ring wrapped meanwhile"));
            }
            if record.seq <= start {
                return Ok(());
            }
            if record.seq <= end {
                events.push(*record);
            }
        }
        next -= count;
        if written - next >= capacity {
            break;
        }
    }
    Ok(())
}

/// Live entries by key while events change them.
type Entries = FxHashMap<(u8, u64), Option<Record>>;

/// Applies events that follow each other without a gap, each part from where it stands.
///
/// Live entries need no tags: key by key the last event decides, whatever the copied row already
/// knows of it.
pub(super) fn forward(copy: &mut Copy, accounts: &Tags, totals: &Tags, events: &[Record]) {
    let (mut entries, originals) = take_changing(&mut copy.live, events);
    let mut known = TotalsIndex::of(&copy.totals);
    let mut table = match &mut known {
        Some(known) => TotalsTable::indexed(&mut copy.totals, known),
        None => TotalsTable::new(&mut copy.totals),
    };
    let mut marked = Vec::new();
    for event in events {
        let (Some(op), Some(kind)) = (event.op(), event.kind()) else {
            continue;
        };
        let row = account::index(event.device, kind.layer());
        let Some(account) = copy.accounts.get_mut(row) else {
            continue;
        };
        let changes_live = changes_live(op);
        if changes_live {
            if op == Op::FreeInTeardown {
                marked.push(mark(event, &entries, &originals));
            }
            change(&mut entries, op, event);
            count(&mut table, totals, event, op, account.peak_epoch);
        }
        if event.seq > accounts.of(row) && (!changes_live || kind.counted()) {
            let before = account.live_bytes;
            account.apply(op, event);
            if changes_live {
                // Seconds that are over are in the history, which is read after the tables.
                account.note_change(event.time, before);
            }
        }
    }
    copy.live
        .extend(entries.into_values().flatten().filter(is_kept));
    copy.live.append(&mut marked);
}

fn changes_live(op: Op) -> bool {
    op.begins_allocation() || op.ends_allocation() || op == Op::Resize
}

/// Takes out of `live` what the events change: the newest entry of each key, and by their
/// sequence numbers those that teardown marks.
fn take_changing(live: &mut Vec<Record>, events: &[Record]) -> (Entries, FxHashMap<u64, Record>) {
    let mut entries = Entries::default();
    let mut marks = FxHashMap::default();
    for event in events {
        if event.kind().is_some() && event.op().is_some_and(changes_live) {
            entries.insert((event.space, event.key), None);
        }
        if event.op == Op::FreeInTeardown as u8 {
            marks.insert(event.ended_seq(), *event);
        }
    }
    let mut originals = FxHashMap::default();
    live.retain(|row| {
        let Some(entry) = entries.get_mut(&(row.space, row.key)) else {
            return true;
        };
        let is_marked = row.op == Op::FreeInTeardown as u8;
        let is_changing = marks.contains_key(&row.seq);
        if is_changing {
            originals.insert(row.seq, *row);
        }
        // An entry marked before the events began shares its key with a later one: keep both.
        if is_marked {
            return !is_changing;
        }
        if entry.is_none_or(|known| known.seq < row.seq) {
            *entry = Some(*row);
        }
        false
    });
    (entries, originals)
}

fn mark(event: &Record, entries: &Entries, originals: &FxHashMap<u64, Record>) -> Record {
    let ended = event.ended_seq();
    let entry = entries.get(&(event.space, event.key)).copied().flatten();
    let original = entry
        .filter(|entry| entry.seq == ended)
        .or_else(|| originals.get(&ended).copied());
    Record {
        op: Op::FreeInTeardown as u8,
        ..original.unwrap_or(*event)
    }
}

fn change(entries: &mut Entries, op: Op, event: &Record) {
    let Some(entry) = entries.get_mut(&(event.space, event.key)) else {
        return;
    };
    if op.begins_allocation() {
        *entry = Some(*event);
    } else if op == Op::Resize {
        if let Some(entry) = entry {
            entry.size = event.size;
        }
    } else {
        *entry = None;
    }
}

fn count(table: &mut TotalsTable<'_>, tags: &Tags, event: &Record, op: Op, epoch: u64) {
    for end in [Some(End::Live), End::of(op)].into_iter().flatten() {
        let Some((at, key)) = table.locate(&TotalsKey::of(op, event, end)) else {
            continue;
        };
        if event.seq <= tags.of(at) {
            continue;
        }
        if let Some((row, _)) = table.row_for(at, key) {
            if end == End::Live {
                row.apply(op, event, epoch);
            } else {
                row.keep_ended(event);
            }
            if event.sampled != 0 && end == End::Live {
                row.sampled.apply(op, event.weight(), epoch);
            } else if event.sampled != 0 {
                row.sampled.keep_ended(event.weight());
            }
        }
    }
}
