//! A trace for <https://ui.perfetto.dev> and everything else that reads Perfetto's protobufs: live
//! bytes of each layer as counters, allocations as slices with their stacks, marks and what else
//! happened as instants.
//!
//! An allocation is a slice in one of as many lanes as there were allocations at once; lanes of one
//! name are one track in the UI. Names and stacks are written once, with the first packet that has
//! them. Times are Unix nanoseconds on the trace's own clock, which a snapshot of clocks says.
//!
//! One thread finds out what there is to tell ([`telling`]), another writes it.

mod intern;
mod layout;
mod telling;

use super::log::{self, Log};
use super::pipe::{self, Feed};
use super::progress::Progress;
use super::protobuf::Message;
use super::samples::{Selection, process_name};
use super::stacks::Stacks;
use crate::analysis::slices::Slice;
use crate::model::Process;
use crate::report::words::foreign;
use intern::{Interned, Said, Text};
use layout::field;
use std::io::{self, Write};
use telling::{Telling, Told, TrackOf};
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

    /// Writes it. Returns how many ranges it leaves out, the shortest ones.
    pub fn write(&self, progress: &mut Progress, out: &mut dyn Write) -> io::Result<u64> {
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
        let mut left_out = 0;
        for log in &self.logs {
            // Two machines may have the same number for a process; Perfetto would make one of them.
            let mut pid = log.process.identity.pid & 0x7fff_ffff;
            while pids.contains(&pid) {
                pid = (pid + 10_000_000) & 0x7fff_ffff;
            }
            pids.push(pid);
            left_out += self.process(log, pid, progress, &mut writer)?;
        }
        Ok(left_out)
    }
}

impl Trace<'_, '_> {
    fn process(
        &self,
        log: &Log<'_>,
        pid: u32,
        progress: &mut Progress,
        writer: &mut Writer<'_>,
    ) -> io::Result<u64> {
        let name = process_name(log.process);
        let root = writer.track(None, &name, |track| {
            let mut own = Message::new();
            own.number(field::process::PID, pid.into())
                .text(field::process::NAME, foreign(&name));
            track.message(field::track::PROCESS, &own);
        })?;
        let of = OfProcess { log, root };
        let mut counters = [None; ACCOUNT_ROWS];
        for (device, layer, account) in log.process.accounts() {
            if !self.selection.filter.takes_account(device, layer) {
                continue;
            }
            let track = of.track(TrackOf::Live(device, layer), writer)?;
            let row = account::index(device.unwrap_or(NO_DEVICE), layer);
            let base = account.live_bytes.wrapping_sub(log.changes[row]);
            // What does not add up is a sign of damage.
            let base = if base > u64::MAX / 2 { 0 } else { base };
            counters[row] = Some((track, base));
        }
        let telling = Telling::new(log, self.selection, counters, writer.next_track);
        let tell = |feed: &mut Feed<Told>| telling.tell(feed);
        pipe::through(tell, progress, |told| {
            told.iter().try_for_each(|told| of.write(told, writer))
        })
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

/// What all packets of one process have in common.
struct OfProcess<'a> {
    log: &'a Log<'a>,
    /// Its own track, the parent of the others.
    root: u64,
}

impl<'a> OfProcess<'a> {
    fn track(&self, of: TrackOf, writer: &mut Writer<'_>) -> io::Result<u64> {
        let (name, is_counter) = match of {
            TrackOf::Live(Some(device), layer) => (
                format!("GPU {device}: live bytes, {} layer", layer.name()),
                true,
            ),
            TrackOf::Live(None, _) => ("host memory: live bytes".to_owned(), true),
            TrackOf::FreeMemory(device) => (format!("GPU {device}: free memory"), true),
            TrackOf::Allocations(NO_DEVICE) => ("host memory: allocations".to_owned(), false),
            TrackOf::Allocations(device) => (format!("GPU {device}: allocations"), false),
            TrackOf::Ranges(0) => ("NVTX ranges of the process".to_owned(), false),
            TrackOf::Ranges(thread) => {
                let name = match self.log.process.thread(thread) {
                    Some(name) => format!("NVTX ranges: {name} ({thread})"),
                    None => format!("NVTX ranges: thread {thread}"),
                };
                (name, false)
            }
            TrackOf::Marks => ("marks".to_owned(), false),
            TrackOf::Others => ("CUDA events".to_owned(), false),
        };
        writer.track(Some(self.root), &name, |track| {
            if is_counter {
                bytes_counter(track);
            }
        })
    }

    fn write(&self, told: &Told, writer: &mut Writer<'_>) -> io::Result<()> {
        match told {
            Told::Track(of) => self.track(*of, writer).map(drop),
            Told::Counter { at, track, value } => writer.counter(*at, *track, *value),
            Told::Begin {
                at,
                track,
                seq,
                what,
                is_dated,
            } => self.begin(writer, (*at, *track), *seq, what, *is_dated),
            Told::BeginRange { at, track, range } => self.begin_range(writer, *at, *track, range),
            Told::End { at, track } => writer.event(*at, END, *track, |_, _, _| {}),
            Told::Instant { at, track, event } => self.instant(writer, (*at, *track), event),
        }
    }

    fn begin(
        &self,
        writer: &mut Writer<'_>,
        (at, track): (u64, u64),
        seq: u64,
        what: &Record,
        is_dated: bool,
    ) -> io::Result<()> {
        let Some(kind) = what.kind() else {
            return Ok(());
        };
        let (process, id) = (self.log.process, self.log.id);
        let text = |id_of: u32, text| Text {
            process: id as u32,
            id: id_of,
            text,
        };
        writer.event(at, BEGIN, track, |event, interned, stacks| {
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
            if what.thread != 0 {
                interned.say_number(event, Said::Thread, what.thread.into());
            }
            if what.stream != 0 {
                interned.say_number(event, Said::Stream, what.stream.into());
            }
            if let Some(range) = process.ranges.name(what.range.into()) {
                interned.say_text(event, Said::Range, text(what.range.into(), range));
            }
            if !is_dated {
                let why = "before the event log begins";
                interned.say_text(event, Said::Allocated, text(0, why));
            }
        })
    }

    fn begin_range(
        &self,
        writer: &mut Writer<'_>,
        at: u64,
        track: u64,
        range: &Slice,
    ) -> io::Result<()> {
        let name = self.log.process.ranges.text(range.range).unwrap_or("range");
        writer.event(at, BEGIN, track, |event, interned, _| {
            event
                .number(field::event::CATEGORY_IIDS, interned.category_named("nvtx"))
                .number(field::event::NAME_IID, interned.name(name));
            interned.say_number(event, Said::Bytes, range.bytes);
            interned.say_number(event, Said::Allocations, range.count);
            if !range.told {
                let text = Text {
                    process: u32::MAX,
                    id: 0,
                    text: "from the first to the last allocation in it",
                };
                interned.say_text(event, Said::Drawn, text);
            }
        })
    }

    fn instant(
        &self,
        writer: &mut Writer<'_>,
        (at, track): (u64, u64),
        event: &Record,
    ) -> io::Result<()> {
        let Some(op) = event.op() else { return Ok(()) };
        let text = match op {
            Op::Mark => self.log.process.mark(event.aux as u32).unwrap_or("mark"),
            op => op.name(),
        };
        let place = (self.log.id, event.stack, event.allocating_api());
        let has_stack = event.stack != vramtrace_format::stacks::NO_STACK;
        writer.event(at, INSTANT, track, |instant, interned, stacks| {
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
