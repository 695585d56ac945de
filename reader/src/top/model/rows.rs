//! Devices, processes, pools and failures of a picture.

use super::{MOST_FAILURES, Model, Shown, cached, device_key, pid, taken, who};
use crate::live::Sample;
use crate::model::State;
use crate::report::words::counted;
use crate::top::picture::{DeviceRow, FailureRow, Picture, PoolRow, ProcessRow, SeriesKey};
use crate::top::settings::{Settings, Sort};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use vramtrace_format::record::Layer;

/// All devices, whatever the settings are limited to.
pub fn devices(model: &Model, settings: &Settings, picture: &mut Picture) {
    let mut found: BTreeMap<String, (DeviceRow, Option<u32>, u8)> = BTreeMap::new();
    for shown in model.shown() {
        for device in &shown.process.devices {
            let key = device_key(shown.process, device);
            let (row, number, ordinal) = found.entry(key.clone()).or_insert_with(|| {
                let row = DeviceRow {
                    key,
                    ..DeviceRow::default()
                };
                (row, None, device.ordinal)
            });
            *number = number.or(device.number);
            *ordinal = (*ordinal).min(device.ordinal);
            row.total = row.total.max(device.total_bytes);
            if row.name.is_empty() {
                row.name.clone_from(&device.name);
                row.uuid.clone_from(&device.uuid);
            }
            if !shown.ended {
                let (taken, cached) = (
                    taken(shown.process, device.ordinal),
                    cached(shown.process, device.ordinal),
                );
                row.traced = row.traced.saturating_add(taken);
                row.cached = row.cached.saturating_add(cached);
                row.processes += 1;
            }
        }
    }
    let mut rows: Vec<(DeviceRow, Option<u32>, u8)> = found.into_values().collect();
    for (row, number, ordinal) in &mut rows {
        let states = model.sample.devices.iter();
        let state = states
            .clone()
            .find(|state| !row.uuid.is_empty() && state.uuid == row.uuid)
            .or_else(|| {
                states
                    .clone()
                    .find(|state| number.is_some() && state.number == *number)
            });
        if let Some(state) = state {
            row.used = Some(state.used_bytes);
            row.total = match row.total {
                0 => state.total_bytes,
                known => known,
            };
            *number = number.or(state.number);
        }
        row.label = format!("GPU {}", number.unwrap_or(u32::from(*ordinal)));
        if let Some(&id) = model.devices.get(&row.key) {
            row.series = Some(SeriesKey::Device(id));
            row.growth = model.growth(&[SeriesKey::Device(id)], settings.window);
        }
    }
    rows.sort_by(|a, b| {
        let rank = |row: &(DeviceRow, Option<u32>, u8)| row.1.unwrap_or(u32::from(row.2));
        (rank(a), &a.0.key).cmp(&(rank(b), &b.0.key))
    });
    picture.devices = rows.into_iter().map(|(row, ..)| row).collect();
}

/// The label of a process's device; empty for host memory.
pub fn gpu(picture: &Picture, shown: Shown<'_>, ordinal: Option<u8>) -> (Option<String>, String) {
    let Some(ordinal) = ordinal else {
        return (None, String::new());
    };
    let device = shown.process.devices.iter();
    let key = device
        .clone()
        .find(|device| device.ordinal == ordinal)
        .map(|device| device_key(shown.process, device));
    let row = key
        .as_ref()
        .and_then(|key| picture.devices.iter().find(|row| row.key == *key));
    let label = row.map_or_else(|| format!("GPU {ordinal}"), |row| row.label.clone());
    (key, label)
}

/// Whether the settings are about this device.
pub fn takes_device(settings: &Settings, key: Option<&String>) -> bool {
    settings.device.is_none() || settings.device.as_ref() == key
}

/// Processes, one row for each device; also those that are not selected, so that one can go on to them.
pub fn processes(model: &Model, settings: &Settings, picture: &mut Picture) {
    let mut rows = Vec::new();
    for shown in model.shown() {
        let state = match (shown.ended, shown.process.state) {
            (true, _) => 1,
            (false, State::Running) => 0,
            _ => 2,
        };
        picture.states[state] += 1;
        picture.sampled |= !shown.ended
            && shown
                .process
                .overhead
                .is_some_and(|overhead| overhead.not_sampled > 0);
        let mut first = true;
        for device in &shown.process.devices {
            let (key, label) = gpu(picture, shown, Some(device.ordinal));
            if !takes_device(settings, key.as_ref()) {
                continue;
            }
            let mut row = process(shown, first);
            row.device = key;
            row.gpu = label;
            figures(model, settings, shown, device.ordinal, &mut row);
            row.shown = device.shown.map(|told| told.process_bytes);
            rows.push(row);
            first = false;
        }
        if shown.process.devices.is_empty() && settings.device.is_none() {
            rows.push(process(shown, true));
        }
    }
    rows.sort_by(|a, b| {
        let by = match settings.sort {
            Sort::Live => b.live.cmp(&a.live),
            Sort::Growth => by_growth(a.growth, b.growth),
            Sort::Count => b.count.cmp(&a.count),
            Sort::Name => a.name.cmp(&b.name),
        };
        let by = if settings.reverse { by.reverse() } else { by };
        // Those that are not there any more do not push away those that are.
        a.ended
            .cmp(&b.ended)
            .then(by)
            .then_with(|| (a.process, &a.gpu).cmp(&(b.process, &b.gpu)))
    });
    picture.processes = rows;
}

/// Fastest first; what is not known last.
pub fn by_growth(a: Option<f64>, b: Option<f64>) -> Ordering {
    let rate = |rate: Option<f64>| rate.unwrap_or(f64::NEG_INFINITY);
    rate(b).total_cmp(&rate(a))
}

