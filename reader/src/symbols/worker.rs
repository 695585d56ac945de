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
pub(super) enum Answer {
    /// Places, innermost first (none: nothing is known), and what should be said.
    Places(Vec<Place>, Vec<String>),
    /// The module is not worth another question.
    GaveUp(&'static str),
}

struct Question {
    index: usize,
    module: Module,
    address: u64,
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

    pub(super) fn ask(&mut self, index: usize, module: &Module, address: u64) -> Answer {
        if self.abandoned >= MOST_ABANDONED {
            return Answer::GaveUp("reading symbols took too long before");
        }
        let question = Question {
            index,
            module: module.clone(),
            address,
        };
        let limit = self.options.time_limit;
        let Some((questions, answers)) = self.running() else {
            return Answer::GaveUp("no thread could be started to read symbols");
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
            return Answer::GaveUp("reading its symbols took too long");
        }
        Answer::GaveUp("reading its symbols failed")
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
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let mut warnings = Vec::new();
            let image = images
                .entry(question.index)
                .or_insert_with(|| Image::load(&question.module, locator, &mut warnings));
            Answer::Places(image.places(question.address), warnings)
        }));
        let answer = answer.unwrap_or_else(|_| {
            images.remove(&question.index);
            Answer::GaveUp("reading its symbols failed")
        });
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
