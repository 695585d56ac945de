//! Memory that allocators hold without handing it out, where it lies, and what it is kept by.

mod advice;
mod segments;

pub use advice::Advice;
pub use segments::{Block, Held, Pool, Segment};

use super::head::Head;
use super::leaks::Asked;
use super::moment::{Found, Past};
use super::view::Devices;
use super::{Filter, Sum};
use crate::model::Process;
use rustc_hash::FxHashMap;
pub(crate) use segments::held;
use segments::{Allocators, Split};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE, Op, Record};

/// Sums of a device's segments at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes of all segments, and how many they are.
    pub reserved: Sum,
    /// Bytes of all blocks that are handed out, and how many they are.
    pub used: Sum,
    /// The largest piece that is not.
    pub largest_free: u64,
    /// Segments without blocks.
    pub empty: Sum,
}

impl Sums {
    fn of<'s>(segments: impl IntoIterator<Item = &'s Segment>) -> Sums {
        let mut sums = Sums::default();
        for segment in segments {
            sums.add(segment.size, segment.used(), segment.largest_free());
        }
        sums
    }

    /// Adds a segment.
    fn add(&mut self, size: u64, used: Sum, largest_free: u64) {
        self.reserved.add(size, 1);
        self.used.merge(used);
        self.largest_free = self.largest_free.max(largest_free);
        if used.count == 0 {
            self.empty.add(size, 1);
        }
    }

    /// Bytes that are not handed out.
    pub fn free(&self) -> u64 {
        self.reserved.bytes.saturating_sub(self.used.bytes)
    }
}

/// Arrays: what was asked for, and what the driver says that it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounding {
    /// Asked for, of arrays of which both are known.
    pub asked: Sum,
    /// Needed for these.
    pub needed: u64,
}

/// One device of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfDevice {
    /// Id of the process.
    pub process: usize,
    /// Id of the device.
    pub device: usize,
    /// When it was so, Unix nanoseconds.
    pub at_ns: u64,
    /// What the process had taken from the driver.
    pub taken: u64,
    /// Sums of the segments.
    pub sums: Sums,
    /// Segments, those with most free memory first.
    pub segments: Vec<Segment>,
    /// How many of them `top` left out.
    pub omitted: usize,
    /// Pools of the driver.
    pub pools: Vec<Pool>,
    /// Arrays.
    pub arrays: Rounding,
    /// The same sums at equal distances, as far back as the event log is whole; Unix nanoseconds.
    pub course: Vec<(u64, Sums)>,
    /// What would give memory back.
    pub advice: Vec<Advice>,
}

/// The fragmentation of several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragmentation {
    /// Whom it is about.
    pub head: Head,
    /// What it is limited to.
    pub filter: Filter,
    /// The moment that was asked for.
    pub asked: Asked,
    /// Devices of the first process, then of the next.
    pub devices: Vec<OfDevice>,
}

/// How many points a course has.
const POINTS: usize = 16;

impl Fragmentation {
    /// Of all processes at their moments (`moments` has one for each, or none at all); shows the
    /// `top` segments of each device.
    pub fn of(
        processes: &[Process],
        filter: &Filter,
        moments: &[Option<Past>],
        asked: &Asked,
        top: Option<usize>,
    ) -> Fragmentation {
        let mut devices = Devices::default();
        let mut found = Fragmentation {
            head: Head::of(processes, &mut devices),
            filter: filter.clone(),
            asked: asked.clone(),
            devices: Vec::new(),
        };
        for (id, process) in processes.iter().enumerate() {
            let moment = moments.get(id).cloned().flatten();
            let past = moment.unwrap_or_else(|| before_teardown(process));
            let mut course = course(process, &past, filter);
            let held = held(process, past.live.iter());
            if held.homeless.count > 0 {
                found.head.note(format!(
                    "{} bytes in {} blocks of PyTorch lie in no segment that the trace knows",
                    held.homeless.bytes, held.homeless.count
                ));
            }
            let indices: BTreeSet<u8> = past.live.iter().map(|entry| entry.device).collect();
            let asked = |index: &u8| {
                *index != NO_DEVICE && filter.takes_account(Some(*index), Layer::Device)
            };
            for index in indices.into_iter().filter(asked) {
                let mut of_device = of_device(&held, &past, index, top);
                of_device.process = id;
                of_device.device = devices.id_of(process, id, index);
                of_device.at_ns = process.unix_ns(past.time);
                of_device.course = course.remove(&index).unwrap_or_default();
                for (time, _) in &mut of_device.course {
                    *time = process.unix_ns(*time);
                }
                found.devices.push(of_device);
            }
        }
        found.head.devices = devices.all;
        found
    }
}

/// What is live at the end, or was before the process began to go down.
fn before_teardown(process: &Process) -> Past {
    let teardown = process.teardown_seq().filter(|_| process.has_interpreter());
    let before = teardown.and_then(|seq| Past::of(process, Found::Event(seq)).ok());
    before.unwrap_or_else(|| Past {
        seq: process.trace.copy.seq,
        time: process.duration_ns(),
        live: process.live().copied().collect(),
        undated: 0,
        began: 0,
    })
}

