//! What `export` and `flamegraph` have in common: which part of which memory, and to which file.

use super::question::part;
use super::{Opened, complain, find_moment, in_each, open, refuse_unknown_devices};
use crate::analysis::leaks::{By, Point};
use crate::analysis::moment::Moment;
use crate::cli::{FilterOptions, Traces, by, exit};
use crate::export::output::{self, Output};
use crate::export::{Measure, Part, Selection, Unanswered};
use crate::model::{Process, Unhidden};
use std::io;
use std::path::{Path, PathBuf};

/// Arguments that both have.
#[derive(clap::Args, Clone, Debug)]
pub struct Selecting {
    #[command(flatten)]
    pub traces: Traces,
    /// Write this file; - is standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Overwrite it if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Tell memory apart by this, too: python and library show only such frames, all others stand
    /// above the stacks
    #[arg(long, value_name = "WHAT", value_parser = by(), default_value = "stack")]
    pub by: By,
    #[command(flatten)]
    pub filter: FilterOptions,
    /// Begin at this moment; sums have only what was allocated after it
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    pub from: Option<Moment>,
    /// Until this moment, instead of the end (of Python: before its teardown)
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    pub to: Option<Moment>,
    /// Show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long)]
    pub all_frames: bool,
    /// Show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long)]
    pub native: bool,
}

impl Selecting {
    /// Opens the traces and finds the moments in them.
    pub fn open(&self) -> Result<(Opened, Selection), i32> {
        let opened = open(&self.traces.traces, self.output == Path::new("-"))?;
        let filter = self.filter.filter();
        refuse_unknown_devices(&opened, &filter)?;
        let parts = in_each(&opened.processes, |process| {
            let find = |moment: &Option<Moment>| {
                let moment = moment.as_ref();
                moment.map(|m| find_moment(m, process, &filter)).transpose()
            };
            Ok(Part {
                from: find(&self.from)?,
                to: find(&self.to)?,
                window: part(self.from.as_ref(), self.to.as_ref(), process, &filter)?,
            })
        })?;
        let selection = Selection {
            filter,
            by: self.by,
            unhidden: Unhidden {
                cuda: self.all_frames,
                native: self.native,
            },
            point: match self.to {
                Some(Moment::End) => Some(Point::End),
                Some(Moment::Teardown) => Some(Point::Teardown),
                _ => None,
            },
            parts,
        };
        Ok((opened, selection))
    }

    /// Refuses to overwrite, or to show bytes on a terminal.
    pub fn refuse_output(&self, is_text: bool) -> Result<(), i32> {
        output::refuse(&self.output, self.force, is_text).map_err(usage)
    }

    /// Writes the output, which is there whole or not at all.
    pub fn write(&self, write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<(), i32> {
        self.write_to(&self.output, write)
    }

    /// Writes another file.
    pub fn write_to(
        &self,
        path: &Path,
        write: impl FnOnce(&mut Output) -> io::Result<()>,
    ) -> Result<(), i32> {
        let written = Output::create(path).and_then(|mut out| {
            write(&mut out)?;
            out.finish()
        });
        written.map_err(|error| {
            // A reader of standard output that went away wants no more of it.
            if error.kind() == io::ErrorKind::BrokenPipe {
                return exit::FINE;
            }
            complain(&format!("{}: {error}", path.display()));
            exit::USAGE
        })
    }
}

/// Says what cannot be answered.
pub fn unanswered(processes: &[Process], why: &Unanswered) -> i32 {
    let path = processes[why.process].trace.path.display();
    usage(format!("{path}: {}", why.why))
}

/// Says what was asked for wrongly.
pub fn usage(why: String) -> i32 {
    complain(&why);
    exit::USAGE
}

/// Reads a measure's name.
pub fn measure(text: &str) -> Result<Measure, String> {
    Measure::from_name(text).ok_or_else(|| {
        let names: Vec<_> = Measure::ALL.iter().map(|measure| measure.name()).collect();
        format!("accepted are {}", names.join(", "))
    })
}

/// What is said on standard error when it is written: symbols that are missing, losses, and how to
/// open it.
pub fn conclude(opened: &Opened, warnings: &[String], output: &Path, next: &str) -> i32 {
    let mut inexact = false;
    for process in &opened.processes {
        for reason in &process.losses.live_inexact {
            inexact |= reason.code == "damaged";
            let pid = process.identity.pid;
            complain(&format!(
                "pid {pid} is not exact: {}: {}",
                reason.code, reason.text
            ));
        }
    }
    for warning in warnings {
        complain(warning);
    }
    if output != Path::new("-") {
        let name = crate::report::words::shell(output);
        let line = next.replace("OUT", &name);
        let _ = super::print(&format!("Next: {line}\n"));
    }
    opened.verdict(inexact)
}
