//! What `cuda.h` (13.0) fixes: result codes, and the layouts of the structs that cross the edge.

pub mod array;
pub mod copy;
pub mod error;
pub mod graph;
pub mod memory;
