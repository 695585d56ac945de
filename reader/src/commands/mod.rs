//! One command of the binary per file: `Args` says what it takes, `execute` does it and returns
//! the exit code.

pub mod archive;
pub mod check;
pub mod churn;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod export;
pub mod flamegraph;
pub mod fragmentation;
pub mod growth;
pub mod leaks;
pub mod live_names;
pub mod oom;
pub mod peak;
pub mod question;
pub mod reconcile;
pub mod report;
pub mod run;
pub(crate) mod selecting;
pub mod serve;
pub mod snapshot;
pub mod summary;
pub mod timeline;
pub mod top;
pub mod watch;

use crate::analysis::Filter;
use crate::analysis::moment::{Found, Moment};
use crate::archive as archive_reader;
use crate::cli::exit;
use crate::model::Process;
use crate::trace::{Trace, find};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The processes that a command is about.
pub(crate) struct Opened {
    /// Those that could be read.
    pub processes: Vec<Process>,
    /// Files that could not be read at all.
    pub unreadable: usize,
}

impl Opened {
    /// The exit code of a report about them, of which some may be damaged.
    pub fn verdict(&self, damaged: bool) -> i32 {
        if self.unreadable > 0 || damaged {
            exit::UNREADABLE
        } else {
            exit::FINE
        }
    }
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
        if archive_reader::is_archive(path) {
            open_archive(path, &mut opened);
            continue;
        }
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

/// Opens all traces in an archive.
fn open_archive(path: &Path, opened: &mut Opened) {
    match archive_reader::open(path) {
        Ok(inside) => {
            inside.warnings.iter().for_each(|warning| complain(warning));
            for process in inside.processes {
                match process {
                    Ok(process) => opened.processes.push(process),
                    Err(error) => {
                        complain(&error.to_string());
                        opened.unreadable += 1;
                    }
                }
            }
        }
        Err(error) => {
            complain(&error.to_string());
            opened.unreadable += 1;
        }
    }
}

/// Refuses devices that no trace knows: a report about nothing looks like good news.
pub(crate) fn refuse_unknown_devices(opened: &Opened, filter: &Filter) -> Result<(), i32> {
    let described = |process: &Process| process.devices.keys().copied().collect::<Vec<_>>();
    let known: BTreeSet<u8> = opened.processes.iter().flat_map(described).collect();
    let unknown = filter.devices.iter().find(|device| !known.contains(device));
    match unknown {
        Some(unknown) if !known.is_empty() => {
            let known: Vec<String> = known.iter().map(u8::to_string).collect();
            complain(&format!(
                "no device {unknown} in what was traced; there is {}",
                known.join(", ")
            ));
            Err(exit::USAGE)
        }
        _ => Ok(()),
    }
}

/// Finds out something about each process; what has no answer is wrong usage, and is said.
pub(crate) fn in_each<T>(
    processes: &[Process],
    find: impl Fn(&Process) -> Result<T, String>,
) -> Result<Vec<T>, i32> {
    processes
        .iter()
        .map(|process| {
            find(process).map_err(|why| {
                complain(&format!("{}: {why}", process.trace.path.display()));
                exit::USAGE
            })
        })
        .collect()
}

/// Finds a moment in a process; a sentence if there is none.
pub(crate) fn find_moment(
    moment: &Moment,
    process: &Process,
    filter: &Filter,
) -> Result<Found, String> {
    let found = moment.find(process, filter);
    found.map_err(|why| format!("has no moment `{moment}`: {why}"))
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

/// Forgets what an answer was made of: the process ends, and giving back hundreds of thousands of names one by one takes a
/// tenth of the time of a whole export.
pub(crate) fn forget<T>(used: T) {
    std::mem::forget(used);
}

/// The exit code in both arms.
pub(crate) fn code(result: Result<i32, i32>) -> i32 {
    match result {
        Ok(code) | Err(code) => code,
    }
}
