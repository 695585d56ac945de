//! A trace for <https://ui.perfetto.dev> and everything else that reads Perfetto's protobufs: live
//! bytes of each layer as counters, allocations as slices with their stacks, marks and what else
//! happened as instants.
//!
//! An allocation is a slice in one of as many lanes as there were allocations at once; lanes of one
//! name are one track in the UI. Names and stacks are written once, with the first packet that has
//! them. Times are Unix nanoseconds on the trace's own clock, which a snapshot of clocks says.

mod intern;
mod layout;

use super::log::{self, Log};
use super::progress::Progress;
use super::protobuf::Message;
use super::samples::{Selection, process_name};
use super::stacks::Stacks;
use crate::analysis::timeline::change;
use crate::model::Process;
use crate::report::words::foreign;
use intern::{Interned, Said, Text};
use layout::field;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, Write};
use vramtrace_format::account::{self, ACCOUNT_ROWS};
use vramtrace_format::record::{NO_DEVICE, Op, Record};

/// Types of track events.
const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;

/// What a trace is made of.
pub struct Trace<'a, 'p> {
    processes: &'p [Process],
    selection: &'a Selection,
    logs: Vec<Log<'p>>,
    stacks: Stacks,
}

impl<'a, 'p> Trace<'a, 'p> {
    /// How often [`Trace::write`] reads all events.
    pub const PASSES: u64 = 2;

    /// Reads all processes.
    pub fn read(
        processes: &'p [Process],
        selection: &'a Selection,
        progress: &mut Progress,
    ) -> Trace<'a, 'p> {
        let (logs, stacks) = log::read(processes, selection, progress);
        Trace {
            processes,
            selection,
            logs,
            stacks,
        }
    }

    /// The stacks in it.
    pub fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    /// Writes it.
    pub fn write(&self, progress: &mut Progress, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = Writer {
            out,
            stacks: &self.stacks,
            interned: Interned::of(&self.stacks),
            packet: Message::new(),
            next_track: 0,
        };
        let start = self
            .processes
            .iter()
            .map(|process| process.unix_ns(0))
            .min();
        writer.begin(start.unwrap_or(0))?;
        let mut pids = Vec::new();
        for log in &self.logs {
            // Two machines may have the same number for a process; Perfetto would make one of them.
            let mut pid = log.process.identity.pid & 0x7fff_ffff;
            while pids.contains(&pid) {
                pid = (pid + 10_000_000) & 0x7fff_ffff;
            }
            pids.push(pid);
            let mut of = OfProcess::new(log, self.selection, pid, &mut writer)?;
            of.write(progress)?;
        }
        Ok(())
    }
}

/// Writes packets.
struct Writer<'w> {
    out: &'w mut dyn Write,
    stacks: &'w Stacks,
    interned: Interned,
    packet: Message,
    next_track: u64,
}

