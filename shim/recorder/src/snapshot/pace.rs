//! How often snapshots are taken.

/// At most so many in quick succession.
const AT_ONCE: u32 = 4;
/// One more every so often, nanoseconds.
const EVERY: u64 = 1_000_000_000;
/// A thread that fails again within this time, at the same size or in a framework that gives up
/// after its driver's failure, fails for the reason that the last snapshot shows.
const SAME: u64 = 1_000_000_000;

/// Lets the first few through, and then one a second.
pub struct Pace {
    left: u32,
    since: u64,
    last: Option<(u32, Option<u64>, u64)>,
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
    /// Whether it is time for one: `thread` asked for so many bytes (`None`: a framework gave up)
    /// at the time `now`, nanoseconds.
    pub fn lets_through(&mut self, thread: u32, asked: Option<u64>, now: u64) -> bool {
        if let Some((last_thread, last_asked, at)) = self.last
            && last_thread == thread
            && (asked.is_none() || asked == last_asked)
            && now.saturating_sub(at) < SAME
        {
            return false;
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
        self.last = Some((thread, asked, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_storm_gets_a_few_and_then_one_a_second() {
        let mut pace = Pace::default();
        let start = 5_000 * MS;
        let taken = (0..10_000)
            .filter(|n| pace.lets_through(1, Some(n * 512), start + n * MS))
            .count();
        assert_eq!(taken, 4 + 9);
    }

    #[test]
    fn retries_of_one_allocation_are_one() {
        let mut pace = Pace::default();
        let start = 5_000 * MS;
        // The driver fails, fails again with an emptied cache, and PyTorch gives up.
        assert!(pace.lets_through(1, Some(512), start));
        assert!(!pace.lets_through(1, Some(512), start + MS));
        assert!(!pace.lets_through(1, None, start + 2 * MS));
        // Another thread's, another size, much later.
        assert!(pace.lets_through(2, Some(512), start + 3 * MS));
        assert!(pace.lets_through(1, Some(1024), start + 4 * MS));
        assert!(pace.lets_through(1, Some(1024), start + 1500 * MS));
    }

    #[test]
    fn a_framework_that_gives_up_on_its_own_is_one() {
        let mut pace = Pace::default();
        assert!(pace.lets_through(1, None, 5_000 * MS));
        assert!(!pace.lets_through(1, None, 5_001 * MS));
    }
}
