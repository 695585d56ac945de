//! What conditions are about: each process on each device, and what it was before.

use super::expression::{Facts, Figure};
use crate::live::{ProcessSample, Sample, Shown};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vramtrace_format::record::Layer;

/// Points that are kept of one subject.
const MOST_POINTS: u32 = 240;
/// How much of its window a growth must have seen.
const ENOUGH: f64 = 0.9;

/// A process on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its trace.
    pub trace: PathBuf,
    /// Ordinal of the device; `None` of a process without one.
    pub device: Option<u8>,
}

/// What is known of a subject.
#[derive(Clone, Debug, Default)]
pub struct Known {
    figures: Vec<(Figure, f64)>,
    device_bytes: Option<f64>,
    history: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: Instant,
    live: u64,
    failures: u64,
}

/// Remembers as much as the longest window needs, in bounded memory.
pub struct History {
    window: Option<Duration>,
    points: BTreeMap<Subject, VecDeque<Point>>,
}

impl History {
    /// For windows of this length at most.
    pub fn new(window: Option<Duration>) -> History {
        History {
            window,
            points: BTreeMap::new(),
        }
    }

    /// Takes in a sample; returns what is known of each subject that has memory. Those that could not
    /// be read keep what is remembered.
    pub fn add(&mut self, sample: &Sample, now: Instant) -> Vec<(Subject, usize, Known)> {
        let mut all = Vec::new();
        for (at, process) in sample.processes.iter().enumerate() {
            let mut devices: Vec<Option<u8>> = process
                .devices
                .iter()
                .map(|one| Some(one.ordinal))
                .collect();
            if devices.is_empty() {
                devices.push(None);
            }
            for device in devices {
                let subject = Subject {
                    trace: process.trace.clone(),
                    device,
                };
                let mut known = known(sample, process, device);
                known.history = self.remember(&subject, process, device, now);
                all.push((subject, at, known));
            }
        }
        let there = |trace: &PathBuf| {
            let failed = sample.failed.iter().any(|failed| failed.trace == *trace);
            failed
                || sample
                    .processes
                    .iter()
                    .any(|process| process.trace == *trace)
        };
        if sample.directory_error.is_none() {
            self.points.retain(|subject, _| there(&subject.trace));
        }
        all
    }

    fn remember(
        &mut self,
        subject: &Subject,
        process: &ProcessSample,
        device: Option<u8>,
        now: Instant,
    ) -> Vec<Point> {
        let Some(window) = self.window else {
            return Vec::new();
        };
        let points = self.points.entry(subject.clone()).or_default();
        let point = Point {
            at: now,
            live: live(process, device, Layer::Device).unwrap_or(0),
            failures: failures(process, device),
        };
        let step = window / MOST_POINTS;
        let last = points
            .back()
            .map(|last| now.saturating_duration_since(last.at));
        if last.is_none_or(|since| since >= step) {
            points.push_back(point);
        }
        // One point may be older than the window, so that the window has a beginning.
        while points
            .get(1)
            .is_some_and(|second| now.saturating_duration_since(second.at) >= window)
        {
            points.pop_front();
        }
        points.iter().copied().chain([point]).collect()
    }
}

fn live(process: &ProcessSample, device: Option<u8>, layer: Layer) -> Option<u64> {
    let mut accounts = process.accounts.iter();
    let found = accounts.find(|account| (account.device, account.layer) == (device, layer));
    found.map(|account| account.live_bytes)
}

fn failures(process: &ProcessSample, device: Option<u8>) -> u64 {
    let here = process
        .accounts
        .iter()
        .filter(|account| account.device == device);
    here.fold(0, |sum, account| sum.saturating_add(account.failed_count))
}

