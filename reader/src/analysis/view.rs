//! Who and what an answer is about, in the words of reports.

use crate::model::{Process, Sampling, State};
use std::path::PathBuf;

/// A process, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessView {
    /// Position among the processes of this answer.
    pub id: usize,
    /// Process id as the process saw itself.
    pub pid: u32,
    /// Path of its executable.
    pub program: String,
    /// File name of that.
    pub name: String,
    /// Which of several ranks.
    pub rank: Option<u32>,
    /// Name of its machine.
    pub host: String,
    /// When its trace began, Unix nanoseconds.
    pub start_ns: u64,
    /// How long it was traced, nanoseconds.
    pub duration_ns: u64,
    /// Whether it runs, or how it ended.
    pub end: State,
    /// Its trace.
    pub trace: PathBuf,
    /// Which of its stacks were taken.
    pub sampling: Sampling,
}

impl ProcessView {
    /// Of a process that is the answer's `id`-th.
    pub fn of(process: &Process, id: usize) -> ProcessView {
        let pid = match process.identity.pid {
            0 => process.trace.header().pid,
            pid => pid,
        };
        ProcessView {
            id,
            pid,
            program: process.identity.program.clone(),
            name: process.program_name().to_owned(),
            rank: process.identity.rank,
            host: process.identity.host.clone(),
            start_ns: process.trace.header().start_unix_ns,
            duration_ns: process.duration_ns(),
            end: process.state,
            trace: process.trace.path.clone(),
            sampling: process.sampling.clone(),
        }
    }
}

/// A device, as reports name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceView {
    /// Position among the devices of this answer.
    pub id: usize,
    /// `GPU-…`; empty if the trace does not say.
    pub uuid: String,
    /// PCI bus id; empty if the trace does not say.
    pub pci: String,
    /// Ordinal in its process.
    pub index: u8,
    /// Product name; empty if the trace does not say.
    pub name: String,
    /// Bytes of memory; 0 unknown.
    pub total_bytes: u64,
}

/// The devices of an answer: the same one in several processes is one, if they number it alike.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// All of them, by id.
    pub all: Vec<DeviceView>,
    known: Vec<(usize, u8, usize)>,
}

impl Devices {
    /// Adds all devices of a process.
    pub fn add_all(&mut self, process: &Process, id: usize) {
        for &index in process.devices.keys() {
            self.id_of(process, id, index);
        }
    }

    /// Id of a process's device, whether or not its trace describes it.
    pub fn id_of(&mut self, process: &Process, process_id: usize, index: u8) -> usize {
        let known = |entry: &&(usize, u8, usize)| (entry.0, entry.1) == (process_id, index);
        if let Some(&(_, _, id)) = self.known.iter().find(known) {
            return id;
        }
        let mut view = DeviceView {
            id: self.all.len(),
            index,
            ..DeviceView::default()
        };
        if let Some(device) = process.devices.get(&index) {
            view.uuid.clone_from(&device.uuid);
            view.pci.clone_from(&device.pci);
            view.name.clone_from(&device.name);
            view.total_bytes = device.total_bytes;
        }
        let same = self.all.iter().find(|other| {
            !view.uuid.is_empty() && other.uuid == view.uuid && other.index == view.index
        });
        let id = match same {
            Some(same) => same.id,
            None => {
                self.all.push(view);
                self.all.len() - 1
            }
        };
        self.known.push((process_id, index, id));
        id
    }
}
