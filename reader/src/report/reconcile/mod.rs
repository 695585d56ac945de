//! The report of where nvidia-smi's number goes.

mod json;
mod text;

pub use json::json;
pub use text::text;
