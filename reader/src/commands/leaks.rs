//! `vramtrace leaks`: what is still allocated, grouped by call stack.

use super::question::{part, point};
use super::{code, complain, in_each, open, print, refuse_unknown_devices};
use crate::analysis::leaks::{Answer, Asked, By, Options, Suppressions};
use crate::analysis::moment::Moment;
use crate::cli::{FilterOptions, MOMENTS, Traces, by, exit};
use crate::model::Unhidden;
use crate::report::frames::Frames;
use crate::report::leaks::{Shown, Verdict, json, junit, text};
use crate::report::style::Style;
use crate::report::words::counted;
use std::path::{Path, PathBuf};

/// Groups in the report for people, unless `--top` says otherwise.
const TOP: usize = 20;

const EXIT_CODES: &str = "\
Exit codes: 0 fine; with --fail or --max-leak-bytes: 1 leaks, 4 no leaks found but that is not
certain; 2 usage; 3 a trace is unreadable or damaged.";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{MOMENTS}\n\n{EXIT_CODES}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.leaks/1)
    #[arg(long)]
    json: bool,
    /// With --json: list every allocation of each group, with its address
    #[arg(long, requires = "json")]
    members: bool,
    /// Write a JUnit report for CI, too: what --fail fails for are failures and errors there
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// What groups are made by
    #[arg(long, value_name = "WHAT", value_parser = by(), default_value = "stack")]
    by: By,
    /// Which groups come first: the largest (size), or those that keep growing (suspicion): first
    /// those known to have grown over the whole time, and of these the largest
    #[arg(long, value_name = "ORDER", default_value = "size",
          value_parser = ["size", "suspicion"], hide_possible_values = true)]
    sort: String,
    /// Show this many groups, 0 for all [default: 20; with --json: all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    filter: FilterOptions,
    /// What was allocated at this moment, instead of at the end (of Python: before its teardown)
    #[arg(long, alias = "point", value_name = "MOMENT", value_parser = Moment::parse)]
    to: Option<Moment>,
    /// Only what was allocated after this moment
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    from: Option<Moment>,
    /// Show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long)]
    all_frames: bool,
    /// Show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long)]
    native: bool,
    /// Leave out leaks that match a pattern of this file: lines leak:PATTERN as for
    /// LeakSanitizer, matched with functions, files and modules of all frames; may be repeated
    #[arg(long, value_name = "FILE")]
    suppressions: Vec<PathBuf>,
    /// Report what frameworks are documented to keep, too, as --to MOMENT always does
    #[arg(long)]
    no_builtin_suppressions: bool,
    /// Print the builtin suppressions, with reasons, and exit
    #[arg(long)]
    print_suppressions: bool,
    /// Exit with 1 if anything leaked that is not suppressed
    #[arg(long)]
    fail: bool,
    /// Exit with 1 if more than this leaked on the GPU or in host memory (512KiB, 64MiB, 4GiB)
    #[arg(long, value_name = "SIZE", value_parser = crate::launch::size::parse)]
    max_leak_bytes: Option<u64>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    if args.print_suppressions {
        print(&Suppressions::builtin_file())?;
        return Ok(exit::FINE);
    }
    // What was live at some moment is not a question about leaks.
    let about_leaks = matches!(args.to, None | Some(Moment::End | Moment::Teardown));
    let builtin = about_leaks && !args.no_builtin_suppressions;
    let suppressions = suppressions(&args.suppressions, builtin)?;
    let fails = args.fail || args.max_leak_bytes.is_some();
    let opened = open(&args.traces.traces, args.json)?;
    let options = Options {
        point: point(args.to.as_ref()),
        by: args.by,
        filter: args.filter.filter(),
        unhidden: Unhidden {
            cuda: args.all_frames,
            native: args.native,
        },
        suppressions,
        members: args.members,
        suspicious_first: args.sort == "suspicion",
    };
    let top = match args.top {
        Some(0) => None,
        None if args.json => None,
        top => Some(top.unwrap_or(TOP)),
    };
    refuse_unknown_devices(&opened, &options.filter)?;
    let windows = in_each(&opened.processes, |process| {
        part(
            args.from.as_ref(),
            args.to.as_ref(),
            process,
            &options.filter,
        )
    })?;
    let asked = Asked {
        from: args.from.as_ref().map(Moment::to_string),
        to: args.to.as_ref().map(Moment::to_string),
    };
    let mut frames = Frames::default();
    let answer = Answer::within(
        &opened.processes,
        &options,
        &windows,
        &asked,
        top,
        &mut frames,
    );
    let shown = Shown::new(&answer, &opened.processes, &mut frames);
    let report = if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    };
    if let Some(path) = &args.junit {
        let mut uncertain = answer.incomplete_because.clone();
        if opened.unreadable > 0 {
            let number = counted(opened.unreadable as u64, "trace");
            uncertain.push(format!("{number} could not be read"));
        }
        if !answer.saw_memory() {
            uncertain.push("no CUDA memory was seen".to_owned());
        }
        let verdict = Verdict {
            leaked: above(&answer, args.max_leak_bytes),
            uncertain: &uncertain,
        };
        write(path, &junit(&shown, &verdict))?;
    }
    let verdict = verdict(&answer, opened.unreadable, fails, args.max_leak_bytes);
    let printed = print(&report);
    super::forget((shown, frames, report));
    super::forget((answer, opened));
    // A reader that went away does not change what was found.
    match printed {
        Err(exit::FINE) | Ok(()) => Ok(verdict),
        Err(code) => Err(code),
    }
}

/// Reads files of suppressions; those come before the builtin ones.
pub(crate) fn suppressions(files: &[PathBuf], builtin: bool) -> Result<Suppressions, i32> {
    let mut suppressions = Suppressions::default();
    for path in files {
        let refuse = |why: &dyn std::fmt::Display| {
            complain(&format!("{}: {why}", path.display()));
            exit::USAGE
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
        suppressions.add(&text).map_err(|line| refuse(&line))?;
    }
    if builtin {
        suppressions.add_builtin();
    }
    Ok(suppressions)
}

/// Writes a file, and the directories it is to be in.
fn write(path: &Path, text: &str) -> Result<(), i32> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let made = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(path, text));
    made.map_err(|error| {
        complain(&format!("{}: {error}", path.display()));
        exit::USAGE
    })
}

/// Whether more was leaked than may be.
fn above(answer: &Answer, limit: Option<u64>) -> bool {
    match limit {
        None | Some(0) => answer.any(),
        Some(limit) => answer.gpu.bytes > limit || answer.host.bytes > limit,
    }
}

fn verdict(answer: &Answer, unreadable: usize, fails: bool, limit: Option<u64>) -> i32 {
    let damaged = |reason: &String| reason.starts_with("damaged:");
    if unreadable > 0 || answer.incomplete_because.iter().any(damaged) {
        exit::UNREADABLE
    } else if !fails {
        exit::FINE
    } else if above(answer, limit) {
        exit::FOUND
    } else if !answer.complete || !answer.saw_memory() {
        exit::INEXACT
    } else {
        exit::FINE
    }
}
