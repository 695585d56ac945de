//! `vramtrace export`: traces in the formats of other tools.

use super::flamegraph::refuse_unknown;
use super::selecting::{Selecting, conclude, measure, unanswered, usage};
use super::{code, complain};
use crate::analysis::leaks::By;
use crate::cli::MOMENTS;
use crate::export::parquet;
use crate::export::perfetto;
use crate::export::tables::{Source, Table};
use crate::export::torch_snapshot::Snapshot;
use crate::export::{Format, Measure, folded, gather, pprof, speedscope, sums_know};
use crate::export::{bar, csv, json};
use crate::report::words;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  vramtrace export -o leaks.pb.gz && go tool pprof -http=: leaks.pb.gz
  vramtrace export app.vrt -o app.speedscope.json
  vramtrace export app.vrt -o app.csv                one line an allocation
  vramtrace export app.vrt -o - --format json | jq 'select(.op == \"mark\")'
  vramtrace export app.vrt -o app.parquet            a directory with a file for each table
  vramtrace export app.vrt -o app.pftrace            for ui.perfetto.dev
  vramtrace export app.vrt -o app.pickle             for pytorch.org/memory_viz
  vramtrace export app.vrt -o - --format folded --what peak | flamegraph.pl > peak.svg

docs/exports.md says what is in each format, in which units, and how to open it.";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{MOMENTS}"))]
pub struct Args {
    #[command(flatten)]
    selecting: Selecting,
    /// The format [default: what the output's name ends with says]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// Of folded: live (allocated and not freed), peak (held at the peak of each layer), total
    /// (ever allocated), growth (more than at --from MOMENT) [default: live]
    #[arg(long, value_name = "WHAT", value_parser = measure)]
    what: Option<Measure>,
    /// Of folded: numbers of allocations, not their bytes
    #[arg(long)]
    count: bool,
    /// Of parquet, csv and json: this table: processes, devices, stacks, allocations, events; may be
    /// repeated for json [default: parquet: a directory with all; csv: allocations; json: all]
    #[arg(long, value_name = "TABLE", value_parser = table)]
    table: Vec<Table>,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let format = args.format.map_or_else(|| of_output(args), Ok)?;
    refuse_options(args, format)?;
    args.selecting.refuse_output(format.is_text())?;
    match format {
        Format::Pprof | Format::Speedscope | Format::Folded => profile(args, format),
        Format::Csv | Format::Json | Format::Parquet => tables(args, format),
        Format::TorchSnapshot => torch_snapshot(args),
        Format::Perfetto => perfetto(args),
    }
}

/// The formats that are sums by stack.
fn profile(args: &Args, format: Format) -> Result<i32, i32> {
    let selecting = &args.selecting;
    let what = args.what.unwrap_or(Measure::Live);
    if format == Format::Folded {
        refuse_unknown(what, selecting.by)?;
    }
    let (opened, selection) = selecting.open()?;
    let processes = &opened.processes;
    let windowed = selecting.from.is_some() || selecting.to.is_some();
    let wished: &[Measure] = match format {
        Format::Speedscope if windowed || !sums_know(selecting.by) => &[Measure::Total],
        Format::Speedscope => &[Measure::Peak, Measure::Total],
        Format::Pprof => &[Measure::Total],
        _ => &[],
    };
    let gathered =
        gather(processes, &selection, what, wished).map_err(|why| unanswered(processes, &why))?;
    for (measure, why) in &gathered.missing {
        let path = processes[why.process].trace.path.display();
        complain(&format!(
            "{path}: {} is left out: {}",
            measure.name(),
            why.why
        ));
    }
    let samples = &gathered.measures[0].1;
    let stacks = &gathered.stacks;
    selecting.write(|out| match format {
        Format::Pprof => pprof::write(
            &pprof::Profile {
                processes,
                live: samples,
                total: gathered.of(Measure::Total),
                stacks,
                by: selecting.by,
            },
            out,
        ),
        Format::Speedscope => speedscope::write(processes, &gathered.measures, stacks, out),
        _ => folded::write(samples, stacks, args.count, out),
    })?;
    let next = match format {
        Format::Pprof => "go tool pprof -http=: OUT",
        Format::Speedscope => "open OUT at https://www.speedscope.app (it stays in the browser)",
        _ => "open OUT with a flame graph tool (inferno, flamegraph.pl, speedscope)",
    };
    let code = conclude(&opened, stacks.warnings(), &selecting.output, next);
    super::forget((gathered, opened));
    Ok(code)
}

fn perfetto(args: &Args) -> Result<i32, i32> {
    let selecting = &args.selecting;
    let (opened, selection) = selecting.open()?;
    let mut progress = bar(&opened.processes, perfetto::Trace::PASSES);
    let trace = perfetto::Trace::read(&opened.processes, &selection, &mut progress);
    let mut left_out = 0;
    selecting.write(|out| {
        left_out = trace.write(&mut progress, out)?;
        Ok(())
    })?;
    drop(progress);
    if left_out > 0 {
        let number = words::counted(left_out, "NVTX range");
        complain(&format!(
            "{number} left out, the shortest: --from and --to show a part with all of them"
        ));
    }
    let next = "open OUT at https://ui.perfetto.dev (it stays in the browser)";
    let warnings = trace.stacks().warnings();
    let code = conclude(&opened, warnings, &selecting.output, next);
    super::forget(trace);
    super::forget(opened);
    Ok(code)
}

