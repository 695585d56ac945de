//! Event time: nanoseconds since the trace began, never going backwards.
//!
//! CLOCK_MONOTONIC is the truth. Reading the invariant time-stamp counter costs less than half as
//! much, so between two readings of the truth (one a second) the counter is scaled: the rate is
//! measured against the truth, drift is corrected each second, and a counter that jumps (a
//! virtual machine was moved or restored) is no longer believed.

use crate::counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long one reading of the truth is extrapolated.
const REBASE_NS: u64 = 1_000_000_000;
/// A rate is measured over at least this.
const CALIBRATE_NS: u64 = 50_000_000;
/// More disagreement than this between counter and truth over a second, and the counter is
/// given up. NTP slews by at most 500 ppm.
const TOLERANCE_NS: u64 = 2_000_000;
/// Fixed-point digits of the rate.
const SHIFT: u32 = 32;

/// The recorder's clock.
#[derive(Debug)]
pub struct Clock {
    start_ns: u64,
    last: u64,
    counter: Counter,
    /// Nanoseconds a tick, as [`Counter::Running`] has it, as far as it was ever known.
    rate: u64,
}

#[derive(Debug)]
enum Counter {
    /// No usable counter.
    None,
    /// CLOCK_MONOTONIC is what this says: tests live through weeks.
    Told(&'static AtomicU64),
    /// Waiting until a rate can be measured: counter and truth at the start.
    Calibrating { ticks: u64, ns: u64 },
    /// `ns + (ticks_now - ticks) * rate >> SHIFT`, until `limit` ticks have passed.
    Running {
        ticks: u64,
        ns: u64,
        rate: u64,
        limit: u64,
    },
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The same to within a few milliseconds, for the price of a memory read.
pub fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Unix time, nanoseconds.
pub fn unix_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// Unix time and CLOCK_MONOTONIC at one moment, nanoseconds: of a few tries the closest, as a thread can
/// lose its core between the two.
pub fn unix_and_monotonic_ns() -> (u64, u64) {
    let one = || {
        let before = monotonic_ns();
        let unix = unix_ns();
        let apart = monotonic_ns() - before;
        (apart, (unix, before + apart / 2))
    };
    let tries = (0..5).map(|_| one());
    tries.min().map_or((0, 0), |(_, moment)| moment)
}

fn clock_ns(id: libc::clockid_t) -> u64 {
    if counter::is_forbidden() {
        return nanoseconds(counter::clock_by_call(id));
    }
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec to write to; these clock ids exist on every Linux.
    unsafe { libc::clock_gettime(id, &mut now) };
    nanoseconds(now)
}

fn nanoseconds(now: libc::timespec) -> u64 {
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec as u32).as_nanos() as u64
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: rdtsc is unprivileged unless a process disables it for itself (PR_SET_TSC), which
    // `counter_is_usable` rules out before it is ever called; `forget_counter` is for later.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn ticks() -> u64 {
    0
}

/// Counter and truth at one moment. A thread can lose its core between the two readings, and the
/// difference would be believed for a second: of a few tries the closest counts.
fn both() -> (u64, u64) {
    const CLOSE: u64 = 2_000;
    let (mut best, mut closest) = ((0, 0), u64::MAX);
    for _ in 0..5 {
        let before = ticks();
        let ns = monotonic_ns();
        let apart = ticks().wrapping_sub(before);
        if apart < closest {
            (best, closest) = ((before + apart / 2, ns), apart);
        }
        if closest < CLOSE {
            break;
        }
    }
    best
}

/// The counter runs at one rate on all cores (CPUID says so, and the kernel keeps time by it or
/// by a paravirtual clock built on it), and this process may read it.
#[cfg(target_arch = "x86_64")]
fn counter_is_usable() -> bool {
    use core::arch::x86_64::__cpuid;
    let invariant =
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
    let source = std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let trusted = source.is_ok_and(|name| matches!(name.trim_ascii(), b"tsc" | b"kvm-clock"));
    counter::look();
    invariant && trusted && !counter::is_forbidden()
}

#[cfg(not(target_arch = "x86_64"))]
fn counter_is_usable() -> bool {
    false
}

impl Clock {
    /// A clock whose time 0 is `start_ns` (CLOCK_MONOTONIC).
    pub fn new(start_ns: u64) -> Clock {
        let counter = if counter_is_usable() {
            let (ticks, ns) = both();
            Counter::Calibrating { ticks, ns }
        } else {
            Counter::None
        };
        Clock {
            start_ns,
            last: 0,
            counter,
            rate: 0,
        }
    }

