//! Python frames of the calling thread, taken without the interpreter's lock.
//!
//! Frameworks call CUDA with locks of their own held, and often without the interpreter's: a hook
//! that waited for that lock could deadlock the program. It need not: a thread's chain of frames
//! changes only while that thread runs Python, and a frame keeps its code object alive. So a
//! thread that is inside an allocation can read its own chain, and nobody else's, at any time.
//! Only code object and instruction of each frame are taken; names and lines are read the first
//! time that a stack is seen.
//!
//! [`interpreter`] finds it, [`layout`] says where things lie in which version, [`check`] whether
//! that is true, [`walk`] takes the frames, [`code`], [`lines`] and [`names`] understand them.

mod check;
mod code;
mod interpreter;
mod layout;
mod lines;
mod memory;
mod names;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod walk;

pub use interpreter::Find;
pub use names::Names;
pub use walk::{Frames, RawFrame};

use crate::say;
use crate::settings::Log;
use check::{Verdict, check};
use interpreter::Found;
use memory::Plain;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use vramtrace_format::cold::{self, Cold, stacks_of};

/// No interpreter was found so far.
const NONE: u8 = 0;
/// One was found; no Python frame was seen so far.
const UNCHECKED: u8 = 1;
/// It passed its check.
const ON: u8 = 2;
/// It cannot be read.
const OFF: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(NONE);
static FOUND: AtomicPtr<Found> = AtomicPtr::new(std::ptr::null_mut());
/// A [`Find`], or null.
static FIND: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
/// The modules among which an interpreter was looked for last.
static LOOKED_AMONG: AtomicU64 = AtomicU64::new(0);
/// Whether Python stacks are wanted; what is not wanted is not complained about.
static WANTED: AtomicBool = AtomicBool::new(false);
/// How much may be said: a [`Log`].
static LOG: AtomicU8 = AtomicU8::new(0);
static UNREPORTED: AtomicBool = AtomicBool::new(false);
/// Whether the trace says that there is an interpreter.
static NOTED: AtomicBool = AtomicBool::new(false);
/// Stacks that did not pass the check so far.
static FAILURES: AtomicU8 = AtomicU8::new(0);
/// So many must fail: one odd frame of some extension should not cost all stacks.
const MAX_FAILURES: u8 = 3;
/// Why an interpreter that looked readable is not; written once, before [`STATE`] becomes [`OFF`].
static REASON: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Sets what is wanted, before the first stack.
pub fn choose(wanted: bool, log: Log) {
    WANTED.store(wanted, Ordering::Relaxed);
    LOG.store(log as u8, Ordering::Relaxed);
}

/// Looks for an interpreter, and keeps `find` to look again when modules were loaded.
pub fn look_with(find: Find) {
    FIND.store(find as *mut (), Ordering::Relaxed);
    if STATE.load(Ordering::Acquire) == NONE {
        look();
    }
}

fn look() {
    let find = FIND.load(Ordering::Relaxed);
    if find.is_null() {
        return;
    }
    // SAFETY: only `look_with` stores there, and it stores a `Find`.
    let find = unsafe { std::mem::transmute::<*mut (), Find>(find) };
    let Some(found) = Found::look(find) else {
        return;
    };
    let unreadable = found.readable.as_ref().err().cloned();
    let found = Box::into_raw(Box::new(found));
    if FOUND
        .compare_exchange(
            std::ptr::null_mut(),
            found,
            Ordering::AcqRel,
            Ordering::Acquire,
        )
        .is_err()
    {
        // SAFETY: another thread was first; nobody has seen this one.
        drop(unsafe { Box::from_raw(found) });
        return;
    }
    match unreadable {
        None => STATE.store(UNCHECKED, Ordering::Release),
        Some(reason) => switch_off(reason),
    }
    UNREPORTED.store(true, Ordering::Release);
}

/// Says once why there are no Python stacks, here and in the trace.
fn switch_off(reason: String) {
    let reason = Box::into_raw(Box::new(reason));
    if REASON
        .compare_exchange(
            std::ptr::null_mut(),
            reason,
            Ordering::AcqRel,
            Ordering::Acquire,
        )
        .is_err()
    {
        // SAFETY: another thread was first; nobody has seen this one.
        drop(unsafe { Box::from_raw(reason) });
        return;
    }
    STATE.store(OFF, Ordering::Release);
    UNREPORTED.store(true, Ordering::Release);
    if WANTED.load(Ordering::Relaxed) {
        let log = match LOG.load(Ordering::Relaxed) {
            level if level == Log::Quiet as u8 => Log::Quiet,
            level if level == Log::Info as u8 => Log::Info,
            _ => Log::Warn,
        };
        say::line(log, Log::Warn, &off_text());
    }
}

fn found() -> Option<&'static Found> {
    // SAFETY: a `Found` that `look` leaked for good, or null.
    unsafe { FOUND.load(Ordering::Acquire).as_ref() }
}

fn reason() -> &'static str {
    // SAFETY: a String that `switch_off` leaked for good, or null.
    unsafe { REASON.load(Ordering::Acquire).as_ref() }.map_or("", String::as_str)
}

