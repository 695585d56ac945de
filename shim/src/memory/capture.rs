//! Stream captures: while one is open, stream-ordered calls make graph nodes instead of memory,
//! and a driver call of ours could destroy it.
//!
//! The two sides meet like this. A capture counts itself open *before* it really begins, then
//! waits until no own call is in flight. An own call counts itself in flight, then looks whether
//! a capture is open. Whichever comes second sees the other.

use std::sync::atomic::{AtomicUsize, Ordering};

static OPEN: AtomicUsize = AtomicUsize::new(0);
static OWN_CALLS: AtomicUsize = AtomicUsize::new(0);
/// An own call takes microseconds; one that takes longer than this many yields is stuck, and the
/// program must not be.
const PATIENCE: usize = 10_000;

/// Whether any capture is open in the process.
#[inline]
pub fn any_open() -> bool {
    OPEN.load(Ordering::Relaxed) != 0
}

/// An own driver call in flight.
pub struct OwnCall(());

/// Announces an own call that must not meet a capture; `None` if one is open.
pub fn own_call() -> Option<OwnCall> {
    OWN_CALLS.fetch_add(1, Ordering::SeqCst);
    let announced = OwnCall(());
    (OPEN.load(Ordering::SeqCst) == 0).then_some(announced)
}

impl Drop for OwnCall {
    fn drop(&mut self) {
        OWN_CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits, not forever, until no own call is in flight.
pub fn let_own_calls_finish() {
    for _ in 0..PATIENCE {
        if OWN_CALLS.load(Ordering::SeqCst) == 0 {
            break;
        }
        std::thread::yield_now();
    }
}

/// This is a forked child: its parent's captures do not exist here.
pub fn start_over() {
    OPEN.store(0, Ordering::SeqCst);
    OWN_CALLS.store(0, Ordering::SeqCst);
}

/// A capture begins through `real`.
pub fn begin(real: impl super::Real) -> u32 {
    OPEN.fetch_add(1, Ordering::SeqCst);
    let_own_calls_finish();
    let result = real();
    if result != super::SUCCESS {
        closed();
    }
    result
}

/// A capture ends through `real`: by success, or by one of the errors of a capture that is no
/// more (CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to _CAPTURED_EVENT, 900 to 907; an H100 says 901).
/// Any other error ended nothing, and somebody else's capture may be open.
pub fn end(real: impl super::Real) -> u32 {
    let result = real();
    if matches!(result, super::SUCCESS | 900..=907) {
        closed();
    }
    result
}

fn closed() {
    // A stream destroyed while capturing never ends its capture; then counts only stay too high,
    // which keeps own calls away and hurts nobody.
    let _ = OPEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
        open.checked_sub(1)
    });
}

/// Whether a stream-ordered call on `stream` becomes a graph node.
#[inline]
pub fn makes_nodes(stream: usize) -> bool {
    any_open() && super::own_calls::is_capturing(stream)
}
