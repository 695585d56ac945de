//! One command of the binary per file: `Args` says what it takes, `execute` does it and returns
//! the exit code.

pub mod check;
pub mod demo;
pub mod doctor;
pub mod leaks;
pub mod run;
pub mod summary;
pub mod timeline;

use crate::cli::exit;
use crate::model::Process;
use crate::trace::{Trace, find};
use std::io::{self, Write};
use std::path::PathBuf;

/// The processes that a command is about.
pub(crate) struct Opened {
    /// Those that could be read.
    pub processes: Vec<Process>,
    /// Files that could not be read at all.
    pub unreadable: usize,
}

/// Opens all traces that the arguments name. What can't be read is said on standard error.
/// `quiet_stdout` keeps standard output free for a document.
pub(crate) fn open(named: &[PathBuf], quiet_stdout: bool) -> Result<Opened, i32> {
    let found = find::resolve(named).map_err(|why| {
        complain(&why);
        exit::UNREADABLE
    })?;
    if let (true, [trace]) = (found.chosen, &found.traces[..]) {
        let name = crate::report::words::foreign(&trace.to_string_lossy());
        let line = format!("Trace: {name} (the newest)\n");
        if quiet_stdout {
            let _ = io::stderr().write_all(line.as_bytes());
        } else {
            print(&line)?;
        }
    }
    let mut opened = Opened {
        processes: Vec::new(),
        unreadable: 0,
    };
    for path in &found.traces {
        match Trace::open(path) {
            Ok(trace) => opened.processes.push(Process::read(trace)),
            Err(error) => {
                complain(&error.to_string());
                opened.unreadable += 1;
            }
        }
    }
    if opened.processes.is_empty() {
        return Err(exit::UNREADABLE);
    }
    Ok(opened)
}

/// Says on standard error what is wrong.
pub(crate) fn complain(what: &str) {
    let line = format!("vramtrace: {}\n", crate::report::words::foreign(what));
    // Nobody is left to hear it if this fails.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes a report. A reader that went away (`| head`) ends the command silently.
pub(crate) fn print(report: &str) -> Result<(), i32> {
    let mut out = io::stdout().lock();
    match out.write_all(report.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(exit::FINE),
        Err(error) => {
            complain(&format!("standard output: {error}"));
            Err(exit::UNREADABLE)
        }
    }
}

/// The exit code in both arms.
pub(crate) fn code(result: Result<i32, i32>) -> i32 {
    match result {
        Ok(code) | Err(code) => code,
    }
}
