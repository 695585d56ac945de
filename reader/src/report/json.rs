//! What all JSON documents share. Field names are a contract: add, never rename.

use crate::analysis::Sum;
use crate::analysis::view::{DeviceView, ProcessView};
use crate::model::{PythonStacks, Torch};
use crate::report::sampling::SamplingJson;
use serde::Serialize;

/// `{"bytes","count"}`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SumJson {
    bytes: u64,
    count: u64,
}

impl From<Sum> for SumJson {
    fn from(sum: Sum) -> SumJson {
        SumJson {
            bytes: sum.bytes,
            count: sum.count,
        }
    }
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessJson {
    id: usize,
    pid: u32,
    program: String,
    rank: Option<u32>,
    host: String,
    start_ns: u64,
    duration_ns: u64,
    end: &'static str,
    trace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling: Option<SamplingJson>,
}

impl From<&ProcessView> for ProcessJson {
    fn from(view: &ProcessView) -> ProcessJson {
        ProcessJson {
            id: view.id,
            pid: view.pid,
            program: view.program.clone(),
            rank: view.rank,
            host: view.host.clone(),
            start_ns: view.start_ns,
            duration_ns: view.duration_ns,
            end: view.end.name(),
            trace: view.trace.to_string_lossy().into_owned(),
            sampling: SamplingJson::of(view),
        }
    }
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceJson {
    id: usize,
    uuid: String,
    pci: String,
    index: u8,
    name: String,
    total_bytes: Option<u64>,
}

impl From<&DeviceView> for DeviceJson {
    fn from(view: &DeviceView) -> DeviceJson {
        DeviceJson {
            id: view.id,
            uuid: view.uuid.clone(),
            pci: view.pci.clone(),
            index: view.index,
            name: view.name.clone(),
            total_bytes: (view.total_bytes != 0).then_some(view.total_bytes),
        }
    }
}

/// A thread: `{"id","name"}`.
#[derive(Clone, Debug, Serialize)]
pub struct NamedJson {
    id: u32,
    name: Option<String>,
}

impl From<&(u32, Option<String>)> for NamedJson {
    fn from(named: &(u32, Option<String>)) -> NamedJson {
        NamedJson {
            id: named.0,
            name: named.1.clone(),
        }
    }
}

/// A process's Python: `{"version","stacks_recorded","why_not"}`.
#[derive(Clone, Debug, Serialize)]
pub struct PythonJson {
    version: String,
    stacks_recorded: bool,
    why_not: Option<String>,
}

impl From<&PythonStacks> for PythonJson {
    fn from(python: &PythonStacks) -> PythonJson {
        PythonJson {
            version: python.version.clone(),
            stacks_recorded: python.recorded,
            why_not: (!python.recorded).then(|| python.why.clone()),
        }
    }
}

/// What PyTorch's allocator says of itself: `{"allocated","reserved","seen","differs"}`. `seen` are
/// the bytes of the blocks in the trace at that moment.
#[derive(Clone, Debug, Serialize)]
pub struct TorchJson {
    allocated: u64,
    reserved: u64,
    seen: Option<u64>,
    differs: bool,
}

impl From<&Torch> for TorchJson {
    fn from(torch: &Torch) -> TorchJson {
        TorchJson {
            allocated: torch.allocated,
            reserved: torch.reserved,
            seen: torch.seen,
            differs: torch.differs(),
        }
    }
}

/// Views of a list.
pub fn list<'a, T: 'a, J: From<&'a T>>(items: impl IntoIterator<Item = &'a T>) -> Vec<J> {
    items.into_iter().map(J::from).collect()
}

/// One document, on one line of its own.
pub fn document(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => text + "\n",
        Err(error) => unreachable!("plain data is always JSON: {error}"),
    }
}
