//! The fields of a group that all documents with groups have: what, where, by whom.

use super::frames::ShownFrame;
use super::sampling::EstimateJson;
use crate::analysis::leaks::Placed;
use serde::Serialize;
use vramtrace_format::record::{Kind, Layer};

/// Where a group belongs, and its stack.
#[derive(Serialize)]
pub(crate) struct PlaceJson<'a> {
    process: usize,
    device: Option<usize>,
    layer: Option<&'static str>,
    kind: Option<&'static str>,
    api: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    stack: &'a [ShownFrame],
    stack_truncated: bool,
    stack_missing: Option<&'static str>,
    /// Where stacks were sampled: what `bytes` and `count`, which are what is known, stand for.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate: Option<EstimateJson>,
}

impl<'a> PlaceJson<'a> {
    /// Of a group with its stack made readable.
    pub fn of(placed: &'a Placed, stack: &'a [ShownFrame]) -> PlaceJson<'a> {
        let group = &placed.group;
        PlaceJson {
            process: placed.process,
            device: placed.device,
            layer: group.layer.map(Layer::name),
            kind: group.kind.map(Kind::name),
            api: group.api.as_deref(),
            value: group.value.as_deref(),
            stack,
            stack_truncated: group.stack.truncated,
            stack_missing: group.stack.missing.filter(|_| group.value.is_none()),
            estimate: group.estimate.map(EstimateJson::from),
        }
    }
}
