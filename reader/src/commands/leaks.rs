//! `vramtrace leaks`: what is still allocated, grouped by call stack.

use super::{code, open, print};
use crate::analysis::leaks::{Answer, By, Options, Point};
use crate::cli::{FilterOptions, Traces, exit, point};
use crate::model::Unhidden;
use crate::report::frames::Frames;
use crate::report::leaks::{Shown, json, text};
use crate::report::style::Style;

/// Groups in the report for people, unless `--top` says otherwise.
const TOP: usize = 20;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 fine; with --fail or --max-leak-bytes: 1 leaks, 4 no leaks \
                        found but that is not certain; 2 usage; 3 a trace is unreadable or damaged."
)]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.leaks/1)
    #[arg(long)]
    json: bool,
    /// What groups are made by
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stack")]
    by: ByName,
    /// Show this many groups, 0 for all [default: 20; with --json: all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    filter: FilterOptions,
    /// The moment: `end`, or `teardown` (before the process began to go down) [default: teardown
    /// where the trace has one]
    #[arg(long, value_name = "POINT", value_parser = point)]
    point: Option<Point>,
    /// Same as --point; other points are not supported yet
    #[arg(long, value_name = "POINT", value_parser = point, hide = true, conflicts_with = "point")]
    to: Option<Point>,
    /// Leaks since this point; not supported yet
    #[arg(long, value_name = "POINT", value_parser = no_from, hide = true)]
    from: Option<Point>,
    /// Show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long)]
    all_frames: bool,
    /// Show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long)]
    native: bool,
    /// Exit with 1 if anything leaked
    #[arg(long)]
    fail: bool,
    /// Exit with 1 if more than this leaked on the GPU or in host memory (512KiB, 64MiB, 4GiB)
    #[arg(long, value_name = "SIZE", value_parser = crate::launch::size::parse)]
    max_leak_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ByName {
    Stack,
    Python,
    Library,
    Range,
    Thread,
    Device,
    Kind,
    Rank,
    Api,
    Stream,
    Context,
    Layer,
}

fn no_from(_: &str) -> Result<Point, String> {
    Err("reports between two points are not supported yet; only --point end|teardown".to_owned())
}

impl From<ByName> for By {
    fn from(name: ByName) -> By {
        match name {
            ByName::Stack => By::Stack,
            ByName::Python => By::Python,
            ByName::Library => By::Library,
            ByName::Range => By::Range,
            ByName::Thread => By::Thread,
            ByName::Device => By::Device,
            ByName::Kind => By::Kind,
            ByName::Rank => By::Rank,
            ByName::Api => By::Api,
            ByName::Stream => By::Stream,
            ByName::Context => By::Context,
            ByName::Layer => By::Layer,
        }
    }
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let fails = args.fail || args.max_leak_bytes.is_some();
    let opened = open(&args.traces.traces, args.json)?;
    let options = Options {
        point: args.point.or(args.to),
        by: args.by.into(),
        filter: args.filter.filter(),
        unhidden: Unhidden {
            cuda: args.all_frames,
            native: args.native,
        },
    };
    let top = match args.top {
        Some(0) => None,
        None if args.json => None,
        top => Some(top.unwrap_or(TOP)),
    };
    let mut frames = Frames::default();
    let answer = Answer::of(&opened.processes, &options, top, &mut frames);
    let shown = Shown::new(&answer, &opened.processes, &mut frames);
    let report = if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    };
    let verdict = verdict(&answer, opened.unreadable, fails, args.max_leak_bytes);
    // A reader that went away does not change what was found.
    match print(&report) {
        Err(exit::FINE) | Ok(()) => Ok(verdict),
        Err(code) => Err(code),
    }
}

fn verdict(answer: &Answer, unreadable: usize, fails: bool, limit: Option<u64>) -> i32 {
    let damaged = |reason: &String| reason.starts_with("damaged:");
    let limit = limit.unwrap_or(0);
    let above = if limit == 0 {
        answer.any()
    } else {
        answer.gpu.bytes > limit || answer.host.bytes > limit
    };
    if unreadable > 0 || answer.incomplete_because.iter().any(damaged) {
        exit::UNREADABLE
    } else if !fails {
        exit::FINE
    } else if above {
        exit::FOUND
    } else if !answer.complete || !answer.saw_memory() {
        exit::INEXACT
    } else {
        exit::FINE
    }
}
