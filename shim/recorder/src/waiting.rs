//! Frees that waited in the slow lane: what each ended, until it is known whether its call
//! succeeded. A free is recorded before the real call; where it waits, what it ended is only known
//! when the lane is emptied, and the call may fail before or after that.

use crate::renew::Renewable;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use vramtrace_format::record::Record;

/// Names a free that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// A failure is reported right after its call: this many frees later it would come too late.
const KEPT: usize = 4096;

/// What was ended, oldest first. Nobody holds this without the ledger.
static ENDED: Renewable<VecDeque<(u64, Option<Record>)>> = Renewable::new();

impl Ticket {
    /// A new one.
    pub fn new() -> Ticket {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ticket(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A free left the lane; `entry` is what it ended.
pub(crate) fn ended(ticket: Ticket, entry: Option<Record>) {
    if let Some(mut ended) = ENDED.lock() {
        if ended.len() == KEPT {
            ended.pop_front();
        }
        ended.push_back((ticket.0, entry));
    }
}

/// Its call failed: what is to be put back. `Err` if that is not known any more.
pub(crate) fn failed(ticket: Ticket) -> Result<Option<Record>, ()> {
    let mut ended = ENDED.lock().ok_or(())?;
    let at = ended.iter().position(|(number, _)| *number == ticket.0);
    at.and_then(|at| ended.remove(at))
        .map(|(_, entry)| entry)
        .ok_or(())
}

/// This is a forked child: nothing that waits is its own.
pub(crate) fn start_over() {
    ENDED.renew();
}
