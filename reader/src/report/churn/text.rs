//! Churn for people: how often, how large, how long; what keeping the memory would save.

use super::Shown;
use crate::analysis::churn::{Churn, Churning, Pooling};
use crate::report::chart::bars;
use crate::report::frames::ShownFrame;
use crate::report::head::{inexact, next, of_process, process_lines, warnings};
use crate::report::leaks::{frames, only, sum, what};
use crate::report::style::Style;
use crate::report::words::{bytes, count, counted, duration, foreign};
use std::fmt::Write;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let churn = shown.churn;
    let mut out = String::new();
    process_lines(&mut out, &churn.head, style);
    for (churning, stack) in churn.groups.iter().zip(&shown.stacks) {
        out.push('\n');
        group(&mut out, churn, churning, stack, style);
    }
    if churn.omitted.0 > 0 {
        let groups = counted(churn.omitted.0 as u64, "quieter group");
        let short = counted(churn.omitted.1.count, "short-lived allocation");
        let line = format!("… and {groups} with {short}; all with --top 0");
        let _ = writeln!(out, "\n{}", style.dim(&line));
    }
    out.push('\n');
    for (id, [device, framework]) in churn.logs.iter().enumerate() {
        let _ = writeln!(
            out,
            "Event log{}: {} of the device layer and the host, {} of the framework layer",
            of_process(&churn.head, id),
            duration(*device),
            duration(*framework)
        );
    }
    warnings(&mut out, &churn.head, &shown.symbols, style);
    summary(&mut out, churn, style);
    next(&mut out, &churn.head, "timeline");
    out
}

fn group(out: &mut String, churn: &Churn, churning: &Churning, stack: &[ShownFrame], style: Style) {
    let group = &churning.placed.group;
    let size = group.size();
    let mut short = counted(size.count, "short-lived allocation");
    if let Some(number) = group.estimate.and_then(|estimate| estimate.count) {
        short = format!(
            "about {short} ({} to {}; from {} sampled)",
            count(number.low),
            count(number.high),
            count(group.count)
        );
    }
    let mut line = style.bad(&short);
    if let Some(each) = size.bytes.checked_div(size.count) {
        let each = bytes(each);
        let _ = write!(
            line,
            " of {each} each, {} a second",
            rate(churning.per_second)
        );
    }
    let _ = write!(out, "{line}");
    if let Some(value) = &group.value {
        let _ = write!(out, ": {}", style.strong(&foreign(value)));
    }
    out.push('\n');
    let what = what(&churn.head.processes, &churn.head.devices, &churning.placed);
    let _ = writeln!(out, "    {}", style.dim(&what));
    for line in details(churning) {
        let _ = writeln!(out, "    {}", style.dim(&line));
    }
    if group.value.is_none() {
        frames(out, group, stack, churn.all_frames);
    }
}

fn details(churning: &Churning) -> Vec<String> {
    let mut lines = Vec::new();
    if churning.placed.group.estimate.is_some() {
        lines.push("of those that were sampled:".to_owned());
    }
    let lives = &churning.lives;
    if lives.count() > 0 {
        lines.push(format!(
            "half live under {}, 9 of 10 under {}; from 10 µs to 100 s, by decades |{}|",
            duration(lives.quantile(0.5)),
            duration(lives.quantile(0.9)),
            bars(&lives.decades())
        ));
    }
    let longer = match churning.longer {
        0 => None,
        longer => Some(format!(
            "{} freed here had lived longer, or are older than the log",
            count(longer)
        )),
    };
    let freed = churning.freed.filter(|freed| freed.count > 0);
    let freed = freed.map(|freed| format!("in the whole run {} freed", sum(freed)));
    let both: Vec<String> = freed.into_iter().chain(longer).collect();
    if !both.is_empty() {
        lines.push(both.join("; "));
    }
    lines.extend(churning.pooling.map(pooling));
    lines
}

fn pooling(pooling: Pooling) -> String {
    format!(
        "if its memory were kept: {} of {} calls would find a block of their size, with {} kept in {}",
        count(pooling.reused),
        count(pooling.allocations),
        bytes(pooling.kept.bytes),
        counted(pooling.kept.count, "block")
    )
}

fn rate(per_second: f64) -> String {
    if per_second >= 10.0 {
        count(per_second.round() as u64)
    } else {
        format!("{per_second:.2}")
    }
}

fn summary(out: &mut String, churn: &Churn, style: Style) {
    let only = match only(&churn.filter, churn.asked.from.as_deref()) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let line = if churn.short.count > 0 {
        style.strong(&format!(
            "SUMMARY: {} ({}) lived up to {} each{only}",
            counted(churn.short.count, "allocation"),
            bytes(churn.short.bytes),
            duration(churn.limit)
        ))
    } else if churn.head.saw_memory() {
        let limit = duration(churn.limit);
        style.good(&format!(
            "SUMMARY: in the event log nothing was freed within {limit}{only}"
        ))
    } else {
        style.warn("SUMMARY: no CUDA memory was seen, so nothing can be said about churn")
    };
    let _ = writeln!(out, "{line}{}", inexact(&churn.head));
}
