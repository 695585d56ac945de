//! The one recorder of a process: from off, through its first use of CUDA, to the end.

use crate::clock::Clock;
pub use crate::ledger::Ending;
use crate::ledger::{By, Ledger};
use crate::settings::{self, Log};
use crate::stack::{self, Wanted};
use crate::turn::{self, LEDGER, Request, guarded, leave, unmatched, with};
use crate::waiting::Ticket;
use crate::{counter, file, process, say};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::live::LiveTable;
use vramtrace_format::record::{Allocation, Op, Record, Space};
use vramtrace_format::stacks::{NO_STACK, STACK_SKIPPED};

/// Where the recorder is in its life. What every event asks is [`process::is_recording`].
const OFF: u8 = 0;
const STARTING: u8 = 1;
const ON: u8 = 2;
/// Switched off by a setting, or no file could be had: nothing more is tried.
const NEVER: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(OFF);
/// The process is going down.
static TEARDOWN: AtomicBool = AtomicBool::new(false);

/// First slot and number of slots of each live table, to fetch a key's slot into the cache while
/// the lock is taken and the clock is read. Never used to read or write.
static LIVE: [(AtomicU64, AtomicU64); 2] = [const { (AtomicU64::new(0), AtomicU64::new(0)) }; 2];

#[inline(always)]
fn prefetch(lane: usize, space: Space, key: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        let (base, slots) = (
            LIVE[lane].0.load(Ordering::Relaxed),
            LIVE[lane].1.load(Ordering::Relaxed),
        );
        let slot = base + 64 * LiveTable::home_of(slots as usize, space, key) as u64;
        // SAFETY: a prefetch is a hint: it reads nothing and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(slot as *const i8) };
    }
}

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
    let clock = Clock::new(crate::clock::monotonic_ns());
    let mut ledger = Ledger::new(file.into_sections(), clock);
    for (lane, (base, slots)) in LIVE.iter().enumerate() {
        let table = ledger.live_slots(lane);
        base.store(table.as_ptr() as u64, Ordering::Relaxed);
        slots.store(table.len() as u64, Ordering::Relaxed);
    }
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
    TEARDOWN.store(false, Ordering::Relaxed);
    STATE.store(OFF, Ordering::Release);
}

/// Records an allocation that succeeded. Returns its time, or 0 if it is not known yet.
#[inline(always)]
pub fn allocated(allocation: Allocation) -> u64 {
    let thread = process::thread_id();
    if process::first_seen() {
        name_thread(thread);
    }
    let lane = allocation.kind.lane();
    prefetch(lane, allocation.space, allocation.key);
    let mut entry = allocation.record();
    guarded(|| {
        let recorded = match Wanted::of(Some(allocation.kind)) {
            Wanted::Nothing => with(|ledger| {
                entry.set_stack_and_thread(NO_STACK, thread);
                ledger.allocated(&mut entry)
            }),
            wanted => with_stack(wanted, |ledger, stack| {
                entry.set_stack_and_thread(stack, thread);
                ledger.allocated(&mut entry)
            }),
        };
        recorded.unwrap_or_else(|| {
            entry.set_stack_and_thread(NO_STACK, thread);
            leave(Request::Allocated(entry), lane);
            0
        })
    })
    .unwrap_or(0)
}

/// What is needed to take a free back.
#[derive(Clone, Copy, Debug)]
pub struct FreeToken {
    fate: Fate,
    /// What was freed, if its fate says so.
    entry: Record,
}

/// Where the record of a free is.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// In the trace.
    Recorded,
    /// In the trace: nothing was live.
    Unmatched,
    /// In the slow lane.
    Waits { lane: usize, ticket: Ticket },
    /// Nowhere: the lane was full.
    Lost { lane: usize },
    /// Not known: the recorder failed.
    Unknown,
}

impl FreeToken {
    /// The entry that was freed, if it is known.
    #[inline(always)]
    pub fn entry(&self) -> Option<&Record> {
        matches!(self.fate, Fate::Recorded).then_some(&self.entry)
    }

    /// The free is not in the trace yet, or never will be: whether anything was live is not known.
    pub fn waits(&self) -> bool {
        !matches!(self.fate, Fate::Recorded | Fate::Unmatched)
    }
}

