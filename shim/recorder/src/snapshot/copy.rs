//! A copy of the tables at one event, while other threads go on.
//!
//! The ledger is had for a few microseconds at a time. What is only ever appended to (cold records,
//! stacks) and the live tables are copied in pieces; then, at once, what remains: sums by stack,
//! accounts, counters, and the newest events. All of that is of one event, and the live entries are
//! brought there by what the events since the first piece say: key by key the last one decides.
//!
//! Room is made before the ledger is had, and a lack of host memory is an answer, not an abort.

use crate::ledger::Ledger;
use crate::turn::with;
use bytemuck::Zeroable;
use std::collections::TryReserveError;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use vramtrace_format::live::is_vacant;
use vramtrace_format::record::{Op, Record};
use vramtrace_format::ring::Ring;
use vramtrace_format::sampling::Sampling;
use vramtrace_format::snapshot::{Contents, EVENTS};

/// Slots of a live table that are looked through at once: 128 KiB.
const SLOTS: usize = 2048;
/// Bytes of what is appended to that are copied at once.
const BYTES: usize = 128 << 10;
/// So often is a copy begun that the events overtake.
const ATTEMPTS: usize = 3;

/// What went wrong; half a sentence.
pub type Trouble = String;

fn no_room(_: TryReserveError) -> Trouble {
    "there is not enough host memory to copy the tables".into()
}

fn busy() -> Trouble {
    "the recorder is stuck in a thread that is stopped".into()
}

/// The tables, as of one event.
pub fn tables() -> Result<Contents, Trouble> {
    for _ in 0..ATTEMPTS {
        if let Some(contents) = attempt()? {
            return Ok(contents);
        }
    }
    Err("the program allocates faster than its tables can be copied".into())
}

/// `None` if the log has forgotten some of what happened meanwhile.
fn attempt() -> Result<Option<Contents>, Trouble> {
    let mut contents = Contents::new();
    contents.sampling = Some(Box::new(Sampling::zeroed()));
    let first = with(|ledger| ledger.last_seq()).ok_or_else(busy)?;
    for lane in 0..2 {
        live(lane, &mut contents.live[lane])?;
    }
    appended(&mut contents.cold, BYTES, |ledger| {
        let used = ledger.sections().control.cold_used as usize;
        ledger.sections().cold.get(..used).unwrap_or_default()
    })?;
    appended(&mut contents.stacks, BYTES / 8, |ledger| {
        let trace = ledger.sections();
        let used = trace.control.stack_words as usize;
        trace.stacks.words().get(..used).unwrap_or_default()
    })?;
    make_room(&mut contents)?;
    let last = with(|ledger| the_rest(ledger, first, &mut contents)).ok_or_else(busy)?;
    contents.seq = last;
    let mut between: Vec<Record> = Vec::new();
    for events in &contents.events {
        let since = events.iter().filter(|event| event.seq > first);
        between
            .try_reserve(since.clone().count())
            .map_err(no_room)?;
        between.extend(since);
    }
    if between.len() as u64 != last - first {
        return Ok(None);
    }
    between.sort_unstable_by_key(|event| event.seq);
    for (lane, live) in contents.live.iter_mut().enumerate() {
        let of_lane = |event: &&Record| event.kind().is_some_and(|kind| kind.lane() == lane);
        forward(live, between.iter().filter(of_lane))?;
    }
    for events in &mut contents.events {
        let extra = events.len().saturating_sub(EVENTS);
        events.drain(..extra);
    }
    Ok(Some(contents))
}

/// Whether a slot holds something that reports may want.
fn is_kept(slot: &Record) -> bool {
    !is_vacant(slot.op)
}

fn live(lane: usize, into: &mut Vec<Record>) -> Result<(), Trouble> {
    let mut from = 0;
    loop {
        into.try_reserve(SLOTS).map_err(no_room)?;
        let more = with(|ledger| {
            let slots = ledger.live_slots(lane);
            let until = (from + SLOTS).min(slots.len());
            into.extend(slots[from..until].iter().filter(|slot| is_kept(slot)));
            from = until;
            from < slots.len()
        });
        if !more.ok_or_else(busy)? {
            return Ok(());
        }
    }
}

