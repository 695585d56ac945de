//! Is a file whole? What was lost, what was bypassed, does what it says add up?

use super::Sum;
use super::view::ProcessView;
use crate::model::{CudaUse, Losses, Process, PythonStacks};
use std::collections::BTreeMap;
use vramtrace_format::account;
use vramtrace_format::live::is_live;
use vramtrace_format::record::Record;
use vramtrace_format::totals::End;

/// How much can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything is there.
    Whole,
    /// Leaks and sums are exact; some of the past is not kept any more.
    HistoryLost,
    /// The live set may not be exact.
    Inexact,
    /// The file is not as its writer left it, or contradicts itself.
    Damaged,
}

impl Verdict {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Whole => "whole",
            Verdict::HistoryLost => "history-lost",
            Verdict::Inexact => "inexact",
            Verdict::Damaged => "damaged",
        }
    }
}

/// One section, how full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds.
    pub what: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub room: u64,
}

/// What there is to say about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whose trace it is.
    pub view: ProcessView,
    /// How much can be relied on.
    pub verdict: Verdict,
    /// Format version of the file.
    pub version: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Last event in it.
    pub events: u64,
    /// Event that a kill had interrupted and that was put right.
    pub recovered: Option<u64>,
    /// The file was being written while it was read.
    pub moving: bool,
    /// What is not in it.
    pub losses: Losses,
    /// What is wrong with the file.
    pub damage: Vec<String>,
    /// What in it contradicts something else in it.
    pub contradictions: Vec<String>,
    /// Its Python, if there is one.
    pub python: Option<PythonStacks>,
    /// What the recorder wants to be said: code and text.
    pub notes: Vec<(String, String)>,
    /// Sections that can fill up.
    pub fill: Vec<Fill>,
    /// Records in the rings that make no sense.
    pub broken_records: u64,
    /// Sections of kinds that this version does not know.
    pub unknown_sections: Vec<u32>,
    /// What was seen of CUDA.
    pub cuda_use: CudaUse,
}

/// Checks one process's trace.
pub fn check(process: &Process, id: usize) -> Check {
    let copy = &process.trace.copy;
    let mut events = process.events();
    let read = events.by_ref().count() as u64;
    let broken_records = events.damaged();
    let contradictions = contradictions(process, read + broken_records + events.overtaken());
    let damage: Vec<String> = process
        .trace
        .damage
        .iter()
        .map(|d| d.what.clone())
        .collect();
    let losses = process.losses.clone();
    let overwritten = losses.rings.iter().any(|ring| ring.overwritten > 0);
    let verdict = if !damage.is_empty() || !contradictions.is_empty() || broken_records > 0 {
        Verdict::Damaged
    } else if !losses.live_inexact.is_empty() {
        Verdict::Inexact
    } else if overwritten || losses.stacks_dropped > 0 || losses.cold_dropped > 0 {
        Verdict::HistoryLost
    } else {
        Verdict::Whole
    };
    Check {
        view: ProcessView::of(process, id),
        verdict,
        version: process.trace.header().version,
        file_bytes: process.trace.file_len,
        events: copy.seq,
        recovered: copy.recovered,
        moving: copy.moving,
        losses,
        damage,
        contradictions,
        python: process.python_stacks(),
        notes: process
            .notes
            .iter()
            .map(|note| (note.code.clone(), note.text.clone()))
            .collect(),
        // A snapshot is as long as what is in it.
        fill: match process.snapshot {
            Some(_) => Vec::new(),
            None => fill(process),
        },
        broken_records,
        unknown_sections: process.trace.sections().unknown.clone(),
        cuda_use: process.cuda_use(),
    }
}

fn fill(process: &Process) -> Vec<Fill> {
    let copy = &process.trace.copy;
    let sections = process.trace.sections();
    let in_lane = |lane: usize| {
        let of = |entry: &&Record| entry.lane() == lane;
        copy.live.iter().filter(of).count() as u64
    };
    use vramtrace_format::Section::{Cold, Stacks, Totals};
    let room = |section| sections.of(section).rows;
    vec![
        Fill {
            what: "live allocations, device layer and host",
            used: in_lane(0),
            room: sections.live(0).rows,
        },
        Fill {
            what: "live allocations, framework layer",
            used: in_lane(1),
            room: sections.live(1).rows,
        },
        Fill {
            what: "sums by stack",
            used: copy.totals.len() as u64,
            room: room(Totals),
        },
        Fill {
            what: "words of stacks",
            used: copy.control.stack_words,
            room: room(Stacks),
        },
        Fill {
            what: "bytes of names and facts",
            used: copy.control.cold_used,
            room: room(Cold),
        },
    ]
}

/// Live entries, sums by stack and accounts say the same thing three times.
fn contradictions(process: &Process, in_rings: u64) -> Vec<String> {
    let copy = &process.trace.copy;
    let mut found = Vec::new();
    if copy.inexact.is_some() {
        // Parts of different moments need not agree.
        return found;
    }
    let mut entries: BTreeMap<usize, Sum> = BTreeMap::new();
    let mut rows: BTreeMap<usize, Sum> = BTreeMap::new();
    for entry in copy.live.iter().filter(|entry| is_live(entry.op)) {
        let Some(kind) = entry.kind().filter(|kind| kind.counted()) else {
            continue;
        };
        let row = entries
            .entry(account::index(entry.device, kind.layer()))
            .or_default();
        row.bytes = row.bytes.wrapping_add(entry.size);
        row.count += 1;
    }
    for totals in copy.totals.iter().filter(|t| t.key.end == End::Live as u8) {
        let Some(kind) = totals.kind().filter(|kind| kind.counted()) else {
            continue;
        };
        let row = rows
            .entry(account::index(totals.key.device, kind.layer()))
            .or_default();
        row.bytes = row.bytes.wrapping_add(totals.live_bytes);
        row.count = row.count.wrapping_add(totals.live_count);
    }
    for (index, account) in copy.accounts.iter().enumerate() {
        let stated = Sum {
            bytes: account.live_bytes,
            count: account.live_count,
        };
        let (device, layer) = account::of_index(index);
        let of = match device {
            Some(device) => format!("GPU {device}, {} layer", layer.name()),
            None => "host memory".to_owned(),
        };
        for (what, sums) in [("live entries", &entries), ("sums by stack", &rows)] {
            let other = sums.get(&index).copied().unwrap_or_default();
            // Sums that found no row at all are missing in the table by design.
            if other != stated {
                found.push(format!(
                    "{of}: its account says {} bytes in {} allocations are live, its {what} say {} \
                     bytes in {}",
                    stated.bytes, stated.count, other.bytes, other.count
                ));
            }
        }
    }
    let expected: u64 = process
        .losses
        .rings
        .iter()
        .map(|ring| ring.written.min(ring.capacity))
        .fold(0, u64::saturating_add);
    // Two may be missing or more where the writer was at work.
    if !copy.moving && in_rings + 2 < expected {
        found.push(format!(
            "its rings should hold {expected} events and hold {in_rings}"
        ));
    }
    found
}
