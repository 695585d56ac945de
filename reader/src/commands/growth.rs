//! `vramtrace growth`: stacks whose live bytes keep growing.

use super::{code, open, print, refuse_unknown_devices};
use crate::analysis::growth::Growths;
use crate::cli::{MOMENTS, Traces};
use crate::commands::question::{Question, window};
use crate::report::frames::Frames;
use crate::report::growth::{Shown, json, text};
use crate::report::style::Style;

/// Groups in the report for people, unless `--top` says otherwise.
const TOP: usize = 10;

/// How verdicts are made; for the end of the command's help.
const HOW: &str = "\
A verdict rests on when what is live was made, which a trace knows however long the run was: a leak
leaves allocations behind all along, a warm-up only old ones, a cache or a sawtooth only young ones, a
plateau some at few times. It needs at least 12 live allocations of a stack. What lives for more than
a third of the run before it is freed looks like growth by its age; where the trace knows what a stack
held over time (for those that hold or gain most, however long ago), that is shown, and tells it apart.

Example: vramtrace growth --by python --json train.vrt | jq '.groups[] | select(.shape == \"growing\")'";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.growth/1): all groups, with what each does
    #[arg(long)]
    json: bool,
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
    let windows = super::in_each(&opened.processes, |process| {
        window(question, process, &options.filter)
    })?;
    let mut frames = Frames::default();
    let growths = Growths::of(
        &opened.processes,
        &options,
        &windows,
        &question.asked(),
        question.top(args.json, TOP),
        &mut frames,
    );
    let shown = Shown::new(&growths, &opened.processes, args.json, &mut frames);
    print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    })?;
    let verdict = opened.verdict(growths.head.damaged());
    super::forget((shown, frames));
    super::forget((growths, opened));
    Ok(verdict)
}
