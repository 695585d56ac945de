//! Plain allocations: something begins under a key, something ends under it.

use super::{Again, Real, SUCCESS, context, errors, own_calls, pools, rescue};
use crate::hook::Call;
use crate::lifetime;
use vramtrace_format::record::{Allocation, Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_recorder::settings::OnOom;
use vramtrace_recorder::{self as recorder, OutOfMemory};

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

/// What an allocation that failed was to be.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its kind.
    pub kind: Kind,
    /// Bytes asked for.
    pub bytes: u64,
    /// The device whose memory it was to be; `None` for the current one's.
    pub device: Option<u8>,
}

/// Makes the real call, and records the allocation that it made in the current context. `made`
/// reads what came out; `asked` is what a failure is reported with.
#[inline]
pub fn allocate(
    call: &Call,
    kind: Kind,
    asked: u64,
    real: impl Again,
    made: impl FnOnce() -> Option<New>,
) -> u32 {
    let mut result = real();
    if result != SUCCESS {
        let asked = Asked {
            kind,
            bytes: asked,
            device: None,
        };
        result = refused(call, asked, result, &real);
    }
    if result == SUCCESS
        && lifetime::start()
        && let Some(new) = made()
        && new.key != 0
    {
        let (context, device) = context::current();
        record(call, &new, context, device);
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

/// An allocation failed with `error`, and cannot be made anew. Only a lack of memory is news; anything
/// else is the program's mistake, and says so to the program.
#[cold]
pub fn failed(call: &Call, asked: Asked, error: u32) {
    if let Some((event, _)) = note_failure(call, asked, error) {
        recorder::out_of_memory(OutOfMemory {
            event,
            asked: asked.bytes,
            framework: false,
        });
    }
}

/// As [`failed`], of a call that can be made once more, where the user asked for that. Returns what
/// the program is to get.
#[cold]
pub fn refused(call: &Call, asked: Asked, error: u32, real: &dyn Fn() -> u32) -> u32 {
    let Some((event, device)) = note_failure(call, asked, error) else {
        return error;
    };
    let mut result = error;
    if recorder::on_oom() == OnOom::Rescue
        && rescue::helps(asked.kind)
        && device != NO_DEVICE
        && let Some(rescued) = rescue::trim(device)
    {
        result = real();
        let micros = rescued.ended(result == SUCCESS);
        recorder::rescued(&Record {
            op: Op::Rescue as u8,
            size: asked.bytes,
            key: rescued.bytes,
            aux: Record::rescue_aux(result, micros, rescued.impatient),
            kind: asked.kind as u8,
            device,
            api: call.api(),
            ..Record::default()
        });
        errors::look_at(result, call.api());
    }
    if result == errors::OUT_OF_MEMORY {
        recorder::out_of_memory(OutOfMemory {
            event,
            asked: asked.bytes,
            framework: false,
        });
    }
    result
}

/// Records that memory was lacking, and what the driver says is free. Returns the event, and the
/// device.
fn note_failure(call: &Call, asked: Asked, error: u32) -> Option<(u64, u8)> {
    errors::look_at(error, call.api());
    if error != errors::OUT_OF_MEMORY || !recorder::is_on() {
        return None;
    }
    let (context, current) = context::current();
    let device = asked.device.unwrap_or(current);
    let base = Record {
        context,
        api: call.api(),
        kind: asked.kind as u8,
        device,
        ..Record::default()
    };
    // What caches held then is what one wants to know; a capture keeps it from being asked.
    pools::sample_all(device);
    let event = recorder::event_with_stack(&Record {
        op: Op::AllocFailed as u8,
        size: asked.bytes,
        aux: u64::from(error),
        ..base
    });
    // Of the current device only; what another one has free cannot be asked for from here.
    if device == current
        && let Some((free, total)) = own_calls::memory_info()
    {
        recorder::event(&Record {
            op: Op::MemInfo as u8,
            size: total,
            aux: free,
            ..base
        });
    }
    Some((event, device))
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
