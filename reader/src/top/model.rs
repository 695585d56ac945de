//! Samples put together: who is there, who was there a moment ago, and how figures went on. Pure: time
//! comes with the samples.

mod groups;
mod rows;

pub use rows::WITHOUT_NVML;

use super::picture::{Picture, SeriesKey};
use super::series::{Series, Window};
use super::settings::Settings;
use crate::live::{Device, Failed, ProcessSample, Sample};
use crate::model::State;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vramtrace_format::record::Layer;

/// Series of places that are kept, of all processes together, and at least of each.
const MOST_PLACES: (usize, usize) = (4096, 16);
/// How long a process whose trace vanished, or cannot be read any more, is still told of.
const LINGER: Duration = Duration::from_secs(60);
/// Such processes that are told of.
const MOST_GONE: usize = 64;
/// Failures that are told of.
const MOST_FAILURES: usize = 100;

/// What was seen so far.
#[derive(Default)]
pub struct Model {
    at: Duration,
    unix_ns: u64,
    sample: Sample,
    /// Each process of the sample: its number, in the same order.
    numbers: Vec<u32>,
    /// By trace: what tells the process apart that wrote it, and its number.
    known: HashMap<PathBuf, (String, u32)>,
    next_process: u32,
    devices: HashMap<String, u32>,
    /// Processes whose traces vanished or cannot be read any more, since when, and the word for it.
    gone: Vec<Gone>,
    series: FxHashMap<SeriesKey, (Duration, Series)>,
}

struct Gone {
    number: u32,
    process: ProcessSample,
    since: Duration,
    state: &'static str,
}

/// A process that is shown, with its number and what is said of its state.
#[derive(Clone, Copy)]
struct Shown<'a> {
    number: u32,
    process: &'a ProcessSample,
    state: &'static str,
    ended: bool,
}

impl Model {
    /// Takes in a sample, so long after the first one; never one that is older than the last.
    pub fn take(&mut self, sample: Sample, at: Duration) {
        self.at = at;
        self.unix_ns = sample.unix_ns;
        let before = std::mem::replace(&mut self.sample, sample);
        let numbers_before = std::mem::take(&mut self.numbers);
        for index in 0..self.sample.processes.len() {
            let process = &self.sample.processes[index];
            let (trace, id) = (process.trace.clone(), process.id.clone());
            let number = self.number(trace, id);
            self.numbers.push(number);
        }
        self.gone.retain(|gone| {
            !self.numbers.contains(&gone.number) && at.saturating_sub(gone.since) < LINGER
        });
        for (process, number) in before.processes.into_iter().zip(numbers_before) {
            if !self.numbers.contains(&number) {
                self.left(process, number);
            }
        }
        self.follow();
        // A series whose thing is not there any more: what comes later by that name is another one.
        self.series.retain(|_, (seen, _)| *seen == at);
        if self.known.len() > 4 * (self.numbers.len() + self.gone.len()) + 1024 {
            let (numbers, gone) = (&self.numbers, &self.gone);
            self.known.retain(|_, (_, number)| {
                numbers.contains(number) || gone.iter().any(|gone| gone.number == *number)
            });
        }
    }

    /// When the last sample was taken, since the first.
    pub fn at(&self) -> Duration {
        self.at
    }

    fn number(&mut self, trace: PathBuf, id: String) -> u32 {
        match self.known.get(&trace) {
            Some((known, number)) if *known == id => *number,
            _ => {
                let number = self.next_process;
                self.next_process = self.next_process.wrapping_add(1);
                self.known.insert(trace, (id, number));
                number
            }
        }
    }

    /// A process that is not in the sample any more. What had ended was told of for long enough.
    fn left(&mut self, process: ProcessSample, number: u32) {
        let is_it = |failed: &&Failed| failed.trace == process.trace;
        let state = match self.sample.failed.iter().find(is_it) {
            Some(_) => "unreadable",
            None if has_ended(&process) || self.sample.directory_error.is_some() => return,
            None => "vanished",
        };
        if self.gone.len() < MOST_GONE {
            self.gone.push(Gone {
                number,
                process,
                since: self.at,
                state,
            });
        }
    }

    fn device(&mut self, key: String) -> u32 {
        let next = self.devices.len() as u32;
        *self.devices.entry(key).or_insert(next)
    }

