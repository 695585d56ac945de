//! `vramtrace run`: traces a program and its children.

use super::complain as say;
use crate::analysis::leaks::{Answer, Options, Suppressions};
use crate::cli::exit;
use crate::launch::collect::Outcome;
use crate::launch::liveness::Running;
use crate::launch::pattern::{self, Pattern};
use crate::launch::session::{self, Finished, Request};
use crate::launch::transfer::Existing;
use crate::launch::{Failure, size, snapshots};
use crate::model::{Loops, Name, Process};
use crate::report::frames::Frames;
use crate::report::words;
use crate::trace::Trace;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vramtrace_format::cold::Module;

/// How long children that outlive the program are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const MORE_VARIABLES: &str = "\
Environment:
  Options above that name a variable can be given by it. Further ones:
  VRAMTRACE_OFF=1        trace nothing; the program runs as it is
  VRAMTRACE_KEEP         bytes of old traces that programs started without `run` leave in
                         $XDG_RUNTIME_DIR or /dev/shm [default: 1GiB]
  VRAMTRACE_LOG          what the recorder says on standard error: quiet, warn (default), info
  VRAMTRACE_LIB          path of libvramtrace.so, if it is not beside this program
  VRAMTRACE_DEBUG_PATH   directories with separate debug files, for the reports
  NVTX_INJECTION64_PATH  who receives NVTX ranges and marks: vramtrace, unless this names another tool
  XDG_RUNTIME_DIR        where traces are written while programs run (else /dev/shm)

Output pattern:
  %p process id   %h host   %e executable   %t start time   %n number
  %q{NAME} environment variable   %% a percent sign

Exit codes:
  the program's own (128+N if signal N killed it) · 126 it cannot be executed · 127 it does not
  exist · 2 wrong usage · with --fail-on-leak, where the program itself returned 0: 1 leaks were
  found, 3 a trace is unreadable, 4 none were found but the trace is not exact, or no CUDA memory
  was seen

Examples:
  vramtrace run python train.py
  vramtrace run -o traces/%h.%q{RANK}.vrt -- torchrun --nproc-per-node 8 train.py";

/// Trace a program and its children.
#[derive(clap::Args, Debug)]
#[command(after_help = MORE_VARIABLES)]
#[command(override_usage = "vramtrace run [OPTIONS] [--] PROGRAM [ARGS...]")]
pub struct Args {
    /// Where the trace goes; a directory, or a file name with % parts
    #[arg(short, long, value_name = "PATTERN", env = "VRAMTRACE_OUTPUT", default_value = pattern::DEFAULT)]
    output: String,
    /// Most bytes a trace may take (64MiB, 1GiB …)
    #[arg(long, value_name = "SIZE", env = "VRAMTRACE_SIZE", value_parser = trace_size)]
    size: Option<u64>,
    /// Bytes of old traces to keep in the default directory; that is for programs without `run`
    #[arg(long, value_name = "SIZE", env = "VRAMTRACE_KEEP", value_parser = size::parse, hide = true)]
    keep: Option<u64>,
    /// Which call stacks to record: auto is both for calls to the driver, Python (else native) for
    /// stream-ordered memory; python is native in threads without Python
    #[arg(long, value_name = "WHICH", env = "VRAMTRACE_STACKS", value_parser = ["auto", "python", "native", "both", "off"])]
    stacks: Option<String>,
    /// Take the stacks of all allocations, of none, or of one in about every SIZE bytes and of all that
    /// are as large; totals and what is live stay exact, values by stack are then estimates [default: all]
    #[arg(long, value_name = "all|off|SIZE", env = "VRAMTRACE_SAMPLE", value_parser = sample)]
    sample: Option<String>,
    /// Most that taking stacks may cost, in percent of one core: in a storm of allocations they are
    /// sampled [default: off; of programs that are traced without `run` 0.5]
    #[arg(long, value_name = "PERCENT|off", env = "VRAMTRACE_BUDGET", value_parser = budget)]
    budget: Option<String>,
    /// What to do when an allocation fails for lack of memory: record it; also keep a snapshot of all
    /// that is live (TRACE.oom-1 …); before that, trim the pools of the device and try once more
    #[arg(long, value_name = "WHAT", env = "VRAMTRACE_ON_OOM", value_parser = ["record", "snapshot", "rescue"])]
    on_oom: Option<String>,
    /// Overwrite traces that are there already
    #[arg(short, long)]
    force: bool,
    /// Exit with 1 if memory was leaked, 4 if that cannot be said
    #[arg(long)]
    fail_on_leak: bool,
    /// Like --fail-on-leak, but only above this size, on the GPU or in host memory
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_leak_bytes: Option<u64>,
    /// Leave out leaks that match a pattern of this file, as `vramtrace leaks` does; may be repeated
    #[arg(long, value_name = "FILE")]
    suppressions: Vec<PathBuf>,
    /// Count what frameworks are documented to keep, too
    #[arg(long)]
    no_builtin_suppressions: bool,
    /// Do not ask the driver (NVML) what nvidia-smi shows of the program while it runs
    #[arg(long, env = "VRAMTRACE_NO_NVML", value_parser = clap::builder::FalseyValueParser::new())]
    no_nvml: bool,
    /// The program, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "PROGRAM [ARGS]"
    )]
    program: Vec<OsString>,
}

