//! What was sampled when and what that cost, and estimates beside what is known.

use super::style::Style;
use super::words::{bytes, count, counted, duration};
use crate::analysis::Sum;
use crate::analysis::estimate::{Estimate, Value};
use crate::analysis::leaks::Group;
use crate::analysis::view::ProcessView;
use crate::model::{InForce, Sampling};
use serde::Serialize;
use std::fmt::Write;
use vramtrace_format::sampling::interval;

/// Intervals that are named in one line.
const INTERVALS: usize = 4;

/// What a group holds: `1.00 MiB in 2 allocations`, or its estimate with the interval of that.
pub(crate) fn size(group: &Group) -> String {
    let known = Sum {
        bytes: group.bytes,
        count: group.count,
    };
    match group.estimate {
        None => plain(known),
        Some(estimate) => estimated(estimate, known),
    }
}

fn plain(sum: Sum) -> String {
    format!(
        "{} in {}",
        bytes(sum.bytes),
        counted(sum.count, "allocation")
    )
}

/// `about 1.00 MiB in 2,048 allocations (0.80 to 1.20 MiB; from 12 sampled)`.
pub(crate) fn estimated(estimate: Estimate, known: Sum) -> String {
    let held = match estimate.count {
        Some(number) => plain(Sum {
            bytes: estimate.bytes.estimate,
            count: number.estimate,
        }),
        None => bytes(estimate.bytes.estimate),
    };
    format!(
        "about {held} ({} to {}; from {} sampled)",
        bytes(estimate.bytes.low),
        bytes(estimate.bytes.high),
        count(known.count)
    )
}

/// What reports say beneath the line about a process, where stacks of it were left out.
pub(crate) fn lines(out: &mut String, view: &ProcessView, style: Style) {
    let sampling = &view.sampling;
    if !sampling.left_out_any() {
        return;
    }
    let what = match sampling.asked {
        None => "no stack of any allocation was taken (VRAMTRACE_SAMPLE=off); totals and what is \
                 live are exact"
            .to_owned(),
        Some(_) => format!(
            "stacks were sampled ({}): values by stack that begin with \"about\" are estimates, in \
             parentheses between what they are with 95 % probability; totals and what is live are \
             exact",
            intervals(sampling)
        ),
    };
    let _ = writeln!(out, "    {}", style.dim(&what));
}

/// `all for 3.0 s, one in 512.00 KiB for 2m 10s`.
fn intervals(sampling: &Sampling) -> String {
    let mut longest: Vec<&InForce> = sampling.intervals.iter().collect();
    longest.sort_by_key(|one| std::cmp::Reverse(one.ns));
    longest.truncate(INTERVALS);
    longest.sort_by_key(|one| one.interval);
    let each = |one: &&InForce| format!("{} for {}", one_in(one.interval), duration(one.ns));
    let mut words: Vec<String> = longest.iter().map(each).collect();
    let more = sampling.intervals.len().saturating_sub(words.len());
    if more > 0 {
        words.push(format!("{more} more intervals"));
    }
    words.join(", ")
}

fn one_in(interval: u64) -> String {
    match interval {
        0 => "all".to_owned(),
        interval => format!("one in {}", bytes(interval)),
    }
}

/// What stacks and events cost, and how the interval changed: for `summary` and `check`.
pub(crate) fn costs(view: &ProcessView) -> Vec<String> {
    let sampling = &view.sampling;
    let mut said = Vec::new();
    if sampling.stacks > 0 {
        let mean = sampling.stack_ns / sampling.stacks.max(1);
        let allowed = match sampling.budget {
            0 => "no budget".to_owned(),
            budget => format!("budget {}", percent(budget.into())),
        };
        said.push(format!(
            "stacks: {} taken at {} each, {} of a core ({allowed})",
            count(sampling.stacks),
            duration(mean),
            percent(sampling.stack_cost(view.duration_ns))
        ));
    }
    if let (Some(each), Some(cost)) = (sampling.event_ns, sampling.event_cost(view.duration_ns)) {
        said.push(format!(
            "the rest, which no budget limits: {} at {} each, {} of a core",
            counted(sampling.events, "event"),
            duration(each),
            percent(cost)
        ));
    }
    if sampling.left_out_any() {
        said.push(format!(
            "{} had no stack taken; stacks were sampled: {}",
            counted(sampling.not_sampled, "allocation"),
            intervals(sampling)
        ));
    }
    if let Some(last) = sampling.last.last() {
        said.push(format!(
            "the interval changed {}, last at {} from {} to {}, when stacks cost {} of a core",
            counted(sampling.changes, "time"),
            duration(last.time),
            one_in(interval(last.from)),
            one_in(interval(last.to)),
            percent(last.cost.into())
        ));
    }
    said
}

