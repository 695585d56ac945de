//! Where the rows of a table are, by key: kept in its writer's own memory, never in the file.
//!
//! Rows lie in the order in which they were first needed, so that few of them make few pages, and
//! what is used again and again stays in the caches: between two of a program's events the program
//! has the caches to itself. What finds them must be as small, and must not make anybody wait while
//! it grows.
//!
//! Extendible hashing (Fagin, Nievergelt, Pippenger, Strong 1979): pages of [`PAGE`] entries, and a
//! directory that the first bits of a hash choose from. A page whose entries lie too far from where
//! they belong is split in two; that moves at most one page's entries, whatever the size of the
//! table.

/// Entries of a page, 4 KiB.
const PAGE: usize = 512;
/// An entry that would lie further than this from where it belongs splits its page.
const FAR: usize = 16;

/// Rows by the hash of their key. Does not know the keys: whoever asks says whether a row is the
/// one.
#[derive(Clone)]
pub struct Index {
    /// Pages of entries: hash (32 bits) | row + 1 (32 bits); 0 vacant. An entry belongs at the last
    /// bits of its hash, or in the first vacant place behind that.
    entries: Box<[Page]>,
    /// Page by the first [`Index::depth`] bits of a hash.
    directory: Box<[u32]>,
    /// By page, how many first bits of the hash all its entries have in common.
    common: Box<[u8]>,
    depth: u32,
    pages: usize,
}

/// An array, so that positions in it need no check.
type Page = [u64; PAGE];

#[inline(always)]
fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// How far behind `from` a position is, going round.
#[inline(always)]
fn distance(from: usize, to: usize) -> usize {
    to.wrapping_sub(from) % PAGE
}

#[inline(always)]
fn belongs(entry: u64) -> usize {
    hash_of(entry) as usize % PAGE
}

#[inline(always)]
fn entry(hash: u32, row: usize) -> u64 {
    u64::from(hash) << 32 | (row as u64 + 1)
}

/// Where an entry is, until another one comes or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    page: usize,
    at: usize,
}

/// Where there is room for an entry, until another one comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Here.
    At(Spot),
    /// Only far from where it belongs.
    Far,
}

/// The hash of a key of 64 bits.
#[inline(always)]
pub fn hash(key: u64) -> u32 {
    // Both halves of the product: every bit of the key reaches every part of the hash.
    let product = u128::from(key) * 0x9e37_79b9_7f4a_7c15;
    let folded = (product >> 64) as u64 ^ product as u64;
    (folded >> 32) as u32 ^ folded as u32
}

impl Index {
    /// For a table of so many rows. The memory is asked for zeroed and touched where it is used;
    /// `None` if it cannot be had.
    pub fn for_rows(rows: usize) -> Option<Index> {
        // While a table fills, pages are 40 to 80 % full when their time comes to be split. (Less later: they
        // are never joined. Without room for another, the last ones fill up.)
        let pages = (rows * 3).div_ceil(PAGE) + 4;
        let depth = pages.next_power_of_two().trailing_zeros() + 3;
        Some(Index {
            entries: bytemuck::try_zeroed_slice_box(pages).ok()?,
            directory: bytemuck::try_zeroed_slice_box(1 << depth).ok()?,
            common: bytemuck::try_zeroed_slice_box(pages).ok()?,
            depth: 0,
            pages: 1,
        })
    }

    #[inline(always)]
    fn page_number(&self, hash: u32) -> usize {
        let at = (u64::from(hash) << self.depth >> 32) as usize;
        self.directory.get(at).map_or(0, |&page| page as usize)
    }

    /// The row with this hash of which `is` says that it is the one; or else where it would be found.
    #[inline(always)]
    pub fn find(&self, hash: u32, is: impl Fn(usize) -> bool) -> Result<(usize, Spot), Gap> {
        let number = self.page_number(hash);
        let Some(page) = self.entries.get(number) else {
            return Err(Gap::Far);
        };
        for step in 0..PAGE {
            let at = (hash as usize).wrapping_add(step) % PAGE;
            let (entry, spot) = (page[at], Spot { page: number, at });
            if entry == 0 {
                return Err(match step < FAR {
                    true => Gap::At(spot),
                    false => Gap::Far,
                });
            }
            let row = (entry as u32).wrapping_sub(1) as usize;
            if hash_of(entry) == hash && is(row) {
                return Ok((row, spot));
            }
        }
        Err(Gap::Far)
    }

