//! A memory snapshot as PyTorch writes them, for <https://pytorch.org/memory_viz> and
//! `torch/cuda/_memory_viz.py`: the history of each GPU, and its segments and blocks at the end.
//!
//! [`super::replay`] tells the history; this writes it down while it is told. Stacks are written once
//! and referred to.

mod words;

use super::log::{self, Log};
use super::pickle::{Encoded, List, Memo, Pickle};
use super::pipe::{self, Feed};
use super::progress::Progress;
use super::replay::{Action, Block, Replay, Segment, SegmentOf, Site, Step};
use super::samples::Selection;
use super::stacks::{self, Stacks};
use crate::analysis::added;
use crate::model::Process;
use crate::report::words::foreign;
use rustc_hash::FxHashMap;
use std::io::{self, Write};
use vramtrace_format::record::Record;
use words::Word;

/// Devices that a process can number; histories are a list by that number.
const MOST_DEVICES: u8 = 64;

/// What a snapshot is made of.
pub struct Snapshot<'p> {
    log: Log<'p>,
    stacks: Stacks,
    devices: Vec<u8>,
}

impl<'p> Snapshot<'p> {
    /// Reads a process.
    pub fn read(
        process: &'p Process,
        selection: &Selection,
        progress: &mut Progress,
    ) -> Snapshot<'p> {
        let (mut logs, stacks) = log::read(std::slice::from_ref(process), selection, progress);
        let wanted = &selection.filter.devices;
        let devices = process
            .devices
            .keys()
            .copied()
            .chain(process.accounts().filter_map(|a| a.0));
        let mut devices: Vec<u8> = devices
            .filter(|device| *device < MOST_DEVICES)
            .filter(|device| wanted.is_empty() || wanted.contains(device))
            .collect();
        devices.sort_unstable();
        devices.dedup();
        Snapshot {
            log: logs.remove(0),
            stacks,
            devices,
        }
    }

    /// How often [`Snapshot::write`] reads all events.
    pub fn passes(process: &Process) -> u64 {
        process.devices.len().max(1) as u64
    }

    /// The stacks in it.
    pub fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    /// Writes it.
    pub fn write(
        &self,
        selection: &Selection,
        progress: &mut Progress,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut writer = Writer {
            pickle: Pickle::new(out)?,
            stacks: &self.stacks,
            process: self.log.process,
            words: [None; Word::COUNT],
            frames: FxHashMap::default(),
            lists: vec![None; self.stacks.all().len()],
            shapes: [const { None }; Told::COUNT],
            line: Encoded::default(),
        };
        writer.pickle.dict()?;
        writer.word(Word::DeviceTraces)?;
        let mut traces = writer.pickle.list()?;
        let mut ends = Vec::new();
        let highest = self.devices.last().map_or(0, |last| last + 1);
        for device in 0..highest {
            traces.item(&mut writer.pickle)?;
            let mut steps = writer.pickle.list()?;
            if self.devices.contains(&device) {
                let end = self.history(device, selection, progress, &mut writer, &mut steps)?;
                ends.push((device, end));
            }
            steps.end(&mut writer.pickle)?;
        }
        traces.end(&mut writer.pickle)?;
        writer.word(Word::Segments)?;
        let mut segments = writer.pickle.list()?;
        for (device, end) in &ends {
            writer.segments(*device, end, &mut segments)?;
        }
        segments.end(&mut writer.pickle)?;
        writer.word(Word::AllocatorSettings)?;
        writer.pickle.dict()?;
        writer.pickle.end_dict()?;
        writer.pickle.end_dict()?;
        writer.pickle.stop()
    }

    fn history(
        &self,
        device: u8,
        selection: &Selection,
        progress: &mut Progress,
        writer: &mut Writer<'_, '_>,
        steps: &mut List,
    ) -> io::Result<Replay<'p>> {
        let tell = |told: &mut Feed<Step>| {
            let log = &self.log;
            let mut replay = Replay::of(log.process, device, &selection.filter.kinds);
            replay.begin(&log.lifetimes);
            for event in log.process.events() {
                if !told.step() || log.is_after(&event) {
                    break;
                }
                let is_asked_about = !log.is_before(&event);
                let Some(seq) = self.lifetime(&event) else {
                    continue;
                };
                replay.event(&event, seq, &mut |step| {
                    if is_asked_about {
                        told.push(&[step]);
                    }
                });
            }
            replay.settle();
            replay
        };
        pipe::through(tell, progress, |told| {
            told.iter().try_for_each(|step| writer.step(step, steps))
        })
    }

    /// The allocation that an event begins or ends; `None` for a free that failed, and for what
    /// brought its entry back: nothing has happened.
    fn lifetime(&self, event: &Record) -> Option<u64> {
        let lifetimes = &self.log.lifetimes;
        let Some(op) = event.op() else { return Some(0) };
        if op.ends_allocation() {
            return lifetimes.ended_by(event);
        }
        if op.begins_allocation() {
            let seq = lifetimes.origin(event.seq);
            return (seq == event.seq).then_some(seq);
        }
        Some(0)
    }
}

