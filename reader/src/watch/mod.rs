//! Thresholds on what [`crate::live`] finds, and what is done when one is crossed: `vramtrace watch`.
//!
//! - [`expression`]: `device.used > 92% and growth(10m) > 1GiB/h`
//! - [`facts`]: what an expression is about, process by process and device by device
//! - [`actions`]: snapshot, command, signal, webhook

pub mod actions;
pub mod expression;
pub mod facts;
