//! The leaks of several processes, as one answer.

use super::{Aside, Cached, Group, Leaks, Options, Point, Suppressed, Window, leaks_in};
use crate::analysis::given_back::{GivenBack, given_back};
use crate::analysis::growth::add_courses;
use crate::analysis::ranks::Ranks;
use crate::analysis::view::{DeviceView, Devices, ProcessView};
use crate::analysis::{Filter, Sum};
use crate::model::{CudaUse, Loops, Process, Torch, VisibleStack};
use std::cmp::Reverse;
use vramtrace_format::record::NO_DEVICE;

/// A group, and where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: Option<usize>,
    /// The group.
    pub group: Group,
}

/// What a process freed before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBack {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: usize,
    /// How much.
    pub back: GivenBack,
}

/// What caching allocators and pools of a process hold on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedCache {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: Option<usize>,
    /// How much.
    pub cached: Cached,
}

/// What PyTorch's allocator of a process says that it holds on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedTorch {
    /// Id of its process.
    pub process: usize,
    /// Id of its device.
    pub device: usize,
    /// What it says, and what was seen.
    pub torch: Torch,
}

/// What several processes leaked.
#[derive(Clone, Debug, PartialEq)]
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
    /// Leaked memory of the GPU and of the host, by process.
    pub leaked_by: Vec<[Sum; 2]>,
    /// What caching allocators and pools hold.
    pub cached: Cached,
    /// The same by process and device.
    pub caches: Vec<PlacedCache>,
    /// What PyTorch's allocator says of itself, by process and device.
    pub torch: Vec<PlacedTorch>,
    /// Part of the leaks that teardown released.
    pub teardown_only: Sum,
    /// What can't be freed any more because its context broke.
    pub corrupted: Sum,
    /// What was suppressed, largest first; in no other sum and in no group.
    pub suppressed: Vec<Suppressed>,
    /// Processes that freed most of what they held before they ended; only where nothing else than their
    /// ends was asked about.
    pub given_back: Vec<PlacedBack>,
    /// What is not counted.
    pub aside: Aside,
    /// Live entries of kinds that this version does not know.
    pub unknown_kinds: u64,
    /// Notes of the recorders that say something about completeness.
    pub notes: Vec<String>,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// Whether groups list their members.
    pub members: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// The part of the processes' lives.
    pub asked: Asked,
    /// Groups, largest first.
    pub groups: Vec<Placed>,
    /// Groups that `top` left out.
    pub omitted_groups: usize,
    /// What they hold.
    pub omitted: Sum,
}

/// A part of processes' lives, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only what was allocated after this moment.
    pub from: Option<String>,
    /// What was live at this moment.
    pub to: Option<String>,
}

impl Answer {
    /// Finds the leaks of all processes; keeps the `top` largest groups.
    pub fn of(
        processes: &[Process],
        options: &Options,
        top: Option<usize>,
        loops: &mut dyn Loops,
    ) -> Answer {
        Answer::within(processes, options, &[], &Asked::default(), top, loops)
    }

