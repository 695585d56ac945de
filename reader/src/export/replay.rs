//! One GPU's memory as PyTorch's viewers want it told: segments with blocks in them, changed by one
//! event after the other.
//!
//! The viewers go back from the last state, event by event, and give up where a block lies in no
//! segment. So every block has one here: PyTorch's blocks the allocator's segment, everything else
//! one of its own, and a block whose segment goes before it does is given its own. Mapped physical
//! memory is a segment where it is mapped. Host memory is not in it.

use crate::analysis::lifetimes::{Lifetime, Lifetimes};
use crate::model::Process;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use vramtrace_format::record::{Kind, Layer, Op, Record};

/// Memory without an address lies from here on: above all addresses that are, and below 2^53, above
/// which JavaScript knows no integers.
const NO_ADDRESS: u64 = 1 << 52;

/// A stack of the process, and the API function that was called there.
pub type Site = (u32, u16);

/// A step of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub action: Action,
    /// Where.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Stream id.
    pub stream: u32,
    /// Event time.
    pub time: u64,
    /// Who did it.
    pub site: Site,
}

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A block is handed out.
    Alloc,
    /// It is taken back.
    Free,
    /// A segment is allocated.
    SegmentAlloc,
    /// It is freed.
    SegmentFree,
    /// Memory is mapped.
    SegmentMap,
    /// It is unmapped.
    SegmentUnmap,
    /// An allocation failed for lack of memory; the address is what was free.
    OutOfMemory,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Bytes.
    pub size: u64,
    /// Stream id.
    pub stream: u32,
    /// Who made it.
    pub site: Site,
    /// What it is.
    pub of: SegmentOf,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentOf {
    /// A caching allocator's.
    Cache,
    /// A block's own.
    Block,
    /// Mapped memory; whether it is a block as a whole, and of which physical allocation.
    Mapped(bool, u64),
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes.
    pub size: u64,
    /// Stream id.
    pub stream: u32,
    /// Who asked for it.
    pub site: Site,
    /// Its lifetime's number; 0 for one that mapped memory is as a whole.
    seq: u64,
    /// Whether PyTorch's allocator handed it out.
    torch: bool,
}

/// The memory of one GPU.
pub struct Replay<'p> {
    process: &'p Process,
    device: u8,
    /// Whether PyTorch's blocks are known, so that its segments are told from other memory.
    torch: bool,
    torch_stacks: FxHashMap<u32, bool>,
    /// By address.
    pub segments: BTreeMap<u64, Segment>,
    /// By address.
    pub blocks: BTreeMap<u64, Block>,
    /// Physical allocations that are mapped somewhere, and who made those that are there.
    mapped: FxHashMap<u64, u64>,
    physical: FxHashMap<u64, Lifetime>,
    /// Where memory without an address was put, by kind and key.
    placed: FxHashMap<(u8, u64), u64>,
    next_place: u64,
    kinds: Vec<Kind>,
    free_bytes: u64,
    /// Time of the last step.
    now: u64,
}

