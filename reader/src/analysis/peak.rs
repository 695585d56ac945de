//! What each device held at its peak, layer by layer, grouped by call stack.
//!
//! Every row of the totals by stack remembers its share of its account's latest peak, so the
//! answer is exact however long ago that was and whatever the event log has forgotten since. The
//! shares have to add up to what the account says; where they do not, that is said.

use super::estimate::Weighted;
use super::leaks::{By, EntryEnd, Grouping, Item, Options, Placed};
use super::moment::{Found, Past};
use super::ranks::Ranks;
use super::view::{DeviceView, Devices, ProcessView};
use super::{Filter, Sum};
use crate::model::{CudaUse, Loops, Process, Unhidden, VisibleStack};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vramtrace_format::account::{self, Account};
use vramtrace_format::record::{Kind, Layer, NO_DEVICE};
use vramtrace_format::totals::{End, Totals};

/// The peak of one layer of one device (or of host memory) in one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// Id of its process.
    pub process: usize,
    /// Id of its device; `None` for host memory.
    pub device: Option<usize>,
    /// Layer.
    pub layer: Layer,
    /// When it was, Unix nanoseconds.
    pub at_ns: u64,
    /// Most bytes that were live at once, of all kinds, as the account says.
    pub bytes: u64,
    /// What the stacks held then, of all kinds.
    pub stacks: Sum,
    /// The part of `stacks` that is of the kinds asked about.
    pub asked: Sum,
    /// Groups of `asked`, largest first. Their times are those of the first and the last
    /// allocation ever made there, not of what was live at the peak.
    pub groups: Vec<Placed>,
    /// Groups that `top` left out.
    pub omitted_groups: usize,
    /// What they held.
    pub omitted: Sum,
}

impl Peak {
    /// Whether the stacks held what the account says.
    pub fn adds_up(&self) -> bool {
        self.stacks.bytes == self.bytes
    }

    /// How much of the peak so many bytes are, percent.
    pub fn percent(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes.max(1) as f64 * 100.0
    }
}

/// The peaks of several processes. They were at different times, and are never added.
#[derive(Clone, Debug, PartialEq)]
pub struct Peaks {
    /// Whether every peak is exact.
    pub complete: bool,
    /// Why not: a stable word, a colon, a sentence.
    pub incomplete_because: Vec<String>,
    /// Events that were never recorded.
    pub lost_events: u64,
    /// What was seen of CUDA in each process.
    pub cuda_use: Vec<CudaUse>,
    /// Notes of the recorders that say something about completeness.
    pub notes: Vec<String>,
    /// Processes by id.
    pub processes: Vec<ProcessView>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
    /// Whether all frames were asked for.
    pub all_frames: bool,
    /// What it is limited to.
    pub filter: Filter,
    /// Peaks of the first process by device and layer, then of the next.
    pub peaks: Vec<Peak>,
    /// The one that holds most of what is asked about, by its place in `peaks`.
    pub largest: Option<usize>,
    /// Whether the event log still reaches back to the largest.
    pub in_event_log: bool,
}

/// Whether sums by stack know what groups would be made by.
pub fn knows(by: By) -> bool {
    by.is_in_totals()
}

/// Finds all peaks; keeps the `top` largest groups of each. `by` has to be one that
/// [`knows`] accepts.
pub fn peaks(
    processes: &[Process],
    by: By,
    filter: &Filter,
    unhidden: Unhidden,
    top: Option<usize>,
    loops: &mut dyn Loops,
) -> Peaks {
    let options = Options {
        by,
        filter: filter.clone(),
        unhidden,
        ..Options::default()
    };
    let mut devices = Devices::default();
    let mut found = Peaks {
        complete: true,
        incomplete_because: Vec::new(),
        lost_events: 0,
        cuda_use: Vec::new(),
        notes: Vec::new(),
        processes: Vec::new(),
        devices: Vec::new(),
        all_frames: unhidden.cuda,
        filter: filter.clone(),
        peaks: Vec::new(),
        largest: None,
        in_event_log: false,
    };
    for (id, process) in processes.iter().enumerate() {
        devices.add_all(process, id);
        found.add(process, id);
        let rows = rows_by_account(process);
        for (index, account) in process.trace.copy.accounts.iter().enumerate() {
            let (device, layer) = account::of_index(index);
            let of = rows.get(&index).map(Vec::as_slice).unwrap_or_default();
            if account.peak_bytes == 0 || !asked_about(filter, device, layer, of) {
                continue;
            }
            let mut peak = of_account(process, of, account, &options, loops);
            peak.process = id;
            peak.device = device.map(|device| devices.id_of(process, id, device));
            peak.layer = layer;
            for placed in &mut peak.groups {
                placed.process = id;
                placed.device = placed
                    .group
                    .device
                    .map(|index| devices.id_of(process, id, index));
            }
            if !peak.adds_up() {
                found
                    .incomplete_because
                    .push(mismatch(process, device, &peak));
            }
            // Nothing is shown of a kind that is not there.
            if peak.asked.count > 0 || filter.kinds.is_empty() {
                cut(&mut peak, top);
                found.peaks.push(peak);
            }
        }
    }
    found.complete = found.incomplete_because.is_empty();
    found.devices = devices.all;
    let most = |index: &usize| (found.peaks[*index].asked.bytes, Reverse(*index));
    found.largest = (0..found.peaks.len()).max_by_key(most);
    if let Some(largest) = found.largest {
        let peak = &found.peaks[largest];
        let process = &processes[peak.process];
        let start = process.trace.header().start_unix_ns;
        let at = Found::Time(peak.at_ns.saturating_sub(start));
        found.in_event_log = Past::of(process, at).is_ok();
    }
    found
}

