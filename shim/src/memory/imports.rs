//! Somebody else's memory, visible here: shown, never added to anything.

use super::allocation::{self, New};
use super::{Real, SUCCESS, context};
use crate::hook::Call;
use crate::lifetime;
use std::collections::HashMap;
use vramtrace_format::record::{Kind, Space};
use vramtrace_recorder::{self as recorder, Renewable};

/// How often each IPC address was opened: the driver counts, and gives the same address again.
static OPENED: Renewable<HashMap<u64, u64>> = Renewable::new();

/// An IPC handle is opened.
pub fn open_ipc(call: &Call, address: *const u64, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, address) };
    if let Some(address) = made
        && lifetime::start()
    {
        let first = OPENED.lock().is_some_and(|mut opened| {
            let count = opened.entry(address).or_insert(0);
            *count += 1;
            *count == 1
        });
        if first {
            let size = super::own_calls::size_of_allocation(address).unwrap_or(0);
            import(call, Space::Import, address, size, 0);
        }
    }
    result
}

/// An IPC address is closed.
pub fn close_ipc(call: &Call, address: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let last = OPENED
        .lock()
        .and_then(|opened| opened.get(&address).copied())
        == Some(1);
    if !last {
        let result = real();
        if result == SUCCESS
            && let Some(mut opened) = OPENED.lock()
            && let Some(count) = opened.get_mut(&address)
        {
            *count -= 1;
        }
        return result;
    }
    let result = allocation::free(call, Kind::Import.lane(), Space::Import, address, 0, real);
    if result == SUCCESS
        && let Some(mut opened) = OPENED.lock()
    {
        opened.remove(&address);
    }
    result
}

/// Records an import in the current context.
pub fn import(call: &Call, space: Space, key: u64, size: u64, aux: u64) {
    let (context, device) = context::current();
    allocation::record(
        call,
        &New {
            kind: Kind::Import,
            space,
            key,
            size,
            aux,
        },
        context,
        device,
    );
}

/// Makes the real call, and records what it made visible.
pub fn made(
    call: &Call,
    space: Space,
    key: impl FnOnce() -> Option<u64>,
    size: u64,
    aux: u64,
    real: impl Real,
) -> u32 {
    let result = real();
    if result == SUCCESS
        && lifetime::start()
        && let Some(key) = key()
    {
        import(call, space, key, size, aux);
    } else {
        super::errors::look_at(result, call.api());
    }
    result
}

/// A new trace begins.
pub fn start_over() {
    OPENED.renew();
}
