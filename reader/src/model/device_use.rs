//! What nvidia-smi showed of the process while it ran (cold records 30).

use vramtrace_format::cold::{self, MAX_PAYLOAD, found_by};

/// How a process was found among those that NVML lists for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FoundBy {
    /// It was not.
    #[default]
    Nothing,
    /// By its process id.
    Pid,
    /// By its process id in an inner pid namespace.
    InnerPid,
    /// Assumed to be the only one that is there.
    Assumed,
}

impl FoundBy {
    /// The number in the file.
    pub const fn number(self) -> u8 {
        match self {
            FoundBy::Nothing => found_by::NOTHING,
            FoundBy::Pid => found_by::PID,
            FoundBy::InnerPid => found_by::INNER_PID,
            FoundBy::Assumed => found_by::ASSUMED,
        }
    }

    /// What a number in the file says; what is not known counts as not found.
    pub const fn from_number(number: u8) -> FoundBy {
        match number {
            found_by::PID => FoundBy::Pid,
            found_by::INNER_PID => FoundBy::InnerPid,
            found_by::ASSUMED => FoundBy::Assumed,
            _ => FoundBy::Nothing,
        }
    }
}

/// What NVML said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UseSample {
    /// When, event time.
    pub time: u64,
    /// Bytes that NVML counts for the process: nvidia-smi's number for it. `None` where it does not
    /// say.
    pub process_bytes: Option<u64>,
    /// How the process was found.
    pub found_by: FoundBy,
    /// Bytes in use on the device, by whomever.
    pub used_bytes: u64,
    /// Bytes that the driver keeps for itself; `None` where they are among those in use.
    pub reserved_bytes: Option<u64>,
    /// Bytes of the device.
    pub total_bytes: u64,
}

/// What NVML said of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// UUID of the device as NVML has it (`GPU-…`, `MIG-…`).
    pub uuid: String,
    /// When and how much, oldest first.
    pub samples: Vec<UseSample>,
}

impl DeviceUse {
    /// Where nvidia-smi's number for the process was largest, first.
    pub fn peak(&self) -> Option<&UseSample> {
        let known = self.samples.iter().filter(|s| s.process_bytes.is_some());
        known.rev().max_by_key(|sample| sample.process_bytes)
    }

    /// The last time that there was a number for the process.
    pub fn last(&self) -> Option<&UseSample> {
        let mut newest = self.samples.iter().rev();
        newest.find(|sample| sample.process_bytes.is_some())
    }

    /// Where the device, by whomever, was fullest, first.
    pub fn fullest(&self) -> Option<&UseSample> {
        let samples = self.samples.iter().rev();
        samples.max_by_key(|sample| sample.used_bytes)
    }

    /// Takes what a record says.
    pub(super) fn learn(&mut self, record: cold::DeviceUse) {
        self.uuid = record.uuid;
        let samples = record.samples.iter().map(|sample| UseSample {
            time: sample.time,
            process_bytes: sample.process_bytes,
            found_by: FoundBy::from_number(sample.found_by),
            used_bytes: sample.used_bytes,
            reserved_bytes: record.reserved_bytes,
            total_bytes: record.total_bytes,
        });
        self.samples.extend(samples);
    }

    /// Puts what was learnt in order.
    pub(super) fn sort(&mut self) {
        self.samples.sort_by_key(|sample| sample.time);
    }

    /// The records that say the same, each small enough for a trace.
    pub fn records(device: u8, uuid: &str, samples: &[UseSample]) -> Vec<cold::DeviceUse> {
        // Who decodes a list limits what it takes in memory, beside the name and the numbers.
        const MOST: usize = (MAX_PAYLOAD - 256) / size_of::<cold::UseSample>();
        let same = |one: &UseSample, other: &UseSample| {
            (one.total_bytes, one.reserved_bytes) == (other.total_bytes, other.reserved_bytes)
        };
        samples
            .chunk_by(same)
            .flat_map(|alike| alike.chunks(MOST))
            .map(|part| cold::DeviceUse {
                device,
                uuid: uuid.to_owned(),
                total_bytes: part[0].total_bytes,
                reserved_bytes: part[0].reserved_bytes,
                samples: part
                    .iter()
                    .map(|sample| cold::UseSample {
                        time: sample.time,
                        process_bytes: sample.process_bytes,
                        found_by: sample.found_by.number(),
                        used_bytes: sample.used_bytes,
                    })
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vramtrace_format::cold::{Cold, append, records};

    #[test]
    fn samples_come_back_from_records_that_fit() {
        let samples: Vec<UseSample> = (0..2000)
            .map(|time| UseSample {
                time,
                process_bytes: (time % 3 != 0).then_some(time * 1000),
                found_by: FoundBy::from_number((time % 4) as u8),
                used_bytes: u64::MAX - time,
                reserved_bytes: (time < 1000).then_some(480 << 20),
                total_bytes: 80 << 30,
            })
            .collect();
        let uuid = "MIG-00000000-0000-0000-0000-000000000000";
        let (mut section, mut used) = (vec![0; 1 << 20], 0);
        for record in DeviceUse::records(3, uuid, &samples) {
            used = append(&mut section, used, &Cold::DeviceUse(record)).unwrap();
        }
        let mut back = DeviceUse::default();
        for record in records(&section[..used as usize]) {
            match record {
                Cold::DeviceUse(record) => {
                    assert_eq!(record.device, 3);
                    back.learn(record);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(back.uuid, uuid);
        assert_eq!(back.samples.len(), samples.len());
        assert!(back.samples == samples);
        assert_eq!(back.peak().map(|sample| sample.time), Some(1999));
        assert_eq!(back.last().map(|sample| sample.time), Some(1999));
        assert_eq!(back.fullest().map(|sample| sample.time), Some(0));
    }
}