/// Copies what is only ever appended to, `piece` at a time.
fn appended<T: Copy>(
    into: &mut Vec<T>,
    piece: usize,
    of: impl Fn(&Ledger) -> &[T],
) -> Result<(), Trouble> {
    loop {
        into.try_reserve(piece).map_err(no_room)?;
        let more = with(|ledger| {
            let all = of(ledger);
            let until = (into.len() + piece).min(all.len());
            into.extend_from_slice(all.get(into.len()..until).unwrap_or_default());
            into.len() < all.len()
        });
        if !more.ok_or_else(busy)? {
            return Ok(());
        }
    }
}

/// Makes room for all that [`the_rest`] copies. (What is appended meanwhile is little.)
fn make_room(contents: &mut Contents) -> Result<(), Trouble> {
    let (totals, history, rings, ranges) = with(|ledger| {
        let trace = ledger.sections();
        (
            trace.tables.totals.rows().len(),
            trace
                .tables
                .history
                .of_first(trace.control.series_used + 1)
                .len(),
            [0, 1].map(|lane| trace.rings[lane].capacity()),
            trace.ranges.len(),
        )
    })
    .ok_or_else(busy)?;
    contents.cold.try_reserve(BYTES).map_err(no_room)?;
    contents.stacks.try_reserve(BYTES / 8).map_err(no_room)?;
    contents.totals.try_reserve(totals).map_err(no_room)?;
    contents.history.try_reserve(history).map_err(no_room)?;
    contents.ranges.try_reserve(ranges).map_err(no_room)?;
    for (events, capacity) in contents.events.iter_mut().zip(rings) {
        events.try_reserve(capacity).map_err(no_room)?;
    }
    Ok(())
}

/// Copies, at one event, everything that is not live entries. Returns that event.
fn the_rest(ledger: &Ledger, first: u64, into: &mut Contents) -> u64 {
    let trace = ledger.sections();
    into.control = *trace.control;
    into.accounts.extend_from_slice(trace.tables.accounts);
    let used = trace.tables.totals.rows().iter();
    into.totals.extend(used.filter(|row| row.key.used != 0));
    let cells = trace.tables.history.of_first(trace.control.series_used);
    into.history.extend_from_slice(cells);
    into.history_cells = trace.tables.history.cells() as u64;
    into.footprints.extend_from_slice(trace.footprints);
    into.reported.extend_from_slice(trace.reported);
    let entered = trace.ranges.iter();
    into.ranges
        .extend(entered.map(|count| count.load(Ordering::Relaxed)));
    if let Some(sampling) = &mut into.sampling {
        **sampling = *trace.sampling;
    }
    let cold = trace
        .cold
        .get(into.cold.len()..trace.control.cold_used as usize);
    into.cold.extend_from_slice(cold.unwrap_or_default());
    let words = trace.stacks.words();
    let words = words.get(into.stacks.len()..trace.control.stack_words as usize);
    into.stacks.extend_from_slice(words.unwrap_or_default());
    for lane in 0..2 {
        let written = trace.control.ring_written[lane];
        newest(&trace.rings[lane], written, first, &mut into.events[lane]);
    }
    ledger.last_seq()
}

/// The newest events of a ring, oldest first: [`EVENTS`] of them, and all after `first`.
fn newest(ring: &Ring<'_>, written: u64, first: u64, into: &mut Vec<Record>) {
    let slots = ring.slots();
    let Some(capacity) = u64::try_from(slots.len()).ok().filter(|&slots| slots > 0) else {
        return;
    };
    let at = |position: u64| &slots[(position % capacity) as usize];
    let oldest = written.saturating_sub(capacity);
    let mut from = written.saturating_sub(EVENTS as u64).max(oldest);
    while from > oldest && at(from - 1).seq > first {
        from -= 1;
    }
    into.extend((from..written).map(at));
}

