//! Failed allocations for people: what was asked and free, what became of it, who asked, who held
//! the memory.

use super::{Shown, Stacks};
use crate::analysis::oom::{Failure, Fate, Fits, HeldThen, Oom, RECENT};
use crate::report::head::{device_name, inexact, next, of_process, process_lines, warnings};
use crate::report::leaks::{frames, only, sum, what};
use crate::report::lines::frame;
use crate::report::style::Style;
use crate::report::words::{bytes, counted, duration, foreign, shell};
use std::fmt::Write;
use std::path::Path;

/// The report.
pub fn text(shown: &Shown<'_>, style: Style) -> String {
    let oom = shown.oom;
    let mut out = String::new();
    process_lines(&mut out, &oom.head, style);
    for (failure, stacks) in oom.failures.iter().zip(&shown.stacks) {
        out.push('\n');
        one(&mut out, oom, failure, stacks, style);
    }
    out.push('\n');
    if oom.omitted > 0 {
        let earlier = counted(oom.omitted as u64, "earlier failure");
        let _ = writeln!(
            out,
            "{}",
            style.dim(&format!("… and {earlier}; all with --last 0"))
        );
    }
    if oom.forgotten > 0 {
        let forgotten = counted(oom.forgotten, "failed attempt");
        let _ = writeln!(
            out,
            "{} {forgotten} more, which the event log has forgotten",
            style.warn("note:")
        );
    }
    warnings(&mut out, &oom.head, &shown.symbols, style);
    summary(&mut out, oom, style);
    if let Some(snapshot) = only_by_snapshot(oom) {
        let _ = writeln!(out, "Next: vramtrace leaks {}", shell(snapshot));
        return out;
    }
    let command = match oom.failures.last() {
        Some(last) if last.held.is_ok() && oom.head.processes.len() == 1 => {
            format!("leaks --to {}", last.seq)
        }
        Some(_) => "peak".to_owned(),
        None => "summary".to_owned(),
    };
    next(&mut out, &oom.head, &command);
    out
}

/// The snapshot that alone knows who held the memory at the last failure.
fn only_by_snapshot(oom: &Oom) -> Option<&Path> {
    let last = oom.failures.last()?;
    let held = last.held.as_ref().ok()?;
    last.snapshot.as_deref().filter(|_| held.by_snapshot)
}

fn one(out: &mut String, oom: &Oom, failure: &Failure, stacks: &Stacks, style: Style) {
    let group = &failure.placed.group;
    let start = oom.head.processes[failure.placed.process].start_ns;
    let at = duration(group.last_ns.saturating_sub(start));
    let attempts = match group.count {
        1 => String::new(),
        attempts => format!(", after {attempts} attempts"),
    };
    let asked = format!("{} refused", bytes(group.bytes));
    let fate = fate(failure.fate);
    let _ = writeln!(out, "{} at {at}{attempts}: {fate}", style.bad(&asked));
    let what = what(&oom.head.processes, &oom.head.devices, &failure.placed);
    let thread = group.threads.first().map(|(id, name)| match name {
        Some(name) => format!(" · thread {} ({id})", foreign(name)),
        None => format!(" · thread {id}"),
    });
    let what = format!("{what}{}", thread.unwrap_or_default());
    let _ = writeln!(out, "    {}", style.dim(&what));
    for line in why(failure) {
        let _ = writeln!(out, "    {line}");
    }
    frames(out, group, &stacks.asked, oom.all_frames);
    match &failure.held {
        Ok(held) => holders(out, oom, failure, held, stacks, style),
        Err(why) => {
            let _ = writeln!(out, "    {} {why}", style.warn("note:"));
        }
    }
    if let Some(snapshot) = &failure.snapshot {
        let line = format!("snapshot: vramtrace leaks {}", shell(snapshot));
        let _ = writeln!(out, "    {}", style.dim(&line));
    }
}

fn fate(fate: Fate) -> String {
    match fate {
        Fate::Rescued => "rescued: the program got it and never heard of this".to_owned(),
        Fate::Retried(0) => "retried and granted at once".to_owned(),
        Fate::Retried(after) => format!("retried and granted {} later", duration(after)),
        Fate::WentOn(later) => {
            format!(
                "caught; the process made {} after it",
                counted(later, "allocation")
            )
        }
        Fate::Last(0) => "the last thing that the process did".to_owned(),
        Fate::Last(after) => {
            format!(
                "the last that was tried; the process ended {} later",
                duration(after)
            )
        }
        Fate::Open => "the last that was tried so far".to_owned(),
    }
}

