//! What is live by NVTX range.

use super::leaks::{By, Options, Point, leaks};
use super::{Filter, Sum};
use crate::model::{NoNames, Process};
use vramtrace_format::record::Layer;

/// What a range holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeView {
    /// Its name: those around it and its own, outermost first.
    pub name: String,
    /// How often it was entered.
    pub entered: u64,
    /// Whether this is page-locked host memory; of both a range has two of these.
    pub host: bool,
    /// What is live of what was allocated in it, and not in one inside it.
    pub live: Sum,
}

/// The ranges of a process that hold something at its end, largest first.
pub fn ranges(process: &Process, filter: &Filter) -> Vec<RangeView> {
    if process.ranges.is_empty() {
        return Vec::new();
    }
    let options = Options {
        point: Some(Point::End),
        by: By::Range,
        filter: filter.clone(),
        ..Options::default()
    };
    let found = leaks(process, &options, &mut NoNames);
    let view = |group: super::leaks::Group| {
        Some(RangeView {
            entered: group.entered?,
            name: group.value?,
            host: group.layer == Some(Layer::Host),
            live: Sum {
                bytes: group.bytes,
                count: group.count,
            },
        })
    };
    found.groups.into_iter().filter_map(view).collect()
}
