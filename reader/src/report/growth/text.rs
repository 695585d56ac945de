//! Growth for people: what grows, how fast, since when, how sure that is; the rest in one line.

use super::{Shown, common};
use crate::analysis::growth::{CELLS, Course, Forecast, Growths, Known, Shape, rate};
use crate::analysis::leaks::Placed;
use crate::report::chart::bars;
use crate::report::frames::ShownFrame;
use crate::report::head::{device_name, inexact, next, of_process, process_lines, warnings};
use crate::report::leaks::{frames, only, sum, what};
use crate::report::lines::{self, without_plumbing};
use crate::report::sampling::size;
use crate::report::style::Style;
use crate::report::words::{Per, bytes, count, counted, duration, foreign};
use std::fmt::Write;

/// Bars of what a group held over time.
const BARS: usize = 16;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let found = shown.growths;
    let mut out = String::new();
    process_lines(&mut out, &found.head, style);
    for (placed, stack) in found.growing.iter().zip(&shown.growing) {
        out.push('\n');
        group(&mut out, found, placed, stack, style);
    }
    if found.omitted.0 > 0 {
        let groups = counted(found.omitted.0 as u64, "slower group");
        let line = format!(
            "… and {groups} with {}; all with --top 0",
            sum(found.omitted.1)
        );
        let _ = writeln!(out, "\n{}", style.dim(&line));
    }
    out.push('\n');
    come_through(&mut out, shown, style);
    others(&mut out, found);
    for forecast in &found.forecasts {
        outlook(&mut out, found, forecast);
    }
    ranks(&mut out, found);
    warnings(&mut out, &found.head, &shown.symbols, style);
    summary(&mut out, found, style);
    let command = match found.growing.first() {
        Some(placed) => {
            let age = &placed.group.age;
            let start = found.head.processes[placed.process].start_ns;
            let half = age.to.saturating_sub(age.from) / 2;
            let from = start.saturating_add(age.from).saturating_add(half);
            // Up to where this looked.
            let to = match found.up_to[placed.process] {
                Some(time) => format!(" --to @{}", start.saturating_add(time)),
                None => String::new(),
            };
            format!("leaks --from @{from}{to}")
        }
        None => "leaks".to_owned(),
    };
    next(&mut out, &found.head, &command);
    out
}

/// `96.2 % of it comes through validate  train.py:28, called by main  train.py:43`
fn come_through(out: &mut String, shown: &Shown<'_>, style: Style) {
    const CALLERS: usize = 3;
    let Some(common) = common(shown) else {
        return;
    };
    let number = shown.growing.len();
    let _ = writeln!(
        out,
        "{}",
        style.strong(&format!(
            "{:.0} % of what grows above, {} of {number} groups, comes through:",
            common.share * 100.0,
            common.groups
        ))
    );
    let frames = without_plumbing(common.frames);
    for frame in frames.iter().take(CALLERS) {
        let _ = writeln!(out, "    {}", lines::frame(frame));
    }
    out.push('\n');
}

fn group(out: &mut String, found: &Growths, placed: &Placed, stack: &[ShownFrame], style: Style) {
    let group = &placed.group;
    let age = &group.age;
    let judged = &age.judgement;
    let per = Per::of(age.to.saturating_sub(age.from));
    let grows = format!("+{}", per.rate(rate(group)));
    let _ = write!(out, "{}, {} live", style.bad(&grows), size(group));
    if let Some(value) = &group.value {
        let _ = write!(out, ": {}", style.strong(&foreign(value)));
    }
    out.push('\n');
    let what = what(&found.head.processes, &found.head.devices, placed);
    let _ = writeln!(out, "    {}", style.dim(&what));
    let steady = format!(
        "for {}, since {}; between {} and {}; {} sure",
        duration(age.to.saturating_sub(age.from)),
        duration(age.from),
        bytes(per.amount(judged.slope.low)),
        per.rate(judged.slope.high),
        percent(judged.confidence)
    );
    let _ = writeln!(out, "    {}", style.dim(&steady));
    let made = match age.made {
        Some(made) if made.count == group.count => {
            "all that was ever made there stays; ".to_owned()
        }
        Some(made) if made.count > 0 => format!(
            "{} of {} ever made there; ",
            stay(group.count),
            counted(made.count, "allocation")
        ),
        _ => String::new(),
    };
    let line = format!(
        "{made}from {} of {CELLS} parts of that time, oldest first {}",
        judged.cells,
        bars(&age.parts.map(|part| part.bytes))
    );
    let _ = writeln!(out, "    {}", style.dim(&line));
    if let Some(course) = &group.course {
        let _ = writeln!(out, "    {}", style.dim(&held_over_time(course)));
    }
    if group.value.is_none() {
        frames(out, group, stack, found.all_frames);
    }
}