fn why(failure: &Failure) -> Vec<String> {
    let mut lines = Vec::new();
    let asked = failure.placed.group.bytes;
    if let Some((free, total)) = failure.free {
        let others = match failure.others() {
            Some(others) => format!(
                "; {} belonged to others: processes, contexts, the driver",
                bytes(others)
            ),
            None => String::new(),
        };
        let (free, total) = (bytes(free), bytes(total));
        lines.push(format!("the driver had {free} of {total} free{others}"));
    }
    if let Some(gave_up) = failure.framework {
        let unused = match gave_up.reserved.saturating_sub(gave_up.allocated) {
            0 => String::new(),
            unused => format!(
                ", {} of it unused and in no piece large enough",
                bytes(unused)
            ),
        };
        lines.push(format!(
            "PyTorch gave up on {}: it had handed out {} of {} reserved{unused}",
            bytes(gave_up.asked),
            bytes(gave_up.allocated),
            bytes(gave_up.reserved),
        ));
    }
    if let Some(rescue) = failure.rescue {
        let waited = if rescue.impatient {
            ", without waiting for the device's work to its end"
        } else {
            ""
        };
        let end = if rescue.saved {
            "then it was granted"
        } else {
            "it was refused all the same"
        };
        lines.push(format!(
            "rescue: pools gave back {} in {}{waited}; {end}",
            bytes(rescue.bytes),
            duration(rescue.took_ns)
        ));
        if rescue.saved {
            return lines;
        }
    }
    let cached = failure.held.as_ref().map_or(0, |held| held.cached);
    let short = |free: u64| bytes(asked.saturating_sub(free));
    match (failure.fits(), failure.free) {
        (Fits::InFree, _) => lines.push(
            "that is enough: not in one piece, or a limit of the pool or of the process".to_owned(),
        ),
        (Fits::WithoutCache, _) => lines.push(format!(
            "it would have fitted without the {} that caches hold unused",
            bytes(cached)
        )),
        (Fits::Never, Some((free, _))) if cached > 0 => lines.push(format!(
            "{} were missing even without the {} that caches hold unused",
            short(free.saturating_add(cached)),
            bytes(cached)
        )),
        (Fits::Never, Some((free, _))) => lines.push(format!("{} were missing", short(free))),
        _ if failure.framework.is_some() && failure.free.is_none() => lines.push(
            "the driver was not asked: a limit of PyTorch's own (set_per_process_memory_fraction)"
                .to_owned(),
        ),
        _ => lines.push("how much was free is not in the trace".to_owned()),
    }
    lines
}

fn holders(
    out: &mut String,
    oom: &Oom,
    failure: &Failure,
    held: &HeldThen,
    stacks: &Stacks,
    style: Style,
) {
    let device = device_name(&oom.head, failure.placed.device);
    let recent = match held.recent.count {
        0 => String::new(),
        _ => format!(
            ", {} of it allocated in the {} before",
            bytes(held.recent.bytes),
            duration(RECENT)
        ),
    };
    let cached = match held.cached {
        0 => String::new(),
        cached => format!(", {} cached", bytes(cached)),
    };
    let source = if held.by_snapshot {
        " (by the snapshot)"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "    held then on {device}{}{source}: {} in use{recent}{cached}",
        of_process(&oom.head, failure.placed.process),
        sum(held.used)
    );
    let width = held
        .groups
        .iter()
        .map(|placed| bytes(placed.group.size().bytes).len())
        .max();
    for (placed, stack) in held.groups.iter().zip(&stacks.held) {
        let group = &placed.group;
        // Where a stack shows what it is for: its two innermost frames.
        let inner: Vec<String> = stack.iter().take(2).map(frame).collect();
        let who = match &group.value {
            Some(value) => foreign(value),
            None if inner.is_empty() => group.stack.missing.unwrap_or("no frames").to_owned(),
            None => inner.join(" ← "),
        };
        let held = group.size();
        let size = bytes(held.bytes);
        let width = width.unwrap_or(0);
        let mut count = counted(held.count, "allocation");
        if group.estimate.is_some() {
            count = format!("about {count}, by samples");
        }
        let _ = writeln!(out, "        {size:>width$} in {count}  {who}");
    }
    if held.omitted.0 > 0 {
        let groups = counted(held.omitted.0 as u64, "smaller group");
        let line = format!("        … and {groups} with {}", sum(held.omitted.1));
        let _ = writeln!(out, "{}", style.dim(&line));
    }
}

fn summary(out: &mut String, oom: &Oom, style: Style) {
    let only = match only(&oom.filter, oom.asked.from.as_deref()) {
        words if words.is_empty() => words,
        words => format!(" (only {words})"),
    };
    let total = (oom.failures.len() + oom.omitted) as u64;
    let is_last = |failure: &&Failure| matches!(failure.fate, Fate::Last(_) | Fate::Open);
    let last = oom.failures.iter().filter(is_last).count() as u64;
    let line = match (total, oom.forgotten) {
        (0, 0) if oom.head.saw_memory() => style.good(&format!(
            "SUMMARY: no allocation failed for lack of memory{only}"
        )),
        (0, 0) => {
            style.warn("SUMMARY: no CUDA memory was seen, so nothing can be said about failures")
        }
        (0, forgotten) => style.warn(&format!(
            "SUMMARY: {} failed, of which the event log has forgotten everything{only}",
            counted(forgotten, "allocation")
        )),
        (total, _) => {
            let what = counted(total, "allocation");
            let after = match last {
                0 => "the process went on after all of them".to_owned(),
                last => format!("nothing was allocated after {last} of them"),
            };
            let rescued = |failure: &&Failure| failure.fate == Fate::Rescued;
            let rescued = match oom.failures.iter().filter(rescued).count() {
                0 => String::new(),
                number => format!("; {number} of them rescued"),
            };
            style.strong(&format!(
                "SUMMARY: {what} failed for lack of memory{rescued}; {after}{only}"
            ))
        }
    };
    let _ = writeln!(out, "{line}{}", inexact(&oom.head));
}
