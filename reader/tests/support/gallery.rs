//! Traces of every sort that a page is made of: what the browser's test looks at, and what a person looks at who works
//! on the page.

use super::support::{MIB, SECOND, START, TraceFile, allocation, control_event, process};
use super::training::{HOSTILE, Training};
use super::week::{Random, Week};
use std::path::Path;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::layout::Section;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::sampling::{Sampling, probability, step_of};
use vramtrace_format::stacks::NOT_SAMPLED;

/// Writes all of them into a directory; name of the page, and the traces in it.
pub fn write(directory: &Path) -> Vec<(&'static str, Vec<String>)> {
    let mut pages = Vec::new();
    let mut one = |name: &'static str, mut file: TraceFile| {
        let trace = format!("{name}.vrt");
        file.write(directory, &trace);
        pages.push((name, vec![trace]));
    };
    one("training", Training::default().record());
    one("hostile", hostile());
    one("wrapped", wrapped());
    one("empty", empty());
    one("freed", freed());
    one("sampled", sampled());
    one("week", week());
    one("short", Week::random(11, true).record());
    one("ranges", ranges());
    one("many", many());
    let ranks = (0..4).map(|rank| {
        let trace = format!("rank{rank}.vrt");
        of_rank(rank).write(directory, &trace);
        trace
    });
    let ranks = ranks.collect();
    pages.push(("ranks", ranks));
    pages
}

/// Names that would like to be HTML, or to turn the text around.
pub fn hostile() -> TraceFile {
    Training {
        hostile: HOSTILE,
        steps: 6,
        ..Training::default()
    }
    .record()
}

/// More events than the log of the trace has room for.
pub fn wrapped() -> TraceFile {
    Training {
        size: 1 << 20,
        steps: 120,
        blocks: 60,
        ..Training::default()
    }
    .record()
}

/// A week, in a file that has curves of all of it and events of its end.
pub fn week() -> TraceFile {
    let mut week = Week::random(11, true);
    for seed in 12..18 {
        week.stacks.extend(Week::random(seed, false).stacks);
    }
    week.record_in(6 << 20, &mut |_| false)
}

/// A program that has a context and allocates nothing.
pub fn empty() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.at(3 * SECOND).event(Record {
        op: Op::MemInfo as u8,
        size: 80 << 30,
        aux: 79 << 30,
        ..Record::default()
    });
    file.exit();
    file
}

/// A program that frees all that it allocates.
pub fn freed() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    for n in 0..20 {
        let entry = file
            .at(n * SECOND / 10)
            .alloc(Kind::Device, (1 + n) * MIB, stack);
        file.at(n * SECOND / 10 + SECOND / 20).free(&entry);
    }
    file.at(3 * SECOND).exit();
    file
}

/// More allocations than can be drawn one by one: few large ones, and of three stacks many small ones.
pub fn many() -> TraceFile {
    let mut file = TraceFile::new(16 << 20);
    let large = file.program_stack(0x500);
    for n in 0..400 {
        file.at(n * SECOND / 1000).alloc(Kind::Device, MIB, large);
    }
    let small = [0x600, 0x700, 0x800].map(|offset| file.program_stack(offset));
    let mut first = Vec::new();
    for n in 0..2_000u64 {
        for (stack, size) in small.into_iter().zip([40_000, 60_000, 80_000]) {
            let entry = file
                .at(SECOND / 2 + n * SECOND / 200)
                .alloc(Kind::Device, size, stack);
            if stack == small[0] && n < 1_000 {
                first.push(entry);
            }
        }
    }
    for (n, entry) in (0..).zip(&first) {
        file.at(11 * SECOND + n * SECOND / 1000).free(entry);
    }
    file.at(14 * SECOND).exit();
    file
}

