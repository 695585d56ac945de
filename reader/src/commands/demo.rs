//! `vramtrace demo`: runs a leaking program and reports it.
//!
//! The program is this same binary under a hidden command ([`program`]), so the demo needs neither
//! a compiler nor CUDA. It runs on the real driver if that has a device, else on a simulated one.

mod driver;
pub mod program;

use super::complain as say;
use crate::cli::exit;
use crate::launch::Failure;
use crate::launch::collect::Outcome;
use crate::launch::pattern::Pattern;
use crate::launch::rundir::RunDir;
use crate::launch::session::{self, Request};
use crate::launch::transfer::Existing;
use crate::report::words;
use clap::Parser;
use driver::Driver;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the hidden command.
const PROGRAM: &str = "demo-program";

/// Run a leaking program, on a real GPU if there is one, and report it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Put the trace into this directory [default: one in the temporary directory]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the command; returns the process's exit code.
pub fn execute(args: Args) -> i32 {
    match demonstrate(&args) {
        Ok(code) => code,
        Err(failure) => {
            say(&failure.message);
            failure.code
        }
    }
}

fn demonstrate(args: &Args) -> Result<i32, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::usage(format!("the path of this program: {error}")))?;
    let scratch = RunDir::temporary("vramtrace-demo")?;
    let driver = Driver::choose(&own, scratch.path());
    let done = driver.and_then(|driver| on(&driver, args, &own, scratch.path()));
    driver::discard(scratch.path());
    scratch.remove_if_empty();
    done
}

fn on(driver: &Driver, args: &Args, own: &Path, scratch: &Path) -> Result<i32, Failure> {
    say(&driver.said);
    let directory = std::path::absolute(args.keep.as_deref().unwrap_or(scratch))
        .map_err(|error| Failure::usage(format!("--keep: {error}")))?;
    let traces = run(own, driver, &directory)?;
    let code = report(&traces)?;
    let names: Vec<String> = traces.iter().map(|path| words::shell(path)).collect();
    say(&format!("the trace is {}", names.join(" ")));
    say("the same with a program of yours: vramtrace run PROGRAM");
    Ok(code)
}

/// Traces the leaking program; returns its traces.
fn run(own: &Path, driver: &Driver, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::usage(format!("{}: {error}", directory.display())))?;
    // The user's own settings are for the user's own programs.
    let settings = [
        ("VRAMTRACE_STACKS", "both"),
        ("VRAMTRACE_SIZE", "4MiB"),
        ("VRAMTRACE_OFF", "0"),
    ];
    let environment = settings.map(|(name, value)| (name.to_owned(), OsString::from(value)));
    let finished = session::run(Request {
        program: own.into(),
        arguments: vec![PROGRAM.into()],
        environment: environment
            .into_iter()
            .chain(driver.environment())
            .collect(),
        output: Pattern::new("demo.%p.vrt", directory)?,
        existing: Existing::Keep,
        nvml: false,
        patience: Duration::from_secs(2),
        notice: &say,
    })?;
    if finished.ended.code() != 0 {
        return Err(Failure {
            code: finished.ended.code(),
            message: "the demo's program failed; `vramtrace doctor` may say why".into(),
        });
    }
    let traces: Vec<PathBuf> = finished
        .outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            Outcome::Moved { path, .. } => Some(path),
            _ => None,
        })
        .collect();
    if traces.is_empty() {
        return Err(Failure {
            code: exit::INEXACT,
            message: "the demo's program left no trace; `vramtrace doctor` may say why".into(),
        });
    }
    Ok(traces)
}

/// What `vramtrace leaks TRACE...` does.
fn report(traces: &[PathBuf]) -> Result<i32, Failure> {
    /// The command's arguments, to be read as from a command line.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        leaks: super::leaks::Args,
    }
    let mut words = vec![OsString::from("leaks"), OsString::from("--")];
    words.extend(traces.iter().map(|path| path.into()));
    let line = Line::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(super::leaks::execute(line.leaks))
}
