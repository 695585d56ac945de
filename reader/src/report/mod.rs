//! Answers as text and as JSON. What is shown was computed by `analysis`; nothing is added here.

pub mod chart;
pub mod check;
pub mod frames;
pub mod json;
pub mod leaks;
pub mod losses;
pub mod peak;
pub mod reconcile;
pub mod style;
pub mod summary;
pub mod timeline;
pub mod words;
