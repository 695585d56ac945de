//! What is still allocated, grouped by call stack.
//!
//! A leak is an allocation that is live when its process or its context ends, counted at the
//! finest layer known ([`finest`]): a framework's blocks instead of the segments that hold them,
//! a pool's blocks instead of the pool. What a caching allocator holds without using it is
//! `cached`, never a leak.

mod age;
mod answer;
mod finest;
mod group;
mod suppress;
mod suspicion;

pub use age::{Age, PARTS, Row};
pub use answer::{Answer, Asked, Placed, PlacedBack, PlacedCache, PlacedTorch};
pub use group::{By, Group, Member, Names};
pub use suppress::{Malformed, Pattern, Suppressed, Suppressions};
pub use suspicion::Suspicion;

pub(crate) use finest::{caches, items};
pub(crate) use group::Grouping;

use suppress::Judge;

use super::growth::CELLS;
use super::moment::{Found, Past};
use super::{Filter, Sum};
use crate::analysis::estimate::Weighted;
use crate::model::{Loops, Process, Unhidden};
use std::collections::BTreeMap;
use vramtrace_format::record::Kind;

/// The moment that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The end of the process, or of its trace.
    End,
    /// Just before the process began to go down.
    Teardown,
    /// A moment in between.
    Moment,
}

impl Point {
    /// The moment that an answer is about: the one asked for, or the one that suits the process.
    pub(crate) fn suiting(process: &Process, asked: Option<Point>, window: &Window) -> Point {
        // A program that frees in its exit handlers has not leaked; a Python interpreter that goes
        // down frees everything, leaked or not.
        let interpreted = process.has_interpreter() && process.teardown_seq().is_some();
        match (&window.to, asked) {
            (Some(_), _) => Point::Moment,
            (None, Some(point)) => point,
            (None, None) if interpreted => Point::Teardown,
            (None, None) => Point::End,
        }
    }

    /// The word that the command line and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            Point::End => "end",
            Point::Teardown => "teardown",
            Point::Moment => "moment",
        }
    }
}

/// How an allocation ended, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryEnd {
    /// It is live.
    Live,
    /// Its context was destroyed while it was live.
    Context,
    /// Its device was reset while it was live.
    Reset,
    /// Its context was corrupted while it was live, so it can't be freed any more.
    Corrupted,
    /// It was freed while the process went down.
    Teardown,
}

impl EntryEnd {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            EntryEnd::Live => "live",
            EntryEnd::Context => "context",
            EntryEnd::Reset => "reset",
            EntryEnd::Corrupted => "corrupted",
            EntryEnd::Teardown => "teardown",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The moment; by default the one that suits each process.
    pub point: Option<Point>,
    /// What groups are made by.
    pub by: By,
    /// What to leave out.
    pub filter: Filter,
    /// Frames that are shown though they usually are not.
    pub unhidden: Unhidden,
    /// Leaks that are known and accepted.
    pub suppressions: Suppressions,
    /// Whether groups list their members.
    pub members: bool,
    /// Whether groups that keep growing come before larger ones that do not.
    pub suspicious_first: bool,
}

/// Which part of a process's life an answer is about; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Only what was allocated after this.
    pub from: Option<Found>,
    /// What was live then, instead of at the end or at teardown. What had ended with its context
    /// by then is not in it.
    pub to: Option<Past>,
}

impl Window {
    /// Its beginning and its end, event times. A process that allocates nothing any more, and waits or
    /// goes down, is at its end: what grew until then has not stopped before.
    fn span(&self, process: &Process) -> (u64, u64) {
        let from = self.from.and_then(|from| from.time(process));
        // When what is older was made is not known, so nothing is said of that time.
        let dated = self.to.as_ref().filter(|past| past.undated > 0);
        let from = from.max(dated.map(|past| past.began));
        let to = self.to.as_ref().map(|to| to.time);
        let to = to.unwrap_or_else(|| {
            let (end, last) = (process.duration_ns(), process.last_allocation());
            // Less than one part of its life is no stop.
            if end - last < end / CELLS as u64 {
                end
            } else {
                last
            }
        });
        (from.unwrap_or(0), to)
    }
}

/// Bytes on a device that caching allocators and pools hold without using them.
pub(crate) fn cached_on(process: &Process, device: u8) -> u64 {
    let filter = Filter {
        devices: vec![device],
        ..Filter::default()
    };
    let rest = finest::items(process, Point::End, &Window::default(), &filter, |_| {});
    unused(&rest.caches)
}

/// One or more allocations that have everything in common that reports show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Item {
    pub stack: u32,
    pub api: u16,
    pub device: u8,
    pub kind: Kind,
    pub end: EntryEnd,
    /// Not known of what is only kept as a sum.
    pub thread: Option<u32>,
    pub range: u32,
    pub stream: u32,
    pub context: u16,
    pub bytes: u64,
    pub count: u64,
    pub first_time: u64,
    pub last_time: u64,
    /// Space and value of its key; not known of what is only kept as a sum.
    pub key: Option<(u8, u64)>,
    /// What it stands for.
    pub weighted: Weighted,
}

