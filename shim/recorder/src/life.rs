//! The recorder's life in a process: from off, through the first use of CUDA, to the end; and anew in
//! a forked child.

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::sampling::Governor;
use crate::settings::{self, Log};
use crate::stack;
use crate::turn::{self, LEDGER, guarded, with};
use crate::{counter, file, marks, process, ranges, rescues, say, snapshot};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use vramtrace_format::cold::{self, Cold};

/// Where the recorder is in its life. What every event asks is [`process::is_recording`].
const OFF: u8 = 0;
const STARTING: u8 = 1;
const ON: u8 = 2;
/// Switched off by a setting, or no file could be had: nothing more is tried.
const NEVER: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(OFF);
/// The process is going down.
static TEARDOWN: AtomicBool = AtomicBool::new(false);

/// Whether events are being recorded in this process.
#[inline(always)]
pub fn is_on() -> bool {
    process::is_recording()
}

/// Starts recording at the process's first successful use of GPU memory, if it has not started.
/// True if events are recorded from here on. `describe` gives the cold records that only the
/// caller knows.
#[inline]
pub fn start(describe: &dyn Fn() -> Vec<Cold>) -> bool {
    if is_on() {
        true
    } else {
        start_slowly(describe)
    }
}

#[cold]
fn start_slowly(describe: &dyn Fn() -> Vec<Cold>) -> bool {
    let _uncancelled = process::Uncancelled::new();
    // Of several threads of a forked child, one clears away what the parent left.
    if process::claim() && STATE.load(Ordering::Acquire) != NEVER {
        after_fork();
    }
    match STATE.compare_exchange(OFF, STARTING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(NEVER) => return false,
        Err(_) => return wait_for_start(),
    }
    let started = guarded(|| try_start(describe)).unwrap_or(false);
    STATE.store(if started { ON } else { NEVER }, Ordering::Release);
    if started {
        process::begin_recording();
        ranges::paths::write_all();
    }
    started
}

/// Another thread is starting; its file takes some milliseconds. (What the state says may still
/// be the parent's; that events are recorded is this process's own.)
fn wait_for_start() -> bool {
    for _ in 0..2000 {
        if is_on() {
            return true;
        }
        if STATE.load(Ordering::Acquire) == NEVER {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    turn::missed();
    false
}

fn try_start(describe: &dyn Fn() -> Vec<Cold>) -> bool {
    counter::look();
    // SAFETY: getauxval takes a number and cannot fail.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return false;
    }
    let settings = match settings::from_environment() {
        Ok(Some(settings)) => settings,
        Ok(None) => return false,
        Err(invalid) => {
            say::line(Log::Warn, Log::Warn, &invalid.message);
            return false;
        }
    };
    let file = match file::create(&settings) {
        Ok(file) => file,
        Err(reasons) => {
            say::line(settings.log, Log::Warn, &reasons);
            return false;
        }
    };
    if settings.size_raised {
        say::line(
            settings.log,
            Log::Warn,
            "VRAMTRACE_SIZE is below the smallest workable trace; using 1 MiB",
        );
    }
    if let Some(remark) = &file.remark {
        say::line(settings.log, Log::Warn, remark);
    }
    say::line(
        settings.log,
        Log::Info,
        &format!("recording to {}", file.path.display()),
    );
    let mut records = vec![Cold::Config(cold::Config {
        version: env!("CARGO_PKG_VERSION").into(),
        settings: settings.shown.clone(),
    })];
    if let Some(remark) = &file.remark {
        records.push(Cold::Note(cold::Note {
            code: "smaller".into(),
            text: remark.clone(),
        }));
    }
    stack::choose(settings.stacks, settings.log);
    records.extend(describe());
    records.extend(stack::python::take_unreported());
    snapshot::prepare(&settings, &file);
    let clock = Clock::new(file.header.start_monotonic_ns);
    let mut ledger = Ledger::new(file.into_sections(), clock);
    ranges::paths::write_to(ledger.range_rows());
    let share = settings.budget.map(|percent| percent / 100.0);
    let governor = Governor::new(settings.sample.step(), share);
    ledger.govern(governor, share.map_or(0, |share| (share * 1e6) as u32));
    for record in &records {
        ledger.cold(record);
    }
    let Some(mut place) = LEDGER.try_lock().or_else(turn::wait_in_line) else {
        return false;
    };
    place.with(|place| {
        // Whoever forbids it after this finds the ledger.
        if counter::is_forbidden() {
            ledger.forget_counter();
        }
        *place = Some(ledger);
    });
    true
}

/// This is a forked child: its parent's trace is none of its business.
fn after_fork() {
    process::start_over();
    turn::start_over();
    stack::modules::start_over();
    stack::python::start_over();
    ranges::start_over();
    marks::start_over();
    snapshot::start_over();
    rescues::start_over();
    TEARDOWN.store(false, Ordering::Relaxed);
    STATE.store(OFF, Ordering::Release);
}

/// The calling thread is about to forbid itself the time-stamp counter ([`counter`]): returns once
/// nothing here reads it any more. If the ledger cannot be had (its holder is stopped inside), the
/// clock is not changed.
pub fn forbid_counter() {
    counter::forbid();
    // Who is starting looks once more while it has the ledger.
    if matches!(STATE.load(Ordering::SeqCst), ON | STARTING) && process::is_same() {
        guarded(|| with(Ledger::forget_counter));
    }
}

/// The process is going down: frees from here on keep their entries, marked.
pub fn begin_teardown() {
    TEARDOWN.store(true, Ordering::Relaxed);
    guarded(|| {
        let thread = process::thread_id();
        with(|ledger| ledger.begin_teardown(thread))
    });
}

/// Whether the process is going down.
pub fn is_teardown() -> bool {
    TEARDOWN.load(Ordering::Relaxed)
}

/// The process reached its normal end. Recording goes on: calls arrive even after this.
pub fn finished() {
    guarded(|| {
        with(|ledger| {
            ledger.control().clean_exit = 1;
        });
        ranges::paths::write_all();
    });
}
