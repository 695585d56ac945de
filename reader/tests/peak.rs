//! What was held at the peak: by hand, and against a model that remembers everything.

#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use support::*;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Layer, NO_DEVICE, Op, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::leaks::By;
use vramtrace_reader::analysis::peak::{Peaks, peaks};
use vramtrace_reader::analysis::{Filter, Sum};
use vramtrace_reader::model::{NoNames, Process, Unhidden};
use vramtrace_reader::trace::Trace;

/// What a stack held in a kind of memory: kind, offset of the stack's own frame.
type Held = BTreeMap<(u8, u64), Sum>;

fn found(file: &mut TraceFile, by: By, filter: &Filter, top: Option<usize>) -> Peaks {
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    let process = Process::read(Trace::open(&path).unwrap());
    peaks(
        &[process],
        by,
        filter,
        Unhidden::default(),
        top,
        &mut NoNames,
    )
}

/// 6 MiB of `a` at 1 s, 4 of `b` at 2 s, 1 of `a` freed at 3 s; at 4 s 2 pinned; all freed but 1
/// of `b`; 5 async blocks of 1 MiB, never above; at the end a burst of events that fills the ring
/// over and over.
fn story(wrap: bool) -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let (a, b) = (file.program_stack(0x500), file.program_stack(0x600));
    file.at(SECOND);
    let of_a: Vec<Record> = (0..6).map(|_| file.alloc(Kind::Device, MIB, a)).collect();
    file.at(2 * SECOND);
    let of_b: Vec<Record> = (0..4).map(|_| file.alloc(Kind::Managed, MIB, b)).collect();
    file.at(3 * SECOND).free(&of_a[0]);
    let pinned = file.at(4 * SECOND).alloc(Kind::Pinned, 2 * MIB, b);
    file.at(5 * SECOND).free(&pinned);
    for entry in of_a[1..].iter().chain(&of_b[1..]) {
        file.free(entry);
    }
    file.at(6 * SECOND);
    for _ in 0..5 {
        file.alloc(Kind::Async, MIB, a);
    }
    if wrap {
        let events = file.parts().rings.each_ref().map(|ring| ring.len());
        for n in 0..3 * events[0].max(events[1]) {
            let kind = [Kind::Device, Kind::Async][n % 2];
            let entry = file.alloc(kind, 512, b);
            file.free(&entry);
        }
    }
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    story(false).write(dir.path(), "a.vrt");
    let expected = "\
train (pid 4711) on node7, traced for 6.0 s, exited

GPU 0 (NVIDIA H100), device layer: 10.00 MiB in 10 allocations at its peak, at 2.0 s

6.00 MiB in 6 allocations (60.0 %)
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    allocated here first at 1.0 s, last at 1.0 s
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

4.00 MiB in 4 allocations (40.0 %)
    cudaMalloc · managed memory (device layer) · GPU 0 (NVIDIA H100)
    allocated here first at 2.0 s, last at 2.0 s
    #0  ??  (train+0x600)
    #1  ??  (train+0x1000)

GPU 0 (NVIDIA H100), framework layer: 5.00 MiB in 5 allocations at its peak, at 6.0 s

5.00 MiB in 5 allocations (100.0 %)
    cudaMallocAsync · async memory (framework layer) · GPU 0 (NVIDIA H100)
    allocated here first at 6.0 s, last at 6.0 s
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

page-locked host memory: 2.00 MiB in 1 allocation at its peak, at 4.0 s

2.00 MiB in 1 allocation (100.0 %)
    cudaMallocHost · pinned host memory
    allocated here first at 4.0 s, last at 4.0 s
    #0  ??  (train+0x600)
    #1  ??  (train+0x1000)

note: /opt/app/train is not on this machine; its functions are not named. Put the file, or its \
debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
0101010101010101010101010101010101010101)
SUMMARY: largest peak 10.00 MiB in 10 allocations, GPU 0 (NVIDIA H100), device layer, at 2.0 s
Next: vramtrace leaks --to @1767225602000000000 a.vrt
";
    let (code, text) = run(&["peak", "a.vrt"], dir.path());
    assert_eq!(text, expected);
    assert_eq!(code, 0);
    // What it says comes next says the same of that moment.
    let at = ["leaks", "--to", "@1767225602000000000", "--json", "a.vrt"];
    let document: serde_json::Value = serde_json::from_str(&run(&at, dir.path()).1).unwrap();
    assert_eq!(document["total"]["gpu"]["bytes"], 10 * MIB);
}

