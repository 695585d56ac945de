//! Getting to the trace: one thread at a time, without ever keeping the program waiting for one
//! that is stuck.
//!
//! Everything that touches the ledger goes through [`with`]; who cannot have it leaves a
//! [`Request`] in the slow lane. What could not even be left there is counted, and admitted to the
//! trace as soon as that can be had again.

use crate::lane::Lane;
use crate::ledger::{By, Freed, Ledger};
use crate::renew::Renewable;
use crate::waiting::{self, Ticket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vramtrace_format::record::{NO_DEVICE, Op, Record, Space};
use vramtrace_format::stacks::STACK_SKIPPED;

pub(crate) static LEDGER: Renewable<Option<Ledger>> = Renewable::new();
/// Events that found the lane full, by lane of the trace; written to the trace when that can be
/// had again.
static LOST: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static PANICS: AtomicU64 = AtomicU64::new(0);
/// Calls that came while another thread took too long to start the recorder.
static MISSED: AtomicU64 = AtomicU64::new(0);
/// How often the lock was taken.
static PROGRESS: AtomicU64 = AtomicU64::new(0);
/// The lock could not be had: its holder is stopped inside.
static STALLED: AtomicBool = AtomicBool::new(false);
/// Something above is not in the trace yet.
static TROUBLE: AtomicBool = AtomicBool::new(false);
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

type Guard = parking_lot::MutexGuard<'static, Option<Ledger>>;

/// Runs `act` on the ledger, after everything that waits in the slow lane. `None` if recording is
/// off or the lock cannot be had in time; the caller then uses the lane.
#[inline]
pub(crate) fn with<R>(act: impl FnOnce(&mut Ledger) -> R) -> Option<R> {
    // Once somebody has waited in vain, nobody else waits until the lock moves again.
    let mut guard = if STALLED.load(Ordering::Relaxed) {
        LEDGER.try_lock()?
    } else {
        wait()?
    };
    PROGRESS.store(
        PROGRESS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
    if STALLED.load(Ordering::Relaxed) {
        STALLED.store(false, Ordering::Relaxed);
    }
    let ledger = guard.as_mut()?;
    if !LANE.is_empty() {
        drain(ledger);
    }
    if TROUBLE.load(Ordering::Relaxed) {
        admit(ledger);
    }
    Some(act(ledger))
}

/// The lock, for as long as it moves: on an overloaded machine a thread may stand in line for
/// seconds while others pass. Only when nobody had it for a whole wait is its holder stuck.
#[inline]
fn wait() -> Option<Guard> {
    LEDGER.try_lock().or_else(wait_in_line)
}

#[cold]
fn wait_in_line() -> Option<Guard> {
    loop {
        let before = PROGRESS.load(Ordering::Relaxed);
        if let Some(guard) = LEDGER.lock() {
            return Some(guard);
        }
        if PROGRESS.load(Ordering::Relaxed) == before {
            STALLED.store(true, Ordering::Relaxed);
            return None;
        }
    }
}

#[cold]
fn drain(ledger: &mut Ledger) {
    // SAFETY: the caller holds the ledger, whose lock admits one consumer.
    while let Some(request) = unsafe { LANE.pop() } {
        match request {
            Request::Allocated(record) => {
                ledger.control().stacks_skipped += 1;
                ledger.allocated(Record {
                    stack: STACK_SKIPPED,
                    ..record
                });
            }
            Request::Freed {
                lane,
                space,
                key,
                by,
                ticket,
            } => match ledger.freed(lane, space, key, by) {
                Freed::Entry(entry) => waiting::ended(ticket, Some(entry)),
                Freed::Unmatched => {
                    waiting::ended(ticket, None);
                    unmatched(ledger, space, key, by.api, by.thread);
                }
            },
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
        TROUBLE.store(true, Ordering::Release);
    }
    left
}

/// A request that could not be left was for something that did not happen.
#[cold]
pub(crate) fn nothing_lost(lane: usize) {
    // Where the loss is admitted already, this is the one that is to be taken off there.
    LOST[lane].fetch_sub(1, Ordering::Relaxed);
    TROUBLE.store(true, Ordering::Release);
}

/// Writes to the trace what went wrong while it could not be had.
#[cold]
fn admit(ledger: &mut Ledger) {
    TROUBLE.store(false, Ordering::Release);
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
#[inline]
pub(crate) fn guarded<R>(act: impl FnOnce() -> R) -> Option<R> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)) {
        Ok(value) => Some(value),
        Err(_) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            TROUBLE.store(true, Ordering::Release);
            None
        }
    }
}

/// A call came while another thread took too long to start the recorder.
pub(crate) fn missed() {
    MISSED.fetch_add(1, Ordering::Relaxed);
    TROUBLE.store(true, Ordering::Release);
}

/// This is a forked child: nothing that waits is its own.
pub(crate) fn start_over() {
    LEDGER.renew();
    waiting::start_over();
    // SAFETY: a forked child has one thread.
    while unsafe { LANE.pop() }.is_some() {}
}