    /// As [`Answer::of`], each process in its window: `windows` has one for each, or none at all.
    pub fn within(
        processes: &[Process],
        options: &Options,
        windows: &[Window],
        asked: &Asked,
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
            leaked_by: Vec::new(),
            cached: Cached::default(),
            caches: Vec::new(),
            torch: Vec::new(),
            teardown_only: Sum::default(),
            corrupted: Sum::default(),
            suppressed: Vec::new(),
            given_back: Vec::new(),
            aside: Aside::default(),
            unknown_kinds: 0,
            notes: Vec::new(),
            all_frames: options.unhidden.cuda,
            members: options.members,
            filter: options.filter.clone(),
            asked: asked.clone(),
            groups: Vec::new(),
            omitted_groups: 0,
            omitted: Sum::default(),
        };
        for (id, process) in processes.iter().enumerate() {
            devices.add_all(process, id);
            let whole = Window::default();
            let window = windows.get(id).unwrap_or(&whole);
            let mut found = leaks_in(process, options, window, loops);
            if options.suspicious_first && *window == whole {
                answer.look_at_courses(process, &mut found);
            }
            if let Some(undated) = window
                .to
                .as_ref()
                .map(|past| past.undated)
                .filter(|&n| n > 0)
            {
                answer.notes.push(format!(
                    "{undated} of the allocations are older than the event log; when they were \
                     made is only known to be before it begins, by which thread not at all"
                ));
            }
            if *window == whole && options.point.is_none() && options.filter == Filter::default() {
                let back = given_back(process);
                answer.given_back.extend(back.map(|back| PlacedBack {
                    process: id,
                    device: devices.id_of(process, id, back.device),
                    back,
                }));
            }
            answer.add(process, id, found, &mut devices);
        }
        let order = |placed: &Placed| {
            let group = &placed.group;
            let suspicion = options.suspicious_first.then_some(group.suspicion);
            let size = group.size();
            (
                group.not_sampled,
                Reverse(suspicion),
                Reverse(options.suspicious_first && group.rises()),
                Reverse(size.bytes),
                Reverse(size.count),
            )
        };
        // Stable: groups of one size stay in the order of their processes.
        answer.groups.sort_by_key(order);
        if let Some(top) = top.filter(|&top| top < answer.groups.len()) {
            for placed in answer.groups.drain(top..) {
                answer.omitted_groups += 1;
                answer.omitted.add(placed.group.bytes, placed.group.count);
            }
        }
        answer.suppressed.sort_by_key(|used| Reverse(used.sum));
        answer.devices = devices.all;
        answer
    }

    /// Lets what groups held over time say how suspicious they are, where that is known.
    fn look_at_courses(&mut self, process: &Process, found: &mut Leaks) {
        if add_courses(process, &mut found.groups).is_err() {
            self.notes.push(
                "what stacks held over time could not be read from the trace; suspicion rests on the \
                 ages of allocations alone"
                    .to_owned(),
            );
        }
        for group in &mut found.groups {
            if let Some(course) = &group.course {
                group.suspicion = group.suspicion.with_course(course.trend);
            }
        }
    }

    fn add(&mut self, process: &Process, id: usize, found: Leaks, devices: &mut Devices) {
        let view = ProcessView::of(process, id);
        for reason in &process.losses.live_inexact {
            let reason = format!("{}: {}", reason.code, reason.text);
            if !self.incomplete_because.contains(&reason) {
                self.incomplete_because.push(reason);
            }
        }
        if found.opaque.count > 0 {
            self.notes.push(format!(
                "{} bytes in {} allocations are segments of PyTorch's allocator, whose tensors were \
                 not seen (PyTorch before 1.10 does not tell of them): they count as a whole",
                found.opaque.bytes, found.opaque.count
            ));
        }
        if found.timeless.count > 0 {
            self.incomplete_because.push(format!(
                "ended-with-context: {} bytes in {} allocations ended with their context or \
                 device; when they were made is not known, so they are left out",
                found.timeless.bytes, found.timeless.count
            ));
        }
        self.complete = self.incomplete_because.is_empty();
        self.lost_events = self.lost_events.saturating_add(process.losses.lost());
        self.points.push(found.point);
        self.cuda_use.push(process.cuda_use());
        self.processes.push(view);
        self.leaked_by.push([found.gpu, found.host]);
        self.gpu.merge(found.gpu);
        self.host.merge(found.host);
        for (&index, &cached) in &found.caches {
            self.cached.merge(cached);
            let device = (index != NO_DEVICE).then(|| devices.id_of(process, id, index));
            self.caches.push(PlacedCache {
                process: id,
                device,
                cached,
            });
        }
        self.torch
            .extend(process.torch.iter().map(|&torch| PlacedTorch {
                process: id,
                device: devices.id_of(process, id, torch.device),
                torch,
            }));
        self.teardown_only.merge(found.teardown_only);
        self.corrupted.merge(found.corrupted);
        self.aside.merge(found.aside);
        for used in found.suppressed {
            let same = |own: &&mut Suppressed| {
                (own.builtin, &own.pattern) == (used.builtin, &used.pattern)
            };
            match self.suppressed.iter_mut().find(same) {
                Some(own) => own.sum.merge(used.sum),
                None => self.suppressed.push(used),
            }
        }
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
    pub fn point(&self) -> &str {
        match self.points.split_first() {
            Some((Point::Moment, _)) => self.asked.to.as_deref().unwrap_or_default(),
            None => Point::End.name(),
            Some((first, others)) if others.iter().all(|other| other == first) => first.name(),
            Some(_) => "mixed",
        }
    }

    /// Whether memory was seen in any process.
    pub fn saw_memory(&self) -> bool {
        self.cuda_use.contains(&CudaUse::Memory)
    }

    /// What ranks leaked, side by side: GPU memory, or host memory where no GPU memory leaked.
    pub fn ranks(&self) -> Option<Ranks> {
        let space = usize::from(self.gpu.bytes == 0);
        let held: Vec<u64> = self.leaked_by.iter().map(|of| of[space].bytes).collect();
        Ranks::compared(&self.processes, &held)
    }

    /// Everything that was suppressed.
    pub fn all_suppressed(&self) -> Sum {
        let mut all = Sum::default();
        for used in &self.suppressed {
            all.merge(used.sum);
        }
        all
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
