//! A training run, made up: PyTorch's segments and blocks, a pool, arrays of the driver, pinned
//! memory, NVTX ranges and marks, a list that grows, and an allocation that fails.

use super::support::{SECOND, TraceFile, allocation, native};
use super::week::Random;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::stacks::Frame;

pub const MIB: u64 = 1 << 20;
/// Would like to be HTML, or to turn the text around.
pub const HOSTILE: &str =
    "<img src=x onerror=alert(1)></script><!--@@DOCUMENT@@\u{202e}\u{7}$&`${x}";

/// How large a run is, and how its things are called.
pub struct Training {
    pub steps: u64,
    /// Blocks in each step.
    pub blocks: u64,
    /// Stacks that make them.
    pub stacks: u32,
    /// Bytes of the trace.
    pub size: u64,
    /// Put into the names of functions, ranges, marks and threads.
    pub hostile: &'static str,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            steps: 60,
            blocks: 40,
            stacks: 30,
            size: 8 << 20,
            hostile: "",
        }
    }
}

const LAYERS: [&str; 6] = [
    "Embedding.forward",
    "Attention.forward",
    "MLP.forward",
    "LayerNorm.forward",
    "CrossEntropy.forward",
    "Dropout.forward",
];

impl Training {
    fn python(&self, file: &mut TraceFile, id: u32, function: &str, path: &str) {
        file.cold(Cold::PythonCode(cold::PythonCode {
            id,
            function: format!("{function}{}", self.hostile),
            file: path.into(),
            first_line: 10,
        }));
    }

