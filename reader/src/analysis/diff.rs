//! What is live in one place and not in the other: two traces, or two moments of one.
//!
//! Groups are the same if people would call them so: by the names and files of their functions.
//! Addresses say nothing about another build. Lines tell call sites of one function apart, but
//! they move: where a function has as many sites before as after, those belong together in their
//! order; else those at the same lines do, and the others came or went.
//!
//! Where stacks were sampled, groups hold what their samples stand for, within an interval ([`held`]); what is not certain
//! counts as no growth.

mod held;

pub use held::{Delta, Size};

use super::estimate;
use super::head::Head;
use super::leaks::{EntryEnd, Group, Options, Placed, Suppressed, Window, leaks_in};
use super::view::Devices;
use super::{Filter, Sum};
use crate::model::{Loops, Process};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use vramtrace_format::record::Kind;

/// A frame, as builds of one program have it in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Function and file, or whatever else the frame is known by.
    pub name: String,
    /// Line, if known.
    pub line: Option<u32>,
}

/// Knows what frames are called.
pub trait Names: Loops {
    /// Finds out about all these groups at once, which is faster than one after the other.
    fn prepare(&mut self, process: &Process, groups: &[Group]);

    /// The frames of a group. Processes are told apart by `id`: first all from before.
    fn sites(&mut self, id: usize, process: &Process, group: &Group) -> Vec<Site>;
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// It was not there before.
    New,
    /// It holds more bytes.
    Grown,
    /// It holds fewer bytes.
    Shrunk,
    /// It is not there any more.
    Gone,
    /// It holds as many bytes.
    Same,
}

impl What {
    /// The word that reports and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            What::New => "new",
            What::Grown => "grown",
            What::Shrunk => "shrunk",
            What::Gone => "gone",
            What::Same => "same",
        }
    }

    fn of(before: &Size, after: &Size) -> What {
        let counts = (before.known.count, after.known.count);
        let (before, after) = (before.sum(), after.sum());
        match counts {
            (0, _) => What::New,
            (_, 0) => What::Gone,
            _ if after.bytes > before.bytes => What::Grown,
            _ if after.bytes < before.bytes => What::Shrunk,
            _ => What::Same,
        }
    }
}

/// A group that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What became of it.
    pub what: What,
    /// What it held before.
    pub before: Size,
    /// What it holds after.
    pub after: Size,
    /// Whether the group that is shown is from before; only where there is none after.
    pub from_before: bool,
    /// The group that is shown; of several that belong together, the largest.
    pub placed: Placed,
}

impl Change {
    /// By how many bytes it grew, as far as is known or estimated.
    pub fn delta(&self) -> i128 {
        self.interval().bytes
    }

    /// The same, with what is certain of it.
    pub fn interval(&self) -> Delta {
        Delta::between(&self.before, &self.after)
    }

    /// Whether it grew by more than `tolerance` bytes; `None` where that is not certain: the interval of an estimate
    /// goes to both sides of it. What was not sampled is no group of its own: others stand for it.
    pub fn grew(&self, tolerance: u64) -> Option<bool> {
        let (delta, tolerance) = (self.interval(), i128::from(tolerance));
        if self.placed.group.not_sampled || delta.high <= tolerance {
            Some(false)
        } else {
            (delta.low > tolerance).then_some(true)
        }
    }
}

/// One of the two places.
pub struct Side<'p> {
    /// Its processes; their memory is added up.
    pub processes: &'p [Process],
    /// For each, the moment; or none at all for the end.
    pub windows: &'p [Window],
    /// The moment in words; `None` for the end.
    pub moment: Option<String>,
}

/// What one of the two places is, and holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Whom it is about.
    pub head: Head,
    /// The moment in words; `None` for the end.
    pub moment: Option<String>,
    /// GPU memory, at the finest layer known.
    pub gpu: Sum,
    /// Page-locked host memory.
    pub host: Sum,
    /// Bytes that caching allocators and pools hold without using them.
    pub cached: u64,
    /// Bytes that a stack may hold of which no allocation was sampled; 0 where all stacks were taken.
    pub unseen: u64,
    /// What was suppressed; in no other sum.
    pub suppressed: Vec<Suppressed>,
}

