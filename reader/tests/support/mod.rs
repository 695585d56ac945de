//! Writes real trace files through the format crate, for tests of the reader.

#![allow(dead_code, missing_docs)]

use bytemuck::{Zeroable, cast_slice_mut};
use std::path::{Path, PathBuf};
use vramtrace_format::account::Account;
use vramtrace_format::apply::{Applied, Tables};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::curves::Curves;
use vramtrace_format::history::{Cell, History};
use vramtrace_format::journal::Journal;
use vramtrace_format::layout::{Control, Header, Layout, Section};
use vramtrace_format::live::{LiveIndex, LiveTable};
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_format::ring::Ring;
use vramtrace_format::stacks::{Frame, Interned, StackTable};
use vramtrace_format::totals::{Totals, TotalsIndex, TotalsTable};

/// 2026-01-01 00:00:00 UTC.
pub const START: u64 = 1_767_225_600_000_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const MIB: u64 = 1 << 20;

/// Every section of a trace, as its writer sees it.
pub struct Parts<'a> {
    pub control: &'a mut Control,
    pub journal: &'a mut Journal,
    pub accounts: &'a mut [Account],
    pub cold: &'a mut [u8],
    pub stacks: &'a mut [u64],
    pub index: &'a mut [u32],
    pub totals: &'a mut [Totals],
    pub history: &'a mut [Cell],
    pub live: [&'a mut [Record]; 2],
    pub rings: [&'a mut [Record]; 2],
    pub curves: &'a mut [u64],
    known: &'a mut Known,
}

/// What a writer knows of its tables besides what is in them.
#[derive(Clone)]
pub struct Known {
    live: [LiveIndex; 2],
    totals: TotalsIndex,
}

impl Known {
    pub fn of(layout: &Layout) -> Known {
        let rows = |section| {
            let entry = layout.of(section);
            entry.length as usize / entry.entry_size as usize
        };
        Known {
            live: [Section::LiveDevice, Section::LiveFramework]
                .map(|lane| LiveIndex::for_slots(rows(lane)).unwrap()),
            totals: TotalsIndex::for_rows(rows(Section::Totals)).unwrap(),
        }
    }
}

impl<'a> Parts<'a> {
    pub fn of(file: &'a mut [u8], layout: &Layout, known: &'a mut Known) -> Parts<'a> {
        let mut sections = Vec::new();
        let mut curves = None;
        let (mut rest, mut at) = (file, 0);
        for entry in layout.sections {
            let (_, from) = rest.split_at_mut(entry.offset as usize - at);
            let (section, after) = from.split_at_mut(entry.length as usize);
            if entry.kind == Section::Curves as u32 {
                curves = Some(section);
            } else {
                sections.push(section);
            }
            rest = after;
            at = (entry.offset + entry.length) as usize;
        }
        let mut sections = sections.into_iter();
        let mut next = || sections.next().unwrap();
        Parts {
            control: bytemuck::from_bytes_mut(next()),
            journal: bytemuck::from_bytes_mut(next()),
            accounts: cast_slice_mut(next()),
            cold: next(),
            stacks: cast_slice_mut(next()),
            index: cast_slice_mut(next()),
            totals: cast_slice_mut(next()),
            history: cast_slice_mut(next()),
            live: [cast_slice_mut(next()), cast_slice_mut(next())],
            rings: [cast_slice_mut(next()), cast_slice_mut(next())],
            curves: cast_slice_mut(curves.unwrap()),
            known,
        }
    }

    /// What a recorder does with an event.
    pub fn record(&mut self, event: &Record) -> Applied {
        let lane = event.lane();
        self.ring(lane, event);
        self.apply(event)
    }

    pub fn ring(&mut self, lane: usize, event: &Record) {
        let mut written = self.control.ring_written[lane];
        Ring::new(self.rings[lane], written).write(event, &mut written);
        self.control.ring_written[lane] = written;
    }

    pub fn apply(&mut self, event: &Record) -> Applied {
        self.control.last_time = self.control.last_time.max(event.time);
        let [device, framework] = &mut self.live;
        let [first, second] = &mut self.known.live;
        let rows = self.totals.len();
        Tables {
            journal: self.journal,
            accounts: self.accounts,
            live: [
                LiveTable::indexed(device, first),
                LiveTable::indexed(framework, second),
            ],
            totals: TotalsTable::indexed(self.totals, &mut self.known.totals),
            history: History::new(self.history),
            curves: Curves::new(self.curves, rows),
        }
        .apply(event, None, self.control)
    }

    pub fn cold(&mut self, record: &Cold) {
        self.control.cold_used = cold::append(self.cold, self.control.cold_used, record).unwrap();
    }
}

