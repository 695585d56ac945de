//! How much a program allocates of each size, as far as what was sampled tells: what any interval would
//! cost follows from it.

use vramtrace_format::sampling::probability;

/// One class for each power of two.
const CLASSES: usize = 64;

/// Allocations of some time, by lane and size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Allocations and their bytes, each as many times as it stands for.
    classes: [[(f64, f64); CLASSES]; 2],
}

impl Default for Demand {
    fn default() -> Demand {
        Demand {
            classes: [[(0.0, 0.0); CLASSES]; 2],
        }
    }
}

impl Demand {
    /// An allocation of `size` bytes was sampled at a step.
    pub fn add(&mut self, lane: usize, size: u64, step: u8) {
        let size = size.max(1);
        let stands_for = 1.0 / probability(size, step);
        let (count, bytes) = &mut self.classes[lane][size.ilog2() as usize % CLASSES];
        *count += stands_for;
        *bytes += stands_for * size as f64;
    }

    /// How many of these allocations would have their stacks taken, each lane's at its step.
    pub fn stacks_at(&self, steps: [u8; 2]) -> f64 {
        let mut sum = 0.0;
        for (lane, step) in self.classes.iter().zip(steps) {
            let classes = lane.iter().filter(|(count, _)| *count > 0.0);
            sum += classes
                .map(|(count, bytes)| count * probability((bytes / count) as u64, step))
                .sum::<f64>();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::sampling::step_of;

    #[test]
    fn what_was_sampled_tells_what_another_interval_would_take() {
        let mut demand = Demand::default();
        let (all, coarse) = (0, step_of(64 << 10));
        for _ in 0..1000 {
            demand.add(1, 512, all);
            demand.add(1, 1 << 20, all);
            demand.add(0, 512, all);
        }
        assert!((demand.stacks_at([all, all]) - 3000.0).abs() < 1e-6);
        let expected = 2000.0 + 1000.0 * probability(512, coarse);
        assert!((demand.stacks_at([all, coarse]) - expected).abs() < 1e-6);
        // One that was sampled stands for all that were not.
        let mut sampled = Demand::default();
        sampled.add(0, 512, coarse);
        assert!((sampled.stacks_at([coarse, all]) - 1.0).abs() < 1e-6);
        let stands_for = 1.0 / probability(512, coarse);
        assert!((sampled.stacks_at([all, coarse]) - stands_for).abs() < 1e-6);
    }
}
