//! What every answer says first: about whom it is, and how far it can be trusted.

use super::view::{DeviceView, Devices, ProcessView};
use crate::model::{CudaUse, Process};

/// The processes and devices of an answer, and what is not certain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Why the answer may be wrong: a stable word, a colon, a sentence. Empty if it is exact.
    pub incomplete_because: Vec<String>,
    /// Events that were never recorded.
    pub lost_events: u64,
    /// What was seen of CUDA in each process.
    pub cuda_use: Vec<CudaUse>,
    /// What the recorders, and the analysis, want people to know.
    pub notes: Vec<String>,
    /// Processes by id.
    pub processes: Vec<ProcessView>,
    /// Devices by id.
    pub devices: Vec<DeviceView>,
}

impl Head {
    /// Of these processes, in this order; `devices` is what their devices are numbered by.
    pub fn of(processes: &[Process], devices: &mut Devices) -> Head {
        let mut head = Head::default();
        for (id, process) in processes.iter().enumerate() {
            devices.add_all(process, id);
            for reason in &process.losses.live_inexact {
                head.because(format!("{}: {}", reason.code, reason.text));
            }
            head.lost_events = head.lost_events.saturating_add(process.losses.lost());
            head.cuda_use.push(process.cuda_use());
            head.notes
                .extend(process.remarks().map(|note| note.text.clone()));
            head.processes.push(ProcessView::of(process, id));
        }
        head.devices.clone_from(&devices.all);
        head
    }

    /// Adds a reason why the answer may be wrong, once.
    pub fn because(&mut self, reason: String) {
        if !self.incomplete_because.contains(&reason) {
            self.incomplete_because.push(reason);
        }
    }

    /// Adds something that people should know, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether the answer is exact.
    pub fn complete(&self) -> bool {
        self.incomplete_because.is_empty()
    }

    /// Whether a trace is damaged.
    pub fn damaged(&self) -> bool {
        let damaged = |reason: &String| reason.starts_with("damaged:");
        self.incomplete_because.iter().any(damaged)
    }

    /// Whether memory was seen in any process.
    pub fn saw_memory(&self) -> bool {
        self.cuda_use.contains(&CudaUse::Memory)
    }
}
