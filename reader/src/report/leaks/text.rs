//! The leak report for people: size first, then what and where; the summary and the next command
//! last.

use super::Shown;
use crate::analysis::growth::{Shape, Trend, rate};
use crate::analysis::leaks::{
    Answer, EntryEnd, Group, Names, Placed, PlacedCache, Point, Suspicion,
};
use crate::analysis::view::{DeviceView, ProcessView};
use crate::analysis::{Filter, Sum};
use crate::model::State;
use crate::report::frames::{ShownFrame, up_to_main};
use crate::report::lines::{lines, without_plumbing};
use crate::report::ranks::lines as rank_lines;
use crate::report::sampling;
use crate::report::style::Style;
use crate::report::words::{Per, bytes, counted, duration, foreign, shell, short};
use std::borrow::Cow;
use std::fmt::Write;
use vramtrace_format::record::Layer;

/// Most threads or ranges named in one line.
const NAMES: usize = 4;
/// Most files that are named because their symbols could not be had.
const WARNINGS: usize = 3;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let answer = shown.answer;
    let mut out = String::new();
    for (view, point) in answer.processes.iter().zip(&answer.points) {
        process_line(&mut out, view, *point, style);
    }
    for (placed, stack) in answer.groups.iter().zip(&shown.stacks) {
        out.push('\n');
        group(&mut out, answer, placed, stack, style);
    }
    if answer.omitted_groups > 0 {
        let groups = counted(answer.omitted_groups as u64, "smaller group");
        let line = format!(
            "… and {groups} with {}; all with --top 0",
            sum(answer.omitted)
        );
        let _ = writeln!(out, "\n{}", style.dim(&line));
    }
    out.push('\n');
    apart(&mut out, answer);
    gave_back(&mut out, answer);
    warnings(&mut out, shown, style);
    ranks(&mut out, answer, style);
    summary(&mut out, answer, style);
    next(&mut out, answer);
    out
}

/// Who the report is about.
pub(crate) fn process_line(out: &mut String, view: &ProcessView, point: Point, style: Style) {
    let name = if view.name.is_empty() {
        "process".to_owned()
    } else {
        foreign(&view.name)
    };
    let _ = write!(out, "{} (pid {}", style.strong(&name), view.pid);
    if let Some(rank) = view.rank {
        let _ = write!(out, ", rank {rank}");
    }
    out.push(')');
    if !view.host.is_empty() {
        let _ = write!(out, " on {}", foreign(&view.host));
    }
    let state = match view.end {
        State::Running => "still running",
        State::Exited => "exited",
        State::Killed => "killed, or ended without its exit handlers",
        State::Unknown => "no clean exit recorded",
        State::Snapshot => "then running: this is a snapshot",
    };
    let _ = write!(out, ", traced for {}, {state}", duration(view.duration_ns));
    let moment = match point {
        Point::End => "",
        Point::Teardown => "; as of the beginning of its teardown",
        Point::Moment => "; as of the moment asked for",
    };
    let _ = writeln!(out, "{moment}");
    sampling::lines(out, view, style);
}

/// `1.00 MiB in 2 allocations`.
pub(crate) fn sum(sum: Sum) -> String {
    format!(
        "{} in {}",
        bytes(sum.bytes),
        counted(sum.count, "allocation")
    )
}

fn group(out: &mut String, answer: &Answer, placed: &Placed, stack: &[ShownFrame], style: Style) {
    let group = &placed.group;
    let size = sampling::size(group);
    let verb = match group.end {
        Some(EntryEnd::Context) => "lost when their context was destroyed",
        Some(EntryEnd::Reset) => "lost when their device was reset",
        Some(EntryEnd::Corrupted) => "stuck in a broken context",
        Some(EntryEnd::Teardown) => "leaked until teardown",
        _ if answer.points[placed.process] == Point::Moment => "live then",
        _ if answer.processes[placed.process].end.goes_on() => "still allocated",
        _ => "leaked",
    };
    let _ = write!(out, "{} {verb}", style.bad(&size));
    if let Some(value) = &group.value {
        let _ = write!(out, ": {}", style.strong(&short(value)));
    }
    out.push('\n');
    let _ = writeln!(
        out,
        "    {}",
        style.dim(&what(&answer.processes, &answer.devices, placed))
    );
    let _ = writeln!(out, "    {}", style.dim(&when(answer, placed)));
    if group.value.is_none() {
        frames(out, group, stack, answer.all_frames);
    }
}

