//! The reader: opens trace files, models the process that wrote them, analyses, reports.
//!
//! `trace` makes a consistent copy of a file (also of one that is being written) → `model` says
//! what the numbers in it stand for → `analysis` answers questions, as pure functions from the
//! model to result structs → `report` shows those structs as text or JSON and computes nothing.
//! `export` writes what other tools open. `archive` puts traces and their symbols into one file, and
//! opens it.
//! `export` writes what other tools open, `page` one HTML file that shows all of it.
//! `symbols` turns return addresses into source lines. `launch` is the other direction: it starts
//! programs with the recorder in them. `nvml` asks the system what nvidia-smi shows. `live` follows
//! traces of running processes: for `serve`, `watch` and `top`. `commands` has one command of the binary per file.
//!
//! Nothing read from a file is trusted: a torn, truncated, foreign or hostile trace gives a precise
//! error or a partial answer that says what is missing; never a panic, never unbounded memory.

pub mod analysis;
pub mod archive;
pub mod cli;
pub mod commands;
pub mod export;
pub mod launch;
pub mod live;
pub mod model;
pub mod nvml;
pub mod page;
pub mod report;
pub mod serve;
pub mod symbols;
pub mod top;
pub mod trace;
pub mod watch;