fn of_device(held: &Held, past: &Past, index: u8, top: Option<usize>) -> OfDevice {
    let mut segments: Vec<Segment> = held
        .segments
        .iter()
        .filter(|segment| segment.device == index)
        .cloned()
        .collect();
    let pools: Vec<Pool> = held
        .pools
        .iter()
        .filter(|pool| pool.device == index)
        .copied()
        .collect();
    let advice = advice::advice(
        &segments.iter().collect::<Vec<_>>(),
        &pools.iter().collect::<Vec<_>>(),
    );
    let sums = Sums::of(&segments);
    segments.sort_by_key(|segment| (Reverse(segment.free()), segment.address));
    let shown = top.unwrap_or(usize::MAX).min(segments.len());
    let omitted = segments.len() - shown;
    segments.truncate(shown);
    let mut arrays = Rounding::default();
    let mut taken = 0u64;
    for entry in past.live.iter().filter(|entry| entry.device == index) {
        let Some(kind) = entry.kind() else { continue };
        if kind.counted() && kind.layer() == Layer::Device {
            taken = taken.saturating_add(entry.size);
        }
        if kind == Kind::Array && entry.aux != 0 {
            arrays.asked.add(entry.size, 1);
            arrays.needed = arrays.needed.saturating_add(entry.aux);
        }
    }
    OfDevice {
        process: 0,
        device: 0,
        at_ns: 0,
        taken,
        sums,
        segments,
        omitted,
        pools,
        arrays,
        course: Vec::new(),
        advice,
    }
}

/// Sums over time, by device; from where both layers' logs are whole up to the moment. One thread goes through the
/// events, and another adds up what was there at each point: both take about as long.
fn course(process: &Process, until: &Past, filter: &Filter) -> FxHashMap<u8, Vec<(u64, Sums)>> {
    let torch = |kind: u8| kind == Kind::Torch as u8;
    if !process.totals().iter().any(|row| torch(row.key.kind)) {
        return FxHashMap::default();
    }
    let Some(start) = whole_from(process).filter(|start| start.seq < until.seq) else {
        return FxHashMap::default();
    };
    thread::scope(|scope| {
        let (put, points) = sync_channel(1);
        let adding = scope.spawn(|| added_up(process, filter, points));
        replay(process, start, until, |time, live| {
            // It has ended only if it panicked, which is told below.
            let _ = put.send((time, Split::of(live.values(), |_| {})));
        });
        drop(put);
        match adding.join() {
            Ok(course) => course,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sums at these times, by device.
fn added_up(
    process: &Process,
    filter: &Filter,
    points: Receiver<(u64, Split)>,
) -> FxHashMap<u8, Vec<(u64, Sums)>> {
    let mut course: FxHashMap<u8, Vec<(u64, Sums)>> = FxHashMap::default();
    let mut allocators = Allocators::of(process);
    for (time, live) in points {
        let mut now = live.sums(&mut allocators);
        // Also of a device that has nothing any more.
        for device in course.keys() {
            now.entry(*device).or_default();
        }
        for (device, sums) in now {
            if filter.takes_account(Some(device), Layer::Device) {
                course.entry(device).or_default().push((time, sums));
            }
        }
    }
    course
}

/// Goes from one moment to another, and shows what is live at each point on the way.
fn replay(
    process: &Process,
    start: Past,
    until: &Past,
    mut note: impl FnMut(u64, &FxHashMap<(u8, u64), Record>),
) {
    let mut live: FxHashMap<(u8, u64), Record> = start
        .live
        .into_iter()
        .map(|entry| ((entry.space, entry.key), entry))
        .collect();
    let step = (until.time.saturating_sub(start.time) / POINTS as u64).max(1);
    let mut next = start.time.saturating_add(step);
    note(start.time, &live);
    let events = process.events().filter(|event| event.seq > start.seq);
    for event in events.take_while(|event| event.seq <= until.seq) {
        // One that is back has its time of old.
        while event.time > next && next < until.time && event.op != Op::Restore as u8 {
            note(next, &live);
            next = next.saturating_add(step);
        }
        let key = (event.space, event.key);
        match (event.op(), event.kind()) {
            (Some(op), Some(_)) if op.begins_allocation() => drop(live.insert(key, event)),
            (Some(op), Some(_)) if op.ends_allocation() => drop(live.remove(&key)),
            (Some(Op::Resize), Some(_)) => {
                if let Some(entry) = live.get_mut(&key) {
                    entry.size = event.size;
                }
            }
            _ => {}
        }
    }
    note(until.time, &live);
}

/// What was live where the event log begins to be whole.
fn whole_from(process: &Process) -> Option<Past> {
    let whole = |lane: usize| process.losses.rings[lane].overwritten == 0;
    if whole(0) && whole(1) && process.losses.lost() == 0 {
        return Some(Past::default());
    }
    match Past::of(process, Found::Event(0)) {
        Ok(past) => Some(past),
        Err(forgotten) => Past::of(process, Found::Time(forgotten.began)).ok(),
    }
}
