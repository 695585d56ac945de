//! What is asked: which numbers, of which moment.

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
    /// When that was, event time.
    pub time: u64,
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
            time: sample.time,
        }
    }
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
    /// About a moment of a process whose numbers are in its trace: those that were taken nearest to it.
    /// Without a moment, where the last one was taken.
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
        let at = moment.and_then(|moment| moment.time(process));
        let nearest = |(device, all): (&u8, &DeviceUse)| {
            let distance = |sample: &&UseSample| sample.time.abs_diff(at?).into();
            let sample = all
                .samples
                .iter()
                .min_by_key(|sample| -> Option<u64> { distance(sample) });
            Some((*device, Shown::from(sample?)))
        };
        Question {
            moment,
            shown: uses().filter_map(nearest).collect(),
            devices,
        }
    }
}
