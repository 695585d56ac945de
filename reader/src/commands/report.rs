//! `vramtrace report`: one HTML file that shows traces in a browser.

use super::reconcile::reconciled;
use super::selecting::{conclude, usage};
use super::{code, complain, open};
use crate::cli::{Traces, exit};
use crate::export::output::{self, Output};
use crate::export::progress::Progress;
use crate::page::{Answers, Budget, Page};
use crate::report::frames::Frames;
use std::io;
use std::path::{Path, PathBuf};

const ABOUT: &str = "\
The file needs nothing else: no network, no server; it opens from disk, in any current browser. It has
the timeline of each device with its allocations as areas, NVTX ranges, marks and failures; flame graphs
of what is live, was held at peaks, leaked, came and went; maps of allocators' segments to play through;
and the tables of leaks, summary, growth, oom and reconcile. A selection of time drives all of them but
the last, which says of which moment it is; the address keeps what is shown, so that it can be passed on.

Its size depends on screens, not on the number of events; the page says what was thinned.

Examples:
  vramtrace report -o report.html                  the newest trace
  vramtrace report rank*.vrt -o ranks.html         several processes on one clock";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = ABOUT)]
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
    let to_stdout = args.output == Path::new("-");
    output::refuse(&args.output, args.force, false).map_err(usage)?;
    let opened = open(&args.traces.traces, to_stdout)?;
    let processes = &opened.processes;
    let budget = Budget::default();
    let mut frames = Frames::default();
    let answers = Answers::of(processes, &reconciled(processes), &budget, &mut frames);
    let events = processes.iter().flat_map(|process| &process.losses.rings);
    let events = events.map(|ring| ring.written.saturating_sub(ring.overwritten));
    let events = events.fold(0, u64::saturating_add);
    let mut progress = Progress::new("reading events", events);
    let page = Page::of(processes, answers, &budget, &mut frames, || progress.tick());
    drop(progress);
    let written = page.and_then(|page| {
        let mut out = Output::create(&args.output)?;
        page.write(&mut out)?;
        out.finish()?;
        Ok(page)
    });
    match written {
        Ok(page) => Ok(conclude(
            &opened,
            page.warnings(),
            &args.output,
            "open OUT in a web browser",
        )),
        // A reader of standard output that went away wants no more of it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::FINE),
        Err(error) => {
            complain(&format!("{}: {error}", args.output.display()));
            Err(exit::USAGE)
        }
    }
}
