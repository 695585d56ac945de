//! A difference for people: each change with its size, largest first; sums and the next command
//! last.

use super::Shown;
use crate::analysis::diff::{Change, Diff, Held, Size, What};
use crate::report::frames::ShownFrame;
use crate::report::head::{inexact, next, process_lines, warnings};
use crate::report::leaks::{frames, only, sum, what};
use crate::report::sampling::estimated;
use crate::report::style::Style;
use crate::report::words::{bytes, counted, foreign};
use std::fmt::Write;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let diff = shown.diff;
    let mut out = String::new();
    side(&mut out, "before", &diff.before, style);
    side(&mut out, "after", &diff.after, style);
    for (change, stack) in diff.changes.iter().zip(&shown.stacks) {
        out.push('\n');
        group(&mut out, diff, change, stack, style);
    }
    if diff.omitted.0 > 0 {
        let groups = counted(diff.omitted.0 as u64, "smaller change");
        let line = format!(
            "… and {groups}, {} together; all with --top 0",
            signed(diff.omitted.1)
        );
        let _ = writeln!(out, "\n{}", style.dim(&line));
    }
    out.push('\n');
    if diff.same.0 > 0 {
        let groups = counted(diff.same.0 as u64, "group");
        let _ = writeln!(out, "Unchanged: {groups}, {}", sum(diff.same.1));
    }
    for (what, used) in [("before", &diff.before), ("after", &diff.after)] {
        for used in used.suppressed.iter().filter(|used| used.sum.count > 0) {
            let pattern = foreign(&used.pattern);
            let _ = writeln!(
                out,
                "Suppressed {what}: {} by leak:{pattern}",
                sum(used.sum)
            );
        }
    }
    warnings(&mut out, &diff.before.head, &[], style);
    if diff.before.head != diff.after.head {
        warnings(&mut out, &diff.after.head, &shown.symbols, style);
    } else {
        crate::report::leaks::symbol_warnings(&mut out, &shown.symbols, style);
    }
    uncertain(&mut out, diff, style);
    summary(&mut out, diff, style);
    let sound = if diff.before.head.complete() {
        "leaks"
    } else {
        "check"
    };
    next(&mut out, &diff.after.head, sound);
    out
}

fn side(out: &mut String, name: &str, held: &Held, style: Style) {
    let moment = match &held.moment {
        Some(moment) => format!(" at {}", foreign(moment)),
        None => String::new(),
    };
    let _ = write!(out, "{name}{moment}: ");
    if held.head.processes.len() > 1 {
        out.push('\n');
    }
    process_lines(out, &held.head, style);
}

fn signed(delta: i128) -> String {
    let size = u64::try_from(delta.unsigned_abs()).unwrap_or(u64::MAX);
    let sign = match delta {
        0 => "±",
        ..0 => "−",
        _ => "+",
    };
    format!("{sign}{}", bytes(size))
}

fn group(out: &mut String, diff: &Diff, change: &Change, stack: &[ShownFrame], style: Style) {
    let delta = signed(change.delta());
    let delta = if change.delta() > 0 {
        style.bad(&delta)
    } else {
        style.good(&delta)
    };
    let how = match change.what {
        What::New => format!("new: {}", held(&change.after)),
        What::Gone => format!("gone: {}", held(&change.before)),
        what => format!(
            "{}: {} → {}",
            what.name(),
            held(&change.before),
            held(&change.after)
        ),
    };
    let interval = change.interval();
    if interval.is_estimate() && !change.placed.group.not_sampled {
        let certain = match change.grew(diff.tolerance) {
            None => ", so it is not certain that it grew",
            Some(_) => "",
        };
        let (low, high) = (signed(interval.low), signed(interval.high));
        let _ = write!(out, "about {delta} ({low} to {high}{certain})  {how}");
    } else {
        let _ = write!(out, "{delta}  {how}");
    }
    let group = &change.placed.group;
    if let Some(value) = &group.value {
        let _ = write!(out, ": {}", style.strong(&foreign(value)));
    }
    out.push('\n');
    let head = if change.from_before {
        &diff.before.head
    } else {
        &diff.after.head
    };
    let what = what(&head.processes, &head.devices, &change.placed);
    let _ = writeln!(out, "    {}", style.dim(&what));
    if group.value.is_none() {
        frames(out, group, stack, diff.all_frames);
    }
}

/// What a side holds: exactly, or about.
fn held(size: &Size) -> String {
    match size.estimate {
        None => sum(size.known),
        Some(estimate) => estimated(estimate, size.known),
    }
}

/// What is not certain because stacks were sampled, in a line; empty where all were taken.
fn uncertain(out: &mut String, diff: &Diff, style: Style) {
    let sampled = [&diff.before, &diff.after];
    if sampled.iter().all(|held| held.unseen == 0) {
        return;
    }
    let groups = match diff.uncertain {
        0 => "there is none that may have grown besides".to_owned(),
        number => format!("{} may have grown or not", counted(number as u64, "group")),
    };
    let _ = writeln!(
        out,
        "{} stacks were sampled: a group counts as grown only where the interval of its estimates (95 %) is above the \
         tolerance; {groups}",
        style.warn("note:")
    );
}

fn summary(out: &mut String, diff: &Diff, style: Style) {
    let spaces = [
        ("GPU memory", diff.before.gpu, diff.after.gpu),
        ("page-locked host memory", diff.before.host, diff.after.host),
    ];
    let mut parts: Vec<String> = spaces
        .iter()
        .filter(|(_, before, after)| before.count > 0 || after.count > 0)
        .map(|(name, before, after)| {
            let delta = i128::from(after.bytes) - i128::from(before.bytes);
            format!(
                "{name} {} ({} → {})",
                signed(delta),
                bytes(before.bytes),
                bytes(after.bytes)
            )
        })
        .collect();
    if parts.is_empty() {
        parts.push("nothing is live in either".to_owned());
    }
    let number = |what: What| (diff.number(what), what.name());
    let numbers = [What::New, What::Grown, What::Shrunk, What::Gone].map(number);
    let numbers: Vec<String> = numbers
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{number} {name}"))
        .collect();
    let groups = match numbers.len() {
        0 => "no group changed".to_owned(),
        _ => format!("groups: {}", numbers.join(", ")),
    };
    let only = match only(&diff.filter, None) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let line = format!("SUMMARY: {}; {groups}{only}", parts.join(", "));
    let line = if diff.grown > 0 {
        style.strong(&line)
    } else {
        style.good(&line)
    };
    let not_exact = if diff.complete() {
        ""
    } else {
        inexact_of(diff)
    };
    let _ = writeln!(out, "{line}{not_exact}");
}

fn inexact_of(diff: &Diff) -> &'static str {
    match inexact(&diff.before.head) {
        "" => inexact(&diff.after.head),
        words => words,
    }
}