struct Writer<'w, 's> {
    pickle: Pickle<'w>,
    stacks: &'s Stacks,
    process: &'s Process,
    words: [Option<Memo>; Word::COUNT],
    /// By frame, and by stack.
    frames: FxHashMap<u32, Memo>,
    lists: Vec<Option<Memo>>,
    /// By action: what is the same in all its steps.
    shapes: [Option<Shape>; Told::COUNT],
    line: Encoded,
}

/// The actions that the viewers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Alloc,
    FreeRequested,
    FreeCompleted,
    SegmentAlloc,
    SegmentFree,
    SegmentMap,
    SegmentUnmap,
    OutOfMemory,
}

impl Told {
    const COUNT: usize = Told::OutOfMemory as usize + 1;

    const fn word(self) -> Word {
        match self {
            Told::Alloc => Word::Alloc,
            Told::FreeRequested => Word::FreeRequested,
            Told::FreeCompleted => Word::FreeCompleted,
            Told::SegmentAlloc => Word::SegmentAlloc,
            Told::SegmentFree => Word::SegmentFree,
            Told::SegmentMap => Word::SegmentMap,
            Told::SegmentUnmap => Word::SegmentUnmap,
            Told::OutOfMemory => Word::Oom,
        }
    }
}

/// What stands before each value of a step.
struct Shape {
    address: Encoded,
    size: Encoded,
    stream: Encoded,
    time: Encoded,
    frames: Encoded,
}

impl Writer<'_, '_> {
    /// Text that comes again and again.
    fn word(&mut self, word: Word) -> io::Result<()> {
        if let Some(memo) = self.words[word as usize] {
            return self.pickle.again(memo);
        }
        self.pickle.text(word.text())?;
        self.words[word as usize] = Some(self.pickle.remember()?);
        Ok(())
    }

    fn entry(&mut self, key: Word, value: u64) -> io::Result<()> {
        self.word(key)?;
        self.pickle.number(value)
    }

    fn entry_word(&mut self, key: Word, value: Word) -> io::Result<()> {
        self.word(key)?;
        self.word(value)
    }

    fn step(&mut self, step: &Step, steps: &mut List) -> io::Result<()> {
        let told = match step.action {
            // The viewers make one step of the two.
            Action::Free => {
                self.one(Told::FreeRequested, step, steps)?;
                Told::FreeCompleted
            }
            Action::Alloc => Told::Alloc,
            Action::SegmentAlloc => Told::SegmentAlloc,
            Action::SegmentFree => Told::SegmentFree,
            Action::SegmentMap => Told::SegmentMap,
            Action::SegmentUnmap => Told::SegmentUnmap,
            Action::OutOfMemory => Told::OutOfMemory,
        };
        self.one(told, step, steps)
    }

