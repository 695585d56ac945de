//! Events on their way to the trace: allocations with their stacks, and everything that is no free.

pub use crate::ledger::Ending;
use crate::ledger::{By, Ledger};
use crate::process;
use crate::ranges;
use crate::sampling::{self, Stopwatch};
use crate::stack::{self, Wanted};
use crate::turn::{self, Request, guarded, leave, with};
use vramtrace_format::account::Account;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::footprint::Footprint;
use vramtrace_format::record::{Allocation, Op, Record, Space};
use vramtrace_format::sampling::interval;
use vramtrace_format::stacks::{NO_STACK, NOT_SAMPLED, STACK_SKIPPED};

/// Records an allocation that succeeded. Returns its time, or 0 if it is not known yet.
#[inline(always)]
pub fn allocated(allocation: Allocation) -> u64 {
    allocated_and(allocation, |_| {})
}

/// As [`allocated`]; `then` is run on the ledger right after the event.
#[inline(always)]
pub(crate) fn allocated_and(allocation: Allocation, then: impl Fn(&mut Ledger)) -> u64 {
    let thread = process::thread_id();
    if process::first_seen() {
        name_thread(thread);
    }
    let lane = allocation.kind.lane();
    let mut entry = allocation.record();
    let range = ranges::current();
    if range != 0 {
        entry.set_range_and_sampled(range, 0);
    }
    guarded(|| {
        let mut without = NO_STACK;
        let recorded = match Wanted::of(Some(allocation.kind)) {
            Wanted::Nothing => with(|ledger| {
                entry.set_stack_and_thread(NO_STACK, thread);
                let time = ledger.allocated(&mut entry);
                then(ledger);
                time
            }),
            wanted => {
                let mut watch = Stopwatch::start(lane, allocation.size);
                let step = sampling::step(lane);
                if step == 0 || sampled(&mut entry, &mut watch, step) {
                    with_stack(wanted, allocation.size, &mut watch, |ledger, stack| {
                        entry.set_stack_and_thread(stack, thread);
                        let time = ledger.allocated(&mut entry);
                        then(ledger);
                        time
                    })
                } else {
                    without = NOT_SAMPLED;
                    watch.without_stack();
                    with(|ledger| {
                        entry.set_stack_and_thread(NOT_SAMPLED, thread);
                        let time = ledger.allocated(&mut entry);
                        then(ledger);
                        ledger.not_sampled(watch.cost());
                        time
                    })
                }
            }
        };
        recorded.unwrap_or_else(|| {
            entry.set_stack_and_thread(without, thread);
            leave(Request::Allocated(entry), lane);
            0
        })
    })
    .unwrap_or(0)
}

/// Whether the stack of an allocation is to be taken at this step; if so, what it stands for is
/// noted.
#[inline]
fn sampled(entry: &mut Record, watch: &mut Stopwatch, step: u8) -> bool {
    let takes = sampling::takes(entry.size, step);
    if takes && entry.size < interval(step) {
        entry.set_range_and_sampled(entry.range, step);
        watch.stands_for_others(step);
    }
    takes
}

/// Records an event that is neither an allocation nor a free. `seq`, `time`, `thread` and `range`
/// are filled in here. Returns its `seq`, or `u64::MAX` if it waits in the slow lane.
pub fn event(event: &Record) -> u64 {
    guarded(|| {
        let event = Record {
            thread: process::thread_id(),
            range: ranges::current(),
            ..*event
        };
        let seq = with(|ledger| {
            ledger.event(event);
            ledger.last_seq()
        });
        seq.unwrap_or_else(|| {
            leave(Request::Event(event), event.lane());
            u64::MAX
        })
    })
    .unwrap_or(u64::MAX)
}

/// As [`event`], with the stack of the calling thread.
pub fn event_with_stack(record: &Record) -> u64 {
    guarded(|| {
        let event = Record {
            thread: process::thread_id(),
            range: ranges::current(),
            ..*record
        };
        let mut watch = Stopwatch::start(0, 0);
        let recorded = with_stack(Wanted::of(None), 0, &mut watch, |ledger, stack| {
            ledger.event(Record { stack, ..event });
            ledger.last_seq()
        });
        recorded.unwrap_or_else(|| {
            leave(Request::Event(event), event.lane());
            u64::MAX
        })
    })
    .unwrap_or(u64::MAX)
}

/// Takes the stack of the calling thread, and runs `act` on the ledger with its id.
#[inline]
fn with_stack<R>(
    wanted: Wanted,
    hint: u64,
    watch: &mut Stopwatch,
    act: impl FnOnce(&mut Ledger, u32) -> R,
) -> Option<R> {
    let Some(mut capture) = stack::capture(wanted, hint) else {
        watch.without_stack();
        return with(|ledger| act(ledger, NO_STACK));
    };
    if stack::modules::has_unreported() || stack::python::has_unreported() {
        report();
    }
    if let Some(id) = capture.known() {
        watch.walked();
        return with(|ledger| {
            let result = act(ledger, id);
            ledger.took_stack(watch.cost());
            result
        });
    }
    watch.is_fresh();
    // A walk that was spared is made by now, and may have met what came meanwhile.
    if stack::modules::has_unreported() {
        report();
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
        watch.is_stored();
        let result = act(ledger, id);
        ledger.took_stack(watch.cost());
        (result, id)
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

/// Shows what the driver holds for itself on a device, the sums of that device's own layer, and what
/// time it is (event time).
pub fn footprint<R>(
    device: u8,
    look: impl FnOnce(&mut Footprint, &Account, u64) -> R,
) -> Option<R> {
    guarded(|| {
        with(|ledger| {
            let (footprint, account, now) = ledger.footprint(device)?;
            Some(look(footprint, account, now))
        })
    })
    .flatten()
    .flatten()
}

/// Appends a cold record.
pub fn cold(record: &Cold) {
    guarded(|| with(|ledger| ledger.cold(record)));
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
    if let Some(text) = ranges::thread_name(tid).or_else(|| process::thread_name(tid)) {
        cold(&Cold::Thread(cold::Name { id: tid, text }));
    }
}
