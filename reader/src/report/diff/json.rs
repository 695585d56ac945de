//! `vramtrace.diff/1`. What is the same as in `vramtrace.leaks/1` has the same name there.

use super::Shown;
use crate::analysis::Sum;
use crate::analysis::diff::{Change, Held};
use crate::report::frames::ShownFrame;
use crate::report::head::HeadJson;
use crate::report::json::{SumJson, document};
use crate::report::place::PlaceJson;
use crate::report::sampling::EstimateJson;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: Vec<&'a String>,
    before: HeldJson<'a>,
    after: HeldJson<'a>,
    /// Groups that are new, or grew by more than was tolerated, for certain.
    grown: usize,
    /// Groups of which that is not certain, because stacks were sampled.
    grown_uncertain: usize,
    changes: Vec<ChangeJson<'a>>,
    omitted: Omitted,
    same: Same,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct HeldJson<'a> {
    #[serde(flatten)]
    head: HeadJson<'a>,
    /// `end` if nothing else was asked for.
    point: &'a str,
    total: Total,
}

#[derive(Serialize)]
struct Total {
    gpu: SumJson,
    host: SumJson,
    cached: Bytes,
    suppressed: SumJson,
}

#[derive(Serialize)]
struct Bytes {
    bytes: u64,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    change: &'static str,
    /// Bytes after, less those before; an estimate where either is one.
    delta: i128,
    /// Of an estimate: between what it is with 95 % probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_low: Option<i128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_high: Option<i128>,
    /// What is known.
    before: SumJson,
    after: SumJson,
    /// What that stands for, where stacks were sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    before_estimate: Option<EstimateJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_estimate: Option<EstimateJson>,
    /// Where `process` and `device` of the group are looked up: `before` or `after`.
    shown: &'static str,
    #[serde(flatten)]
    place: PlaceJson<'a>,
}

#[derive(Serialize)]
struct Omitted {
    groups: usize,
    delta: i128,
}

#[derive(Serialize)]
struct Same {
    groups: usize,
    bytes: u64,
    count: u64,
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let diff = shown.diff;
    let reasons = [&diff.before.head, &diff.after.head];
    let changes = diff.changes.iter().zip(&shown.stacks);
    document(&Document {
        schema: "vramtrace.diff/1",
        complete: diff.complete(),
        incomplete_because: reasons
            .iter()
            .flat_map(|head| &head.incomplete_because)
            .collect(),
        before: held(&diff.before),
        after: held(&diff.after),
        grown: diff.grown,
        grown_uncertain: diff.uncertain,
        changes: changes
            .map(|(change, stack)| of_change(change, stack))
            .collect(),
        omitted: Omitted {
            groups: diff.omitted.0,
            delta: diff.omitted.1,
        },
        same: Same {
            groups: diff.same.0,
            bytes: diff.same.1.bytes,
            count: diff.same.1.count,
        },
        warnings: &shown.symbols,
    })
}

fn held(held: &Held) -> HeldJson<'_> {
    let mut suppressed = Sum::default();
    held.suppressed
        .iter()
        .for_each(|used| suppressed.merge(used.sum));
    HeldJson {
        head: HeadJson::of(&held.head, &[]),
        point: held.moment.as_deref().unwrap_or("end"),
        total: Total {
            gpu: held.gpu.into(),
            host: held.host.into(),
            cached: Bytes { bytes: held.cached },
            suppressed: suppressed.into(),
        },
    }
}

fn of_change<'a>(change: &'a Change, stack: &'a [ShownFrame]) -> ChangeJson<'a> {
    let delta = change.interval();
    let end = |of: i128| delta.is_estimate().then_some(of);
    ChangeJson {
        change: change.what.name(),
        delta: delta.bytes,
        delta_low: end(delta.low),
        delta_high: end(delta.high),
        before: change.before.known.into(),
        after: change.after.known.into(),
        before_estimate: change.before.estimate.map(EstimateJson::from),
        after_estimate: change.after.estimate.map(EstimateJson::from),
        shown: if change.from_before {
            "before"
        } else {
            "after"
        },
        place: PlaceJson::of(&change.placed, stack),
    }
}
