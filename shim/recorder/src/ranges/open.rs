//! Which ranges are open: those that a thread pushed, and those that the process started.

use super::names::Name;
use super::paths::{self, Path};
use crate::per_thread;
use crate::sampling::reading;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Levels of pushed ranges that are told apart. Deeper ones count as the deepest of these.
const LEVELS: usize = 64;
/// Levels of which it is known when they were entered. A thread's own data has little room.
const DATED: usize = 24;

/// What a thread has pushed.
#[derive(per_thread::Zeroable)]
struct Pushed {
    /// Innermost range; 0 none.
    innermost: Cell<u32>,
    /// Ranges pushed and not popped, kept or not.
    depth: Cell<u32>,
    /// By level: whether something was recorded in it and in none inside it.
    held: Cell<u64>,
    /// Outermost first: the range, and its domain above.
    levels: [Cell<u32>; LEVELS],
    /// When they were entered: [`reading`].
    entered: [Cell<u64>; DATED],
}

/// A range that ended and in which something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The range.
    pub path: Path,
    /// When it was entered: [`reading`].
    pub entered: u64,
}

per_thread! {
    fn pushed() -> Pushed as "vramtrace_pushed";
}

impl Pushed {
    /// A range ended in which others, of other domains, are open: they are without it from here on.
    #[cold]
    fn take_out(&self, at: usize, depth: usize) {
        let path = |level: u32| (level & 0xffff) as Path;
        let mut around = match at {
            0 => 0,
            _ => path(self.levels[at - 1].get()),
        };
        let mut before = path(self.levels[at].get());
        for above in at + 1..depth {
            let level = self.levels[above].get();
            // One that had found no room has no number of its own.
            if path(level) != before {
                around = paths::within(around, paths::name(path(level)));
            }
            before = path(level);
            self.levels[above - 1].set(level & !0xffff | u32::from(around));
            if above < DATED {
                self.entered[above - 1].set(self.entered[above].get());
            }
        }
        // The one that moves to the last dated level was entered when nobody looked: it is known when
        // something was recorded in it.
        if depth > DATED && at < DATED {
            self.entered[DATED - 1].set(u64::MAX);
        }
        let (held, below) = (self.held.get(), (1 << at) - 1);
        self.held.set(held & below | held >> 1 & !below);
    }

    /// What is to be said of a range that ends now.
    #[inline]
    fn ended(&self, at: usize) -> Option<Ended> {
        let held = self.held.get();
        if held >> at == 0 {
            return None;
        }
        // What was recorded in it was recorded in those around it.
        self.held.set(held | 1 << at >> 1);
        let path = |level: usize| self.levels[level].get() as Path;
        // One that had found no room is the one around it.
        let is_own = at == 0 || path(at) != path(at - 1);
        let entered = self.entered.get(at)?.get();
        is_own.then(|| Ended {
            path: path(at),
            entered,
        })
    }
}

/// The calling thread pushed a range.
#[inline]
pub fn push(domain: Name, name: Name) {
    let pushed = pushed();
    let depth = pushed.depth.get();
    pushed.depth.set(depth.saturating_add(1));
    if let Some(level) = pushed.levels.get(depth as usize) {
        let path = paths::enter(pushed.innermost.get() as Path, name);
        if let Some(entered) = pushed.entered.get(depth as usize) {
            entered.set(reading());
        }
        level.set(u32::from(domain) << 16 | u32::from(path));
        pushed.innermost.set(u32::from(path));
    }
}

/// The calling thread popped the innermost range of a domain. A pop without a push does nothing.
/// Returns the range if something was recorded in it.
#[inline]
pub fn pop(domain: Name) -> Option<Ended> {
    let pushed = pushed();
    let depth = pushed.depth.get() as usize;
    if depth == 0 {
        return None;
    }
    let mut ended = None;
    if depth <= LEVELS {
        let is_of = |level: &Cell<u32>| level.get() >> 16 == u32::from(domain);
        let at = pushed.levels[..depth].iter().rposition(is_of)?;
        ended = pushed.ended(at);
        if at + 1 < depth {
            pushed.take_out(at, depth);
        }
        let innermost = match depth {
            1 => 0,
            _ => pushed.levels[depth - 2].get() & 0xffff,
        };
        pushed.innermost.set(innermost);
        pushed
            .held
            .set(pushed.held.get() & ((1 << (depth - 1)) - 1));
    }
    pushed.depth.set(depth as u32 - 1);
    ended
}

