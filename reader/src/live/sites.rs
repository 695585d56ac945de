//! Which call stacks hold most, in bounded memory: the largest few rows of the totals, and then the
//! places that these are in.

use super::names::Named;
use super::sample::SiteSample;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use vramtrace_format::record::Kind;
use vramtrace_format::totals::Totals;

/// A stack, and the API function that was called there: what has a name.
pub type Place = (u32, u16);

/// A row of the totals, as far as it matters here. Ordered by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Live bytes with those that its sampled allocations stand for: an estimate where stacks are sampled.
    pub estimated_bytes: u64,
    /// Live bytes.
    pub live_bytes: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
    /// Ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Kind of memory.
    pub kind: Kind,
    /// Where.
    pub place: Place,
}

/// Keeps the largest.
pub struct Largest {
    room: usize,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Largest {
    /// At most so many.
    pub fn new(room: usize) -> Largest {
        Largest {
            room,
            heap: BinaryHeap::new(),
        }
    }

    /// One more row, of counted memory that is not ended.
    pub fn add(&mut self, row: &Totals, kind: Kind, device: Option<u8>) {
        let candidate = Candidate {
            estimated_bytes: row.live_bytes.saturating_add(row.sampled.live_bytes),
            live_bytes: row.live_bytes,
            allocated_bytes: row.alloc_bytes,
            live_count: row.live_count,
            device,
            kind,
            place: (row.key.stack, row.key.api),
        };
        self.heap.push(Reverse(candidate));
        if self.heap.len() > self.room {
            self.heap.pop();
        }
    }

    /// The largest first.
    pub fn finish(self) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = self.heap.into_iter().map(|Reverse(one)| one).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }
}

/// Puts together what is in one place by name, and keeps the `most` largest; those without a name are
/// left out.
pub fn by_name(
    candidates: &[Candidate],
    names: &FxHashMap<Place, Arc<Named>>,
    most: usize,
) -> Vec<SiteSample> {
    /// Live bytes and count, allocated bytes.
    type Sums = (u64, u64, u64);
    let mut merged: FxHashMap<(Option<u8>, Kind, &str), Sums> = FxHashMap::default();
    for one in candidates {
        let Some(name) = names.get(&one.place) else {
            continue;
        };
        let sums = merged
            .entry((one.device, one.kind, &name.site))
            .or_default();
        sums.0 = sums.0.saturating_add(one.live_bytes);
        sums.1 = sums.1.saturating_add(one.live_count);
        sums.2 = sums.2.saturating_add(one.allocated_bytes);
    }
    let mut sites: Vec<SiteSample> = merged
        .into_iter()
        .map(
            |((device, kind, name), (live_bytes, live_count, allocated_bytes))| SiteSample {
                device,
                kind,
                site: name.to_owned(),
                live_bytes,
                live_count,
                allocated_bytes,
            },
        )
        .collect();
    sites.sort_by(|a, b| {
        let size = |site: &SiteSample| (site.live_bytes, site.allocated_bytes);
        size(b)
            .cmp(&size(a))
            .then_with(|| (a.device, a.kind, &a.site).cmp(&(b.device, b.kind, &b.site)))
    });
    sites.truncate(most);
    sites
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::totals::TotalsKey;

    fn row(stack: u32, live_bytes: u64) -> Totals {
        Totals {
            key: TotalsKey {
                stack,
                used: 1,
                ..TotalsKey::default()
            },
            live_bytes,
            live_count: 1,
            alloc_bytes: live_bytes * 2,
            ..Totals::default()
        }
    }

    #[test]
    fn the_largest_stay_and_one_place_is_one_site() {
        let mut largest = Largest::new(3);
        for (stack, bytes) in [(1, 5), (2, 50), (3, 7), (4, 60), (5, 1)] {
            largest.add(&row(stack, bytes), Kind::Device, Some(0));
        }
        let found = largest.finish();
        let stacks: Vec<u32> = found.iter().map(|one| one.place.0).collect();
        assert_eq!(stacks, [4, 2, 3]);
        let named = Arc::new(Named {
            site: "f".to_owned(),
            ..Named::default()
        });
        let names: FxHashMap<Place, Arc<Named>> = [((2, 0), Arc::clone(&named)), ((3, 0), named)]
            .into_iter()
            .collect();
        let sites = by_name(&found, &names, 10);
        assert_eq!(sites.len(), 1);
        assert_eq!(
            (
                sites[0].live_bytes,
                sites[0].live_count,
                sites[0].allocated_bytes
            ),
            (57, 2, 114)
        );
    }
}
