//! What a group holds on one side, and by how much it differs from the other: certain where every stack was
//! taken, an estimate with an interval where stacks were sampled.

use crate::analysis::Sum;
use crate::analysis::estimate::{Estimate, Value};
use crate::analysis::leaks::Group;

/// What is held: what is known, and what that stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What is known: all of it, where stacks were not sampled.
    pub known: Sum,
    /// What that stands for.
    pub estimate: Option<Estimate>,
}

impl Size {
    /// Of a group.
    pub fn of(group: &Group) -> Size {
        Size {
            known: Sum {
                bytes: group.bytes,
                count: group.count,
            },
            estimate: group.estimate,
        }
    }

    /// Nothing is known of it, where stacks were sampled: as much as may have been there without a sample.
    pub fn unseen(most: u64) -> Size {
        let none = Size::default();
        if most == 0 {
            return none;
        }
        Size {
            estimate: Some(Estimate {
                bytes: Value {
                    estimate: 0,
                    low: 0,
                    high: most,
                },
                count: None,
            }),
            ..none
        }
    }

    /// Together with another.
    pub fn with(self, other: Size) -> Size {
        let estimate = (self.estimate.is_some() || other.estimate.is_some()).then(|| Estimate {
            bytes: self.bytes().plus(other.bytes()),
            count: self.count().zip(other.count()).map(|(a, b)| a.plus(b)),
        });
        let mut known = self.known;
        known.merge(other.known);
        Size { known, estimate }
    }

    /// What is known, or its estimate.
    pub fn sum(&self) -> Sum {
        let known = self.known;
        self.estimate.map_or(known, |estimate| estimate.sum(known))
    }

    /// Bytes, and between what they are.
    pub fn bytes(&self) -> Value {
        let known = Value::exact(self.known.bytes);
        self.estimate.map_or(known, |estimate| estimate.bytes)
    }

    fn count(&self) -> Option<Value> {
        match self.estimate {
            Some(estimate) => estimate.count,
            None => Some(Value::exact(self.known.count)),
        }
    }
}

/// By how many bytes one is more than the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// What is known, or the estimate.
    pub bytes: i128,
    /// With 95 % probability it is at least this.
    pub low: i128,
    /// And at most this.
    pub high: i128,
}

impl Delta {
    /// After less before.
    pub fn between(before: &Size, after: &Size) -> Delta {
        let (before, after) = (before.bytes(), after.bytes());
        let bytes = i128::from(after.estimate) - i128::from(before.estimate);
        // Errors of two runs do not depend on each other: their squares add up (Zou and Donner 2008, who call it
        // MOVER, for intervals that are lopsided).
        Delta {
            bytes,
            low: bytes - reach(after.below(), before.above()),
            high: bytes + reach(after.above(), before.below()),
        }
    }

    /// Whether it is an estimate.
    pub fn is_estimate(&self) -> bool {
        self.low != self.high
    }
}

fn reach(one: u64, other: u64) -> i128 {
    // Saturates, and no number is 0.
    (one as f64).hypot(other as f64).round() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(estimate: u64, low: u64, high: u64) -> Size {
        Size {
            known: Sum { bytes: 1, count: 1 },
            estimate: Some(Estimate {
                bytes: Value {
                    estimate,
                    low,
                    high,
                },
                count: None,
            }),
        }
    }

    fn certain(bytes: u64) -> Size {
        Size {
            known: Sum { bytes, count: 1 },
            estimate: None,
        }
    }

    #[test]
    fn what_is_certain_has_no_interval() {
        let delta = Delta::between(&certain(30), &certain(10));
        assert_eq!((delta.bytes, delta.low, delta.high), (-20, -20, -20));
        assert!(!delta.is_estimate());
    }

    #[test]
    fn errors_of_both_sides_count() {
        let delta = Delta::between(&about(100, 70, 140), &about(200, 170, 260));
        // 30 below 200, and 40 above 100; 60 above 200, and 30 below 100.
        assert_eq!((delta.bytes, delta.low, delta.high), (100, 50, 167));
        let delta = Delta::between(&certain(100), &about(200, 170, 260));
        assert_eq!((delta.low, delta.high), (70, 160));
    }

    #[test]
    fn what_was_not_seen_may_have_been_there() {
        let delta = Delta::between(&Size::unseen(500), &about(200, 170, 260));
        assert!(delta.bytes == 200 && delta.low < 0);
        assert_eq!(Size::unseen(0), Size::default());
    }

    #[test]
    fn several_processes_are_one() {
        let both = about(100, 70, 140)
            .with(about(200, 160, 230))
            .with(certain(50));
        let bytes = both.bytes();
        assert_eq!((bytes.estimate, bytes.low, bytes.high), (350, 300, 400));
        assert_eq!(
            both.known,
            Sum {
                bytes: 52,
                count: 3
            }
        );
        // Nothing that a file says overflows.
        let most = about(u64::MAX, 0, u64::MAX);
        most.with(most).with(certain(u64::MAX));
        Delta::between(&most, &Size::unseen(u64::MAX));
    }
}