impl Writer<'_> {
    fn begin(&mut self, start: u64) -> io::Result<()> {
        let mut clocks = Message::new();
        for clock in [layout::BOOTTIME, layout::REALTIME] {
            let mut own = Message::new();
            own.number(field::clock::CLOCK_ID, clock)
                .number(field::clock::TIMESTAMP, start);
            clocks.message(field::clock_snapshot::CLOCKS, &own);
        }
        self.packet
            .number(field::packet::TIMESTAMP, start)
            .message(field::packet::CLOCK_SNAPSHOT, &clocks)
            .number(field::packet::SEQUENCE_FLAGS, 1);
        self.flush()
    }

    /// Writes the packet that was put together.
    fn flush(&mut self) -> io::Result<()> {
        if !self.interned.new.bytes().is_empty() {
            self.packet
                .message(field::packet::INTERNED_DATA, &self.interned.new);
            self.interned.new.clear();
        }
        self.packet.number(field::packet::SEQUENCE_ID, 1);
        let mut head = [0; 11];
        let head = layout::packet_head(self.packet.bytes().len(), &mut head);
        self.out.write_all(head)?;
        self.out.write_all(self.packet.bytes())?;
        self.packet.clear();
        Ok(())
    }

    /// A new track.
    fn track(
        &mut self,
        parent: Option<u64>,
        name: &str,
        special: impl FnOnce(&mut Message),
    ) -> io::Result<u64> {
        self.next_track += 1;
        let mut track = Message::new();
        track.number(field::track::UUID, self.next_track);
        if let Some(parent) = parent {
            track.number(field::track::PARENT_UUID, parent);
        }
        track.text(field::track::NAME, foreign(name));
        special(&mut track);
        self.packet.message(field::packet::TRACK_DESCRIPTOR, &track);
        self.flush()?;
        Ok(self.next_track)
    }

    /// An event on a track; `more` says more of it.
    fn event(
        &mut self,
        time: u64,
        of: u64,
        track: u64,
        more: impl FnOnce(&mut Message, &mut Interned, &Stacks),
    ) -> io::Result<()> {
        let (interned, stacks) = (&mut self.interned, self.stacks);
        self.packet
            .number(field::packet::TIMESTAMP, time)
            .number(field::packet::SEQUENCE_FLAGS, 2)
            .nested(field::packet::TRACK_EVENT, |event| {
                event
                    .number(field::event::TYPE, of)
                    .number(field::event::TRACK_UUID, track);
                more(event, interned, stacks);
            });
        self.flush()
    }

    fn counter(&mut self, time: u64, track: u64, value: u64) -> io::Result<()> {
        self.event(time, COUNTER, track, |event, _, _| {
            event.number(field::event::COUNTER_VALUE, value.min(i64::MAX as u64));
        })
    }
}

/// An allocation whose slice has not begun, or has not ended.
#[derive(Clone, Copy)]
struct Open {
    what: Record,
    time: Option<u64>,
    thread: u32,
    stream: u32,
}

/// Lanes of the slices of one device, or of the host.
#[derive(Default)]
struct Lanes {
    tracks: Vec<u64>,
    free: BinaryHeap<Reverse<usize>>,
}

/// One process while it is written.
struct OfProcess<'a, 'w> {
    log: &'a Log<'a>,
    selection: &'a Selection,
    writer: &'a mut Writer<'w>,
    root: u64,
    /// By account: its track and live bytes.
    counters: [Option<(u64, u64)>; ACCOUNT_ROWS],
    /// Free memory of devices: tracks.
    free_memory: BTreeMap<u8, u64>,
    marks: Option<u64>,
    others: Option<u64>,
    lanes: BTreeMap<u8, Lanes>,
    /// Allocations that are not told yet, by number.
    waiting: BTreeMap<u64, Open>,
    /// The latest time so far, Unix nanoseconds.
    now: u64,
    /// Slices that have begun: device and lane.
    begun: FxHashMap<u64, (u8, usize)>,
}

impl<'a, 'w> OfProcess<'a, 'w> {
    fn new(
        log: &'a Log<'a>,
        selection: &'a Selection,
        pid: u32,
        writer: &'a mut Writer<'w>,
    ) -> io::Result<Self> {
        let process = log.process;
        let name = process_name(process);
        let root = writer.track(None, &name, |track| {
            let mut own = Message::new();
            own.number(field::process::PID, pid.into())
                .text(field::process::NAME, foreign(&name));
            track.message(field::track::PROCESS, &own);
        })?;
        let mut counters = [None; ACCOUNT_ROWS];
        for (device, layer, account) in process.accounts() {
            if !selection.filter.takes_account(device, layer) {
                continue;
            }
            let name = match device {
                Some(device) => format!("GPU {device}: live bytes, {} layer", layer.name()),
                None => "host memory: live bytes".to_owned(),
            };
            let track = writer.track(Some(root), &name, bytes_counter)?;
            let row = account::index(device.unwrap_or(NO_DEVICE), layer);
            let base = account.live_bytes.wrapping_sub(log.changes[row]);
            // What does not add up is a sign of damage.
            let base = if base > u64::MAX / 2 { 0 } else { base };
            counters[row] = Some((track, base));
        }
        Ok(OfProcess {
            log,
            selection,
            writer,
            root,
            counters,
            free_memory: BTreeMap::new(),
            marks: None,
            others: None,
            lanes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            now: 0,
            begun: FxHashMap::default(),
        })
    }

