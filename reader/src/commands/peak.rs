//! `vramtrace peak`: what was live at the peak of each device and layer.

use super::{code, complain, open, print, refuse_unknown_devices};
use crate::analysis::leaks::By;
use crate::analysis::peak::{knows, peaks};
use crate::cli::{FilterOptions, Traces, by, exit};
use crate::model::Unhidden;
use crate::report::frames::Frames;
use crate::report::peak::{Shown, json, text};
use crate::report::style::Style;

/// Groups of each peak in the report for people, unless `--top` says otherwise.
const TOP: usize = 10;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Exact also where the event log no longer reaches back to the peak. Peaks of \
                  several devices, layers or processes were at different times and are never added."
)]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.peak/1)
    #[arg(long)]
    json: bool,
    /// What groups are made by: stack, python, line, library, device, kind, rank, api, layer
    #[arg(long, value_name = "WHAT", value_parser = by(), hide_possible_values = true,
          default_value = "stack")]
    by: By,
    /// Show this many groups of each peak, 0 for all [default: 10; with --json: all]
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
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    if !knows(args.by) {
        let word = args.by.word();
        complain(&format!(
            "--by {word}: peaks are kept by stack, kind and device, not by {word}; where the \
             event log reaches back to the peak, `vramtrace leaks --to peak --by {word}` knows it"
        ));
        return Err(exit::USAGE);
    }
    let opened = open(&args.traces.traces, args.json)?;
    let filter = args.filter.filter();
    refuse_unknown_devices(&opened, &filter)?;
    let top = match args.top {
        Some(0) => None,
        None if args.json => None,
        top => Some(top.unwrap_or(TOP)),
    };
    let unhidden = Unhidden {
        cuda: args.all_frames,
        native: args.native,
    };
    let mut frames = Frames::default();
    let found = peaks(
        &opened.processes,
        args.by,
        &filter,
        unhidden,
        top,
        &mut frames,
    );
    let shown = Shown::new(&found, &opened.processes, &mut frames);
    print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    })?;
    let damaged = |reason: &String| reason.starts_with("damaged:");
    let verdict = opened.verdict(found.incomplete_because.iter().any(damaged));
    super::forget((shown, frames));
    super::forget((found, opened));
    Ok(verdict)
}
