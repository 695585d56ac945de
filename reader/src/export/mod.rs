//! Traces in the formats of other tools, one a file.
//!
//! In: processes, and which part of them is wanted ([`Selection`]). Out: bytes, written as they come
//! ([`Format::write`]). Two kinds of formats, over two views of the same model:
//!
//! - *profiles* (`folded`, `pprof`, `speedscope`, the flame graph): sums by stack, from
//!   [`samples`]; as small as the trace's table of stacks.
//! - *logs* (`csv`, `json`, `parquet`, `perfetto`, `torch-snapshot`): every allocation and event,
//!   from [`lifetimes`]; written while they are read, so that memory does not grow with them.
//!
//! [`stacks`] names the frames of both. What comes from the traced program (function names, marks)
//! is never trusted to be harmless in the format that it is written to.

pub mod csv;
pub mod flamegraph;
pub mod folded;
pub mod json;
mod log;
pub mod output;
pub mod parquet;
pub mod perfetto;
mod pickle;
mod pipe;
pub mod pprof;
pub mod progress;
mod protobuf;
mod replay;
mod samples;
pub mod speedscope;
pub(crate) mod stacks;
pub mod tables;
pub mod torch_snapshot;

pub use log::bar;
pub use samples::{
    Gathered, Measure, Part, Sample, Samples, Selection, Unanswered, gather, process_name,
    sums_know,
};
pub use stacks::{Named, Stacks};

use std::path::Path;

/// A format that traces are exported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A profile for `go tool pprof`.
    Pprof,
    /// For ui.perfetto.dev.
    Perfetto,
    /// For speedscope.app.
    Speedscope,
    /// One line a stack.
    Folded,
    /// For pytorch.org/memory_viz.
    TorchSnapshot,
    /// Tables, one a file.
    Parquet,
    /// One table.
    Csv,
    /// All tables, one object a row.
    Json,
}

impl Format {
    /// All of them.
    pub const ALL: &[Format] = &[
        Format::Pprof,
        Format::Perfetto,
        Format::Speedscope,
        Format::Folded,
        Format::TorchSnapshot,
        Format::Parquet,
        Format::Csv,
        Format::Json,
    ];

    /// The word that the command line uses.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Pprof => "pprof",
            Format::Perfetto => "perfetto",
            Format::Speedscope => "speedscope",
            Format::Folded => "folded",
            Format::TorchSnapshot => "torch-snapshot",
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Json => "json",
        }
    }

    /// How files of it usually end.
    pub const fn endings(self) -> &'static [&'static str] {
        match self {
            Format::Pprof => &[".pb.gz", ".pprof"],
            Format::Perfetto => &[".pftrace", ".perfetto-trace"],
            Format::Speedscope => &[".speedscope.json", ".speedscope"],
            Format::Folded => &[".folded", ".collapsed"],
            Format::TorchSnapshot => &[".pickle", ".pkl"],
            Format::Parquet => &[".parquet"],
            Format::Csv => &[".csv"],
            Format::Json => &[".jsonl", ".ndjson", ".json"],
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL
            .iter()
            .copied()
            .find(|format| format.name() == name)
    }

    /// The format that a file's name says.
    pub fn of_path(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let ends = |format: &Format| format.endings().iter().any(|ending| name.ends_with(ending));
        Format::ALL.iter().copied().find(ends)
    }

    /// Whether it is text that a terminal can show.
    pub const fn is_text(self) -> bool {
        matches!(
            self,
            Format::Speedscope | Format::Folded | Format::Csv | Format::Json
        )
    }
}
