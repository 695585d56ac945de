//! Shares where stacks were sampled: what was not sampled goes to the stacks that stand for it.
//!
//! Pictures and profiles are sums that have to add up to what is exact, so what was not sampled of a
//! device, kind and API is divided among the stacks that were, in proportion to what their samples stand
//! for. Where none was sampled it stays what it is.

use super::{Key, Shares};
use crate::analysis::Sum;
use crate::analysis::estimate::Weighted;
use rustc_hash::FxHashMap;
use vramtrace_format::stacks::NOT_SAMPLED;

/// Shares as they are known, each with what it stands for.
#[derive(Default)]
pub(super) struct Gathered(FxHashMap<Key, (Sum, Weighted)>);

impl Gathered {
    /// Adds to a share.
    pub fn add(&mut self, key: Key, sum: Sum, weighted: Weighted) {
        if sum != Sum::default() {
            let (known, stands_for) = self.0.entry(key).or_default();
            known.merge(sum);
            stands_for.merge(weighted);
        }
    }

    /// All shares, which add up to what was added.
    pub fn finish(self) -> Shares {
        let mut shares: Vec<(Key, Sum, Weighted)> = self
            .0
            .into_iter()
            .map(|(key, (sum, weighted))| (key, sum, weighted))
            .collect();
        shares.sort_unstable_by_key(|(key, ..)| *key);
        // By what is alike, whatever the stack; once more without the API, for which there may be
        // no sample.
        spread(&mut shares, |key| Key { stack: 0, ..*key });
        spread(&mut shares, |key| Key {
            stack: 0,
            api: 0,
            ..*key
        });
        let held = shares.into_iter().map(|(key, sum, _)| (key, sum));
        held.filter(|(_, sum)| *sum != Sum::default()).collect()
    }
}

fn spread(shares: &mut [(Key, Sum, Weighted)], alike: impl Fn(&Key) -> Key) {
    let mut samples: FxHashMap<Key, Vec<usize>> = FxHashMap::default();
    if !shares.iter().any(|(key, ..)| key.stack == NOT_SAMPLED) {
        return;
    }
    for (at, (key, _, weighted)) in shares.iter().enumerate() {
        if key.stack != NOT_SAMPLED && !weighted.is_exact() {
            samples.entry(alike(key)).or_default().push(at);
        }
    }
    for at in 0..shares.len() {
        let (key, rest, _) = shares[at];
        let Some(samples) = samples
            .get(&alike(&key))
            .filter(|_| key.stack == NOT_SAMPLED)
        else {
            continue;
        };
        let more = |at: usize| {
            let (_, known, weighted) = &shares[at];
            let scaled = weighted.scaled(*known);
            [scaled.bytes - known.bytes, scaled.count - known.count]
        };
        let more: Vec<[u64; 2]> = samples.iter().map(|&at| more(at)).collect();
        let bytes = divide(rest.bytes, more.iter().map(|more| more[0]));
        // Sums by stack do not know how many allocations a peak's samples stand for.
        let count = divide(rest.count, more.iter().map(|more| more[1]));
        let count = count.or_else(|| divide(rest.count, more.iter().map(|more| more[0])));
        let (Some(bytes), Some(count)) = (bytes, count) else {
            continue;
        };
        for ((&at, bytes), count) in samples.iter().zip(bytes).zip(count) {
            shares[at].1.add(bytes, count);
        }
        shares[at].1 = Sum::default();
    }
}

/// Divides a number in proportion to others, so that the parts add up to it; `None` where all of those
/// are 0.
fn divide(number: u64, by: impl Iterator<Item = u64> + Clone) -> Option<Vec<u64>> {
    let mut left: u128 = by.clone().map(u128::from).sum();
    let mut rest = u128::from(number);
    if left == 0 {
        return None;
    }
    let part = |part: u64| {
        // Of what is left: what is rounded here is not lost for those that follow.
        let share = (rest * u128::from(part)).checked_div(left).unwrap_or(0);
        rest -= share;
        left -= u128::from(part);
        share as u64
    };
    Some(by.map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::leaks::EntryEnd;
    use vramtrace_format::Record;
    use vramtrace_format::record::Kind;
    use vramtrace_format::sampling::step_of;

    fn key(stack: u32, api: u16) -> Key {
        Key {
            device: 0,
            kind: Kind::Async,
            end: EntryEnd::Live,
            stack,
            api,
            extra: None,
        }
    }

    fn sum(bytes: u64, count: u64) -> Sum {
        Sum { bytes, count }
    }

    #[test]
    fn shares_add_up_to_what_was_added() {
        let mut gathered = Gathered::default();
        let sampled = |size| {
            Weighted::of(&Record {
                size,
                sampled: step_of(64 << 10),
                ..Record::default()
            })
        };
        for _ in 0..30 {
            gathered.add(key(1, 2), sum(512, 1), sampled(512));
        }
        for _ in 0..10 {
            gathered.add(key(2, 2), sum(512, 1), sampled(512));
        }
        // Of another API there is no sample, and one stack was taken whole.
        gathered.add(key(3, 2), sum(1 << 20, 1), Weighted::default());
        gathered.add(
            key(NOT_SAMPLED, 2),
            sum(4_000_001, 7812),
            Weighted::default(),
        );
        gathered.add(key(NOT_SAMPLED, 9), sum(999, 3), Weighted::default());
        let shares: FxHashMap<u32, Sum> = gathered
            .finish()
            .into_iter()
            .map(|(key, sum)| (key.stack, sum))
            .collect();
        assert_eq!(shares.len(), 3);
        assert_eq!(shares[&3], sum(1 << 20, 1));
        let all = shares[&1].bytes + shares[&2].bytes;
        assert_eq!(all, 40 * 512 + 4_000_001 + 999);
        assert_eq!(shares[&1].count + shares[&2].count, 40 + 7812 + 3);
        assert!((shares[&1].bytes as f64 / shares[&2].bytes as f64 - 3.0).abs() < 0.01);
    }

    #[test]
    fn without_any_sample_it_stays_what_it_is() {
        let mut gathered = Gathered::default();
        gathered.add(key(NOT_SAMPLED, 2), sum(1000, 3), Weighted::default());
        gathered.add(key(1, 2), sum(5, 1), Weighted::default());
        let shares = gathered.finish();
        assert_eq!(
            shares,
            [(key(1, 2), sum(5, 1)), (key(NOT_SAMPLED, 2), sum(1000, 3))]
        );
    }
}
