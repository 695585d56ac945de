//! Somebody else's memory, visible here: shown, never added to anything.

use super::allocation::{self, New};
use super::{Real, SUCCESS, context, errors};
use crate::hook::Call;
use crate::lifetime;
use std::collections::HashMap;
use vramtrace_format::record::{Kind, Space};
use vramtrace_recorder::{self as recorder, Renewable};

/// How often each IPC address was opened, and the context that it was opened in first: the driver
/// counts, and gives the same address again.
static OPENED: Renewable<HashMap<u64, (u64, u16)>> = Renewable::new();

/// An IPC handle is opened.
pub fn open_ipc(call: &Call, address: *const u64, real: impl Real) -> u32 {
    let result = real();
    errors::look_at(result, call.api());
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, address) };
    if let Some(address) = made
        && lifetime::start()
    {
        let (context, _) = context::current();
        if add_opening(address, context) {
            let size = super::own_calls::size_of_allocation(address).unwrap_or(0);
            import(call, Space::Import, address, size, 0);
        }
    }
    result
}

/// True for the first one.
fn add_opening(address: u64, context: u16) -> bool {
    OPENED.lock().is_some_and(|mut opened| {
        let (count, of) = opened.entry(address).or_insert((0, context));
        if *of != context {
            // Opened in a context that is just ending.
            (*count, *of) = (0, context);
        }
        *count += 1;
        *count == 1
    })
}

/// Contexts are gone, and with them what was opened in them.
pub fn contexts_gone(is_one: impl Fn(u16) -> bool) {
    if let Some(mut opened) = OPENED.lock() {
        opened.retain(|_, (_, context)| !is_one(*context));
    }
}

/// An IPC address is closed. The opening is taken off before the call: when two threads close, one
/// of them is the last.
pub fn close_ipc(call: &Call, address: u64, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let taken = OPENED.lock().and_then(|mut opened| {
        let (count, context) = opened.get_mut(&address)?;
        *count -= 1;
        let taken = (*count == 0, *context);
        if taken.0 {
            opened.remove(&address);
        }
        Some(taken)
    });
    let result = if taken.is_some_and(|(last, _)| last) {
        allocation::free(call, Kind::Import.lane(), Space::Import, address, 0, real)
    } else {
        real()
    };
    if result != SUCCESS
        && let Some((_, context)) = taken
    {
        add_opening(address, context);
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
