//! Traces to export: a story that is told by hand, hostile names, and random programs.

use crate::support::*;
use std::collections::BTreeMap;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record};
use vramtrace_format::stacks::Frame;

/// 6 MiB of `a` at 1 s, 4 managed of `b` at 2 s, 2 pinned at 3 s; at 4 s half of `a` is freed; at 5 s
/// a mark, then 3 MiB of pool blocks of a Python function and their pool's reserve.
pub fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let (a, b) = (file.program_stack(0x500), file.program_stack(0x600));
    file.cold(Cold::PythonCode(cold::PythonCode {
        id: 1,
        file: "/opt/app/model.py".into(),
        function: "Model.forward".into(),
        first_line: 10,
    }));
    file.cold(Cold::Range(cold::Range {
        id: 9,
        text: "epoch 1".into(),
        ..cold::Range::default()
    }));
    file.cold(Cold::Mark(cold::Name {
        id: 9,
        text: "epoch 1".into(),
    }));
    let python = file.stack(&[Frame::Python {
        code: 1,
        line: 12,
        entry: true,
    }]);
    file.at(SECOND);
    let of_a: Vec<Record> = (0..6).map(|_| file.alloc(Kind::Device, MIB, a)).collect();
    file.at(2 * SECOND);
    for _ in 0..4 {
        file.alloc(Kind::Managed, MIB, b);
    }
    file.at(3 * SECOND).alloc(Kind::Pinned, 2 * MIB, b);
    file.at(4 * SECOND);
    for entry in &of_a[..3] {
        file.free(entry);
    }
    file.at(5 * SECOND).event(Record {
        aux: 9,
        ..control_event(Op::Mark)
    });
    let pool = allocation(Kind::Pool, 7, 8 * MIB, 0);
    file.event(pool);
    for _ in 0..3 {
        let mut block = allocation(Kind::Async, 0x7e00_0000_0000 + file.seq * MIB, MIB, python);
        block.aux = 7;
        block.range = 9;
        file.event(block);
    }
    file.at(6 * SECOND).exit();
    file
}

/// A leak of 64 KiB a second for 200 seconds; beside it weights, a cache that is full after 20 seconds, and what comes and
/// goes with each second.
pub fn growing() -> TraceFile {
    let mut file = TraceFile::new(4 << 20);
    let stacks = [0x500, 0x600, 0x700, 0x800].map(|at| file.program_stack(at));
    let [leak, weights, cache, steps] = stacks;
    for _ in 0..8 {
        file.alloc(Kind::Device, 4 * MIB, weights);
    }
    for second in 0..200u64 {
        file.at((second + 1) * SECOND);
        file.alloc(Kind::Device, 64 << 10, leak);
        if second < 20 {
            file.alloc(Kind::Device, MIB, cache);
        }
        let buffer = file.alloc(Kind::Device, 16 * MIB, steps);
        file.at((second + 1) * SECOND + SECOND / 2).free(&buffer);
    }
    file.exit();
    file
}

/// Names that mean something in some format, or are no names at all.
pub const HOSTILE: &[&str] = &[
    "</title><script>alert(1)</script>",
    "]]></script><svg onload=alert(1)>",
    "a;b;c 99999\nd;e 1",
    "\u{0}\u{1}\u{b}\u{1b}[31m\u{202e}",
    "\"quoted\", 'comma'\r\n",
    "\u{ffff}\u{fffe}\u{feff}",
    "",
    "=cmd|' /C calc'!A0",
    "{\"json\": [1}",
    "operator<<(int&&, \"x\")",
    "漢字 → 🦀",
];

