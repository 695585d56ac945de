//! What call sites are called, found by another process.
//!
//! Symbols of large libraries take hundreds of megabytes while they are read, and files are foreign:
//! a process of its own has that memory for a moment only, can be ended when it takes too long, and
//! nothing that goes wrong in it is ours. It is `vramtrace live-names`, gets the open trace as its
//! standard input, and prints one JSON list.

use super::child::{self, Bounds};
use super::sites::Place;
use crate::export::stacks::{Stacks, TRUNCATED, Wanted, library};
use crate::model::{Process, is_own_file};
use crate::report::frames::ShownFrame;
use crate::report::lines::{is_plumbing, short_name};
use crate::report::words::foreign;
use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

/// Questions that wait.
const MOST_WAITING: usize = 64;
/// Places in one question.
pub const MOST_PLACES: usize = 256;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const LONGEST: u64 = 4 << 20;
/// Characters of a name.
const MOST_CHARACTERS: usize = 160;
/// Callers that are named, and their characters together.
const MOST_CALLERS: (usize, usize) = (8, 400);

/// What a place is called, in several ways. Everything is harmless to print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The innermost frame of the program's own Python files; where there is none, the innermost frame.
    pub site: String,
    /// The frames that called that one, innermost first, as many as there is room for.
    pub callers: Vec<String>,
    /// The innermost Python frame.
    pub python: Option<String>,
    /// The innermost Python frame outside installed packages and the interpreter's own.
    pub line: Option<String>,
    /// File name of the innermost library or program.
    pub library: Option<String>,
    /// API function that was called.
    pub api: Option<String>,
}

impl Named {
    /// With nothing but a word for the place.
    pub fn bare(site: String) -> Named {
        Named {
            site,
            ..Named::default()
        }
    }
}

/// Who finds names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Nobody: all call sites are `other`.
    Off,
    /// A thread of this process; for short-lived ones.
    Here,
    /// This command, which is a `vramtrace`.
    Command(PathBuf),
    /// The program that this is, which is a `vramtrace`.
    #[default]
    Myself,
}

struct Question {
    trace: PathBuf,
    file: File,
    places: Vec<Place>,
}

/// A trace, and its places' names in the order of the question; none where it was not answered.
type Answer = (PathBuf, Vec<(Place, Named)>);

/// Asks for names, and keeps the answers until they are fetched.
pub struct Namer {
    naming: Naming,
    running: Option<(SyncSender<Question>, Receiver<Answer>)>,
    asked: HashSet<PathBuf>,
    answered: HashMap<PathBuf, Vec<(Place, Named)>>,
}

impl Namer {
    /// Costs nothing until it is asked.
    pub fn new(naming: Naming) -> Namer {
        Namer {
            naming,
            running: None,
            asked: HashSet::new(),
            answered: HashMap::new(),
        }
    }

    /// Whether names are being found.
    pub fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Asks for names of places in a trace, unless it was asked before and has not answered. `file`
    /// opens the trace once more.
    pub fn ask(
        &mut self,
        trace: &Path,
        places: Vec<Place>,
        file: impl FnOnce() -> std::io::Result<File>,
    ) {
        if self.naming == Naming::Off || places.is_empty() || self.asked.contains(trace) {
            return;
        }
        let Ok(file) = file() else { return };
        let (questions, _) = self
            .running
            .get_or_insert_with(|| start(self.naming.clone()));
        let question = Question {
            trace: trace.to_owned(),
            file,
            places,
        };
        match questions.try_send(question) {
            Ok(()) => drop(self.asked.insert(trace.to_owned())),
            Err(TrySendError::Full(_)) => {}
            // The thread is gone; the next question starts another.
            Err(TrySendError::Disconnected(_)) => self.forget(),
        }
    }