/// What kind of memory a group is, and whose.
pub(crate) fn what(processes: &[ProcessView], devices: &[DeviceView], placed: &Placed) -> String {
    let group = &placed.group;
    let mut parts = Vec::new();
    if let Some(api) = group.api.as_ref().filter(|api| !api.is_empty()) {
        parts.push(foreign(api));
    }
    match (group.layer, group.kind) {
        (Some(Layer::Host), Some(kind)) => parts.push(format!("{} host memory", kind.name())),
        (Some(layer), Some(kind)) => {
            parts.push(format!("{} memory ({} layer)", kind.name(), layer.name()));
        }
        (Some(layer), None) => parts.push(format!("{} layer", layer.name())),
        _ => parts.push("several kinds".to_owned()),
    }
    if let Some(device) = placed.device.and_then(|id| devices.get(id)) {
        let name = if device.name.is_empty() {
            String::new()
        } else {
            format!(" ({})", foreign(&device.name))
        };
        parts.push(format!("GPU {}{name}", device.index));
    }
    if processes.len() > 1 {
        let process = &processes[placed.process];
        let rank = match process.rank {
            Some(rank) => format!(", rank {rank}"),
            None => String::new(),
        };
        parts.push(format!("pid {}{rank}", process.pid));
    }
    parts.join(" · ")
}

fn when(answer: &Answer, placed: &Placed) -> String {
    let group = &placed.group;
    let start = answer.processes[placed.process].start_ns;
    let at = |ns: u64| duration(ns.saturating_sub(start));
    let mut parts = vec![match group.count {
        1 => format!("at {}", at(group.first_ns)),
        _ => format!(
            "first at {}, last at {}",
            at(group.first_ns),
            at(group.last_ns)
        ),
    }];
    if !group.threads.is_empty() {
        parts.push(named("thread", &group.threads));
    }
    // Groups by range have it in their first line.
    match group.entered {
        Some(times) => parts.push(format!("entered {}", counted(times, "time"))),
        None if group.ranges.is_empty() => {}
        None => parts.push(ranges(&group.ranges)),
    }
    let age = &group.age;
    let rises = group.course.as_ref();
    let rises = rises.filter(|course| course.trend == Trend::Rising);
    let slope = match (age.judgement.shape, rises) {
        (Shape::Growing, _) => Some(rate(group)),
        (_, course) => course.map(|course| course.slope.median),
    };
    if let Some(slope) = slope {
        let per = Per::of(age.to.saturating_sub(age.from));
        parts.push(format!("kept growing, {}", per.rate(slope)));
    } else if group.suspicion == Suspicion::High {
        parts.push("kept growing".to_owned());
    }
    parts.join(" · ")
}

/// `range step # > forward`, or several.
fn ranges(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| short(name)).collect();
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("range{plural} {}{more}", shown.join(", "))
}

fn named(what: &str, names: &Names) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMES)
        .map(|(id, name)| match name {
            Some(name) => format!("{} ({id})", foreign(name)),
            None => id.to_string(),
        })
        .collect();
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}{more}", shown.join(", "))
}

/// The stack of a group, unless all frames are wanted without what calls `main`.
pub(crate) fn frames(out: &mut String, group: &Group, stack: &[ShownFrame], all: bool) {
    let own = if all { stack.len() } else { up_to_main(stack) };
    let shown = if all {
        Cow::Borrowed(&stack[..own])
    } else {
        without_plumbing(&stack[..own])
    };
    for line in lines(&shown) {
        let _ = writeln!(out, "    {line}");
    }
    if let Some(missing) = group.stack.missing {
        let _ = writeln!(out, "    ({missing})");
    } else if group.stack.truncated {
        let _ = writeln!(out, "    (outer frames were not kept)");
    }
}

