//! Snapshots of the tables when an allocation failed for lack of memory, for whoever looks when the
//! process is gone and its log has forgotten the moment.
//!
//! The thread whose allocation failed writes them, before its program hears of the failure: the
//! next thing that happens may be the end. Other threads go on meanwhile ([`copy`]); the file lies
//! beside the trace, in memory by default, and has no name before it is whole ([`store`]).
//!
//! Programs may fail in loops: they probe how much they get, or a framework empties its cache and
//! tries again. So the first few and the last few are kept, all of them together within the
//! size of the trace and of `VRAMTRACE_KEEP`, and no more are taken than [`Pace`] lets through.

mod copy;
mod pace;
mod store;

use crate::file::TraceFile;
use crate::settings::{Log, OnOom, Settings};
use crate::turn::guarded;
use crate::{Renewable, clock, process, recorder, say};
use pace::Pace;
use std::sync::atomic::{AtomicU8, Ordering};
use store::Store;
use vramtrace_format::cold::{Cold, Note};
use vramtrace_format::record::{Op, Record};

/// What the environment asked for; a number of [`OnOom`].
static ON_OOM: AtomicU8 = AtomicU8::new(OnOom::Record as u8);

/// Where this process's snapshots go, and which there are.
#[derive(Default)]
struct Keeper {
    store: Option<Store>,
    pace: Pace,
    number: u32,
    log: Option<Log>,
    /// That one could not be written was said.
    complained: bool,
}

static KEEPER: Renewable<Keeper> = Renewable::new();

/// An allocation that failed.
#[derive(Clone, Copy, Debug)]
pub struct OutOfMemory {
    /// The event that says so.
    pub event: u64,
    /// Bytes that were asked for.
    pub asked: u64,
    /// It was a framework's own allocator that gave up, after whatever the driver had said before.
    pub framework: bool,
}

/// What to do when an allocation fails for lack of memory.
#[inline]
pub fn on_oom() -> OnOom {
    match ON_OOM.load(Ordering::Relaxed) {
        2 => OnOom::Rescue,
        1 => OnOom::Snapshot,
        _ => OnOom::Record,
    }
}

/// A trace begins.
pub(crate) fn prepare(settings: &Settings, file: &TraceFile) {
    ON_OOM.store(settings.on_oom as u8, Ordering::Relaxed);
    if settings.on_oom >= OnOom::Snapshot
        && let Some(mut keeper) = KEEPER.lock()
    {
        keeper.store = Store::beside(file, settings.keep);
        keeper.log = Some(settings.log);
    }
}

/// This is a forked child: its parent's snapshots are none of its business.
pub(crate) fn start_over() {
    KEEPER.renew();
    ON_OOM.store(OnOom::Record as u8, Ordering::Relaxed);
}

/// Takes a snapshot, if that is asked for and it is time for one.
#[cold]
pub fn out_of_memory(failure: OutOfMemory) {
    if on_oom() < OnOom::Snapshot || !process::is_recording() || failure.event == u64::MAX {
        return;
    }
    guarded(|| {
        let _uncancelled = process::Uncancelled::new();
        // Another thread may be writing one right now, of nearly the same moment.
        let Some(mut keeper) = KEEPER.try_lock() else {
            return;
        };
        let thread = process::thread_id();
        if keeper.store.is_none()
            || !keeper
                .pace
                .lets_through(thread, &failure, clock::monotonic_ns())
        {
            return;
        }
        take(&mut keeper, failure);
    });
}

fn take(keeper: &mut Keeper, failure: OutOfMemory) {
    let Some(store) = &mut keeper.store else {
        return;
    };
    let number = keeper.number + 1;
    let written = copy::tables().and_then(|contents| store.write(contents, number, failure.event));
    let bytes = match written {
        Ok(bytes) => {
            keeper.number = number;
            bytes
        }
        Err(why) => {
            if !keeper.complained {
                keeper.complained = true;
                let line = format!("no snapshot of an allocation that failed: {why}");
                say::line(keeper.log.unwrap_or(Log::Warn), Log::Warn, &line);
                recorder::cold(&Cold::Note(Note {
                    code: "no-snapshot".into(),
                    text: line,
                }));
            }
            0
        }
    };
    recorder::event(&Record {
        op: Op::Snapshot as u8,
        key: u64::from(number),
        size: bytes,
        aux: failure.event,
        ..Record::default()
    });
}
