//! `vramtrace growth`: stacks whose live bytes keep growing.

use super::{code, open, print, refuse_unknown_devices};
use crate::analysis::given_back::given_back;
use crate::analysis::growth::Growths;
use crate::analysis::leaks::Window;
use crate::analysis::moment::{Forgotten, Found, Past};
use crate::cli::{MOMENTS, Traces};
use crate::commands::question::{Question, window};
use crate::model::Process;
use crate::report::frames::Frames;
use crate::report::growth::{Shown, json, text};
use crate::report::style::Style;
use crate::report::words::{bytes, duration};
use std::cell::RefCell;

/// Groups in the report for people, unless `--top` says otherwise.
const TOP: usize = 10;

/// How verdicts are made; for the end of the command's help.
const HOW: &str = "\
A verdict rests on when what is live was made, which a trace knows however long the run was: a leak
leaves allocations behind all along, a warm-up only old ones, a cache or a sawtooth only young ones, a
plateau some at few times. It needs at least 12 live allocations of a stack. What lives for more than
a third of the run before it is freed looks like growth by its age; where the trace knows what a stack
held over time (for those that hold or gain most, however long ago), that is shown, and tells it apart.

Of a process that freed most of what it held before it ended, it looks at the peak, unless --to says
otherwise.

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
    let remarks = RefCell::new(Vec::new());
    let windows = super::in_each(&opened.processes, |process| {
        let window = window(question, process, &options.filter)?;
        if question.from.is_some() || question.to.is_some() {
            return Ok(window);
        }
        Ok(at_its_peak(process, &mut remarks.borrow_mut()).unwrap_or(window))
    })?;
    let mut frames = Frames::default();
    let mut growths = Growths::of(
        &opened.processes,
        &options,
        &windows,
        &question.asked(),
        question.top(args.json, TOP),
        &mut frames,
    );
    remarks
        .into_inner()
        .into_iter()
        .for_each(|remark| growths.head.note(remark));
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

/// Up to its peak, of a process that freed most of it before it ended: what grew until then may have
/// gone when a function returned.
fn at_its_peak(process: &Process, remarks: &mut Vec<String>) -> Option<Window> {
    let back = given_back(process)?;
    let (peak, held) = (bytes(back.peak_bytes), bytes(back.held_bytes));
    let pid = process.identity.pid;
    let at = duration(back.peak_time);
    match Past::of(process, Found::Time(back.peak_time)) {
        Ok(past) => {
            remarks.push(format!(
                "pid {pid}: this is about its peak (at {at}), when {peak} were live; {held} of that \
                 were left at its end (--to end looks there)"
            ));
            Some(Window {
                from: None,
                to: Some(past),
            })
        }
        Err(Forgotten { began }) => {
            remarks.push(format!(
                "pid {pid}: {peak} were live at its peak (at {at}), {held} at its end; the event log \
                 begins at {}, so this is about the end",
                duration(began)
            ));
            None
        }
    }
}