fn trace_size(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        bytes if bytes > 1 << 40 => Err("at most 1024GiB".into()),
        bytes => Ok(bytes),
    }
}

fn sample(text: &str) -> Result<String, String> {
    match text {
        "all" | "off" => Ok(text.into()),
        _ => match size::parse(text) {
            Ok(bytes) if bytes > 0 => Ok(bytes.to_string()),
            _ => Err("write all, off, or a size (1MiB)".into()),
        },
    }
}

fn budget(text: &str) -> Result<String, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.001..=100.0).contains(&percent) => Ok(number.into()),
        _ if number == "off" => Ok(number.into()),
        _ => Err("write off, or a percentage from 0.001 to 100 (1, 0.5)".into()),
    }
}

impl Args {
    /// The settings that were made, as variables for the recorder.
    fn environment(&self) -> Vec<(String, OsString)> {
        let settings = [
            ("VRAMTRACE_SIZE", self.size.map(|bytes| bytes.to_string())),
            ("VRAMTRACE_KEEP", self.keep.map(|bytes| bytes.to_string())),
            ("VRAMTRACE_STACKS", self.stacks.clone()),
            ("VRAMTRACE_SAMPLE", self.sample.clone()),
            // Whoever runs a program under `run` looks for something: every stack, unless asked.
            (
                "VRAMTRACE_BUDGET",
                Some(self.budget.clone().unwrap_or_else(|| "off".to_owned())),
            ),
            ("VRAMTRACE_ON_OOM", self.on_oom.clone()),
        ];
        settings
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect()
    }
}

/// Runs the command; returns the process's exit code.
pub fn execute(args: Args) -> i32 {
    // A mistake in a file is better known before the program has run for hours.
    let builtin = !args.no_builtin_suppressions;
    let suppressions = match super::leaks::suppressions(&args.suppressions, builtin) {
        Ok(suppressions) => suppressions,
        Err(code) => return code,
    };
    match traced(&args) {
        Ok(finished) => conclude(&args, &finished, suppressions),
        Err(failure) => {
            say(&failure.message);
            failure.code
        }
    }
}

fn traced(args: &Args) -> Result<Finished, Failure> {
    let directory = std::env::current_dir()
        .map_err(|error| Failure::usage(format!("the current directory: {error}")))?;
    let output = Pattern::new(&args.output, &directory)?;
    let Some((program, arguments)) = args.program.split_first() else {
        return Err(Failure::usage("no program given"));
    };
    session::run(Request {
        program: program.clone(),
        arguments: arguments.to_vec(),
        environment: args.environment(),
        output,
        existing: if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        },
        nvml: !args.no_nvml,
        patience: PATIENCE,
        notice: &say,
    })
}

