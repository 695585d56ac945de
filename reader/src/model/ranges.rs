//! NVTX ranges: what a program said that it was doing, by the numbers that its allocations carry.

use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::cold;
use vramtrace_format::ranges::pattern;

/// Deepest nesting that is shown; the recorder keeps no deeper ones.
const DEEPEST: usize = 80;
/// Bytes of a name beyond which ranges further out are left out. With the number of ranges it
/// bounds what a hostile file can make of a few records.
const LONGEST: usize = 4096;
/// Ranges that are looked at; the recorder has far fewer.
const MOST: u32 = 16_384;

/// All ranges that memory was allocated in.
#[derive(Debug, Default)]
pub struct Ranges {
    told: FxHashMap<u32, cold::Range>,
    entered: Vec<u64>,
    texts: FxHashMap<u32, String>,
    names: FxHashMap<u32, String>,
    by_name: FxHashMap<String, u64>,
}

impl Ranges {
    /// What a cold record says.
    pub(super) fn learn(&mut self, range: cold::Range) {
        if range.id < MOST {
            self.told.insert(range.id, range);
        }
    }

    /// How often each was entered, and nothing more is learned.
    pub(super) fn complete(&mut self, entered: Vec<u64>) {
        self.entered = entered;
        let open: FxHashSet<(&str, &str)> = self
            .told
            .values()
            .filter(|range| range.numbers)
            .map(|range| (range.domain.as_str(), range.text.as_str()))
            .collect();
        // Where a message became too many, those that had been kept apart belong to the others.
        let text = |range: &cold::Range| {
            let pattern = pattern(range.text.as_bytes())
                .and_then(|found| String::from_utf8(found.bytes().to_vec()).ok())
                .filter(|found| open.contains(&(range.domain.as_str(), found.as_str())));
            let text = pattern.unwrap_or_else(|| range.text.clone());
            let text = if text.is_empty() {
                "(unnamed)".to_owned()
            } else {
                text
            };
            match range.domain.as_str() {
                "" => text,
                domain => format!("{domain}: {text}"),
            }
        };
        let texts: FxHashMap<u32, String> = self
            .told
            .values()
            .map(|range| (range.id, text(range)))
            .collect();
        for &id in self.told.keys() {
            let mut parts = Vec::new();
            let mut length = 0;
            for at in self.outward(id) {
                let part = texts[&at].as_str();
                length += part.len();
                if length > LONGEST && !parts.is_empty() {
                    parts.push("…");
                    break;
                }
                parts.push(part);
            }
            parts.reverse();
            let name = parts.join(" > ");
            let entered = self.entered.get(id as usize).copied().unwrap_or(0);
            let all = self.by_name.entry(name.clone()).or_default();
            *all = all.saturating_add(entered);
            self.names.insert(id, name);
        }
        self.texts = texts;
    }

    /// A range and those around it. A hostile file may have rings of them.
    pub fn outward(&self, id: u32) -> impl Iterator<Item = u32> {
        let first = self.told.get(&id);
        let around = |range: &&cold::Range| self.told.get(&range.parent);
        std::iter::successors(first, around)
            .map(|range| range.id)
            .take(DEEPEST)
    }

    /// A range's own name, without those around it.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    /// Name of a range: those around it and its own, outermost first (`epoch 3 > forward`), each with
    /// its domain where that is not the default one.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// All names, by id.
    pub fn names(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names.iter().map(|(id, name)| (*id, name.as_str()))
    }

    /// How often the ranges of a name were entered.
    pub fn entered(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Ranges that are known.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: u32, parent: u32, domain: &str, text: &str) -> cold::Range {
        cold::Range {
            id,
            parent,
            domain: domain.into(),
            text: text.into(),
            numbers: text.contains('#'),
        }
    }

    fn known(ranges: impl IntoIterator<Item = cold::Range>, entered: &[u64]) -> Ranges {
        let mut known = Ranges::default();
        ranges.into_iter().for_each(|range| known.learn(range));
        known.complete(entered.to_vec());
        known
    }

    #[test]
    fn names_say_what_is_around() {
        let ranges = known(
            [
                range(2, 1, "", "forward"),
                range(1, 0, "", "epoch 3"),
                range(3, 2, "nccl", "allreduce"),
                range(4, 0, "", ""),
            ],
            &[7, 1, 20, 40],
        );
        assert_eq!(ranges.name(3), Some("epoch 3 > forward > nccl: allreduce"));
        assert_eq!((ranges.name(4), ranges.name(0)), (Some("(unnamed)"), None));
        assert_eq!(ranges.entered("epoch 3 > forward"), Some(20));
        assert_eq!(ranges.entered("(unnamed)"), Some(0));
    }

    #[test]
    fn those_that_became_too_many_are_one() {
        let ranges = known(
            [
                range(1, 0, "", "step 1"),
                range(2, 0, "", "step 22"),
                range(3, 0, "", "step #"),
                range(4, 1, "", "forward"),
                range(5, 3, "", "forward"),
                range(6, 3, "", "layer 3"),
                range(7, 0, "other", "step 3"),
            ],
            &[0, 1, 1, 1000, 5, 6, 7, 8],
        );
        let names: Vec<&str> = (1..8).filter_map(|id| ranges.name(id)).collect();
        assert_eq!(
            names,
            [
                "step #",
                "step #",
                "step #",
                "step # > forward",
                "step # > forward",
                "step # > layer 3",
                "other: step 3"
            ]
        );
        assert_eq!(ranges.entered("step #"), Some(1002));
        assert_eq!(ranges.entered("step # > forward"), Some(11));
    }

    #[test]
    fn long_names_begin_further_in() {
        let long = "x".repeat(1000);
        let ranges = known(
            (1..20).map(|id| range(id, id - 1, "", &format!("{long}{id}."))),
            &[],
        );
        let name = ranges.name(19).unwrap();
        assert!(name.len() < LONGEST + 100, "{}", name.len());
        assert!(name.starts_with("… > x") && name.ends_with("19."));
        let many = known((1..40_000).map(|id| range(id, 0, "", "x")), &[]);
        assert_eq!(many.len(), MOST as usize - 1);
    }

    #[test]
    fn rings_end() {
        let ranges = known(
            [
                range(1, 2, "", "a"),
                range(2, 1, "", "b"),
                range(3, 3, "", "c"),
            ],
            &[],
        );
        assert!(ranges.name(1).unwrap().len() < 1000);
        assert!(ranges.name(3).is_some());
    }
}
