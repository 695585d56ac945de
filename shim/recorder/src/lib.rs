//! In the target: from an allocation event to the trace file.
//!
//! The shim's hooks say what happened; this crate gives it a time, a stack, a place in the
//! process's one order of events, and writes it so that a kill at any instant leaves a whole
//! trace. It knows nothing of CUDA beyond the words of the trace format.
//!
//! What must never happen here: waiting (every lock has a bound, and behind it is the slow
//! [`lane`]), touching the disk outside [`start`], unwinding into the caller, or writing as a
//! forked child into the parent's file.

#[cfg(not(loom))]
mod blocks;
pub mod clock;
pub mod counter;
pub mod file;
#[cfg(not(loom))]
mod frees;
pub mod lane;
pub mod ledger;
#[cfg(not(loom))]
mod life;
pub mod lock;
#[cfg(not(loom))]
mod marks;
pub mod per_thread;
pub mod place;
pub mod process;
#[cfg(not(loom))]
pub mod ranges;
#[cfg(not(loom))]
mod recorder;
mod renew;
#[cfg(not(loom))]
mod rescues;
// Of loom's tests only the ledger's part of it is used.
#[cfg_attr(loom, allow(dead_code))]
pub mod sampling;
mod say;
pub mod settings;
#[cfg(not(loom))]
mod snapshot;
pub mod stack;
#[cfg(not(loom))]
mod turn;
#[cfg(not(loom))]
mod waiting;

#[cfg(not(loom))]
pub use blocks::*;
#[cfg(not(loom))]
pub use frees::*;
#[cfg(not(loom))]
pub use life::*;
#[cfg(not(loom))]
pub use marks::mark;
#[cfg(not(loom))]
pub use recorder::*;
pub use renew::Renewable;
#[cfg(not(loom))]
pub use rescues::rescued;
#[cfg(not(loom))]
pub use snapshot::{OutOfMemory, on_oom, out_of_memory};