impl<'p> Replay<'p> {
    /// Nothing is there yet. `kinds`: only these, if there are any.
    pub fn of(process: &'p Process, device: u8, kinds: &[Kind]) -> Replay<'p> {
        let is_block = |kind: u8| kind == Kind::Torch as u8;
        Replay {
            process,
            device,
            torch: process.totals().iter().any(|row| is_block(row.key.kind)),
            torch_stacks: FxHashMap::default(),
            segments: BTreeMap::new(),
            blocks: BTreeMap::new(),
            mapped: FxHashMap::default(),
            physical: FxHashMap::default(),
            placed: FxHashMap::default(),
            next_place: NO_ADDRESS,
            kinds: kinds.to_vec(),
            free_bytes: 0,
            now: 0,
        }
    }

    /// Puts in what was there before the event log begins.
    pub fn begin(&mut self, lifetimes: &Lifetimes<'p>) {
        // Segments first, whatever the order in which they were made.
        let mut blocks = Vec::new();
        let mut mappings = Vec::new();
        for lifetime in lifetimes.iter(self.process) {
            if lifetime.logged || lifetime.end.is_some_and(|end| end.seq == 0) {
                continue;
            }
            match lifetime.what.kind() {
                Some(Kind::Torch) => blocks.push(lifetime),
                Some(Kind::Mapping) => mappings.push(lifetime),
                _ => self.alloc(&lifetime, &mut |_| {}),
            }
        }
        for lifetime in mappings.iter().chain(&blocks) {
            self.alloc(lifetime, &mut |_| {});
        }
    }

    /// One event; `step` hears of what it means. `lifetime` is that of the allocation that it
    /// begins or ends.
    pub fn event(&mut self, event: &Record, seq: u64, step: &mut dyn FnMut(Step)) {
        if event.device != self.device {
            return;
        }
        let stream = event.stream;
        // What a failed free brings back has the time of its allocation, however long ago that was.
        self.now = self.now.max(event.time);
        let time = self.now;
        match event.op() {
            Some(Op::Alloc | Op::Restore) => {
                let lifetime = Lifetime {
                    seq,
                    what: *event,
                    begun: None,
                    end: None,
                    live: true,
                    logged: true,
                };
                self.alloc(&lifetime, &mut |own| {
                    step(Step {
                        time,
                        stream,
                        ..own
                    })
                });
            }
            Some(op) if op.ends_allocation() => {
                self.end(event, seq, &mut |own| step(Step { time, ..own }));
            }
            Some(Op::MemInfo) => self.free_bytes = event.aux,
            // CUDA_ERROR_OUT_OF_MEMORY.
            Some(Op::AllocFailed) if event.aux == 2 => step(Step {
                action: Action::OutOfMemory,
                address: self.free_bytes,
                size: event.size,
                stream,
                time,
                site: (event.stack, event.api),
            }),
            _ => {}
        }
    }

    fn takes(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn alloc(&mut self, lifetime: &Lifetime, step: &mut dyn FnMut(Step)) {
        let what = &lifetime.what;
        let Some(kind) = what.kind() else { return };
        if what.device != self.device || kind.layer() == Layer::Host {
            return;
        }
        let stream = lifetime.begun.map_or(0, |begun| begun.stream);
        let block = Block {
            size: what.size,
            stream,
            site: (what.stack, what.api),
            seq: lifetime.seq,
            torch: kind == Kind::Torch,
        };
        match kind {
            Kind::Torch if self.takes(kind) => self.block(what.key, block, step),
            Kind::Torch => {}
            Kind::Vmm => {
                self.physical.insert(what.key, *lifetime);
            }
            Kind::Mapping => {
                let of = lifetime.begun.map_or(what.aux, |begun| begun.aux);
                self.map(what.key, of, block, step);
            }
            Kind::Pool | Kind::Import | Kind::Reservation => {}
            Kind::Device | Kind::Managed if self.is_torch(what.stack) => {
                self.segment(
                    what.key,
                    &block,
                    SegmentOf::Cache,
                    Action::SegmentAlloc,
                    step,
                );
            }
            _ if self.takes(kind) && what.size > 0 => {
                let address = self.place(what);
                self.block(address, block, step);
            }
            _ => {}
        }
    }

    /// Where memory lies; arrays have handles for addresses, which are others'.
    fn place(&mut self, what: &Record) -> u64 {
        let has_address = !matches!(what.kind(), Some(Kind::Array));
        if has_address && what.key.saturating_add(what.size) < NO_ADDRESS {
            return what.key;
        }
        let next = &mut self.next_place;
        *self.placed.entry((what.kind, what.key)).or_insert_with(|| {
            let place = *next;
            *next = after(place, what.size);
            place
        })
    }

    fn is_torch(&mut self, stack: u32) -> bool {
        let process = self.process;
        self.torch
            && *self
                .torch_stacks
                .entry(stack)
                .or_insert_with(|| process.is_torch_allocator(stack))
    }

    fn segment(
        &mut self,
        address: u64,
        like: &Block,
        of: SegmentOf,
        action: Action,
        step: &mut dyn FnMut(Step),
    ) {
        self.make_room(address, like.size, step);
        let segment = Segment {
            size: like.size,
            stream: like.stream,
            site: like.site,
            of,
        };
        self.segments.insert(address, segment);
        step(self.step(action, address, like));
    }

    /// Something was given this address anew: what was there has gone without a word.
    fn make_room(&mut self, address: u64, size: u64, step: &mut dyn FnMut(Step)) {
        let end = address.saturating_add(size);
        let before = self.segments.range(..end).rev();
        let overlapping = before.take_while(|(at, own)| at.saturating_add(own.size) > address);
        let gone: Vec<u64> = overlapping.map(|(at, _)| *at).collect();
        for at in gone {
            let inside: Vec<u64> = self.inside(at).collect();
            for block in inside {
                self.free(block, None, step);
            }
            self.drop_segment(at, None, step);
        }
    }

    fn step(&self, action: Action, address: u64, like: &Block) -> Step {
        Step {
            action,
            address,
            size: like.size,
            stream: like.stream,
            time: 0,
            site: like.site,
        }
    }

    fn map(&mut self, address: u64, of: u64, mut block: Block, step: &mut dyn FnMut(Step)) {
        // The same memory mapped twice is there once.
        if self.mapped.contains_key(&of) {
            return;
        }
        let physical = self.physical.get(&of).map(|own| own.what);
        let is_cache =
            self.is_torch(block.site.0) || physical.is_some_and(|own| self.is_torch(own.stack));
        if let Some(own) = physical {
            block.site = (own.stack, own.api);
        }
        let whole = !is_cache && self.takes(Kind::Vmm);
        self.mapped.insert(of, address);
        let mapped = SegmentOf::Mapped(whole, of);
        self.segment(address, &block, mapped, Action::SegmentMap, step);
        if whole {
            self.blocks.insert(address, Block { seq: 0, ..block });
            step(self.step(Action::Alloc, address, &block));
        }
    }

    /// The segment that an address lies in.
    fn around(&self, address: u64) -> Option<(u64, SegmentOf)> {
        let (at, segment) = self.segments.range(..=address).next_back()?;
        (address - at < segment.size).then_some((*at, segment.of))
    }

    fn inside(&self, segment: u64) -> impl Iterator<Item = u64> + '_ {
        let size = self
            .segments
            .get(&segment)
            .map_or(0, |segment| segment.size);
        let blocks = self.blocks.range(segment..segment.saturating_add(size));
        blocks.map(|(at, _)| *at)
    }

    fn block(&mut self, address: u64, block: Block, step: &mut dyn FnMut(Step)) {
        match self.around(address) {
            // Memory in which PyTorch's blocks lie is its allocator's after all.
            Some((at, SegmentOf::Mapped(true, of))) if block.torch => {
                self.hollow(at, SegmentOf::Mapped(false, of), step);
            }
            Some((at, SegmentOf::Block))
                if block.torch && self.blocks.get(&at).is_some_and(|own| !own.torch) =>
            {
                self.hollow(at, SegmentOf::Cache, step);
            }
            _ if self.blocks.contains_key(&address) => self.free(address, None, step),
            _ => {}
        }
        match self.around(address) {
            Some(_) => {}
            None => {
                let of = SegmentOf::Block;
                self.segment(address, &block, of, Action::SegmentAlloc, step);
            }
        }
        self.blocks.insert(address, block);
        step(self.step(Action::Alloc, address, &block));
    }

    /// A segment that was a block as a whole is none any more.
    fn hollow(&mut self, at: u64, of: SegmentOf, step: &mut dyn FnMut(Step)) {
        if let Some(block) = self.blocks.remove(&at) {
            step(self.step(Action::Free, at, &block));
        }
        if let Some(segment) = self.segments.get_mut(&at) {
            segment.of = of;
        }
    }

    /// Ends a block, and the segment that it had for itself. `event` is what did it.
    fn free(&mut self, address: u64, event: Option<&Record>, step: &mut dyn FnMut(Step)) {
        let Some(mut block) = self.blocks.remove(&address) else {
            return;
        };
        if let Some(event) = event {
            block.site = (event.stack, event.allocating_api());
        }
        step(self.step(Action::Free, address, &block));
        let own = self
            .segments
            .get(&address)
            .is_some_and(|own| own.of == SegmentOf::Block);
        if own {
            self.drop_segment(address, event, step);
        }
    }

    fn drop_segment(&mut self, at: u64, event: Option<&Record>, step: &mut dyn FnMut(Step)) {
        // Its blocks go on without it.
        let inside: Vec<u64> = self.inside(at).collect();
        let Some(segment) = self.segments.remove(&at) else {
            return;
        };
        let action = match segment.of {
            SegmentOf::Mapped(_, of) => {
                self.mapped.remove(&of);
                Action::SegmentUnmap
            }
            _ => Action::SegmentFree,
        };
        let like = Block {
            size: segment.size,
            stream: segment.stream,
            site: event.map_or(segment.site, |e| (e.stack, e.allocating_api())),
            seq: 0,
            torch: false,
        };
        let orphans: Vec<(u64, Block)> = inside
            .iter()
            .map(|address| (*address, self.blocks[address]))
            .collect();
        for (address, block) in &orphans {
            step(self.step(Action::Free, *address, block));
        }
        step(self.step(action, at, &like));
        for (address, block) in orphans {
            self.blocks.remove(&address);
            self.block(address, block, step);
        }
    }

    fn end(&mut self, event: &Record, seq: u64, step: &mut dyn FnMut(Step)) {
        let Some(kind) = event.kind() else { return };
        match kind {
            Kind::Vmm => {
                self.physical.remove(&event.key);
            }
            Kind::Mapping => {
                let whole = match self.segments.get(&event.key).map(|own| own.of) {
                    Some(SegmentOf::Mapped(whole, _)) => whole,
                    // The second mapping of something.
                    _ => return,
                };
                if whole {
                    self.free(event.key, Some(event), step);
                }
                self.drop_segment(event.key, Some(event), step);
            }
            Kind::Torch => self.end_block(event.key, seq, event, step),
            Kind::Device | Kind::Managed if self.is_cache(event.key) => {
                self.drop_segment(event.key, Some(event), step);
            }
            Kind::Pool | Kind::Import | Kind::Reservation => {}
            _ => {
                let address = self.placed.remove(&(event.kind, event.key));
                self.end_block(address.unwrap_or(event.key), seq, event, step);
            }
        }
    }

    fn is_cache(&self, address: u64) -> bool {
        let segment = self.segments.get(&address);
        segment.is_some_and(|segment| segment.of == SegmentOf::Cache)
    }

    /// Ends a block if it is still the same.
    fn end_block(&mut self, address: u64, seq: u64, event: &Record, step: &mut dyn FnMut(Step)) {
        if self
            .blocks
            .get(&address)
            .is_some_and(|block| block.seq == seq)
        {
            self.free(address, Some(event), step);
        }
    }

    /// Physical memory that is mapped nowhere gets a place, so that it is in the last state.
    pub fn settle(&mut self) {
        let mut unmapped: Vec<Lifetime> = self
            .physical
            .values()
            .filter(|own| !self.mapped.contains_key(&own.what.key))
            .copied()
            .collect();
        unmapped.sort_unstable_by_key(|own| own.seq);
        if !self.takes(Kind::Vmm) {
            return;
        }
        for own in unmapped {
            let what = own.what;
            let address = self.next_place;
            self.next_place = after(address, what.size);
            let block = Block {
                size: what.size,
                stream: 0,
                site: (what.stack, what.api),
                seq: own.seq,
                torch: false,
            };
            self.block(address, block, &mut |_| {});
        }
    }
}

/// The next made-up address.
fn after(place: u64, size: u64) -> u64 {
    place.saturating_add(size.clamp(1, 1 << 44).next_multiple_of(512))
}