    /// Brings all series up to the sample.
    fn follow(&mut self) {
        let sample = std::mem::take(&mut self.sample);
        let numbers = std::mem::take(&mut self.numbers);
        let mut of_devices: HashMap<u32, u64> = HashMap::new();
        let processes = sample.processes.len().max(1);
        let most = (MOST_PLACES.0 / processes).max(MOST_PLACES.1);
        for (process, &number) in sample.processes.iter().zip(&numbers) {
            for device in &process.devices {
                let key = device_key(process, device);
                let sum = of_devices.entry(self.device(key)).or_default();
                if !has_ended(process) {
                    *sum = sum.saturating_add(taken(process, device.ordinal));
                }
            }
            for account in &process.accounts {
                let key = SeriesKey::Account(number, account.device, account.layer);
                add(&mut self.series, key, self.at, account.live_bytes);
            }
            for kind in &process.kinds {
                let key = SeriesKey::Kind(number, kind.device, kind.kind);
                add(&mut self.series, key, self.at, kind.live_bytes);
            }
            for place in process.places.iter().take(most) {
                let key = place_key(number, place);
                add(&mut self.series, key, self.at, place.estimated_bytes);
            }
        }
        for (device, sum) in of_devices {
            add(&mut self.series, SeriesKey::Device(device), self.at, sum);
        }
        (self.sample, self.numbers) = (sample, numbers);
    }

    /// Growth of what these series are about together, bytes a second; `None` where none is known.
    pub fn growth(&self, keys: &[SeriesKey], window: Window) -> Option<f64> {
        let known = keys.iter().filter_map(|key| self.series.get(key));
        let rates = known.filter_map(|(_, series)| series.growth(window));
        rates.fold(None, |sum, rate| Some(sum.unwrap_or(0.0) + rate))
    }

    /// What these series are about together, over a window, in so many parts of which the last is now.
    pub fn columns(&self, keys: &[SeriesKey], window: Window, count: usize) -> Vec<Option<u64>> {
        let mut columns = vec![None; count];
        for (_, series) in keys.iter().filter_map(|key| self.series.get(key)) {
            series.add_to(window, self.at, &mut columns);
        }
        columns
    }

    /// The trace of a process.
    pub fn trace(&self, process: u32) -> Option<&Path> {
        self.shown()
            .find(|shown| shown.number == process)
            .map(|shown| shown.process.trace.as_path())
    }

    /// All processes that are told of: those of the sample, then those that are gone.
    fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        let there = self.sample.processes.iter().zip(&self.numbers);
        let there = there.map(|(process, &number)| Shown {
            number,
            process,
            state: process.state.name(),
            ended: has_ended(process),
        });
        let gone = self.gone.iter().map(|gone| Shown {
            number: gone.number,
            process: &gone.process,
            state: gone.state,
            ended: true,
        });
        there.chain(gone)
    }

    /// What there is to be seen, as the settings want it.
    pub fn picture(&self, settings: &Settings) -> Picture {
        let mut picture = Picture {
            unix_ns: self.unix_ns,
            at: self.at,
            naming: self.sample.naming,
            ..Picture::default()
        };
        rows::devices(self, settings, &mut picture);
        rows::processes(self, settings, &mut picture);
        rows::pools(self, settings, &mut picture);
        rows::failures(self, settings, &mut picture);
        groups::groups(self, settings, &mut picture);
        rows::only_what_matches(settings, &mut picture);
        rows::notes(&self.sample, &mut picture);
        picture
    }
}

fn add(
    all: &mut FxHashMap<SeriesKey, (Duration, Series)>,
    key: SeriesKey,
    at: Duration,
    value: u64,
) {
    let (seen, series) = all.entry(key).or_default();
    *seen = at;
    series.add(at, value);
}

fn has_ended(process: &ProcessSample) -> bool {
    matches!(
        process.state,
        State::Exited | State::Killed | State::Snapshot
    )
}

/// What tells a device apart on all machines.
fn device_key(process: &ProcessSample, device: &Device) -> String {
    match (&*device.uuid, &*device.pci) {
        ("", "") => format!("{}/{}", process.identity.host, device.ordinal),
        ("", pci) => format!("{}/{pci}", process.identity.host),
        (uuid, _) => uuid.to_owned(),
    }
}

fn place_key(number: u32, place: &crate::live::PlaceSample) -> SeriesKey {
    SeriesKey::Place(number, place.device, place.kind, place.stack, place.api)
}

/// What a process took of a device from the driver.
fn taken(process: &ProcessSample, ordinal: u8) -> u64 {
    let accounts = process.accounts.iter();
    accounts
        .filter(|row| row.device == Some(ordinal) && row.layer == Layer::Device)
        .fold(0, |sum, row| sum.saturating_add(row.live_bytes))
}

/// What a process's allocators hold of a device without using it; never more than it has.
fn cached(process: &ProcessSample, ordinal: u8) -> u64 {
    let here = process.allocators.iter();
    here.filter(|one| one.device == ordinal)
        .fold(0u64, |sum, one| {
            sum.saturating_add(one.reserved_bytes.saturating_sub(one.used_bytes))
        })
        .min(taken(process, ordinal))
}

/// `train rank 3 (4711)`.
fn who(process: &ProcessSample) -> String {
    let identity = &process.identity;
    let rank = identity
        .rank
        .map_or(String::new(), |rank| format!(" rank {rank}"));
    format!("{}{rank} ({})", identity.name, pid(process))
}

/// Its number here, else the one that it has for itself.
fn pid(process: &ProcessSample) -> u32 {
    match process.identity.outer_pid {
        0 => process.identity.pid,
        outer => outer,
    }
}
