//! `vramtrace watch`: does something when a running program's memory crosses a threshold.

use super::complain;
use super::serve::Followed;
use crate::cli::exit;
use crate::live::Live;
use crate::model::State;
use crate::report::words::{foreign, utc};
use crate::serve::{http, time};
use crate::watch::actions::{Action, Event};
use crate::watch::expression::{Expression, Figure};
use crate::watch::facts::{History, Subject};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Actions at once; what comes while there are so many is left out, and said.
const MOST_AT_ONCE: usize = 16;

const HOW: &str = "\
Figures, for each process on each device: device.used and device.free (all programs, NVML), process.used \
(nvidia-smi's number), live, peak (device layer), framework, host, reserved and unused (allocators), \
unexplained: bytes, or percent of the device (of unused: of what is reserved). failures, lost: counts since \
the program began; failures(10m): in a window. growth(10m): bytes over time. A figure that is not known \
makes nothing happen.

Examples:
  vramtrace watch --when 'device.used > 92%' --do snapshot:/var/tmp
  vramtrace watch --when 'growth(10m) > 1GiB/h and live > 10GiB' --for 5m --do webhook:http://127.0.0.1:8080/alert
  vramtrace watch --when 'unused > 4GiB and device.used > 90%' --do signal:USR1
  vramtrace watch --when 'failures > 0' --do exec -- ./page-somebody.sh

docs/monitoring.md has the three lines of Python that empty PyTorch's cache on SIGUSR1.";

/// What the command takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
pub struct Args {
    #[command(flatten)]
    followed: Followed,
    /// The condition
    #[arg(long, value_name = "EXPR")]
    when: String,
    /// What to do: snapshot[:DIR], exec, signal:NAME, webhook:URL; may be given several times
    #[arg(long = "do", value_name = "ACTION", required = true)]
    actions: Vec<String>,
    /// How long the condition has to hold without a break
    #[arg(long = "for", value_name = "DURATION", default_value = "0s", value_parser = time::parse)]
    hold: Duration,
    /// How long nothing is done again for the same process and device
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = time::parse)]
    debounce: Duration,
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = every)]
    every: Duration,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// End after the first time
    #[arg(long)]
    once: bool,
    /// What exec runs, after --
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = time::parse(text)?;
    if every < Duration::from_millis(50) {
        return Err("less than 50ms would be all that is done".to_owned());
    }
    Ok(every)
}

/// Watches; returns the exit code.
pub fn execute(args: Args) -> i32 {
    let expression = match Expression::parse(&args.when) {
        Ok(expression) => expression,
        Err(wrong) => {
            // On several lines, to point at the place; the condition is the user's own.
            let _ = writeln!(io::stderr(), "vramtrace: --when: {wrong}");
            return exit::USAGE;
        }
    };
    let actions: Result<Vec<Action>, String> = args
        .actions
        .iter()
        .map(|text| Action::parse(text, &args.command))
        .collect();
    let actions = match actions {
        Ok(actions) => actions,
        Err(why) => {
            complain(&format!("--do: {why}"));
            return exit::USAGE;
        }
    };
    if !args.command.is_empty() && !actions.iter().any(|one| matches!(one, Action::Exec(_))) {
        complain("a command after -- is for --do exec");
        return exit::USAGE;
    }
    let live = match args.followed.open(None) {
        Ok(live) => live,
        Err(code) => return code,
    };
    let watch = Watch {
        history: History::new(expression.window()),
        expression,
        actions: actions.into(),
        args,
        states: BTreeMap::new(),
        running: Arc::new(AtomicUsize::new(0)),
        trouble: String::new(),
    };
    match watch.run(live) {
        Ok(()) => exit::FINE,
        Err(error) => {
            complain(&error.to_string());
            exit::UNREADABLE
        }
    }
}

struct Watch {
    args: Args,
    expression: Expression,
    actions: Arc<[Action]>,
    history: History,
    states: BTreeMap<Subject, Held>,
    running: Arc<AtomicUsize>,
    /// What was complained of last: not again at every look.
    trouble: String,
}

/// How long a condition has held.
#[derive(Clone, Copy, Default)]
struct Held {
    since: Option<Instant>,
    /// It was acted on since it began to hold.
    done: bool,
    acted: Option<Instant>,
}

