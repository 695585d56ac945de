//! Traces and the symbols that they need in one file, to be read where the traced programs are not.
//!
//! An archive is a tar file, so that people can look inside and take traces out with `tar`:
//!
//! - `vramtrace-archive.json`, first: the [`Manifest`], which says what else is in it
//! - `symbols.json`: functions and lines of all stacks ([`crate::symbols::Archived`])
//! - `traces/NAME`: each trace, as it was but for what is zero (GNU tar's sparse format 1.0)
//!
//! Nothing is unpacked to read it: a trace is read where it lies ([`crate::trace::Piece`]), through
//! the same checks as a file of its own. Nothing in an archive names a file outside it, and its sizes
//! are believed as far as the file goes.
//!
//! - [`sparse`]: which bytes of a trace are kept, and how tar is told
//! - [`write()`]: making one
//! - [`read`]: opening one

mod read;
mod sparse;
mod write;

pub use read::{Inside, is_archive, open};
pub use write::{Source, write};

use serde::{Deserialize, Serialize};

/// Name of the manifest in an archive.
const MANIFEST: &str = "vramtrace-archive.json";
/// Name of the symbols.
const SYMBOLS: &str = "symbols.json";
/// Name and version of the manifest.
const SCHEMA: &str = "vramtrace.archive/1";

/// What an archive holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Manifest {
    /// [`SCHEMA`].
    schema: String,
    /// Version of the vramtrace that made it.
    vramtrace: String,
    /// Traces, in the order in which reports show them.
    traces: Vec<Member>,
}

/// One trace in an archive.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Member {
    /// Name of the member.
    member: String,
    /// How the process had ended when the archive was made: a word of [`crate::model::State`].
    end: String,
}
