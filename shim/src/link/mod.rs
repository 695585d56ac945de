//! Linking and resolving: how the program's calls come to our hooks, and how we find the real
//! functions.
//!
//! - [`elf`] finds `dlsym` itself, which we stand before.
//! - [`dlsym`] are our `dlsym`, `dlvsym` and `dlclose`.
//! - [`driver`] knows libcuda: the real functions, and which of our hooks a resolver's answer
//!   stands for.
//! - [`prctl`] is not about linking: the one other function of the C library that we stand before.
//! - [`runtime`] finds the libcudart that a caller means; a process can hold several.

pub mod dlsym;
pub mod driver;
pub mod elf;
mod prctl;
pub mod runtime;
mod versions;
