//! Samples of one process on one device: bounded, however long the process runs.
//!
//! Each entry stands for the same number of samples and is the one among them where the process
//! had most. When there are too many, neighbours are joined and each stands for twice as many. So
//! the peak is never lost; the first and the last sample are kept besides.

use crate::model::UseSample;

/// Most entries, apart from first, last and the device's own peak.
pub const MOST: usize = 2000;

/// The samples that are left of all that were added.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// UUID of the device, as NVML has it.
    pub uuid: String,
    entries: Vec<UseSample>,
    /// How many samples an entry stands for, less one.
    more: u64,
    /// How many the newest entry stands for so far, less one.
    newest: u64,
    first: Option<UseSample>,
    last: Option<UseSample>,
    /// Where the device, by whomever, was fullest.
    fullest: Option<UseSample>,
}

impl Series {
    /// Of a device with this UUID.
    pub fn new(uuid: String) -> Series {
        Series {
            uuid,
            ..Series::default()
        }
    }

    /// Adds a sample, which is not older than the last.
    pub fn add(&mut self, sample: UseSample) {
        self.first.get_or_insert(sample);
        self.last = Some(sample);
        if self
            .fullest
            .is_none_or(|old| old.used_bytes < sample.used_bytes)
        {
            self.fullest = Some(sample);
        }
        match self.entries.last_mut() {
            Some(newest) if self.newest < self.more => {
                *newest = larger(*newest, sample);
                self.newest += 1;
            }
            _ => {
                if self.entries.len() == MOST {
                    self.halve();
                }
                self.entries.push(sample);
                self.newest = 0;
            }
        }
    }

    /// Joins neighbours.
    fn halve(&mut self) {
        let joined = self.entries.chunks(2).map(|pair| match *pair {
            [one, other] => larger(one, other),
            _ => pair[0],
        });
        self.entries = joined.collect();
        self.more = 2 * self.more + 1;
        self.newest = self.more;
    }

    /// What is left, oldest first.
    pub fn samples(&self) -> Vec<UseSample> {
        let others = [self.first, self.fullest, self.last];
        let mut samples = self.entries.clone();
        samples.extend(others.into_iter().flatten());
        samples.sort_by_key(|sample| sample.time);
        samples.dedup();
        samples
    }

    /// About half as many; false if there are too few for that.
    pub fn thin(&mut self) -> bool {
        let enough = self.entries.len() > 1;
        if enough {
            self.halve();
        }
        enough
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The one where the process had more, else the device; the earlier of equals.
fn larger(one: UseSample, other: UseSample) -> UseSample {
    let size = |sample: &UseSample| (sample.process_bytes, sample.used_bytes);
    if size(&other) > size(&one) {
        other
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(time: u64, process: Option<u64>, used: u64) -> UseSample {
        UseSample {
            time,
            process_bytes: process,
            used_bytes: used,
            ..UseSample::default()
        }
    }

    fn check(added: &[UseSample], left: &[UseSample]) {
        assert!(left.len() <= MOST + 3, "{}", left.len());
        assert!(left.windows(2).all(|pair| pair[0].time < pair[1].time));
        assert!(left.iter().all(|one| added.contains(one)));
        assert_eq!(left.first(), added.first());
        assert_eq!(left.last(), added.last());
        let most = |all: &[UseSample]| all.iter().map(|one| one.process_bytes).max();
        assert_eq!(most(left), most(added));
        let fullest = |all: &[UseSample]| all.iter().map(|one| one.used_bytes).max();
        assert_eq!(fullest(left), fullest(added));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn first_last_and_peaks_stay(
            values in prop::collection::vec((prop::option::of(0u64..1000), 0u64..1000), 1..9000),
            thinned in 0usize..14,
        ) {
            let mut series = Series::default();
            let mut added = Vec::new();
            for (time, (process, used)) in values.into_iter().enumerate() {
                let one = sample(time as u64, process, used);
                series.add(one);
                added.push(one);
            }
            for _ in 0..thinned {
                series.thin();
            }
            check(&added, &series.samples());
        }
    }

    #[test]
    fn few_samples_all_stay_and_many_stay_spread_out() {
        let mut series = Series::default();
        let all: Vec<UseSample> = (0..MOST as u64)
            .map(|t| sample(t, Some(t % 7), 9))
            .collect();
        all.iter().for_each(|&one| series.add(one));
        assert_eq!(series.samples(), all);
        for time in MOST as u64..1_000_000 {
            series.add(sample(time, Some(5), 9));
        }
        let left = series.samples();
        assert!(left.len() > MOST / 2 - 2 && left.len() <= MOST + 3);
        // No stretch of the process's life is left out.
        let gap = left.windows(2).map(|pair| pair[1].time - pair[0].time);
        assert!(gap.max() <= Some(2048), "{left:?}");
    }

    #[test]
    fn thinning_ends() {
        let mut series = Series::default();
        assert!(!series.thin());
        (0..100).for_each(|time| series.add(sample(time, None, time)));
        let mut rounds = 0;
        while series.thin() {
            rounds += 1;
            assert!(rounds < 10);
        }
        assert!(series.samples().len() <= 4);
    }
}
