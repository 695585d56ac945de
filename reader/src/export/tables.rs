//! Traces as tables: processes, devices, frames of stacks, allocations, events. What `csv`, `json`
//! and `parquet` have in common: each of them writes rows of [`Cell`]s.

mod lines;
mod logs;
mod words;

pub use lines::{Lines, Piece};
pub use words::{Spelled, Word, Words};

use super::log::{self, Log};
use super::pipe::{self, Feed};
use super::progress::Progress;
use super::samples::Selection;
use super::stacks::{self, Stacks};
use crate::analysis::view::ProcessView;
use crate::model::Process;
use std::io;
use std::sync::Arc;
use vramtrace_format::record::Layer;
use words::Vocabulary;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// One row a process.
    Processes,
    /// One row a device of a process.
    Devices,
    /// One row a frame of a stack.
    Stacks,
    /// One row an allocation, with its end.
    Allocations,
    /// One row an event.
    Events,
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A number, never negative.
    Number,
    /// A moment, Unix nanoseconds.
    Time,
    /// Text.
    Text,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name; that of a moment ends with `_ns`.
    pub name: &'static str,
    /// What is in it.
    pub of: Type,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Not known, or there is none.
    Null,
    /// A number or moment.
    Number(u64),
    /// Text, as it was found.
    Text(&'a str),
    /// Text that comes again and again; see [`Words`].
    Word(Word),
}

impl<'a> From<Option<u64>> for Cell<'a> {
    fn from(number: Option<u64>) -> Cell<'a> {
        number.map_or(Cell::Null, Cell::Number)
    }
}

impl<'a> From<Option<&'a str>> for Cell<'a> {
    fn from(text: Option<&'a str>) -> Cell<'a> {
        text.map_or(Cell::Null, Cell::Text)
    }
}

macro_rules! columns {
    ($($name:literal $of:ident)*) => { &[$(Column { name: $name, of: Type::$of }),*] };
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 5] = [
        Table::Processes,
        Table::Devices,
        Table::Stacks,
        Table::Allocations,
        Table::Events,
    ];

    /// The word that the command line and file names use.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Processes => "processes",
            Table::Devices => "devices",
            Table::Stacks => "stacks",
            Table::Allocations => "allocations",
            Table::Events => "events",
        }
    }

    /// What a row of it is called in JSON.
    pub const fn row_name(self) -> &'static str {
        match self {
            Table::Processes => "process",
            Table::Devices => "device",
            Table::Stacks => "frame",
            Table::Allocations => "allocation",
            Table::Events => "event",
        }
    }

    /// The table with this name.
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Its columns. docs/exports.md says what is in each.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Processes => columns! {
                "process" Number "pid" Number "program" Text "rank" Number "host" Text
                "start_ns" Time "duration_ns" Number "end" Text "lost_events" Number
                "inexact_because" Text "trace" Text
            },
            Table::Devices => columns! {
                "process" Number "device" Number "uuid" Text "pci" Text "name" Text
                "total_bytes" Number "peak_device_bytes" Number "peak_framework_bytes" Number
            },
            Table::Stacks => columns! {
                "stack" Number "process" Number "frame" Number "language" Text "function" Text
                "file" Text "line" Number "module" Text "offset" Number
            },
            Table::Allocations => columns! {
                "process" Number "allocation" Number "state" Text "role" Text "layer" Text
                "kind" Text "device" Number "bytes" Number "address" Number "allocated_ns" Time
                "freed_ns" Time "lifetime_ns" Number "free_event" Number "thread" Number
                "thread_name" Text "range" Text "stream" Number "context" Number "api" Text
                "free_thread" Number "free_api" Text "stack" Number "site" Text
            },
            Table::Events => columns! {
                "process" Number "event" Number "time_ns" Time "op" Text "layer" Text "kind" Text
                "device" Number "bytes" Number "address" Number "allocation" Number "error" Number
                "aux" Number "text" Text "thread" Number "range" Text "stream" Number
                "context" Number "api" Text "stack" Number "site" Text
            },
        }
    }
}

/// What tables are made of.
pub struct Source<'a, 'p> {
    /// All processes.
    pub processes: &'p [Process],
    /// What is asked about.
    pub selection: &'a Selection,
    /// Their allocations.
    pub logs: Vec<Log<'p>>,
    /// Their stacks.
    pub stacks: Stacks,
    /// The texts of allocations and events.
    pub words: Arc<Words>,
    vocabulary: Vocabulary,
}

/// Takes rows.
pub type Sink<'s> = dyn FnMut(&[Cell<'_>]) -> io::Result<()> + 's;

