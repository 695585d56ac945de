//! Making groups: by stack, or by another word that entries have.

use super::age::{Age, Row, Rows};
use super::{EntryEnd, Item, Options, Suspicion};
use crate::analysis::Sum;
use crate::analysis::estimate::{Estimate, Weighted};
use crate::analysis::growth::{Course, Survivor, Trend};
use crate::model::{Loops, Process, Remembered, VisibleStack};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE, Space};
use vramtrace_format::stacks::{Frame, NOT_SAMPLED};

/// What groups are made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Call stack, with everything else that differs.
    #[default]
    Stack,
    /// Innermost Python frame.
    Python,
    /// Innermost Python line outside installed packages and the interpreter's own.
    Line,
    /// Innermost library outside CUDA.
    Library,
    /// NVTX range.
    Range,
    /// Thread.
    Thread,
    /// Device.
    Device,
    /// Kind of memory.
    Kind,
    /// Rank of the process.
    Rank,
    /// API function that allocated.
    Api,
    /// Stream.
    Stream,
    /// Context.
    Context,
    /// Layer.
    Layer,
}

impl By {
    /// Each with the word that the command line uses.
    pub const WORDS: [(&'static str, By); 13] = [
        ("stack", By::Stack),
        ("python", By::Python),
        ("line", By::Line),
        ("library", By::Library),
        ("range", By::Range),
        ("thread", By::Thread),
        ("device", By::Device),
        ("kind", By::Kind),
        ("rank", By::Rank),
        ("api", By::Api),
        ("stream", By::Stream),
        ("context", By::Context),
        ("layer", By::Layer),
    ];

    /// Whether sums by stack know what groups would be made by.
    pub fn is_in_totals(self) -> bool {
        !matches!(self, By::Range | By::Thread | By::Stream | By::Context)
    }

    /// Whether it is told apart by stacks, so that groups are estimates where those are sampled.
    pub fn is_by_stack(self) -> bool {
        matches!(self, By::Stack | By::Python | By::Line | By::Library)
    }

    /// The word that the command line uses.
    pub fn word(self) -> &'static str {
        let found = By::WORDS.into_iter().find(|(_, by)| *by == self);
        found.map_or("", |(word, _)| word)
    }
}

/// Names of threads of a group, ascending by id.
pub type Names = Vec<(u32, Option<String>)>;

/// One allocation of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What `key` is.
    pub space: Option<Space>,
    /// Its address, handle or id.
    pub key: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// When it was made, Unix nanoseconds.
    pub at_ns: u64,
    /// Thread that made it, where that is known.
    pub thread: Option<u32>,
}

/// Allocations that belong together. Where its members differ in something, that is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What it was made by, where that is not the stack.
    pub value: Option<String>,
    /// Device ordinal; also `None` for host memory.
    pub device: Option<u8>,
    /// Layer.
    pub layer: Option<Layer>,
    /// Kind.
    pub kind: Option<Kind>,
    /// API function; empty if its name is not known.
    pub api: Option<String>,
    /// How they ended.
    pub end: Option<EntryEnd>,
    /// Bytes asked for.
    pub bytes: u64,
    /// Allocations.
    pub count: u64,
    /// What these stand for, where it was made by stacks that were sampled.
    pub estimate: Option<Estimate>,
    /// It is made of what was not sampled, for which other groups stand.
    pub not_sampled: bool,
    /// When the first was made, Unix nanoseconds.
    pub first_ns: u64,
    /// When the last was made, Unix nanoseconds.
    pub last_ns: u64,
    /// Threads that made them, as far as that is kept.
    pub threads: Names,
    /// NVTX ranges they were made in, as far as that is kept: names, ascending.
    pub ranges: Vec<String>,
    /// Of a group by range: how often the range was entered.
    pub entered: Option<u64>,
    /// Whether it looks like a leak.
    pub suspicion: Suspicion,
    /// How old what it holds is.
    pub age: Age,
    /// Rows of the sums by stack that its allocations count in: stack, API function, device, kind.
    pub rows: Vec<Row>,
    /// What it held over time, where that was asked for and is known.
    pub course: Option<Box<Course>>,
    /// Call stack; empty where groups are made by something else.
    pub stack: VisibleStack,
    /// Its allocations by time, where [`Options::members`] asks for them; without what is kept as
    /// sums only.
    pub members: Vec<Member>,
}

impl Group {
    /// Whether it is known to have grown over the whole time.
    pub(super) fn rises(&self) -> bool {
        self.course
            .as_ref()
            .is_some_and(|course| course.trend == Trend::Rising)
    }

    /// What it holds, as far as is known or estimated: what groups are ranked by.
    pub fn size(&self) -> Sum {
        let known = Sum {
            bytes: self.bytes,
            count: self.count,
        };
        self.estimate.map_or(known, |estimate| estimate.sum(known))
    }
}

