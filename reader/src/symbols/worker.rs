//! The thread that parses files, so that a hostile one can take neither the time nor the life of
//! the report.

use super::image::Image;
use super::locate::Locator;
use super::{Place, SymbolOptions};
use rustc_hash::FxHashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use vramtrace_format::cold::Module;

const THREAD: &str = "vramtrace-symbols";
/// Deeply nested names are taken apart recursively.
const STACK: usize = 16 << 20;
/// Threads that exceeded the time limit cannot be stopped. After this many, nothing is parsed.
const MOST_ABANDONED: u32 = 3;

/// What came of a question.
#[derive(Default)]
pub(super) struct Answer {
    /// Places at each address, innermost first (none: nothing is known). Of a module that was given
    /// up they may end early.
    pub places: Vec<Vec<Place>>,
    /// What should be said.
    pub warnings: Vec<String>,
    /// Why the module is not worth another question, if it is not.
    pub gave_up: Option<&'static str>,
}

impl Answer {
    fn gave_up(why: &'static str) -> Answer {
        Answer {
            gave_up: Some(why),
            ..Answer::default()
        }
    }
}

struct Question {
    index: usize,
    module: Module,
    addresses: Vec<u64>,
}

/// The face of the thread. It is started by the first question, and anew after one that it did
/// not answer in time.
pub(super) struct Worker {
    options: SymbolOptions,
    running: Option<(SyncSender<Question>, Receiver<Answer>)>,
    abandoned: u32,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("options", &self.options)
            .field("abandoned", &self.abandoned)
            .finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(options: SymbolOptions) -> Worker {
        Worker {
            options,
            running: None,
            abandoned: 0,
        }
    }

    /// Asks for the places at some addresses of one module. A question costs two changes of
    /// threads, so one about many addresses is cheaper than many; the time limit is for all of it.
    pub(super) fn ask(&mut self, index: usize, module: &Module, addresses: Vec<u64>) -> Answer {
        if self.abandoned >= MOST_ABANDONED {
            return Answer::gave_up("reading symbols took too long before");
        }
        let question = Question {
            index,
            module: module.clone(),
            addresses,
        };
        let limit = self.options.time_limit;
        let Some((questions, answers)) = self.running() else {
            return Answer::gave_up("no thread could be started to read symbols");
        };
        let limit_passed = match questions.send(question) {
            Ok(()) => match answers.recv_timeout(limit) {
                Ok(answer) => return answer,
                Err(error) => error == RecvTimeoutError::Timeout,
            },
            Err(_) => false,
        };
        self.running = None;
        if limit_passed {
            self.abandoned += 1;
            return Answer::gave_up("reading its symbols took too long");
        }
        Answer::gave_up("reading its symbols failed")
    }

    fn running(&mut self) -> Option<&(SyncSender<Question>, Receiver<Answer>)> {
        if self.running.is_none() {
            let (ask, questions) = sync_channel(1);
            let (answer, answers) = sync_channel(1);
            let options = self.options.clone();
            quiet_panics();
            thread::Builder::new()
                .name(THREAD.into())
                .stack_size(STACK)
                .spawn(move || work(&Locator::new(options), &questions, &answer))
                .ok()?;
            self.running = Some((ask, answers));
        }
        self.running.as_ref()
    }
}

fn work(locator: &Locator, questions: &Receiver<Question>, answers: &SyncSender<Answer>) {
    let mut images: FxHashMap<usize, Image> = FxHashMap::default();
    for question in questions {
        let mut answer = Answer::default();
        let finished = catch_unwind(AssertUnwindSafe(|| {
            let Answer {
                places, warnings, ..
            } = &mut answer;
            let image = images
                .entry(question.index)
                .or_insert_with(|| Image::load(&question.module, locator, warnings));
            places.extend(question.addresses.iter().map(|&at| image.places(at)));
        }));
        if finished.is_err() {
            images.remove(&question.index);
            answer.gave_up = Some("reading its symbols failed");
        }
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// A parser that gives up on a hostile file must not print a backtrace into the report.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name() != Some(THREAD) {
                before(panic);
            }
        }));
    });
}
