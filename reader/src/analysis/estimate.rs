//! What sampled stacks stand for: estimates of what every stack holds, each with an interval.
//!
//! An allocation that was sampled with the probability p stands for 1 / p of its kind, so that the sum of
//! size / p over what is known of a stack is right on average, with a variance of which the sum of
//! size² (1 - p) / p² is an estimate that is right on average, too. What was taken for certain stands for
//! itself and adds nothing to either.
//!
//! The interval is the score interval of a Poisson distribution, scaled to the estimate: for many samples it
//! is the one of the normal distribution, for few it is as lopsided as what few samples say. Its lower end
//! goes by samples of the mean weight that mean and variance have. Its upper end goes by the heaviest
//! sample, with half a sample of that weight more: where sizes differ much, the allocations that weigh most
//! are the ones of which few were sampled, and an estimate that is too low has a variance that is too low,
//! since it is low for lack of those.
//!
//! Sums by stack keep estimates but no variances; for them the largest is taken that the coarsest interval in
//! force allows, so that those intervals are wider than they would have to be.

use super::Sum;
use vramtrace_format::Record;
use vramtrace_format::sampling::{COUNT_BITS, probability};
use vramtrace_format::totals::Sampled;

/// 97.5 % of a normal distribution lie below it.
const Z: f64 = 1.959_963_984_540_054;
/// Of an allocation that was sampled, size / p is at most so many intervals.
const LARGEST: f64 = 1.582;

/// Estimates that are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weighted {
    /// Of bytes.
    bytes: Part,
    /// Of allocations.
    count: Part,
    /// Part of it has no estimate of allocations.
    uncounted: bool,
}

/// One quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    /// What was sampled with a probability below 1.
    own: f64,
    /// What it stands for, itself included.
    stands_for: f64,
    variance: f64,
    /// Variance that the heaviest sample adds for each unit that it stands for.
    heaviest: f64,
}

impl Part {
    fn merge(&mut self, other: Part) {
        self.own += other.own;
        self.stands_for += other.stands_for;
        self.variance += other.variance;
        self.heaviest = self.heaviest.max(other.heaviest);
    }

    /// With `exact`, of which this was sampled.
    fn value(&self, exact: u64) -> Value {
        let exact = exact as f64;
        let rest = (exact - self.own).max(0.0);
        let at = |stands_for: f64| whole(rest + stands_for.max(self.own));
        if self.variance <= 0.0 || self.stands_for <= 0.0 {
            let estimate = at(self.stands_for);
            return Value {
                estimate,
                low: estimate,
                high: estimate,
            };
        }
        // As many samples of equal size would have this mean and this variance.
        let mean = self.variance / self.stands_for;
        // Rounding apart, no mean is above the largest.
        let heaviest = self.heaviest.max(mean);
        let more = heaviest / 2.0;
        let reach = |variance: f64, weight: f64| Z * (variance + (Z * weight / 2.0).powi(2)).sqrt();
        let middle = |weight: f64| self.stands_for + Z * Z / 2.0 * weight;
        let upper = self.variance + more * heaviest;
        Value {
            estimate: at(self.stands_for),
            low: at(middle(mean) - reach(self.variance, mean)),
            high: at(middle(heaviest) + more + reach(upper, heaviest)),
        }
    }
}

fn whole(number: f64) -> u64 {
    // Saturates, and no number is 0.
    number.round() as u64
}

/// A number that is estimated, and between what it is with 95 % probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The estimate.
    pub estimate: u64,
    /// Lower end.
    pub low: u64,
    /// Upper end.
    pub high: u64,
}

impl Value {
    /// A number that is known.
    pub fn exact(number: u64) -> Value {
        Value {
            estimate: number,
            low: number,
            high: number,
        }
    }

    /// How far below the estimate it may be.
    pub fn below(&self) -> u64 {
        self.estimate.saturating_sub(self.low)
    }

    /// How far above the estimate it may be.
    pub fn above(&self) -> u64 {
        self.high.saturating_sub(self.estimate)
    }

    /// The sum of two whose errors do not depend on each other: their squares add up.
    pub fn plus(self, other: Value) -> Value {
        let estimate = self.estimate.saturating_add(other.estimate);
        let reach = |one: u64, other: u64| whole((one as f64).hypot(other as f64));
        Value {
            estimate,
            low: estimate.saturating_sub(reach(self.below(), other.below())),
            high: estimate.saturating_add(reach(self.above(), other.above())),
        }
    }
}

/// Most bytes that a stack may hold, with 97.5 % probability, of which no allocation was sampled: the upper end of the
/// interval for no sample. `coarsest` is the coarsest interval that was ever in force, bytes.
pub fn unseen(coarsest: u64) -> u64 {
    whole(Z * Z * LARGEST * coarsest as f64)
}

/// What a group or a stack holds, as far as samples say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes.
    pub bytes: Value,
    /// Allocations; `None` where that is not estimated.
    pub count: Option<Value>,
}

