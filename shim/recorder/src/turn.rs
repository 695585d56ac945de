//! Getting to the trace: one thread at a time, without ever keeping the program waiting for one
//! that is stuck.
//!
//! Everything that touches the ledger goes through [`with`]; who cannot have it leaves a
//! [`Request`] in the slow lane. What could not even be left there is counted, and admitted to the
//! trace as soon as that can be had again.

use crate::clock::monotonic_ns;
use crate::lane::Lane;
use crate::ledger::{By, Ledger};
use crate::lock::{Held, Lock, SLEEPY, pause};
use crate::waiting::{self, Ticket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vramtrace_format::record::{NO_DEVICE, Op, Record, Space};
use vramtrace_format::stacks::{NOT_SAMPLED, STACK_SKIPPED};

pub(crate) static LEDGER: Lock<Option<Ledger>> = Lock::new(None);
/// Events that found the lane full, by lane of the trace; written to the trace when that can be
/// had again.
static LOST: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static PANICS: AtomicU64 = AtomicU64::new(0);
/// Calls that came while another thread took too long to start the recorder.
static MISSED: AtomicU64 = AtomicU64::new(0);
/// The lock could not be had: its holder is stopped inside.
static STALLED: AtomicBool = AtomicBool::new(false);
/// Room for events that could not wait for the lock.
static LANE: Lane<Request, 1024> = Lane::new();

/// What waits in the slow lane.
#[derive(Clone, Copy)]
pub(crate) enum Request {
    Allocated(Record),
    Freed {
        lane: usize,
        space: Space,
        key: u64,
        by: By,
        ticket: Ticket,
    },
    Restore(Record),
    /// A free that waited before this failed.
    FreeFailed {
        lane: usize,
        ticket: Ticket,
    },
    Event(Record),
}

/// Longest wait for a lock that does not move. On an overloaded machine its holder may be off its
/// core for a while, and a program waits for its own locks as long as that. Longer than this, it
/// is stuck.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs `act` on the ledger, after everything that waits in the slow lane. `None` if recording is
/// off or the lock cannot be had in time; the caller then uses the lane.
#[inline(always)]
pub(crate) fn with<R>(act: impl FnOnce(&mut Ledger) -> R) -> Option<R> {
    let mut held = match LEDGER.try_lock() {
        Some(held) => held,
        None => wait_in_line()?,
    };
    held.with(|ledger| {
        let ledger = ledger.as_mut()?;
        if LANE.is_called() {
            attend(ledger);
        }
        Some(act(ledger))
    })
}

/// The lock, for as long as it moves: on an overloaded machine a thread may stand in line for
/// seconds while others pass. Only when nobody had it for a whole wait is its holder stuck; then
/// nobody else waits until it moves again.
#[cold]
#[inline(never)]
pub(crate) fn wait_in_line() -> Option<Held<'static, Option<Ledger>>> {
    let mut seen = LEDGER.taken();
    let mut since = None;
    let mut turns = 0u32;
    loop {
        if !LEDGER.is_held()
            && let Some(held) = LEDGER.try_lock()
        {
            return Some(held);
        }
        if STALLED.load(Ordering::Relaxed) {
            return None;
        }
        pause(turns);
        turns = turns.saturating_add(1);
        let progress = LEDGER.taken();
        if progress != seen {
            (seen, since) = (progress, None);
        } else if turns.is_multiple_of(64) || turns > SLEEPY {
            let now = monotonic_ns();
            if now - *since.get_or_insert(now) > PATIENCE.as_nanos() as u64 {
                STALLED.store(true, Ordering::Relaxed);
                LANE.call();
                return None;
            }
        }
    }
}

/// Something is the matter: events wait, or something is not in the trace yet.
#[cold]
#[inline(never)]
fn attend(ledger: &mut Ledger) {
    LANE.hear();
    STALLED.store(false, Ordering::Relaxed);
    drain(ledger);
    admit(ledger);
}

fn drain(ledger: &mut Ledger) {
    // SAFETY: the caller holds the ledger, whose lock admits one consumer.
    while let Some(request) = unsafe { LANE.pop() } {
        match request {
            Request::Allocated(mut record) => {
                if record.stack != NOT_SAMPLED {
                    ledger.control().stacks_skipped += 1;
                    record.stack = STACK_SKIPPED;
                }
                ledger.allocated(&mut record);
            }
            Request::Freed {
                lane,
                space,
                key,
                by,
                ticket,
            } => {
                let mut entry = Record::default();
                if ledger.freed(lane, space, key, by, &mut entry) {
                    waiting::ended(ticket, Some(entry));
                } else {
                    waiting::ended(ticket, None);
                    unmatched(ledger, space, key, by.api, by.thread);
                }
            }
            Request::Restore(record) => ledger.restore(&record),
            Request::FreeFailed { lane, ticket } => free_failed(ledger, lane, ticket),
            Request::Event(record) => ledger.event(record),
        }
    }
}

/// A free that waited failed after all: puts back what it ended.
pub(crate) fn free_failed(ledger: &mut Ledger, lane: usize, ticket: Ticket) {
    match waiting::failed(ticket) {
        Ok(entry) => entry.iter().for_each(|entry| ledger.restore(entry)),
        Err(()) => ledger.control().events_lost[lane] += 1,
    }
}

/// Leaves a request in the lane; if that is full the lane's live set is not exact any more, and the
/// answer is no.
#[cold]
pub(crate) fn leave(request: Request, lane: usize) -> bool {
    let left = LANE.push(request);
    if !left {
        LOST[lane].fetch_add(1, Ordering::Relaxed);
        LANE.call();
    }
    left
}

/// A request that could not be left was for something that did not happen.
#[cold]
pub(crate) fn nothing_lost(lane: usize) {
    // Where the loss is admitted already, this is the one that is to be taken off there.
    LOST[lane].fetch_sub(1, Ordering::Relaxed);
    LANE.call();
}

/// Writes to the trace what went wrong while it could not be had.
fn admit(ledger: &mut Ledger) {
    let control = ledger.control();
    for (lost, total) in LOST.iter().zip(&mut control.events_lost) {
        *total = total.wrapping_add(lost.swap(0, Ordering::Relaxed));
    }
    control.calls_unrecorded += MISSED.swap(0, Ordering::Relaxed);
    control.panics += PANICS.swap(0, Ordering::Relaxed);
}

pub(crate) fn unmatched(ledger: &mut Ledger, space: Space, key: u64, api: u16, thread: u32) {
    ledger.event(Record {
        op: Op::FreeUnmatched as u8,
        space: space as u8,
        kind: 1,
        device: NO_DEVICE,
        key,
        api,
        thread,
        ..Record::default()
    });
}

/// Keeps a panic of ours away from the program; it is counted and shown by reports.
#[inline(always)]
pub(crate) fn guarded<R>(act: impl FnOnce() -> R) -> Option<R> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)) {
        Ok(value) => Some(value),
        Err(_) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            LANE.call();
            None
        }
    }
}

/// A call came while another thread took too long to start the recorder.
pub(crate) fn missed() {
    MISSED.fetch_add(1, Ordering::Relaxed);
    LANE.call();
}

/// This is a forked child: nothing that waits is its own.
pub(crate) fn start_over() {
    waiting::start_over();
    // SAFETY: a forked child has one thread.
    unsafe { LEDGER.start_over(None) };
    // SAFETY: as above.
    while unsafe { LANE.pop() }.is_some() {}
}
