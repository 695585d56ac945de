//! The command line: which commands and options there are. What they do is in
//! [`crate::commands`].

mod options;

pub use options::{FilterOptions, MOMENTS, Traces, by, layer};

use crate::commands;
use clap::{Parser, Subcommand};

/// Exit codes, as scripts rely on them.
pub mod exit {
    /// Fine.
    pub const FINE: i32 = 0;
    /// Leaks or growth were found where that was to fail.
    pub const FOUND: i32 = 1;
    /// Wrong usage.
    pub const USAGE: i32 = 2;
    /// A trace cannot be read, or is damaged.
    pub const UNREADABLE: i32 = 3;
    /// Nothing was found, but that is not certain.
    pub const INEXACT: i32 = 4;
}

/// Records and explains every GPU memory allocation of a program.
#[derive(Debug, Parser)]
#[command(
    name = "vramtrace",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "TRACE is a file, a directory or an archive, or several; without one, the newest \
                  trace of this user."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace a program and its children.
    Run(commands::run::Args),
    /// What is still allocated, grouped by call stack, largest first.
    Leaks(commands::leaks::Args),
    /// Process, devices, totals, peak, top stacks, losses.
    Summary(commands::summary::Args),
    /// Live bytes over time, per device and layer.
    Timeline(commands::timeline::Args),
    /// What was live at the peak of each device and layer, grouped by call stack.
    Peak(commands::peak::Args),
    /// Where the whole number goes that nvidia-smi shows for a process.
    Reconcile(commands::reconcile::Args),
    /// Stacks whose live bytes keep growing, how fast, and when that fills the device.
    Growth(commands::growth::Args),
    /// Short-lived allocations: how many, how long they live, what keeping their memory would save.
    Churn(commands::churn::Args),
    /// What is new, gone, grown or shrunk between two traces, or two moments of one.
    Diff(commands::diff::Args),
    /// What allocators hold without using it, where it lies, and what would give it back.
    Fragmentation(commands::fragmentation::Args),
    /// Each allocation that failed for lack of memory: what was asked and free, who held the rest.
    Oom(commands::oom::Args),
    /// One HTML file to look at all of it: timeline, flame graphs, maps of segments, tables.
    Report(commands::report::Args),
    /// Memory by call stack as a picture (SVG).
    Flamegraph(commands::flamegraph::Args),
    /// Write a trace in the format of another tool.
    Export(commands::export::Args),
    /// A consistent copy of a running process's trace.
    Snapshot(commands::snapshot::Args),
    /// Put traces and the symbols that they need into one file, to read it on another machine.
    Archive(commands::archive::Args),
    /// What running traced programs hold, on the terminal, as it changes.
    Top(commands::top::Args),
    /// Metrics of all traced processes of a directory, for Prometheus; a page, and profiles.
    Serve(commands::serve::Args),
    /// Does something when the memory of a running program crosses a threshold.
    Watch(commands::watch::Args),
    /// Is this file whole? What was lost, what was bypassed?
    Check(commands::check::Args),
    /// Can a program be traced here?
    Doctor(commands::doctor::Args),
    /// Run a leaking program and report it.
    Demo(commands::demo::Args),
    /// Names call sites for `serve`, `watch` and `top`.
    #[command(hide = true)]
    LiveNames(commands::live_names::Args),
    /// The program that the demo traces.
    #[command(hide = true)]
    DemoProgram(commands::demo::program::Args),
}

/// Runs the command that the arguments name; returns the exit code.
pub fn main() -> i32 {
    match Cli::parse().command {
        Command::Run(args) => commands::run::execute(args),
        Command::Leaks(args) => commands::leaks::execute(args),
        Command::Summary(args) => commands::summary::execute(args),
        Command::Timeline(args) => commands::timeline::execute(args),
        Command::Peak(args) => commands::peak::execute(args),
        Command::Reconcile(args) => commands::reconcile::execute(args),
        Command::Growth(args) => commands::growth::execute(args),
        Command::Churn(args) => commands::churn::execute(args),
        Command::Diff(args) => commands::diff::execute(args),
        Command::Fragmentation(args) => commands::fragmentation::execute(args),
        Command::Oom(args) => commands::oom::execute(args),
        Command::Report(args) => commands::report::execute(args),
        Command::Flamegraph(args) => commands::flamegraph::execute(args),
        Command::Export(args) => commands::export::execute(args),
        Command::Snapshot(args) => commands::snapshot::execute(args),
        Command::Archive(args) => commands::archive::execute(args),
        Command::Top(args) => commands::top::execute(args),
        Command::Serve(args) => commands::serve::execute(args),
        Command::Watch(args) => commands::watch::execute(args),
        Command::Check(args) => commands::check::execute(args),
        Command::Doctor(args) => commands::doctor::execute(args),
        Command::LiveNames(args) => commands::live_names::execute(args),
        Command::Demo(args) => commands::demo::execute(args),
        Command::DemoProgram(args) => commands::demo::program::execute(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
