//! `vramtrace top`: what running traced programs hold, on a terminal, as it changes.

use super::{complain, print};
use crate::cli::{exit, layer};
use crate::launch::rundir;
use crate::live::many::{Many, Source};
use crate::live::{Options, Sample};
use crate::serve::time;
use crate::top::app::App;
use crate::top::model::Model;
use crate::top::picture::Picture;
use crate::top::settings::{By, INTERVALS, Settings, Sort};
use crate::top::view::Look;
use crate::top::{json, once, run};
use crate::trace::find;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vramtrace_format::record::Layer;

/// Rows of the sums by stack that are read of each process: as many as are named at once.
const PLACES: usize = 200;
/// Of a core, reading the sums by stack takes at most this part.
const SHARE: u32 = 100;
/// Failed allocations that are kept of each process.
const FAILURES: usize = 16;
/// How long one picture waits for names.
const PATIENCE: Duration = Duration::from_secs(10);

const HOW: &str = "\
Only traces are read: the programs do not notice. Without an argument it looks where `vramtrace run` keeps traces \
while programs run; a program that runs with LD_PRELOAD writes where its VRAMTRACE_OUTPUT says.

Keys: ? shows all of them. Tab goes from table to table, Enter opens what is selected (a process: only its memory; a \
stack: its frames), Esc goes back, b puts memory together by stack, line, python, library, kind, api or process, / \
filters, s sorts, q ends. The mouse selects, opens, sorts and scrolls.

Examples:
  vramtrace top                            all programs that `vramtrace run` traces
  vramtrace top 4711                       one process
  vramtrace top /dev/shm/vramtrace         a directory
  vramtrace top --once --sort growth       for scripts: plain text, without a terminal
  vramtrace top --json | jq .devices       the same as JSON

docs/top.md says what each figure is.";

/// What the command takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
pub struct Args {
    /// Processes, traces, or directories with traces [default: where `vramtrace run` keeps them]
    #[arg(value_name = "PID|TRACE|DIR")]
    of: Vec<String>,
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = interval)]
    interval: Duration,
    /// Put memory together by stack, line, python, library, kind, api or process
    #[arg(long, value_name = "BY", default_value = "stack", value_parser = by)]
    by: By,
    /// Sort by live, growth, count or name
    #[arg(long, value_name = "SORT", default_value = "live", value_parser = sort)]
    sort: Sort,
    /// Only this layer: device, framework, host
    #[arg(long, value_name = "LAYER", value_parser = layer)]
    layer: Option<Layer>,
    /// Only what has this text in it: program, pid, function, file, library, kind
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print one picture as plain text, and end
    #[arg(long)]
    once: bool,
    /// Print one picture as a JSON document, and end
    #[arg(long)]
    json: bool,
    /// Rows of the table of memory with --once and --json
    #[arg(long, value_name = "N")]
    top: Option<u16>,
    /// Most processes that are told of
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_processes: u16,
    /// How long a process is still shown after its end
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = time::parse)]
    linger: Duration,
    /// How long a process without events is shown that cannot be seen from here
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time::parse)]
    stale: Duration,
    /// Don't ask what nvidia-smi shows
    #[arg(long)]
    no_nvml: bool,
    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = time::parse(text)?;
    if interval < INTERVALS.0 || interval > INTERVALS.1 {
        return Err("accepted are 100ms to 60s".to_owned());
    }
    Ok(interval)
}

fn by(text: &str) -> Result<By, String> {
    By::parse(text).ok_or_else(|| words(By::ALL.map(By::word)))
}

fn sort(text: &str) -> Result<Sort, String> {
    Sort::parse(text).ok_or_else(|| words(Sort::ALL.map(Sort::word)))
}

fn words<const N: usize>(words: [&str; N]) -> String {
    format!("accepted are {}", words.join(", "))
}

/// Runs the command; returns the exit code.
pub fn execute(args: Args) -> i32 {
    super::code(begin(&args))
}

fn begin(args: &Args) -> Result<i32, i32> {
    let (sources, looks_at) = sources(&args.of)?;
    let options = Options {
        most_processes: args.max_processes.into(),
        sites: 0,
        places: PLACES,
        failures: FAILURES,
        // Two looks cost what they cost.
        totals_share: if args.once || args.json { 0 } else { SHARE },
        linger: args.linger,
        stale: args.stale,
        nvml: !args.no_nvml,
        ..Options::default()
    };
    // Where nothing is named, the directory comes with the first program.
    let patient = args.of.is_empty();
    let many = Many::open(&sources, &options, patient).map_err(|(path, error)| {
        let path = path.display();
        complain(&format!(
            "{path}: {error}; name a process, its trace, or a directory with traces"
        ));
        exit::UNREADABLE
    })?;
    let settings = Settings {
        by: args.by,
        sort: args.sort,
        layer: args.layer,
        filter: args.filter.clone(),
        ..Settings::default()
    };
    if args.once || args.json {
        return one(args, many, &settings, &looks_at);
    }
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        complain(
            "top needs a terminal on standard input and output; --once prints one picture, --json a document",
        );
        return Err(exit::USAGE);
    }
    let app = App {
        settings,
        interval: args.interval,
        looks_at,
        ..App::default()
    };
    run::run(app, many, Look::of_environment(), !args.no_mouse).map_err(|error| {
        complain(&format!(
            "the terminal: {error}; --once prints one picture without one"
        ));
        exit::UNREADABLE
    })?;
    Ok(exit::FINE)
}

/// What is to be looked at, and that in words.
fn sources(named: &[String]) -> Result<(Vec<Source>, String), i32> {
    if named.is_empty() {
        let bases = rundir::bases(Path::new("."));
        let words = bases.iter().map(|base| base.display().to_string());
        let words = words.collect::<Vec<_>>().join(", ");
        return Ok((bases.into_iter().map(Source::Directory).collect(), words));
    }
    let resolve = |word: &String| {
        let path = PathBuf::from(word);
        match word.parse() {
            Ok(pid) if !path.exists() => {
                let found = find::of_process(pid);
                found.map(Source::Trace).map_err(|why| {
                    complain(&why);
                    exit::UNREADABLE
                })
            }
            _ if path.is_dir() => Ok(Source::Directory(path)),
            _ => Ok(Source::Trace(path)),
        }
    };
    let sources: Result<Vec<Source>, i32> = named.iter().map(resolve).collect();
    Ok((sources?, named.join(", ")))
}

/// Looks twice, so that growth is known, and until names are found.
fn one(args: &Args, mut many: Many, settings: &Settings, looks_at: &str) -> Result<i32, i32> {
    let begun = Instant::now();
    let mut model = Model::default();
    model.take(many.sample(), Duration::ZERO);
    let mut wait = args.interval;
    loop {
        std::thread::sleep(wait);
        let sample: Sample = many.sample();
        let naming = sample.naming;
        model.take(sample, begun.elapsed());
        if !naming || begun.elapsed() > PATIENCE {
            break;
        }
        wait = Duration::from_millis(100);
    }
    let picture: Picture = model.picture(settings);
    let most = args.top.map_or(once::MOST_ROWS, usize::from);
    let text = if args.json {
        json::json(&picture, settings, most, model.at())
    } else {
        once::text(&picture, settings, most, model.at(), looks_at)
    };
    print(&text)?;
    // What was named and cannot be read is no empty list.
    let named_unreadable = !args.of.is_empty() && !picture.unreadable.is_empty();
    Ok(if named_unreadable && picture.processes.is_empty() {
        exit::UNREADABLE
    } else {
        exit::FINE
    })
}