    /// A clock that goes by `time` instead of CLOCK_MONOTONIC, for tests.
    pub fn told(start_ns: u64, time: &'static AtomicU64) -> Clock {
        Clock {
            start_ns,
            last: 0,
            counter: Counter::Told(time),
            rate: 0,
        }
    }

    /// Whether the counter is used.
    pub fn has_counter(&self) -> bool {
        !matches!(self.counter, Counter::None | Counter::Told(_))
    }

    /// A difference of the counter in nanoseconds, as well as its rate is known so far.
    pub fn ticks_to_ns(&mut self, ticks: u64) -> u64 {
        match self.counter {
            Counter::Running { rate, .. } => self.rate = rate,
            Counter::Calibrating { ticks, ns } => {
                let (now_ticks, now) = both();
                let (ticks, ns) = (now_ticks.wrapping_sub(ticks), now.saturating_sub(ns));
                self.rate = ((u128::from(ns) << SHIFT) / u128::from(ticks.max(1))) as u64;
            }
            Counter::None | Counter::Told(_) => {}
        }
        ((u128::from(ticks) * u128::from(self.rate)) >> SHIFT) as u64
    }

    /// From now on the counter is not read any more.
    pub fn forget_counter(&mut self) {
        self.counter = Counter::None;
    }

    /// Nanoseconds since time 0; at least what it said before.
    #[inline]
    pub fn now(&mut self) -> u64 {
        let ns = match self.counter {
            Counter::Running {
                ticks: base,
                ns,
                rate,
                limit,
            } => {
                let passed = ticks().wrapping_sub(base);
                if passed < limit {
                    ns + ((u128::from(passed) * u128::from(rate)) >> SHIFT) as u64
                } else {
                    self.rebase()
                }
            }
            _ => self.rebase(),
        };
        self.last = self.last.max(ns.saturating_sub(self.start_ns));
        self.last
    }

    /// Reads the truth, and takes the counter's rate from it.
    #[cold]
    fn rebase(&mut self) -> u64 {
        match self.counter {
            // The process may have forbidden itself the counter.
            Counter::None => return monotonic_ns(),
            Counter::Told(time) => return time.load(Ordering::Relaxed),
            _ => {}
        }
        let (now_ticks, now) = both();
        match self.counter {
            Counter::None | Counter::Told(_) => {}
            Counter::Calibrating { ticks, ns } => {
                let passed = now_ticks.wrapping_sub(ticks);
                if now.saturating_sub(ns) >= CALIBRATE_NS {
                    self.counter = running(now_ticks, now, passed, now - ns);
                }
            }
            Counter::Running {
                ticks, ns, rate, ..
            } => {
                let passed = now_ticks.wrapping_sub(ticks);
                let predicted =
                    ns.saturating_add(((u128::from(passed) * u128::from(rate)) >> SHIFT) as u64);
                let seconds = 1 + now.saturating_sub(ns) / REBASE_NS;
                self.counter = if predicted.abs_diff(now) > TOLERANCE_NS * seconds {
                    Counter::None
                } else {
                    running(now_ticks, now, passed, now - ns)
                };
            }
        }
        now
    }
}

fn running(ticks: u64, ns: u64, passed_ticks: u64, passed_ns: u64) -> Counter {
    if passed_ticks == 0 || passed_ns == 0 {
        return Counter::None;
    }
    let rate = ((u128::from(passed_ns) << SHIFT) / u128::from(passed_ticks)) as u64;
    let limit = (u128::from(REBASE_NS) * u128::from(passed_ticks) / u128::from(passed_ns)) as u64;
    if rate == 0 || limit == 0 {
        Counter::None
    } else {
        Counter::Running {
            ticks,
            ns,
            rate,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_follows_the_truth() {
        let start = monotonic_ns();
        let mut clock = Clock::new(start);
        let mut last = 0;
        while monotonic_ns() - start < 1_200_000_000 {
            let before = monotonic_ns() - start;
            let now = clock.now();
            let after = monotonic_ns() - start;
            assert!(now >= last);
            last = now;
            assert!(
                now + 1_000_000 >= before && now <= after + 1_000_000,
                "{before} {now} {after}"
            );
        }
    }
}
