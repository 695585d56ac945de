//! What the driver takes for itself: contexts, device code, limits. Nobody asks for those bytes by
//! a call that names them; they are how much less memory is free after a call than before it.
//!
//! cuMemGetInfo speaks of the whole device. Growth is therefore taken only around single calls, which
//! other processes hardly meet, and only where nothing else of this process changed meanwhile.

use super::{Real, SUCCESS, own_calls};
use std::sync::atomic::{AtomicU32, Ordering};
use vramtrace_format::account::Account;
use vramtrace_format::footprint::{FOOTPRINT_ROWS, Footprint, Part};
use vramtrace_format::record::{Op, Record};
use vramtrace_recorder as recorder;

/// Devices, by bit, whose first context exists and was not current since: only then can the device
/// be asked for its memory.
static PENDING: AtomicU32 = AtomicU32::new(0);

fn bit(device: u8) -> u32 {
    1u32.checked_shl(device.into()).unwrap_or(0)
}

/// The process's first context on a device exists, or the first after all others were gone. What
/// those had cost stays in the trace until this one is measured: reports look back.
pub fn first_context(device: u8) {
    PENDING.fetch_or(bit(device), Ordering::SeqCst);
}

/// A context became current, or is about to be used: if it is the first one of its device, what the
/// device uses now is where everything starts from.
#[inline(always)]
pub fn context_is_current() {
    if PENDING.load(Ordering::Relaxed) != 0 {
        measure_start();
    }
}

#[cold]
fn measure_start() {
    if !recorder::is_on() {
        return;
    }
    let Some(device) = own_calls::current_device() else {
        return;
    };
    if PENDING.load(Ordering::SeqCst) & bit(device) == 0 {
        return;
    }
    let Some((free, total)) = own_calls::memory_info() else {
        return;
    };
    if PENDING.fetch_and(!bit(device), Ordering::SeqCst) & bit(device) == 0 {
        return;
    }
    recorder::footprint(device, |footprint, account, now| {
        *footprint = Footprint {
            total,
            measured_at: now,
            // Where the context was not seen becoming current something may be allocated already.
            used_at_start: (total - free.min(total)).saturating_sub(account.live_bytes),
            ..Footprint::default()
        };
    });
    recorder::event(&Record {
        op: Op::MemInfo as u8,
        size: total,
        aux: free,
        device,
        ..Record::default()
    });
}

/// A device's free memory before a call, and what could disturb the comparison.
struct Before {
    device: u8,
    free: u64,
    state: State,
}

/// Changes with every allocation, free and gauge of the device layer.
type State = (u64, u64, u64);

fn state(account: &Account) -> State {
    (account.alloc_count, account.live_count, account.live_bytes)
}

impl Before {
    fn take() -> Option<Before> {
        if !recorder::is_on() {
            return None;
        }
        context_is_current();
        let device = own_calls::current_device()?;
        if usize::from(device) >= FOOTPRINT_ROWS {
            return None;
        }
        let state = recorder::footprint(device, |_, account, _| state(account))?;
        let (free, _) = own_calls::memory_info()?;
        Some(Before {
            device,
            free,
            state,
        })
    }

    /// Bytes that the driver holds more than before; `None` where that is not known.
    fn growth(&self, part: Part) -> Option<i64> {
        // Another context may be current now, of another device.
        if own_calls::current_device() != Some(self.device) {
            return None;
        }
        let (free, _) = own_calls::memory_info()?;
        let growth = (self.free as i64).wrapping_sub(free as i64);
        recorder::footprint(self.device, |footprint, account, _| {
            if state(account) != self.state {
                footprint.unmeasured += 1;
                return None;
            }
            footprint.grew(part, growth);
            Some(growth)
        })
        .flatten()
    }
}

/// Makes a call for which the driver may take or give back memory of its own. Answers with it how
/// much that was, in bytes, where the call succeeded and it is known.
pub fn around(part: Part, real: impl Real) -> (u32, Option<i64>) {
    let before = Before::take();
    let result = real();
    let growth = before
        .filter(|_| result == SUCCESS)
        .and_then(|before| before.growth(part));
    (result, growth)
}

/// A new trace begins.
pub fn start_over() {
    PENDING.store(0, Ordering::SeqCst);
}