impl<'a, 'p> Source<'a, 'p> {
    /// Reads all processes.
    pub fn read(
        processes: &'p [Process],
        selection: &'a Selection,
        progress: &mut Progress,
    ) -> Source<'a, 'p> {
        let (logs, stacks) = log::read(processes, selection, progress);
        let mut words = Words::default();
        let vocabulary = Vocabulary::of(processes, &stacks, &mut words);
        Source {
            processes,
            selection,
            logs,
            stacks,
            words: Arc::new(words),
            vocabulary,
        }
    }

    /// Hands all rows of a table to `sink`.
    pub fn rows(
        &mut self,
        table: Table,
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> io::Result<()> {
        let (words, stacks, selection) = (&self.vocabulary, &self.stacks, self.selection);
        let width = table.columns().len();
        match table {
            Table::Processes => self.processes(sink),
            Table::Devices => self.devices(sink),
            Table::Stacks => self.frames(sink),
            Table::Allocations => {
                let logs = &mut self.logs;
                let rows = |rows: &mut Feed<Cell<'static>>| {
                    logs::allocations(logs, stacks, words, selection, rows);
                };
                pipe::through(rows, progress, |cells| {
                    cells.chunks_exact(width).try_for_each(&mut *sink)
                })
            }
            Table::Events => {
                let logs = &self.logs;
                let rows = |rows: &mut Feed<Cell<'static>>| {
                    logs::events(logs, stacks, words, selection, rows);
                };
                pipe::through(rows, progress, |cells| {
                    cells.chunks_exact(width).try_for_each(&mut *sink)
                })
            }
        }
    }

    fn processes(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for (id, process) in self.processes.iter().enumerate() {
            let view = ProcessView::of(process, id);
            let reasons = process.losses.live_inexact.iter();
            let reasons: Vec<String> = reasons
                .map(|reason| format!("{}: {}", reason.code, reason.text))
                .collect();
            let reasons = reasons.join("; ");
            sink(&[
                Cell::Number(id as u64),
                Cell::Number(view.pid.into()),
                Cell::Text(&view.program),
                view.rank.map(u64::from).into(),
                Cell::Text(&view.host),
                Cell::Number(view.start_ns),
                Cell::Number(view.duration_ns),
                Cell::Text(view.end.name()),
                Cell::Number(process.losses.lost()),
                Some(reasons.as_str())
                    .filter(|reasons| !reasons.is_empty())
                    .into(),
                Cell::Text(&view.trace.to_string_lossy()),
            ])?;
        }
        Ok(())
    }

    fn devices(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for (id, process) in self.processes.iter().enumerate() {
            let peak = |index: u8, layer: Layer| {
                let mut accounts = process.accounts();
                let own = accounts.find(|(device, l, _)| (*device, *l) == (Some(index), layer));
                own.map_or(0, |(.., account)| account.peak_bytes)
            };
            for (&index, device) in &process.devices {
                let text = |text: &'p str| Cell::from(Some(text).filter(|text| !text.is_empty()));
                sink(&[
                    Cell::Number(id as u64),
                    Cell::Number(index.into()),
                    text(&device.uuid),
                    text(&device.pci),
                    text(&device.name),
                    Some(device.total_bytes).filter(|&bytes| bytes != 0).into(),
                    Cell::Number(peak(index, Layer::Device)),
                    Cell::Number(peak(index, Layer::Framework)),
                ])?;
            }
        }
        Ok(())
    }

    fn frames(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for (id, ((process, ..), named)) in self.stacks.all().iter().enumerate() {
            let mut at = 0;
            let mut row = |language: &str, function: Option<&str>, rest: [Cell<'_>; 4]| {
                at += 1;
                let [file, line, module, offset] = rest;
                sink(&[
                    Cell::Number(id as u64),
                    Cell::Number(*process as u64),
                    Cell::Number(at - 1),
                    Cell::Text(language),
                    function.into(),
                    file,
                    line,
                    module,
                    offset,
                ])
            };
            for frame in self.stacks.frames_of(id as u32) {
                let rest = [
                    frame.file.as_deref().into(),
                    frame.line.map(u64::from).into(),
                    frame.module.as_deref().into(),
                    frame.offset.into(),
                ];
                row(frame.language, frame.function.as_deref(), rest)?;
            }
            // Every stack has a row, so that joins lose nothing.
            if named.frames.is_empty() {
                row("none", Some(&stacks::absent(named)), [Cell::Null; 4])?;
            } else if named.truncated {
                row("none", Some(stacks::TRUNCATED), [Cell::Null; 4])?;
            }
        }
        Ok(())
    }
}
