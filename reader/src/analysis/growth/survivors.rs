//! What the ages of a stack's live allocations say about its past.
//!
//! The event log of a long run has forgotten how much a stack held a week ago, but the live table
//! knows to the nanosecond when everything was made that is still there. A leak leaves survivors
//! behind all along; what was allocated once leaves old ones only; a cache, a queue, a sawtooth
//! young ones only; and steps leave them at few times. So the question is which of these the
//! survivors look like: their number in each of [`CELLS`] equal parts of the stack's life is
//! compared, by likelihood, with a family of densities for each answer.
//!
//! The thresholds were chosen on simulated runs of a week (`reader/tests/growth.rs`).

use super::trend::{Slope, slope};
use std::sync::OnceLock;

/// Equal parts of a stack's life. A step that takes less than one of them, 2.6 hours of a week,
/// fills at most two.
pub const CELLS: usize = 64;
/// Fewer survivors than this are no distribution.
const FEWEST: u64 = 12;
/// Fewer parts with survivors than this are steps, not growth, unless they are regular.
const FEWEST_CELLS: usize = 16;
/// So many steps at equal distances are growth: something leaks once an epoch.
const FEWEST_STEPS: usize = 7;
/// No part counts for more than so many times the median of those that have survivors: a burst
/// is one event, whatever it left behind.
const BURST: u64 = 6;
/// How much likelier growth has to be than anything else, as a logarithm.
const MARGIN: f64 = 1.0;
/// Growth does not rest longer than this share of the life.
const LONGEST_REST: f64 = 0.3;
/// Where nothing is freed, one survivor in so many may be older than a rest after which growth begins:
/// the first step of a training compiles, loads libraries, and takes longer than a hundred later ones.
const EARLY: u64 = 50;
/// Share of survivors that may be of another make in any family.
const STRAY: f64 = 0.03;

/// One allocation, or several of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// When it was made, event time.
    pub time: u64,
    /// Bytes.
    pub bytes: u64,
    /// Allocations.
    pub count: u64,
}

/// What a stack's live memory does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// It grows: survivors from all parts of its life, as many from late ones as from early ones.
    Growing,
    /// It grew and stopped, or is getting slower and slower: warm-up, a cache that is full.
    WarmUp,
    /// What is old is freed: a cache that replaces, a queue, a sawtooth.
    Renewed,
    /// It grew at a few times only.
    Steps,
    /// Too few allocations are live to tell.
    Few,
    /// Neither is much likelier than the others.
    Unclear,
}

impl Shape {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Growing => "growing",
            Shape::WarmUp => "warm-up",
            Shape::Renewed => "renewed",
            Shape::Steps => "steps",
            Shape::Few => "few",
            Shape::Unclear => "unclear",
        }
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// What it does.
    pub shape: Shape,
    /// How likely growth is beside the best other explanation, 0 to 1.
    pub confidence: f64,
    /// Bytes that stay, a second; all that is live at the end and was made before.
    pub slope: Slope,
    /// Parts of the life, of [`CELLS`], with survivors.
    pub cells: usize,
}

/// Judges survivors of a stack that lived from `from` to `to`, event times. Where `all_stay`, nothing that
/// was ever made there was freed: more young ones than old ones are then no replacement.
pub fn judge(survivors: &[Survivor], from: u64, to: u64, all_stay: bool) -> Judgement {
    let from = if all_stay {
        after_late_start(survivors, from, to)
    } else {
        from
    };
    let life = to.saturating_sub(from).saturating_add(1);
    let mut counts = [0u64; CELLS];
    let mut bytes = [0u64; CELLS];
    let mut all = 0u64;
    for survivor in survivors {
        let cell = cell_of(survivor.time, from, life);
        counts[cell] = counts[cell].saturating_add(survivor.count);
        bytes[cell] = bytes[cell].saturating_add(survivor.bytes);
        all = all.saturating_add(survivor.count);
    }
    let cells = counts.iter().filter(|&&count| count > 0).count();
    let mut judgement = Judgement {
        shape: Shape::Few,
        confidence: 0.0,
        slope: Slope::default(),
        cells,
    };
    if all < FEWEST || to <= from {
        return judgement;
    }
    let step = life as f64 / CELLS as f64 / 1e9;
    judgement.slope = slope(&cumulated(&without_bursts(&bytes)), step);
    let weights = weights(&counts, cells);
    let [growing, warm_up, mut renewed] = Families::get().best(&weights);
    if all_stay {
        renewed = f64::NEG_INFINITY;
    }
    let margin = growing - warm_up.max(renewed);
    judgement.confidence = 1.0 / (1.0 + (-margin).exp());
    let clear = margin >= MARGIN && cells >= FEWEST_CELLS;
    judgement.shape = if clear || margin > 0.0 && is_regular(&counts) {
        if longest_rest(&counts) <= (LONGEST_REST * CELLS as f64) as usize {
            Shape::Growing
        } else {
            Shape::Steps
        }
    } else if margin <= -MARGIN && renewed > warm_up {
        Shape::Renewed
    } else if margin <= -MARGIN {
        Shape::WarmUp
    } else if cells < FEWEST_CELLS {
        Shape::Steps
    } else {
        Shape::Unclear
    };
    if judgement.shape != Shape::Growing {
        judgement.confidence = judgement.confidence.min(0.5);
    }
    judgement
}

