//! Which allocations have their stacks taken: a Poisson process over the bytes that a thread allocates.

use bytemuck::Zeroable;
use std::cell::Cell;
use vramtrace_format::sampling::{NONE, interval};

/// One thread's sampler. All zero is one that has not begun: it seeds itself at its first draw.
///
/// The bytes to the next point are drawn once a point (exponentially, around the interval) and counted
/// down, so that most allocations cost a comparison. Where the interval changes they are drawn anew:
/// what is left of an exponential distribution is distributed like all of it. An allocation is taken if
/// a point falls on one of its bytes, whatever was taken before: with the probability that
/// [`vramtrace_format::sampling::probability`] says, independent of all others.
#[derive(Zeroable)]
pub struct Sampler {
    /// Bytes that pass before the next point.
    left: Cell<u64>,
    /// State of the generator; 0 not seeded.
    random: Cell<u64>,
    /// The step that `left` was drawn for.
    step: Cell<u8>,
}

impl Sampler {
    /// One whose draws follow from a seed.
    pub fn seeded(seed: u64) -> Sampler {
        let sampler = Sampler::zeroed();
        sampler.seed(seed);
        sampler
    }

    /// Begins anew from a seed.
    pub(super) fn seed(&self, seed: u64) {
        self.random.set(seed | 1);
        self.step.set(0);
    }

    /// Whether it was given a seed.
    pub(super) fn is_seeded(&self) -> bool {
        self.random.get() != 0
    }

    /// Whether the stack of an allocation of `size` bytes is to be taken at a step.
    #[inline]
    pub fn takes(&self, size: u64, step: u8) -> bool {
        if step == NONE {
            return false;
        }
        let (size, interval) = (size.max(1), interval(step));
        if size >= interval {
            return true;
        }
        if self.step.get() != step {
            self.step.set(step);
            self.left.set(self.draw(interval));
        }
        let left = self.left.get();
        if size <= left {
            self.left.set(left - size);
            return false;
        }
        self.left.set(self.draw(interval));
        true
    }

    /// Bytes to the next point.
    #[cold]
    fn draw(&self, interval: u64) -> u64 {
        // splitmix64
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        // Above 0, at most 1.
        let uniform = ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64;
        // The point lies in the byte after these.
        (minus_ln(uniform) * interval as f64) as u64
    }
}

/// -ln(x) for x above 0, at most 1, to 12 digits. The C library's has a version of its own on newer
/// systems, which older ones do not have.
fn minus_ln(x: f64) -> f64 {
    // x = m · 2^-e, m from 1/√2 to √2: ln m is twice the area tangent of (m - 1) / (m + 1).
    let bits = x.to_bits();
    let mut exponent = 1023 - (bits >> 52) as i64;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        exponent -= 1;
    }
    let z = (m - 1.0) / (m + 1.0);
    let square = z * z;
    let mut sum = 0.0;
    let mut term = 17i32;
    while term >= 1 {
        sum = sum * square + 1.0 / f64::from(term);
        term -= 2;
    }
    exponent as f64 * std::f64::consts::LN_2 - 2.0 * z * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::sampling::{probability, step_of};

    #[test]
    fn the_logarithm_is_right() {
        for n in 0..200_000u32 {
            let x = f64::from(n + 1) / 200_000.0;
            assert!((minus_ln(x) + x.ln()).abs() < 1e-12, "{x}");
        }
        for exponent in 0..53 {
            let x = 1.0 / (1u64 << exponent) as f64;
            assert!((minus_ln(x) + x.ln()).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn allocations_are_taken_as_often_as_their_size_says() {
        const TRIES: u32 = 200_000;
        for (size, bytes) in [
            (512, 64 << 10),
            (4096, 16 << 10),
            (20_000, 24 << 10),
            (1, 12),
        ] {
            let (step, sampler) = (step_of(bytes), Sampler::seeded(size));
            let taken = (0..TRIES).filter(|_| sampler.takes(size, step)).count() as f64;
            let p = probability(size, step);
            let (expected, tries) = (p * f64::from(TRIES), f64::from(TRIES));
            // Five standard deviations.
            let room = 5.0 * (tries * p * (1.0 - p)).sqrt();
            assert!((taken - expected).abs() < room, "{taken} for {expected}");
        }
    }

    #[test]
    fn one_that_was_taken_says_nothing_about_the_next() {
        let (step, sampler) = (step_of(8192), Sampler::seeded(7));
        let p = probability(4096, step);
        let (mut pairs, mut last, tries) = (0u32, false, 200_000u32);
        for _ in 0..tries {
            let taken = sampler.takes(4096, step);
            pairs += u32::from(taken && last);
            last = taken;
        }
        let expected = f64::from(tries) * p * p;
        assert!(
            (f64::from(pairs) - expected).abs() < 6.0 * expected.sqrt(),
            "{pairs}"
        );
    }

    #[test]
    fn a_change_of_the_interval_is_no_reason_to_be_taken_or_not() {
        let sampler = Sampler::seeded(3);
        let steps = [step_of(4096), step_of(1 << 20)];
        let mut taken = [0u32; 2];
        for n in 0..400_000usize {
            taken[n % 2] += u32::from(sampler.takes(1000, steps[n % 2]));
        }
        for (taken, step) in taken.into_iter().zip(steps) {
            let p = probability(1000, step);
            let expected = 200_000.0 * p;
            let room = 5.0 * (expected * (1.0 - p)).sqrt();
            assert!(
                (f64::from(taken) - expected).abs() < room,
                "{taken} {expected}"
            );
        }
    }

    #[test]
    fn large_ones_are_always_taken_and_none_where_none_is_wanted() {
        let sampler = Sampler::seeded(1);
        let step = step_of(4096);
        assert!((0..10_000).all(|_| sampler.takes(4096, step)));
        assert!((0..10_000).all(|_| sampler.takes(0, 0)));
        assert!((0..10_000).all(|_| !sampler.takes(u64::MAX, NONE)));
    }
}
