//! How often snapshots are taken.

use super::OutOfMemory;

/// At most so many in quick succession.
const AT_ONCE: u32 = 4;
/// One more every so often, nanoseconds.
const EVERY: u64 = 1_000_000_000;
/// A thread that fails again within this time, at the same size or in a framework that gives up
/// after the driver's refusal, fails for the reason that the last snapshot shows.
const SAME: u64 = 1_000_000_000;

/// Lets the first few through, and then one a second.
pub struct Pace {
    left: u32,
    since: u64,
    last: Option<(u32, OutOfMemory, u64)>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            left: AT_ONCE,
            since: 0,
            last: None,
        }
    }
}

impl Pace {
    /// Whether it is time for one, of a failure in `thread` at the time `now`, nanoseconds.
    pub fn lets_through(&mut self, thread: u32, failure: &OutOfMemory, now: u64) -> bool {
        if let Some((last_thread, last, at)) = &self.last {
            let same = if failure.framework == last.framework {
                failure.asked == last.asked
            } else {
                failure.framework
            };
            if same && *last_thread == thread && now.saturating_sub(*at) < SAME {
                return false;
            }
        }
        let more = now.saturating_sub(self.since) / EVERY;
        if more > 0 {
            self.left = (u64::from(self.left) + more).min(u64::from(AT_ONCE)) as u32;
            self.since = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.last = Some((thread, *failure, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn driver(asked: u64) -> OutOfMemory {
        OutOfMemory {
            event: 1,
            asked,
            framework: false,
        }
    }

    fn framework(asked: u64) -> OutOfMemory {
        OutOfMemory {
            framework: true,
            ..driver(asked)
        }
    }

    #[test]
    fn a_storm_gets_a_few_and_then_one_a_second() {
        let mut pace = Pace::default();
        let start = 5_000 * MS;
        let taken = (0..10_000)
            .filter(|n| pace.lets_through(1, &driver(n * 512), start + n * MS))
            .count();
        assert_eq!(taken, 4 + 9);
    }

    #[test]
    fn retries_of_one_allocation_are_one() {
        let mut pace = Pace::default();
        let start = 5_000 * MS;
        // The driver fails, fails again with an emptied cache, and PyTorch gives up.
        assert!(pace.lets_through(1, &driver(512), start));
        assert!(!pace.lets_through(1, &driver(512), start + MS));
        assert!(!pace.lets_through(1, &framework(500), start + 2 * MS));
        // Another thread's, another size, much later.
        assert!(pace.lets_through(2, &driver(512), start + 3 * MS));
        assert!(pace.lets_through(1, &driver(1024), start + 4 * MS));
        assert!(pace.lets_through(1, &driver(1024), start + 1500 * MS));
    }

    #[test]
    fn a_framework_that_gives_up_on_its_own_is_one() {
        let mut pace = Pace::default();
        assert!(pace.lets_through(1, &framework(512), 5_000 * MS));
        assert!(!pace.lets_through(1, &framework(512), 5_001 * MS));
        assert!(pace.lets_through(1, &framework(1024), 5_002 * MS));
    }
}
