//! `vramtrace flamegraph`: memory by call stack as a picture.

use super::code;
use super::selecting::{Selecting, conclude, measure, unanswered, usage};
use crate::analysis::leaks::By;
use crate::cli::MOMENTS;
use crate::export::flamegraph::{self, Picture};
use crate::export::{Measure, gather, process_name, sums_know};
use crate::model::Process;

const EXAMPLES: &str = "\
Examples:
  vramtrace flamegraph -o leaks.svg                       what the newest trace leaked
  vramtrace flamegraph app.vrt --what peak -o peak.svg    what was held at the peaks
  vramtrace flamegraph app.vrt --what growth --from 10m -o growth.svg
  vramtrace flamegraph rank*.vrt --by rank -o ranks.svg   several processes side by side";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    selecting: Selecting,
    /// What boxes are as wide as: live (allocated and not freed), peak (held at the peak of each
    /// layer), total (ever allocated), growth (more than at --from MOMENT)
    #[arg(long, value_name = "WHAT", value_parser = measure, default_value = "live")]
    what: Measure,
    /// Boxes are as wide as the number of allocations, not their bytes
    #[arg(long)]
    count: bool,
    /// Text above the picture
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let selecting = &args.selecting;
    refuse_unknown(args.what, selecting.by)?;
    selecting.refuse_output(true)?;
    let (opened, selection) = selecting.open()?;
    let processes = &opened.processes;
    let gathered =
        gather(processes, &selection, args.what, &[]).map_err(|why| unanswered(processes, &why))?;
    let (samples, stacks) = (&gathered.measures[0].1, &gathered.stacks);
    let title = args.title.clone();
    let picture = Picture {
        title: &title.unwrap_or_else(|| self::title(processes, args.what)),
        measure: args.what,
        count: args.count,
    };
    selecting.write(|out| flamegraph::write(samples, stacks, &picture, out))?;
    let next = "open OUT in a web browser; click to zoom, / to search";
    let code = conclude(&opened, stacks.warnings(), &selecting.output, next);
    super::forget((gathered, opened));
    Ok(code)
}

/// Refuses what sums by stack do not know.
pub fn refuse_unknown(what: Measure, by: By) -> Result<(), i32> {
    if what == Measure::Peak && !sums_know(by) {
        let word = by.word();
        return Err(usage(format!(
            "--by {word}: peaks are kept by stack, kind and device, not by {word}; where the event \
             log reaches back to the peak, --what live --to peak --by {word} knows it"
        )));
    }
    Ok(())
}

fn title(processes: &[Process], what: Measure) -> String {
    let who = match processes {
        [process] => process_name(process),
        _ => format!("{} processes", processes.len()),
    };
    let what = match what {
        Measure::Live => "live memory",
        Measure::Peak => "memory at its peaks",
        Measure::Total => "all allocations",
        Measure::Growth => "growth of memory",
    };
    format!("{who}: {what}")
}