#[test]
fn a_ring_that_has_lost_it_changes_nothing_but_the_next_command() {
    let dir = tempfile::tempdir().unwrap();
    story(true).write(dir.path(), "a.vrt");
    let at_peak = ["leaks", "--to", "peak", "a.vrt"];
    assert_eq!(vramtrace(&at_peak, dir.path()).status.code(), Some(2));
    let (code, text) = run(&["peak", "--json", "a.vrt"], dir.path());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &document["complete"]), (0, &true.into()));
    let expected = serde_json::json!({
        "process": 0, "device": 0, "layer": "device",
        "at_ns": START + 2 * SECOND, "bytes": 10 * MIB, "adds_up": true,
        "stacks": {"bytes": 10 * MIB, "count": 10},
        "total": {"bytes": 10 * MIB, "count": 10},
        "groups": [
            {
                "process": 0, "device": 0, "layer": "device", "kind": "device",
                "api": "cudaMalloc", "bytes": 6 * MIB, "count": 6,
                "first_ever_ns": START + SECOND, "last_ever_ns": START + SECOND,
                "stack": [frame(0x500), frame(0x1000)],
                "stack_truncated": false, "stack_missing": null,
            },
            {
                "process": 0, "device": 0, "layer": "device", "kind": "managed",
                "api": "cudaMalloc", "bytes": 4 * MIB, "count": 4,
                "first_ever_ns": START + 2 * SECOND, "last_ever_ns": START + 2 * SECOND,
                "stack": [frame(0x600), frame(0x1000)],
                "stack_truncated": false, "stack_missing": null,
            },
        ],
        "omitted": {"groups": 0, "bytes": 0, "count": 0},
    });
    assert_eq!(document["peaks"][0], expected);
    assert_eq!(document["schema"], "vramtrace.peak/1");
    assert_eq!(document["peaks"].as_array().unwrap().len(), 3);
    let (_, text) = run(&["peak", "a.vrt"], dir.path());
    assert!(text.ends_with("Next: vramtrace timeline a.vrt\n"), "{text}");
}

fn frame(offset: u64) -> serde_json::Value {
    serde_json::json!({
        "language": "native", "function": null, "file": null, "line": null,
        "module": "/opt/app/train", "offset": offset,
    })
}

#[test]
fn parts_of_it() {
    let mut file = story(true);
    let values = |peaks: &Peaks| -> Vec<(String, u64)> {
        let groups = peaks.peaks.iter().flat_map(|peak| &peak.groups);
        groups
            .map(|placed| (placed.group.value.clone().unwrap(), placed.group.bytes))
            .collect()
    };
    let device = Filter {
        layers: vec![Layer::Device],
        ..Filter::default()
    };
    for (by, expected) in [
        (By::Kind, &[("device", 6), ("managed", 4)][..]),
        (By::Library, &[("train", 10)]),
        (By::Python, &[("no Python frame", 10)]),
        (By::Device, &[("GPU 0", 10)]),
        (By::Rank, &[("no rank", 10)]),
        (By::Layer, &[("device", 10)]),
        (By::Api, &[("cudaMalloc", 10)]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|(value, mib)| ((*value).to_owned(), mib * MIB))
            .collect();
        let peaks = found(&mut file, by, &device, None);
        assert_eq!(values(&peaks), expected, "{by:?}");
    }
    // A kind is a part of its layer's peak, and not a peak of its own.
    let managed = Filter {
        kinds: vec![Kind::Managed],
        ..Filter::default()
    };
    let peaks = found(&mut file, By::Kind, &managed, None);
    assert_eq!(values(&peaks), [("managed".to_owned(), 4 * MIB)]);
    assert_eq!(peaks.peaks[0].bytes, 10 * MIB);
    assert!(peaks.complete && peaks.peaks[0].adds_up());
    let peaks = found(&mut file, By::Stack, &device, Some(1));
    let peak = &peaks.peaks[0];
    assert_eq!((peak.groups.len(), peak.omitted_groups), (1, 1));
    assert_eq!((peak.omitted.bytes, peak.omitted.count), (4 * MIB, 4));
}