fn process(shown: Shown<'_>, first: bool) -> ProcessRow {
    let process = shown.process;
    let host = process
        .accounts
        .iter()
        .filter(|row| first && row.layer == Layer::Host)
        .fold(0u64, |sum, row| sum.saturating_add(row.live_bytes));
    ProcessRow {
        process: shown.number,
        trace: process.trace.clone(),
        pid: pid(process),
        name: process.identity.name.clone(),
        program: process.identity.program.clone(),
        rank: process.identity.rank,
        host: process.identity.host.clone(),
        state: shown.state,
        ended: shown.ended,
        host_memory: host,
        inexact: process.losses.is_inexact() || process.interrupted,
        ..ProcessRow::default()
    }
}

fn figures(
    model: &Model,
    settings: &Settings,
    shown: Shown<'_>,
    ordinal: u8,
    row: &mut ProcessRow,
) {
    let here = shown.process.accounts.iter();
    for account in here.filter(|account| account.device == Some(ordinal)) {
        row.failed = row.failed.saturating_add(account.failed_count);
        match account.layer {
            Layer::Device => {
                row.live = account.live_bytes;
                row.count = account.live_count;
                row.peak = account.peak_bytes;
            }
            Layer::Framework => row.framework = account.live_bytes,
            Layer::Host => {}
        }
    }
    row.cached = cached(shown.process, ordinal);
    let key = SeriesKey::Account(shown.number, Some(ordinal), Layer::Device);
    if model.series.contains_key(&key) {
        row.growth = model.growth(&[key], settings.window);
        row.series = Some(key);
    }
}

/// What allocators hold, most unused first.
pub fn pools(model: &Model, settings: &Settings, picture: &mut Picture) {
    let mut rows = Vec::new();
    for shown in model.shown().filter(|shown| !shown.ended) {
        if settings
            .process
            .is_some_and(|process| process != shown.number)
        {
            continue;
        }
        for one in &shown.process.allocators {
            let (key, label) = gpu(picture, shown, Some(one.device));
            if takes_device(settings, key.as_ref()) {
                rows.push(PoolRow {
                    process: shown.number,
                    label: who(shown.process),
                    gpu: label,
                    allocator: one.allocator.name(),
                    reserved: one.reserved_bytes,
                    used: one.used_bytes,
                });
            }
        }
    }
    let unused = |row: &PoolRow| row.reserved.saturating_sub(row.used);
    rows.sort_by(|a, b| {
        let rank = |row: &PoolRow| (row.reserved, row.process);
        (unused(b), rank(b)).cmp(&(unused(a), rank(a)))
    });
    picture.pools = rows;
}

/// Failed allocations, newest first; also those of processes that have ended since.
pub fn failures(model: &Model, settings: &Settings, picture: &mut Picture) {
    let mut rows = Vec::new();
    for shown in model.shown() {
        if settings
            .process
            .is_some_and(|process| process != shown.number)
        {
            continue;
        }
        for failure in &shown.process.failures {
            let (key, label) = gpu(picture, shown, failure.device);
            if takes_device(settings, key.as_ref()) {
                rows.push(FailureRow {
                    process: shown.number,
                    trace: shown.process.trace.clone(),
                    label: who(shown.process),
                    gpu: label,
                    failure: failure.clone(),
                });
            }
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.failure.unix_ns, row.failure.seq)));
    rows.truncate(MOST_FAILURES);
    picture.failures = rows;
}

/// Leaves out what does not have the text of the filter in it, and has nothing to do with what has.
pub fn only_what_matches(settings: &Settings, picture: &mut Picture) {
    if settings.filter.is_empty() {
        return;
    }
    let wanted = settings.filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    picture.pools.retain(|row| has(&row.label));
    picture.failures.retain(|row| {
        let named = row.failure.named.as_ref();
        has(&row.label) || named.is_some_and(|named| super::groups::is_called(named, &wanted))
    });
    let groups = &picture.groups;
    picture.processes.retain(|row| {
        has(&row.name)
            || has(&row.program)
            || has(&row.pid.to_string())
            || groups
                .iter()
                .any(|group| group.key.process == Some(row.process))
    });
}

/// How the note begins that NVML says nothing: no trouble where there is no NVML.
pub const WITHOUT_NVML: &str = "without nvidia-smi's figures";

/// What one should know before one believes the figures.
pub fn notes(sample: &Sample, picture: &mut Picture) {
    let notes = &mut picture.notes;
    if let Some(why) = &sample.directory_error {
        notes.push(format!("the directory cannot be read: {why}"));
    }
    if sample.unreadable > 0 {
        let first = sample.failed.first();
        let first = first.map_or(String::new(), |failed| {
            let name = failed.trace.file_name().unwrap_or_default();
            format!(": {} {}", name.to_string_lossy(), failed.why)
        });
        let traces = counted(sample.unreadable, "trace");
        notes.push(format!("{traces} cannot be read{first}"));
    }
    if picture.sampled {
        notes.push("stacks are sampled: figures with ~ are estimates".to_owned());
    }
    if picture.processes.iter().any(|row| row.inexact) {
        notes.push("! in a process's row: not all of it was recorded (vramtrace check)".to_owned());
    }
    if sample.omitted_processes > 0 {
        let more = counted(sample.omitted_processes, "process");
        notes.push(format!("{more} more not followed (--max-processes)"));
    }
    if let Some(why) = &sample.nvml_error {
        notes.push(format!("{WITHOUT_NVML}: {why}"));
    }
    let failed = sample.failed.iter();
    picture.unreadable = failed
        .map(|failed| (failed.trace.clone(), failed.why.clone()))
        .collect();
}