/// One process of several: each on a GPU of its own, each a second later than the one before.
pub fn of_rank(rank: u32) -> TraceFile {
    let mut file = Training {
        steps: 20 + 4 * u64::from(rank),
        ..Training::default()
    }
    .record();
    let pid = 5000 + rank;
    let start = START + u64::from(rank) * SECOND;
    let header = file.layout.header(pid, start, 1);
    let header = bytemuck::bytes_of(&header);
    file.bytes()[..header.len()].copy_from_slice(header);
    file.cold(Cold::Process(cold::Process {
        rank: Some(rank),
        ..process(pid, "/opt/app/train")
    }));
    file.cold(Cold::Device(cold::Device {
        index: 0,
        uuid: format!("GPU-{rank}1111111-2222-3333-4444-555555555555"),
        pci: format!("0000:0{}:00.0", rank + 1),
        name: "NVIDIA H100".into(),
        total_bytes: 80 << 30,
    }));
    file
}

/// A storm in which few stacks are taken: by each of four call sites as many bytes.
pub fn sampled() -> TraceFile {
    let mut file = TraceFile::new(4 << 20);
    let mut random = Random(3);
    let stacks: Vec<u32> = (0..4).map(|n| file.program_stack(0x500 + 16 * n)).collect();
    let step = step_of(4 * MIB);
    let mut not_sampled = 0;
    for n in 0..4_000u64 {
        file.time = n * SECOND / 400;
        let size = (1 << (10 + n % 4 * 3)) + 512 * random.below(4);
        let taken = random.unit() < probability(size, step);
        not_sampled += u64::from(!taken);
        let stack = if taken {
            stacks[(n % 4) as usize]
        } else {
            NOT_SAMPLED
        };
        let event = file.event(Record {
            sampled: if taken { step } else { 0 },
            ..allocation(Kind::Async, 0x7f00_0000_0000 + n * (MIB << 1), size, stack)
        });
        if random.below(4) > 0 {
            file.free(&event);
        }
    }
    let at = file.layout.of(Section::Sampling).offset as usize;
    let bytes = &mut file.bytes()[at..][..size_of::<Sampling>()];
    let table: &mut Sampling = bytemuck::from_bytes_mut(bytes);
    table.begin(0, step);
    table.took(200, 300_000);
    (table.head.budget, table.head.not_sampled) = (5_000, not_sampled);
    file.exit();
    file
}

/// Nested NVTX ranges in many threads, with several failures.
pub fn ranges() -> TraceFile {
    let mut file = TraceFile::new(8 << 20);
    let stack = file.program_stack(0x500);
    let words = ["step", "forward", "layer", "attention", "matmul"];
    for (id, text) in (1u32..).zip(words) {
        file.cold(Cold::Range(cold::Range {
            id,
            parent: id - 1,
            domain: String::new(),
            text: text.into(),
            numbers: false,
        }));
    }
    for thread in 0..9 {
        file.cold(Cold::Thread(cold::Name {
            id: 5000 + thread,
            text: format!("worker {thread}"),
        }));
    }
    let mut key = 0x7f00_0000_0000;
    for n in 0..4_000u64 {
        file.time = n * SECOND / 400;
        key += MIB;
        // The innermost ones end; those around them are of a library that did not say so.
        let before = (n.saturating_sub(1) / 90 % 6) as u16;
        if n % 90 == 0 && before > 1 {
            for thread in 5000..5009 {
                file.event(Record {
                    thread,
                    range: before,
                    aux: file.time - SECOND / 5,
                    ..control_event(Op::RangeEnded)
                });
            }
        }
        let event = file.event(Record {
            thread: 5000 + (n % 9) as u32,
            range: ((n / 90) % 6) as u16,
            ..allocation(Kind::Async, key, 4096 * (1 + n % 50), stack)
        });
        if n % 7 > 0 {
            file.time += SECOND / 1000;
            file.free(&event);
        }
        if n % 500 == 499 {
            file.event(Record {
                op: Op::AllocFailed as u8,
                aux: 2,
                ..allocation(Kind::Device, 0, 60 << 30, stack)
            });
        }
    }
    file.exit();
    file
}
