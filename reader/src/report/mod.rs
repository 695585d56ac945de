//! Answers as text and as JSON. What is shown was computed by `analysis`; nothing is added here.

pub(crate) mod age;
pub mod chart;
pub mod check;
pub mod churn;
pub mod diff;
pub mod fragmentation;
pub mod frames;
pub mod growth;
pub(crate) mod head;
pub mod json;
pub mod leaks;
pub(crate) mod lines;
pub mod losses;
pub mod oom;
pub mod peak;
pub(crate) mod place;
pub(crate) mod ranks;
pub mod reconcile;
pub(crate) mod sampling;
pub mod style;
pub mod summary;
pub mod timeline;
pub mod words;
