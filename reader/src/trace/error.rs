//! Why a file could not be read as a trace: what, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that gave no answer at all.
#[derive(Debug)]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Problem {
    /// The system said no.
    Io(io::Error),
    /// Not a regular file.
    NotAFile,
    /// Nothing in it.
    Empty,
    /// It does not begin as a trace does.
    Foreign,
    /// Written by a later version.
    Newer {
        /// Format version of the file.
        version: u32,
        /// Latest version that this program reads.
        known: u32,
    },
    /// It is larger than this program reads.
    TooLarge {
        /// Bytes.
        size: u64,
        /// Most bytes that are read.
        limit: u64,
    },
    /// It ends before the parts that every answer needs.
    Truncated {
        /// Bytes there are.
        have: u64,
        /// Bytes it had.
        whole: u64,
        /// What is missing.
        missing: &'static str,
    },
    /// As an archive, or as part of one; a sentence without its subject.
    Archive(String),
    /// Its header contradicts itself.
    Damaged {
        /// Which part, with its numbers.
        what: String,
        /// Byte offset of that part in the file.
        at: u64,
    },
}

impl OpenError {
    pub(crate) fn new(path: &Path, problem: Problem) -> OpenError {
        OpenError {
            path: path.to_owned(),
            problem,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Io(error) => write!(f, "cannot be read: {error}"),
            Problem::NotAFile => write!(f, "is not a regular file"),
            Problem::Empty => write!(
                f,
                "is empty; the process ended before it wrote anything, or the copy went wrong"
            ),
            Problem::Foreign => write!(
                f,
                "is not a vramtrace trace (it does not begin with VRAMTRC)"
            ),
            Problem::Newer { version, known } => write!(
                f,
                "has format version {version}, this vramtrace reads up to {known}; use the \
                 vramtrace that came with the libvramtrace.so that wrote it, or a newer one"
            ),
            Problem::TooLarge { size, limit } => write!(
                f,
                "claims {size} bytes; traces above {limit} bytes are not read"
            ),
            Problem::Truncated {
                have,
                whole,
                missing,
            } => write!(
                f,
                "is cut off: {have} of {whole} bytes are there, {missing} is missing; copy it again"
            ),
            Problem::Archive(what) => f.write_str(what),
            Problem::Damaged { what, at } => write!(f, "is damaged at byte {at}: {what}"),
        }
    }
}
