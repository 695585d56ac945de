//! Stacks whose live bytes keep growing, and when that fills the device.
//!
//! A verdict rests on the ages of what is live ([`survivors`]), which a trace knows however long
//! ago it was, and on when the stack allocated first, which the sums by stack know. What a stack held
//! over time ([`course`]), where that is known, has the last word. Memory counts once, at the finest
//! layer known, as in `leaks`.

mod course;
mod room;
mod survivors;
mod trend;

pub(in crate::analysis) use course::add as add_courses;
pub use course::{Course, Trend};
pub use room::{Known, Room};
pub use survivors::{CELLS, Judgement, Shape, Survivor, cell_of, judge};
pub use trend::{Slope, slope};

use super::head::Head;
use super::leaks::{Asked, Group, Options, Placed, Window, leaks_in};
use super::view::Devices;
use super::{Filter, Sum};
use crate::model::{Loops, Process, VisibleStack};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

/// When a device is full if nothing changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: usize,
    /// What all growing groups there add, bytes a second.
    pub slope: f64,
    /// What is left.
    pub room: Room,
    /// How long that lasts, nanoseconds from the end of the trace on.
    pub lasts_ns: u64,
}

/// The growth of several processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Growths {
    /// Whom it is about.
    pub head: Head,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// The part of the processes' lives.
    pub asked: Asked,
    /// Until when each process was looked at, event time, where that is not its end.
    pub up_to: Vec<Option<u64>>,
    /// Groups that grow, fastest first.
    pub growing: Vec<Placed>,
    /// Growing groups that `top` left out, and what they hold.
    pub omitted: (usize, Sum),
    /// All others, largest first.
    pub others: Vec<Placed>,
    /// How many of these there are of each shape, and what they hold.
    pub shapes: BTreeMap<Shape, (usize, Sum)>,
    /// Devices on which something grows.
    pub forecasts: Vec<Forecast>,
}

impl Growths {
    /// Looks for growth in all processes, each in its window (`windows` has one for each, or none
    /// at all); keeps the `top` fastest groups.
    pub fn of(
        processes: &[Process],
        options: &Options,
        windows: &[Window],
        asked: &Asked,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Growths {
        let mut devices = Devices::default();
        let mut found = Growths {
            head: Head::of(processes, &mut devices),
            all_frames: options.unhidden.cuda,
            filter: options.filter.clone(),
            asked: asked.clone(),
            up_to: Vec::new(),
            growing: Vec::new(),
            omitted: (0, Sum::default()),
            others: Vec::new(),
            shapes: BTreeMap::new(),
            forecasts: Vec::new(),
        };
        let whole = Window::default();
        for (id, process) in processes.iter().enumerate() {
            let window = windows.get(id).unwrap_or(&whole);
            found.up_to.push(window.to.as_ref().map(|past| past.time));
            let mut leaks = leaks_in(process, options, window, loops);
            if *window == whole && course::add(process, &mut leaks.groups).is_err() {
                found.head.note(
                    "what stacks held over time could not be read from the trace; verdicts rest on \
                     the ages of allocations alone"
                        .to_owned(),
                );
            }
            let place = |group: Group, devices: &mut Devices| Placed {
                process: id,
                device: group.device.map(|index| devices.id_of(process, id, index)),
                group,
            };
            let mut slopes: BTreeMap<u8, f64> = BTreeMap::new();
            let mut unsampled: BTreeMap<u8, f64> = BTreeMap::new();
            let mut estimated = BTreeSet::new();
            for group in leaks.groups {
                if group.age.judgement.shape == Shape::Growing {
                    if let Some(device) = group.device {
                        let slopes = if group.not_sampled {
                            &mut unsampled
                        } else {
                            &mut slopes
                        };
                        *slopes.entry(device).or_default() += rate(&group);
                        estimated.extend(group.estimate.map(|_| device));
                    }
                    found.growing.push(place(group, &mut devices));
                } else {
                    found.others.push(place(group, &mut devices));
                }
            }
            // What was not sampled grows by itself only where no estimate stands for it.
            for (device, slope) in unsampled {
                if !estimated.contains(&device) {
                    *slopes.entry(device).or_default() += slope;
                }
            }
            for (index, slope) in slopes {
                // What is left is known of the end.
                let at_the_end = slope > 0.0 && window.to.is_none();
                let room = Room::of(process, index).filter(|_| at_the_end);
                found.forecasts.extend(room.map(|room| Forecast {
                    process: id,
                    device: devices.id_of(process, id, index),
                    slope,
                    room,
                    lasts_ns: (room.free as f64 / slope * 1e9) as u64,
                }));
            }
        }
        for placed in &found.others {
            let (groups, sum) = found.shapes.entry(shape(placed)).or_default();
            *groups += 1;
            sum.add(placed.group.bytes, placed.group.count);
        }
        found.growing.sort_by(faster_first);
        let size = |placed: &Placed| {
            let size = placed.group.size();
            (
                placed.group.not_sampled,
                Reverse(size.bytes),
                Reverse(size.count),
            )
        };
        found.others.sort_by_key(size);
        if let Some(top) = top.filter(|&top| top < found.growing.len()) {
            for placed in found.growing.drain(top..) {
                found.omitted.0 += 1;
                found.omitted.1.add(placed.group.bytes, placed.group.count);
            }
        }
        if !options.by.is_in_totals() {
            found.head.note(format!(
                "sums by stack do not know the {} of what was freed: how much was allocated there \
                 is left out",
                options.by.word()
            ));
        }
        found.head.devices = devices.all;
        found
    }

    /// The stacks that are shown, with the process that each belongs to.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &VisibleStack)> {
        let groups = self.growing.iter().chain(&self.others);
        groups.map(|placed| (placed.process, &placed.group.stack))
    }
}

/// Bytes a second that a group adds.
pub fn rate(group: &Group) -> f64 {
    group.age.judgement.slope.median
}

/// What a group does over time.
pub fn shape(placed: &Placed) -> Shape {
    placed.group.age.judgement.shape
}

fn faster_first(one: &Placed, other: &Placed) -> Ordering {
    let last = |placed: &Placed| placed.group.not_sampled;
    last(one)
        .cmp(&last(other))
        .then(rate(&other.group).total_cmp(&rate(&one.group)))
        .then(other.group.bytes.cmp(&one.group.bytes))
}