/// Ranges of the process that can be open at once and are told apart.
const STARTED: usize = 64;

/// Open ones: the range, its slot above, and above that how many were started until then.
static OPEN: [AtomicU64; STARTED] = [const { AtomicU64::new(0) }; STARTED];
/// By slot, when it was started: [`reading`].
static BEGUN: [AtomicU64; STARTED] = [const { AtomicU64::new(0) }; STARTED];
/// By slot, whether something was recorded in it. A bit that comes late is the next one's, of which
/// it is then said when it was there, though nothing was recorded in it.
static HELD: AtomicU64 = AtomicU64::new(0);
/// The one of them that was started last.
static NEWEST: AtomicU64 = AtomicU64::new(0);
/// How many were started so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Where the number stands in a word of [`OPEN`].
const NUMBER: u32 = 22;

/// The process started a range, which any thread may end by this number; never 0.
pub fn start(name: Name) -> u64 {
    let path = paths::enter(0, name);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let take = |slot: usize| {
        let open = number << NUMBER | (slot as u64) << 16 | u64::from(path);
        OPEN[slot]
            .compare_exchange(0, open, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    };
    match (0..STARTED).find(|&slot| take(slot)) {
        Some(slot) => {
            // Nobody can end it yet.
            BEGUN[slot].store(reading(), Ordering::Relaxed);
            choose_newest();
            number << 8 | slot as u64
        }
        None => {
            paths::found_no_room();
            number << 8 | 0xff
        }
    }
}

/// The process ended a range. A number that is none, or was ended before, does nothing. Returns the
/// range if something was recorded in it.
pub fn end(id: u64) -> Option<Ended> {
    let at = (id & 0xff) as usize;
    let slot = OPEN.get(at)?;
    let open = slot.load(Ordering::SeqCst);
    let entered = BEGUN[at].load(Ordering::Relaxed);
    let is_it = open != 0 && open >> NUMBER == id >> 8;
    if !is_it {
        return None;
    }
    // Before its slot is another one's.
    let held = HELD.fetch_and(!(1 << at), Ordering::Relaxed);
    let ends = slot
        .compare_exchange(open, 0, Ordering::SeqCst, Ordering::Relaxed)
        .is_ok();
    if !ends {
        return None;
    }
    if NEWEST.load(Ordering::SeqCst) == open {
        choose_newest();
    }
    let path = open as Path;
    (held >> at & 1 != 0 && path != 0).then_some(Ended { path, entered })
}

/// Finds the one that was started last among those that are open. What is found is looked at once
/// more after it was published, because it may have ended in between; whoever changes something
/// after that comes here too.
fn choose_newest() {
    let newest = || OPEN.iter().map(|slot| slot.load(Ordering::SeqCst)).max();
    // Others that change something meanwhile do this as well: somebody is the last.
    for _ in 0..1000 {
        let found = newest().unwrap_or(0);
        NEWEST.store(found, Ordering::SeqCst);
        if newest().unwrap_or(0) == found && NEWEST.load(Ordering::SeqCst) == found {
            return;
        }
    }
}

/// The range that what the calling thread does counts for: the innermost that it pushed, or else the
/// one that the process started last. 0 if none is open.
#[inline(always)]
pub fn innermost() -> Path {
    match pushed().innermost.get() {
        0 => NEWEST.load(Ordering::Relaxed) as Path,
        path => path as Path,
    }
}

/// Something is recorded in that range.
pub fn holds() {
    let pushed = pushed();
    if pushed.innermost.get() != 0 {
        // Of a depth that is not kept it is in the deepest that is.
        let level = (pushed.depth.get() as usize).clamp(1, LEVELS) - 1;
        pushed.held.set(pushed.held.get() | 1 << level);
        return;
    }
    let newest = NEWEST.load(Ordering::Relaxed);
    let bit = 1 << (newest >> 16 & (STARTED as u64 - 1));
    if newest != 0 && HELD.load(Ordering::Relaxed) & bit == 0 {
        HELD.fetch_or(bit, Ordering::Relaxed);
    }
}

/// This is a forked child, in whose trace nothing is recorded yet.
pub fn start_over() {
    pushed().held.set(0);
    HELD.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As others may start ranges meanwhile, only pushed ones are compared with a model here.
    #[test]
    fn pops_find_their_domain() {
        let depth = || pushed().depth.get();
        pop(0);
        assert_eq!(depth(), 0);
        push(0, 40);
        let outer = innermost();
        push(5, 41);
        let other = innermost();
        push(0, 42);
        pop(5);
        assert_eq!((paths::name(innermost()), depth()), (42, 2));
        assert_eq!(paths::around(innermost()), outer);
        pop(5);
        assert_eq!(depth(), 2);
        pop(0);
        assert_eq!(innermost(), outer);
        push(5, 41);
        assert_eq!(innermost(), other);
        pop(5);
        pop(0);
        assert_eq!(pushed().innermost.get(), 0);
    }

    /// Each ends inside the next one, for ever: nothing grows.
    #[test]
    fn ranges_that_overlap_do_not_nest() {
        let mut seen = std::collections::HashSet::new();
        push(0, 70);
        for _ in 0..500 {
            push(5, 71);
            pop(0);
            push(0, 70);
            pop(5);
            seen.insert(innermost());
        }
        pop(0);
        assert_eq!(seen.len(), 1);
        assert_eq!(pushed().innermost.get(), 0);
    }

    /// Against a list of what is open: of each range whether something was recorded in it.
    #[test]
    fn ranges_know_what_was_recorded_in_them() {
        let mut random = 7u64;
        let mut model: Vec<(Name, bool)> = Vec::new();
        for _ in 0..20_000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let domain = (random >> 40) as Name % 3;
            match random >> 60 {
                0..=5 if model.len() < LEVELS => {
                    push(domain, 80);
                    model.push((domain, false));
                }
                6..=8 if !model.is_empty() => {
                    holds();
                    model.iter_mut().for_each(|(_, held)| *held = true);
                }
                9.. => {
                    let Some(at) = model.iter().rposition(|(of, _)| *of == domain) else {
                        assert_eq!(pop(domain), None);
                        continue;
                    };
                    let path = pushed().levels[at].get() as Path;
                    let (_, held) = model.remove(at);
                    let expected = Some(path).filter(|_| held && at < DATED);
                    assert_eq!(pop(domain).map(|ended| ended.path), expected);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn deep_ones_count_as_the_deepest_that_is_kept() {
        let mut at = Vec::new();
        for _ in 0..LEVELS + 10 {
            push(0, 50);
            at.push(innermost());
        }
        assert_eq!(at[LEVELS - 1..], [at[LEVELS - 1]; 11]);
        assert_ne!(at[LEVELS - 2], at[LEVELS - 1]);
        for level in (0..LEVELS + 10).rev() {
            assert_eq!(innermost(), at[level]);
            pop(0);
        }
        assert_eq!(pushed().innermost.get(), 0);
    }

    #[test]
    fn the_newest_that_is_open_counts() {
        // The only test that starts ranges.
        let name = |of: Path| paths::name(of);
        let (one, two) = (start(60), start(61));
        assert_eq!(name(innermost()), 61);
        holds();
        let ended = std::thread::spawn(move || end(two)).join().unwrap();
        assert_eq!(ended.map(|ended| name(ended.path)), Some(61));
        assert_eq!(name(innermost()), 60);
        end(two);
        end(0);
        end(u64::MAX);
        assert_eq!(name(innermost()), 60);
        push(0, 62);
        assert_eq!(name(innermost()), 62);
        pop(0);
        let many: Vec<u64> = (0..100).map(|_| start(63)).collect();
        end(one);
        assert!(many.into_iter().all(|id| end(id).is_none()));
        assert_eq!(innermost(), 0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| (0..2000).for_each(|_| assert_eq!(end(start(64)), None)))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(innermost(), 0);
    }
}