impl Watch {
    fn run(mut self, mut live: Live) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        say(&format!(
            "watching {} for {}",
            live.directory().display(),
            self.args.when
        ));
        runtime.block_on(async {
            let ended = http::ended()?;
            tokio::pin!(ended);
            loop {
                let acted = self.look(&mut live);
                if acted && self.args.once {
                    break;
                }
                tokio::select! {
                    () = &mut ended => return Ok(()),
                    () = tokio::time::sleep(self.args.every) => {}
                }
            }
            // What was begun is finished, within its own limits, unless somebody wants it to end.
            while self.running.load(Ordering::SeqCst) > 0 {
                tokio::select! {
                    () = &mut ended => break,
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
            Ok(())
        })
    }

    /// Looks once; returns whether something was done.
    fn look(&mut self, live: &mut Live) -> bool {
        let sample = live.sample();
        let now = Instant::now();
        let asks_nvml = self.expression.figures().iter().any(|figure| {
            matches!(
                figure,
                Figure::DeviceUsed | Figure::DeviceFree | Figure::ProcessUsed | Figure::Unexplained
            )
        });
        let trouble = match (&sample.directory_error, &sample.nvml_error) {
            (Some(why), _) => format!("the directory cannot be read: {why}"),
            (None, Some(why)) if asks_nvml => format!("NVML's figures are not known: {why}"),
            _ if sample.unreadable > 0 => format!("{} traces cannot be read", sample.unreadable),
            _ => String::new(),
        };
        if trouble != self.trouble {
            if !trouble.is_empty() {
                say(&trouble);
            }
            self.trouble = trouble;
        }
        let known = self.history.add(&sample, now);
        let mut acted = false;
        let mut there = Vec::new();
        for (subject, at, known) in known {
            let process = &sample.processes[at];
            let alive = matches!(process.state, State::Running | State::Unknown);
            let holds = alive && self.expression.holds(&known) == Some(true);
            let held = self.states.entry(subject.clone()).or_default();
            there.push(subject.clone());
            if !holds {
                held.since = None;
                held.done = false;
                continue;
            }
            let since = *held.since.get_or_insert(now);
            let lately = held.acted.is_some_and(|at| now - at < self.args.debounce);
            if held.done || lately || now - since < self.args.hold {
                continue;
            }
            held.done = true;
            held.acted = Some(now);
            acted = true;
            let event = Event {
                when: self.args.when.clone(),
                process: process.clone(),
                device: subject.device,
                unix_ns: sample.unix_ns,
                path: live.directory().join(&subject.trace),
                file: live.open(&subject.trace).and_then(Result::ok),
            };
            self.act(event);
        }
        // Those that are gone for now may come back: what could not be read once is not new.
        if self.states.len() > 4 * there.len() + 1024 {
            self.states.retain(|subject, _| there.contains(subject));
        }
        acted
    }

    fn act(&self, event: Event) {
        let identity = &event.process.identity;
        let rank = identity
            .rank
            .map_or(String::new(), |rank| format!(" rank {rank}"));
        let device = event
            .device
            .map_or(String::new(), |device| format!(" on GPU {device}"));
        let who = format!("{} ({}){rank}{device}", identity.name, identity.pid);
        say(&format!("{who}: {}", self.args.when));
        if self.args.dry_run {
            for action in self.actions.iter() {
                say(&format!("{who}: would {}", action.describe()));
            }
            return;
        }
        if self.running.fetch_add(1, Ordering::SeqCst) >= MOST_AT_ONCE {
            self.running.fetch_sub(1, Ordering::SeqCst);
            say(&format!(
                "{who}: nothing is done, {MOST_AT_ONCE} actions are under way"
            ));
            return;
        }
        let (actions, running) = (Arc::clone(&self.actions), Arc::clone(&self.running));
        let spawned = std::thread::Builder::new()
            .name("watch-action".into())
            .spawn(move || {
                for action in actions.iter() {
                    let what = action.describe();
                    match action.run(&event) {
                        Ok(came) => say(&format!("{who}: {what}: {came}")),
                        Err(why) => say(&format!("{who}: {what} FAILED: {why}")),
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        if let Err(error) = spawned {
            self.running.fetch_sub(1, Ordering::SeqCst);
            say(&format!("nothing is done: {error}"));
        }
    }
}

/// A line of the log, with its time.
fn say(what: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = utc(now.map_or(0, |since| since.as_nanos() as u64));
    let line = format!("{now} vramtrace watch: {}\n", foreign(what));
    // Nobody is left to hear it if this fails.
    let _ = io::stderr().write_all(line.as_bytes());
}