    /// Records it.
    pub fn record(&self) -> TraceFile {
        let mut file = TraceFile::new(self.size);
        let mut random = Random(7);
        self.python(&mut file, 1, "<module>", "/home/me/train.py");
        self.python(&mut file, 2, "train_step", "/home/me/train.py");
        self.python(&mut file, 3, "remember", "/home/me/metrics.py");
        self.python(
            &mut file,
            4,
            "AdamW.step",
            "/opt/venv/lib/python3.12/site-packages/torch/optim/adamw.py",
        );
        for (n, layer) in LAYERS.iter().enumerate() {
            self.python(&mut file, 10 + n as u32, layer, "/home/me/model.py");
        }
        let names = ["epoch 0", "epoch 1", "forward", "backward", "optimizer"];
        for (id, text) in (1..).zip(names) {
            for epoch in [1, 2] {
                let of_epoch = id + if id > 2 { 10 * (epoch - 1) } else { 0 };
                file.cold(Cold::Range(cold::Range {
                    id: of_epoch,
                    parent: if id > 2 { epoch } else { 0 },
                    domain: String::new(),
                    text: format!("{text}{}", self.hostile),
                    numbers: false,
                }));
            }
        }
        file.cold(Cold::Thread(cold::Name {
            id: 4712,
            text: format!("autograd{}", self.hostile),
        }));
        for epoch in 0..2 {
            file.cold(Cold::Mark(cold::Name {
                id: 1 + epoch,
                text: format!("epoch {epoch} begins{}", self.hostile),
            }));
        }
        let py = |code, line| Frame::Python {
            code,
            line,
            entry: false,
        };
        let base = [native(2, 0x10), native(4, 0x40)];
        let stack = |file: &mut TraceFile, inner: &[Frame]| {
            let mut frames = base.to_vec();
            frames.extend_from_slice(inner);
            frames.extend([py(1, 99)]);
            file.stack(&frames)
        };
        let allocator = file.stack(&[
            native(2, 0x10),
            native(3, 0x20),
            native(4, 0x99),
            native(1, 0x50),
        ]);
        let weights: Vec<u32> = (0..6)
            .map(|n| stack(&mut file, &[py(10 + n, 20), py(2, 40)]))
            .collect();
        let activations: Vec<u32> = (0..self.stacks)
            .map(|n| stack(&mut file, &[py(10 + n % 6, 30 + n), py(2, 50)]))
            .collect();
        let optimizer = stack(&mut file, &[py(4, 200), py(2, 70)]);
        let grows = stack(&mut file, &[py(3, 12), py(2, 80)]);
        let workspace = file.program_stack(0x700);
        let in_pool = file.program_stack(0x800);
        let host = file.program_stack(0x900);
        // Segments of 64 MiB in which blocks are put first fit.
        let mut heap = Heap::default();
        let step_ns = 40 * SECOND / self.steps.max(1);
        let mut time = SECOND / 10;
        let mut at = |file: &mut TraceFile, ns: u64| {
            time += ns.max(1);
            file.time = time;
        };
        at(&mut file, 1);
        file.alloc(Kind::Pinned, 64 * MIB, host);
        let mut workspaces = Vec::new();
        for n in 0..6 {
            at(&mut file, 3_000_000);
            workspaces.push(file.alloc(Kind::Device, (8 + n) * MIB, workspace));
        }
        for (n, stack) in weights.iter().enumerate() {
            at(&mut file, 20_000_000);
            let size = (24 + 4 * n as u64) * MIB;
            heap.make(&mut file, allocator, size, *stack, 0);
        }
        let pool = file.alloc_at(Kind::Pool, 0x2000, 32 * MIB, in_pool);
        let half = self.steps / 2;
        for step in 0..self.steps {
            let epoch = u32::from(step >= half);
            if step == 0 || step == half {
                file.event(Record {
                    op: Op::Mark as u8,
                    aux: u64::from(1 + epoch),
                    ..Record::default()
                });
            }
            let range = |of: u16| of + 10 * epoch as u16;
            let piece = (step_ns / (3 * self.blocks + 4)).max(2);
            let mut held = Vec::new();
            for block in 0..self.blocks {
                at(&mut file, piece);
                let nth = step * self.blocks + block;
                let stack = activations[(nth % u64::from(self.stacks)) as usize];
                let size = (1 + random.below(12)) * MIB / 2;
                held.push(heap.make(&mut file, allocator, size, stack, range(3)));
                if block % 5 == 0 {
                    let mut temporary =
                        allocation(Kind::Async, 0x9000_0000 + block * MIB, MIB, in_pool);
                    temporary.aux = pool.key;
                    temporary.range = range(3);
                    let temporary = file.event(temporary);
                    at(&mut file, piece / 3);
                    file.free(&temporary);
                }
            }
            while let Some(block) = held.pop() {
                at(&mut file, piece);
                if held.len() % 4 == 1 {
                    let gradient = heap.make(&mut file, allocator, MIB, activations[0], range(4));
                    heap.drop(&mut file, gradient);
                }
                heap.drop(&mut file, block);
            }
            at(&mut file, piece);
            if step == 0 {
                heap.make(&mut file, allocator, 96 * MIB, optimizer, range(5));
            }
            at(&mut file, piece);
            // Leaks one small block a step.
            heap.make(&mut file, allocator, MIB + 512 * step, grows, range(5));
            if step == half + half / 2 {
                at(&mut file, piece);
                for _ in 0..2 {
                    file.event(Record {
                        op: Op::AllocFailed as u8,
                        aux: 2,
                        ..allocation(Kind::Device, 0, 60 << 30, activations[1])
                    });
                }
            }
            if step == half {
                file.free(&workspaces[2]);
            }
        }
        at(&mut file, SECOND / 2);
        file.event(Record {
            op: Op::MemInfo as u8,
            size: 80 << 30,
            aux: 70 << 30,
            ..Record::default()
        });
        file.exit();
        file
    }
}

/// PyTorch's allocator, as simple as can be: blocks are put first fit into segments.
#[derive(Default)]
struct Heap {
    segments: Vec<(u64, u64)>,
    blocks: std::collections::BTreeMap<u64, u64>,
    next: u64,
}

impl Heap {
    fn make(
        &mut self,
        file: &mut TraceFile,
        allocator: u32,
        size: u64,
        stack: u32,
        range: u16,
    ) -> Record {
        let address = self.place(size).unwrap_or_else(|| {
            let of_segment = size.next_multiple_of(64 * MIB);
            let start = 0x7e00_0000_0000 + self.next;
            self.next += of_segment + 4096 * MIB;
            file.alloc_at(Kind::Device, start, of_segment, allocator);
            self.segments.push((start, of_segment));
            start
        });
        self.blocks.insert(address, size);
        let mut block = allocation(Kind::Torch, address, size, stack);
        block.range = range;
        if range % 10 == 4 {
            block.thread = 4712;
        }
        file.event(block)
    }

    fn place(&self, size: u64) -> Option<u64> {
        for &(start, length) in &self.segments {
            let mut at = start;
            for (&block, &size_of) in self.blocks.range(start..start + length) {
                if block - at >= size {
                    return Some(at);
                }
                at = block + size_of;
            }
            if start + length - at >= size {
                return Some(at);
            }
        }
        None
    }

    fn drop(&mut self, file: &mut TraceFile, block: Record) {
        self.blocks.remove(&block.key);
        file.free(&block);
    }
}