    /// From now on a row is found under this hash; `gap` is what the search for it came to just now.
    /// False if there is no room for it.
    #[inline(always)]
    pub fn insert(&mut self, gap: Gap, hash: u32, row: usize) -> bool {
        let entry = entry(hash, row);
        if row >= u32::MAX as usize {
            return false;
        }
        if let Gap::At(Spot { page, at }) = gap
            && let Some(vacant @ 0) = self.entries.get_mut(page).map(|page| &mut page[at % PAGE])
        {
            *vacant = entry;
            return true;
        }
        self.insert_slowly(hash, entry)
    }

    #[cold]
    #[inline(never)]
    fn insert_slowly(&mut self, hash: u32, entry: u64) -> bool {
        loop {
            let may_be_far = !self.split(hash);
            let number = self.page_number(hash);
            let Some(page) = self.entries.get_mut(number) else {
                return false;
            };
            if put(page, entry, if may_be_far { PAGE } else { FAR }) {
                return true;
            }
            if may_be_far {
                return false;
            }
        }
    }

    /// Splits the page that a hash belongs to; false if there is no room for another.
    fn split(&mut self, hash: u32) -> bool {
        let (old, new) = (self.page_number(hash), self.pages);
        let Some(&common) = self.common.get(old) else {
            return false;
        };
        let common = u32::from(common);
        if new >= self.common.len() || (common == self.depth && !self.double()) {
            return false;
        }
        // Both pages at once, the new one being the later.
        let (before, from) = self.entries.split_at_mut(new);
        let (Some(old_page), Some(new_page)) = (before.get_mut(old), from.first_mut()) else {
            return false;
        };
        let mut at = 0;
        while at < PAGE {
            let entry = old_page[at];
            if entry != 0 && hash_of(entry) << common >> 31 == 1 {
                put(new_page, entry, PAGE);
                // What comes to stand here is looked at as well; what was looked at only moves to
                // where everything was.
                take(old_page, at);
            } else {
                at += 1;
            }
        }
        self.pages += 1;
        self.common[old] = common as u8 + 1;
        self.common[new] = common as u8 + 1;
        let share = 1usize << (self.depth - common);
        let first = (u64::from(hash) << common >> 32) as usize * share;
        for at in first + share / 2..first + share {
            self.directory[at] = new as u32;
        }
        true
    }

    /// Makes the directory tell one more bit apart; false if it is as large as it may be.
    fn double(&mut self) -> bool {
        let now = 1usize << self.depth;
        if now * 2 > self.directory.len() {
            return false;
        }
        for at in (0..now).rev() {
            let page = self.directory[at];
            self.directory[at * 2] = page;
            self.directory[at * 2 + 1] = page;
        }
        self.depth += 1;
        true
    }

    /// A row is not found under this hash any more; `last` is where it was found last.
    #[inline(always)]
    pub fn remove(&mut self, last: Spot, hash: u32, row: usize) {
        let entry = entry(hash, row);
        let holds = |spot: &Spot| self.entries.get(spot.page).map(|page| page[spot.at % PAGE]);
        let spot = match holds(&last) == Some(entry) {
            true => Some(last),
            false => self
                .find(hash, |found| found == row)
                .ok()
                .map(|(_, spot)| spot),
        };
        if let Some(Spot { page, at }) = spot
            && let Some(page) = self.entries.get_mut(page)
        {
            take(page, at % PAGE);
        }
    }
}

/// Puts an entry into the first vacant place at or behind where it belongs, at most `far` behind.
#[inline(always)]
fn put(page: &mut Page, entry: u64, far: usize) -> bool {
    for step in 0..far {
        let at = (belongs(entry) + step) % PAGE;
        if page[at] == 0 {
            page[at] = entry;
            return true;
        }
    }
    false
}