/// Everything but the sums; what differs here is told apart until the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Raw {
    stack: u32,
    api: u16,
    device: u8,
    kind: Kind,
    end: EntryEnd,
    extra: Option<u32>,
}

impl Raw {
    /// Kind of memory.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What its row of sums is known by: stack, API, device, kind.
    pub fn row(&self) -> Row {
        (self.stack, self.api, self.device, self.kind as u8)
    }
}

#[derive(Clone, Debug)]
struct Gathered {
    bytes: u64,
    count: u64,
    weighted: Weighted,
    first: u64,
    last: u64,
    last_thread: Option<u32>,
    threads: FxHashSet<u32>,
    ranges: FxHashSet<u32>,
    /// Its items, where they are wanted one by one.
    members: Vec<Item>,
    /// Those of which it is known when they were made.
    survivors: Vec<Survivor>,
}

impl Gathered {
    fn new() -> Gathered {
        Gathered {
            bytes: 0,
            count: 0,
            weighted: Weighted::default(),
            first: u64::MAX,
            last: 0,
            last_thread: None,
            threads: FxHashSet::default(),
            ranges: FxHashSet::default(),
            members: Vec::new(),
            survivors: Vec::new(),
        }
    }

    fn add(&mut self, item: &Item, ages: bool) {
        self.bytes = self.bytes.saturating_add(item.bytes);
        self.count = self.count.saturating_add(item.count);
        self.weighted.merge(item.weighted);
        self.first = self.first.min(item.first_time);
        self.last = self.last.max(item.last_time);
        if item.thread != self.last_thread {
            self.last_thread = item.thread;
            self.threads.extend(item.thread);
        }
        if item.range != 0 {
            self.ranges.insert(item.range);
        }
        if ages && item.first_time == item.last_time && item.count > 0 {
            self.survivors.push(Survivor {
                time: item.first_time,
                // The slope is one of estimates; the verdict is one about what was seen.
                bytes: item.weighted.bytes_with(item.bytes),
                count: item.count,
            });
        }
    }

    fn merge(&mut self, other: Gathered) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count = self.count.saturating_add(other.count);
        self.weighted.merge(other.weighted);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.threads.extend(other.threads);
        self.ranges.extend(other.ranges);
        self.members.extend(other.members);
        if self.survivors.is_empty() {
            self.survivors = other.survivors;
        } else {
            self.survivors.extend(other.survivors);
        }
    }
}

/// What a finished group is told apart by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Stack {
        device: u8,
        kind: Kind,
        api: String,
        end: EntryEnd,
        stack: VisibleStack,
    },
    Value {
        host: bool,
        corrupted: bool,
        value: String,
    },
}

/// Adds up items by what the options say.
pub(crate) struct Grouping<'p> {
    process: &'p Process,
    options: &'p Options,
    /// Places in `gathered`, which is large: the map is looked at for every event.
    numbers: FxHashMap<Raw, u32>,
    gathered: Vec<(Raw, Gathered)>,
    span: (u64, u64),
    /// Whether it is of interest when what a group holds was made.
    ages: bool,
}

