//! `vramtrace timeline`: live bytes over time, per device and layer.

use super::{code, complain, find_moment, in_each, open, print, refuse_unknown_devices};
use crate::analysis::Filter;
use crate::analysis::moment::Moment;
use crate::analysis::timeline::{Part, timeline};
use crate::cli::{FilterOptions, MOMENTS, Traces, exit};
use crate::model::Process;
use crate::report::chart;
use crate::report::style::Style;
use crate::report::timeline::{csv, json, marks_csv, text};

/// Spans of JSON and CSV, unless `--points` says otherwise.
const POINTS: usize = 1000;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = MOMENTS)]
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
    if !args.filter.kind.is_empty() {
        complain("timelines are kept per device and layer, not per kind; use --layer");
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
    let timeline = timeline(&opened.processes, &parts, &filter, points).map_err(|error| {
        complain(&error.to_string());
        exit::UNREADABLE
    })?;
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