/// Where a life begins if not for the few survivors before a long rest.
fn after_late_start(survivors: &[Survivor], from: u64, to: u64) -> u64 {
    let longest = LONGEST_REST * to.saturating_sub(from) as f64;
    let all = |survivors: &[Survivor]| -> u64 {
        let counts = survivors.iter().map(|survivor| survivor.count);
        counts.fold(0, u64::saturating_add)
    };
    let early = all(survivors) / EARLY;
    let mut in_order = survivors.to_vec();
    in_order.sort_unstable_by_key(|survivor| survivor.time);
    let (mut begin, mut before) = (from, 0u64);
    for pair in in_order.windows(2) {
        before = before.saturating_add(pair[0].count);
        if before > early {
            break;
        }
        if (pair[1].time.saturating_sub(pair[0].time)) as f64 > longest {
            begin = pair[1].time;
        }
    }
    begin
}

/// In which part of a life a time lies.
pub fn cell_of(time: u64, from: u64, life: u64) -> usize {
    let since = u128::from(time.saturating_sub(from)) * CELLS as u128;
    ((since / u128::from(life.max(1))) as usize).min(CELLS - 1)
}

/// Bytes that were made before each border between parts, and are there still.
fn cumulated(bytes: &[u64; CELLS]) -> Vec<f64> {
    let mut sum = 0.0;
    let borders = std::iter::once(0.0).chain(bytes.iter().map(|&bytes| {
        sum += bytes as f64;
        sum
    }));
    borders.collect()
}

/// Bursts cut down, and all scaled so that each part with survivors counts as one witness:
/// allocations of one moment say nothing new.
fn weights(counts: &[u64; CELLS], cells: usize) -> [f64; CELLS] {
    let cut = without_bursts(counts).map(|count| count as f64);
    let sum: f64 = cut.iter().sum();
    cut.map(|count| count / sum * cells as f64)
}

fn without_bursts(values: &[u64; CELLS]) -> [u64; CELLS] {
    let mut present: Vec<u64> = values.iter().copied().filter(|&value| value > 0).collect();
    present.sort_unstable();
    let median = present.get(present.len() / 2).copied().unwrap_or(0);
    values.map(|value| value.min(median.saturating_mul(BURST)))
}

/// Whether growth comes in equal distances, which a few steps at any times do seldom: of seven,
/// one in two hundred.
fn is_regular(counts: &[u64; CELLS]) -> bool {
    let present = |cell: &usize| counts[*cell] > 0;
    // A step that reaches over a border is one.
    let first_of = |cell: &usize| *cell == 0 || counts[*cell - 1] == 0;
    let steps: Vec<usize> = (0..CELLS).filter(present).filter(first_of).collect();
    let number = steps.len() as f64;
    let distance = 1.0 / number + 1.5 / CELLS as f64;
    let regular = |(step, cell): (usize, &usize)| {
        let at = *cell as f64 / CELLS as f64;
        let (before, after) = (step as f64 / number, (step as f64 + 1.0) / number);
        (before - at).abs() <= distance && (after - at).abs() <= distance
    };
    steps.len() >= FEWEST_STEPS && steps.iter().enumerate().all(regular)
}

/// The longest run of parts without survivors.
fn longest_rest(counts: &[u64; CELLS]) -> usize {
    let runs = counts.split(|&count| count > 0);
    runs.map(<[u64]>::len).max().unwrap_or(0)
}

/// Logarithms of the densities that survivors are compared with, part by part.
struct Families {
    growing: Vec<[f64; CELLS]>,
    warm_up: Vec<[f64; CELLS]>,
    renewed: Vec<[f64; CELLS]>,
}

impl Families {
    fn get() -> &'static Families {
        static FAMILIES: OnceLock<Families> = OnceLock::new();
        FAMILIES.get_or_init(|| {
            const FAST: [f64; 7] = [3.0, 4.0, 6.0, 9.0, 14.0, 20.0, 40.0];
            let mut families = Families {
                growing: Vec::new(),
                warm_up: Vec::new(),
                renewed: Vec::new(),
            };
            // Up to twice as many late as early, or the other way round, is a leak all the same.
            for bend in [-1.2, -0.6, 0.0, 0.6, 1.2] {
                families.growing.push(density(|x| (bend * x).exp()));
            }
            for rate in FAST {
                families.warm_up.push(density(|x| (-rate * x).exp()));
                families.renewed.push(density(|x| (rate * (x - 1.0)).exp()));
            }
            // New cases get rarer and rarer: as many in each tenfold of time.
            for start in [0.001, 0.003, 0.01, 0.03, 0.1] {
                families.warm_up.push(density(|x| 1.0 / (x + start)));
            }
            for edge in (1..CELLS).step_by(2).map(|edge| edge as f64 / CELLS as f64) {
                if edge <= 0.85 {
                    families
                        .warm_up
                        .push(density(|x| f64::from(u8::from(x < edge))));
                }
                if edge >= 0.15 {
                    families
                        .renewed
                        .push(density(|x| f64::from(u8::from(x > edge))));
                }
            }
            families
        })
    }

    /// The likelihood of each family's best member, as a logarithm: growing, warm-up, renewed.
    fn best(&self, weights: &[f64; CELLS]) -> [f64; 3] {
        [&self.growing, &self.warm_up, &self.renewed].map(|family| {
            let of = |density: &[f64; CELLS]| -> f64 {
                density
                    .iter()
                    .zip(weights)
                    .map(|(ln, weight)| ln * weight)
                    .sum()
            };
            family.iter().map(of).fold(f64::NEG_INFINITY, f64::max)
        })
    }
}

