//! `vramtrace reconcile`: where the whole number goes that nvidia-smi shows.

use super::{code, find_moment, in_each, open, print, refuse_unknown_devices};
use crate::analysis::moment::Moment;
use crate::analysis::reconcile::{Answer, Question, Shown, reconcile};
use crate::cli::{MOMENTS, Traces};
use crate::model::{Process, State};
use crate::nvml;
use crate::report::reconcile::{json, text};
use crate::report::style::Style;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("\
`vramtrace run` records what nvidia-smi shows beside the trace; of a process that runs it is asked
now. Without it the tree says what is known, and nothing is left unexplained.

{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.reconcile/1)
    #[arg(long)]
    json: bool,
    /// Only this device (its number in the process); may be repeated
    #[arg(long, value_name = "N")]
    device: Vec<u8>,
    /// The moment [default: now, or when nvidia-smi's number was last recorded]
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    to: Option<Moment>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let opened = open(&args.traces.traces, args.json)?;
    let filter = crate::analysis::Filter {
        devices: args.device.clone(),
        ..Default::default()
    };
    refuse_unknown_devices(&opened, &filter)?;
    let moments = in_each(&opened.processes, |process| {
        let to = args.to.as_ref();
        to.map(|to| find_moment(to, process, &filter)).transpose()
    })?;
    let mut answer = Answer::default();
    for (process, moment) in opened.processes.iter().zip(moments) {
        let question = match moment {
            None if process.state == State::Running => now(process, args.device.clone()),
            moment => Question::recorded(process, moment, args.device.clone()),
        };
        reconcile(&mut answer, process, &question);
    }
    print(&if args.json {
        json(&answer)
    } else {
        text(&answer, Style::of_stdout())
    })?;
    Ok(opened.verdict(false))
}

/// The answer for each process as it is now, or was when nvidia-smi's number was last recorded.
pub(crate) fn reconciled(processes: &[Process]) -> Answer {
    let mut answer = Answer::default();
    for process in processes {
        let question = match process.state {
            State::Running => now(process, Vec::new()),
            _ => Question::recorded(process, None, Vec::new()),
        };
        reconcile(&mut answer, process, &question);
    }
    answer
}

/// Of a process that runs: as it is now. What can't be asked is in its trace, if `run` put it there.
fn now(process: &Process, devices: Vec<u8>) -> Question {
    match nvml::sample_now(process) {
        Ok(samples) if !samples.is_empty() => Question {
            moment: None,
            shown: samples
                .iter()
                .map(|(device, sample)| {
                    let shown = Shown::from(sample).with_left(process, *device);
                    (*device, shown)
                })
                .collect(),
            devices,
        },
        _ => Question::recorded(process, None, devices),
    }
}
