//! Frameworks that hand out memory themselves, seen without a change to the program.
//!
//! - [`c10`] are PyTorch's caching allocators: what they tell PyTorch's own profiler, they tell us.

pub mod c10;
