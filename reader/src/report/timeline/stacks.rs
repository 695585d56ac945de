//! Timelines of stacks: what is shown of a stack beside its curve.

use super::{curve, end, quoted};
use crate::analysis::leaks::Placed;
use crate::analysis::timeline::Timeline;
use crate::model::Process;
use crate::report::frames::{Frames, ShownFrame, up_to_main};
use crate::report::leaks::{frames, symbol_warnings, what};
use crate::report::lines::frame;
use crate::report::style::Style;
use crate::report::words::{bytes, counted, duration, foreign};
use serde::Serialize;
use std::fmt::Write;
use vramtrace_format::record::Kind;

/// Timelines with their stacks made readable.
pub struct Shown<'a> {
    /// The timelines.
    pub timeline: &'a Timeline,
    /// Frames of each series; none where it is no stack's.
    pub stacks: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of timelines of `processes`.
    pub fn new(timeline: &'a Timeline, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        let all = timeline
            .series
            .iter()
            .filter_map(|series| series.stack.as_ref());
        frames.look_up(all.map(|placed| (&processes[placed.process], &placed.group.stack)));
        let mut of = |placed: &Placed| {
            let (id, group) = (placed.process, &placed.group);
            frames.of(id, &processes[id], &group.stack, group.api.as_deref())
        };
        let stacks = timeline
            .series
            .iter()
            .map(|series| series.stack.as_ref().map_or_else(Vec::new, &mut of))
            .collect();
        Shown {
            timeline,
            stacks,
            symbols: frames.warnings(),
        }
    }

    /// Of timelines without any.
    pub(super) fn without_stacks(timeline: &'a Timeline) -> Shown<'a> {
        Shown {
            timeline,
            stacks: vec![Vec::new(); timeline.series.len()],
            symbols: Vec::new(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct StackJson<'a> {
    kind: Option<&'static str>,
    api: Option<&'a str>,
    stack: &'a [ShownFrame],
    stack_truncated: bool,
    stack_missing: Option<&'static str>,
}

impl<'a> StackJson<'a> {
    pub fn of(placed: &'a Placed, stack: &'a [ShownFrame]) -> StackJson<'a> {
        let group = &placed.group;
        StackJson {
            kind: group.kind.map(Kind::name),
            api: group.api.as_deref(),
            stack,
            stack_truncated: group.stack.truncated,
            stack_missing: group.stack.missing,
        }
    }
}

/// The last fields of a line of the table.
pub(super) fn csv_fields(placed: &Placed, stack: &[ShownFrame]) -> String {
    let group = &placed.group;
    let own = &stack[..up_to_main(stack).min(stack.len())];
    let names: Vec<String> = own.iter().rev().map(frame).collect();
    let names = match group.stack.missing {
        Some(missing) => missing.to_owned(),
        None => names.join(";"),
    };
    format!(
        ",{},{},{}",
        group.kind.map_or("", Kind::name),
        quoted(&foreign(group.api.as_deref().unwrap_or_default())),
        quoted(&names)
    )
}

/// Charts of stacks, those that held most first.
pub fn text_by_stack(shown: &Shown<'_>, style: Style) -> String {
    let timeline = shown.timeline;
    let mut out = String::new();
    for (series, stack) in timeline.series.iter().zip(&shown.stacks) {
        let Some(placed) = &series.stack else {
            continue;
        };
        let held = format!(
            "{} at the end, most {} at {}",
            bytes(series.live_bytes),
            bytes(series.peak_bytes),
            duration(series.peak_at)
        );
        let _ = writeln!(out, "{}", style.strong(&held));
        let what = what(&timeline.processes, &timeline.devices, placed);
        let _ = writeln!(out, "    {}", style.dim(&what));
        frames(&mut out, &placed.group, stack, timeline.all_frames);
        curve(&mut out, timeline, series, style);
        out.push('\n');
    }
    if timeline.series.is_empty() {
        out.push_str("No GPU memory was allocated.\n\n");
    }
    let omitted = timeline.by_stack.unwrap_or(0);
    if omitted > 0 {
        let line = format!(
            "… and {}, which held less; all with --top 0",
            counted(omitted as u64, "stack")
        );
        let _ = writeln!(out, "{}\n", style.dim(&line));
    }
    symbol_warnings(&mut out, &shown.symbols, style);
    end(&mut out, timeline, style);
    out
}