/// `GPU 0: 2.00 GiB reserved, 1.50 GiB in use, 512.00 MiB cached`, and whose if there are several.
fn cache(answer: &Answer, placed: &PlacedCache) -> String {
    let mut line = match placed.device.and_then(|id| answer.devices.get(id)) {
        Some(device) => format!("GPU {}", device.index),
        None => "host memory".to_owned(),
    };
    if answer.processes.len() > 1 {
        let _ = write!(line, ", pid {}", answer.processes[placed.process].pid);
    }
    let cached = placed.cached;
    let _ = write!(
        line,
        ": {} reserved, {} in use, {} cached",
        bytes(cached.reserved),
        bytes(cached.used()),
        bytes(cached.unused)
    );
    line
}

/// What is not among the leaks, though it may be what somebody looks for.
fn gave_back(out: &mut String, answer: &Answer) {
    for placed in &answer.given_back {
        let back = placed.back;
        let of_whom = match answer.processes.len() {
            1 => String::new(),
            _ => format!(", pid {}", answer.processes[placed.process].pid),
        };
        let index = answer
            .devices
            .get(placed.device)
            .map_or(0, |device| device.index);
        let _ = writeln!(
            out,
            "Freed before the end: {} of the {} that were live at the peak of GPU {}{of_whom} (at {}, {} layer); \
             `growth` looks at what they were",
            bytes(back.peak_bytes.saturating_sub(back.held_bytes)),
            bytes(back.peak_bytes),
            index,
            duration(back.peak_time),
            back.layer.name()
        );
    }
}

fn apart(out: &mut String, answer: &Answer) {
    if answer.cached.unused > 0 {
        let _ = writeln!(
            out,
            "Cached, not leaked: {} that caching allocators and pools hold without using it",
            bytes(answer.cached.unused)
        );
        for placed in &answer.caches {
            let _ = writeln!(out, "    {}", cache(answer, placed));
        }
    }
    if answer.corrupted.count > 0 {
        let _ = writeln!(
            out,
            "Not counted as leaked: {} that a CUDA error made impossible to free",
            sum(answer.corrupted)
        );
    }
    for used in &answer.suppressed {
        let from = if used.builtin {
            " (builtin; --no-builtin-suppressions reports it)"
        } else {
            ""
        };
        let pattern = foreign(&used.pattern);
        let _ = writeln!(out, "Suppressed: {} by leak:{pattern}{from}", sum(used.sum));
    }
    for (name, aside) in [
        ("imported from other processes", answer.aside.imports),
        ("mappings of physical memory", answer.aside.mappings),
        ("reserved address ranges", answer.aside.reservations),
    ] {
        if aside.count > 0 {
            let number = counted(aside.count, "entry").replace("entrys", "entries");
            let _ = writeln!(
                out,
                "Never counted: {name}, {number}, {}",
                bytes(aside.bytes)
            );
        }
    }
}

/// What symbols could not be had for; a trace from another machine has many such files.
pub(crate) fn symbol_warnings(out: &mut String, warnings: &[String], style: Style) {
    let shown = if warnings.len() > WARNINGS + 1 {
        WARNINGS
    } else {
        warnings.len()
    };
    for warning in &warnings[..shown] {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(warning));
    }
    if shown < warnings.len() {
        let more = counted((warnings.len() - shown) as u64, "more file");
        let _ = writeln!(
            out,
            "{} and so on for {more}; all with --json",
            style.warn("note:")
        );
    }
}

fn warnings(out: &mut String, shown: &Shown<'_>, style: Style) {
    let answer = shown.answer;
    for note in &answer.notes {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(note));
    }
    symbol_warnings(out, &shown.symbols, style);
    for reason in &answer.incomplete_because {
        let _ = writeln!(out, "{} {}", style.warn("not exact:"), foreign(reason));
    }
    if answer.unknown_kinds > 0 {
        let _ = writeln!(
            out,
            "{} {} of kinds that this version does not know are left out",
            style.warn("note:"),
            counted(answer.unknown_kinds, "allocation")
        );
    }
    if answer.teardown_only.count > 0 {
        let _ = writeln!(
            out,
            "Of these, {} were released only by the teardown of the process (--to end leaves \
             them out)",
            sum(answer.teardown_only)
        );
    }
    for (view, used) in answer.processes.iter().zip(&answer.cuda_use) {
        if let Some(remark) = used.remark() {
            let _ = writeln!(out, "{} pid {} {remark}", style.warn("note:"), view.pid);
        }
    }
}

