//! Linking and resolving: how the program's calls come to our hooks, and how we find the real
//! functions.
//!
//! - [`elf`] finds `dlsym` itself, which we stand before.
//! - [`modules`] are what the loader has loaded, and in which order it searches.
//! - [`dlsym`] are our `dlsym`, `dlvsym` and `dlclose`.
//! - [`entries`] are the ways into a hook, each with the function that it calls.
//! - [`driver`] knows libcuda: the real functions, and which of our hooks a resolver's answer
//!   stands for.
//! - [`prctl`] is not about linking: the one other function of the C library that we stand before.
//! - [`runtime`] finds the libcudart that a caller means; a process can hold several. [`callers`]
//!   tells who calls, and [`sites`] remembers what was found.

mod callers;
pub mod dlsym;
pub mod driver;
pub mod elf;
pub mod entries;
mod modules;
mod prctl;
pub mod runtime;
mod sites;
mod versions;

pub use modules::own_name;
