//! Plain allocations: something begins under a key, something ends under it.

use super::{Real, SUCCESS, context, errors, own_calls};
use crate::hook::Call;
use crate::lifetime;
use vramtrace_format::record::{Allocation, Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_recorder as recorder;

/// Reads an out-parameter of the program after success; programs may pass null.
///
/// # Safety
/// `pointer` must be null or what the program passed to a call that succeeded.
#[inline]
pub unsafe fn out<T: Copy>(pointer: *const T) -> Option<T> {
    // SAFETY: a non-null out-parameter of a successful call was written by the driver.
    (!pointer.is_null()).then(|| unsafe { pointer.read_unaligned() })
}

/// As [`out`], where the call may have failed.
///
/// # Safety
/// `pointer` must be null or what the program passed to the call that came to this result.
#[inline]
pub unsafe fn out_of<T: Copy>(result: u32, pointer: *const T) -> Option<T> {
    if result != SUCCESS {
        return None;
    }
    // SAFETY: the caller's contract, and the call succeeded.
    unsafe { out(pointer) }
}

/// What an allocation is, as its hook knows it.
pub struct New {
    /// Its kind.
    pub kind: Kind,
    /// Space of its key.
    pub space: Space,
    /// Its key.
    pub key: u64,
    /// Bytes asked for.
    pub size: u64,
    /// See [`Kind`].
    pub aux: u64,
}

/// Makes the real call, and records the allocation that it made in the current context. `made`
/// reads what came out; `asked` is what a failure is reported with.
#[inline]
pub fn allocate(
    call: &Call,
    kind: Kind,
    asked: u64,
    real: impl Real,
    made: impl FnOnce() -> Option<New>,
) -> u32 {
    let result = real();
    if result == SUCCESS {
        if lifetime::start()
            && let Some(new) = made()
            && new.key != 0
        {
            let (context, device) = context::current();
            record(call, &new, context, device);
        }
    } else {
        failed(call, kind, asked, result);
    }
    result
}

/// Records an allocation.
#[inline]
pub fn record(call: &Call, new: &New, context: u16, device: u8) {
    let device = if new.space == Space::Host {
        NO_DEVICE
    } else {
        device
    };
    recorder::allocated(Allocation {
        key: new.key,
        size: new.size,
        aux: new.aux,
        context,
        api: call.api(),
        space: new.space,
        kind: new.kind,
        device,
        stream: 0,
    });
}

/// An allocation failed. Only a lack of memory is news; anything else is the program's mistake,
/// and says so to the program.
#[cold]
pub fn failed(call: &Call, kind: Kind, asked: u64, error: u32) {
    errors::look_at(error, call.api());
    if error != errors::OUT_OF_MEMORY || !recorder::is_on() {
        return;
    }
    let (context, device) = context::current();
    let api = call.api();
    let base = Record {
        context,
        api,
        kind: kind as u8,
        device,
        ..Record::default()
    };
    recorder::event_with_stack(&Record {
        op: Op::AllocFailed as u8,
        size: asked,
        aux: u64::from(error),
        ..base
    });
    if let Some((free, total)) = own_calls::memory_info() {
        recorder::event(&Record {
            op: Op::MemInfo as u8,
            size: total,
            aux: free,
            ..base
        });
    }
}

/// Makes the real call, which ends what is allocated under a key. Recorded before the call,
/// because another thread may be given the key the moment it returns; undone if it fails.
#[inline]
pub fn free(call: &Call, lane: usize, space: Space, key: u64, stream: u32, real: impl Real) -> u32 {
    if key == 0 || !recorder::is_on() {
        return real();
    }
    lifetime::watch_teardown();
    if recorder::is_teardown() {
        return free_in_teardown(call, lane, space, key, stream, real);
    }
    let token = recorder::freeing(lane, space, key, call.api(), stream);
    let result = real();
    finish_free(call, &token, space, key, result);
    result
}

/// The process is going down: nobody is given the key anew, so the call comes first and only what
/// it really freed is marked. A driver that is shutting down has taken everything already.
#[cold]
fn free_in_teardown(
    call: &Call,
    lane: usize,
    space: Space,
    key: u64,
    stream: u32,
    real: impl Real,
) -> u32 {
    let result = real();
    match result {
        SUCCESS | errors::DEINITIALIZED => {
            recorder::freeing(lane, space, key, call.api(), stream);
        }
        error => errors::look_at(error, call.api()),
    }
    result
}

/// What the real call said about a free that is already recorded.
#[inline]
pub fn finish_free(call: &Call, token: &recorder::FreeToken, space: Space, key: u64, result: u32) {
    match result {
        SUCCESS => {
            if let Some(entry) = token.entry() {
                super::ending::block_freed(entry);
            } else if !token.waits() {
                recorder::free_unmatched(space, key, call.api());
            }
        }
        // The driver is shutting down and takes everything with it: not a failure.
        errors::DEINITIALIZED => {}
        error => {
            errors::look_at(error, call.api());
            recorder::free_failed(token, space, key, call.api(), u64::from(error));
            if let Some(entry) = token.entry() {
                super::ending::block_back(entry);
            }
        }
    }
}
