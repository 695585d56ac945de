//! Storms in virtual time: the real sampler decides which stacks are taken, a made-up cost is charged.

use super::*;
use crate::sampling::Sampler;
use vramtrace_format::sampling::{interval, step_of};

const SECOND: u64 = WINDOW_NS;

/// A program, its recorder, and what happened so far.
struct Simulation {
    governor: Governor,
    sampler: Sampler,
    /// Event time, nanoseconds.
    now: f64,
    allocations: u64,
    lane: usize,
    /// What stacks took in each second.
    spent: Vec<f64>,
    changes: Vec<(f64, Change)>,
}

impl Simulation {
    fn new(finest: u8, percent: f64) -> Simulation {
        Simulation {
            governor: Governor::new(finest, Some(percent / 100.0)),
            sampler: Sampler::seeded(5),
            now: 0.0,
            allocations: 0,
            lane: 1,
            spent: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// So many allocations a second for so many seconds, their stacks `cost` ns each.
    fn storm(&mut self, rate: f64, seconds: f64, cost: f64, size: impl Fn(u64) -> u64) {
        let until = self.now + seconds * SECOND as f64;
        let each = SECOND as f64 / rate;
        while self.now + each <= until {
            self.now += each;
            self.allocations += 1;
            let step = self.governor.lanes(self.governor.step())[self.lane];
            let size = size(self.allocations);
            if step == 0 || self.sampler.takes(size, step) {
                let second = (self.now / SECOND as f64) as usize;
                self.spent.resize(self.spent.len().max(second + 1), 0.0);
                self.spent[second] += cost;
                self.governor.took(self.lane, size, step, cost as u64);
            }
            let now = self.now as u64;
            if self.governor.is_due(now)
                && let Some(change) = self.governor.look(now)
            {
                self.changes.push((self.now / SECOND as f64, change));
            }
        }
        self.now = until;
    }

    /// Percent of a core in some seconds.
    fn percent(&self, seconds: std::ops::Range<usize>) -> f64 {
        let count = seconds.len() as f64;
        let spent: f64 = seconds.filter_map(|s| self.spent.get(s)).sum();
        spent / count / SECOND as f64 * 100.0
    }
}

/// Sizes from 512 bytes to 2 MiB, each order of magnitude as often.
fn mixed(n: u64) -> u64 {
    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (512 << ((random >> 40) % 12)) + (random >> 50) % 512
}

#[test]
fn storms_cost_what_the_budget_allows() {
    type Size = fn(u64) -> u64;
    let sizes: [(&str, Size); 4] = [
        ("512 B", |_| 512),
        ("mixed", mixed),
        ("1 MiB", |_| 1 << 20),
        ("64 MiB", |_| 64 << 20),
    ];
    for rate in [10.0, 100.0, 1e3, 1e4, 1e5, 5e5, 2e6] {
        for (name, size) in sizes {
            for cost in [120.0f64, 1_000.0, 20_000.0] {
                // Storms above a core's worth and many allocations to go through: one cost each.
                if rate > 1e5 && (cost - 1_000.0).abs() > 1.0 {
                    continue;
                }
                let mut run = Simulation::new(0, 0.5);
                // Both layers, by turns.
                run.lane = (cost / 1_000.0) as usize % 2;
                run.storm(rate, 5.0, cost, size);
                let spent = run.percent(1..5);
                let what = format!(
                    "{rate} of {name} at {cost} ns: {spent} %, {:?}",
                    run.changes
                );
                let wanted = rate * cost / SECOND as f64 * 100.0;
                assert!(spent <= 0.55, "{what}");
                // Within 0.2 points of the budget, above and below: little is given away.
                assert!(spent >= 0.3 || spent >= wanted * 0.999, "{what}");
                assert!(run.changes.len() <= 20, "{what}");
                if wanted < 0.4 {
                    assert!(run.changes.is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn every_stack_is_taken_again_when_a_storm_is_over() {
    let mut run = Simulation::new(0, 0.5);
    run.storm(1e5, 3.0, 1_000.0, mixed);
    assert!(run.governor.step() > 0);
    run.storm(100.0, 60.0, 1_000.0, mixed);
    assert_eq!(run.governor.step(), 0, "{:?}", run.changes);
    assert!(run.percent(4..63) < 0.5);
    // One that does nothing at all for a while may come back with everything, too.
    run.storm(1e5, 3.0, 1_000.0, mixed);
    run.storm(0.1, 4000.0, 1_000.0, mixed);
    assert_eq!(run.governor.step(), 0, "{:?}", run.changes);
}

#[test]
fn storms_that_come_again_and_again_are_not_a_flood_of_changes() {
    let mut run = Simulation::new(0, 0.5);
    for _ in 0..360 {
        run.storm(2e4, 2.0, 1_000.0, mixed);
        run.storm(10.0, 8.0, 1_000.0, mixed);
    }
    // An hour: at first one change and back each time, then ever less.
    assert!(run.changes.len() < 120, "{}", run.changes.len());
    let late = run.changes.iter().filter(|(at, _)| *at > 1800.0).count();
    assert!(late < 40, "{late}");
    // The first second of each storm may have its share beforehand.
    assert!(run.percent(0..3600) < 0.5, "{}", run.percent(0..3600));
}

#[test]
fn a_steady_storm_keeps_its_interval() {
    for cost in [300.0, 1_000.0, 15_000.0] {
        let mut run = Simulation::new(0, 0.5);
        run.storm(2e4, 120.0, cost, mixed);
        let late = run.changes.iter().filter(|(at, _)| *at > 5.0).count();
        assert!(late <= 8, "{cost}: {:?}", run.changes);
        let spent = run.percent(1..120);
        assert!((0.3..=0.55).contains(&spent), "{cost}: {spent}");
    }
}

/// While blocks come by the million, a segment's stack is there whenever one is made.
#[test]
fn the_driver_is_sampled_finer_than_what_is_inside() {
    let mut run = Simulation::new(0, 0.5);
    run.storm(5e5, 3.0, 1_000.0, mixed);
    let [device, framework] = run.governor.lanes(run.governor.step());
    assert!(interval(framework) > 16 << 20);
    assert!(interval(device) < 2 << 20, "{}", interval(device));
}

#[test]
fn it_is_never_finer_than_asked_and_never_changes_without_a_budget() {
    let asked = step_of(512 << 10);
    let mut run = Simulation::new(asked, 0.5);
    run.storm(1e5, 2.0, 1_000.0, mixed);
    assert!(interval(run.governor.step()) > 512 << 10);
    run.storm(5.0, 40.0, 1_000.0, mixed);
    assert_eq!(run.governor.step(), asked);
    let mut free = Governor::new(0, None);
    for n in 0..1000 {
        free.took(1, 512, 0, SECOND);
        assert!(!free.is_due(n * SECOND));
    }
    assert!(!Governor::new(NONE, Some(0.1)).is_due(100 * SECOND));
}

#[test]
fn a_thread_that_lost_its_core_is_no_expensive_stack() {
    let mut governor = Governor::new(0, Some(0.005));
    for _ in 0..1000 {
        assert_eq!(governor.believe(1_000), 1_000);
    }
    assert!(governor.believe(4_000_000) < 30_000);
    assert_eq!(governor.believe(9_000), 9_000);
    // Where all become expensive it is believed before long.
    let believed: Vec<u64> = (0..2_000).map(|_| governor.believe(200_000)).collect();
    assert_eq!(believed.last(), Some(&200_000));
}
