//! `vramtrace churn`: short-lived allocations and what they cost.

use super::question::{Question, times};
use super::{code, in_each, open, print, refuse_unknown_devices};
use crate::analysis::churn::Churn;
use crate::analysis::moment;
use crate::cli::{MOMENTS, Traces};
use crate::report::churn::{Shown, json, text};
use crate::report::frames::Frames;
use crate::report::style::Style;

/// Groups in the report for people, unless `--top` says otherwise.
const TOP: usize = 10;

const HOW: &str = "\
Lifetimes are those in the event log; how often was freed in the whole run is exact also where the log
has forgotten it. \"If its memory were kept\" is counted, not guessed: which of the allocations in the log
would have found a block of exactly their size that their own stack had freed. How long the driver took
is in no trace: events have one time.

Example: vramtrace churn --layer device --shorter-than 10ms train.vrt";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.churn/1)
    #[arg(long)]
    json: bool,
    /// What counts as short-lived
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s")]
    shorter_than: u64,
    #[command(flatten)]
    question: Question,
}

fn time(text: &str) -> Result<u64, String> {
    moment::duration(text)
        .ok_or_else(|| "write a number and a unit: 500us, 10ms, 2s, 1m".to_owned())
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
    let mut frames = Frames::default();
    let churn = Churn::of(
        &opened.processes,
        &options,
        &parts,
        &question.asked(),
        args.shorter_than,
        question.top(args.json, TOP),
        &mut frames,
    );
    let shown = Shown::new(&churn, &opened.processes, &mut frames);
    print(&if args.json {
        json(&shown)
    } else {
        text(&shown, Style::of_stdout())
    })?;
    let verdict = opened.verdict(churn.head.damaged());
    super::forget((shown, frames));
    super::forget((churn, opened));
    Ok(verdict)
}
