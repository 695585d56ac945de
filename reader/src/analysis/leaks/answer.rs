//! The leaks of several processes, as one answer.

use super::{Aside, Group, Leaks, Options, Point, leaks};
use crate::analysis::Sum;
use crate::analysis::view::{DeviceView, Devices, ProcessView};
use crate::model::{CudaUse, Loops, Process, VisibleStack};
use std::cmp::Reverse;

/// A group, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: Option<usize>,
    /// The group.
    pub group: Group,
}

/// What several processes leaked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether every live set is exact.
    pub complete: bool,
    /// Why not: a stable word, a colon, a sentence.
    pub incomplete_because: Vec<String>,
    /// Events that were never recorded.
    pub lost_events: u64,
    /// The moment of each process.
    pub points: Vec<Point>,
    /// What was seen of CUDA in each process.
    pub cuda_use: Vec<CudaUse>,
    /// Processes by id.
    pub processes: Vec<ProcessView>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
    /// Leaked GPU memory.
    pub gpu: Sum,
    /// Leaked page-locked host memory.
    pub host: Sum,
    /// Bytes that caching allocators hold and don't use.
    pub cached: u64,
    /// Part of the leaks that teardown released.
    pub teardown_only: Sum,
    /// What can't be freed any more because its context broke.
    pub corrupted: Sum,
    /// What is not counted.
    pub aside: Aside,
    /// Live entries of kinds that this version does not know.
    pub unknown_kinds: u64,
    /// Notes of the recorders that say something about completeness.
    pub notes: Vec<String>,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// Groups, largest first.
    pub groups: Vec<Placed>,
    /// Groups that `top` left out.
    pub omitted_groups: usize,
    /// What they hold.
    pub omitted: Sum,
}

impl Answer {
    /// Finds the leaks of all processes; keeps the `top` largest groups.
    pub fn of(
        processes: &[Process],
        options: &Options,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Answer {
        let mut devices = Devices::default();
        let mut answer = Answer {
            complete: true,
            incomplete_because: Vec::new(),
            lost_events: 0,
            points: Vec::new(),
            cuda_use: Vec::new(),
            processes: Vec::new(),
            devices: Vec::new(),
            gpu: Sum::default(),
            host: Sum::default(),
            cached: 0,
            teardown_only: Sum::default(),
            corrupted: Sum::default(),
            aside: Aside::default(),
            unknown_kinds: 0,
            notes: Vec::new(),
            all_frames: options.unhidden.cuda,
            groups: Vec::new(),
            omitted_groups: 0,
            omitted: Sum::default(),
        };
        for (id, process) in processes.iter().enumerate() {
            devices.add_all(process, id);
            answer.add(process, id, leaks(process, options, loops), &mut devices);
        }
        let order = |placed: &Placed| (Reverse(placed.group.bytes), Reverse(placed.group.count));
        // Stable: groups of one size stay in the order of their processes.
        answer.groups.sort_by_key(order);
        if let Some(top) = top.filter(|&top| top < answer.groups.len()) {
            for placed in answer.groups.drain(top..) {
                answer.omitted_groups += 1;
                answer.omitted.add(placed.group.bytes, placed.group.count);
            }
        }
        answer.devices = devices.all;
        answer
    }

    fn add(&mut self, process: &Process, id: usize, found: Leaks, devices: &mut Devices) {
        let view = ProcessView::of(process, id);
        for reason in &process.losses.live_inexact {
            let reason = format!("{}: {}", reason.code, reason.text);
            if !self.incomplete_because.contains(&reason) {
                self.incomplete_because.push(reason);
            }
        }
        self.complete = self.incomplete_because.is_empty();
        self.lost_events = self.lost_events.saturating_add(process.losses.lost());
        self.points.push(found.point);
        self.cuda_use.push(process.cuda_use());
        self.processes.push(view);
        self.gpu.merge(found.gpu);
        self.host.merge(found.host);
        self.cached = self.cached.saturating_add(found.cached);
        self.teardown_only.merge(found.teardown_only);
        self.corrupted.merge(found.corrupted);
        self.aside.merge(found.aside);
        self.unknown_kinds += found.unknown_kinds;
        self.notes
            .extend(process.remarks().map(|note| note.text.clone()));
        for group in found.groups {
            let device = group.device.map(|index| devices.id_of(process, id, index));
            self.groups.push(Placed {
                process: id,
                device,
                group,
            });
        }
    }

    /// The word for the moment of all processes; `mixed` where they differ.
    pub fn point(&self) -> &'static str {
        match self.points.split_first() {
            None => Point::End.name(),
            Some((first, others)) if others.iter().all(|other| other == first) => first.name(),
            Some(_) => "mixed",
        }
    }

    /// Whether memory was seen in any process.
    pub fn saw_memory(&self) -> bool {
        self.cuda_use.contains(&CudaUse::Memory)
    }

    /// Whether any leak was found.
    pub fn any(&self) -> bool {
        self.gpu.count > 0 || self.host.count > 0
    }

    /// The stacks that are shown, with the process that each belongs to.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &VisibleStack)> {
        self.groups
            .iter()
            .map(|placed| (placed.process, &placed.group.stack))
    }
}
