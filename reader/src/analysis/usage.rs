//! Memory by call stack, for pictures and profiles: what is live, what was at the peaks, all that
//! was ever allocated, what has grown.
//!
//! As in [`super::leaks`], live and allocated bytes are those of the finest layer known, each byte
//! once; what caching allocators and pools hold is in none of them. Where stacks were sampled, what was not
//! is divided among those that stand for it ([`spread`]). Peaks are kept by account, so
//! [`peak`] has the shares of all of them, which are never to be added up.

mod spread;

use super::estimate::Weighted;
use super::leaks::{By, EntryEnd, Item, Point, Window, items};
use super::moment::{Forgotten, Found};
use super::{Filter, Sum};
use crate::model::Process;
use rustc_hash::FxHashMap;
use spread::Gathered;
use vramtrace_format::account;
use vramtrace_format::record::{Kind, Op};
use vramtrace_format::totals::{End, Totals};

/// What a share is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Device ordinal, or [`vramtrace_format::record::NO_DEVICE`].
    pub device: u8,
    /// Kind of memory.
    pub kind: Kind,
    /// How it ended, or that it did not.
    pub end: EntryEnd,
    /// Stack id.
    pub stack: u32,
    /// API function that allocated.
    pub api: u16,
    /// Thread, range, stream or context, where the question was by one of those. A thread may not
    /// be known.
    pub extra: Option<u32>,
}

/// Shares, in an order that depends on nothing but the trace.
pub type Shares = Vec<(Key, Sum)>;

fn extra(by: By, thread: Option<u32>, range: u32, stream: u32, context: u16) -> Option<u32> {
    match by {
        By::Thread => thread,
        By::Range => Some(range),
        By::Stream => Some(stream),
        By::Context => Some(context.into()),
        _ => None,
    }
}

/// What was allocated and not freed, as `leaks` counts it (suppressions apart). What its context
/// corrupted is among it, with that [`Key::end`].
pub fn live(
    process: &Process,
    point: Option<Point>,
    window: &Window,
    filter: &Filter,
    by: By,
) -> Shares {
    let point = Point::suiting(process, point, window);
    let mut gathered = Gathered::default();
    items(process, point, window, filter, |item: Item| {
        let key = Key {
            device: item.device,
            kind: item.kind,
            end: item.end,
            stack: item.stack,
            api: item.api,
            extra: extra(by, item.thread, item.range, item.stream, item.context),
        };
        gathered.add(
            key,
            Sum {
                bytes: item.bytes,
                count: item.count,
            },
            item.weighted,
        );
    });
    gathered.finish()
}

/// What stacks hold more of in `after` than in `before`, and the sum of what others hold less.
pub fn growth(before: &Shares, after: &Shares) -> (Shares, Sum) {
    // How an entry ends is no difference between its being there now and then.
    let same = |key: &Key| Key {
        end: EntryEnd::Live,
        ..*key
    };
    let mut was: FxHashMap<Key, Sum> = FxHashMap::default();
    for (key, sum) in before {
        was.entry(same(key)).or_default().merge(*sum);
    }
    let mut is: FxHashMap<Key, Sum> = FxHashMap::default();
    for (key, sum) in after {
        is.entry(same(key)).or_default().merge(*sum);
    }
    let mut grown = Gathered::default();
    let mut less = Sum::default();
    for (key, sum) in &is {
        let was = was.remove(key).unwrap_or_default();
        let more = Sum {
            bytes: sum.bytes.saturating_sub(was.bytes),
            count: sum.count.saturating_sub(was.count),
        };
        // Fewer and larger ones may hold more.
        if more.bytes > 0 {
            grown.add(*key, more, Weighted::default());
        } else {
            less.add(
                was.bytes.saturating_sub(sum.bytes),
                was.count.saturating_sub(sum.count),
            );
        }
    }
    for gone in was.into_values() {
        less.merge(gone);
    }
    (grown.finish(), less)
}

