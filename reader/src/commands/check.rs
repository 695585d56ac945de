//! `vramtrace check`: is this file whole, what was lost, what was bypassed?

use super::{code, open, print};
use crate::analysis::check::{Check, Verdict, check};
use crate::cli::{Traces, exit};
use crate::report::check::{json, text};
use crate::report::style::Style;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 the file is as its writer left it; 2 usage; 3 it is damaged or \
                        unreadable."
)]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.check/1)
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let opened = open(&args.traces.traces, args.json)?;
    let checks: Vec<Check> = opened
        .processes
        .iter()
        .enumerate()
        .map(|(id, process)| check(process, id))
        .collect();
    print(&if args.json {
        json(&checks)
    } else {
        text(&checks, Style::of_stdout())
    })?;
    let damaged = |check: &Check| check.verdict == Verdict::Damaged;
    Ok(if opened.unreadable > 0 || checks.iter().any(damaged) {
        exit::UNREADABLE
    } else {
        exit::FINE
    })
}