    /// Takes in what was answered.
    pub fn collect(&mut self) {
        let Some((_, answers)) = &self.running else {
            return;
        };
        loop {
            match answers.try_recv() {
                Ok((trace, names)) => {
                    self.asked.remove(&trace);
                    self.answered.insert(trace, names);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.forget(),
            }
        }
    }

    fn forget(&mut self) {
        self.running = None;
        self.asked.clear();
    }

    /// What was found of a trace since the last time.
    pub fn fetch(&mut self, trace: &Path) -> Vec<(Place, Named)> {
        self.answered.remove(trace).unwrap_or_default()
    }
}

fn start(naming: Naming) -> (SyncSender<Question>, Receiver<Answer>) {
    let (ask, questions) = sync_channel::<Question>(MOST_WAITING);
    let (answer, answers) = sync_channel(2 * MOST_WAITING);
    let work = move || {
        for question in questions {
            let Question {
                trace,
                file,
                places,
            } = question;
            let names = match &naming {
                Naming::Here => find(&super::scan::through(&file), &places),
                Naming::Command(command) => by_process(command, file, &places),
                _ => std::env::current_exe()
                    .map_or_else(|_| Vec::new(), |own| by_process(&own, file, &places)),
            };
            // What has no name gets none; else it would be asked for for ever.
            let mut names = names.into_iter();
            let named = places.into_iter().map(|place| {
                let name = names
                    .next()
                    .unwrap_or_else(|| Named::bare(format!("stack {}", place.0)));
                (place, name)
            });
            if answer.send((trace, named.collect())).is_err() {
                return;
            }
        }
    };
    // Without a thread the channel closes, and nothing has a name.
    let _ = std::thread::Builder::new()
        .name("live-names".into())
        .spawn(work);
    (ask, answers)
}

fn by_process(command: &Path, file: File, places: &[Place]) -> Vec<Named> {
    let words = places.iter().map(|(stack, api)| format!("{stack}:{api}"));
    let mut command = Command::new(command);
    command.arg("live-names").args(words).stdin(file);
    let bounds = Bounds {
        time: PATIENCE,
        output: LONGEST,
    };
    let text = child::output(command, &[], bounds).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Names of places in the trace at `path`, in their order.
pub fn find(path: &Path, places: &[Place]) -> Vec<Named> {
    let Ok(trace) = Trace::open_for_names(path) else {
        return Vec::new();
    };
    let processes = [Process::read(trace)];
    let all = places.iter().map(|&(stack, api)| (0, stack, api));
    let stacks = Stacks::of(&processes, all.clone(), Wanted::default());
    all.map(|place| {
        let Some(id) = stacks.id(place) else {
            return Named::bare("unknown".to_owned());
        };
        let named = stacks.get(id);
        let frames = named
            .frames
            .iter()
            .map(|&frame| &stacks.frames()[frame as usize]);
        let frames: Vec<&ShownFrame> = frames.collect();
        let mut found = name(&frames);
        if frames.is_empty() {
            found.site = named.missing.unwrap_or("unknown").to_owned();
        }
        found.api = processes[0].api(place.2).map(foreign);
        found
    })
    .collect()
}

/// Characters of a frame where all of a stack are told.
const LONGEST_FRAME: usize = 500;

/// All frames of a stack, one a line, innermost first; a sentence where there are none. As [`find`], this
/// is another process's work.
pub fn frames(path: &Path, place: Place) -> Result<Vec<String>, String> {
    let trace = Trace::open_for_names(path).map_err(|error| error.to_string())?;
    let processes = [Process::read(trace)];
    let place = (0, place.0, place.1);
    let stacks = Stacks::of(&processes, [place], Wanted::default());
    let Some(id) = stacks.id(place) else {
        return Err("the trace does not have this stack".to_owned());
    };
    let named = stacks.get(id);
    let mut lines: Vec<String> = stacks.frames_of(id).map(whole).collect();
    if lines.is_empty() {
        let why = named.missing.unwrap_or("it has no frames");
        return Err(why.to_owned());
    }
    if named.truncated {
        lines.push(TRUNCATED.to_owned());
    }
    Ok(lines)
}

/// As [`frames`], found by the program that this is, within bounds.
pub fn frames_elsewhere(file: File, place: Place) -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    let word = format!("{}:{}", place.0, place.1);
    command.args(["live-names", "--frames", &word]).stdin(file);
    let bounds = Bounds {
        time: PATIENCE,
        output: LONGEST,
    };
    let text = child::output(command, &[], bounds)
        .map_err(|why| format!("the frames cannot be had: who looks for them {why}"))?;
    serde_json::from_slice::<Result<Vec<String>, String>>(&text)
        .map_err(|error| format!("the frames cannot be had: {error}"))?
}

/// `function  path/to/file.py:12`, or where it is in which library.
fn whole(frame: &ShownFrame) -> String {
    let module = frame.module.as_deref();
    let function = match (&frame.function, frame.offset) {
        (Some(function), _) => short_name(function).into_owned(),
        (None, Some(offset)) => format!("{offset:#x}"),
        (None, None) => "unknown".to_owned(),
    };
    let place = match (&frame.file, frame.line, module) {
        (Some(file), Some(line), _) => format!("  {file}:{line}"),
        (Some(file), None, _) => format!("  {file}"),
        (None, _, Some(module)) => format!("  {module}"),
        (None, _, None) => String::new(),
    };
    // What is foreign may be of any length; where it is says more than the end of a long name.
    let room = LONGEST_FRAME.saturating_sub(place.chars().count().min(LONGEST_FRAME / 2));
    let function: String = function.chars().take(room).collect();
    let line: String = format!("{function}{place}")
        .chars()
        .take(LONGEST_FRAME)
        .collect();
    foreign(&line)
}

fn name(frames: &[&ShownFrame]) -> Named {
    let line = frames.iter().find(|frame| is_own(frame));
    let python = frames.iter().find(|frame| frame.language == "python");
    let at = frames.iter().position(|frame| is_own(frame)).unwrap_or(0);
    let mut room = MOST_CALLERS.1;
    let callers = frames.iter().skip(at + 1);
    let callers = callers
        .filter(|frame| !is_plumbing(frame))
        .take(MOST_CALLERS.0);
    let callers = callers.map(|frame| site(frame)).take_while(|caller| {
        let length = caller.chars().count();
        let fits = length <= room;
        room = room.saturating_sub(length);
        fits
    });
    Named {
        site: frames.get(at).map(|frame| site(frame)).unwrap_or_default(),
        callers: callers.collect(),
        python: python.map(|frame| site(frame)),
        line: line.map(|frame| site(frame)),
        library: frames.first().and_then(|frame| library(frame)).map(foreign),
        api: None,
    }
}

/// Whether it is of the program's own Python files.
fn is_own(frame: &ShownFrame) -> bool {
    frame.language == "python" && frame.file.as_deref().is_some_and(is_own_file)
}

/// `function file.py:12`, as far as it is known, on one line of bounded length.
fn site(frame: &ShownFrame) -> String {
    let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let function = match (&frame.function, frame.offset) {
        (Some(function), _) => function.to_string(),
        (None, Some(offset)) => format!("0x{offset:x}"),
        (None, None) => "unknown".to_owned(),
    };
    let place = match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!(" {}:{line}", base(file)),
        (Some(file), None, _) => format!(" {}", base(file)),
        (None, _, Some(module)) => format!(" {}", base(module)),
        (None, _, None) => String::new(),
    };
    let room = MOST_CHARACTERS.saturating_sub(place.chars().count());
    let function: String = function.chars().take(room).collect();
    let whole: String = format!("{function}{place}")
        .chars()
        .take(MOST_CHARACTERS)
        .collect();
    foreign(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_a_function_and_its_line() {
        let mut frame = ShownFrame {
            language: "python",
            function: Some("step".into()),
            file: Some("/home/me/train.py".into()),
            line: Some(12),
            ..ShownFrame::default()
        };
        assert_eq!(site(&frame), "step train.py:12");
        frame.file = None;
        frame.module = Some("/opt/app".into());
        assert_eq!(site(&frame), "step app");
        frame.function = None;
        frame.offset = Some(255);
        assert_eq!(site(&frame), "0xff app");
        frame.function = Some("x".repeat(10_000).into());
        assert_eq!(site(&frame).chars().count(), MOST_CHARACTERS);
        let library = ShownFrame {
            file: Some("/v/lib/python3.12/site-packages/torch/nn.py".into()),
            ..frame.clone()
        };
        let own_frame = ShownFrame {
            file: Some("train.py".into()),
            ..frame.clone()
        };
        let named = name(&[&library, &own_frame]);
        assert_eq!(named.site, site(&own_frame));
        assert_eq!(named.line, Some(site(&own_frame)));
        assert_eq!(named.python, Some(site(&library)));
        assert!(named.callers.is_empty());
        let named = name(&[&library, &library]);
        assert_eq!(named.site, site(&library));
        assert_eq!((named.line, named.callers.len()), (None, 1));
        assert_eq!(name(&[]), Named::default());
    }
}
