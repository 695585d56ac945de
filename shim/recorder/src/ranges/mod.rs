//! NVTX ranges: what a program says that it is doing, and which of it each allocation is made in.
//!
//! Frameworks push and pop ranges by the million, and nearly none of them holds an allocation. So
//! nothing is written for a range until one is made in it; entering and leaving one is a look into a
//! table of names and one of nested names, a count, and a look at the clock. When one ends in which
//! something was recorded, the trace hears from when to when it was there. But for the trace's lock
//! where something is written, nothing here waits, and nothing allocates; ranges that were opened
//! before there is a trace, or in the parent of a forked child, are known all the same.
//!
//! Everything is bounded: names whose numbers never repeat become one ([`names::DISTINCT`]), names
//! without room become "(other)", and a nesting without room counts for the range around it.

pub mod names;
pub mod open;
pub mod paths;
pub mod text;

use crate::process;
use crate::turn::{guarded, with};
use names::{Name, Names};
use paths::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use vramtrace_format::cold::Range;
use vramtrace_format::record::{NO_DEVICE, Op, Record};

static NAMES: Names<4096, 8192, { 256 << 10 }> = Names::new();

/// The domain of this name; 0 is the default domain.
pub fn domain(text: &[u8]) -> Name {
    /// Domains have names apart from those of ranges.
    const DOMAINS: Name = Name::MAX;
    guarded(|| NAMES.of(DOMAINS, text)).unwrap_or(0)
}

/// The name of a range, by its message.
#[inline]
pub fn name(domain: Name, text: &[u8]) -> Name {
    guarded(|| NAMES.of(domain, text)).unwrap_or(names::OTHER)
}

/// The name or domain that has this number, which a program kept for us.
pub fn known(number: usize) -> Option<Name> {
    NAMES.is_known(number).then_some(number as Name)
}

/// Text of a name, as far as it is kept.
pub fn text_of(name: Name) -> &'static [u8] {
    NAMES.text(name)
}

/// The calling thread pushed a range.
#[inline]
pub fn push(domain: Name, name: Name) {
    guarded(|| open::push(domain, name));
}

/// The calling thread popped its innermost range of a domain.
#[inline]
pub fn pop(domain: Name) {
    guarded(|| {
        if let Some(range) = open::pop(domain) {
            ended(range, process::thread_id());
        }
    });
}

/// The process started a range. Returns by which number it is ended.
pub fn start(name: Name) -> u64 {
    guarded(|| open::start(name)).unwrap_or(0)
}

/// The process ended a range.
pub fn end(id: u64) {
    guarded(|| {
        if let Some(range) = open::end(id) {
            ended(range, 0);
        }
    });
}

/// Says in the trace when a range was there.
#[cold]
#[inline(never)]
fn ended(range: open::Ended, thread: u32) {
    if !process::is_recording() {
        return;
    }
    // One that was around it may have ended before it, and it is another one since.
    if paths::row(range.path) == 0 {
        introduce(range.path);
    }
    let row = paths::row(range.path);
    if row == 0 {
        return;
    }
    let event = Record {
        op: Op::RangeEnded as u8,
        device: NO_DEVICE,
        range: row as u16,
        thread,
        ..Record::default()
    };
    // Where the trace is stuck, room for what waits is for what cannot be done without.
    with(|ledger| ledger.range_ended(event, range.entered));
}

/// What the trace calls the range that an event of the calling thread is in; 0 none. Without any
/// range two loads.
#[inline(always)]
pub(crate) fn current() -> u16 {
    match open::innermost() {
        0 => 0,
        // Rows of the section: see the assertion below.
        path => in_trace(path) as u16,
    }
}

const _: () = assert!(vramtrace_format::layout::RANGES <= 1 << 16);

#[inline(never)]
fn in_trace(path: Path) -> u32 {
    open::holds();
    match paths::row(path) {
        0 => introduce(path),
        row => row,
    }
}

/// Writes a range to the trace, and those around it. Without room it is the one around it that has
/// some.
#[cold]
fn introduce(path: Path) -> u32 {
    // As many levels as threads keep, and the one that is asked for.
    let mut ways = [0; 66];
    let mut depth = 0;
    let mut at = path;
    while at != 0 && depth < ways.len() {
        ways[depth] = at;
        depth += 1;
        at = paths::around(at);
    }
    let row = guarded(|| {
        with(|ledger| {
            let mut row = 0;
            for &path in ways[..depth].iter().rev() {
                row = match paths::row(path) {
                    0 => match ledger.range(|id| describe(path, id, row)) {
                        Some(new) => {
                            paths::is_in(path, new);
                            new
                        }
                        None => {
                            paths::found_no_room();
                            row
                        }
                    },
                    known => known,
                };
            }
            row
        })
    });
    row.flatten().unwrap_or(0)
}

fn describe(path: Path, id: u32, around: u32) -> Range {
    let name = paths::name(path);
    Range {
        id,
        parent: around,
        domain: readable(NAMES.domain(name)),
        text: readable(name),
        numbers: NAMES.leaves_numbers_open(name),
    }
}

/// As text; a last character that was cut in two is left out.
fn readable(name: Name) -> String {
    let bytes = NAMES.text(name);
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if bytes.len() == text::LONGEST && text.ends_with(char::REPLACEMENT_CHARACTER) {
        text.pop();
    }
    text
}

/// Text of a domain's name; empty for the default domain.
pub(crate) fn domain_text(domain: Name) -> String {
    readable(domain)
}

/// Names that the program gave threads: thread id above, number of the name below.
static THREADS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// The program names a thread. The last 256 are remembered, for those that come to the trace later.
pub fn name_thread(tid: u32, text: &[u8]) {
    guarded(|| {
        // As a name of ranges would be, but for numbers: workers are numbered.
        const THREAD_NAMES: Name = Name::MAX - 1;
        let name = NAMES.of(THREAD_NAMES, text);
        let entry = u64::from(tid) << 32 | u64::from(name);
        THREADS[tid as usize % THREADS.len()].store(entry, Ordering::Relaxed);
        if crate::is_on() {
            crate::cold(&vramtrace_format::cold::Cold::Thread(
                vramtrace_format::cold::Name {
                    id: tid,
                    text: String::from_utf8_lossy(text::cut(text)).into_owned(),
                },
            ));
        }
    });
}

/// The name that the program gave a thread.
pub(crate) fn thread_name(tid: u32) -> Option<String> {
    let entry = THREADS[tid as usize % THREADS.len()].load(Ordering::Relaxed);
    (entry >> 32 == u64::from(tid) && entry != 0).then(|| readable(entry as Name))
}

/// This is a forked child: nothing of it is in a trace, and its threads are others.
pub(crate) fn start_over() {
    paths::start_over();
    open::start_over();
    for thread in &THREADS {
        thread.store(0, Ordering::Relaxed);
    }
}