/// A trace in memory.
#[derive(Clone)]
pub struct TraceFile {
    pub layout: Layout,
    words: Vec<u64>,
    known: Known,
    pub seq: u64,
    pub time: u64,
    next_key: u64,
}

/// A process's cold record for tests.
pub fn process(pid: u32, program: &str) -> cold::Process {
    cold::Process {
        pid,
        parent: 1,
        program: program.into(),
        name: "train".into(),
        host: "node7".into(),
        kernel: "6.1".into(),
        ..cold::Process::default()
    }
}

pub fn module(id: u32, path: &str) -> cold::Module {
    cold::Module {
        id,
        path: path.into(),
        build_id: vec![id as u8; 20],
        bias: 0x7f00_0000_0000 + u64::from(id) * 0x1000_0000,
        ..cold::Module::default()
    }
}

pub fn native(module: u32, offset: u64) -> Frame {
    Frame::Native { module, offset }
}

impl TraceFile {
    /// An empty one of this size, with nothing said about its process.
    pub fn bare(size: u64) -> TraceFile {
        let layout = Layout::for_size(size);
        let mut file = TraceFile {
            words: vec![0; layout.file_size as usize / 8],
            known: Known::of(&layout),
            layout,
            seq: 0,
            time: 0,
            next_key: 0x7f12_0000_0000,
        };
        let header = file.layout.header(4711, START, 1);
        file.bytes()[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        file
    }

    /// The process, device, modules and names that most tests want. Modules: 1 program,
    /// 2 libvramtrace, 3 libcudart, 4 libc10_cuda, 5 libcuda.
    pub fn new(size: u64) -> TraceFile {
        let mut file = TraceFile::bare(size);
        file.cold(Cold::Process(process(4711, "/opt/app/train")));
        file.cold(Cold::Device(cold::Device {
            index: 0,
            uuid: "GPU-11111111-2222-3333-4444-555555555555".into(),
            pci: "0000:01:00.0".into(),
            name: "NVIDIA H100".into(),
            total_bytes: 80 << 30,
        }));
        file.cold(Cold::Context(cold::Context {
            id: 1,
            device: 0,
            handle: 0xabc0,
            primary: true,
        }));
        for (id, path) in [
            (1, "/opt/app/train"),
            (2, "/opt/vramtrace/libvramtrace.so"),
            (3, "/usr/lib/libcudart.so.13"),
            (4, "/opt/torch/lib/libc10_cuda.so"),
            (5, "/usr/lib/libcuda.so.1"),
        ] {
            file.cold(Cold::Module(module(id, path)));
        }
        for (id, text) in [
            (1, "cudaMalloc"),
            (2, "cudaMallocAsync"),
            (3, "cudaMallocHost"),
            (4, "cudaFree"),
        ] {
            file.cold(Cold::Api(cold::Name {
                id,
                text: text.into(),
            }));
        }
        file.cold(Cold::Thread(cold::Name {
            id: 4711,
            text: "train".into(),
        }));
        file
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        cast_slice_mut(&mut self.words)
    }

    pub fn parts(&mut self) -> Parts<'_> {
        let layout = self.layout.clone();
        Parts::of(cast_slice_mut(&mut self.words), &layout, &mut self.known)
    }

    /// Makes it one of those that do without a section: nobody knows its number.
    pub fn forget(&mut self, section: Section) {
        let at = std::mem::offset_of!(Header, sections) + section.position() * 24;
        self.bytes()[at..][..4].copy_from_slice(&0xffff_u32.to_le_bytes());
    }

    pub fn control(&mut self) -> &mut Control {
        self.parts().control
    }

    pub fn cold(&mut self, record: Cold) {
        self.parts().cold(&record);
    }