/// Applies events, in order, to entries some of which know of them already.
fn forward<'a>(
    live: &mut Vec<Record>,
    events: impl Iterator<Item = &'a Record> + Clone,
) -> Result<(), Trouble> {
    let changes = |event: &&Record| {
        let op = event.op();
        op.is_some_and(|op| op.begins_allocation() || op.ends_allocation() || op == Op::Resize)
    };
    let events = events.filter(changes);
    let number = events.clone().count();
    if number == 0 {
        return Ok(());
    }
    let mut entries: HashMap<(u8, u64), Option<Record>> = HashMap::new();
    let mut marked: HashSet<u64> = HashSet::new();
    entries.try_reserve(number).map_err(no_room)?;
    for event in events.clone() {
        entries.insert((event.space, event.key), None);
    }
    live.retain(|row| {
        let Some(entry) = entries.get_mut(&(row.space, row.key)) else {
            return true;
        };
        if row.op == Op::FreeInTeardown as u8 {
            marked.insert(row.seq);
            return true;
        }
        if entry.is_none_or(|known| known.seq < row.seq) {
            *entry = Some(*row);
        }
        false
    });
    for event in events {
        let Some(entry) = entries.get_mut(&(event.space, event.key)) else {
            continue;
        };
        match event.op() {
            Some(Op::Alloc | Op::Restore) => *entry = Some(*event),
            Some(Op::Resize) => {
                if let Some(entry) = entry {
                    entry.size = event.size;
                }
            }
            Some(Op::FreeInTeardown) => {
                if let Some(ended) = entry.take()
                    && marked.insert(ended.seq)
                {
                    live.push(Record {
                        op: Op::FreeInTeardown as u8,
                        ..ended
                    });
                }
            }
            _ => *entry = None,
        }
    }
    live.try_reserve(entries.len()).map_err(no_room)?;
    live.extend(entries.into_values().flatten());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::record::{Kind, Space};

    fn record(seq: u64, op: Op, key: u64, size: u64) -> Record {
        Record {
            seq,
            key,
            size,
            op: op as u8,
            space: Space::Device as u8,
            kind: Kind::Device as u8,
            ..Record::default()
        }
    }

    fn after(live: &[Record], events: &[Record]) -> Vec<(u64, u8, u64, u64)> {
        let mut live = live.to_vec();
        forward(&mut live, events.iter()).unwrap();
        let mut known: Vec<_> = live.iter().map(|r| (r.seq, r.op, r.key, r.size)).collect();
        known.sort_unstable();
        known
    }

    /// Whatever each copied row knew already, the outcome is the same.
    #[test]
    fn the_last_event_of_a_key_decides() {
        let alloc = Op::Alloc as u8;
        let events = [
            record(11, Op::Free, 1, 5),
            record(12, Op::Alloc, 1, 7),
            record(13, Op::Alloc, 2, 8),
            record(14, Op::Free, 2, 8),
            record(15, Op::Resize, 3, 90),
        ];
        let [one, anew] = [record(1, Op::Alloc, 1, 5), events[1]];
        let [two, gauge] = [events[2], record(3, Op::Alloc, 3, 80)];
        let resized = record(3, Op::Alloc, 3, 90);
        let other = record(4, Op::Alloc, 4, 1);
        let right = [(3, alloc, 3, 90), (4, alloc, 4, 1), (12, alloc, 1, 7)];
        for rows in [
            &[one, gauge, other][..],
            &[anew, two, gauge, other],
            &[anew, resized, other],
            &[gauge, other, two],
        ] {
            assert_eq!(after(rows, &events), right, "{rows:?}");
        }
    }

    #[test]
    fn what_teardown_marked_is_there_once() {
        let freed = Op::FreeInTeardown as u8;
        let events = [record(11, Op::FreeInTeardown, 1, 5)];
        let entry = record(1, Op::Alloc, 1, 5);
        let marked = record(1, Op::FreeInTeardown, 1, 5);
        let right = [(1, freed, 1, 5)];
        assert_eq!(after(&[entry], &events), right);
        assert_eq!(after(&[marked], &events), right);
    }
}
