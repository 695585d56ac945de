//! What is asked: which numbers, of which moment.

use super::{Answer, reconcile};
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
    /// Of what was in use when the context was made, others' part, where that was not the same as
    /// [`others`](Shown::others); found as what is left of the number when the process was first listed.
    pub others_at_start: Option<i64>,
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
            others_at_start: None,
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

/// More than this of a device that is not the process's is not the driver's alone: another process is
/// there. The driver counts some 9 MiB to nobody (H100, driver 580).
const ANOTHER: u64 = 64 << 20;
/// Others' part changed if it differs by this, bytes.
const CHANGED: u64 = 8 << 20;

impl Shown {
    /// Notices where others were not there yet, or still were, when the process's context was made:
    /// what was in use then, less what others use now, is nonsense.
    pub fn beside_others(mut self, process: &Process, device: u8) -> Shown {
        let (Some(now), Some(own)) = (self.others.filter(|others| *others > ANOTHER), self.process)
        else {
            return self;
        };
        let recorded = process.device_use.get(&device);
        let first = recorded.and_then(|all| {
            let mut samples = all.samples.iter();
            samples.find_map(|sample| Some((sample.time, sample.process_bytes?)))
        });
        let (time, own) = first.unwrap_or((self.time, own));
        let known = known(process, device, Found::Time(time));
        let then = known.map(|known| known.saturating_sub_unsigned(own));
        self.others_at_start = then.filter(|then| then.abs_diff(now as i64) > CHANGED);
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
            Some((*device, shown?.beside_others(process, *device)))
        };
        Question {
            moment,
            shown: uses().filter_map(number).collect(),
            devices,
        }
    }
}