    pub fn stack(&mut self, frames: &[Frame]) -> u32 {
        let words: Vec<u64> = frames.iter().map(|frame| frame.encode()).collect();
        let parts = self.parts();
        let mut used = parts.control.stack_words;
        let interned = StackTable::new(parts.stacks, parts.index).intern(&words, 0, &mut used);
        parts.control.stack_words = used;
        match interned {
            Interned::Known(id) => id,
            Interned::Added(id) => {
                parts.control.stack_count += 1;
                id
            }
            Interned::Full => panic!("stack table full"),
        }
    }

    /// The usual stack: our hook, the runtime, then the program at `offset`.
    pub fn program_stack(&mut self, offset: u64) -> u32 {
        self.stack(&[
            native(2, 0x10),
            native(3, 0x20),
            native(2, 0x30),
            native(1, offset),
            native(1, 0x1000),
        ])
    }

    pub fn at(&mut self, time: u64) -> &mut TraceFile {
        self.time = time;
        self
    }

    /// Records an event, giving it its place and time.
    pub fn event(&mut self, event: Record) -> Record {
        self.seq += 1;
        let event = Record {
            seq: self.seq,
            time: if event.op == Op::Restore as u8 {
                event.time
            } else {
                self.time
            },
            ..event
        };
        self.parts().record(&event);
        event
    }

    /// An allocation of a kind on GPU 0 (or in host memory) with the usual names.
    pub fn alloc(&mut self, kind: Kind, size: u64, stack: u32) -> Record {
        let key = self.next_key;
        self.next_key += size.next_multiple_of(512).max(512);
        self.alloc_at(kind, key, size, stack)
    }

    pub fn alloc_at(&mut self, kind: Kind, key: u64, size: u64, stack: u32) -> Record {
        let record = allocation(kind, key, size, stack);
        self.event(record)
    }

    pub fn end(&mut self, entry: &Record, op: Op) -> Record {
        self.event(ending(entry, op))
    }

    pub fn free(&mut self, entry: &Record) -> Record {
        self.end(entry, Op::Free)
    }

    pub fn teardown(&mut self) {
        let event = self.event(Record {
            op: Op::TeardownBegins as u8,
            ..Record::default()
        });
        self.control().teardown_seq = event.seq;
    }

    pub fn exit(&mut self) -> &mut TraceFile {
        self.control().clean_exit = 1;
        self
    }

    pub fn write(&mut self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}

pub fn allocation(kind: Kind, key: u64, size: u64, stack: u32) -> Record {
    let (space, api) = match kind {
        Kind::Pinned | Kind::Registered => (Space::Host, 3),
        Kind::Array => (Space::Array, 0),
        Kind::Vmm => (Space::Vmm, 0),
        Kind::Pool => (Space::Pool, 0),
        Kind::Torch => (Space::Torch, 0),
        Kind::Mapping => (Space::Mapping, 0),
        Kind::Reservation => (Space::Reservation, 0),
        Kind::Import => (Space::Import, 0),
        Kind::Async => (Space::Device, 2),
        _ => (Space::Device, 1),
    };
    Record {
        key,
        size,
        stack,
        thread: 4711,
        context: 1,
        api,
        op: Op::Alloc as u8,
        space: space as u8,
        kind: kind as u8,
        device: if space == Space::Host { NO_DEVICE } else { 0 },
        ..Record::default()
    }
}

pub fn ending(entry: &Record, op: Op) -> Record {
    Record {
        op: op as u8,
        api: 4,
        aux: Record::free_aux(entry.seq, entry.api),
        ..*entry
    }
}

/// A zeroed record with an operation, for control events.
pub fn control_event(op: Op) -> Record {
    Record {
        op: op as u8,
        ..Record::zeroed()
    }
}

/// Runs the binary in a directory, with nothing of this user's in its reach.
pub fn vramtrace(args: &[&str], directory: &Path) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(args)
        .current_dir(directory)
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap()
}

/// As [`vramtrace`]: its exit code, and all that it says.
pub fn run(args: &[&str], directory: &Path) -> (i32, String) {
    let out = vramtrace(args, directory);
    let said = String::from_utf8_lossy(&out.stderr);
    let text = String::from_utf8_lossy(&out.stdout);
    (out.status.code().unwrap(), format!("{said}{text}"))
}