fn known(sample: &Sample, process: &ProcessSample, device: Option<u8>) -> Known {
    let mut known = Known::default();
    let mut is =
        |figure, value: Option<f64>| known.figures.extend(value.map(|value| (figure, value)));
    let of = |layer| live(process, device, layer);
    let device_layer = process
        .accounts
        .iter()
        .find(|account| (account.device, account.layer) == (device, Layer::Device));
    let host = live(process, None, Layer::Host).unwrap_or(0) as f64;
    // A program that uses a device and has nothing there has zero bytes, and that is known.
    let live = of(Layer::Device)
        .or(device.map(|_| 0))
        .map(|bytes| bytes as f64);
    is(Figure::Live, live.or(Some(host)));
    is(
        Figure::Framework,
        Some(of(Layer::Framework).unwrap_or(0) as f64),
    );
    is(Figure::Host, Some(host));
    is(
        Figure::Peak,
        Some(device_layer.map_or(0, |account| account.peak_bytes) as f64),
    );
    let here = || {
        process
            .allocators
            .iter()
            .filter(|one| Some(one.device) == device)
    };
    let reserved = here().fold(0u64, |sum, one| sum.saturating_add(one.reserved_bytes));
    let unused = here().fold(0u64, |sum, one| {
        sum.saturating_add(one.reserved_bytes.saturating_sub(one.used_bytes))
    });
    is(Figure::Reserved, Some(reserved as f64));
    is(Figure::Unused, Some(unused as f64));
    is(
        Figure::Failures(None),
        Some(failures(process, device) as f64),
    );
    let lost = process.losses.events[0].saturating_add(process.losses.events[1]);
    is(
        Figure::Lost,
        Some(lost.saturating_add(process.losses.dropped_count) as f64),
    );
    let own = process
        .devices
        .iter()
        .find(|one| Some(one.ordinal) == device);
    let shown: Option<Shown> = own.and_then(|own| own.shown);
    is(
        Figure::ProcessUsed,
        shown.map(|shown| shown.process_bytes as f64),
    );
    is(
        Figure::Unexplained,
        shown.map(|shown| shown.unexplained_bytes as f64),
    );
    let bare = |uuid: &str| {
        uuid.trim_start_matches("MIG-")
            .trim_start_matches("GPU-")
            .to_owned()
    };
    let state = own.and_then(|own| {
        let same = |state: &&crate::live::DeviceState| bare(&state.uuid) == bare(&own.uuid);
        sample.devices.iter().find(same)
    });
    is(
        Figure::DeviceUsed,
        state.map(|state| state.used_bytes as f64),
    );
    let free = state.map(|state| {
        let reserved = state.reserved_bytes.unwrap_or(0);
        state
            .total_bytes
            .saturating_sub(state.used_bytes)
            .saturating_sub(reserved) as f64
    });
    is(Figure::DeviceFree, free);
    let total = state
        .map(|state| state.total_bytes)
        .or(own.map(|own| own.total_bytes));
    known.device_bytes = total.filter(|&bytes| bytes > 0).map(|bytes| bytes as f64);
    known
}

impl Facts for Known {
    fn figure(&self, figure: Figure) -> Option<f64> {
        let known = |wanted| {
            self.figures
                .iter()
                .find(|(of, _)| *of == wanted)
                .map(|(_, value)| *value)
        };
        let over = |window: Duration| -> Option<(Point, Point, Duration)> {
            let (last, before) = self.history.split_last()?;
            let inside = |point: &&Point| last.at.saturating_duration_since(point.at) <= window;
            // The last point before the window, or the first in it.
            let first = before
                .iter()
                .rev()
                .find(|point| !inside(point))
                .or(before.first())?;
            let seen = last.at.saturating_duration_since(first.at);
            (seen.as_secs_f64() >= ENOUGH * window.as_secs_f64()).then_some((*first, *last, seen))
        };
        match figure {
            Figure::Growth(window) => {
                let (first, last, seen) = over(window)?;
                Some((last.live as f64 - first.live as f64) / seen.as_secs_f64())
            }
            Figure::Failures(Some(window)) => {
                // As far as it was seen: what failed meanwhile failed in the window.
                let last = self.history.last()?;
                let first = match over(window) {
                    Some((first, ..)) => first,
                    None => *self.history.first()?,
                };
                Some(last.failures.saturating_sub(first.failures) as f64)
            }
            figure => known(figure),
        }
    }

    fn whole(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Unused => self.figure(Figure::Reserved),
            _ => self.device_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(points: &[(u64, u64, u64)]) -> Known {
        let begun = Instant::now();
        let point = |&(at, live, failures): &(u64, u64, u64)| Point {
            at: begun + Duration::from_secs(at),
            live,
            failures,
        };
        Known {
            history: points.iter().map(point).collect(),
            ..Known::default()
        }
    }

    #[test]
    fn growth_is_known_when_its_window_is_full() {
        let window = Duration::from_secs(100);
        let growth = |points: &[(u64, u64, u64)]| known(points).figure(Figure::Growth(window));
        assert_eq!(growth(&[]), None);
        assert_eq!(growth(&[(0, 5, 0)]), None);
        assert_eq!(growth(&[(0, 100, 0), (50, 200, 0)]), None);
        assert_eq!(growth(&[(0, 100, 0), (50, 0, 0), (100, 300, 0)]), Some(2.0));
        // Only the window counts.
        assert_eq!(
            growth(&[(0, 0, 0), (100, 1000, 0), (150, 0, 0), (201, 1000, 0)]),
            Some(0.0)
        );
        assert_eq!(growth(&[(0, 300, 0), (100, 100, 0)]), Some(-2.0));
    }

    #[test]
    fn failures_in_a_window_are_those_that_were_seen_to_happen() {
        let window = Some(Duration::from_secs(100));
        let failed = |points: &[(u64, u64, u64)]| known(points).figure(Figure::Failures(window));
        assert_eq!(failed(&[(0, 0, 3)]), Some(0.0));
        assert_eq!(failed(&[(0, 0, 3), (10, 0, 5)]), Some(2.0));
        assert_eq!(failed(&[(0, 0, 3), (10, 0, 5), (200, 0, 5)]), Some(0.0));
    }
}