fn ranks(out: &mut String, answer: &Answer, style: Style) {
    let space = if answer.gpu.bytes > 0 {
        "GPU memory"
    } else {
        "page-locked host memory"
    };
    let what = format!("{space} {}", held_word(answer));
    rank_lines(out, answer.ranks().as_ref(), &what, style);
}

/// What groups are: leaked, still allocated, live at some moment.
fn held_word(answer: &Answer) -> String {
    let running = answer.processes.iter().any(|view| view.end.goes_on());
    if answer.points.contains(&Point::Moment) {
        format!("live at {}", foreign(answer.point()))
    } else if running {
        "still allocated".to_owned()
    } else {
        "leaked".to_owned()
    }
}

fn summary(out: &mut String, answer: &Answer, style: Style) {
    let word = held_word(answer);
    let only = match only(&answer.filter, answer.asked.from.as_deref()) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let line = if answer.any() {
        let mut held = by_space([answer.gpu, answer.host]);
        if let Some(first) = held.first_mut() {
            first.push(' ');
            first.push_str(&word);
        }
        style.strong(&format!("SUMMARY: {}{only}", held.join(", ")))
    } else if answer.saw_memory() {
        style.good(&format!("SUMMARY: nothing {word}{only}"))
    } else {
        style.warn("SUMMARY: no CUDA memory was seen, so nothing can be said about leaks")
    };
    let suppressed = match answer.all_suppressed() {
        none if none.count == 0 => String::new(),
        all => format!(", {} suppressed", sum(all)),
    };
    let inexact = if answer.complete { "" } else { " (not exact)" };
    let _ = writeln!(out, "{line}{suppressed}{inexact}");
}

/// `1.00 MiB in 2 allocations of GPU memory`, and so for the host; without spaces that have nothing.
fn by_space(sums: [Sum; 2]) -> Vec<String> {
    let spaces = sums
        .into_iter()
        .zip(["GPU memory", "page-locked host memory"]);
    let held = spaces.filter(|(held, _)| held.count > 0);
    held.map(|(held, what)| format!("{} of {what}", sum(held)))
        .collect()
}

/// What was leaked of GPU and of host memory, in words.
pub(super) fn space_sums(sums: [Sum; 2]) -> String {
    by_space(sums).join(", ")
}

/// A group as in the report, without colours.
pub(super) fn group_alone(answer: &Answer, placed: &Placed, stack: &[ShownFrame]) -> String {
    let mut out = String::new();
    group(&mut out, answer, placed, stack, Style::PLAIN);
    out
}

/// What a report is limited to, in words; empty if to nothing.
pub(crate) fn only(filter: &Filter, from: Option<&str>) -> String {
    let from = from.iter();
    let from = from.map(|from| format!("allocated after {}", foreign(from)));
    let devices = filter.devices.iter().map(|device| format!("GPU {device}"));
    let layers = filter.layers.iter();
    let layers = layers.map(|layer| format!("{} layer", layer.name()));
    let kinds = filter.kinds.iter().map(|kind| kind.name().to_owned());
    let words: Vec<String> = from.chain(devices).chain(layers).chain(kinds).collect();
    words.join(", ")
}

fn next(out: &mut String, answer: &Answer) {
    let traces: Vec<String> = answer
        .processes
        .iter()
        .map(|view| shell(&view.trace))
        .collect();
    let sound = answer.complete && answer.saw_memory();
    let command = match (sound, answer.given_back.is_empty()) {
        (false, _) => "check",
        (true, true) => "timeline",
        (true, false) => "growth",
    };
    let _ = writeln!(out, "Next: vramtrace {command} {}", traces.join(" "));
}
