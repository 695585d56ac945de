//! Names of domains and messages of ranges, each kept once.
//!
//! Known ones are found without a lock, and new ones entered without one: an entry is completed
//! before its number is published, so that neither a signal handler nor a forked child finds
//! anything half done. (Of two threads that enter the same at once, one wastes an entry.)

use super::text::{self, cut};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Number of a name. 0 is none: the default domain, and no range.
pub type Name = u16;

/// What all names are that found no room.
pub const OTHER: Name = 1;
const OTHER_TEXT: &[u8] = b"(other)";

/// So many messages that differ in numbers only are told apart; those that come later are one.
pub const DISTINCT: u32 = 128;

/// Longest search.
const PROBES: usize = 64;

/// The entry is a pattern: it stands for texts that differ in numbers.
const NUMBERS: u64 = 1 << 8;

/// At most `N` names of `B` bytes, found through `S` slots.
pub struct Names<const N: usize, const S: usize, const B: usize> {
    slots: [AtomicU16; S],
    entries: [Entry; N],
    /// Entries given out, beyond the two that are there from the beginning.
    used: AtomicU32,
    /// Bytes given out.
    filled: AtomicU32,
    bytes: UnsafeCell<[u8; B]>,
}

struct Entry {
    hash: AtomicU64,
    /// Where its text is (32 bits), how long that is (16 bits, from bit 16), whether its numbers
    /// are left open (bit 8).
    text: AtomicU64,
    domain: AtomicU16,
    /// Of a pattern: how many texts it stands for have entries of their own.
    distinct: AtomicU32,
}

// SAFETY: bytes are written by the one thread that got them from `filled`, before the entry that
// names them is published; afterwards they are only read.
unsafe impl<const N: usize, const S: usize, const B: usize> Sync for Names<N, S, B> {}

impl<const N: usize, const S: usize, const B: usize> Default for Names<N, S, B> {
    fn default() -> Self {
        Names::new()
    }
}

impl<const N: usize, const S: usize, const B: usize> Names<N, S, B> {
    /// None yet.
    pub const fn new() -> Self {
        const { assert!(S.is_power_of_two() && N > 2 && N <= 1 << 16 && B < 1 << 31) };
        Names {
            slots: [const { AtomicU16::new(0) }; S],
            entries: [const {
                Entry {
                    hash: AtomicU64::new(0),
                    text: AtomicU64::new(0),
                    domain: AtomicU16::new(0),
                    distinct: AtomicU32::new(0),
                }
            }; N],
            used: AtomicU32::new(0),
            filled: AtomicU32::new(0),
            bytes: UnsafeCell::new([0; B]),
        }
    }

    /// The name of a text in a domain: its own; where many that differ from it in numbers only have
    /// come before, the one of all of those; where there is no room, [`OTHER`].
    #[inline]
    pub fn of(&self, domain: Name, text: &[u8]) -> Name {
        let text = cut(text);
        let hash = text::hash(u64::from(domain), text);
        match self.find(hash) {
            Some(name) => name,
            None => self.add(domain, text, hash),
        }
    }

    #[inline]
    fn find(&self, hash: u64) -> Option<Name> {
        for probe in 0..PROBES {
            let slot = &self.slots[(hash as usize).wrapping_add(probe) & (S - 1)];
            let name = slot.load(Ordering::Acquire);
            if name == 0 {
                return None;
            }
            let entry = self.entries.get(usize::from(name))?;
            if entry.hash.load(Ordering::Relaxed) == hash {
                return Some(name);
            }
        }
        None
    }

