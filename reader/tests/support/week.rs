//! Runs of a week, made up: what programs do with memory over days, through the real format.
//!
//! A run has some stacks, each with one behaviour; a behaviour is a list of allocations, each from
//! a time to another (or for good). All of it is recorded in order into a trace of the smallest
//! size, whose event log wraps many times.

use super::support::{SECOND, TraceFile, allocation, ending};
use vramtrace_format::record::{Kind, Record};

pub const WEEK: f64 = 7.0 * 86_400.0;

/// Numbers that look random and are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// Each order of magnitude is as likely.
    pub fn scale(&mut self, low: f64, high: f64) -> f64 {
        (self.between(low.ln(), high.ln())).exp()
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// One allocation: when it is made, when freed if it is, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub from: f64,
    pub to: Option<f64>,
    pub bytes: u64,
}

/// What a stack of a sound program does. All times are shares of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Temporaries of a step.
    Temporaries,
    /// Made at the start, kept.
    Weights,
    /// Many at first, then fewer and fewer; at most a tenth of the run.
    WarmUp,
    /// Something for each new case; new cases get rarer as one over the time.
    NewCases,
    /// Some levels, up and down, the last for long.
    Plateaus,
    /// Grows steadily, and is emptied.
    Sawtooth,
    /// As long as the oldest of so many.
    Queue,
    /// Slots whose content is replaced at random.
    Slots,
    /// Sessions of some minutes to a day.
    Sessions,
    /// As those, by day only.
    ByDay,
    /// Everything anew every few hours.
    Epochs,
}

pub const SOUND: [Behaviour; 11] = [
    Behaviour::Temporaries,
    Behaviour::Weights,
    Behaviour::WarmUp,
    Behaviour::NewCases,
    Behaviour::Plateaus,
    Behaviour::Sawtooth,
    Behaviour::Queue,
    Behaviour::Slots,
    Behaviour::Sessions,
    Behaviour::ByDay,
    Behaviour::Epochs,
];

impl Behaviour {
    pub fn lives(self, random: &mut Random) -> Vec<Life> {
        let size = random.scale(1024.0, 64e6) as u64;
        let mut lives = Vec::new();
        let mut add = |from: f64, to: Option<f64>| {
            if (0.0..1.0).contains(&from) {
                lives.push(Life {
                    from,
                    to: to.filter(|&to| to < 1.0),
                    bytes: size,
                });
            }
        };
        match self {
            Behaviour::Temporaries => {
                for _ in 0..2_000 {
                    let from = random.unit();
                    add(from, Some(from + random.exponential(1e-5)));
                }
            }
            Behaviour::Weights => {
                for _ in 0..1 + random.below(150) {
                    add(random.unit() * 1e-3, None);
                }
            }
            Behaviour::WarmUp => {
                let mean = random.scale(1e-4, 0.04);
                for _ in 0..20 + random.below(180) {
                    add(random.exponential(mean), None);
                }
            }
            Behaviour::NewCases => {
                let first = random.scale(1e-5, 1e-3);
                for _ in 0..30 + random.below(120) {
                    add(random.scale(first, 1.0), None);
                }
            }
            Behaviour::Plateaus => {
                let mut borders: Vec<f64> =
                    (0..1 + random.below(8)).map(|_| random.unit()).collect();
                borders.push(0.0);
                borders.sort_by(f64::total_cmp);
                let mut held: Vec<f64> = Vec::new();
                let mut done = Vec::new();
                for border in borders {
                    let level = 5 + random.below(60) as usize;
                    while held.len() > level {
                        let which = random.below(held.len() as u64) as usize;
                        done.push((held.swap_remove(which), Some(border)));
                    }
                    while held.len() < level {
                        held.push(border + random.unit() * 2e-3);
                    }
                }
                done.extend(held.into_iter().map(|from| (from, None)));
                done.into_iter().for_each(|(from, to)| add(from, to));
            }
            Behaviour::Sawtooth => {
                let period = random.scale(0.005, 0.3);
                let many = (random.scale(20.0, 100.0) / period).min(3_000.0) as u64;
                let phase = random.unit() * period;
                for _ in 0..many {
                    let from = random.unit();
                    let tooth = ((from + phase) / period).floor() + 1.0;
                    add(from, Some(tooth * period - phase));
                }
            }
            Behaviour::Queue => {
                let length = random.scale(0.01, 0.4);
                for n in 0..1_500 {
                    let from = (f64::from(n) + random.unit()) / 1_500.0;
                    add(from, Some(from + length));
                }
            }
            Behaviour::Slots => {
                let slots = 10 + random.below(150);
                let mean = random.scale(0.01, 0.2);
                for _ in 0..slots {
                    let mut at = random.unit() * 0.01;
                    while at < 1.0 {
                        let next = at + random.exponential(mean);
                        add(at, Some(next));
                        at = next;
                    }
                }
            }
            Behaviour::Sessions => {
                let mean = random.scale(1e-3, 0.15);
                for _ in 0..1_500 {
                    let from = random.unit();
                    add(from, Some(from + random.exponential(mean)));
                }
            }
            Behaviour::ByDay => {
                let mean = random.scale(1e-3, 0.05);
                for _ in 0..1_500 {
                    let from = by_day(random);
                    add(from, Some(from + random.exponential(mean)));
                }
            }
            Behaviour::Epochs => {
                let epoch = random.scale(0.01, 0.25);
                let mut begins = 0.0;
                while begins < 1.0 {
                    for _ in 0..30 {
                        add(begins + random.unit() * 1e-3, Some(begins + epoch));
                    }
                    begins += epoch;
                }
            }
        }
        lives
    }
}