/// The difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Before.
    pub before: Held,
    /// After.
    pub after: Held,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// Bytes that a group may grow by without counting as grown.
    pub tolerance: u64,
    /// What changed, by most bytes first.
    pub changes: Vec<Change>,
    /// How many changes `top` left out, and by how many bytes these grew together.
    pub omitted: (usize, i128),
    /// Groups that did not change, and what they hold.
    pub same: (usize, Sum),
    /// Groups that are new or grew by more than was tolerated, for certain, shown or not.
    pub grown: usize,
    /// Groups of which that is not certain, because stacks were sampled.
    pub uncertain: usize,
}

/// What groups have in common that may be the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    value: Option<String>,
    device: Option<u8>,
    kind: Option<Kind>,
    api: Option<String>,
    corrupted: bool,
    names: Vec<String>,
    missing: Option<&'static str>,
}

/// A group and where its frames are.
struct Member {
    placed: Placed,
    size: Size,
    lines: Vec<Option<u32>>,
}

impl Diff {
    /// Compares; keeps the `top` largest changes. Growth of up to `tolerance` bytes does not count
    /// as growth in [`Diff::grown`].
    pub fn of(
        before: &Side<'_>,
        after: &Side<'_>,
        options: &Options,
        top: Option<usize>,
        tolerance: u64,
        names: &mut dyn Names,
    ) -> Diff {
        let mut classes: FxHashMap<Key, [Vec<Member>; 2]> = FxHashMap::default();
        let mut held = |side: &Side<'_>, is_after: bool| {
            let first_id = if is_after { before.processes.len() } else { 0 };
            let mut devices = Devices::default();
            let mut held = Held::of(side, &mut devices);
            for (id, process) in side.processes.iter().enumerate() {
                let whole = Window::default();
                let window = side.windows.get(id).unwrap_or(&whole);
                let found = leaks_in(process, options, window, names);
                let left_out = found.groups.iter().find(|group| group.not_sampled);
                if let Some(left_out) = left_out {
                    let most = estimate::unseen(process.sampling.coarsest());
                    held.unseen = held.unseen.saturating_add(most.min(left_out.bytes));
                }
                held.gpu.merge(found.gpu);
                held.gpu.merge(found.corrupted);
                held.host.merge(found.host);
                held.cached = held.cached.saturating_add(found.cached());
                held.suppressed.extend(found.suppressed);
                names.prepare(process, &found.groups);
                for group in found.groups {
                    let sites = names.sites(first_id + id, process, &group);
                    let (key, lines) = key(&group, sites);
                    let placed = Placed {
                        process: id,
                        device: group.device.map(|index| devices.id_of(process, id, index)),
                        group,
                    };
                    let class = classes.entry(key).or_default();
                    let size = Size::of(&placed.group);
                    class[usize::from(is_after)].push(Member {
                        placed,
                        size,
                        lines,
                    });
                }
            }
            held.head.devices = devices.all;
            held
        };
        let (before, after) = (held(before, false), held(after, true));
        let mut diff = Diff {
            before,
            after,
            all_frames: options.unhidden.cuda,
            filter: options.filter.clone(),
            tolerance,
            changes: Vec::new(),
            omitted: (0, 0),
            same: (0, Sum::default()),
            grown: 0,
            uncertain: 0,
        };
        let unseen = [diff.before.unseen, diff.after.unseen];
        for change in classes.into_values().flat_map(|class| pairs(class, unseen)) {
            match change.grew(tolerance) {
                Some(grew) => diff.grown += usize::from(grew),
                None => diff.uncertain += 1,
            }
            if change.what == What::Same {
                diff.same.0 += 1;
                diff.same.1.merge(change.after.known);
            } else {
                diff.changes.push(change);
            }
        }
        diff.changes.sort_by_cached_key(order);
        if let Some(top) = top.filter(|&top| top < diff.changes.len()) {
            for change in diff.changes.drain(top..) {
                diff.omitted.0 += 1;
                diff.omitted.1 += change.delta();
            }
        }
        diff
    }

    /// Whether both live sets are exact.
    pub fn complete(&self) -> bool {
        self.before.head.complete() && self.after.head.complete()
    }

    /// By how many bytes all memory grew together, which is exact whatever was sampled; of the GPU and of the host.
    pub fn totals(&self) -> [i128; 2] {
        let both = [
            (self.before.gpu, self.after.gpu),
            (self.before.host, self.after.host),
        ];
        both.map(|(before, after)| i128::from(after.bytes) - i128::from(before.bytes))
    }

    /// Number of shown changes of a sort.
    pub fn number(&self, what: What) -> usize {
        self.changes
            .iter()
            .filter(|change| change.what == what)
            .count()
    }
}

