//! The traces that appear in a run directory, and which devices their processes use, as far as
//! they have said so yet.

use super::head::Head;
use super::liveness::Identity;
use super::snapshots;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vramtrace_format::Section;
use vramtrace_format::cold::{self, Cold, Device};
use vramtrace_format::layout::{Control, Header};

/// A trace, and what its process uses.
#[derive(Debug)]
pub struct Watched {
    identity: Identity,
    /// CLOCK_MONOTONIC of its start, nanoseconds.
    pub start_monotonic_ns: u64,
    /// Devices by ordinal.
    pub devices: BTreeMap<u8, Device>,
    /// Whether its process runs, as of the last look.
    pub runs: bool,
    /// Whether its process became another program, whose trace is written since.
    pub replaced: bool,
    /// Its process ids, ours first; they stay the same for life.
    pub pids: Vec<u32>,
    /// The trace, as long as its process runs.
    file: Option<File>,
    /// Where its counters and its cold records are.
    control: u64,
    cold: (u64, u64),
    /// Bytes of cold records that were looked at.
    seen: u64,
}

/// All traces of a run directory.
#[derive(Debug, Default)]
pub struct Traces {
    all: HashMap<PathBuf, Watched>,
}

impl Traces {
    /// Looks for new traces, whether the processes of the others still run, and what devices they
    /// have come to use. Returns whether there are new ones.
    pub fn refresh(&mut self, run_dir: &Path) -> bool {
        let mut new = false;
        for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let other = being_made(&entry.file_name()) || snapshots::suffix(&path).is_some();
            if !is_file || self.all.contains_key(&path) || other {
                continue;
            }
            // What cannot be read yet is looked at again the next time.
            if let Some(watched) = Watched::open(&path) {
                self.all.insert(path, watched);
                new = true;
            }
        }
        for watched in self.all.values_mut().filter(|watched| watched.runs) {
            watched.runs = watched.still_runs();
            watched.learn();
        }
        for watched in self.all.values_mut().filter(|watched| !watched.runs) {
            watched.file = None;
        }
        self.leave_programs_behind();
        new
    }

    /// A process that became another program has a trace for each, of which the newest is still
    /// written.
    fn leave_programs_behind(&mut self) {
        let mut newest: HashMap<(u32, u64, u64), u64> = HashMap::new();
        let key =
            |identity: &Identity| (identity.pid, identity.start_ticks, identity.pid_namespace);
        for watched in self.all.values() {
            let start = newest.entry(key(&watched.identity)).or_default();
            *start = watched.start_monotonic_ns.max(*start);
        }
        for watched in self.all.values_mut() {
            let start = newest.get(&key(&watched.identity));
            watched.replaced = start != Some(&watched.start_monotonic_ns);
            watched.runs &= !watched.replaced;
        }
    }

    /// Those whose process runs.
    pub fn running(&self) -> impl Iterator<Item = (&Path, &Watched)> {
        let running = self.all.iter().filter(|(_, watched)| watched.runs);
        running.map(|(path, watched)| (path.as_path(), watched))
    }

    /// One of them.
    pub fn get(&self, path: &Path) -> Option<&Watched> {
        self.all.get(path)
    }

    /// How many of the processes that run use a device with this UUID.
    pub fn users(&self, uuid: &str) -> usize {
        self.running()
            .filter(|(_, watched)| watched.devices.values().any(|device| device.uuid == uuid))
            .count()
    }
}

impl Watched {
    fn open(path: &Path) -> Option<Watched> {
        let head = Head::read(path).ok()??;
        let file = File::open(path).ok()?;
        let mut header = [0; size_of::<Header>()];
        file.read_exact_at(&mut header, 0).ok()?;
        let header: Header = bytemuck::pod_read_unaligned(&header);
        let section = |kind: Section| {
            let mut entries = header.sections.iter().take(header.section_count as usize);
            entries.find(|entry| entry.kind == kind as u32)
        };
        let (control, cold) = (section(Section::Control)?, section(Section::Cold)?);
        // No more is ever read than the file has.
        let most = file.metadata().ok()?.len().saturating_sub(cold.offset);
        Some(Watched {
            pids: head.identity.pids(),
            identity: head.identity,
            start_monotonic_ns: header.start_monotonic_ns,
            devices: BTreeMap::new(),
            runs: true,
            replaced: false,
            file: Some(file),
            control: control.offset,
            cold: (cold.offset, cold.length.min(most)),
            seen: 0,
        })
    }

    /// Whether its process runs now.
    fn still_runs(&self) -> bool {
        let pid = self.pids.first();
        pid.is_some_and(|&pid| self.identity.still_runs_as(pid))
    }

    /// Reads the cold records that are new.
    fn learn(&mut self) {
        let Some(new) = self.new_records() else {
            return;
        };
        for record in cold::records(&new) {
            if let Cold::Device(device) = record {
                self.devices.insert(device.index, device);
            }
        }
        self.seen += new.len() as u64;
    }

    fn new_records(&self) -> Option<Vec<u8>> {
        let file = self.file.as_ref()?;
        let mut control = [0; size_of::<Control>()];
        file.read_exact_at(&mut control, self.control).ok()?;
        let control: Control = bytemuck::pod_read_unaligned(&control);
        let (offset, length) = self.cold;
        let complete = control.cold_used.min(length);
        let mut new = vec![0; complete.checked_sub(self.seen)? as usize];
        file.read_exact_at(&mut new, offset + self.seen).ok()?;
        Some(new)
    }
}

/// Whether a file has the name under which the recorder prepares a trace where it cannot do so
/// without a name; the same file gets its own name next.
fn being_made(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".vramtrace-") && name.ends_with(b".tmp")
}