impl<'p> Grouping<'p> {
    /// Nothing is added yet.
    pub fn new(process: &'p Process, options: &'p Options) -> Grouping<'p> {
        Grouping {
            process,
            options,
            numbers: FxHashMap::default(),
            gathered: Vec::new(),
            span: (0, process.duration_ns()),
            ages: true,
        }
    }

    /// Does not keep when each item was made, which takes time and memory: [`Group::age`] is that
    /// of a group without items.
    pub fn without_ages(self) -> Grouping<'p> {
        Grouping {
            ages: false,
            ..self
        }
    }

    /// Looks at ages in a part of the process's life only, event times.
    pub fn within(self, from: u64, to: u64) -> Grouping<'p> {
        Grouping {
            span: (from, to),
            ..self
        }
    }

    /// What an item is told apart by until groups are made.
    fn raw(&self, item: &Item) -> Raw {
        Raw {
            stack: item.stack,
            api: item.api,
            device: item.device,
            kind: item.kind,
            end: item.end,
            extra: match self.options.by {
                By::Thread => item.thread,
                // What is known as sums only has no thread either.
                By::Range => item.thread.map(|_| item.range),
                By::Stream => Some(item.stream),
                By::Context => Some(u32::from(item.context)),
                _ => None,
            },
        }
    }

    /// The number of what an item is told apart by: those that come first have the first numbers. There is a group of it, be
    /// it added or not.
    pub fn number(&mut self, item: &Item) -> usize {
        let raw = self.raw(item);
        let next = self.gathered.len() as u32;
        let number = *self.numbers.entry(raw).or_insert(next);
        if number == next {
            self.gathered.push((raw, Gathered::new()));
        }
        number as usize
    }

    /// Adds an item; returns the number of what it is told apart by.
    pub fn add(&mut self, item: &Item) -> usize {
        let number = self.number(item);
        self.add_to(number, item);
        number
    }

    /// Adds an item whose number is known.
    pub fn add_to(&mut self, number: usize, item: &Item) {
        let gathered = &mut self.gathered[number].1;
        gathered.add(item, self.ages);
        if self.options.members && item.key.is_some() {
            gathered.members.push(*item);
        }
    }

    /// All groups, largest first, in an order that does not depend on anything but the trace.
    pub fn finish(self, loops: &mut dyn Loops) -> Vec<Group> {
        let groups = self.finish_with_members(loops).into_iter();
        groups.map(|(group, _)| group).collect()
    }

    /// As [`Grouping::finish`], each group with what was merged into it, by number.
    pub fn finish_with_members(self, loops: &mut dyn Loops) -> Vec<(Group, Vec<(usize, Raw)>)> {
        let mut loops = Remembered::new(loops);
        let mut stacks: FxHashMap<u32, VisibleStack> = FxHashMap::default();
        let mut merged: FxHashMap<Key, (Vec<(usize, Raw)>, Gathered)> = FxHashMap::default();
        for (number, (raw, gathered)) in self.gathered.into_iter().enumerate() {
            let stack = stacks.entry(raw.stack).or_insert_with(|| {
                self.process
                    .visible(raw.stack, self.options.unhidden, &mut loops)
            });
            let key = key(self.process, self.options.by, &raw, stack);
            let (members, sums) = merged
                .entry(key)
                .or_insert_with(|| (Vec::new(), Gathered::new()));
            members.push((number, raw));
            sums.merge(gathered);
        }
        let rows = Rows::of(self.process);
        let age = |members: &[Raw], survivors: &[Survivor]| {
            let made = self.options.by.is_in_totals();
            rows.age(members.iter().map(Raw::row), made, self.span, survivors)
        };
        let mut groups: Vec<(Group, Vec<(usize, Raw)>)> = merged
            .into_iter()
            .map(|(key, (members, sums))| {
                let raws: Vec<Raw> = members.iter().map(|(_, raw)| *raw).collect();
                let age = age(&raws, &sums.survivors);
                let by = self.options.by;
                (group(self.process, by, key, &raws, sums, age), members)
            })
            .collect();
        groups.sort_by_cached_key(|(group, _)| order(group));
        groups
    }
}

/// Total order of groups: size, then what is printed.
fn order(group: &Group) -> impl Ord + use<> {
    let frames: Vec<u64> = group.stack.frames.iter().map(|f| f.encode()).collect();
    let size = group.size();
    (
        group.not_sampled,
        Reverse(size.bytes),
        Reverse(size.count),
        (group.device, group.kind, group.end),
        (group.value.clone(), group.api.clone(), group.first_ns),
        (frames, group.stack.missing),
    )
}

fn key(process: &Process, by: By, raw: &Raw, stack: &VisibleStack) -> Key {
    let extra = raw.extra.unwrap_or(0);
    let value = match by {
        By::Stack => {
            return Key::Stack {
                device: raw.device,
                kind: raw.kind,
                api: process.api(raw.api).unwrap_or_default().to_owned(),
                end: raw.end,
                stack: stack.clone(),
            };
        }
        By::Python | By::Line | By::Library if raw.stack == NOT_SAMPLED => "not sampled".to_owned(),
        By::Python => python_frame(process, stack, |_| true),
        By::Line => python_frame(process, stack, |code| process.is_own_code(code)),
        By::Library => library(process, raw, stack),
        By::Range => match raw.extra {
            Some(0) => NO_RANGE.to_owned(),
            Some(id) => range_name(process, id),
            None => "range not kept".to_owned(),
        },
        By::Thread => match raw.extra {
            Some(id) => name_or(process.thread(id), "thread", id, "unknown thread"),
            None => "thread not kept".to_owned(),
        },
        By::Device if raw.device == NO_DEVICE => "host".to_owned(),
        By::Device => format!("GPU {}", raw.device),
        By::Kind => raw.kind.name().to_owned(),
        By::Rank => match process.identity.rank {
            Some(rank) => format!("rank {rank}"),
            None => "no rank".to_owned(),
        },
        By::Api => process.api(raw.api).unwrap_or("unknown").to_owned(),
        By::Stream => name_or(None, "stream", extra, "default stream"),
        By::Context => name_or(None, "context", extra, "context not kept"),
        By::Layer => raw.kind.layer().name().to_owned(),
    };
    Key::Value {
        host: raw.kind.layer() == Layer::Host,
        corrupted: raw.end == EntryEnd::Corrupted,
        value,
    }
}

