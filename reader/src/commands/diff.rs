//! `vramtrace diff`: two traces, or two moments of one.

use super::leaks::suppressions;
use super::question::{part, past};
use super::{Opened, code, complain, in_each, open, print, refuse_unknown_devices};
use crate::analysis::diff::{Diff, Side};
use crate::analysis::leaks::{By, Options, Window};
use crate::analysis::moment::Moment;
use crate::cli::{FilterOptions, MOMENTS, by, exit};
use crate::model::Unhidden;
use crate::report::diff::{Shown, json, text};
use crate::report::frames::Frames;
use crate::report::style::Style;
use std::path::PathBuf;

/// Changes in the report for people, unless `--top` says otherwise.
const TOP: usize = 20;

const HOW: &str = "\
Groups are matched by the functions and files of their stacks, not by addresses, nor by lines where
only those moved: two builds of a program can be compared. Directories stand for all processes in
them, added up.

Examples: vramtrace diff before.vrt after.vrt
          vramtrace diff --from 'epoch 1' --to 'epoch 5' train.vrt
          vramtrace diff --fail-if-grown --tolerance 1MiB main.vrt branch.vrt

Where stacks were sampled, what a group holds is an estimate: it counts as new or grown only if the interval
of the difference (95 %) is above the tolerance.

Exit codes: 0 fine; with --fail-if-grown: 1 something is new or grew, 4 nothing did but that is not
certain (of sampled stacks: the total grew, and no group for certain); 2 usage; 3 a trace is unreadable
or damaged.";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    /// Traces, or directories with traces; one of them with --from for two moments of it
    #[arg(value_name = "BEFORE AFTER", num_args = 0..=2)]
    traces: Vec<PathBuf>,
    /// Print one JSON document (schema vramtrace.diff/1)
    #[arg(long)]
    json: bool,
    /// The moment of BEFORE [default: its end; of Python: before its teardown]
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    from: Option<Moment>,
    /// The moment of AFTER [default: its end; of Python: before its teardown]
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    to: Option<Moment>,
    /// What groups are made by
    #[arg(long, value_name = "WHAT", value_parser = by(), default_value = "stack")]
    by: By,
    /// Show this many changes, 0 for all [default: 20; with --json: all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    filter: FilterOptions,
    /// Show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long)]
    all_frames: bool,
    /// Show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long)]
    native: bool,
    /// Leave out what matches a pattern of this file: lines leak:PATTERN as for LeakSanitizer;
    /// may be repeated
    #[arg(long, value_name = "FILE")]
    suppressions: Vec<PathBuf>,
    /// Exit with 1 if a group is new or grew
    #[arg(long)]
    fail_if_grown: bool,
    /// By how much a group may grow all the same (512KiB, 64MiB, 4GiB)
    #[arg(long, value_name = "SIZE", value_parser = crate::launch::size::parse, default_value = "0")]
    tolerance: u64,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let (before, after) = match (&args.traces[..], &args.from) {
        ([before, after], _) => {
            let before = open(std::slice::from_ref(before), args.json)?;
            (before, Some(open(std::slice::from_ref(after), args.json)?))
        }
        (_, Some(_)) => (open(&args.traces, args.json)?, None),
        _ => {
            complain("name two traces, or one with --from MOMENT (and --to MOMENT)");
            return Err(exit::USAGE);
        }
    };
    let options = Options {
        by: args.by,
        filter: args.filter.filter(),
        unhidden: Unhidden {
            cuda: args.all_frames,
            native: args.native,
        },
        suppressions: suppressions(&args.suppressions, false)?,
        ..Options::default()
    };
    refuse_unknown_devices(&before, &options.filter)?;
    if let Some(after) = &after {
        refuse_unknown_devices(after, &options.filter)?;
    }
    let windows_before = windows(&before, args.from.as_ref(), &options)?;
    let latter = after.as_ref().unwrap_or(&before);
    let windows_after = windows(latter, args.to.as_ref(), &options)?;
    let words = |moment: &Option<Moment>| moment.as_ref().map(Moment::to_string);
    let side = |opened, windows, moment: &Option<Moment>| side(opened, windows, words(moment));
    let mut frames = Frames::default();
    let diff = Diff::of(
        &side(&before, &windows_before, &args.from),
        &side(latter, &windows_after, &args.to),
        &options,
        match args.top {
            Some(0) => None,
            None if args.json => None,
            top => Some(top.unwrap_or(TOP)),
        },
        args.tolerance,
        &mut frames,
    );
    let shown = Shown::new(&diff, &before.processes, &latter.processes, &mut frames);
    let printed = print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    });
    let unreadable = before.unreadable + after.as_ref().map_or(0, |after| after.unreadable);
    let verdict = verdict(args, &diff, unreadable);
    super::forget((shown, frames));
    super::forget((diff, before, after));
    match printed {
        Err(exit::FINE) | Ok(()) => Ok(verdict),
        Err(code) => Err(code),
    }
}

fn side<'p>(opened: &'p Opened, windows: &'p [Window], moment: Option<String>) -> Side<'p> {
    Side {
        processes: &opened.processes,
        windows,
        moment,
    }
}

fn windows(
    opened: &Opened,
    moment: Option<&Moment>,
    options: &Options,
) -> Result<Vec<Window>, i32> {
    in_each(&opened.processes, |process| match moment {
        // The live set of the last event is there without going back to it.
        Some(Moment::End) => part(None, None, process, &options.filter),
        Some(moment) => Ok(Window {
            from: None,
            to: Some(past(moment, process, &options.filter)?),
        }),
        None => Ok(Window::default()),
    })
}

/// Whether all memory grew together by more than is tolerated, which is exact, and no stack did for certain.
fn unplaced(args: &Args, diff: &Diff) -> bool {
    let tolerance = i128::from(args.tolerance);
    diff.uncertain > 0 && diff.totals().iter().any(|grew| *grew > tolerance)
}

fn verdict(args: &Args, diff: &Diff, unreadable: usize) -> i32 {
    let heads = [&diff.before.head, &diff.after.head];
    if unreadable > 0 || heads.iter().any(|head| head.damaged()) {
        exit::UNREADABLE
    } else if !args.fail_if_grown {
        exit::FINE
    } else if diff.grown > 0 {
        exit::FOUND
    } else if !diff.complete()
        || !heads.iter().all(|head| head.saw_memory())
        || unplaced(args, diff)
    {
        exit::INEXACT
    } else {
        exit::FINE
    }
}
