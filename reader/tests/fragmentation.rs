//! Segments, blocks and pools: by hand, and against a model that remembers everything.

#![allow(missing_docs, dead_code)]

mod support;
#[path = "support/week.rs"]
mod week;

use std::collections::BTreeMap;
use support::*;
use vramtrace_format::Op;
use vramtrace_format::record::{Kind, Record};
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::fragmentation::Fragmentation;
use vramtrace_reader::analysis::leaks::Asked;
use vramtrace_reader::analysis::moment::{Found, Past};
use vramtrace_reader::model::Process;
use vramtrace_reader::trace::Trace;
use week::Random;

const BASE: u64 = 0x7f00_0000_0000;

/// The stack of a segment: PyTorch's allocator calls cudaMalloc.
fn allocator(file: &mut TraceFile) -> u32 {
    file.stack(&[
        native(2, 0x10),
        native(3, 0x20),
        native(4, 0x30),
        native(1, 0x500),
    ])
}

fn block(file: &mut TraceFile, address: u64, size: u64, stack: u32) -> Record {
    file.alloc_at(Kind::Torch, address, size, stack)
}

/// At 1 s two segments: one of 1 GiB, of which first all is used, then only 8 MiB at 256 MiB; one of
/// 128 MiB that empties. An expandable one of two mappings, 2 MiB each, with a block over both. A
/// pool that holds 256 MiB and hands out 64. An array that needs more than was asked for.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let (segment, tensor) = (allocator(&mut file), file.program_stack(0x600));
    file.at(SECOND);
    file.alloc_at(Kind::Device, BASE, 1024 * MIB, segment);
    file.alloc_at(Kind::Device, BASE + (4 << 30), 128 * MIB, segment);
    let large = [
        block(&mut file, BASE, 256 * MIB, tensor),
        block(&mut file, BASE + 264 * MIB, 760 * MIB, tensor),
    ];
    block(&mut file, BASE + 256 * MIB, 8 * MIB, tensor);
    let other = block(&mut file, BASE + (4 << 30), 128 * MIB, tensor);
    let reserved = BASE + (8 << 30);
    file.alloc_at(Kind::Reservation, reserved, 1 << 30, segment);
    for n in 0..2 {
        let physical = Record {
            space: 5,
            ..allocation(Kind::Vmm, 1 + n, 2 * MIB, segment)
        };
        file.event(physical);
        let mapping = Record {
            aux: 1 + n,
            ..allocation(Kind::Mapping, reserved + n * 2 * MIB, 2 * MIB, segment)
        };
        file.event(mapping);
    }
    block(&mut file, reserved + MIB, 2 * MIB, tensor);
    file.event(allocation(Kind::Pool, 0x2000, 256 * MIB, tensor));
    let of_pool = Record {
        aux: 0x2000,
        ..allocation(Kind::Async, BASE + (16 << 30), 64 * MIB, tensor)
    };
    file.event(of_pool);
    let array = Record {
        aux: 16384,
        ..allocation(Kind::Array, 0xa0, 10000, tensor)
    };
    file.event(array);
    file.at(9 * SECOND);
    for entry in large.iter().chain([&other]) {
        file.free(entry);
    }
    file.control().last_time = 10 * SECOND;
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let (code, text) = run(&["fragmentation", "a.vrt"], dir.path());
    let expected = "\
train (pid 4711) on node7, traced for 10.0 s, exited

GPU 0 (NVIDIA H100) at 10.0 s: 1.38 GiB taken from the driver
    PyTorch: 1.13 GiB reserved in 3 segments, 10.00 MiB (0.9 %) in 2 blocks, 1.12 GiB free
    largest free block 760.00 MiB, 66.3 % of what is free; 128.00 MiB in 1 segment \
without blocks
    since 1.2 s: reserved |██████████████|  free |▁▁▁▁▁▁▁▁▁▁▁▁▁█|  largest free \
|▁▁▁▁▁▁▁▁▁▁▁▁▁█|
      0x7f0000000000   1.00 GiB |········▂·······················| 1016.00 MiB free, \
largest 760.00 MiB, 1 block
      0x7f0100000000 128.00 MiB |································| 128.00 MiB free, \
largest 128.00 MiB, 0 blocks
      0x7f0200000000   4.00 MiB |········████████████████········| 2.00 MiB free, largest \
