//! `vramtrace oom`: each allocation that failed for lack of memory.

use super::question::{Question, times};
use super::{code, complain, in_each, open, print, refuse_unknown_devices};
use crate::analysis::oom::Oom;
use crate::cli::{MOMENTS, Traces};
use crate::launch::snapshots;
use crate::model::Process;
use crate::report::frames::Frames;
use crate::report::oom::{Shown, json, text};
use crate::report::style::Style;
use crate::trace::Trace;

/// Groups of each failure in the report for people, unless `--top` says otherwise.
const TOP: usize = 5;
/// Failures of each process in the report for people, unless `--last` says otherwise.
const LAST: usize = 10;

const HOW: &str = "\
Attempts at the same size by one thread, without another allocation of its in between, are one failure.
What was free is what the driver said right after; where that is missing the process was capturing a
stream, which asking would have destroyed. \"Caught\" means that the process allocated again afterwards.
Snapshots that the recorder took (VRAMTRACE_ON_OOM=snapshot: TRACE.oom-1, TRACE.oom-2 …) are found beside
the trace; they know of failures that its event log has forgotten, and each can be read as a trace.

Example: vramtrace oom --by library --last 1 train.vrt";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.oom/1)
    #[arg(long)]
    json: bool,
    /// Show the last so many failures of each process, 0 for all [default: 10; with --json: all]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    question: Question,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let opened = open(&args.traces.traces, args.json)?;
    let question = &args.question;
    let options = question.options();
    refuse_unknown_devices(&opened, &options.filter)?;
    let parts = in_each(&opened.processes, |process| {
        times(question, process, &options.filter)
    })?;
    let last = match args.last {
        Some(0) => None,
        None if args.json => None,
        last => Some(last.unwrap_or(LAST)),
    };
    let mut frames = Frames::default();
    let snapshots: Vec<Vec<Process>> = opened.processes.iter().map(snapshots_of).collect();
    let oom = Oom::with_snapshots(
        &opened.processes,
        &snapshots,
        &options,
        &parts,
        &question.asked(),
        last,
        question.top(args.json, TOP),
        &mut frames,
    );
    let shown = Shown::new(&oom, &opened.processes, &mut frames);
    print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    })?;
    Ok(opened.verdict(oom.head.damaged()))
}

/// More than any recorder keeps, and as many as are opened at once.
const MOST: usize = 64;

/// The snapshots of a process that lie beside its trace. One that cannot be read is said, and does
/// not keep the others from being read; what an earlier process of the same name left is none.
fn snapshots_of(process: &Process) -> Vec<Process> {
    let beside = snapshots::beside(&process.trace.path);
    let opened = beside.iter().take(MOST).filter_map(|path| {
        Trace::open(path)
            .map_err(|error| complain(&error.to_string()))
            .ok()
    });
    let read = opened.map(Process::read);
    read.filter(|snapshot| snapshot.is_snapshot_of(process))
        .collect()
}
