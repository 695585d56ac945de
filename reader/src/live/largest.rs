//! The largest free block of PyTorch's segments, looked for by another process, now and then.
//!
//! Sums do not know it: every segment and every block has to be laid out, which takes the whole trace. So
//! `vramtrace fragmentation` does it, for one trace at a time and each at most once in so long; a sample
//! has what was found last, while that is not old.

use super::child::{self, Bounds};
use super::sample::{Allocator, LargestFree, Sample};
use crate::model::State;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const LONGEST: u64 = 16 << 20;
/// What was found is told for so many times the time between two looks.
const OLD: u32 = 3;

type Answer = Option<Vec<LargestFree>>;

/// What was found last of each trace.
struct Known {
    at: Instant,
    found: Vec<LargestFree>,
}

/// Looks for largest free blocks.
pub struct Looker {
    /// The program that does it.
    program: PathBuf,
    /// How long one trace is left alone.
    between: Duration,
    running: Option<(PathBuf, Receiver<Answer>)>,
    known: HashMap<PathBuf, Known>,
}

impl Looker {
    /// Looks at each trace once in `between`, by `program`, which is a `vramtrace`.
    pub fn new(program: PathBuf, between: Duration) -> Looker {
        Looker {
            program,
            between,
            running: None,
            known: HashMap::new(),
        }
    }

    /// Takes in what was found, puts it into the sample, and begins with the trace that has waited longest.
    /// `open` opens a trace.
    pub fn look(&mut self, sample: &mut Sample, open: impl Fn(&Path) -> Option<File>) {
        self.collect();
        let wanted = |sample: &Sample, trace: &Path| {
            sample
                .processes
                .iter()
                .find(|process| process.trace == trace)
                .is_some_and(|process| {
                    let there = matches!(process.state, State::Running | State::Unknown);
                    let torch = |one: &super::AllocatorSample| one.allocator == Allocator::Torch;
                    there && process.allocators.iter().any(torch)
                })
        };
        let now = &*sample;
        self.known.retain(|trace, _| wanted(now, trace));
        for process in &mut sample.processes {
            if let Some(known) = self.known.get(&process.trace)
                && known.at.elapsed() <= OLD * self.between
            {
                process.largest_free.clone_from(&known.found);
            }
        }
        if self.running.is_some() {
            return;
        }
        let now = &*sample;
        let traces = now.processes.iter().map(|process| &process.trace);
        let due = traces.filter(|trace| {
            let known = self.known.get(*trace);
            let rested = known.is_none_or(|known| known.at.elapsed() >= self.between);
            rested && wanted(now, trace)
        });
        let Some(trace) = due.min_by_key(|trace| self.known.get(*trace).map(|known| known.at))
        else {
            return;
        };
        let Some(file) = open(trace) else { return };
        let (program, (tell, told)) = (self.program.clone(), channel());
        let work = move || drop(tell.send(find(&program, file)));
        let thread = std::thread::Builder::new().name("live-largest".into());
        if thread.spawn(work).is_ok() {
            self.running = Some((trace.clone(), told));
        }
    }

    fn collect(&mut self) {
        let Some((trace, told)) = &self.running else {
            return;
        };
        let answer = match told.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(answer) => answer,
            Err(TryRecvError::Disconnected) => None,
        };
        // What was not found out is not told, and not asked for again at once.
        let known = Known {
            at: Instant::now(),
            found: answer.unwrap_or_default(),
        };
        self.known.insert(trace.clone(), known);
        self.running = None;
    }
}

/// What is read of the document of `vramtrace fragmentation --json`.
#[derive(Deserialize)]
struct Document {
    devices: Vec<DeviceJson>,
    fragmentation: Vec<SumsJson>,
}

#[derive(Deserialize)]
struct DeviceJson {
    id: usize,
    index: u8,
}

#[derive(Deserialize)]
struct SumsJson {
    device: usize,
    largest_free_bytes: u64,
}

fn find(program: &Path, file: File) -> Answer {
    let mut command = Command::new(program);
    command
        .args(["fragmentation", "--json", "--top", "1"])
        .arg(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .stdin(Stdio::null());
    let bounds = Bounds {
        time: PATIENCE,
        output: LONGEST,
    };
    let text = child::output(command, &[file], bounds).ok()?;
    let document: Document = serde_json::from_slice(&text).ok()?;
    let of_device = |sums: &SumsJson| {
        let device = document.devices.iter().find(|one| one.id == sums.device)?;
        Some(LargestFree {
            device: device.index,
            bytes: sums.largest_free_bytes,
        })
    };
    Some(
        document
            .fragmentation
            .iter()
            .filter_map(of_device)
            .collect(),
    )
}