/// A time between eight and twenty hours, of any day.
fn by_day(random: &mut Random) -> f64 {
    (random.below(7) as f64 + random.between(8.0, 20.0) / 24.0) / 7.0
}

/// What leaks leave, and when.
pub fn leak(random: &mut Random, bytes_in_all: f64) -> Vec<Life> {
    let number = random.scale(40.0, 700.0) as u64;
    let bytes = ((bytes_in_all / number as f64) as u64).max(1);
    let onset = [0.0, random.unit() * 0.4][random.below(2) as usize];
    let how = random.below(5);
    let burst = 2 + random.below(6);
    let mut lives = Vec::new();
    for n in 0..number {
        let evenly = (n as f64 + random.unit()) / number as f64;
        let at = match how {
            // With each request.
            0 => random.unit(),
            // With each step.
            1 => evenly,
            // With each error, several at once.
            2 => {
                ((evenly * number as f64 / burst as f64).floor() + 0.5) * burst as f64
                    / number as f64
            }
            // By day.
            3 => by_day(random),
            // More and more users.
            _ => evenly.powf(0.8),
        };
        lives.push(Life {
            from: onset + at * (1.0 - onset),
            to: None,
            bytes,
        });
    }
    if random.below(2) == 0 {
        // Most of what this stack allocates it frees.
        for _ in 0..1_000 {
            let from = onset + random.unit() * (1.0 - onset);
            lives.push(Life {
                from,
                to: Some(from + random.exponential(1e-5)),
                bytes,
            });
        }
    }
    lives.retain(|life| life.from < 1.0);
    lives
}

/// A run of a week: the behaviour of each stack, and of the leaking one if one is wanted (its
/// stack is the last).
pub struct Week {
    pub stacks: Vec<(Option<Behaviour>, Vec<Life>)>,
    /// Bytes ever allocated, and those of them that leak.
    pub allocated: f64,
    pub leaked: f64,
}

impl Week {
    pub fn random(seed: u64, leaks: bool) -> Week {
        let mut random = Random(seed);
        let mut stacks = Vec::new();
        for _ in 0..4 + random.below(6) {
            let behaviour = SOUND[random.below(SOUND.len() as u64) as usize];
            stacks.push((Some(behaviour), behaviour.lives(&mut random)));
        }
        // What trains: 50 MB a step, so that there is something to leak a millionth of.
        let temporaries = Behaviour::Temporaries.lives(&mut random);
        let large = temporaries.into_iter().map(|life| Life {
            bytes: 50_000_000,
            ..life
        });
        stacks.push((Some(Behaviour::Temporaries), large.collect()));
        let all = |lives: &[Life]| lives.iter().map(|life| life.bytes as f64).sum::<f64>();
        let allocated: f64 = stacks.iter().map(|(_, lives)| all(lives)).sum();
        let mut leaked = 0.0;
        if leaks {
            let share = random.scale(1e-6, 1e-3);
            let lives = leak(&mut random, allocated * share);
            leaked = lives
                .iter()
                .filter(|life| life.to.is_none())
                .map(|life| life.bytes as f64)
                .sum();
            stacks.push((None, lives));
        }
        Week {
            stacks,
            allocated,
            leaked,
        }
    }

    /// The frame that tells the stacks apart.
    pub fn offset(stack: usize) -> u64 {
        0x500 + 16 * stack as u64
    }

    /// Records it.
    pub fn record(&self) -> TraceFile {
        self.record_losing(&mut |_| false)
    }

    /// Records it without the events that are `lost`, by their stack. What was not recorded as live is
    /// not freed either, and what is not recorded as freed stays.
    pub fn record_losing(&self, lost: &mut dyn FnMut(usize) -> bool) -> TraceFile {
        self.record_in(1 << 20, lost)
    }

    /// The same in a file of another size, bytes.
    pub fn record_in(&self, size: u64, lost: &mut dyn FnMut(usize) -> bool) -> TraceFile {
        let mut file = TraceFile::new(size);
        let stacks: Vec<u32> = (0..self.stacks.len())
            .map(|stack| file.program_stack(Week::offset(stack)))
            .collect();
        // Time, allocation, whether this is its end.
        let mut events: Vec<(u64, usize, usize, bool)> = Vec::new();
        let time = |share: f64| (share * WEEK * SECOND as f64) as u64;
        for (stack, (_, lives)) in self.stacks.iter().enumerate() {
            for (number, life) in lives.iter().enumerate() {
                let from = time(life.from);
                events.push((from, stack, number, false));
                if let Some(to) = life.to {
                    events.push((time(to).max(from + 1), stack, number, true));
                }
            }
        }
        events.sort_unstable();
        let mut live: Vec<Vec<Record>> = self
            .stacks
            .iter()
            .map(|(_, lives)| vec![Record::default(); lives.len()])
            .collect();
        let (mut seq, mut key) = (0, 0x7f00_0000_0000);
        let mut parts = file.parts();
        for (time, stack, number, ends) in events {
            let never_seen = ends && live[stack][number].seq == 0;
            if never_seen || lost(stack) {
                parts.control.events_lost[stack % 2] += u64::from(!never_seen);
                continue;
            }
            seq += 1;
            let kind = [Kind::Device, Kind::Async][stack % 2];
            let event = if ends {
                ending(&live[stack][number], vramtrace_format::Op::Free)
            } else {
                key += 0x1000;
                allocation(kind, key, self.stacks[stack].1[number].bytes, stacks[stack])
            };
            let event = Record { seq, time, ..event };
            live[stack][number] = event;
            assert_eq!(parts.record(&event), vramtrace_format::apply::Applied::Yes);
        }
        parts.control.last_time = time(1.0);
        parts.control.clean_exit = 1;
        file
    }
}