/// What stacks held at the peak of the account that their memory belongs to.
pub fn peak(process: &Process, filter: &Filter) -> Shares {
    let coarsest = process.sampling.coarsest();
    let mut gathered = Gathered::default();
    for (row, kind) in rows(process, filter) {
        let account = account::index(row.key.device, kind.layer());
        let account = &process.trace.copy.accounts[account];
        let (bytes, count) = row.at_peak(account.peak_epoch);
        let more = row.sampled.at_peak(account.peak_epoch);
        let weighted = Weighted::of_bytes(more, coarsest);
        gathered.add(key(row, kind), Sum { bytes, count }, weighted);
    }
    gathered.finish()
}

/// All that was ever allocated.
pub fn total(process: &Process, filter: &Filter) -> Shares {
    let coarsest = process.sampling.coarsest();
    let mut gathered = Gathered::default();
    let mut caches = Caches::of(process);
    for (row, kind) in rows(process, filter) {
        if !caches.is_one(kind, row.key.stack) {
            let sum = Sum {
                bytes: row.alloc_bytes,
                count: row.alloc_count,
            };
            let weighted = Weighted::of_all_made(&row.sampled, coarsest);
            gathered.add(key(row, kind), sum, weighted);
        }
    }
    gathered.finish()
}

/// What was allocated after one moment and until another, as far as the event log knows that.
pub fn allocated_in(
    process: &Process,
    from: Option<Found>,
    to: Option<Found>,
    filter: &Filter,
    by: By,
) -> Result<Shares, Forgotten> {
    let mut gathered = Gathered::default();
    let mut caches = Caches::of(process);
    let mut previous = 0;
    for event in process.events() {
        let gap = event.seq != u64::wrapping_add(previous, 1);
        previous = event.seq;
        if from.is_some_and(|from| !from.is_before(&event)) {
            continue;
        }
        if gap {
            return Err(Forgotten { began: event.time });
        }
        if to.is_some_and(|to| to.is_before(&event)) {
            break;
        }
        let Some(kind) = event.kind().filter(|kind| kind.counted()) else {
            continue;
        };
        if event.op() != Some(Op::Alloc)
            || !filter.takes(event.device, kind)
            || caches.is_one(kind, event.stack)
        {
            continue;
        }
        let thread = (event.thread != 0).then_some(event.thread);
        let key = Key {
            device: event.device,
            kind,
            end: EntryEnd::Live,
            stack: event.stack,
            api: event.api,
            extra: extra(by, thread, event.range.into(), event.stream, event.context),
        };
        gathered.add(
            key,
            Sum {
                bytes: event.size,
                count: 1,
            },
            Weighted::of(&event),
        );
    }
    Ok(gathered.finish())
}

fn rows<'p>(
    process: &'p Process,
    filter: &'p Filter,
) -> impl Iterator<Item = (&'p Totals, Kind)> + 'p {
    let rows = process.totals().iter();
    rows.filter(|row| row.key.end == End::Live as u8)
        .filter_map(|row| Some((row, row.kind().filter(|kind| kind.counted())?)))
        .filter(|(row, kind)| filter.takes(row.key.device, *kind))
}

fn key(row: &Totals, kind: Kind) -> Key {
    Key {
        device: row.key.device,
        kind,
        end: EntryEnd::Live,
        stack: row.key.stack,
        api: row.key.api,
        extra: None,
    }
}

/// Tells what caching allocators and pools take for themselves.
pub(crate) struct Caches<'p> {
    process: &'p Process,
    /// Whether PyTorch's blocks are known, so that its segments are not counted.
    torch: bool,
    by_stack: FxHashMap<u32, bool>,
}

impl Caches<'_> {
    pub fn of(process: &Process) -> Caches<'_> {
        let is_block = |row: &Totals| row.key.kind == Kind::Torch as u8;
        Caches {
            process,
            torch: process.totals().iter().any(is_block),
            by_stack: FxHashMap::default(),
        }
    }

    pub fn is_one(&mut self, kind: Kind, stack: u32) -> bool {
        let process = self.process;
        match kind {
            Kind::Pool => true,
            Kind::Device | Kind::Managed | Kind::Vmm if self.torch => *self
                .by_stack
                .entry(stack)
                .or_insert_with(|| process.is_torch_allocator(stack)),
            _ => false,
        }
    }
}