/// One allocation from each hostile function.
pub fn hostile() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    for (id, name) in HOSTILE.iter().enumerate() {
        let id = id as u32 + 1;
        file.cold(Cold::PythonCode(cold::PythonCode {
            id,
            file: format!("/x/{name}"),
            function: (*name).into(),
            first_line: 1,
        }));
        file.cold(Cold::Range(cold::Range {
            id,
            text: (*name).into(),
            ..cold::Range::default()
        }));
        file.cold(Cold::Mark(cold::Name {
            id,
            text: (*name).into(),
        }));
        file.cold(Cold::Thread(cold::Name {
            id: 5000 + id,
            text: (*name).into(),
        }));
        let stack = file.stack(&[Frame::Python {
            code: id,
            line: id,
            entry: true,
        }]);
        file.at(u64::from(id) * SECOND);
        let mut entry = allocation(Kind::Device, 0x7000_0000 + u64::from(id) * MIB, 1000, stack);
        entry.thread = 5000 + id;
        entry.range = id as u16;
        file.event(entry);
        file.event(Record {
            aux: id.into(),
            thread: 5000 + id,
            ..control_event(Op::Mark)
        });
    }
    file.exit();
    file
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// A program of so many events on two devices and the host, with every kind of memory: PyTorch's
/// blocks lie in segments of its allocator, pool blocks in pools, mappings show physical memory.
/// Every second one ends in a teardown.
pub fn random(seed: u64, size: u64, length: u64) -> TraceFile {
    let mut random = Random(seed);
    let mut file = TraceFile::new(size);
    file.cold(Cold::Device(cold::Device {
        index: 1,
        uuid: "GPU-22222222-2222-3333-4444-555555555555".into(),
        name: "NVIDIA H100".into(),
        total_bytes: 80 << 30,
        ..cold::Device::default()
    }));
    let stacks: Vec<u32> = (0..6).map(|n| file.program_stack(0x500 + 16 * n)).collect();
    let allocator = file.stack(&[native(2, 0x10), native(3, 9), native(4, 9), native(1, 3)]);
    let mut entries: Vec<Record> = Vec::new();
    // Free places of a size in segments, by device.
    let mut places: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    const BLOCK: u64 = 4096;
    for device in 0..2u8 {
        let mut pool = allocation(Kind::Pool, 7 + u64::from(device), 1 << 20, 0);
        pool.device = device;
        entries.push(file.event(pool));
    }
    let mut key = 0x1_0000_0000;
    for step in 1..=length {
        file.at(step * 1_000_000);
        if seed.is_multiple_of(2) && step == length - length / 20 {
            file.teardown();
        }
        let tearing = seed.is_multiple_of(2) && step > length - length / 20;
        let wanted = [3, 60, 20, 40][(step * 4 / (length + 1)) as usize];
        let grow = !tearing && random.below(2 * wanted) >= entries.len() as u64;
        let chosen = (!entries.is_empty()).then(|| random.below(entries.len() as u64) as usize);
        match chosen {
            Some(at) if !grow => {
                let entry = entries[at];
                let is_segment = entry.stack == allocator;
                let in_use = |block: &Record| {
                    block.kind() == Some(Kind::Torch)
                        && (entry.key..entry.key + entry.size).contains(&block.key)
                };
                if is_segment && entries.iter().any(in_use) || entry.kind() == Some(Kind::Pool) {
                    if entry.kind() == Some(Kind::Pool) {
                        let size = (1 << 20) + random.below(1 << 16);
                        file.event(Record {
                            op: Op::Resize as u8,
                            size,
                            aux: entry.size,
                            ..entry
                        });
                        entries[at].size = size;
                    }
                    continue;
                }
                entries.swap_remove(at);
                if is_segment {
                    let places = places.entry(entry.device).or_default();
                    places.retain(|place| !(entry.key..entry.key + entry.size).contains(place));
                } else if entry.kind() == Some(Kind::Torch) {
                    places.entry(entry.device).or_default().push(entry.key);
                }
                let op = match random.below(12) {
                    _ if tearing => Op::FreeInTeardown,
                    0 => Op::FreeUnseen,
                    1 if entry.kind() != Some(Kind::Torch) => Op::EndByContext,
                    2 if entry.kind() != Some(Kind::Torch) => Op::EndByReset,
                    _ => Op::Free,
                };
                file.end(&entry, op);
                if op == Op::Free && entry.kind() != Some(Kind::Torch) && random.below(4) == 0 {
                    entries.push(file.event(Record {
                        op: Op::Restore as u8,
                        ..entry
                    }));
                }
            }
            _ => {
                key += 0x10_0000;
                let stack = stacks[random.below(6) as usize];
                let device = random.below(2) as u8;
                let size = 1 + random.below(9000);
                let mut entry = match random.below(10) {
                    0 => allocation(Kind::Managed, key, size, stack),
                    1 => allocation(Kind::Vmm, key >> 20, size, stack),
                    2 => allocation(Kind::Pinned, key, size, stack),
                    3 => allocation(Kind::Array, key, size, stack),
                    4 => Record {
                        aux: 7 + u64::from(device),
                        ..allocation(Kind::Async, key, size, stack)
                    },
                    5 => allocation(Kind::Import, key, size, stack),
                    6 => {
                        let blocks = 4 + random.below(8);
                        let free = (0..blocks).map(|n| key + n * BLOCK);
                        places.entry(device).or_default().extend(free);
                        allocation(Kind::Device, key, blocks * BLOCK, allocator)
                    }
                    7 | 8 => match places.entry(device).or_default().pop() {
                        Some(place) => {
                            let size = 512 * (1 + random.below(8));
                            allocation(Kind::Torch, place, size, stack)
                        }
                        None => continue,
                    },
                    _ => allocation(Kind::Device, key, size, stack),
                };
                if entry.device != NO_DEVICE {
                    entry.device = device;
                }
                entry.thread = 4711 + random.below(3) as u32;
                entries.push(file.event(entry));
            }
        }
    }
    file.exit();
    file
}
