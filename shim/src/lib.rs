//! `libvramtrace.so`: in the target, it sees every GPU memory allocation.
//!
//! A call of the program reaches a *hook* by one of the routes in [`link`]; a hook calls the real
//! function and says to [`memory`] what that means; `memory` tells the recorder. One file a
//! family: [`driver`] and [`runtime`] are named as NVIDIA names the groups; [`framework`] hears of
//! what is handed out inside what the driver gave. What the program says it is doing meanwhile comes by
//! [`nvtx`].
//!
//! The target always comes first. Nothing here may change a result, block, unwind into the
//! caller, allocate inside the resolver path, or call the driver beyond the allowlist in
//! [`memory::own_calls`]. Until the first context or allocation succeeds nothing exists: no
//! file, no output.

mod driver;
mod framework;
mod hook;
mod lifetime;
mod link;
mod memory;
mod nvtx;
mod runtime;

use hook::Hook;

/// Every hook of the driver API.
fn driver_hooks() -> impl Iterator<Item = &'static Hook> {
    driver::FAMILIES
        .iter()
        .flat_map(|family| family.iter().copied())
}

/// Every hook of the runtime API.
fn runtime_hooks() -> impl Iterator<Item = &'static Hook> {
    runtime::FAMILIES
        .iter()
        .flat_map(|family| family.iter().copied())
}
