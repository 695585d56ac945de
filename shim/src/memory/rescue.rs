//! One more attempt at an allocation that failed for lack of memory (`VRAMTRACE_ON_OOM=rescue`):
//! pools of the device give back what they hold without using it, and the call is made again, once.
//!
//! What is freed on a stream counts as used until the host has waited for that stream (cuda.h on
//! cuMemPoolTrimTo), so that is done first. Not with cuCtxSynchronize, which has no end: a kernel may
//! wait for another device that this very thread is about to serve. An event behind all of the current
//! context's work is asked whether it has come, for at most [`PATIENCE`]. That alone shows the driver
//! nothing; on an H100 with CUDA 13.0 what counts is cuEventSynchronize on an event *of the stream*
//! that freed. So an event is then put into the legacy stream, which is behind all blocking ones, and
//! into each other stream that has allocated or freed; they are idle, it comes at once.
//!
//! Never while a capture is open in the process: each call is one of [`own_calls`] that are made
//! outside captures only, and the first one that may not be made ends the rescue. One rescue at a
//! time; and where the last one of a device found nothing, a loop of failures is not slowed down
//! by more of them.

use super::{capture, context, graphs, own_calls, pools, streams};
use own_calls::Progress;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vramtrace_format::record::Kind;
use vramtrace_recorder::{clock, lock};

/// How long the device's work is waited for, nanoseconds.
const PATIENCE: u64 = 2_000_000_000;
/// After a rescue that gave nothing back, for so long no other is tried on that device, nanoseconds.
const POINTLESS: u64 = 100_000_000;
/// Devices that are told apart.
const DEVICES: usize = 64;

static UNDER_WAY: AtomicBool = AtomicBool::new(false);
/// When the last pointless rescue of each device ended.
static POINTLESS_AT: [AtomicU64; DEVICES] = [const { AtomicU64::new(0) }; DEVICES];

/// What a rescue came to.
#[derive(Clone, Copy, Debug)]
pub struct Rescued {
    /// Bytes that pools gave back.
    pub bytes: u64,
    /// The device had not done all its work in time.
    pub impatient: bool,
    /// When it began, CLOCK_MONOTONIC.
    began: u64,
    device: u8,
}

impl Rescued {
    /// The second attempt was made. Returns how long all of it took, microseconds.
    pub fn ended(self, saved: bool) -> u64 {
        let now = clock::monotonic_ns();
        if !saved && self.bytes == 0 {
            POINTLESS_AT[usize::from(self.device) % DEVICES].store(now, Ordering::Relaxed);
        }
        now.saturating_sub(self.began) / 1000
    }
}

/// The one that is under way.
struct UnderWay;

impl UnderWay {
    /// Another thread's is waited for: it frees memory for this one, too.
    fn begin(began: u64) -> Option<UnderWay> {
        let mut turns = 0;
        while UNDER_WAY.swap(true, Ordering::AcqRel) {
            if clock::monotonic_ns().saturating_sub(began) > PATIENCE {
                return None;
            }
            lock::pause(turns);
            turns = turns.saturating_add(1);
        }
        Some(UnderWay)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::Release);
    }
}

/// Whether pools can have what an allocation of this kind lacks.
pub fn helps(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Device | Kind::Managed | Kind::Array | Kind::Vmm | Kind::Async
    )
}

/// Makes the pools of a device give back what they do not use. `None` if nothing was done.
pub fn trim(device: u8) -> Option<Rescued> {
    let began = clock::monotonic_ns();
    let last = POINTLESS_AT[usize::from(device) % DEVICES].load(Ordering::Relaxed);
    if capture::any_open() || (last != 0 && began.saturating_sub(last) < POINTLESS) {
        return None;
    }
    let _under_way = UnderWay::begin(began)?;
    // Seen before the wait: at its end the driver looks through its pools by itself.
    let before = reserves(device)?;
    // Work of another device's context is none of this thread's.
    let idle = match context::current() {
        (context, current) if context != 0 && current == device => wait(began)?,
        _ => false,
    };
    pools::trim_all(device)?;
    own_calls::trim_graph_pool(device)?;
    graphs::sample_reserve(device);
    let after = reserves(device)?;
    Some(Rescued {
        bytes: before.saturating_sub(after),
        impatient: !idle,
        began,
        device,
    })
}

/// What all pools of a device hold.
fn reserves(device: u8) -> Option<u64> {
    let graphs = own_calls::graph_pool_reserve(device).unwrap_or(0);
    Some(pools::reserve_of_all(device)?.saturating_add(graphs))
}

/// Waits for the work that the current context has, not for long, and lets the driver see that it is
/// done. Whether it is; `None` if a capture began.
fn wait(began: u64) -> Option<bool> {
    let context = own_calls::current_context()?;
    let Some(event) = own_calls::make_event() else {
        return (!capture::any_open()).then_some(false);
    };
    let mut progress = come(own_calls::record_all_work(context, event), event, began);
    if progress == Progress::Done {
        progress = show_streams(event, began);
    }
    // Where a capture has begun the event stays, which costs nothing but its few bytes.
    own_calls::drop_event(event);
    (progress != Progress::Forbidden).then_some(progress == Progress::Done)
}

/// Lets the driver see that streams of the current context are done.
fn show_streams(event: usize, began: u64) -> Progress {
    let (context, _) = context::current();
    let made = streams::of_context(context);
    let legacy = std::iter::once(own_calls::LEGACY);
    for stream in legacy.chain(made) {
        let record = || own_calls::record_work(stream, event);
        let recorded = match stream {
            own_calls::LEGACY => record(),
            _ => match streams::use_if_there(stream, context, record) {
                Some(recorded) => recorded,
                // The driver saw to it when it was destroyed.
                None => continue,
            },
        };
        match come(recorded, event, began) {
            Progress::Done => own_calls::synchronize_with(event),
            // It may be another kind of context's.
            Progress::Unknown => {}
            unfinished => return unfinished,
        }
    }
    Progress::Done
}

/// Asks until an event has come, or patience is at an end.
fn come(recorded: Progress, event: usize, began: u64) -> Progress {
    let (mut progress, mut turns) = (recorded, 0);
    while progress == Progress::Working {
        if clock::monotonic_ns().saturating_sub(began) > PATIENCE {
            break;
        }
        lock::pause(turns);
        turns = turns.saturating_add(1);
        progress = own_calls::has_come(event);
    }
    progress
}

/// Waits, not forever, until no pool is being trimmed: one is about to be destroyed.
pub fn let_trims_finish() {
    let began = clock::monotonic_ns();
    let mut turns = 0;
    while pools::is_trimming() && clock::monotonic_ns().saturating_sub(began) < PATIENCE {
        lock::pause(turns);
        turns = turns.saturating_add(1);
    }
}

/// A new trace begins.
pub fn start_over() {
    UNDER_WAY.store(false, Ordering::Release);
    pools::no_trim();
    for at in &POINTLESS_AT {
        at.store(0, Ordering::Relaxed);
    }
}