    fn write(&mut self, progress: &mut Progress) -> io::Result<()> {
        let log = self.log;
        for lifetime in log.lifetimes.iter(log.process) {
            progress.tick();
            let forgotten_end = lifetime.end.is_some_and(|end| end.seq == 0);
            if !lifetime.logged && !forgotten_end {
                let open = Open {
                    what: lifetime.what,
                    time: lifetime.begun.map(|begun| begun.time),
                    thread: lifetime.begun.map_or(0, |begun| begun.thread),
                    stream: lifetime.begun.map_or(0, |begun| begun.stream),
                };
                self.waiting.insert(lifetime.seq, open);
            }
        }
        let mut told = false;
        for event in log.process.events() {
            progress.tick();
            if log.is_after(&event) {
                break;
            }
            if !told && !log.is_before(&event) {
                told = true;
                self.catch_up(event.time)?;
            }
            self.event(&event, told)?;
        }
        // Where nothing happens in the part that is asked about, what is there is still told.
        if !told {
            self.catch_up(log.process.duration_ns())?;
        }
        Ok(())
    }

    /// Tells what was there already.
    fn catch_up(&mut self, time: u64) -> io::Result<()> {
        for (seq, open) in std::mem::take(&mut self.waiting) {
            self.begin(seq, &open, open.time.unwrap_or(time))?;
        }
        let at = self.log.process.unix_ns(time);
        for (track, value) in self.counters.iter().flatten() {
            self.writer.counter(at, *track, *value)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Record, told: bool) -> io::Result<()> {
        let lifetimes = &self.log.lifetimes;
        let time = self.log.process.unix_ns(event.time);
        // What comes back after a free that failed has its time of old.
        self.now = self.now.max(time);
        let now = self.now;
        if let Some((row, change)) = change(event)
            && let Some((track, value)) = &mut self.counters[row]
        {
            *value = value.wrapping_add(change);
            if told {
                self.writer.counter(now, *track, *value)?;
            }
        }
        let Some(op) = event.op() else { return Ok(()) };
        if op.begins_allocation() {
            let seq = lifetimes.origin(event.seq);
            if seq != event.seq {
                return Ok(());
            }
            let open = Open {
                what: *event,
                time: Some(event.time),
                thread: event.thread,
                stream: event.stream,
            };
            if told {
                self.begin(seq, &open, event.time)?;
            } else {
                self.waiting.insert(seq, open);
            }
        } else if op.ends_allocation() {
            if let Some(seq) = lifetimes.ended_by(event) {
                self.waiting.remove(&seq);
                self.end(seq, time)?;
            }
        } else if told && op != Op::Resize {
            self.instant(event, op, time)?;
        }
        Ok(())
    }

    fn begin(&mut self, seq: u64, open: &Open, time: u64) -> io::Result<()> {
        let what = &open.what;
        let Some(kind) = what.kind() else {
            return Ok(());
        };
        if !self.selection.filter.takes(what.device, kind) {
            return Ok(());
        }
        let lanes = self.lanes.entry(what.device).or_default();
        let lane = match lanes.free.pop() {
            Some(Reverse(lane)) => lane,
            None => {
                let name = match what.device {
                    NO_DEVICE => "host memory: allocations".to_owned(),
                    device => format!("GPU {device}: allocations"),
                };
                let track = self.writer.track(Some(self.root), &name, |_| {})?;
                lanes.tracks.push(track);
                lanes.tracks.len() - 1
            }
        };
        self.begun.insert(seq, (what.device, lane));
        let (process, id) = (self.log.process, self.log.id);
        let text = |id_of: u32, text| Text {
            process: id as u32,
            id: id_of,
            text,
        };
        let track = lanes.tracks[lane];
        let at = process.unix_ns(time);
        self.writer
            .event(at, BEGIN, track, |event, interned, stacks| {
                event.number(field::event::CATEGORY_IIDS, interned.category(kind));
                if let Some(stack) = stacks.id((id, what.stack, what.api)) {
                    let callstack = interned.callstack(stack, stacks);
                    event
                        .number(field::event::NAME_IID, interned.site(stack, stacks))
                        .number(field::event::CALLSTACK_IID, callstack);
                }
                interned.say_number(event, Said::Bytes, what.size);
                let of_kind = Text {
                    process: u32::MAX,
                    id: kind as u32,
                    text: kind.name(),
                };
                interned.say_text(event, Said::Kind, of_kind);
                interned.say_pointer(event, Said::Address, what.key);
                interned.say_number(event, Said::Allocation, seq);
                if let Some(api) = process.api(what.api) {
                    interned.say_text(event, Said::Api, text(what.api.into(), api));
                }
                if open.thread != 0 {
                    interned.say_number(event, Said::Thread, open.thread.into());
                }
                if open.stream != 0 {
                    interned.say_number(event, Said::Stream, open.stream.into());
                }
                if let Some(range) = process.ranges.name(what.range.into()) {
                    interned.say_text(event, Said::Range, text(what.range.into(), range));
                }
                if open.time.is_none() {
                    let why = "before the event log begins";
                    interned.say_text(event, Said::Allocated, text(0, why));
                }
            })
    }

    fn end(&mut self, seq: u64, time: u64) -> io::Result<()> {
        let Some((device, lane)) = self.begun.remove(&seq) else {
            return Ok(());
        };
        let Some(lanes) = self.lanes.get_mut(&device) else {
            return Ok(());
        };
        lanes.free.push(Reverse(lane));
        let track = lanes.tracks[lane];
        self.writer.event(time, END, track, |_, _, _| {})
    }

    fn instant(&mut self, event: &Record, op: Op, time: u64) -> io::Result<()> {
        if !self.log.takes_event(event, self.selection) {
            return Ok(());
        }
        let process = self.log.process;
        if op == Op::MemInfo {
            let track = match self.free_memory.get(&event.device) {
                Some(track) => *track,
                None => {
                    let name = format!("GPU {}: free memory", event.device);
                    let track = self.writer.track(Some(self.root), &name, bytes_counter)?;
                    self.free_memory.insert(event.device, track);
                    track
                }
            };
            return self.writer.counter(time, track, event.aux);
        }
        let (track, name) = if op == Op::Mark {
            (&mut self.marks, "marks")
        } else {
            (&mut self.others, "CUDA events")
        };
        let track = match *track {
            Some(track) => track,
            None => *track.insert(self.writer.track(Some(self.root), name, |_| {})?),
        };
        let text = match op {
            Op::Mark => process.mark(event.aux as u32).unwrap_or("mark"),
            op => op.name(),
        };
        let place = (self.log.id, event.stack, event.allocating_api());
        let has_stack = event.stack != vramtrace_format::stacks::NO_STACK;
        self.writer
            .event(time, INSTANT, track, |instant, interned, stacks| {
                instant.number(field::event::NAME_IID, interned.name(text));
                if event.thread != 0 {
                    interned.say_number(instant, Said::Thread, event.thread.into());
                }
                if matches!(op, Op::AllocFailed | Op::FreeFailed) {
                    interned.say_number(instant, Said::Error, event.aux);
                    interned.say_number(instant, Said::Bytes, event.size);
                }
                if let Some(stack) = stacks.id(place).filter(|_| has_stack) {
                    let callstack = interned.callstack(stack, stacks);
                    instant.number(field::event::CALLSTACK_IID, callstack);
                }
            })
    }
}

fn bytes_counter(track: &mut Message) {
    let mut counter = Message::new();
    counter.number(field::counter::UNIT, layout::UNIT_BYTES);
    track.message(field::track::COUNTER, &counter);
}
