//! Each allocation that failed for lack of memory: what was asked, what was free, who held the
//! rest, what became of it.
//!
//! The recorder writes a failed allocation down with its stack, and right after it what the driver
//! says is free; who held the memory follows from going back from the end to that event, as far
//! as the event log is whole. Where it is not, a snapshot that was taken at the failure says it
//! ([`from_snapshots`]).

mod from_snapshots;
mod series;

use super::estimate::Weighted;
use super::head::Head;
use super::leaks::{Asked, EntryEnd, Group, Grouping, Item, Options, Placed, Window, leaks_in};
use super::moment::{Found, Past};
use super::view::Devices;
use super::{Filter, Sum};
use crate::model::{Loops, Process, VisibleStack};
use series::{Series, series};
use std::path::PathBuf;
use vramtrace_format::account;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE, Record};

/// `CUDA_ERROR_OUT_OF_MEMORY` of cuda.h.
const OUT_OF_MEMORY: u64 = 2;
/// For so many failures of a process is it found out who held the memory: each takes a pass over
/// the event log.
const DETAILED: usize = 32;
/// What was allocated so shortly before is what led up to a failure, nanoseconds.
pub const RECENT: u64 = 10_000_000_000;

/// What became of a failed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The recorder made pools give back memory, tried once more, and the program got it.
    Rescued,
    /// The same thread asked for as much again, so much later (nanoseconds), and got it.
    Retried(u64),
    /// The process went on to allocate: so many times, of any size.
    WentOn(u64),
    /// It was the last that the process tried: it ended so much later, nanoseconds.
    Last(u64),
    /// It was the last that the process tried so far, and it still runs.
    Open,
}

impl Fate {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Rescued => "rescued",
            Fate::Retried(_) => "retried",
            Fate::WentOn(_) => "went-on",
            Fate::Last(_) => "last",
            Fate::Open => "open",
        }
    }
}

/// Whether it would have fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fits {
    /// The driver had as much, but not in one piece, or not for this pool or process.
    InFree,
    /// With what the process's own caching allocators and pools held without using it.
    WithoutCache,
    /// Not even then.
    Never,
    /// What was free is not known.
    Unknown,
}

impl Fits {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Fits::InFree => "in-free",
            Fits::WithoutCache => "without-cache",
            Fits::Never => "never",
            Fits::Unknown => "unknown",
        }
    }
}

/// One more attempt of the recorder's, after pools of the device were trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Whether the program got its memory.
    pub saved: bool,
    /// What the pools gave back.
    pub bytes: u64,
    /// How long it took, nanoseconds.
    pub took_ns: u64,
    /// The device's work was not waited for to its end: what it was yet to free stayed.
    pub impatient: bool,
}

/// A framework's allocator gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameworkGaveUp {
    /// What it was asked for, as it rounds it.
    pub asked: u64,
    /// What it had handed out on the device, by its own account.
    pub allocated: u64,
    /// What it had of the device.
    pub reserved: u64,
    /// The event that says so.
    pub seq: u64,
}

/// What a process held when an allocation failed, in the space (device, or host) where it did.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldThen {
    /// What it had taken from the driver.
    pub taken: u64,
    /// What of it was in use, at the finest layer known.
    pub used: Sum,
    /// What caching allocators and pools held without using it.
    pub cached: u64,
    /// The part of `used` that was allocated in the last [`RECENT`].
    pub recent: Sum,
    /// Who, largest first.
    pub groups: Vec<Placed>,
    /// Groups that `top` left out, and what they held.
    pub omitted: (usize, Sum),
    /// A snapshot says so, since the event log has forgotten it.
    pub by_snapshot: bool,
}

/// An allocation that failed, or several attempts at the same in succession.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Who asked: stack, kind, API, thread; `bytes` is what was asked for, `count` how often, the
    /// times those of the first and the last attempt.
    pub placed: Placed,
    /// The event of the last attempt.
    pub seq: u64,
    /// Free and total bytes of the device by the driver, at the last attempt.
    pub free: Option<(u64, u64)>,
    /// What became of it.
    pub fate: Fate,
    /// That the recorder tried once more, at the last attempt.
    pub rescue: Option<Rescue>,
    /// That a framework gave up over it; where it had not asked the driver, that is all that failed.
    pub framework: Option<FrameworkGaveUp>,
    /// The snapshot that was taken then.
    pub snapshot: Option<PathBuf>,
    /// Who held what at the last attempt; a sentence where that is not known.
    pub held: Result<HeldThen, String>,
}