/// `held 1.00 MiB at 2m 00s, 168.00 MiB at the end, known to 1h 08m …  ▁▂▃▄▅▆▇█`
fn held_over_time(course: &Course) -> String {
    // Of the first part only its beginning is as old as is said.
    let first = course.spans.first().map_or(0, |span| span.min);
    let last = course.spans.last().map_or(0, |span| span.last);
    let fineness = course.resolution.iter().map(|part| part.span_ns);
    let known = match fineness.max().unwrap_or(0) {
        0 => "each change is known".to_owned(),
        coarsest => format!("known to {} or finer", duration(coarsest)),
    };
    // The least of each part: what comes and goes meanwhile is no growth.
    let parts = course
        .spans
        .chunks(course.spans.len().div_ceil(BARS).max(1));
    let least = parts.map(|part| part.iter().map(|span| span.min).min().unwrap_or(0));
    format!(
        "held {} at {}, {} at the end ({known}), at least {}",
        bytes(first),
        duration(course.from),
        bytes(last),
        bars(&least.collect::<Vec<u64>>())
    )
}

/// Never 100 %: there is always another explanation.
fn percent(confidence: f64) -> String {
    let percent = (confidence * 100.0).min(99.9);
    if percent > 99.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

fn stay(number: u64) -> String {
    match number {
        1 => "1 stays".to_owned(),
        number => format!("{} stay", count(number)),
    }
}

/// What does not grow, by what it does instead.
fn others(out: &mut String, found: &Growths) {
    for (shape, (groups, held)) in &found.shapes {
        let why = match shape {
            Shape::Growing => continue,
            Shape::WarmUp => "stopped growing, or slows down (warm-up)",
            Shape::Renewed => "replaced as time goes by (caches, queues, sawtooth)",
            Shape::Steps => "grew in few steps (plateaus)",
            Shape::Few => "too few live allocations to grow",
            Shape::Unclear => "neither clearly growing nor clearly not",
        };
        let groups = counted(*groups as u64, "group");
        let _ = writeln!(out, "Not growing: {groups}, {}: {why}", bytes(held.bytes));
    }
}

fn outlook(out: &mut String, found: &Growths, forecast: &Forecast) {
    let lasts = duration(forecast.lasts_ns);
    let per = Per::of(forecast.lasts_ns);
    let cached = match forecast.room.cached {
        0 => String::new(),
        cached => format!(", {} of it in caches", bytes(cached)),
    };
    let known = match forecast.room.known {
        Known::Asked => "as the driver said",
        Known::Size => "by its size; what others hold there is not known",
    };
    let _ = writeln!(
        out,
        "{}{}: full in {lasts} at +{}, with {} left{cached} ({known})",
        device_name(&found.head, Some(forecast.device)),
        of_process(&found.head, forecast.process),
        per.rate(forecast.slope),
        bytes(forecast.room.free),
    );
}

/// Of several processes, which ones grow.
fn ranks(out: &mut String, found: &Growths) {
    let head = &found.head;
    if head.processes.len() < 2 || found.growing.is_empty() {
        return;
    }
    for view in &head.processes {
        let own = found
            .growing
            .iter()
            .filter(|placed| placed.process == view.id);
        let (number, slope) = own.fold((0u64, 0.0), |(number, slope), placed| {
            (number + 1, slope + rate(&placed.group))
        });
        let rank = view.rank.map(|rank| format!("rank {rank}, "));
        let who = format!("{}pid {}", rank.unwrap_or_default(), view.pid);
        let per = Per::of(view.duration_ns);
        let _ = match number {
            0 => writeln!(out, "{who}: nothing grows"),
            _ => writeln!(
                out,
                "{who}: +{} in {}",
                per.rate(slope),
                counted(number, "group")
            ),
        };
    }
}

fn summary(out: &mut String, found: &Growths, style: Style) {
    let only = match only(&found.filter, found.asked.from.as_deref()) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let number = found.growing.len() + found.omitted.0;
    let line = match found.growing.first() {
        Some(fastest) => {
            let age = &fastest.group.age;
            let per = Per::of(age.to.saturating_sub(age.from));
            let keep = if number == 1 { "keeps" } else { "keep" };
            style.strong(&format!(
                "SUMMARY: {} {keep} growing, the fastest by {}{only}",
                counted(number as u64, "group"),
                per.rate(rate(&fastest.group))
            ))
        }
        None if found.head.saw_memory() => {
            style.good(&format!("SUMMARY: nothing keeps growing{only}"))
        }
        None => style.warn("SUMMARY: no CUDA memory was seen, so nothing can be said about growth"),
    };
    let _ = writeln!(out, "{line}{}", inexact(&found.head));
}
