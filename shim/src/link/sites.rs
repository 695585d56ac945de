//! What was found for each call site: read without a lock, by calls that come by the million.
//!
//! A small table of two-way sets. Each cell has a sequence number that is odd while it is written;
//! writers hold a lock. What was put before all was forgotten is of an age that is over.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use vramtrace_recorder::Renewable;

/// Cells; a site can be in two of them. Programs call one function of a runtime from few places.
const CELLS: usize = 512;

/// What a site leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The function to call.
    pub function: *mut c_void,
    /// Holds while the loader has loaded this many modules so far; 0: for as long as the site's
    /// module is there.
    pub while_loaded: u64,
}

struct Cell {
    sequence: AtomicUsize,
    site: AtomicUsize,
    /// Address of the hook.
    hook: AtomicUsize,
    function: AtomicUsize,
    while_loaded: AtomicU64,
    age: AtomicUsize,
}

/// What all sites lead to.
pub struct Sites {
    cells: [Cell; CELLS],
    age: AtomicUsize,
    /// Held by writers; the way of the next site that comes to a full set.
    writing: Renewable<usize>,
}

impl Sites {
    /// Nothing is known.
    pub const fn new() -> Sites {
        Sites {
            cells: [const {
                Cell {
                    sequence: AtomicUsize::new(0),
                    site: AtomicUsize::new(0),
                    hook: AtomicUsize::new(0),
                    function: AtomicUsize::new(0),
                    while_loaded: AtomicU64::new(0),
                    age: AtomicUsize::new(0),
                }
            }; CELLS],
            age: AtomicUsize::new(1),
            writing: Renewable::new(),
        }
    }

    fn set_of(&self, site: usize) -> &[Cell] {
        let spread = (site as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let first = spread as usize % (CELLS / 2) * 2;
        &self.cells[first..first + 2]
    }

    /// What is known of calls of `hook` that return to `site`.
    #[inline]
    pub fn get(&self, site: usize, hook: usize) -> Option<Answer> {
        let age = self.age.load(Ordering::Acquire);
        self.set_of(site)
            .iter()
            .find_map(|cell| cell.read(site, hook, age))
    }

    /// The present age: to be asked before an answer is looked for.
    pub fn age(&self) -> usize {
        self.age.load(Ordering::Acquire)
    }

    /// Remembers what was found in this age, unless somebody else is writing; forgets another where
    /// there is no room.
    pub fn put(&self, site: usize, hook: usize, answer: Answer, age: usize) {
        let Some(mut turn) = self.writing.try_lock() else {
            return;
        };
        let set = self.set_of(site);
        let now = self.age();
        let same = set.iter().find(|cell| cell.is(site, hook));
        let free = || set.iter().find(|cell| !cell.is_of(now));
        let cell = same.or_else(free).unwrap_or_else(|| {
            *turn ^= 1;
            &set[*turn]
        });
        cell.write(site, hook, answer, age);
    }

    /// Forgets everything.
    pub fn forget(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    /// In a forked child, whose parent may have been writing: forgets everything.
    pub fn start_over(&self) {
        self.writing.renew();
        self.forget();
    }
}

impl Cell {
    fn is(&self, site: usize, hook: usize) -> bool {
        self.site.load(Ordering::Relaxed) == site && self.hook.load(Ordering::Relaxed) == hook
    }

    fn is_of(&self, age: usize) -> bool {
        self.age.load(Ordering::Relaxed) == age
    }

    #[inline]
    fn read(&self, site: usize, hook: usize, age: usize) -> Option<Answer> {
        let before = self.sequence.load(Ordering::Acquire);
        if before % 2 == 1 || !self.is(site, hook) || !self.is_of(age) {
            return None;
        }
        let answer = Answer {
            function: self.function.load(Ordering::Relaxed) as *mut c_void,
            while_loaded: self.while_loaded.load(Ordering::Relaxed),
        };
        // All of it was read before the number is looked at again.
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(answer)
    }

    fn write(&self, site: usize, hook: usize, answer: Answer, age: usize) {
        let odd = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(odd, Ordering::Relaxed);
        // Nothing is written before the number says so.
        fence(Ordering::Release);
        self.site.store(site, Ordering::Relaxed);
        self.hook.store(hook, Ordering::Relaxed);
        self.function
            .store(answer.function as usize, Ordering::Relaxed);
        self.while_loaded
            .store(answer.while_loaded, Ordering::Relaxed);
        self.age.store(age, Ordering::Relaxed);
        self.sequence.store(odd.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(function: usize) -> Answer {
        Answer {
            function: function as *mut c_void,
            while_loaded: function as u64,
        }
    }

    #[test]
    fn remembers_by_site_and_hook_until_told_to_forget() {
        let sites = Box::new(Sites::new());
        assert_eq!(sites.get(10, 1), None);
        sites.put(10, 1, answer(5), sites.age());
        sites.put(10, 2, answer(6), sites.age());
        assert_eq!(sites.get(10, 1), Some(answer(5)));
        assert_eq!(sites.get(10, 2), Some(answer(6)));
        sites.put(10, 1, answer(7), sites.age());
        assert_eq!(sites.get(10, 1), Some(answer(7)));
        sites.put(10, 3, answer(8), sites.age());
        assert_eq!(sites.get(10, 3), Some(answer(8)));
        sites.forget();
        assert!((1..4).all(|hook| sites.get(10, hook).is_none()));
        // What was found before is not remembered after.
        let age = sites.age();
        sites.forget();
        sites.put(10, 1, answer(5), age);
        assert_eq!(sites.get(10, 1), None);
    }

    #[test]
    fn a_reader_beside_a_writer_never_sees_a_mixture() {
        static SITES: Sites = Sites::new();
        let writer = std::thread::spawn(|| {
            for round in 0..20_000 {
                // One site is in one set, so that each hook takes a cell from another.
                let hook = round % 4 + 1;
                SITES.put(10, hook, answer(hook), SITES.age());
            }
        });
        while !writer.is_finished() {
            for hook in 1..5 {
                if let Some(found) = SITES.get(10, hook) {
                    assert_eq!(found, answer(hook));
                }
            }
        }
        writer.join().expect("the writer ends");
    }

    #[test]
    fn a_cell_left_half_written_is_no_answer_and_is_used_again() {
        let sites = Box::new(Sites::new());
        sites.put(10, 1, answer(5), sites.age());
        let cell = sites
            .set_of(10)
            .iter()
            .find(|cell| cell.is(10, 1))
            .expect("put");
        cell.sequence.fetch_or(1, Ordering::Relaxed);
        assert_eq!(sites.get(10, 1), None);
        sites.start_over();
        sites.put(10, 1, answer(6), sites.age());
        assert_eq!(sites.get(10, 1), Some(answer(6)));
    }
}