    #[cold]
    fn add(&self, domain: Name, text: &[u8], hash: u64) -> Name {
        let Some(pattern) = text::pattern(text) else {
            return self.insert(domain, text, hash, 0).unwrap_or(OTHER);
        };
        // Apart from a text that happens to read like the pattern.
        let seed = u64::from(domain) | 1 << 16;
        let own = text::hash(seed, pattern.bytes());
        let known = self.find(own);
        let Some(open) = known.or_else(|| self.insert(domain, pattern.bytes(), own, NUMBERS))
        else {
            return OTHER;
        };
        let distinct = &self.entries[usize::from(open)].distinct;
        // The second half is for what has no numbers.
        let most = match self.used.load(Ordering::Relaxed) as usize {
            used if used < N / 2 => DISTINCT,
            _ => 0,
        };
        let count = |now: u32| (now < most).then_some(now + 1);
        match distinct.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(_) => self.insert(domain, text, hash, 0).unwrap_or(open),
            Err(_) => open,
        }
    }

    fn insert(&self, domain: Name, text: &[u8], hash: u64, flags: u64) -> Option<Name> {
        let more = |used: u32| ((used as usize) + 2 < N).then_some(used + 1);
        let name = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?
            + 2;
        let length = text.len() as u32;
        let fits = |filled: u32| (filled as usize + text.len() <= B).then_some(filled + length);
        let start = self
            .filled
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        // SAFETY: these bytes lie within the array and were given to this call alone.
        unsafe {
            let to = self.bytes.get().cast::<u8>().add(start as usize);
            to.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
        let entry = &self.entries[name as usize];
        let place = u64::from(start) << 32 | u64::from(length) << 16 | flags;
        entry.hash.store(hash, Ordering::Relaxed);
        entry.text.store(place, Ordering::Relaxed);
        entry.domain.store(domain, Ordering::Relaxed);
        self.publish(hash, name as Name)
    }

    fn publish(&self, hash: u64, name: Name) -> Option<Name> {
        for probe in 0..PROBES {
            let slot = &self.slots[(hash as usize).wrapping_add(probe) & (S - 1)];
            match slot.compare_exchange(0, name, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(name),
                Err(other) => {
                    let entry = self.entries.get(usize::from(other))?;
                    if entry.hash.load(Ordering::Relaxed) == hash {
                        return Some(other);
                    }
                }
            }
        }
        None
    }

    /// Its text.
    pub fn text(&self, name: Name) -> &[u8] {
        match name {
            0 => b"",
            OTHER => OTHER_TEXT,
            _ => {
                let Some(entry) = self.entries.get(usize::from(name)) else {
                    return b"";
                };
                let place = entry.text.load(Ordering::Relaxed);
                let (start, length) = ((place >> 32) as usize, (place >> 16) as u16 as usize);
                if start + length > B {
                    return b"";
                }
                // SAFETY: within the array (checked); written before the name was given to
                // anybody, and not since.
                unsafe {
                    let from = self.bytes.get().cast::<u8>().add(start);
                    std::slice::from_raw_parts(from, length)
                }
            }
        }
    }

    /// Its domain.
    pub fn domain(&self, name: Name) -> Name {
        let entry = self.entries.get(usize::from(name));
        entry.map_or(0, |entry| entry.domain.load(Ordering::Relaxed))
    }

    /// Whether it stands for texts that differ in numbers.
    pub fn leaves_numbers_open(&self, name: Name) -> bool {
        let entry = self.entries.get(usize::from(name));
        entry.is_some_and(|entry| entry.text.load(Ordering::Relaxed) & NUMBERS != 0)
    }

    /// Whether this number was given to a name: programs may hand us any.
    pub fn is_known(&self, name: usize) -> bool {
        name >= usize::from(OTHER) && name < self.used.load(Ordering::Relaxed) as usize + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Small = Names<64, 128, 1024>;

    #[test]
    fn a_text_has_one_name_in_each_domain() {
        static NAMES: Small = Names::new();
        let domain = NAMES.of(0, b"library");
        let (one, two) = (NAMES.of(0, b"forward"), NAMES.of(domain, b"forward"));
        assert!(one != two && one > OTHER && two > OTHER);
        assert_eq!(NAMES.of(0, b"forward"), one);
        assert_eq!(NAMES.of(domain, b"forward"), two);
        assert_eq!(
            (NAMES.text(two), NAMES.domain(two)),
            (&b"forward"[..], domain)
        );
        assert_eq!((NAMES.text(0), NAMES.text(OTHER)), (&b""[..], OTHER_TEXT));
        assert_ne!(NAMES.of(0, b""), 0);
        assert!(NAMES.is_known(one.into()) && !NAMES.is_known(0) && !NAMES.is_known(60));
        assert_eq!(NAMES.text(9999), b"");
    }

    #[test]
    fn texts_with_ever_new_numbers_become_one() {
        static NAMES: Names<4096, 8192, 65536> = Names::new();
        let names: Vec<Name> = (0..1000)
            .map(|n| NAMES.of(0, format!("step {n}").as_bytes()))
            .collect();
        let open = names[999];
        assert_eq!(NAMES.text(open), b"step #");
        assert!(NAMES.leaves_numbers_open(open));
        let own = names.iter().filter(|&&name| name != open).count();
        assert_eq!(own, DISTINCT as usize);
        assert_eq!(NAMES.text(names[7]), b"step 7");
        assert_eq!(NAMES.of(0, b"step 7"), names[7]);
        assert!(!NAMES.leaves_numbers_open(NAMES.of(0, b"step #")));
    }

    #[test]
    fn without_room_all_are_one() {
        static NAMES: Small = Names::new();
        let text = |n: usize| vec![b'a' + (n / 26) as u8, b'a' + (n % 26) as u8];
        let names: Vec<Name> = (0..200).map(|n| NAMES.of(0, &text(n))).collect();
        assert!(names[..50].iter().all(|&name| name > OTHER));
        assert!(names[62..].iter().all(|&name| name == OTHER), "{names:?}");
        assert_eq!(NAMES.of(0, &text(3)), names[3]);
        static LONG: Small = Names::new();
        let names = [b'x', b'y', b'z', b'u', b'v'].map(|letter| LONG.of(0, &[letter; 300]));
        assert_eq!(LONG.text(names[0]), [b'x'; text::LONGEST]);
        assert_eq!(names[4], OTHER);
    }

    #[test]
    fn threads_agree() {
        static NAMES: Names<4096, 8192, 65536> = Names::new();
        // Without numbers, and with room for what each thread wastes.
        let texts: Vec<String> = (0..200)
            .map(|n| "a".repeat(n % 20 + 1) + &"b".repeat(n / 20))
            .collect();
        let seen: Vec<HashMap<String, Name>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let name = |text: &String| (text.clone(), NAMES.of(0, text.as_bytes()));
                        texts.iter().map(name).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for other in &seen[1..] {
            assert!(other == &seen[0]);
        }
        for (text, name) in &seen[0] {
            assert_eq!(NAMES.text(*name), text.as_bytes());
        }
    }
}
