//! `vramtrace timeline`: live bytes over time, per device and layer, or of stacks.

use super::{code, complain, find_moment, in_each, open, print, refuse_unknown_devices};
use crate::analysis::Filter;
use crate::analysis::leaks::By;
use crate::analysis::moment::Moment;
use crate::analysis::timeline::{Part, Stacks, timeline, timeline_by_stack};
use crate::cli::{FilterOptions, MOMENTS, Traces, by, exit};
use crate::model::{Process, Unhidden};
use crate::report::chart;
use crate::report::frames::Frames;
use crate::report::style::Style;
use crate::report::timeline::{
    Shown, csv, csv_by_stack, json, json_by_stack, marks_csv, text, text_by_stack,
};

/// Spans of JSON and CSV, unless `--points` says otherwise.
const POINTS: usize = 1000;
/// Stacks, unless `--top` says otherwise.
const TOP: usize = 10;

/// What is known of the past; for the end of the command's help.
const HOW: &str = "\
As far as the event log reaches back, each change is known. Before that there is history in fixed space:
of each device and layer to the second at first and ever coarser (a week ago: to about an hour); of the
stacks that hold or gain most, from 8 seconds to some hours, since they are among those. Spikes are kept,
only their times are rounded. How far back which of it goes is said with each series.";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{HOW}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Print one JSON document (schema vramtrace.timeline/1)
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a table: one line per series and span of time
    #[arg(long)]
    csv: bool,
    /// With --csv: a table of the marks instead, one line each
    #[arg(long, requires = "csv")]
    marks: bool,
    /// Spans of time per series [default: 1000, in a terminal as many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    points: Option<u32>,
    /// A series for each of the stacks that held most, instead of each device and layer
    #[arg(long, value_name = "stack", value_parser = by(), hide_possible_values = true)]
    by: Option<By>,
    /// With --by: show this many stacks, 0 for all [default: 10]
    #[arg(long, value_name = "N", requires = "by")]
    top: Option<usize>,
    /// With --by: show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long, requires = "by")]
    all_frames: bool,
    /// With --by: show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long, requires = "by")]
    native: bool,
    #[command(flatten)]
    filter: FilterOptions,
    /// Begin at this moment
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    from: Option<Moment>,
    /// End at this moment
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    to: Option<Moment>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let document = args.json || args.csv;
    if let Some(by) = args.by.filter(|&by| by != By::Stack) {
        complain(&format!(
            "--by {}: timelines are kept by device and layer, and by stack; use --by stack",
            by.word()
        ));
        return Err(exit::USAGE);
    }
    if !args.filter.kind.is_empty() && args.by.is_none() {
        complain(
            "timelines are kept per device and layer, not per kind; use --layer, or --by stack",
        );
        return Err(exit::USAGE);
    }
    let opened = open(&args.traces.traces, document)?;
    let filter = args.filter.filter();
    refuse_unknown_devices(&opened, &filter)?;
    let columns = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
    let points = match args.points {
        Some(points) => points as usize,
        None if document => POINTS,
        None => chart::values_in(columns),
    };
    let parts = in_each(&opened.processes, |process| part(args, process, &filter))?;
    let failed = |error: std::io::Error| {
        complain(&error.to_string());
        exit::UNREADABLE
    };
    if args.by.is_some() && !args.marks {
        let mut frames = Frames::default();
        let stacks = Stacks {
            top: match args.top {
                Some(0) => None,
                top => Some(top.unwrap_or(TOP)),
            },
            unhidden: Unhidden {
                cuda: args.all_frames,
                native: args.native,
            },
            loops: &mut frames,
        };
        let timeline = timeline_by_stack(&opened.processes, &parts, &filter, points, stacks)
            .map_err(failed)?;
        let shown = Shown::new(&timeline, &opened.processes, &mut frames);
        print(&if args.json {
            json_by_stack(&shown)
        } else if args.csv {
            csv_by_stack(&shown)
        } else {
            text_by_stack(&shown, Style::of_stdout())
        })?;
        return Ok(opened.verdict(false));
    }
    let timeline = timeline(&opened.processes, &parts, &filter, points).map_err(failed)?;
    print(&if args.json {
        json(&timeline)
    } else if args.marks {
        marks_csv(&timeline)
    } else if args.csv {
        csv(&timeline)
    } else {
        text(&timeline, Style::of_stdout())
    })?;
    Ok(opened.verdict(false))
}

fn part(args: &Args, process: &Process, filter: &Filter) -> Result<Part, String> {
    let all = Part::all(process);
    let time = |moment: &Option<Moment>, default: u64| match moment {
        None => Ok(default),
        Some(moment) => find_moment(moment, process, filter)?
            .time(process)
            .ok_or_else(|| format!("its event log does not reach back to `{moment}`")),
    };
    let from = time(&args.from, all.from)?;
    let to = time(&args.to, all.to)?.min(all.to);
    if from > to {
        return Err("nothing lies between these moments".to_owned());
    }
    Ok(Part { from, to })
}
