//! The lines of one device's tree.

use super::{Basis, Beside, Known, Line, Part, Shown};
use crate::analysis::Sum;
use crate::model::Process;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use vramtrace_format::footprint::Footprint;
use vramtrace_format::record::{GRAPH_POOL, Kind, Layer, NO_DEVICE, Op, Record};

/// Gathers one device's memory.
pub(super) struct Tree<'p> {
    process: &'p Process,
    device: u8,
    /// By stack, whose library is looked up once.
    stacks: FxHashMap<u32, Sum>,
    pools: Sum,
    graph_pool: Sum,
    blocks: Sum,
    graph_blocks: Sum,
    tensors: Sum,
    beside: Beside,
}

impl<'p> Tree<'p> {
    pub fn new(process: &'p Process, device: u8) -> Tree<'p> {
        Tree {
            process,
            device,
            stacks: FxHashMap::default(),
            pools: Sum::default(),
            graph_pool: Sum::default(),
            blocks: Sum::default(),
            graph_blocks: Sum::default(),
            tensors: Sum::default(),
            beside: Beside::default(),
        }
    }

    pub fn add(&mut self, entry: &Record) {
        let Some(kind) = entry.kind() else { return };
        let here = entry.device == self.device;
        let is_host = kind.layer() == Layer::Host || entry.device == NO_DEVICE;
        let sum = match kind {
            Kind::Pinned | Kind::Registered => &mut self.beside.pinned,
            Kind::Vmm if is_host => &mut self.beside.host_physical,
            _ if !here => return,
            Kind::Managed => &mut self.beside.managed,
            Kind::Import => &mut self.beside.imports,
            Kind::Mapping | Kind::Reservation => return,
            Kind::Pool if is_graph_pool(entry) => &mut self.graph_pool,
            Kind::Pool => &mut self.pools,
            Kind::Async => &mut self.blocks,
            Kind::Graph => &mut self.graph_blocks,
            Kind::Torch => &mut self.tensors,
            Kind::Device | Kind::Array | Kind::Vmm => self.stacks.entry(entry.stack).or_default(),
        };
        sum.add(entry.size, 1);
    }

    pub fn finish(
        self,
        seq: Option<u64>,
        shown: Option<Shown>,
    ) -> (Vec<Line>, Beside, Vec<String>) {
        let mut notes = Vec::new();
        let mut lines = self.libraries();
        for (part, reserve, used) in [
            (Part::Pools, self.pools, self.blocks),
            (Part::GraphPool, self.graph_pool, self.graph_blocks),
        ] {
            if reserve.bytes > 0 || used.bytes > 0 {
                let mut line = line(part, reserve, Basis::Gauge);
                line.within = used_and_cached(reserve, used);
                lines.push(line);
            }
        }
        let footprint = self.process.trace.footprints.get(usize::from(self.device));
        match footprint.copied().filter(|row| row.used_at_start != 0) {
            Some(row) => {
                let later = seq.map_or(0, |seq| self.growth_after(seq));
                lines.extend(own(row, later, shown, &mut notes));
            }
            None => notes.push("what the context takes was not measured".to_owned()),
        }
        if self.beside.managed.count > 0 && shown.is_some() {
            notes.push(
                "managed memory that is on the device is part of what is unexplained".to_owned(),
            );
        }
        lines.sort_by_key(|line| (std::cmp::Reverse(line.bytes), line.part, line.name.clone()));
        (lines, self.beside, notes)
    }

    fn libraries(&self) -> Vec<Line> {
        let mut lines: BTreeMap<(Part, String, String), Sum> = BTreeMap::new();
        for (stack, sum) in &self.stacks {
            let library = self.process.library_of(*stack);
            let key = match library {
                Some(library) if library.torch_allocator => {
                    (Part::TorchReserved, library.name, library.file)
                }
                Some(library) => (Part::Library, library.name, library.file),
                None => (Part::Library, "unknown".to_owned(), String::new()),
            };
            lines.entry(key).or_default().merge(*sum);
        }
        let named = |((part, name, file), sum): ((Part, String, String), Sum)| Line {
            name,
            file,
            within: match part {
                Part::TorchReserved if self.tensors.count > 0 => used_and_cached(sum, self.tensors),
                _ => Vec::new(),
            },
            ..line(part, sum, Basis::Events)
        };
        lines.into_iter().map(named).collect()
    }

    /// What code grew by after an event.
    fn growth_after(&self, seq: u64) -> i64 {
        let of_code = |op| matches!(op, Op::ModuleLoaded | Op::ModuleUnloaded | Op::CodeGrew);
        self.process
            .events()
            .filter(|event| event.seq > seq && event.device == self.device)
            .filter(|event| event.op().is_some_and(of_code))
            .fold(0i64, |sum, event| sum.wrapping_add(event.aux as i64))
    }
}

fn is_graph_pool(entry: &Record) -> bool {
    entry.key == GRAPH_POOL + u64::from(entry.device)
}

fn line(part: Part, sum: Sum, basis: Basis) -> Line {
    Line {
        part,
        name: String::new(),
        file: String::new(),
        bytes: i64::try_from(sum.bytes).unwrap_or(i64::MAX),
        count: sum.count,
        basis,
        within: Vec::new(),
    }
}

fn used_and_cached(reserve: Sum, used: Sum) -> Vec<Line> {
    let cached = Sum {
        bytes: reserve.bytes.saturating_sub(used.bytes),
        count: 0,
    };
    vec![
        line(Part::InUse, used, Basis::Events),
        line(Part::Cached, cached, Basis::Events),
    ]
}

/// The driver's own memory.
fn own(row: Footprint, later: i64, shown: Option<Shown>, notes: &mut Vec<String>) -> Vec<Line> {
    // What the device used then was not all this process's. The others are known where both the
    // device's and the process's number are.
    let others = shown.and_then(|shown| shown.others);
    if others.is_none() {
        notes.push(
            "the context's line is all that the device used when it was made, other processes included"
                .to_owned(),
        );
    }
    let known = Known {
        used_at_start: row.used_at_start,
        others,
        left: shown.and_then(|shown| shown.left),
    };
    let derived = known.contradicted().is_some();
    if derived {
        notes.push(
            "other processes used more or less of the device when the context was made than later, or the driver gave \
             memory of it back: its line is what nvidia-smi's numbers for the process left at least"
                .to_owned(),
        );
    }
    if row.unmeasured > 0 {
        notes.push(format!(
            "{} of {} calls for which the driver may take memory were not measured: other memory changed \
             meanwhile",
            row.unmeasured,
            row.unmeasured.saturating_add(row.measured)
        ));
    }
    let measured = |part, bytes: i64, count| Line {
        bytes,
        count,
        ..line(part, Sum::default(), Basis::Measured)
    };
    let basis = match derived {
        true => Basis::Derived,
        false => Basis::Measured,
    };
    let context = known.bytes().saturating_add(row.contexts as i64);
    let code = (row.code as i64).wrapping_sub(later);
    // Others who take memory while code is loaded are in what is measured, and then missing here.
    let (context, code) = match derived && context < 0 {
        true => {
            notes.push(
                "what code takes can't be told from the context: other processes' memory changed while it was loaded"
                    .to_owned(),
            );
            (context.saturating_add(code), 0)
        }
        false => (context, code),
    };
    let lines = [
        Line {
            basis,
            ..measured(Part::Context, context, 0)
        },
        measured(Part::Code, code, 0),
        measured(Part::Limits, row.limits as i64, 0),
        measured(Part::Streams, row.streams as i64, 0),
    ];
    lines.into_iter().filter(|line| line.bytes != 0).collect()
}