    fn one(&mut self, action: Told, step: &Step, steps: &mut List) -> io::Result<()> {
        steps.item(&mut self.pickle)?;
        let time = self.process.unix_ns(step.time) / 1000;
        let Some(shape) = &self.shapes[action as usize] else {
            return self.first(action, step, time);
        };
        let line = &mut self.line;
        line.clear();
        line.append(&shape.address);
        line.number(step.address);
        line.append(&shape.size);
        line.number(step.size);
        line.append(&shape.stream);
        line.number(step.stream.into());
        line.append(&shape.time);
        line.number(time);
        line.append(&shape.frames);
        let known = self.stacks.id((0, step.site.0, step.site.1));
        if let Some(frames) = known.and_then(|id| self.lists[id as usize]) {
            line.again(frames);
            line.end_dict();
            return self.pickle.encoded(line);
        }
        self.pickle.encoded(line)?;
        self.site(step.site)?;
        self.pickle.end_dict()
    }

    /// The first step of an action, after which all its words can be referred to.
    fn first(&mut self, action: Told, step: &Step, time: u64) -> io::Result<()> {
        let address = match action {
            Told::OutOfMemory => Word::DeviceFree,
            _ => Word::Addr,
        };
        self.pickle.dict()?;
        self.entry_word(Word::Action, action.word())?;
        self.entry(address, step.address)?;
        self.entry(Word::Size, step.size)?;
        self.entry(Word::Stream, step.stream.into())?;
        self.entry(Word::TimeUs, time)?;
        self.word(Word::Frames)?;
        self.site(step.site)?;
        self.pickle.end_dict()?;
        let words = &self.words;
        let word = |word: Word| {
            let mut encoded = Encoded::default();
            if let Some(memo) = words[word as usize] {
                encoded.again(memo);
            }
            encoded
        };
        let mut head = Encoded::default();
        head.dict();
        for part in [Word::Action, action.word(), address] {
            head.append(&word(part));
        }
        let shape = Shape {
            address: head,
            size: word(Word::Size),
            stream: word(Word::Stream),
            time: word(Word::TimeUs),
            frames: word(Word::Frames),
        };
        self.shapes[action as usize] = Some(shape);
        Ok(())
    }

    /// The frames of a stack.
    fn site(&mut self, (stack, api): Site) -> io::Result<()> {
        let Some(id) = self.stacks.id((0, stack, api)) else {
            return self.pickle.list()?.end(&mut self.pickle);
        };
        if let Some(memo) = self.lists[id as usize] {
            return self.pickle.again(memo);
        }
        let stacks = self.stacks;
        let mut list = self.pickle.list()?;
        for &number in &stacks.get(id).frames {
            list.item(&mut self.pickle)?;
            self.frame(number)?;
        }
        list.end(&mut self.pickle)?;
        let memo = self.pickle.remember()?;
        self.lists[id as usize] = Some(memo);
        Ok(())
    }

    fn frame(&mut self, number: u32) -> io::Result<()> {
        if let Some(&memo) = self.frames.get(&number) {
            return self.pickle.again(memo);
        }
        let frame = &self.stacks.frames()[number as usize];
        let name = frame
            .function
            .clone()
            .unwrap_or_else(|| stacks::label(frame).into());
        let file = frame.file.as_deref().or(frame.module.as_deref());
        self.pickle.dict()?;
        self.word(Word::Name)?;
        self.pickle.text(&foreign(&name))?;
        self.word(Word::Filename)?;
        self.pickle.text(&foreign(file.unwrap_or("??")))?;
        self.entry(Word::Line, frame.line.unwrap_or(0).into())?;
        self.pickle.end_dict()?;
        let memo = self.pickle.remember()?;
        self.frames.insert(number, memo);
        Ok(())
    }

