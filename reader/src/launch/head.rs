//! The little of a trace that says whose it is and where it belongs.
//!
//! Read without the rest of the reader, so that even a trace which is too damaged to analyse still
//! reaches its place.

use super::liveness::Identity;
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vramtrace_format::cold::{self, Cold, MAX_PAYLOAD};
use vramtrace_format::layout::{Control, Header, MAGIC, Section};

/// The process record is among the first; no more than this is read to find it.
const COLD_READ: u64 = 8 * MAX_PAYLOAD as u64;

/// Whose trace it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The process.
    pub identity: Identity,
    /// Short name of the program; empty unknown.
    pub name: String,
    /// Where the trace belongs.
    pub final_path: Option<PathBuf>,
    /// Unix time of its start, nanoseconds.
    pub start_unix_ns: u64,
}

impl Head {
    /// Reads it; `None` if the file is no trace.
    pub fn read(path: &Path) -> io::Result<Option<Head>> {
        let file = File::open(path)?;
        let Some(header) = pod::<Header>(&file, 0).filter(|header| header.magic == MAGIC) else {
            return Ok(None);
        };
        let process = cold_records(&file, &header)
            .and_then(|bytes| {
                cold::records(&bytes).find_map(|record| match record {
                    Cold::Process(process) => Some(process),
                    _ => None,
                })
            })
            .unwrap_or_default();
        Ok(Some(Head {
            identity: Identity {
                pid: header.pid,
                start_ticks: header.start_ticks,
                pid_namespace: header.pid_namespace,
            },
            name: process.name,
            final_path: process
                .final_path
                .map(PathBuf::from)
                .filter(|path| path.is_absolute()),
            start_unix_ns: header.start_unix_ns,
        }))
    }
}

fn cold_records(file: &File, header: &Header) -> Option<Vec<u8>> {
    let section = |kind: Section| {
        header
            .sections
            .iter()
            .take(header.section_count as usize)
            .find(|entry| entry.kind == kind as u32)
    };
    let control = pod::<Control>(file, section(Section::Control)?.offset)?;
    let cold = section(Section::Cold)?;
    let length = control.cold_used.min(cold.length).min(COLD_READ);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, cold.offset).ok()?;
    Some(bytes)
}

fn pod<T: Pod + Zeroable>(file: &File, offset: u64) -> Option<T> {
    let mut value = T::zeroed();
    file.read_exact_at(bytemuck::bytes_of_mut(&mut value), offset)
        .ok()?;
    Some(value)
}
