//! What PyTorch's allocator says that it has handed out, and what its events come to: where the two
//! differ, events are missing.

use crate::trace::Trace;
use vramtrace_format::live::is_live;
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::totals::End;

/// PyTorch's caching allocator on one device, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torch {
    /// Device ordinal.
    pub device: u8,
    /// Bytes of the blocks that it had handed out after its last event.
    pub allocated: u64,
    /// Bytes of the segments that it had then.
    pub reserved: u64,
    /// Bytes of the blocks that this trace had live then; `None` where that can't be said any more.
    pub seen: Option<u64>,
}

impl Torch {
    /// Of every device that it said something of.
    pub(super) fn all(trace: &Trace) -> Vec<Torch> {
        let rows = trace.reported.iter().enumerate();
        let rows = rows.filter_map(|(device, row)| Some((device as u8, row.whole()?)));
        rows.map(|(device, row)| Torch {
            device,
            allocated: row.allocated,
            reserved: row.reserved,
            seen: seen(trace, device, row.seq, row.allocated),
        })
        .collect()
    }

    /// Whether it is known to have handed out other blocks than this trace has.
    pub fn differs(&self) -> bool {
        self.seen.is_some_and(|seen| seen != self.allocated)
    }
}

fn is_block(record: &Record, device: u8) -> bool {
    record.kind() == Some(Kind::Torch) && record.device == device
}

/// Bytes of the blocks of a device that were live after event `seq`. `said` is what PyTorch said: if
/// that is what is live now, nothing else is looked at.
fn seen(trace: &Trace, device: u8, seq: u64, said: u64) -> Option<u64> {
    // It is not told of what a reset of its device took away.
    let ended = [End::Context as u8, End::Reset as u8];
    let is_reset = trace.copy.totals.iter().any(|row| {
        row.key.kind == Kind::Torch as u8
            && row.key.device == device
            && ended.contains(&row.key.end)
            && row.live_count > 0
    });
    // Nor is anything certain of a copy whose parts do not fit together.
    if is_reset || seq > trace.copy.seq || trace.copy.inexact.is_some() {
        return None;
    }
    let live = trace.copy.live.iter();
    let now = live
        .filter(|entry| is_live(entry.op) && is_block(entry, device))
        .fold(0u64, |sum, entry| sum.wrapping_add(entry.size));
    if now == said {
        return Some(now);
    }
    // The last events may not be in what it said: a kill came between, or the process runs.
    let mut then = now;
    let mut events = trace.events_of(1).peekable();
    let forgotten = trace.reach(1).overwritten > 0;
    if forgotten
        && events
            .peek()
            .is_none_or(|first| first.seq > seq.saturating_add(1))
    {
        return None;
    }
    for event in events.filter(|event| event.seq > seq && is_block(event, device)) {
        match event.op() {
            Some(op) if op.begins_allocation() => then = then.wrapping_sub(event.size),
            Some(op) if op.ends_allocation() => then = then.wrapping_add(event.size),
            _ => {}
        }
    }
    Some(then)
}