    fn segments(&mut self, device: u8, end: &Replay<'_>, list: &mut List) -> io::Result<()> {
        let mut blocks = end.blocks.iter().peekable();
        for (address, segment) in joined(end) {
            list.item(&mut self.pickle)?;
            let limit = address.saturating_add(segment.size);
            let mut inside: Vec<(u64, Block)> = Vec::new();
            while let Some((&at, &block)) = blocks.next_if(|(at, _)| **at < limit) {
                let before = inside
                    .last()
                    .map_or(address, |(at, own)| at.saturating_add(own.size));
                // Of a whole trace blocks never overlap; the viewers give up where they do.
                if at >= before {
                    let mut block = block;
                    block.size = block.size.min(limit - at);
                    inside.push((at, block));
                }
            }
            self.segment(device, address, &segment, &inside)?;
        }
        Ok(())
    }

    fn segment(
        &mut self,
        device: u8,
        address: u64,
        segment: &Segment,
        blocks: &[(u64, Block)],
    ) -> io::Result<()> {
        let used = added(blocks.iter().map(|(_, block)| block.size));
        self.pickle.dict()?;
        self.entry(Word::Device, device.into())?;
        self.entry(Word::Address, address)?;
        self.entry(Word::TotalSize, segment.size)?;
        self.entry(Word::AllocatedSize, used)?;
        self.entry(Word::ActiveSize, used)?;
        self.entry(Word::RequestedSize, used)?;
        self.entry(Word::Stream, segment.stream.into())?;
        // As PyTorch divides them: up to 2 MiB are of its small pool.
        let small = segment.of == SegmentOf::Cache && segment.size <= 2 << 20;
        self.entry_word(
            Word::SegmentType,
            if small { Word::Small } else { Word::Large },
        )?;
        self.word(Word::SegmentPoolId)?;
        self.pickle.number(0)?;
        self.pickle.number(0)?;
        self.pickle.pair()?;
        self.word(Word::IsExpandable)?;
        self.pickle
            .truth(matches!(segment.of, SegmentOf::Mapped(..)))?;
        self.word(Word::Frames)?;
        self.site(segment.site)?;
        self.word(Word::Blocks)?;
        let mut list = self.pickle.list()?;
        let mut at = address;
        for (start, block) in blocks {
            if *start > at {
                self.block(at, start - at, None, &mut list)?;
            }
            self.block(*start, block.size, Some(block), &mut list)?;
            at = start + block.size;
        }
        let end = address.saturating_add(segment.size);
        if at < end {
            self.block(at, end - at, None, &mut list)?;
        }
        list.end(&mut self.pickle)?;
        self.pickle.end_dict()
    }

    fn block(
        &mut self,
        address: u64,
        size: u64,
        block: Option<&Block>,
        list: &mut List,
    ) -> io::Result<()> {
        list.item(&mut self.pickle)?;
        self.pickle.dict()?;
        self.entry(Word::Address, address)?;
        self.entry(Word::Size, size)?;
        self.entry(Word::RequestedSize, size)?;
        self.entry_word(
            Word::State,
            if block.is_some() {
                Word::ActiveAllocated
            } else {
                Word::Inactive
            },
        )?;
        self.word(Word::Frames)?;
        match block {
            Some(block) => self.site(block.site)?,
            None => self.pickle.list()?.end(&mut self.pickle)?,
        }
        self.pickle.end_dict()
    }
}

/// Segments by address; memory that is mapped without a gap is one, as PyTorch's expandable segments
/// are.
fn joined(end: &Replay<'_>) -> Vec<(u64, Segment)> {
    let mut joined: Vec<(u64, Segment)> = Vec::new();
    for (&address, segment) in &end.segments {
        if let Some((at, last)) = joined.last_mut()
            && at.saturating_add(last.size) == address
            && matches!(
                (last.of, segment.of),
                (SegmentOf::Mapped(..), SegmentOf::Mapped(..))
            )
            && last.stream == segment.stream
        {
            last.size = last.size.saturating_add(segment.size);
            continue;
        }
        joined.push((address, segment.clone()));
    }
    joined
}
