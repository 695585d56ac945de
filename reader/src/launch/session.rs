//! One run from start to end: directory, preload, program, traces.

use super::collect::{self, Collector, Outcome};
use super::inspect::{self, Executable};
use super::library;
use super::liveness::{self, Running};
use super::nvtx::{self, Receiver};
use super::pattern::Pattern;
use super::rundir::RunDir;
use super::sampler::Sampler;
use super::supervise::{Ended, Supervised};
use super::transfer::Existing;
use super::{Failure, orphans, rundir};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Helpers of a program often end a moment after it; they are not worth a word.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// What to run, and how.
pub struct Request<'a> {
    /// The program, as a shell would find it.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables for the recorder and the program, on top of ours.
    pub environment: Vec<(String, OsString)>,
    /// Where traces belong.
    pub output: Pattern,
    /// What to do about files that are there already.
    pub existing: Existing,
    /// Whether to ask NVML what nvidia-smi shows of the program.
    pub nvml: bool,
    /// How long to wait for children that outlive the program.
    pub patience: Duration,
    /// Takes what the user should know before the program starts.
    pub notice: &'a dyn Fn(&str),
}

/// How it went.
#[derive(Debug)]
pub struct Finished {
    /// How the program ended.
    pub ended: Ended,
    /// What became of each trace.
    pub outcomes: Vec<Outcome>,
    /// Children of the program that still run. They may yet begin a trace in the run directory.
    pub children: Vec<Running>,
    /// The run directory, if something is left in it or may come.
    pub left: Option<PathBuf>,
    /// Why the directory could not be looked through, if it could not.
    pub trouble: Option<std::io::Error>,
    /// What else the user should know; sentences.
    pub remarks: Vec<String>,
}

/// Runs a program to its end and brings its traces to their places. An error means that the
/// program was not started.
pub fn run(request: Request<'_>) -> Result<Finished, Failure> {
    let library = library::find()?;
    let output_directory = prepare_output(&request.output, request.existing)?;
    orphans::collect(&output_directory, request.notice);
    let run_dir = RunDir::create(&output_directory)?;
    let started = start(&request, &library, &run_dir);
    let mut child = match started {
        Ok(child) => child,
        Err(failure) => {
            discard(&run_dir);
            return Err(failure);
        }
    };
    // Now that signals are blocked: what is for the program must not interrupt this thread.
    let sampler = (request.nvml)
        .then(|| Sampler::start(run_dir.path()))
        .flatten();
    let ended = child.wait();
    child.settle(request.patience, || !collect::any_runs(run_dir.path()));
    child.settle(LAST_MOMENT, || liveness::children().is_empty());
    if is_first_process() {
        end_everybody(&mut child, request.patience);
    }
    let samples = sampler.map(Sampler::finish).unwrap_or_default();
    let unasked = samples.trouble.filter(|_| samples.traces.is_empty());
    let collector = Collector::new(request.existing, output_directory);
    let mut collector = collector.keeping(samples.traces);
    let (outcomes, trouble) = match collector.collect(run_dir.path()) {
        Ok(outcomes) => (outcomes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut remarks = collector.remarks();
    if let (Some(why), false) = (unasked, outcomes.is_empty()) {
        remarks.push(format!("what nvidia-smi shows is not known: {why}"));
    }
    let children = liveness::children();
    let moved = |outcome: &Outcome| matches!(outcome, Outcome::Moved { .. });
    let done = trouble.is_none() && children.is_empty() && outcomes.iter().all(moved);
    let left = if done {
        (!discard(&run_dir)).then(|| run_dir.path().to_path_buf())
    } else {
        Some(run_dir.path().to_path_buf())
    };
    Ok(Finished {
        ended,
        outcomes,
        children,
        left,
        trouble,
        remarks,
    })
}

fn start(request: &Request<'_>, library: &Path, run_dir: &RunDir) -> Result<Supervised, Failure> {
    let mut environment = request.environment.clone();
    environment.push((
        "VRAMTRACE_RUN_DIR".into(),
        run_dir.path().as_os_str().to_owned(),
    ));
    environment.push(("VRAMTRACE_OUTPUT".into(), request.output.text().into()));
    let executable =
        inspect::find_program(&request.program).and_then(|path| Executable::of(&path).ok());
    if let Some(obstacle) = executable.as_ref().and_then(Executable::obstacle) {
        (request.notice)(&obstacle);
    }
    // There the preload would not be ignored but end the program: its linker cannot resolve glibc.
    if !executable.is_some_and(|executable| executable.kind.is_musl()) {
        let carried = library::carriable(library, run_dir.path())?;
        let existing = request
            .environment
            .iter()
            .find(|(name, _)| name == "LD_PRELOAD")
            .map(|(_, value)| value.clone())
            .or_else(|| std::env::var_os("LD_PRELOAD"));
        // Where tracing is off the program gets nothing that it would not have otherwise.
        let off = std::env::var_os("VRAMTRACE_OFF").is_some_and(|value| value == "1");
        if !off && nvtx::receiver(&carried) == Receiver::Recorder {
            environment.push((nvtx::VARIABLE.into(), carried.as_os_str().to_owned()));
        }
        let value = library::preload(&carried, existing.as_deref());
        environment.push(("LD_PRELOAD".into(), value));
    }
    Supervised::start(&request.program, &request.arguments, &environment)
}

/// Finds out before the program runs whether its traces could get to their places. Returns the
/// directory that they go to, as far as it is known.
fn prepare_output(output: &Pattern, existing: Existing) -> Result<PathBuf, Failure> {
    let in_the_way = output
        .fixed()
        .filter(|path| existing == Existing::Keep && path.symlink_metadata().is_ok());
    if let Some(path) = in_the_way {
        return Err(Failure::usage(format!(
            "{} exists already; use -f to overwrite it, or another name with -o",
            path.display()
        )));
    }
    let directory = output.fixed_directory();
    fs::create_dir_all(&directory).map_err(|error| {
        Failure::usage(format!(
            "cannot make the output directory {}: {error}",
            directory.display()
        ))
    })?;
    rundir::writable(&directory).map_err(|error| {
        Failure::usage(format!(
            "cannot write to the output directory {}: {error}; choose another with -o",
            directory.display()
        ))
    })?;
    Ok(directory)
}

/// Removes a directory that nobody needs any more, with the link in it that is ours.
pub(super) fn discard(run_dir: &RunDir) -> bool {
    let link = run_dir.path().join(library::NAME);
    if link.is_symlink() {
        let _ = fs::remove_file(link);
    }
    run_dir.remove_if_empty()
}

fn is_first_process() -> bool {
    std::process::id() == 1
}

/// When process 1 ends, the kernel kills its whole namespace. Ended here, their traces are still
/// brought to their places.
fn end_everybody(child: &mut Supervised, patience: Duration) {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // SAFETY: kill takes plain integers; -1 is everybody in our namespace but ourselves.
        let somebody = unsafe { libc::kill(-1, signal) } == 0;
        if !somebody {
            return;
        }
        child.settle(patience, nobody_left);
    }
}

fn nobody_left() -> bool {
    // SAFETY: signal 0 only asks whether there is anybody.
    unsafe { libc::kill(-1, 0) != 0 }
}