1.00 MiB, 1 block, expandable
    pool 0x2000: 256.00 MiB held, 64.00 MiB (25.0 %) in 1 block, 192.00 MiB free
    arrays: 9.77 KiB asked for, 16.00 KiB needed: 6.23 KiB go to rounding in 1 array
    try: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: 1016.00 MiB lie between blocks \
in 1 segment, from which they cannot go back otherwise
    try: max_split_size_mb:21: 1016.00 MiB lie in 1 segment that were made for large \
blocks and are kept by small ones
    try: a lower release threshold of pool 0x2000, or cuMemPoolTrimTo: it holds 192.00 \
MiB unused
    try: garbage_collection_threshold, or torch.cuda.empty_cache(): 128.00 MiB lie in 1 \
segment without blocks

SUMMARY: allocators hold 1.31 GiB without using it; the largest free block of PyTorch is \
760.00 MiB
Next: vramtrace churn a.vrt
  or: vramtrace report -o a.html a.vrt   (all of it to look at, in a browser)
";
    assert_eq!(text, expected);
    assert_eq!(code, 0);
}

#[test]
fn the_map_of_a_segment_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let document = |more: &[&str]| -> serde_json::Value {
        let args = [&["fragmentation", "--json", "a.vrt"], more].concat();
        serde_json::from_str(&run(&args, dir.path()).1).unwrap()
    };
    let map = |document: &serde_json::Value| -> Vec<(u64, u64, String)> {
        let segments = document["fragmentation"][0]["segments"].as_array().unwrap();
        let own = segments
            .iter()
            .find(|one| one["address"] == format!("{BASE:#x}"));
        let blocks = own.unwrap()["blocks"].as_array().unwrap().iter();
        blocks
            .map(|block| {
                let number = |name: &str| block[name].as_u64().unwrap() / MIB;
                (
                    number("offset"),
                    number("bytes"),
                    block["state"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    let tile = |offset, size, state: &str| (offset, size, state.to_owned());
    let end = document(&[]);
    assert_eq!(end["schema"], "vramtrace.fragmentation/1");
    assert_eq!(
        map(&end),
        [
            tile(0, 256, "free"),
            tile(256, 8, "used"),
            tile(264, 760, "free")
        ]
    );
    let full = document(&["--to", "5s"]);
    assert_eq!(
        map(&full),
        [
            tile(0, 256, "used"),
            tile(256, 8, "used"),
            tile(264, 760, "used")
        ]
    );
    assert_eq!(full["fragmentation"][0]["free_bytes"], 2 * MIB);
    let advice: Vec<_> = end["fragmentation"][0]["advice"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["setting"].as_str().unwrap(),
                one["bytes"].as_u64().unwrap() / MIB,
            )
        })
        .collect();
    let expected = [
        ("expandable-segments", 1016),
        ("max-split-size-mb", 1016),
        ("pool-release-threshold", 192),
        ("garbage-collection-threshold", 128),
    ];
    assert_eq!(advice, expected);
    let course = end["fragmentation"][0]["course"].as_array().unwrap();
    let free: Vec<u64> = course
        .iter()
        .map(|point| point["free_bytes"].as_u64().unwrap() / MIB)
        .collect();
    assert_eq!((free.first(), free.last()), (Some(&2), Some(&1146)));
    assert_eq!(
        document(&["--device", "0"])["fragmentation"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn without_allocators_there_is_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    file.alloc(Kind::Device, MIB, stack);
    file.write(dir.path(), "a.vrt");
    let text = run(&["fragmentation", "a.vrt"], dir.path()).1;
    assert!(
        text.contains("SUMMARY: no caching allocator or pool holds memory\n"),
        "{text}"
    );
    TraceFile::new(1 << 20).write(dir.path(), "b.vrt");
    let text = run(&["fragmentation", "b.vrt"], dir.path()).1;
    assert!(text.contains("SUMMARY: no CUDA memory was seen"), "{text}");
}

/// Which 512-byte units of which segment are used.
type Units = BTreeMap<u64, Vec<bool>>;

const UNIT: u64 = 512;
const UNITS: u64 = 40;

/// Segments of 40 units come and go, blocks of some units in them.
fn random(seed: u64, steps: u64) -> (TraceFile, Vec<Units>) {
    let mut random = Random(seed);
    let mut file = TraceFile::new(1 << 20);
    let (segment, tensor) = (allocator(&mut file), file.program_stack(0x600));
    let mut segments: BTreeMap<u64, Record> = BTreeMap::new();
    let mut blocks: BTreeMap<u64, Record> = BTreeMap::new();
    let mut units = Units::new();
    let mut after = vec![units.clone()];
    let set = |units: &mut Units, address: u64, size: u64, used: bool| {
        let (base, own) = units.range_mut(..=address).next_back().unwrap();
        let from = ((address - base) / UNIT) as usize;
        own[from..from + (size / UNIT) as usize].fill(used);
    };
    for time in 1..=steps {
        file.at(time);
        let at = BASE + random.below(4) * UNITS * UNIT;
        let in_it = blocks
            .range(at..at + UNITS * UNIT)
            .next()
            .map(|(at, _)| *at);
        match random.below(10) {
            0 if segments.contains_key(&at) && in_it.is_none() => {
                file.free(&segments.remove(&at).unwrap());
                units.remove(&at);
            }
            1..3 if !segments.contains_key(&at) => {
                let entry = file.alloc_at(Kind::Device, at, UNITS * UNIT, segment);
                segments.insert(at, entry);
                units.insert(at, vec![false; UNITS as usize]);
            }
            3..6 if in_it.is_some() => {
                let entry = blocks.remove(&in_it.unwrap()).unwrap();
                file.free(&entry);
                set(&mut units, entry.key, entry.size, false);
            }
            _ if segments.contains_key(&at) => {
                let (first, wanted) = (random.below(UNITS), 1 + random.below(8));
                let own = &units[&at];
                let last = (first + wanted).min(UNITS);
                if own[first as usize..last as usize].iter().any(|used| *used) {
                    // Nothing happens; as an event it is a mark.
                    file.event(control_event(Op::Mark));
                } else {
                    let (address, size) = (at + first * UNIT, (last - first) * UNIT);
                    let entry = block(&mut file, address, size, tensor);
                    set(&mut units, address, size, true);
                    blocks.insert(address, entry);
                }
            }
            _ => drop(file.event(control_event(Op::Mark))),
        }
        after.push(units.clone());
    }
    (file, after)
}

#[test]
fn every_map_is_what_a_naive_model_says() {
    for seed in 0..10 {
        let steps = [300, 6_000][seed as usize % 2];
        let (mut file, units) = random(seed, steps);
        assert_eq!(file.seq, steps);
        let dir = tempfile::tempdir().unwrap();
        let path = file.write(dir.path(), "t.vrt");
        let process = [Process::read(Trace::open(&path).unwrap())];
        let mut random = Random(seed);
        let mut known = 0;
        for _ in 0..10 {
            let seq = steps - random.below(steps.min(1_000));
            let Ok(past) = Past::of(&process[0], Found::Event(seq)) else {
                continue;
            };
            known += 1;
            let found = Fragmentation::of(
                &process,
                &Filter::default(),
                &[Some(past)],
                &Asked::default(),
                None,
            );
            let expected = &units[seq as usize];
            let Some(device) = found.devices.first() else {
                assert!(expected.is_empty());
                continue;
            };
            let mut maps = Units::new();
            for segment in &device.segments {
                let map = segment.blocks.iter().flat_map(|block| {
                    std::iter::repeat_n(block.used, (block.size / UNIT) as usize)
                });
                maps.insert(segment.address, map.collect());
            }
            assert_eq!(&maps, expected, "seed {seed}, event {seq}");
            // The course ends with this moment, and each of its points was so at some time.
            let sums = |units: &Units| {
                let used = units.values().flatten().filter(|used| **used).count() as u64 * UNIT;
                (units.len() as u64 * UNITS * UNIT, used)
            };
            let brief = |sums: &vramtrace_reader::analysis::fragmentation::Sums| {
                (sums.reserved.bytes, sums.used.bytes)
            };
            for (at, (time, point)) in device.course.iter().enumerate() {
                if point.reserved.count > 0 && at + 1 < device.course.len() {
                    // Right before the first event after this time: as it was after the last.
                    let then = (time - START).min(seq) as usize;
                    assert_eq!(brief(point), sums(&units[then]), "seed {seed}, {time}");
                }
            }
            assert_eq!(brief(&device.course.last().unwrap().1), sums(expected));
        }
        assert!(known > 3, "seed {seed}: {known}");
    }
}