/// Takes an entry out and closes the gap, so that searches end at the first vacant place.
#[inline(always)]
fn take(page: &mut Page, at: usize) {
    let mut gap = at;
    for step in 1..PAGE {
        let next = (at + step) % PAGE;
        let entry = page[next];
        if entry == 0 {
            break;
        }
        // It may move up if that is not before where it belongs.
        if distance(belongs(entry), next) >= distance(gap, next) {
            page[gap] = entry;
            gap = next;
        }
    }
    page[gap] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    impl Index {
        fn put(&mut self, hash: u32, row: usize) -> bool {
            let gap = self.find(hash, |at| at == row).unwrap_err();
            self.insert(gap, hash, row)
        }

        fn has(&self, hash: u32, row: usize) -> bool {
            self.find(hash, |at| at == row)
                .is_ok_and(|(found, _)| found == row)
        }

        fn drop(&mut self, hash: u32, row: usize) {
            let last = Spot {
                page: 0,
                at: row % PAGE,
            };
            self.remove(last, hash, row);
        }
    }

    #[test]
    fn it_grows_with_what_is_in_it() {
        let rows = 100_000;
        let mut index = Index::for_rows(rows).unwrap();
        let key = |row: usize| 0x7f00_0000_0000 + row as u64 * 512;
        for row in 0..rows {
            assert!(index.put(hash(key(row)), row), "{row}");
            if row == 150 {
                assert_eq!(index.pages, 1);
            }
        }
        let share = rows as f64 / (index.pages * PAGE) as f64;
        assert!(share > 0.35, "{share}");
        for row in 0..rows {
            assert!(index.has(hash(key(row)), row));
        }
        for row in 0..rows {
            index.drop(hash(key(row)), row);
        }
        assert!(index.entries.as_flattened().iter().all(|&entry| entry == 0));
    }

    /// A program that may not have much memory is not ended for it.
    #[test]
    #[cfg_attr(miri, ignore = "has no end of memory")]
    fn memory_that_cannot_be_had_is_said() {
        assert!(Index::for_rows(1 << 45).is_none());
    }

    #[test]
    fn without_room_for_another_page_the_last_ones_fill_up() {
        let mut index = Index::for_rows(1).unwrap();
        let room = index.common.len() * PAGE;
        let mut held = Vec::new();
        for row in 0..2 * room {
            if index.put(hash(row as u64), row) {
                held.push(row);
            }
        }
        assert!(held.len() > room / 2);
        for &row in &held {
            assert!(index.has(hash(row as u64), row));
            index.drop(hash(row as u64), row);
        }
        assert!(index.entries.as_flattened().iter().all(|&entry| entry == 0));
    }

    #[test]
    fn as_many_of_one_hash_as_a_page_has() {
        let mut index = Index::for_rows(10_000).unwrap();
        let held: Vec<usize> = (0..2000).filter(|&row| index.put(7, row)).collect();
        assert_eq!(held.len(), PAGE);
        assert!(index.has(7, 511));
        assert!(index.find(8, |_| true).is_err());
        held.iter().for_each(|&row| index.drop(7, row));
        assert!(index.find(7, |_| true).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a set, with hashes that often meet.
        #[test]
        fn as_a_set_has_it(
            steps in proptest::collection::vec((any::<bool>(), 0u32..600, 0u32..3), 0..3000),
            spread in prop_oneof![Just(1u32), Just(1 << 9), Just(1 << 23), Just(0x9e37_79b9)],
        ) {
            let mut index = Index::for_rows(700).unwrap();
            let mut held = HashSet::new();
            for (inserts, which, twin) in steps {
                let hash = which.wrapping_mul(spread);
                let row = (which * 3 + twin) as usize;
                if inserts && !held.contains(&(hash, row)) {
                    // Hashes that begin alike may fill the one page that they can lie in.
                    let found_room = index.put(hash, row);
                    prop_assert!(found_room || spread < 1 << 23);
                    if found_room {
                        held.insert((hash, row));
                    }
                } else if !inserts {
                    index.drop(hash, row);
                    held.remove(&(hash, row));
                }
                prop_assert_eq!(
                    index.has(hash, row),
                    held.contains(&(hash, row))
                );
            }
            for &(hash, row) in &held {
                prop_assert!(index.has(hash, row));
            }
            let entries = index.entries.as_flattened().iter().filter(|&&entry| entry != 0).count();
            prop_assert_eq!(entries, held.len());
        }
    }
}