impl Weighted {
    /// What one allocation, or the event that ended it, stands for.
    pub fn of(record: &Record) -> Weighted {
        if record.sampled == 0 {
            return Weighted::default();
        }
        let p = probability(record.size, record.sampled);
        if p >= 1.0 {
            return Weighted::default();
        }
        let (size, weight) = (record.size.max(1) as f64, 1.0 / p);
        let part = |own: f64| Part {
            own,
            stands_for: own * weight,
            variance: own * own * weight * (weight - 1.0),
            heaviest: own * (weight - 1.0),
        };
        Weighted {
            bytes: part(size),
            count: part(1.0),
            uncounted: false,
        }
    }

    /// What so many bytes of a row stand for beyond themselves; `coarsest` is the coarsest interval, in
    /// bytes, that was ever in force.
    pub fn of_bytes(more: u64, coarsest: u64) -> Weighted {
        if more == 0 {
            return Weighted::default();
        }
        let more = more as f64;
        Weighted {
            bytes: Part {
                own: 0.0,
                stands_for: more,
                variance: LARGEST * coarsest.max(1) as f64 * more,
                heaviest: coarsest as f64,
            },
            count: Part::default(),
            uncounted: true,
        }
    }

    /// What all allocations that a row ever counted stand for beyond themselves.
    pub fn of_all_made(row: &Sampled, coarsest: u64) -> Weighted {
        let mut weighted = Weighted::of_bytes(row.alloc_bytes, coarsest);
        weighted.count.stands_for = row.alloc_count as f64 / f64::from(1 << COUNT_BITS);
        weighted
    }

    /// Adds another.
    pub fn merge(&mut self, other: Weighted) {
        self.bytes.merge(other.bytes);
        self.count.merge(other.count);
        self.uncounted |= other.uncounted;
    }

    /// Whether nothing of it is an estimate.
    pub fn is_exact(&self) -> bool {
        self.bytes.stands_for <= 0.0
    }

    /// Bytes that one item of `bytes` stands for, itself included.
    pub fn bytes_with(&self, bytes: u64) -> u64 {
        whole(bytes as f64 - self.bytes.own + self.bytes.stands_for)
    }

    /// What is held where so much of it is known; `None` if that is all there is.
    pub fn estimate(&self, known: Sum) -> Option<Estimate> {
        (!self.is_exact()).then(|| Estimate {
            bytes: self.bytes.value(known.bytes),
            count: (!self.uncounted).then(|| self.count.value(known.count)),
        })
    }

    /// The numbers alone, for pictures and profiles: what is known, or its estimate.
    pub fn scaled(&self, known: Sum) -> Sum {
        let more = |part: &Part| whole((part.stands_for - part.own).max(0.0));
        Sum {
            bytes: known.bytes.saturating_add(more(&self.bytes)),
            count: known.count.saturating_add(more(&self.count)),
        }
    }
}

impl Estimate {
    /// The numbers alone; `known` where one is not estimated.
    pub fn sum(&self, known: Sum) -> Sum {
        Sum {
            bytes: self.bytes.estimate,
            count: self.count.map_or(known.count, |count| count.estimate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::sampling::step_of;

    #[test]
    fn what_was_taken_for_certain_stands_for_itself() {
        let known = Sum {
            bytes: 4096,
            count: 1,
        };
        for sampled in [0, step_of(4096), step_of(1)] {
            let record = Record {
                size: 4096,
                sampled,
                ..Record::default()
            };
            assert_eq!(Weighted::of(&record).estimate(known), None);
        }
    }

    #[test]
    fn one_of_few_samples_says_little() {
        let record = Record {
            size: 512,
            sampled: step_of(1 << 20),
            ..Record::default()
        };
        let estimate = Weighted::of(&record).estimate(Sum {
            bytes: 512,
            count: 1,
        });
        let estimate = estimate.unwrap();
        assert!(estimate.bytes.estimate.abs_diff(1 << 20) < 1024);
        assert!(estimate.bytes.low < 250_000 && estimate.bytes.low >= 512);
        assert!(estimate.bytes.high > 5 << 20 && estimate.bytes.high < 7 << 20);
        let count = estimate.count.unwrap();
        assert!(count.low >= 1 && count.estimate.abs_diff(2048) < 3);
    }

    #[test]
    fn nothing_that_a_file_says_overflows() {
        for size in [0, 1, u64::MAX] {
            for sampled in [0, 1, 95, 96, 255] {
                let record = Record {
                    size,
                    sampled,
                    ..Record::default()
                };
                let mut weighted = Weighted::of(&record);
                weighted.merge(Weighted::of_bytes(size, u64::MAX));
                weighted.merge(Weighted::of_all_made(
                    &Sampled {
                        alloc_bytes: size,
                        alloc_count: size,
                        ..Sampled::default()
                    },
                    size,
                ));
                let known = Sum {
                    bytes: size,
                    count: size,
                };
                weighted.estimate(known);
                weighted.scaled(known);
                weighted.bytes_with(size);
            }
        }
    }
}
