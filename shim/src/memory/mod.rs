//! What memory means: the one place that knows what a CUDA call does to what is allocated.
//!
//! Hooks come here with a call that they let through; from here the recorder is told. Each file
//! is one idea of the driver API's memory model.

pub mod allocation;
pub mod arrays;
pub mod attach;
pub mod bindings;
pub mod capture;
pub mod code;
pub mod context;
pub mod ending;
pub mod errors;
pub mod exports;
pub mod footprint;
pub mod graphs;
pub mod green;
pub mod imports;
pub mod limits;
pub mod own_calls;
pub mod pools;
pub mod rescue;
pub mod streams;
pub mod vmm;

/// What a hook's code gets as "the real call".
pub trait Real: FnOnce() -> u32 {}
impl<F: FnOnce() -> u32> Real for F {}

/// A real call that may be made once more, if it came to nothing.
pub trait Again: Fn() -> u32 {}
impl<F: Fn() -> u32> Again for F {}

/// CUDA_SUCCESS (cuda.h).
pub const SUCCESS: u32 = 0;