/// Millionths as percent: `0.50 %`.
fn percent(millionths: u64) -> String {
    format!("{:.2} %", millionths as f64 / 1e4)
}

/// `"estimate"` of a group. 95 % of such intervals hold what is true.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct EstimateJson {
    bytes: u64,
    bytes_low: u64,
    bytes_high: u64,
    count: Option<u64>,
    count_low: Option<u64>,
    count_high: Option<u64>,
}

impl From<Estimate> for EstimateJson {
    fn from(estimate: Estimate) -> EstimateJson {
        let count = |of: fn(Value) -> u64| estimate.count.map(of);
        EstimateJson {
            bytes: estimate.bytes.estimate,
            bytes_low: estimate.bytes.low,
            bytes_high: estimate.bytes.high,
            count: count(|value| value.estimate),
            count_low: count(|value| value.low),
            count_high: count(|value| value.high),
        }
    }
}

/// `"sampling"` of a process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SamplingJson {
    /// `all`, `off`, or `sampled`: what was asked for.
    asked: &'static str,
    asked_interval: Option<u64>,
    /// Percent of a core; absent without a budget.
    budget_percent: Option<f64>,
    /// Whether the stack of any allocation was left out.
    sampled: bool,
    not_sampled: u64,
    stacks: u64,
    stack_ns: u64,
    stack_percent: f64,
    event_ns: Option<u64>,
    event_percent: Option<f64>,
    changes: u64,
    intervals: Vec<IntervalJson>,
    last_changes: Vec<ChangeJson>,
}

#[derive(Clone, Debug, Serialize)]
struct IntervalJson {
    /// Bytes; 0 all stacks.
    interval: u64,
    ns: u64,
    times: u64,
    first_ns: u64,
    last_ns: u64,
    stack_ns: u64,
}

#[derive(Clone, Debug, Serialize)]
struct ChangeJson {
    event: u64,
    at_ns: u64,
    from: u64,
    to: u64,
    stack_percent: f64,
}

impl SamplingJson {
    /// Of a process; `None` in traces that say nothing of it.
    pub fn of(view: &ProcessView) -> Option<SamplingJson> {
        let sampling = &view.sampling;
        let percent = |millionths: u64| millionths as f64 / 1e4;
        let at = |time: u64| view.start_ns.saturating_add(time);
        sampling.known.then(|| SamplingJson {
            asked: match sampling.asked {
                None => "off",
                Some(0) => "all",
                Some(_) => "sampled",
            },
            asked_interval: sampling.asked.filter(|&interval| interval > 0),
            budget_percent: (sampling.budget > 0).then(|| percent(sampling.budget.into())),
            sampled: sampling.left_out_any(),
            not_sampled: sampling.not_sampled,
            stacks: sampling.stacks,
            stack_ns: sampling.stack_ns,
            stack_percent: percent(sampling.stack_cost(view.duration_ns)),
            event_ns: sampling.event_ns,
            event_percent: sampling.event_cost(view.duration_ns).map(percent),
            changes: sampling.changes,
            intervals: sampling
                .intervals
                .iter()
                .map(|one| IntervalJson {
                    interval: one.interval,
                    ns: one.ns,
                    times: one.times,
                    first_ns: at(one.first),
                    last_ns: at(one.last),
                    stack_ns: one.stack_ns,
                })
                .collect(),
            last_changes: sampling
                .last
                .iter()
                .map(|change| ChangeJson {
                    event: change.seq,
                    at_ns: at(change.time),
                    from: interval(change.from),
                    to: interval(change.to),
                    stack_percent: percent(change.cost.into()),
                })
                .collect(),
        })
    }
}