fn off_text() -> String {
    let version = found().map_or("", |found| &found.version);
    format!(
        "no Python stacks of Python {version}: {}; native stacks are recorded instead",
        reason()
    )
}

/// A module may be gone: forgets an interpreter that was in it. `is_loaded` tells whether an address
/// lies in a loaded module.
pub fn after_unload(is_loaded: impl FnOnce(u64) -> bool) {
    if let Some(found) = found()
        && !is_loaded(found.address())
    {
        STATE.store(NONE, Ordering::Release);
        FOUND.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// Whether an interpreter of this process is going down: frees are teardown then, and its frames
/// are not looked at any more.
#[inline]
pub fn is_finalizing() -> bool {
    found().is_some_and(Found::is_finalizing)
}

/// Takes the Python frames of the calling thread; false if it has none, or they cannot be read.
///
/// A thread that was inside CUDA when the interpreter began to go down loses its state while it
/// runs on: nothing is taken from then on. The question comes last before the walk.
#[inline]
pub fn capture(into: &mut Frames) -> bool {
    into.len = 0;
    let state = STATE.load(Ordering::Acquire);
    if state != ON && (state == OFF || state == NONE && !may_have_come() || !get_ready()) {
        return false;
    }
    let Some(found) = found() else { return false };
    let Ok(interpreter) = &found.readable else {
        return false;
    };
    let thread = found.this_thread();
    if thread == 0 || found.is_finalizing() {
        return false;
    }
    // SAFETY: STATE is ON: the check has passed. What is read are frames of the calling thread,
    // which runs no Python while it is here, and the code objects that they hold.
    let memory = unsafe { Plain::new() };
    // What came before the chain stopped making sense is right.
    let _ = walk::walk(&memory, interpreter, thread, into);
    into.len > 0
}

/// Whether modules were loaded since an interpreter was looked for in vain: it comes with one.
/// Nobody looks for that here; a native walk does, now and then.
#[inline]
pub fn may_have_come() -> bool {
    LOOKED_AMONG.load(Ordering::Relaxed) != super::modules::generation()
        && STATE.load(Ordering::Relaxed) == NONE
}

/// Before the first Python stack: whether there can be one now.
#[cold]
#[inline(never)]
fn get_ready() -> bool {
    if STATE.load(Ordering::Acquire) == NONE {
        LOOKED_AMONG.store(super::modules::generation(), Ordering::Relaxed);
        look();
    }
    if STATE.load(Ordering::Acquire) != UNCHECKED {
        return STATE.load(Ordering::Acquire) == ON;
    }
    let Some(found) = found() else { return false };
    let Ok(interpreter) = &found.readable else {
        return false;
    };
    let thread = found.this_thread();
    if thread == 0 || found.is_finalizing() {
        return false;
    }
    match check(interpreter, thread) {
        Verdict::Passed => {
            STATE.store(ON, Ordering::Release);
            UNREPORTED.store(true, Ordering::Release);
            true
        }
        Verdict::NothingToSee => false,
        Verdict::Failed(reason) => {
            if FAILURES.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_FAILURES {
                switch_off(reason);
            }
            false
        }
    }
}

/// Puts frames that were just taken on this thread into the form that the trace stores.
pub fn stored(frames: &Frames, names: &mut Names, mut each: impl FnMut(u64)) {
    let Some(Ok(interpreter)) = found().map(|found| &found.readable) else {
        return;
    };
    // SAFETY: as in `capture`, which took the frames; the thread has not run Python since.
    let memory = unsafe { Plain::new() };
    for frame in frames.get() {
        if let Some(frame) = names.stored(&memory, interpreter, frame) {
            each(frame);
        }
    }
}

/// Whether there is news of the interpreter for the trace.
#[inline]
pub fn has_unreported() -> bool {
    UNREPORTED.load(Ordering::Acquire)
}

/// What the trace should say of the interpreter.
#[cold]
pub fn take_unreported() -> Vec<Cold> {
    if !UNREPORTED.swap(false, Ordering::AcqRel) {
        return Vec::new();
    }
    let Some(found) = found() else {
        return Vec::new();
    };
    let state = STATE.load(Ordering::Acquire);
    let mut records = Vec::new();
    if !NOTED.swap(true, Ordering::Relaxed) {
        records.push(Cold::Note(cold::Note {
            code: "python".into(),
            text: "a Python interpreter runs in this process".into(),
        }));
    }
    records.push(Cold::Interpreter(cold::Interpreter {
        version: found.version.clone(),
        address: found.address(),
        stacks: match state {
            ON => stacks_of::RECORDED,
            OFF => stacks_of::UNREADABLE,
            _ => stacks_of::NOT_SEEN,
        },
        reason: reason().into(),
    }));
    if state == OFF && WANTED.load(Ordering::Relaxed) {
        records.push(Cold::Note(cold::Note {
            code: "python-stacks-off".into(),
            text: off_text(),
        }));
    }
    records
}

/// This is a forked child: its trace knows nothing yet.
pub fn start_over() {
    names::start_over();
    NOTED.store(false, Ordering::Relaxed);
    UNREPORTED.store(found().is_some(), Ordering::Release);
}