impl Peaks {
    /// What ranks held on a GPU at the peak of a layer, side by side: of several peaks of a rank the highest, since
    /// they were at different times.
    pub fn ranks(&self) -> Option<Ranks> {
        let mut held = vec![0; self.processes.len()];
        for peak in self.peaks.iter().filter(|peak| peak.layer != Layer::Host) {
            held[peak.process] = peak.asked.bytes.max(held[peak.process]);
        }
        Ranks::compared(&self.processes, &held)
    }

    fn add(&mut self, process: &Process, id: usize) {
        for reason in &process.losses.live_inexact {
            let reason = format!("{}: {}", reason.code, reason.text);
            if !self.incomplete_because.contains(&reason) {
                self.incomplete_because.push(reason);
            }
        }
        self.lost_events = self.lost_events.saturating_add(process.losses.lost());
        self.cuda_use.push(process.cuda_use());
        self.notes
            .extend(process.remarks().map(|note| note.text.clone()));
        self.processes.push(ProcessView::of(process, id));
    }

    /// Whether memory was seen in any process.
    pub fn saw_memory(&self) -> bool {
        self.cuda_use.contains(&CudaUse::Memory)
    }

    /// The stacks that are shown, with the process that each belongs to.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &VisibleStack)> {
        let groups = self.peaks.iter().flat_map(|peak| &peak.groups);
        groups.map(|placed| (placed.process, &placed.group.stack))
    }
}

/// Ordinary rows by the account that each belongs to. Those of what ended have no share of a peak:
/// at that time it was live.
fn rows_by_account(process: &Process) -> BTreeMap<usize, Vec<&Totals>> {
    let mut rows: BTreeMap<usize, Vec<&Totals>> = BTreeMap::new();
    for row in process.totals() {
        let kind = row.kind().filter(|kind| kind.counted());
        if let Some(kind) = kind.filter(|_| row.key.end == End::Live as u8) {
            let index = account::index(row.key.device, kind.layer());
            rows.entry(index).or_default().push(row);
        }
    }
    rows
}

/// A process's last devices share an account, so that rows have to say which are in it.
fn asked_about(filter: &Filter, device: Option<u8>, layer: Layer, rows: &[&Totals]) -> bool {
    let of_row = |row: &&Totals| {
        let device = (row.key.device != NO_DEVICE).then_some(row.key.device);
        filter.takes_account(device, layer)
    };
    filter.takes_account(device, layer) || rows.iter().any(of_row)
}

fn of_account(
    process: &Process,
    rows: &[&Totals],
    account: &Account,
    options: &Options,
    loops: &mut dyn Loops,
) -> Peak {
    let mut peak = Peak {
        process: 0,
        device: None,
        layer: Layer::Device,
        at_ns: process.unix_ns(account.peak_time),
        bytes: account.peak_bytes,
        stacks: Sum::default(),
        asked: Sum::default(),
        groups: Vec::new(),
        omitted_groups: 0,
        omitted: Sum::default(),
    };
    let mut grouping = Grouping::new(process, options);
    for row in rows {
        let (bytes, count) = row.at_peak(account.peak_epoch);
        peak.stacks.add(bytes, count);
        let Some(kind) = row.kind().filter(|_| (bytes, count) != (0, 0)) else {
            continue;
        };
        if options.filter.takes(row.key.device, kind) {
            peak.asked.add(bytes, count);
            let more = row.sampled.at_peak(account.peak_epoch);
            let weighted = Weighted::of_bytes(more, process.sampling.coarsest());
            grouping.add(&item(row, kind, Sum { bytes, count }, weighted));
        }
    }
    let place = |group| Placed {
        process: 0,
        device: None,
        group,
    };
    peak.groups = grouping.finish(loops).into_iter().map(place).collect();
    peak
}

fn item(row: &Totals, kind: Kind, held: Sum, weighted: Weighted) -> Item {
    Item {
        stack: row.key.stack,
        api: row.key.api,
        device: row.key.device,
        kind,
        end: EntryEnd::Live,
        thread: None,
        range: 0,
        stream: 0,
        context: 0,
        bytes: held.bytes,
        count: held.count,
        first_time: row.first_time,
        last_time: row.last_time,
        key: None,
        weighted,
    }
}

fn mismatch(process: &Process, device: Option<u8>, peak: &Peak) -> String {
    let of = match device {
        Some(device) => format!("GPU {device}, {} layer", peak.layer.name()),
        None => "host memory".to_owned(),
    };
    format!(
        "peak-does-not-add-up: {of} of pid {}: its peak was {} bytes, its stacks say that they \
         held {} then",
        process.identity.pid, peak.bytes, peak.stacks.bytes
    )
}

fn cut(peak: &mut Peak, top: Option<usize>) {
    if let Some(top) = top.filter(|&top| top < peak.groups.len()) {
        for placed in peak.groups.drain(top..) {
            peak.omitted_groups += 1;
            peak.omitted.add(placed.group.bytes, placed.group.count);
        }
    }
}