/// Logarithms of a density over the parts of a life that runs from 0 to 1.
fn density(of: impl Fn(f64) -> f64) -> [f64; CELLS] {
    // The mean of several points: densities that are steep within a part are not cut short.
    const POINTS: usize = 8;
    let mut mass = [0.0; CELLS];
    for (cell, mass) in mass.iter_mut().enumerate() {
        for point in 0..POINTS {
            *mass += of((cell as f64 + (point as f64 + 0.5) / POINTS as f64) / CELLS as f64);
        }
    }
    let sum: f64 = mass.iter().sum();
    mass.map(|mass| ((1.0 - STRAY) * mass / sum + STRAY / CELLS as f64).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000_000_000;

    fn shape(times: impl IntoIterator<Item = u64>) -> Shape {
        let survivors: Vec<Survivor> = times
            .into_iter()
            .map(|time| Survivor {
                time,
                bytes: 1024,
                count: 1,
            })
            .collect();
        judge(&survivors, 0, 7 * DAY, false).shape
    }

    #[test]
    fn textbook_shapes() {
        let hour = DAY / 24;
        assert_eq!(shape((0..168).map(|n| n * hour)), Shape::Growing);
        assert_eq!(shape((0..28).map(|n| n * 6 * hour)), Shape::Growing);
        assert_eq!(shape((0..100).map(|n| n * hour / 60)), Shape::WarmUp);
        assert_eq!(shape((0..120).map(|n| n * hour)), Shape::WarmUp);
        assert_eq!(shape((72..168).map(|n| n * hour)), Shape::Renewed);
        assert_eq!(
            shape((0..100).map(|n| 7 * DAY - n * hour / 60)),
            Shape::Renewed
        );
        let steps = (0..5).flat_map(|step| (0..50).map(move |n| step * 33 * hour + n * 1000));
        assert_eq!(shape(steps), Shape::Steps);
        assert_eq!(shape([0, DAY, 2 * DAY]), Shape::Few);
    }

    #[test]
    fn short_lived_ones_at_the_end_hide_no_leak() {
        let hour = DAY / 24;
        let leak = (0..84).map(|n| 2 * n * hour);
        let now = (0..500).map(|n| 7 * DAY - n * 1000);
        assert_eq!(shape(leak.chain(now)), Shape::Growing);
    }

    #[test]
    fn a_slow_first_step_is_no_plateau() {
        let steps = |first: u64, rest: u64, number: u64| {
            let times = (0..first).chain((0..number).map(|n| rest + n * 1000));
            let survivors: Vec<Survivor> = times
                .map(|time| Survivor {
                    time,
                    bytes: 1 << 20,
                    count: 1,
                })
                .collect();
            let to = survivors.last().unwrap().time + 500;
            (survivors, to)
        };
        // 400 steps of which the first takes as long as all others; they took 0.9 s on an H100.
        let (survivors, to) = steps(1, 400_000, 399);
        let stays = judge(&survivors, 0, to, true);
        assert_eq!(stays.shape, Shape::Growing, "{stays:?}");
        assert!((stays.slope.median / ((1 << 20) as f64 * 1e6) - 1.0).abs() < 0.1);
        // Where others were freed, they say nothing of the time in which those were made.
        assert_ne!(judge(&survivors, 0, to, false).shape, Shape::Growing);
        // Two steps of a plateau, and a last one at the end.
        let (survivors, to) = steps(1, 400_000, 100);
        assert_ne!(judge(&survivors, 0, 4 * to, true).shape, Shape::Growing);
        let (survivors, to) = steps(40, 400_000, 399);
        assert_ne!(judge(&survivors, 0, to, true).shape, Shape::Growing);
    }

    #[test]
    fn a_slope_is_what_stays_a_second() {
        let survivors: Vec<Survivor> = (0..700)
            .map(|n| Survivor {
                time: n * DAY / 100,
                bytes: if n == 350 { 1 << 30 } else { 8640 },
                count: 1,
            })
            .collect();
        let judged = judge(&survivors, 0, 7 * DAY, false);
        // 100 a day; the one that is large changes nothing.
        assert!((judged.slope.median - 10.0).abs() < 1.5, "{judged:?}");
    }
}
