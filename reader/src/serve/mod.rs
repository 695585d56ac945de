//! Serving what [`crate::live`] finds: OpenMetrics for Prometheus, a page for people, profiles for
//! Pyroscope and Parca. What `vramtrace serve` does.
//!
//! - [`metrics`]: a sample as OpenMetrics, and as the older text format
//! - [`sampler`]: one sample at a time, however many ask
//! - [`http`]: connections, all of them bounded
//! - [`page`]: the status page
//! - [`profile`]: pprof of running processes, made by another process
//! - [`time`]: spans of time as people write them
//! - [`textfile`]: the metrics in a file, for node_exporter

pub mod http;
mod labels;
pub mod metrics;
pub mod page;
pub mod profile;
pub mod sampler;
pub mod textfile;
pub mod time;