/// Says what there is to read, and decides the exit code.
fn conclude(args: &Args, finished: &Finished, suppressions: Suppressions) -> i32 {
    let here = std::env::current_dir().unwrap_or_default();
    let mut traces = Vec::new();
    for outcome in &finished.outcomes {
        if let Some(trace) = report(outcome, &here) {
            traces.push(trace);
        }
    }
    if let Some(error) = &finished.trouble {
        let left = finished.left.clone().unwrap_or_default();
        say(&format!(
            "cannot look through {}: {error}; the traces are still there",
            left.display()
        ));
    }
    finished.remarks.iter().for_each(|remark| say(remark));
    report_children(finished);
    let options = Options {
        suppressions,
        ..Options::default()
    };
    let findings: Vec<Finding> = traces
        .iter()
        .map(|path| {
            let finding = Finding::of(path, &options);
            say(&format!("{}: {}", shown(path, &here), finding.summary));
            let taken = snapshots::beside(path).len() as u64;
            if taken > 0 {
                let number = words::counted(taken, "snapshot");
                let path = shown(path, &here);
                say(&format!(
                    "{number} of failed allocations: vramtrace oom {path}"
                ));
            }
            finding
        })
        .collect();
    if !traces.is_empty() {
        let names: Vec<String> = traces.iter().map(|path| shown(path, &here)).collect();
        let command = if findings.iter().any(|finding| finding.gave_back) {
            "growth ".to_owned()
        } else {
            let files = args.suppressions.iter();
            let files = files.map(|file| format!("--suppressions {} ", words::shell(file)));
            let builtin = args.no_builtin_suppressions;
            let builtin = builtin.then(|| "--no-builtin-suppressions ".to_owned());
            let words: Vec<String> = files.chain(builtin).collect();
            format!("leaks {}", words.concat())
        };
        say(&format!("next: vramtrace {command}{}", names.join(" ")));
    } else if finished.outcomes.is_empty() && finished.trouble.is_none() {
        say(match std::env::var_os("VRAMTRACE_OFF") {
            Some(value) if !value.is_empty() && value != "0" => {
                "VRAMTRACE_OFF is set: nothing was traced"
            }
            _ => "No CUDA memory was allocated, so there is no trace",
        });
    }
    let code = finished.ended.code();
    if code == exit::FINE && (args.fail_on_leak || args.max_leak_bytes.is_some()) {
        return verdict(&findings, args.max_leak_bytes.unwrap_or(0));
    }
    code
}

/// Names children that may yet begin a trace. Those that have one are reported with it.
fn report_children(finished: &Finished) {
    let traced = |child: &&Running| {
        finished
            .outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Running { pid, .. } if *pid == child.pid))
    };
    let untraced: Vec<String> = finished
        .children
        .iter()
        .filter(|child| !traced(child))
        .map(|child| format!("{} (pid {})", child.name, child.pid))
        .collect();
    if let (false, Some(left)) = (untraced.is_empty(), &finished.left) {
        say(&format!(
            "still running: {}; a trace begun from now on will be in {}",
            untraced.join(", "),
            words::shell(left)
        ));
    }
}

/// The exit code for `--fail-on-leak`.
fn verdict(findings: &[Finding], limit: u64) -> i32 {
    let leaked = |finding: &Finding| {
        let above = |bytes| {
            if limit == 0 {
                finding.any
            } else {
                bytes > limit
            }
        };
        finding.leaked.is_some_and(above)
    };
    if findings.iter().any(|finding| finding.leaked.is_none()) {
        exit::UNREADABLE
    } else if findings.iter().any(leaked) {
        exit::FOUND
    } else if findings.iter().all(|finding| finding.complete) && !findings.is_empty() {
        exit::FINE
    } else {
        exit::INEXACT
    }
}

