//! Hooks of the driver API, one family a file, named as cuda.h groups them. Every route of an
//! allocation ends here.
//!
//! The hooks hold no logic: each makes the real call and says to [`crate::memory`] what it was.
//! Signatures are cuda.h's, reduced to their ABI; unsuffixed names are the functions of CUDA 3.1
//! and before, whose addresses and sizes have 32 bits.

use std::ffi::c_void;

mod arrays;
mod checkpoint;
mod contexts;
mod external;
mod graphics;
mod graphs;
mod host;
mod ipc;
mod launches;
mod linear;
mod modules;
mod multicast;
mod pools;
mod resolvers;
mod stream_ordered;
mod streams;
mod virtual_memory;

/// Any driver object.
type Handle = *mut c_void;

/// Every family's hooks.
pub static FAMILIES: &[&[&crate::hook::Hook]] = &[
    resolvers::HOOKS,
    contexts::HOOKS,
    linear::HOOKS,
    stream_ordered::HOOKS,
    streams::HOOKS,
    pools::HOOKS,
    host::HOOKS,
    arrays::HOOKS,
    virtual_memory::HOOKS,
    multicast::HOOKS,
    ipc::HOOKS,
    external::HOOKS,
    graphics::HOOKS,
    graphs::HOOKS,
    modules::HOOKS,
    launches::HOOKS,
    checkpoint::HOOKS,
];
