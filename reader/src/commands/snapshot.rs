//! `vramtrace snapshot`: a consistent copy of a running process's trace.

use super::{code, complain, print};
use crate::cli::exit;
use crate::launch::transfer::{Existing, rename};
use crate::report::words::{count, foreign, shell};
use crate::trace::{Trace, find};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const HOW: &str = "\
The process is not stopped and does not notice. The copy is a trace: every command reads it. It holds all
that is live and all sums as of one event, the history, and the newest events of the log. The default for
OUT is TRACE.snapshot-1 (-2 …) in the current directory, a name that commands do not take for a trace
unless it is given to them.

A recorder that runs with VRAMTRACE_ON_OOM=snapshot takes such copies itself when an allocation fails.

Examples:
  vramtrace snapshot 4711                       of the running process 4711
  vramtrace snapshot 4711 -o before.vrt         … and later: vramtrace diff before.vrt after.vrt";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HOW)]
pub struct Args {
    /// A process that is being traced, or its trace
    #[arg(value_name = "PID|TRACE")]
    of: String,
    /// Where the copy goes
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Overwrite OUT if it is there already
    #[arg(short, long)]
    force: bool,
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    code(run(&args))
}

fn run(args: &Args) -> Result<i32, i32> {
    let unreadable = |why: String| {
        complain(&why);
        exit::UNREADABLE
    };
    let path = match args.of.parse() {
        Ok(pid) if !Path::new(&args.of).exists() => find::of_process(pid).map_err(unreadable)?,
        _ => PathBuf::from(&args.of),
    };
    if let Some(output) = args.output.as_ref().filter(|_| !args.force)
        && output.symlink_metadata().is_ok()
    {
        let output = output.display();
        complain(&format!(
            "{output} exists already; use -f to overwrite it, or another name with -o"
        ));
        return Err(exit::USAGE);
    }
    let trace = Trace::open(&path).map_err(|error| unreadable(error.to_string()))?;
    if let Some(why) = trace.not_to_be_copied() {
        return Err(unreadable(format!("{}: {why}", path.display())));
    }
    let written = match &args.output {
        Some(output) => {
            let existing = if args.force {
                Existing::Replace
            } else {
                Existing::Keep
            };
            write(&trace, output, existing).map(|()| output.clone())
        }
        None => write_numbered(&trace, &path),
    };
    let output = written.map_err(|(output, error)| {
        complain(&format!("cannot write {}: {error}", output.display()));
        exit::UNREADABLE
    })?;
    print(&format!(
        "{} as of event {}: {}\nNext: vramtrace leaks {}\n",
        foreign(&path.to_string_lossy()),
        count(trace.copy.seq),
        foreign(&output.to_string_lossy()),
        shell(&output)
    ))?;
    Ok(exit::FINE)
}

/// What could not be written, and why.
type NotWritten = (PathBuf, io::Error);

fn write_numbered(trace: &Trace, of: &Path) -> Result<PathBuf, NotWritten> {
    const MOST: u32 = 10_000;
    let name = of.file_name().unwrap_or_default().to_owned();
    for number in 1..MOST {
        let mut output = name.clone();
        output.push(format!(".snapshot-{number}"));
        let output = PathBuf::from(output);
        if output.symlink_metadata().is_ok() {
            continue;
        }
        match write(trace, &output, Existing::Keep) {
            Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| output),
        }
    }
    Err((name.into(), io::Error::other("too many snapshots of it")))
}

/// The file is there whole or not at all.
fn write(trace: &Trace, output: &Path, existing: Existing) -> Result<(), NotWritten> {
    let failed = |error| (output.to_owned(), error);
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| trace.write_snapshot(&mut file))
        .and_then(|()| rename(&temporary, output, existing));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}