#[test]
fn what_sums_by_stack_do_not_know_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    story(false).write(dir.path(), "a.vrt");
    for by in ["range", "thread", "stream", "context"] {
        let out = vramtrace(&["peak", "--by", by, "a.vrt"], dir.path());
        assert_eq!(out.status.code(), Some(2), "{by}");
        let said = String::from_utf8(out.stderr).unwrap();
        let expected = format!(
            "vramtrace: --by {by}: peaks are kept by stack, kind and device, not by {by}; where \
             the event log reaches back to the peak, `vramtrace leaks --to peak --by {by}` knows \
             it\n"
        );
        assert_eq!(said, expected);
    }
    let out = vramtrace(&["peak", "--device", "7", "a.vrt"], dir.path());
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn what_does_not_add_up_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = story(false);
    file.parts().accounts[0].peak_bytes += 512;
    file.write(dir.path(), "a.vrt");
    let (_, text) = run(&["peak", "a.vrt"], dir.path());
    let why = "not exact: peak-does-not-add-up: GPU 0, device layer of pid 4711: its peak was \
               10486272 bytes, its stacks say that they held 10485760 then\n";
    assert!(text.contains(why), "{text}");
    assert!(
        text.ends_with("(not exact)\nNext: vramtrace check a.vrt\n"),
        "{text}"
    );
    let (_, text) = run(&["peak", "--json", "--layer", "host", "a.vrt"], dir.path());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["complete"], true);
}

