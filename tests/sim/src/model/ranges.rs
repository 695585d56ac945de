//! Hands out pieces of address ranges: the one allocator under everything that has an address.
//!
//! Freed pieces go to a stack per exact size and come back last-in-first-out, which makes the common
//! case two hash operations, and makes a freed address come back at once: that is what breaks
//! tracers that see a free too late. Only when no stack fits are pieces merged and cut again.

use super::hash::{Map, map};
use std::collections::{BTreeMap, BTreeSet};

/// Free address space, cut at multiples of `grain`.
pub struct Ranges {
    grain: u64,
    /// Freed pieces by exact size, not merged.
    recent: Map<Vec<u64>>,
    /// Entries in `recent`.
    recent_len: usize,
    /// Merged free ranges: start → length.
    by_start: BTreeMap<u64, u64>,
    /// The same, as (length, start).
    by_len: BTreeSet<(u64, u64)>,
    /// Starts of regions; ranges are never merged across one, so that a region can leave again.
    fences: BTreeSet<u64>,
}

impl Ranges {
    /// No space yet.
    pub const fn new(grain: u64) -> Self {
        Ranges {
            grain,
            recent: map(),
            recent_len: 0,
            by_start: BTreeMap::new(),
            by_len: BTreeSet::new(),
            fences: BTreeSet::new(),
        }
    }

    /// What a request of this size really takes.
    pub fn round(&self, bytes: u64) -> Option<u64> {
        Some(bytes.checked_add(self.grain - 1)? & !(self.grain - 1))
    }

    /// Adds a region of free space.
    pub fn add(&mut self, start: u64, len: u64) {
        self.fences.insert(start);
        self.put(start, len);
    }

    /// Takes a wholly free region out again; false when a part of it is in use.
    pub fn remove(&mut self, start: u64, len: u64) -> bool {
        self.merge();
        if self.by_start.get(&start) != Some(&len) {
            return false;
        }
        self.take(start, len);
        self.fences.remove(&start);
        true
    }

    /// A piece of exactly `len` bytes (a multiple of the grain).
    pub fn alloc(&mut self, len: u64) -> Option<u64> {
        if let Some(stack) = self.recent.get_mut(&len)
            && let Some(start) = stack.pop()
        {
            self.recent_len -= 1;
            return Some(start);
        }
        self.cut(len).or_else(|| {
            if self.recent_len == 0 {
                return None;
            }
            self.merge();
            self.cut(len)
        })
    }

    /// Gives a piece back.
    pub fn free(&mut self, start: u64, len: u64) {
        self.recent.entry(len).or_default().push(start);
        self.recent_len += 1;
    }

    fn cut(&mut self, len: u64) -> Option<u64> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.take(start, found);
        if found > len {
            self.by_start.insert(start + len, found - len);
            self.by_len.insert((found - len, start + len));
        }
        Some(start)
    }

    fn take(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    fn put(&mut self, mut start: u64, mut len: u64) {
        if !self.fences.contains(&start)
            && let Some((&s, &l)) = self.by_start.range(..start).next_back()
            && s + l == start
        {
            self.take(s, l);
            (start, len) = (s, l + len);
        }
        let end = start + len;
        if !self.fences.contains(&end)
            && let Some(&l) = self.by_start.get(&end)
        {
            self.take(end, l);
            len += l;
        }
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    /// Moves all recently freed pieces into the merged ranges.
    fn merge(&mut self) {
        for (len, stack) in std::mem::take(&mut self.recent) {
            for start in stack {
                self.put(start, len);
            }
        }
        self.recent_len = 0;
    }
}