impl Failure {
    /// Whether it would have fitted.
    pub fn fits(&self) -> Fits {
        let asked = self.placed.group.bytes;
        let cached = self.held.as_ref().map_or(0, |held| held.cached);
        match self.free {
            Some((free, _)) if asked <= free => Fits::InFree,
            Some((free, _)) if asked <= free.saturating_add(cached) => Fits::WithoutCache,
            Some(_) if self.held.is_ok() => Fits::Never,
            _ => Fits::Unknown,
        }
    }

    /// Bytes on the device that this process had not allocated: other processes, contexts, and
    /// what the driver keeps.
    pub fn others(&self) -> Option<u64> {
        let (free, total) = self.free?;
        let held = self.held.as_ref().ok()?;
        Some(total.saturating_sub(free).saturating_sub(held.taken))
    }
}

/// The failures of several processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Oom {
    /// Whom it is about.
    pub head: Head,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// The part of the processes' lives.
    pub asked: Asked,
    /// Failures, of each process in their order.
    pub failures: Vec<Failure>,
    /// Earlier ones that were left out.
    pub omitted: usize,
    /// Failed attempts that the event log has forgotten.
    pub forgotten: u64,
}

/// A part of a process's time, event times; `None` for all of it.
pub type Part = Option<(u64, u64)>;