fn torch_snapshot(args: &Args) -> Result<i32, i32> {
    let selecting = &args.selecting;
    let (opened, selection) = selecting.open()?;
    let [process] = &opened.processes[..] else {
        return Err(usage(
            "a torch-snapshot is of one process; export each trace to a file of its own".to_owned(),
        ));
    };
    if !selection.filter.layers.is_empty() {
        return Err(usage(
            "a torch-snapshot shows the framework layer inside the device layer; --kind leaves \
             kinds of memory out"
                .to_owned(),
        ));
    }
    let mut progress = bar(&opened.processes, Snapshot::passes(process));
    let snapshot = Snapshot::read(process, &selection, &mut progress);
    selecting.write(|out| snapshot.write(&selection, &mut progress, out))?;
    drop(progress);
    let next = "drop OUT onto https://pytorch.org/memory_viz (it stays in the browser)";
    let warnings = snapshot.stacks().warnings();
    let code = conclude(&opened, warnings, &selecting.output, next);
    super::forget(snapshot);
    super::forget(opened);
    Ok(code)
}

/// The formats that are tables.
fn tables(args: &Args, format: Format) -> Result<i32, i32> {
    let selecting = &args.selecting;
    let (opened, selection) = selecting.open()?;
    let tables = match (&args.table[..], format) {
        ([], Format::Csv) => &[Table::Allocations],
        ([_, _, ..], Format::Csv | Format::Parquet) => {
            return Err(usage(format!(
                "a {} file holds one table; --table names it",
                format.name()
            )));
        }
        ([], Format::Parquet) if selecting.output == Path::new("-") => {
            return Err(usage(
                "parquet is a directory of several files; with --table one goes to standard output"
                    .to_owned(),
            ));
        }
        ([], _) => &Table::ALL[..],
        (named, _) => named,
    };
    let mut progress = bar(&opened.processes, passes(tables));
    let mut source = Source::read(&opened.processes, &selection, &mut progress);
    if format == Format::Parquet {
        for &table in tables {
            let path = match args.table[..] {
                [] => selecting.output.join(format!("{}.parquet", table.name())),
                _ => selecting.output.clone(),
            };
            selecting.write_to(&path, |out| {
                parquet::write(&mut source, table, &mut progress, out)
            })?;
        }
        drop(progress);
        let next = match args.table[..] {
            [] => "duckdb -c \"FROM 'OUT/allocations.parquet' LIMIT 5\"",
            _ => "duckdb -c \"FROM 'OUT' LIMIT 5\"",
        };
        let code = conclude(&opened, source.stacks.warnings(), &selecting.output, next);
        super::forget(source);
        super::forget(opened);
        return Ok(code);
    }
    selecting.write(|out| match format {
        Format::Csv => csv::write(&mut source, tables[0], &mut progress, out),
        _ => json::write(&mut source, tables, &mut progress, out),
    })?;
    drop(progress);
    let next = "docs/exports.md says what is in the columns of OUT";
    let code = conclude(&opened, source.stacks.warnings(), &selecting.output, next);
    super::forget(source);
    super::forget(opened);
    Ok(code)
}

/// How often these tables read all events.
fn passes(tables: &[Table]) -> u64 {
    let long = |table: &&Table| matches!(table, Table::Allocations | Table::Events);
    tables.iter().filter(long).count() as u64
}

/// Reads a table's name.
fn table(text: &str) -> Result<Table, String> {
    Table::from_name(text).ok_or_else(|| {
        let names: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
        format!("accepted are {}", names.join(", "))
    })
}

/// Reads a format's name.
fn format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| {
        let hint = match text {
            "svg" | "flamegraph" => "; flame graphs are made by `vramtrace flamegraph`",
            _ => "",
        };
        format!("accepted are {}{hint}", names())
    })
}

fn names() -> String {
    let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
    names.join(", ")
}

/// The format that the output's name says.
fn of_output(args: &Args) -> Result<Format, i32> {
    let output = &args.selecting.output;
    Format::of_path(output).ok_or_else(|| {
        if output
            .extension()
            .is_some_and(|extension| extension == "svg")
        {
            return usage("flame graphs are made by `vramtrace flamegraph`".to_owned());
        }
        usage(format!(
            "{} does not say the format by how it ends; say it with --format: {}",
            output.display(),
            names()
        ))
    })
}

/// Refuses options that would do nothing.
fn refuse_options(args: &Args, format: Format) -> Result<(), i32> {
    let only = |option: &str, formats: &[Format]| {
        if formats.contains(&format) {
            return Ok(());
        }
        let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
        Err(usage(format!(
            "{option} is for {}, not for {}",
            names.join(", "),
            format.name()
        )))
    };
    if args.what.is_some() {
        only("--what", &[Format::Folded])?;
    }
    if args.count {
        only("--count", &[Format::Folded])?;
    }
    if !args.table.is_empty() {
        only("--table", &[Format::Parquet, Format::Csv, Format::Json])?;
    }
    let by = args.selecting.by;
    if !matches!(by, By::Stack | By::Python | By::Line | By::Library) {
        only(
            &format!("--by {}", by.word()),
            &[Format::Pprof, Format::Speedscope, Format::Folded],
        )?;
    }
    Ok(())
}
