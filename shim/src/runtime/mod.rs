//! Hooks of the runtime API: they label what happens inside ("cudaMallocPitch", not
//! "cuMemAllocPitch_v2"), and catch what no driver hook saw.

/// Every family's hooks.
pub static FAMILIES: &[&[&crate::hook::Hook]] = &[];