impl Oom {
    /// Finds the failures in all processes, each in its part of the time (`parts` has one for each,
    /// or none at all); keeps the `last` ones of each process, and of each the `top` largest
    /// groups that held memory.
    pub fn of(
        processes: &[Process],
        options: &Options,
        parts: &[Part],
        asked: &Asked,
        last: Option<usize>,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Oom {
        Oom::with_snapshots(processes, &[], options, parts, asked, last, top, loops)
    }

    /// As [`Oom::of`], with the snapshots that were taken of each process (`snapshots` has a list for
    /// each, in their order, or none at all).
    #[allow(clippy::too_many_arguments)]
    pub fn with_snapshots(
        processes: &[Process],
        snapshots: &[Vec<Process>],
        options: &Options,
        parts: &[Part],
        asked: &Asked,
        last: Option<usize>,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Oom {
        let mut devices = Devices::default();
        let mut found = Oom {
            head: Head::of(processes, &mut devices),
            all_frames: options.unhidden.cuda,
            filter: options.filter.clone(),
            asked: asked.clone(),
            failures: Vec::new(),
            omitted: 0,
            forgotten: 0,
        };
        for (id, process) in processes.iter().enumerate() {
            let part = parts.get(id).copied().flatten();
            let snapshots = snapshots.get(id).map_or(&[][..], Vec::as_slice);
            let (of_log, seen) = series(process, &options.filter, part);
            let (mut series, recovered) =
                from_snapshots::complete(of_log, process, snapshots, &options.filter, part);
            if part.is_none() {
                let known = seen.saturating_add(recovered);
                found.forgotten += ever(process, &options.filter).saturating_sub(known);
            }
            let left_out = last.map_or(0, |last| series.len().saturating_sub(last));
            found.omitted += left_out;
            let number = series.len() - left_out;
            for (at, one) in series.drain(left_out..).enumerate() {
                let (series, snapshot) = (one.series, one.snapshot);
                let mut place = |group: Group| Placed {
                    process: id,
                    device: group.device.map(|index| devices.id_of(process, id, index)),
                    group,
                };
                let held = match number - at {
                    1..=DETAILED => {
                        let mut held_in = |process, seq| {
                            held(process, &series, seq, options, top, loops, &mut place)
                        };
                        let by_log = match one.forgotten {
                            false => held_in(process, series.event.seq),
                            true => Err(FORGOTTEN.to_owned()),
                        };
                        by_log.or_else(|why| match snapshot {
                            Some(snapshot) => held_in(snapshot, one.failure).map(|held| HeldThen {
                                by_snapshot: true,
                                ..held
                            }),
                            None => Err(why),
                        })
                    }
                    _ => Err(format!(
                        "that is only found out for the last {DETAILED} failures; --to shows others"
                    )),
                };
                let failure = Failure {
                    placed: place(of_series(process, &series, options, loops)),
                    seq: series.event.seq,
                    free: series.free.filter(|_| series.kind.layer() != Layer::Host),
                    fate: fate(process, &series),
                    rescue: series.rescue,
                    framework: series.framework,
                    snapshot: snapshot.map(|snapshot| snapshot.trace.path.clone()),
                    held,
                };
                found.failures.push(failure);
            }
        }
        found.head.devices = devices.all;
        found
    }

    /// The stacks that are shown, with the process that each belongs to.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &VisibleStack)> {
        let placed = self.failures.iter().flat_map(|failure| {
            let held = failure.held.iter().flat_map(|held| &held.groups);
            std::iter::once(&failure.placed).chain(held)
        });
        placed.map(|placed| (placed.process, &placed.group.stack))
    }
}

/// The device whose memory was asked for; none for host memory.
fn space(event: &Record, kind: Kind) -> u8 {
    match kind.layer() {
        Layer::Host => NO_DEVICE,
        _ => event.device,
    }
}

/// Failed attempts in the whole run.
fn ever(process: &Process, filter: &Filter) -> u64 {
    let accounts = process.accounts();
    let asked = accounts.filter(|(device, layer, _)| filter.takes_account(*device, *layer));
    asked
        .map(|(.., account)| u64::from(account.failed_count))
        .sum()
}

fn fate(process: &Process, series: &Series) -> Fate {
    if series.rescue.is_some_and(|rescue| rescue.saved) {
        return Fate::Rescued;
    }
    match (series.retried, series.allocations) {
        // Of what came after, a snapshot knows nothing.
        (Some(after), _) => Fate::Retried(after),
        (None, 0) if process.state.goes_on() => Fate::Open,
        (None, 0) => Fate::Last(process.duration_ns().saturating_sub(series.event.time)),
        (None, later) => Fate::WentOn(later),
    }
}

fn of_series(
    process: &Process,
    series: &Series,
    options: &Options,
    loops: &mut dyn Loops,
) -> Group {
    // By its stack, whatever the holders are grouped by.
    let options = Options {
        unhidden: options.unhidden,
        ..Options::default()
    };
    let mut grouping = Grouping::new(process, &options);
    let event = &series.event;
    grouping.add(&Item {
        key: None,
        stack: event.stack,
        api: event.api,
        device: space(event, series.kind),
        kind: series.kind,
        end: EntryEnd::Live,
        thread: (event.thread != 0).then_some(event.thread),
        weighted: Weighted::default(),
        range: event.range.into(),
        stream: event.stream,
        context: event.context,
        bytes: event.size,
        count: series.attempts.max(1),
        first_time: series.first_time,
        last_time: event.time,
    });
    let groups = grouping.finish(loops);
    let Some(group) = groups.into_iter().next() else {
        unreachable!("one item makes one group");
    };
    group
}

const FORGOTTEN: &str = "the event log has forgotten some of what came after, so who held the memory \
    then is not known; with a larger VRAMTRACE_SIZE it reaches further back, and \
    VRAMTRACE_ON_OOM=snapshot keeps it";

/// Who held what after event `seq`.
fn held(
    process: &Process,
    series: &Series,
    seq: u64,
    options: &Options,
    top: Option<usize>,
    loops: &mut dyn Loops,
    place: &mut dyn FnMut(Group) -> Placed,
) -> Result<HeldThen, String> {
    let event = &series.event;
    let past = Past::of(process, Found::Event(seq)).map_err(|_| FORGOTTEN.to_owned())?;
    let device = space(event, series.kind);
    let layer = match series.kind.layer() {
        Layer::Host => Layer::Host,
        _ => Layer::Device,
    };
    let row = account::index(device, layer);
    let of_row = |entry: &&Record| {
        let kind = entry.kind().filter(|kind| kind.counted());
        kind.is_some_and(|kind| account::index(entry.device, kind.layer()) == row)
    };
    let bytes = |sum: u64, entry: &Record| sum.saturating_add(entry.size);
    let taken = past.live.iter().filter(of_row).fold(0, bytes);
    let options = Options {
        filter: Filter {
            devices: if layer == Layer::Host {
                Vec::new()
            } else {
                vec![device]
            },
            layers: if layer == Layer::Host {
                vec![layer]
            } else {
                Vec::new()
            },
            kinds: Vec::new(),
        },
        ..options.clone()
    };
    let since = event.time.saturating_sub(RECENT);
    let recent = Window {
        from: Some(Found::Time(since)),
        to: Some(past.clone()),
    };
    let recent = leaks_in(process, &options, &recent, loops);
    let window = Window {
        from: None,
        to: Some(past),
    };
    let found = leaks_in(process, &options, &window, loops);
    let sum = |[gpu, host, corrupted]: [Sum; 3]| {
        let mut sum = gpu;
        sum.merge(host);
        sum.merge(corrupted);
        sum
    };
    let mut held = HeldThen {
        taken,
        used: sum([found.gpu, found.host, found.corrupted]),
        cached: found.cached(),
        recent: sum([recent.gpu, recent.host, recent.corrupted]),
        groups: found.groups.into_iter().map(place).collect(),
        omitted: (0, Sum::default()),
        by_snapshot: false,
    };
    if let Some(top) = top.filter(|&top| top < held.groups.len()) {
        for placed in held.groups.drain(top..) {
            held.omitted.0 += 1;
            held.omitted.1.add(placed.group.bytes, placed.group.count);
        }
    }
    Ok(held)
}
