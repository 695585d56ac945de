//! Allocations that were tried once more: an event each, and sums that survive the event log.

use crate::{Renewable, clock, recorder};
use std::collections::BTreeMap;
use vramtrace_format::cold::{Cold, Rescues};
use vramtrace_format::record::Record;

/// The sums are written at each of the first so many, …
const FIRST: u64 = 32;
/// … and then at most so often, nanoseconds.
const EVERY: u64 = 60_000_000_000;

#[derive(Default)]
struct Sums {
    rescues: Rescues,
    written_at: u64,
}

static SUMS: Renewable<BTreeMap<u8, Sums>> = Renewable::new();

/// An allocation was tried once more: `event` is an [`vramtrace_format::Op::Rescue`].
#[cold]
pub fn rescued(event: &Record) {
    let seq = recorder::event(event);
    let Some(mut all) = SUMS.lock() else { return };
    let sums = all.entry(event.device).or_default();
    let (result, ..) = event.rescue();
    let sum = &mut sums.rescues;
    sum.device = event.device;
    if seq != u64::MAX {
        sum.seq = sum.seq.max(seq);
    }
    sum.tried += 1;
    sum.saved += u64::from(result == 0);
    sum.bytes = sum.bytes.saturating_add(event.key);
    let now = clock::monotonic_ns();
    if sum.tried <= FIRST || now.saturating_sub(sums.written_at) >= EVERY {
        sums.written_at = now;
        recorder::cold(&Cold::Rescues(sums.rescues));
    }
}

/// This is a forked child.
pub(crate) fn start_over() {
    SUMS.renew();
}
