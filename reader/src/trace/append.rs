//! Adds facts to a trace whose process has ended: the one place where the reader writes to a trace.
//!
//! The records go behind the last complete one, and the count that makes them part of the trace is
//! written when they are there: whatever happens in between, the file reads as before. By system
//! calls, never through a mapping: in a file that somebody cuts off meanwhile that is an error, not
//! a fault.

use super::error::Problem;
use super::sections::Sections;
use super::source::Source;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use vramtrace_format::Section;
use vramtrace_format::cold::{self, Cold, MAX_PAYLOAD};
use vramtrace_format::layout::Control;

/// Why nothing was added.
#[derive(Debug)]
pub enum Refusal {
    /// The section has not as much room as all of them need.
    NoRoom,
    /// The file is not whole; a sentence.
    Damaged(String),
    /// It cannot be read or written.
    Io(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoRoom => f.write_str("it has no room left for names and facts"),
            Refusal::Damaged(what) => f.write_str(what),
            Refusal::Io(error) => error.fmt(f),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        match problem {
            Problem::Io(error) => Refusal::Io(error),
            problem => Refusal::Damaged(problem.to_string()),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Io(error)
    }
}

/// Adds all of `records`, or none. The caller knows that no process writes to the file any more,
/// and that nobody else adds to it.
pub fn append(path: &Path, records: &[Cold]) -> Result<(), Refusal> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Problem::NotAFile.into());
    }
    let source = Source::new(file.try_clone()?, metadata.len());
    let sections = Sections::read(&source)?;
    if metadata.len() != sections.header.file_size {
        return Err(Refusal::Damaged("it is not as long as it says".into()));
    }
    let (cold, control) = (sections.of(Section::Cold), sections.of(Section::Control));
    let used = sections.control(&source)?.cold_used;
    let room = match cold.rows.checked_sub(used) {
        Some(room) if used.is_multiple_of(8) => room,
        _ => {
            return Err(Refusal::Damaged(
                "its cold section is not as full as it says".into(),
            ));
        }
    };
    let mut before = vec![0; used as usize];
    source.bytes(cold.offset, &mut before)?;
    let mut all = cold::records(&before);
    if all.by_ref().last().is_none() || all.damaged_at().is_some() {
        return Err(Refusal::Damaged("its cold records are not whole".into()));
    }
    let most = records.len().saturating_mul(MAX_PAYLOAD + 16);
    let mut added = vec![0; most.min(room as usize)];
    let mut length = 0;
    for record in records {
        length = cold::append(&mut added, length, record).ok_or(Refusal::NoRoom)?;
    }
    file.write_all_at(&added[..length as usize], cold.offset + used)?;
    file.write_all_at(
        &(used + length).to_le_bytes(),
        control.offset + offset_of!(Control, cold_used) as u64,
    )?;
    Ok(())
}
