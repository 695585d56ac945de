//! `vramtrace fragmentation`: what allocators hold without using it.

use super::question::past;
use super::{code, in_each, open, print, refuse_unknown_devices};
use crate::analysis::Filter;
use crate::analysis::fragmentation::Fragmentation;
use crate::analysis::leaks::Asked;
use crate::analysis::moment::Moment;
use crate::cli::{MOMENTS, Traces};
use crate::report::fragmentation::{json, text};
use crate::report::style::Style;

/// Segments of each device in the report for people, unless `--top` says otherwise.
const TOP: usize = 10;

const HOW: &str = "\
A segment's map shows how much of each 32nd of it is handed out. Of the driver's own pools only sums are
known: where their blocks lie in physical memory is not. Of PyTorch's blocks the rounded size is known,
not what was asked for, so that its rounding is not shown; that of arrays is.

Example: vramtrace fragmentation --to peak --top 0 train.vrt";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.fragmentation/1), with every block
    #[arg(long)]
    json: bool,
    /// Show this many segments of each device, 0 for all [default: 10; with --json: all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Only this device (its number in the process); may be repeated
    #[arg(long, value_name = "N")]
    device: Vec<u8>,
    /// As it was at this moment [default: the end; of Python: before its teardown]
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    to: Option<Moment>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let opened = open(&args.traces.traces, args.json)?;
    let filter = Filter {
        devices: args.device.clone(),
        ..Filter::default()
    };
    refuse_unknown_devices(&opened, &filter)?;
    let moments = in_each(&opened.processes, |process| match &args.to {
        None => Ok(None),
        Some(moment) => past(moment, process, &filter).map(Some),
    })?;
    let asked = Asked {
        from: None,
        to: args.to.as_ref().map(Moment::to_string),
    };
    let top = match args.top {
        Some(0) => None,
        None if args.json => None,
        top => Some(top.unwrap_or(TOP)),
    };
    let found = Fragmentation::of(&opened.processes, &filter, &moments, &asked, top);
    print(&if args.json {
        json(&found)
    } else {
        text(&found, Style::of_stdout())
    })?;
    Ok(opened.verdict(found.head.damaged()))
}