/// What is said of memory that was allocated in no range.
pub(crate) const NO_RANGE: &str = "no range";

fn range_name(process: &Process, id: u32) -> String {
    match process.ranges.name(id) {
        Some(name) => name.to_owned(),
        None => format!("range {id}"),
    }
}

fn name_or(name: Option<&str>, what: &str, id: u32, none: &str) -> String {
    match (name, id) {
        (_, 0) => none.to_owned(),
        (Some(name), id) => format!("{name} ({id})"),
        (None, id) => format!("{what} {id}"),
    }
}

/// The innermost Python frame whose function is wanted; without one, the innermost of all.
fn python_frame(process: &Process, stack: &VisibleStack, wanted: impl Fn(u32) -> bool) -> String {
    let python = || {
        stack.frames.iter().filter_map(|frame| match frame {
            Frame::Python { code, line, .. } => Some((*code, *line)),
            _ => None,
        })
    };
    let found = python().find(|(code, _)| wanted(*code));
    match found.or_else(|| python().next()) {
        Some((code, line)) => process.python_name(code, line),
        None => "no Python frame".to_owned(),
    }
}

fn library(process: &Process, raw: &Raw, stack: &VisibleStack) -> String {
    let python = |frame: &Frame| matches!(frame, Frame::Python { .. });
    match process.library_of(raw.stack) {
        Some(library) if library.name == library.file => library.file,
        Some(library) => format!("{} ({})", library.name, library.file),
        None if stack.frames.iter().any(python) => "no native frames".to_owned(),
        None => "unknown library".to_owned(),
    }
}

fn group(
    process: &Process,
    by: By,
    key: Key,
    members: &[Raw],
    mut sums: Gathered,
    age: Age,
) -> Group {
    sums.members
        .sort_unstable_by_key(|item| (item.first_time, item.key));
    let (value, stack) = match key {
        Key::Stack { stack, .. } => (None, stack),
        Key::Value { value, .. } => (Some(value), VisibleStack::default()),
    };
    let entered = match (by, &value) {
        (By::Range, Some(value)) => process.ranges.entered(value),
        _ => None,
    };
    let api = |raw: &Raw| process.api(raw.api).unwrap_or_default().to_owned();
    let named = |ids: FxHashSet<u32>, name: &dyn Fn(u32) -> Option<String>| {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        ids.into_iter().map(|id| (id, name(id))).collect()
    };
    let duration = process.duration_ns();
    let known = Sum {
        bytes: sums.bytes,
        count: sums.count,
    };
    // What does not depend on the stack is known of every allocation.
    let estimate = by.is_by_stack().then(|| sums.weighted.estimate(known));
    let estimate = estimate.flatten();
    Group {
        value,
        device: common(members, |raw| raw.device).filter(|&device| device != NO_DEVICE),
        layer: common(members, |raw| raw.kind.layer()),
        kind: common(members, |raw| raw.kind),
        api: common(members, api),
        end: common(members, |raw| raw.end),
        bytes: sums.bytes,
        count: sums.count,
        estimate,
        not_sampled: by.is_by_stack() && members.iter().all(|raw| raw.stack == NOT_SAMPLED),
        first_ns: process.unix_ns(sums.first),
        last_ns: process.unix_ns(sums.last),
        threads: named(sums.threads, &|id| process.thread(id).map(str::to_owned)),
        suspicion: Suspicion::of(
            sums.count,
            sums.first,
            sums.last,
            duration,
            age.judgement.shape,
        ),
        age,
        rows: {
            let rows: BTreeSet<Row> = members.iter().map(Raw::row).collect();
            rows.into_iter().collect()
        },
        course: None,
        ranges: {
            let names = sums.ranges.into_iter().map(|id| range_name(process, id));
            names.collect::<BTreeSet<String>>().into_iter().collect()
        },
        entered,
        stack,
        members: sums
            .members
            .iter()
            .filter_map(|item| member(process, item))
            .collect(),
    }
}

fn member(process: &Process, item: &Item) -> Option<Member> {
    let (space, key) = item.key?;
    Some(Member {
        space: Space::from_u8(space),
        key,
        bytes: item.bytes,
        at_ns: process.unix_ns(item.first_time),
        thread: item.thread,
    })
}

/// What all members have in common.
fn common<T: PartialEq>(members: &[Raw], of: impl Fn(&Raw) -> T) -> Option<T> {
    let (first, others) = members.split_first()?;
    let first = of(first);
    others
        .iter()
        .all(|other| of(other) == first)
        .then_some(first)
}
