//! Hooks of the runtime API: they label what happens inside ("cudaMallocPitch", not
//! "cuMemAllocPitch_v2"), and catch what no driver hook saw.

use crate::hook::Call;
use crate::lifetime;
use crate::memory::allocation::{self, New, out};
use crate::memory::{Real, SUCCESS, capture, context};
use std::ffi::c_void;
use vramtrace_format::record::{Kind, Space};

mod devices;
mod graphs;
mod imports;
mod memory;
mod pools;
mod resolvers;

/// Any runtime object.
type Handle = *mut c_void;

/// Every family's hooks.
pub static FAMILIES: &[&[&crate::hook::Hook]] = &[
    resolvers::HOOKS,
    memory::HOOKS,
    pools::HOOKS,
    imports::HOOKS,
    graphs::HOOKS,
    devices::HOOKS,
];

/// Makes the real call. If it allocated without any driver call coming through our hooks (the
/// runtime found the driver by a way that we do not stand before), the allocation is recorded
/// here after all.
fn allocating(
    call: &Call,
    kind: Kind,
    space: Space,
    made: *const u64,
    size: impl FnOnce() -> u64,
    real: impl Real,
) -> u32 {
    let before = Call::driver_calls_seen();
    let result = real();
    if result == SUCCESS
        && Call::driver_calls_seen() == before
        && !capture::any_open()
        && lifetime::start()
        // SAFETY: the program's out-parameter of a call that succeeded.
        && let Some(key) = unsafe { out(made) }
        && key != 0
    {
        let (context, device) = context::current();
        allocation::record(
            call,
            &New {
                kind,
                space,
                key,
                size: size(),
                aux: 0,
            },
            context,
            device,
        );
    }
    result
}

/// Makes the real call, which frees; recorded here if no driver hook sees it.
fn freeing(call: &Call, kind: Kind, space: Space, key: u64, real: impl Real) -> u32 {
    let before = Call::driver_calls_seen();
    let result = real();
    if result == SUCCESS
        && key != 0
        && Call::driver_calls_seen() == before
        && vramtrace_recorder::is_on()
        && vramtrace_recorder::find(kind.lane(), space, key).is_some()
    {
        allocation::free(call, kind.lane(), space, key, 0, || SUCCESS);
    }
    result
}
