//! What a vramtrace trace file is.
//!
//! The recorder in the target writes such a file, the reader outside it reads one; this crate
//! is the contract between them and depends on neither. It says where every byte is
//! ([`layout`]), what one event looks like ([`record`]), what an event *does* to the tables
//! that make a trace exact even after its ring has wrapped ([`apply`]), and how variable-size
//! facts are kept ([`cold`]). `docs/trace-format.md` says the same for readers in other
//! languages.
//!
//! A trace has two halves. The *rings* ([`ring`]) are a log that forgets its oldest events; the
//! *tables* (live set, totals, accounts, history, curves) are a checkpoint that never forgets what is
//! still allocated. One event is first written completely to its ring, then applied to the
//! tables under the protection of an undo [`journal`]; whoever opens the file after the process
//! was killed undoes the interrupted application and applies the event again, through the very
//! same [`apply::Tables::apply`].
//!
//! Nothing here allocates, locks, or calls the system (except [`cold`], which decodes into owned
//! values): the recorder calls it inside a process that is not ours.

pub mod account;
pub mod apply;
pub mod cold;
pub mod curves;
pub mod footprint;
pub mod history;
pub mod index;
pub mod journal;
pub mod layout;
pub mod live;
mod publish;
pub mod ranges;
pub mod record;
pub mod reported;
pub mod ring;
pub mod sampling;
pub mod snapshot;
pub mod stacks;
pub mod totals;

pub use layout::{Layout, Section};
pub use record::{Kind, Layer, Op, Record, Space};

/// Stores one word of the file so that readers, and whoever opens the file after a crash, see
/// everything written before it.
pub fn publish_word(cell: &mut u64, value: u64) {
    publish::publish(cell, value);
}
