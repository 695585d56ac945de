//! What is asked: which numbers, of which moment.

use super::{Answer, is_another, reconcile};
use crate::analysis::moment::Found;
use crate::model::{DeviceUse, FoundBy, Process, UseSample};
use std::collections::BTreeMap;

/// The number that is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Bytes of the device that the process uses, as nvidia-smi shows them.
    pub process: Option<u64>,
    /// Which process of the list it is was not certain.
    pub assumed: bool,
    /// Used bytes of the whole device, of all processes.
    pub device: u64,
    /// Part of that which is not this process's, where it is known: others' and the driver's.
    pub others: Option<u64>,
    /// The least that the process's numbers were more than everything that was known of then but its first
    /// context.
    pub left: Option<i64>,
    /// When that was, event time.
    pub time: u64,
    /// How many bytes more are known of at the moment that is asked about than were then.
    pub since: i64,
}

impl From<&UseSample> for Shown {
    fn from(sample: &UseSample) -> Shown {
        // Where the driver's own reserve is among what is in use, cuMemGetInfo counts otherwise.
        let comparable = sample.reserved_bytes.is_some();
        let others = |process| sample.used_bytes.saturating_sub(process);
        Shown {
            process: sample.process_bytes,
            assumed: sample.found_by == FoundBy::Assumed,
            device: sample.used_bytes,
            others: sample.process_bytes.filter(|_| comparable).map(others),
            left: None,
            time: sample.time,
            since: 0,
        }
    }
}

/// What is known of on a device at a moment, its number not considered; `None` if its event log does
/// not reach so far.
fn known(process: &Process, device: u8, moment: Found) -> Option<i64> {
    let mut answer = Answer::default();
    let question = Question {
        moment: Some(moment),
        shown: BTreeMap::new(),
        devices: vec![device],
    };
    reconcile(&mut answer, process, &question);
    Some(answer.trees.first()?.explained)
}

/// Numbers that are looked at for what is left of them; each asks for the process as it was then.
const LOOKED_AT: usize = 8;

impl Shown {
    /// Looks at how much this number, and some of those in the trace that were taken before, leave for the
    /// process's first context, if another process was on the device in any of them.
    pub fn with_left(mut self, process: &Process, device: u8) -> Shown {
        let footprint = process.trace.footprints.get(usize::from(device));
        let Some((row, own)) = footprint.zip(self.process) else {
            return self;
        };
        let recorded = process.device_use.get(&device).into_iter();
        let before: Vec<(u64, u64, u64)> = recorded
            .flat_map(|all| &all.samples)
            .filter(|sample| sample.time < self.time)
            .filter_map(|sample| Some((sample.time, sample.process_bytes?, sample.used_bytes)))
            .collect();
        let here = (self.time, own, self.device);
        let shared = before
            .iter()
            .chain([&here])
            .any(|(_, own, used)| is_another(used.saturating_sub(*own)));
        if !shared || row.used_at_start == 0 {
            return self;
        }
        let left = |(time, own, _): (u64, u64, u64)| {
            // Without a number the context's line is all that was in use.
            let known = known(process, device, Found::Time(time))?;
            let but_context = known.saturating_sub_unsigned(row.used_at_start);
            Some(i64::try_from(own).ok()?.saturating_sub(but_context))
        };
        // Evenly over all of them: what the driver gives back, it does not give back at once.
        let some = before
            .iter()
            .step_by(before.len().div_ceil(LOOKED_AT).max(1));
        // It is not known when this came, perhaps after some of them.
        let undated = [row.contexts, row.limits, row.streams].map(|bytes| (bytes as i64).max(0));
        let undated = undated.into_iter().fold(0i64, i64::saturating_add);
        let mut earlier: Vec<i64> = some
            .filter_map(|one| Some(left(*one)?.saturating_add(undated)))
            .collect();
        earlier.sort_unstable();
        // Not the least: a number may have been taken in the middle of a change.
        self.left = left(here)
            .into_iter()
            .chain(earlier.into_iter().nth(1))
            .min();
        self
    }
}

/// The numbers next to the moment on either side say most about it, and of these the one that was
/// taken when the process held what it holds at that moment: it may take and give back a
/// gigabyte between two of them.
fn suiting(process: &Process, device: u8, all: &DeviceUse, moment: Found) -> Option<Shown> {
    let Some(at) = moment.time(process) else {
        return all.samples.first().map(Shown::from);
    };
    let (before, after): (Vec<&UseSample>, Vec<&UseSample>) =
        all.samples.iter().partition(|sample| sample.time <= at);
    let sides = [before.last(), after.first()].into_iter().flatten();
    let now = known(process, device, moment);
    let numbers = sides.map(|sample| {
        let mut shown = Shown::from(*sample);
        if let (Some(now), Some(then)) = (now, known(process, device, Found::Time(sample.time))) {
            shown.since = now.saturating_sub(then);
        }
        shown
    });
    numbers.min_by_key(|shown| (shown.since.unsigned_abs(), shown.time.abs_diff(at)))
}

/// What is asked of one process.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The moment; `None` for the end of its trace.
    pub moment: Option<Found>,
    /// The numbers, by device ordinal.
    pub shown: BTreeMap<u8, Shown>,
    /// Devices that it is asked about; all if empty.
    pub devices: Vec<u8>,
}

impl Question {
    /// About a moment of a process whose numbers are in its trace: of those that were taken next to it
    /// the one that suits it best. Without a moment, where the last one was taken.
    pub fn recorded(process: &Process, moment: Option<Found>, devices: Vec<u8>) -> Question {
        let asked = |device: &u8| devices.is_empty() || devices.contains(device);
        let uses = || {
            process
                .device_use
                .iter()
                .filter(|(device, _)| asked(device))
        };
        let last = || {
            let times = uses().filter_map(|(_, all)| Some(all.last()?.time));
            times.max().map(Found::Time)
        };
        let moment = moment.or_else(last);
        let number = |(device, all): (&u8, &DeviceUse)| {
            let shown = match moment {
                Some(moment) => suiting(process, *device, all, moment),
                None => all.samples.first().map(Shown::from),
            };
            Some((*device, shown?.with_left(process, *device)))
        };
        Question {
            moment,
            shown: uses().filter_map(number).collect(),
            devices,
        }
    }
}