/// Reports one outcome; returns the path of a trace that can be read now.
fn report(outcome: &Outcome, here: &Path) -> Option<PathBuf> {
    match outcome {
        Outcome::Moved { path, instead_of } => {
            if let Some(wanted) = instead_of {
                say(&format!(
                    "{} existed already and was left alone (-f overwrites); the trace is {}",
                    shown(wanted, here),
                    shown(path, here)
                ));
            }
            Some(path.clone())
        }
        Outcome::Running { path, pid, name } => {
            say(&format!(
                "{name} (pid {pid}) still runs; its trace stays at {0} (vramtrace leaks {0})",
                words::shell(path)
            ));
            None
        }
        Outcome::Stuck {
            path,
            wanted,
            error,
        } => {
            say(&format!(
                "cannot move a trace to {}: {error}; it stays at {}",
                wanted.display(),
                path.display()
            ));
            Some(path.clone())
        }
        Outcome::Foreign { path } => {
            say(&format!(
                "{} is not a trace and stays there",
                path.display()
            ));
            None
        }
    }
}

/// A path as one would type it here.
fn shown(path: &Path, here: &Path) -> String {
    words::shell(path.strip_prefix(here).unwrap_or(path))
}

/// Names for suppressions; the order of frames does not matter to sums, so that no interpreter's
/// symbols have to be read for it.
struct OnlyNames(Frames);

impl Loops for OnlyNames {
    fn meet(&mut self, process: &Process) {
        self.0.meet(process);
    }

    fn is_loop(&mut self, _: &Module, _: u64) -> bool {
        false
    }

    fn names(&mut self, module: &Module, offset: u64) -> Vec<Name> {
        self.0.names(module, offset)
    }
}

/// What one trace says about leaks.
struct Finding {
    /// Bytes of the space (GPU, host) where more was leaked; `None` if it cannot be read.
    leaked: Option<u64>,
    /// Whether anything was leaked, were it an allocation of no bytes.
    any: bool,
    /// Whether that is certain, and CUDA was used at all.
    complete: bool,
    /// Most of what was live at the peak was freed before the end.
    gave_back: bool,
    /// Half a sentence.
    summary: String,
}

impl Finding {
    fn of(path: &Path, options: &Options) -> Finding {
        let process = match Trace::open(path) {
            Ok(trace) => Process::read(trace),
            Err(error) => {
                return Finding {
                    leaked: None,
                    any: false,
                    complete: false,
                    gave_back: false,
                    summary: error.problem.to_string(),
                };
            }
        };
        let mut names = OnlyNames(Frames::default());
        let answer = Answer::of(&[process], options, None, &mut names);
        let spaces = [
            (answer.gpu, "GPU memory"),
            (answer.host, "page-locked host memory"),
        ];
        let held: Vec<String> = spaces
            .iter()
            .filter(|(sum, _)| sum.count > 0)
            .map(|(sum, what)| {
                let allocations = words::counted(sum.count, "allocation");
                format!(
                    "{} of {what} still allocated in {allocations}",
                    words::bytes(sum.bytes)
                )
            })
            .collect();
        let mut summary = if !answer.saw_memory() {
            "CUDA was used, but no allocation was seen".to_owned()
        } else if held.is_empty() {
            "nothing left allocated".to_owned()
        } else {
            held.join(", ")
        };
        let suppressed = answer.all_suppressed();
        if suppressed.count > 0 {
            let allocations = words::counted(suppressed.count, "allocation");
            let bytes = words::bytes(suppressed.bytes);
            summary.push_str(&format!(", {bytes} in {allocations} suppressed"));
        }
        for placed in &answer.given_back {
            let back = placed.back;
            let (bytes, at) = (
                words::bytes(back.peak_bytes),
                words::duration(back.peak_time),
            );
            summary.push_str(&format!("; {bytes} at the peak (at {at})"));
        }
        if !answer.complete {
            summary.push_str(" (not exact; `vramtrace check` says why)");
        }
        Finding {
            any: answer.any(),
            leaked: Some(answer.gpu.bytes.max(answer.host.bytes)),
            complete: answer.complete && answer.saw_memory(),
            gave_back: !answer.given_back.is_empty(),
            summary,
        }
    }
}
