//! Who allocated: process, stack, API function, device and kind, each combination once.

use crate::analysis::Filter;
use crate::analysis::leaks::{Point, Window, items};
use crate::analysis::usage::Caches;
use crate::model::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::account;
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::totals::End;

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Id of the process.
    pub process: u32,
    /// Stack id in its trace.
    pub stack: u32,
    /// API function.
    pub api: u16,
    /// Device ordinal, or [`vramtrace_format::record::NO_DEVICE`].
    pub device: u8,
    /// Kind.
    pub kind: Kind,
}

/// What is known of one without its single events: bytes, allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All that it ever allocated.
    pub made: [i64; 2],
    /// What is live at the end.
    pub live: [i64; 2],
    /// What it leaked, as `leaks` counts.
    pub kept: [i64; 2],
    /// What it held when its layer of its device held most.
    pub peak: [i64; 2],
}

/// All of them.
#[derive(Default)]
pub struct Keys {
    numbers: FxHashMap<Who, u32>,
    /// By number.
    pub all: Vec<(Who, Sums)>,
    /// Whether each is memory that a caching allocator or pool took for itself.
    pub cache: Vec<bool>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Keys {
    /// The number of one.
    pub fn number(&mut self, who: Who, caches: &mut Caches<'_>) -> u32 {
        let next = self.all.len() as u32;
        let number = *self.numbers.entry(who).or_insert(next);
        if number == next {
            self.all.push((who, Sums::default()));
            self.cache.push(caches.is_one(who.kind, who.stack));
        }
        number
    }

    /// Who made the allocation that an event is about; `None` where it counts nowhere.
    pub fn of_event(
        &mut self,
        process: usize,
        event: &Record,
        caches: &mut Caches<'_>,
    ) -> Option<u32> {
        let kind = event.kind().filter(|kind| kind.counted())?;
        let who = Who {
            process: process as u32,
            stack: event.stack,
            api: event.allocating_api(),
            device: event.device,
            kind,
        };
        Some(self.number(who, caches))
    }

    /// Takes the sums by stack of a process.
    pub fn learn(&mut self, id: usize, process: &Process, caches: &mut Caches<'_>) {
        for row in process.totals() {
            let Some(kind) = row.kind().filter(|kind| kind.counted()) else {
                continue;
            };
            if row.key.end != End::Live as u8 {
                continue;
            }
            let who = Who {
                process: id as u32,
                stack: row.key.stack,
                api: row.key.api,
                device: row.key.device,
                kind,
            };
            let number = self.number(who, caches) as usize;
            let account = account::index(row.key.device, kind.layer());
            let account = &process.trace.copy.accounts[account];
            let (bytes, count) = row.at_peak(account.peak_epoch);
            let sums = &mut self.all[number].1;
            let add = |sum: &mut [i64; 2], bytes: u64, count: u64| {
                sum[0] = sum[0].saturating_add(signed(bytes));
                sum[1] = sum[1].saturating_add(signed(count));
            };
            add(&mut sums.made, row.alloc_bytes, row.alloc_count);
            add(&mut sums.live, row.live_bytes, row.live_count);
            add(&mut sums.peak, bytes, count);
        }
        // As it is known: where stacks were sampled, what has none is a stack of its own here as it is in all other sums of a page,
        // not divided among those that stand for it.
        let (point, window) = (
            Point::suiting(process, None, &Window::default()),
            Window::default(),
        );
        let mut kept: FxHashMap<Who, [i64; 2]> = FxHashMap::default();
        items(process, point, &window, &Filter::default(), |item| {
            let who = Who {
                process: id as u32,
                stack: item.stack,
                api: item.api,
                device: item.device,
                kind: item.kind,
            };
            let sum = kept.entry(who).or_default();
            sum[0] = sum[0].saturating_add(signed(item.bytes));
            sum[1] = sum[1].saturating_add(signed(item.count));
        });
        let mut kept: Vec<(Who, [i64; 2])> = kept.into_iter().collect();
        kept.sort_unstable();
        for (who, sum) in kept {
            let number = self.number(who, caches) as usize;
            let kept = &mut self.all[number].1.kept;
            kept[0] = kept[0].saturating_add(sum[0]);
            kept[1] = kept[1].saturating_add(sum[1]);
        }
    }

    /// Where there are more than `most`, the smallest of a process, device and kind become one with
    /// the stack [`OTHER`]. Returns the new number of each, and how many that were.
    pub fn merge(&mut self, most: usize) -> (Vec<u32>, usize) {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        if order.len() <= most {
            return (order.into_iter().map(|number| number as u32).collect(), 0);
        }
        let size = |number: usize| {
            let sums = &self.all[number].1;
            let most = sums.made[0].max(sums.peak[0]).max(sums.live[0]);
            (std::cmp::Reverse(most), number)
        };
        order.sort_unstable_by_key(|&number| size(number));
        let mut merged = Keys::default();
        let mut renumbered = vec![0; self.all.len()];
        for (place, number) in order.iter().copied().enumerate() {
            let (mut who, sums) = self.all[number];
            let cache = self.cache[number];
            if place >= most {
                (who.stack, who.api) = (OTHER, u16::from(cache));
            }
            let next = merged.all.len() as u32;
            let new = *merged.numbers.entry(who).or_insert(next);
            if new == next {
                merged.all.push((who, Sums::default()));
                merged.cache.push(cache);
            }
            let all = &mut merged.all[new as usize].1;
            for (sum, add) in [
                (&mut all.made, sums.made),
                (&mut all.live, sums.live),
                (&mut all.kept, sums.kept),
                (&mut all.peak, sums.peak),
            ] {
                sum[0] = sum[0].saturating_add(add[0]);
                sum[1] = sum[1].saturating_add(add[1]);
            }
            renumbered[number] = new;
        }
        let fewer = order.len() - most;
        *self = merged;
        (renumbered, fewer)
    }
}

/// Stands for the stacks that were too many; what the format has for such rows of a trace.
pub const OTHER: u32 = vramtrace_format::stacks::OTHER_STACKS;
