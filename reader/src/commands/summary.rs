//! `vramtrace summary`: process, devices, totals, peak, top stacks, losses.

use super::{code, open, print, refuse_unknown_devices};
use crate::analysis::summary::summary;
use crate::cli::{FilterOptions, Traces};
use crate::launch::snapshots;
use crate::model::{Process, State};
use crate::nvml;
use crate::report::frames::Frames;
use crate::report::style::Style;
use crate::report::summary::{Shown, json, text};

/// Stacks that are shown, unless `--top` says otherwise.
const TOP: usize = 5;
/// Stacks of a document, unless `--top` says otherwise.
const TOP_JSON: usize = 100;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.summary/1)
    #[arg(long)]
    json: bool,
    /// Show this many stacks, 0 for all [default: 5; with --json: 100]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    filter: FilterOptions,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

/// Of a process that runs, what nvidia-smi shows now is as good as what `vramtrace run` will have
/// recorded of it.
fn ask_now(process: &mut Process) {
    if process.state != State::Running {
        return;
    }
    for (device, sample) in nvml::sample_now(process).unwrap_or_default() {
        process.add_use(device, sample);
    }
}

fn run(args: &Args) -> Result<i32, i32> {
    let mut opened = open(&args.traces.traces, args.json)?;
    opened.processes.iter_mut().for_each(ask_now);
    let top = match args.top {
        Some(0) => usize::MAX,
        Some(top) => top,
        None if args.json => TOP_JSON,
        None => TOP,
    };
    let filter = args.filter.filter();
    refuse_unknown_devices(&opened, &filter)?;
    let mut frames = Frames::default();
    let mut summary = summary(&opened.processes, &filter, top, &mut frames);
    for process in &mut summary.processes {
        process.snapshots = snapshots::beside(&process.view.trace).len();
    }
    let shown = Shown::new(&summary, &opened.processes, &mut frames);
    print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    })?;
    Ok(opened.verdict(false))
}