impl Held {
    fn of(side: &Side<'_>, devices: &mut Devices) -> Held {
        Held {
            head: Head::of(side.processes, devices),
            moment: side.moment.clone(),
            gpu: Sum::default(),
            host: Sum::default(),
            cached: 0,
            unseen: 0,
            suppressed: Vec::new(),
        }
    }
}

fn key(group: &Group, sites: Vec<Site>) -> (Key, Vec<Option<u32>>) {
    let by_value = group.value.is_some();
    let (names, lines) = sites.into_iter().map(|site| (site.name, site.line)).unzip();
    let key = Key {
        value: group.value.clone(),
        device: group.device.filter(|_| !by_value),
        kind: group.kind.filter(|_| !by_value),
        api: group.api.clone().filter(|_| !by_value),
        corrupted: group.end == Some(EntryEnd::Corrupted),
        names,
        missing: group.stack.missing.filter(|_| !by_value),
    };
    (key, lines)
}

/// Finds out which groups of a class belong together; `unseen` is what a group that is missing on either side may hold
/// there.
fn pairs([before, after]: [Vec<Member>; 2], unseen: [u64; 2]) -> Vec<Change> {
    let change = |before, after| change(before, after, unseen);
    let (mut before, mut after) = (by_lines(before), by_lines(after));
    if before.len() == after.len() {
        let both = before.into_iter().zip(after);
        return both
            .map(|(before, after)| change(Some(before), Some(after)))
            .collect();
    }
    let mut changes = Vec::new();
    let mut rest = Vec::new();
    for old in before.drain(..) {
        match after.iter().position(|new| new.lines == old.lines) {
            Some(at) => changes.push(change(Some(old), Some(after.remove(at)))),
            None => rest.push(old),
        }
    }
    let all = rest.len().max(after.len());
    let (mut rest, mut after) = (rest.into_iter(), after.into_iter());
    changes.extend((0..all).map(|_| change(rest.next(), after.next())));
    changes
}

/// One member for each set of lines (of several processes, for example), in their order.
fn by_lines(mut members: Vec<Member>) -> Vec<Member> {
    let size = |member: &Member| Reverse(member.size.sum().bytes);
    members.sort_by(|one, other| {
        let lines = one.lines.cmp(&other.lines);
        lines.then_with(|| size(one).cmp(&size(other)))
    });
    let mut merged: Vec<Member> = Vec::new();
    for member in members {
        match merged.last_mut().filter(|last| last.lines == member.lines) {
            Some(last) => {
                last.size = last.size.with(member.size);
                let group = &mut last.placed.group;
                (group.bytes, group.count) = (last.size.known.bytes, last.size.known.count);
                group.estimate = last.size.estimate;
            }
            None => merged.push(member),
        }
    }
    merged
}

fn change(before: Option<Member>, after: Option<Member>, unseen: [u64; 2]) -> Change {
    let of_stack = [&before, &after].into_iter().flatten().all(|member| {
        // Groups by something else are counted, not sampled.
        let group = &member.placed.group;
        group.value.is_none() && !group.not_sampled
    });
    let size = |member: &Option<Member>, unseen: u64| match member {
        Some(member) => member.size,
        None if of_stack => Size::unseen(unseen),
        None => Size::default(),
    };
    let (was, is) = (size(&before, unseen[0]), size(&after, unseen[1]));
    let from_before = after.is_none();
    let Some(shown) = after.or(before) else {
        unreachable!("a change is of something");
    };
    Change {
        what: What::of(&was, &is),
        before: was,
        after: is,
        from_before,
        placed: shown.placed,
    }
}

/// Largest change first, growth before shrinking, then an order that depends on nothing else.
fn order(change: &Change) -> impl Ord + use<> {
    let group = &change.placed.group;
    let frames: Vec<u64> = group.stack.frames.iter().map(|f| f.encode()).collect();
    (
        Reverse(change.delta().unsigned_abs()),
        Reverse(change.delta()),
        (group.value.clone(), group.kind, group.device),
        (group.api.clone(), frames),
    )
}
