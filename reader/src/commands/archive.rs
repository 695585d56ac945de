//! `vramtrace archive`: traces and the symbols that they need, in one file.

use super::{code, complain, open, print};
use crate::archive::{Source, write};
use crate::cli::{Traces, exit};
use crate::export::output::{self, Output};
use crate::report::words;
use std::io;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
Examples:
  vramtrace archive app.vrt -o app.tar       one trace
  vramtrace archive run/ -o run.tar          all traces in a directory
  vramtrace leaks run.tar                    on any machine, without the program and its libraries
  vramtrace archive run/ -o - | zstd > run.tar.zst

Every command takes an archive where it takes a trace. tar -tf OUT lists what is in one. Function
names, source lines and paths of the traced programs are in it.";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    traces: Traces,
    /// Write this file; - is standard output
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Overwrite it if it exists
    #[arg(short, long)]
    force: bool,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    output::refuse(&args.output, args.force, false).map_err(|why| {
        complain(&why);
        exit::USAGE
    })?;
    let to_stdout = args.output == Path::new("-");
    let mut opened = open(&args.traces.traces, to_stdout)?;
    let mut sources = Vec::new();
    for process in &opened.processes {
        match Source::of(process) {
            Ok(source) => sources.push(source),
            Err(why) => {
                let path = process.trace.path.display();
                complain(&format!("{path}: is left out: {why}"));
                opened.unreadable += 1;
            }
        }
    }
    if sources.is_empty() {
        return Err(exit::UNREADABLE);
    }
    let written = Output::create(&args.output).and_then(|mut out| {
        let warnings = write(&sources, &mut out)?;
        out.finish()?;
        Ok(warnings)
    });
    let warnings = written.map_err(|error| {
        // A reader of standard output that went away wants no more of it.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return exit::FINE;
        }
        complain(&format!("{}: {error}", args.output.display()));
        exit::USAGE
    })?;
    warnings.iter().for_each(|warning| complain(warning));
    if !to_stdout {
        print(&format!(
            "{} in {}\nNext: vramtrace leaks {}\n",
            words::counted(sources.len() as u64, "trace"),
            words::foreign(&args.output.to_string_lossy()),
            words::shell(&args.output)
        ))?;
    }
    Ok(opened.verdict(false))
}