/// Records, **before** the real call, that the allocation at a key is being freed: the moment the
/// call returns, another thread may be given the same address. Looks in `lane` first, then in the
/// other.
#[inline(always)]
pub fn freeing(lane: usize, space: Space, key: u64, api: u16, stream: u32) -> FreeToken {
    ending(lane, space, key, Op::Free, api, stream)
}

/// As [`freeing`], for any way in which an allocation can end.
#[inline(always)]
pub fn ending(lane: usize, space: Space, key: u64, how: Op, api: u16, stream: u32) -> FreeToken {
    prefetch(lane, space, key);
    let by = By {
        how,
        api,
        thread: process::thread_id(),
        stream,
    };
    let mut token = FreeToken {
        fate: Fate::Unknown,
        entry: Record::default(),
    };
    guarded(|| {
        let found = with(|ledger| ledger.freed(lane, space, key, by, &mut token.entry));
        token.fate = match found {
            Some(true) => Fate::Recorded,
            Some(false) => Fate::Unmatched,
            None => {
                let ticket = Ticket::new();
                let request = Request::Freed {
                    lane,
                    space,
                    key,
                    by,
                    ticket,
                };
                if leave(request, lane) {
                    Fate::Waits { lane, ticket }
                } else {
                    Fate::Lost { lane }
                }
            }
        };
    });
    token
}

/// The real free failed: puts the entry back unchanged and records the failure.
#[cold]
pub fn free_failed(token: &FreeToken, space: Space, key: u64, api: u16, error: u64) {
    guarded(|| {
        let thread = process::thread_id();
        let known = token.entry();
        let entry = known.copied().unwrap_or_default();
        if known.is_some() && with(|ledger| ledger.restore(&entry)).is_none() {
            leave(
                Request::Restore(entry),
                entry.kind().map_or(0, |kind| kind.lane()),
            );
        }
        match token.fate {
            Fate::Waits { lane, ticket } => {
                if with(|ledger| turn::free_failed(ledger, lane, ticket)).is_none() {
                    leave(Request::FreeFailed { lane, ticket }, lane);
                }
            }
            Fate::Lost { lane } => turn::nothing_lost(lane),
            Fate::Recorded | Fate::Unmatched | Fate::Unknown => {}
        }
        event(&Record {
            op: Op::FreeFailed as u8,
            space: space as u8,
            kind: entry.kind.max(1),
            device: if known.is_some() {
                entry.device
            } else {
                vramtrace_format::record::NO_DEVICE
            },
            context: entry.context,
            key,
            size: entry.size,
            aux: error,
            api,
            thread,
            ..Record::default()
        });
    });
}

/// The real free of something that was not in the live set succeeded.
#[cold]
pub fn free_unmatched(space: Space, key: u64, api: u16) {
    guarded(|| {
        let thread = process::thread_id();
        with(|ledger| unmatched(ledger, space, key, api, thread));
    });
}

/// Records an event that is neither an allocation nor a free. `seq`, `time` and `thread` are
/// filled in here. Returns its `seq`, or `u64::MAX` if it waits in the slow lane.
pub fn event(event: &Record) -> u64 {
    guarded(|| {
        let event = Record {
            thread: process::thread_id(),
            ..*event
        };
        let seq = with(|ledger| {
            ledger.event(event);
            ledger.last_seq()
        });
        seq.unwrap_or_else(|| {
            leave(
                Request::Event(event),
                event.kind().map_or(0, |kind| kind.lane()),
            );
            u64::MAX
        })
    })
    .unwrap_or(u64::MAX)
}

/// The program set a mark.
pub fn mark(text: &str) {
    static MARKS: AtomicU64 = AtomicU64::new(0);
    let id = MARKS.fetch_add(1, Ordering::Relaxed) as u32;
    let text = text.chars().take(1000).collect();
    cold(&Cold::Mark(cold::Name { id, text }));
    event(&Record {
        op: Op::Mark as u8,
        aux: u64::from(id),
        ..Record::default()
    });
}

/// As [`event`], with the stack of the calling thread.
pub fn event_with_stack(record: &Record) {
    guarded(|| {
        let event = Record {
            thread: process::thread_id(),
            ..*record
        };
        with_stack(Wanted::of(None), |ledger, stack| {
            ledger.event(Record { stack, ..event })
        });
    });
}

