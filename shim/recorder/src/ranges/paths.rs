//! Ranges inside ranges: which way in which they were nested has which number, how often it was
//! entered, and where it stands in the trace. Entered and found without a lock, as [`super::names`].

use super::names::Name;
use crate::process;
use std::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Number of a range in a range in a range …; 0 is none.
pub type Path = u16;

const PATHS: usize = 8192;
const SLOTS: usize = 2 * PATHS;
const PROBES: usize = 64;

struct Entry {
    /// The range around it, and its own name above.
    key: AtomicU32,
    /// Its row in the trace; 0 not there yet.
    row: AtomicU32,
    /// How often it was entered.
    count: AtomicU64,
}

static TABLE: [AtomicU16; SLOTS] = [const { AtomicU16::new(0) }; SLOTS];
static ENTRIES: [Entry; PATHS] = [const {
    Entry {
        key: AtomicU32::new(0),
        row: AtomicU32::new(0),
        count: AtomicU64::new(0),
    }
}; PATHS];
/// Numbers given out.
static USED: AtomicU32 = AtomicU32::new(0);
/// Entries of ranges that found no room.
static WITHOUT_ROOM: AtomicU64 = AtomicU64::new(0);
/// The trace's rows, of this process or of the one that it was forked from.
static ROWS: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

fn entry(path: Path) -> &'static Entry {
    // The first is nobody's.
    ENTRIES.get(usize::from(path)).unwrap_or(&ENTRIES[0])
}

/// The range of this name in another one was entered. Where there is no room for it, it is as if
/// it had not been, and that is counted.
#[inline]
pub fn enter(around: Path, name: Name) -> Path {
    let Some(path) = number(around, name) else {
        found_no_room();
        return around;
    };
    let entry = &ENTRIES[usize::from(path)];
    let count = entry.count.fetch_add(1, Ordering::Relaxed) + 1;
    let row = entry.row.load(Ordering::Relaxed);
    if row != 0 {
        write(row, count);
    }
    path
}

/// As [`enter`], of a range that was entered before: it is not counted.
pub fn within(around: Path, name: Name) -> Path {
    number(around, name).unwrap_or(around)
}

#[inline]
fn number(around: Path, name: Name) -> Option<Path> {
    let key = u32::from(name) << 16 | u32::from(around);
    find(key).or_else(|| add(key))
}

#[inline]
fn first_slot(key: u32) -> usize {
    (u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

#[inline]
fn find(key: u32) -> Option<Path> {
    let first = first_slot(key);
    for probe in 0..PROBES {
        let path = TABLE[(first + probe) % SLOTS].load(Ordering::Acquire);
        if path == 0 {
            return None;
        }
        if entry(path).key.load(Ordering::Relaxed) == key {
            return Some(path);
        }
    }
    None
}

#[cold]
fn add(key: u32) -> Option<Path> {
    let more = |used: u32| ((used as usize) + 1 < PATHS).then_some(used + 1);
    let used = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    let path = (used.ok()? + 1) as Path;
    entry(path).key.store(key, Ordering::Relaxed);
    let first = first_slot(key);
    for probe in 0..PROBES {
        let slot = &TABLE[(first + probe) % SLOTS];
        match slot.compare_exchange(0, path, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(path),
            Err(other) if entry(other).key.load(Ordering::Relaxed) == key => return Some(other),
            Err(_) => {}
        }
    }
    None
}

/// Writes a count to the trace, if that is this process's own: a forked child's word says that it
/// records nothing until it has a trace and [`write_to`] was told of it.
#[inline]
fn write(row: u32, count: u64) {
    if process::is_recording() {
        let rows = ROWS.load(Ordering::Acquire);
        if !rows.is_null() && (row as usize) < vramtrace_format::layout::RANGES {
            // SAFETY: a row of the section of ranges, which is never unmapped.
            unsafe { &*rows.add(row as usize) }.store(count, Ordering::Relaxed);
        }
    }
}

/// A range found no room: what it holds counts for the one around it.
#[cold]
pub fn found_no_room() {
    let count = WITHOUT_ROOM.fetch_add(1, Ordering::Relaxed) + 1;
    write(0, count);
}

/// From here on counts are written to these rows.
pub fn write_to(rows: &'static [AtomicU64]) {
    let whole = rows.len() >= vramtrace_format::layout::RANGES;
    let rows = if whole {
        rows.as_ptr().cast_mut()
    } else {
        std::ptr::null_mut()
    };
    ROWS.store(rows, Ordering::Release);
}

/// Writes all counts anew: what was counted while a row was being given out, or before there was a
/// trace.
pub fn write_all() {
    for path in 1..=USED.load(Ordering::Acquire) as Path {
        let (row, count) = (row(path), count(path));
        if row != 0 {
            write(row, count);
        }
    }
    match WITHOUT_ROOM.load(Ordering::Relaxed) {
        0 => {}
        count => write(0, count),
    }
}

/// The range around a range.
pub fn around(path: Path) -> Path {
    entry(path).key.load(Ordering::Relaxed) as Path
}

/// A range's own name.
pub fn name(path: Path) -> Name {
    (entry(path).key.load(Ordering::Relaxed) >> 16) as Name
}

/// How often a range was entered.
pub fn count(path: Path) -> u64 {
    entry(path).count.load(Ordering::Relaxed)
}

/// Its row in the trace; 0 if it has none.
#[inline]
pub fn row(path: Path) -> u32 {
    entry(path).row.load(Ordering::Acquire)
}

/// Its row in the trace is this one.
pub fn is_in(path: Path, row: u32) {
    entry(path).row.store(row, Ordering::Release);
    write(row, count(path));
}

/// This is a forked child: it has no trace, and has entered nothing.
pub fn start_over() {
    for path in 1..=USED.load(Ordering::Acquire) as Path {
        entry(path).row.store(0, Ordering::Relaxed);
        entry(path).count.store(0, Ordering::Relaxed);
    }
    WITHOUT_ROOM.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_of_nesting_has_one_number_until_there_is_no_room() {
        let outer = enter(0, 7);
        let inner = enter(outer, 8);
        assert_eq!((enter(0, 7), enter(outer, 8)), (outer, inner));
        assert_ne!(enter(0, 8), inner);
        assert_eq!((around(inner), name(inner)), (outer, 8));
        assert_eq!((count(inner), row(inner)), (2, 0));
        let before = WITHOUT_ROOM.load(Ordering::Relaxed);
        let others: Vec<Path> = (100..9000).map(|name| enter(inner, name)).collect();
        assert_eq!(others.last(), Some(&inner));
        let refused = others.iter().filter(|&&path| path == inner).count() as u64;
        assert_eq!(WITHOUT_ROOM.load(Ordering::Relaxed) - before, refused);
        assert_eq!(enter(inner, 100), others[0]);
        assert_eq!(count(others[0]), 2);
    }
}