/// Memory that is listed and never added to anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Somebody else's memory, visible here.
    pub imports: Sum,
    /// Mappings of physical allocations.
    pub mappings: Sum,
    /// Reserved address ranges.
    pub reservations: Sum,
}

impl Aside {
    fn merge(&mut self, other: Aside) {
        self.imports.merge(other.imports);
        self.mappings.merge(other.mappings);
        self.reservations.merge(other.reservations);
    }
}

/// What caching allocators and pools hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// Bytes that they have from the driver.
    pub reserved: u64,
    /// Bytes of that in no live block.
    pub unused: u64,
}

impl Cached {
    /// Adds another's.
    pub fn merge(&mut self, other: Cached) {
        self.reserved = self.reserved.saturating_add(other.reserved);
        self.unused = self.unused.saturating_add(other.unused);
    }

    /// Bytes in live blocks.
    pub fn used(&self) -> u64 {
        self.reserved.saturating_sub(self.unused)
    }
}

/// What one process leaked.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaks {
    /// The moment.
    pub point: Point,
    /// Leaked GPU memory.
    pub gpu: Sum,
    /// Leaked page-locked host memory.
    pub host: Sum,
    /// What caching allocators and pools hold, by device.
    pub caches: BTreeMap<u8, Cached>,
    /// Part of `gpu` and `host` that was released after all, while the process went down.
    pub teardown_only: Sum,
    /// What can't be freed any more because its context broke; not in `gpu` or `host`.
    pub corrupted: Sum,
    /// What is not counted.
    pub aside: Aside,
    /// Live entries of kinds that this version does not know; in no sum.
    pub unknown_kinds: u64,
    /// What is known as sums only, not by when it was allocated, and so left out of a window.
    pub timeless: Sum,
    /// Part of `gpu`: segments of PyTorch's allocator in a process of which no tensor was seen.
    pub opaque: Sum,
    /// What was suppressed, by which pattern; in no other sum and in no group.
    pub suppressed: Vec<Suppressed>,
    /// Groups, largest first. Those that ended `corrupted` are among them.
    pub groups: Vec<Group>,
}

impl Leaks {
    /// Bytes that caching allocators and pools hold without using them, on all devices.
    pub fn cached(&self) -> u64 {
        unused(&self.caches)
    }
}

fn unused(caches: &BTreeMap<u8, Cached>) -> u64 {
    caches
        .values()
        .fold(0, |sum: u64, cache| sum.saturating_add(cache.unused))
}

/// Finds the leaks of one process.
pub fn leaks(process: &Process, options: &Options, loops: &mut dyn Loops) -> Leaks {
    leaks_in(process, options, &Window::default(), loops)
}

/// Finds what was allocated, and not freed, in a part of a process's life.
pub fn leaks_in(
    process: &Process,
    options: &Options,
    window: &Window,
    loops: &mut dyn Loops,
) -> Leaks {
    let point = Point::suiting(process, options.point, window);
    let mut found = Leaks {
        point,
        gpu: Sum::default(),
        host: Sum::default(),
        caches: BTreeMap::new(),
        teardown_only: Sum::default(),
        corrupted: Sum::default(),
        aside: Aside::default(),
        unknown_kinds: 0,
        timeless: Sum::default(),
        opaque: Sum::default(),
        suppressed: Vec::new(),
        groups: Vec::new(),
    };
    let (from, to) = window.span(process);
    let mut grouping = group::Grouping::new(process, options).within(from, to);
    let mut judge = Judge::new(process, &options.suppressions);
    let rest = finest::items(process, point, window, &options.filter, |item| {
        let held = Sum {
            bytes: item.bytes,
            count: item.count,
        };
        if judge.takes(item.stack, item.api, held, &mut *loops) {
            return;
        }
        let space = match (item.end, item.kind.layer()) {
            (EntryEnd::Corrupted, _) => &mut found.corrupted,
            (_, vramtrace_format::Layer::Host) => &mut found.host,
            _ => &mut found.gpu,
        };
        space.add(item.bytes, item.count);
        if item.end == EntryEnd::Teardown {
            found.teardown_only.add(item.bytes, item.count);
        }
        grouping.add(&item);
    });
    found.caches = rest.caches;
    found.aside = rest.aside;
    found.unknown_kinds = rest.unknown_kinds;
    found.timeless = rest.timeless;
    found.opaque = rest.opaque;
    found.suppressed = judge.finish();
    found.groups = grouping.finish(loops);
    if window.to.is_some() || window.from.is_some() {
        // What sums by stack know is of all the time.
        for group in &mut found.groups {
            group.age.made = None;
        }
    }
    found
}