/// Takes the stack of the calling thread, and runs `act` on the ledger with its id.
#[inline]
fn with_stack<R>(wanted: Wanted, act: impl FnOnce(&mut Ledger, u32) -> R) -> Option<R> {
    let Some(mut capture) = stack::capture(wanted) else {
        return with(|ledger| act(ledger, NO_STACK));
    };
    if stack::modules::has_unreported() || stack::python::has_unreported() {
        report();
    }
    if let Some(id) = capture.known() {
        return with(|ledger| act(ledger, id));
    }
    let Some(mut stored) = capture.stored() else {
        return with(|ledger| {
            ledger.control().stacks_skipped += 1;
            act(ledger, STACK_SKIPPED)
        });
    };
    let names = stored.new_names();
    let (result, id) = with(|ledger| {
        for name in &names {
            ledger.cold(name);
        }
        let id = ledger.intern(stored.frames(), stored.flags);
        (act(ledger, id), id)
    })?;
    stored.commit();
    capture.remember(id);
    Some(result)
}

/// Writes what is new about modules and the interpreter.
#[cold]
fn report() {
    for module in stack::modules::take_unreported() {
        cold(&Cold::Module(module));
    }
    for record in stack::python::take_unreported() {
        cold(&record);
    }
}

/// A sampled gauge (a pool's reserve) now stands at `entry.size`.
pub fn gauge(entry: &Record) {
    guarded(|| {
        with(|ledger| {
            ledger.gauge(Record {
                thread: process::thread_id(),
                ..*entry
            })
        })
    });
}

/// The live entry at a key.
pub fn find(lane: usize, space: Space, key: u64) -> Option<Record> {
    guarded(|| with(|ledger| ledger.find(lane, space, key)))
        .flatten()
        .flatten()
}

/// Contexts may be ending from now on, until [`contexts_ended`]: see [`Ending`].
pub fn contexts_ending(contexts: &[Ending]) {
    guarded(|| with(|ledger| contexts.iter().for_each(|one| ledger.begin_ending(*one))));
}

/// What ended with contexts is recorded.
pub fn contexts_ended(contexts: &[Ending]) {
    guarded(|| {
        with(|ledger| {
            let each = contexts.iter().map(|one| one.context);
            each.for_each(|context| ledger.finish_ending(context));
        })
    });
}

/// Shows every live entry of a lane to `look`, a few slots at a time so that nobody waits long.
pub fn each_live(lane: usize, look: &mut dyn FnMut(&Record)) {
    const SLOTS_AT_ONCE: usize = 1024;
    guarded(|| {
        let mut from = 0;
        let mut look_at_some = |ledger: &mut Ledger| {
            let slots = ledger.live_slots(lane);
            let until = (from + SLOTS_AT_ONCE).min(slots.len());
            let live = |slot: &&Record| vramtrace_format::live::is_live(slot.op);
            slots[from..until].iter().filter(live).for_each(&mut *look);
            from = until;
            from < slots.len()
        };
        while with(&mut look_at_some) == Some(true) {}
    });
}

/// Ends every live entry that `matches`, a few slots at a time so that nobody waits long.
pub fn end_all(how: Op, api: u16, matches: &dyn Fn(&Record) -> bool) {
    const SLOTS_AT_ONCE: usize = 256;
    guarded(|| {
        let by = By {
            how,
            api,
            thread: process::thread_id(),
            stream: 0,
        };
        for lane in 0..2 {
            let mut next = Some(0);
            while let Some(from) = next {
                next = with(|ledger| ledger.end_matching(lane, from, SLOTS_AT_ONCE, by, matches))
                    .flatten();
            }
        }
    });
}

/// Appends a cold record.
pub fn cold(record: &Cold) {
    guarded(|| with(|ledger| ledger.cold(record)));
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
        })
    });
}

/// Counts a call whose meaning for memory could not be kept: the live set may not be exact.
#[cold]
pub fn unrecorded() {
    turn::missed();
}

/// Counts an entry point that was handed out unhooked though it looks like one for memory.
pub fn bypassed() {
    guarded(|| with(|ledger| ledger.control().bypassed += 1));
}

/// Writes a thread's name to the trace.
#[cold]
fn name_thread(tid: u32) {
    let _uncancelled = process::Uncancelled::new();
    if let Some(text) = process::thread_name(tid) {
        cold(&Cold::Thread(cold::Name { id: tid, text }));
    }
}

#[cfg(test)]
mod tests;