#[test]
fn each_process_has_its_own_peaks() {
    let dir = tempfile::tempdir().unwrap();
    story(false).write(dir.path(), "a.vrt");
    let mut other = TraceFile::new(1 << 20);
    other.cold(Cold::Process(cold::Process {
        rank: Some(1),
        ..process(4712, "/opt/app/train")
    }));
    let stack = other.program_stack(0x700);
    other.at(9 * SECOND).alloc(Kind::Device, 64 * MIB, stack);
    other.exit().write(dir.path(), "b.vrt");
    let (_, text) = run(&["peak", "."], dir.path());
    let summary = "SUMMARY: largest peak 64.00 MiB in 1 allocation, GPU 0 (NVIDIA H100), device \
                   layer, pid 4712, rank 1, at 9.0 s\n";
    assert!(text.contains(summary), "{text}");
    let (_, text) = run(&["peak", "--json", "--layer", "device", "."], dir.path());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let peaks = document["peaks"].as_array().unwrap();
    let bytes: Vec<_> = peaks.iter().map(|peak| &peak["bytes"]).collect();
    assert_eq!(bytes, [10 * MIB, 64 * MIB]);
    assert_eq!(
        (&peaks[1]["process"], &peaks[1]["device"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn no_memory_no_peak() {
    let dir = tempfile::tempdir().unwrap();
    TraceFile::new(1 << 20).exit().write(dir.path(), "a.vrt");
    let (code, text) = run(&["peak", "a.vrt"], dir.path());
    assert_eq!(code, 0);
    assert!(text.contains("SUMMARY: no CUDA memory was seen"), "{text}");
}

/// Peaks as a naive observer writes them down: bytes, time, and who held them; by device
/// ([`NO_DEVICE`] for the host) and layer.
type Model = BTreeMap<(u8, Layer), (u64, u64, Held)>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// A program of `length` events on two devices and the host.
fn random(seed: u64, length: u64) -> (TraceFile, Model) {
    const OFFSETS: [u64; 5] = [0x500, 0x510, 0x520, 0x530, 0x540];
    let mut random = Random(seed);
    let mut file = TraceFile::new(1 << 20);
    let stacks = OFFSETS.map(|offset| file.program_stack(offset));
    let offset = |stack: u32| OFFSETS[stacks.iter().position(|&own| own == stack).unwrap()];
    let kinds = [
        Kind::Device,
        Kind::Managed,
        Kind::Vmm,
        Kind::Pool,
        Kind::Async,
        Kind::Torch,
        Kind::Pinned,
        Kind::Mapping,
    ];
    let mut entries: Vec<Record> = Vec::new();
    let mut model = Model::new();
    let mut key = 0x1000;
    for time in 1..=length {
        file.at(time);
        // Seldom many at a time, so that peaks lie at any distance from the end.
        let wanted = [3, 40, 8, 25][(time * 4 / (length + 1)) as usize];
        let chosen = (!entries.is_empty()).then(|| random.below(entries.len() as u64) as usize);
        let grow = random.below(2 * wanted) >= entries.len() as u64;
        match chosen {
            Some(at) if !grow => {
                let how = [
                    Op::Free,
                    Op::FreeUnseen,
                    Op::EndByContext,
                    Op::EndByReset,
                    Op::FreeInTeardown,
                ];
                let entry = entries.swap_remove(at);
                let op = how[random.below(5) as usize];
                file.end(&entry, op);
                // A free that fails: the entry is back under a new number.
                if op == Op::Free && random.below(3) == 0 {
                    note(&mut model, &entries, time, offset);
                    entries.push(file.event(Record {
                        op: Op::Restore as u8,
                        ..entry
                    }));
                }
            }
            Some(at) if entries[at].kind() == Some(Kind::Pool) => {
                let old = entries[at];
                let size = 512 + random.below(4000);
                file.event(Record {
                    op: Op::Resize as u8,
                    size,
                    aux: old.size,
                    ..old
                });
                entries[at].size = size;
            }
            _ => {
                key += 0x1000;
                let kind = kinds[random.below(8) as usize];
                let stack = stacks[random.below(5) as usize];
                let mut entry = allocation(kind, key, random.below(2000), stack);
                if entry.device != NO_DEVICE {
                    entry.device = random.below(2) as u8;
                }
                entries.push(file.event(entry));
            }
        }
        note(&mut model, &entries, time, offset);
    }
    file.exit();
    (file, model)
}

/// Writes down every peak that is new.
fn note(model: &mut Model, entries: &[Record], time: u64, offset: impl Fn(u32) -> u64) {
    let mut now: BTreeMap<(u8, Layer), (u64, Held)> = BTreeMap::new();
    for entry in entries {
        let kind = entry.kind().unwrap();
        if kind.counted() {
            let (bytes, held) = now.entry((entry.device, kind.layer())).or_default();
            *bytes += entry.size;
            let by = held.entry((kind as u8, offset(entry.stack))).or_default();
            by.add(entry.size, 1);
        }
    }
    for (account, (bytes, held)) in now {
        if bytes > model.get(&account).map_or(0, |(most, ..)| *most) {
            model.insert(account, (bytes, time, held));
        }
    }
}

#[test]
fn every_peak_is_as_it_was() {
    let mut forgotten = 0;
    for seed in 0..12 {
        let (mut file, expected) = random(seed, 12_000);
        let peaks = found(&mut file, By::Stack, &Filter::default(), None);
        assert_eq!(peaks.incomplete_because, [""; 0], "seed {seed}");
        forgotten += u64::from(!peaks.in_event_log);
        let mut model = Model::new();
        for peak in &peaks.peaks {
            let mut held = Held::new();
            for placed in &peak.groups {
                let group = &placed.group;
                let Frame::Native { offset, .. } = group.stack.frames[0] else {
                    panic!("{group:?}");
                };
                let by = held.entry((group.kind.unwrap() as u8, offset)).or_default();
                by.add(group.bytes, group.count);
            }
            let device = match peak.device {
                Some(id) => peaks.devices[id].index,
                None => NO_DEVICE,
            };
            assert_eq!(peak.stacks, peak.asked);
            let value = (peak.bytes, peak.at_ns - START, held);
            let other = model.insert((device, peak.layer), value);
            assert_eq!(other, None);
        }
        assert_eq!(model, expected, "seed {seed}");
        assert_eq!(model.len(), 5, "seed {seed}");
    }
    assert!(forgotten >= 6, "{forgotten}: the event log was too long");
}

fn run(args: &[&str], directory: &Path) -> (i32, String) {
    let out = vramtrace(args, directory);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    (
        out.status.code().unwrap(),
        String::from_utf8(out.stdout).unwrap(),
    )
}
