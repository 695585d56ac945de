//! The time in which NVML is initialised, and what is asked in it.

use super::library::{
    Handle, INSUFFICIENT_SIZE, Library, MemoryV1, MemoryV2, NOT_AVAILABLE, ProcessInfo, Processes,
    Unavailable,
};
use std::ffi::{CString, c_char, c_uint};

/// More processes than this on one device are not believed.
const MOST_PROCESSES: usize = 1 << 16;

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What the driver keeps for itself; `None` where that is among what is used.
    pub reserved: Option<u64>,
    /// What is in use, by whomever.
    pub used: u64,
}

/// A process on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id, in whichever pid namespace NVML chose to tell.
    pub pid: u32,
    /// Its bytes there; `None` where the driver does not count them (WDDM, some virtual GPUs).
    pub bytes: Option<u64>,
}

/// NVML, initialised. It is shut down when this goes.
#[derive(Debug)]
pub struct Session {
    library: &'static Library,
}

impl Session {
    /// Initialises NVML. No device is touched before it is asked for.
    pub fn start() -> Result<Session, Unavailable> {
        let library = Library::get()?;
        // SAFETY: may be called at any time.
        library.check("nvmlInit_v2", unsafe { (library.init)() })?;
        Ok(Session { library })
    }

    /// Number of GPUs.
    pub fn count(&self) -> Option<u32> {
        let mut count = 0;
        // SAFETY: a valid place for the answer.
        let code = unsafe { self.library.count?(&mut count) };
        (code == 0).then_some(count)
    }

    /// Version of the driver.
    pub fn driver_version(&self) -> Option<String> {
        let mut text = [0; 80];
        // SAFETY: a buffer of the length that is given.
        let code = unsafe { self.library.driver_version?(text.as_mut_ptr(), 80) };
        (code == 0).then(|| until_nul(&text))
    }

    /// The device that a CUDA process knows by this UUID (`GPU-…`; CUDA says so of parts of GPUs as
    /// well, which NVML calls `MIG-…`), else by this PCI id. Empty ones are not looked for.
    pub fn device(&self, uuid: &str, pci: &str) -> Result<Handle, Unavailable> {
        let bare = bare_uuid(uuid);
        let mut result = Err(Unavailable::Nameless);
        if !bare.is_empty() {
            for prefix in ["GPU-", "MIG-"] {
                result = self.find(
                    "nvmlDeviceGetHandleByUUID",
                    self.library.by_uuid,
                    &format!("{prefix}{bare}"),
                );
                if result.is_ok() {
                    return result;
                }
            }
        } else if let (Some(by_pci), false) = (self.library.by_pci, pci.is_empty()) {
            // Only without a UUID: parts of a GPU share its PCI id.
            result = self.find("nvmlDeviceGetHandleByPciBusId_v2", by_pci, pci);
        }
        result
    }

    fn find(
        &self,
        function: &'static str,
        call: super::library::ByText,
        name: &str,
    ) -> Result<Handle, Unavailable> {
        let name = CString::new(name).unwrap_or_default();
        let mut handle = Handle(std::ptr::null_mut());
        // SAFETY: a NUL-terminated string and a valid place for the answer.
        let code = unsafe { call(name.as_ptr(), &mut handle) };
        self.library.check(function, code)?;
        Ok(handle)
    }

    /// UUID of a device; empty where NVML does not say.
    pub fn uuid(&self, device: Handle) -> String {
        let mut text = [0; 96];
        let Some(uuid) = self.library.uuid else {
            return String::new();
        };
        // SAFETY: a handle of this session and a buffer of the length that is given.
        let code = unsafe { uuid(device, text.as_mut_ptr(), 96) };
        if code == 0 {
            until_nul(&text)
        } else {
            String::new()
        }
    }

    /// The number of a device on this machine, as nvidia-smi counts them.
    pub fn index(&self, device: Handle) -> Option<u32> {
        let mut number = 0;
        // SAFETY: a handle of this session and a valid place for the answer.
        let code = unsafe { self.library.index?(device, &mut number) };
        (code == 0).then_some(number)
    }

    /// Memory of a device.
    pub fn memory(&self, device: Handle) -> Result<Memory, Unavailable> {
        if let Some(memory_v2) = self.library.memory_v2 {
            let mut memory = MemoryV2 {
                version: MemoryV2::VERSION,
                ..MemoryV2::default()
            };
            // SAFETY: a handle of this session and a structure that says its version.
            if unsafe { memory_v2(device, &mut memory) } == 0 {
                return Ok(Memory {
                    total: memory.total,
                    reserved: Some(memory.reserved),
                    used: memory.used,
                });
            }
        }
        let mut memory = MemoryV1::default();
        // SAFETY: a handle of this session and a valid place for the answer.
        let code = unsafe { (self.library.memory)(device, &mut memory) };
        self.library.check("nvmlDeviceGetMemoryInfo", code)?;
        Ok(Memory {
            total: memory.total,
            reserved: None,
            used: memory.used,
        })
    }

    /// The processes that have a context on a device; one with several kinds of them is there once.
    pub fn processes(&self, device: Handle) -> Result<Vec<Listed>, Unavailable> {
        let name = "nvmlDeviceGetComputeRunningProcesses_v3";
        let compute = self.library.compute.ok_or(Unavailable::Missing(name))?;
        let mut all = self.list(name, compute, device)?;
        // Where there is no graphics there is nobody to be missed.
        let graphics = self.library.graphics.and_then(|graphics| {
            let name = "nvmlDeviceGetGraphicsRunningProcesses_v3";
            self.list(name, graphics, device).ok()
        });
        for other in graphics.unwrap_or_default() {
            match all.iter_mut().find(|listed| listed.pid == other.pid) {
                Some(listed) => listed.bytes = listed.bytes.max(other.bytes),
                None => all.push(other),
            }
        }
        Ok(all)
    }

    fn list(
        &self,
        function: &'static str,
        call: Processes,
        device: Handle,
    ) -> Result<Vec<Listed>, Unavailable> {
        let mut room = 64;
        loop {
            // Twice the room that is told: some drivers' entries were longer than their version says
            // (see `Library::load`), and that is nothing to be overrun by.
            let mut infos = vec![ProcessInfo::default(); 2 * room];
            let mut count = room as c_uint;
            // SAFETY: a handle of this session and room for as many entries as `count` says.
            let code = unsafe { call(device, &mut count, infos.as_mut_ptr()) };
            if code == INSUFFICIENT_SIZE && room < MOST_PROCESSES {
                // More may come between two calls.
                room = (count as usize + 16).max(room * 2).min(MOST_PROCESSES);
                continue;
            }
            self.library.check(function, code)?;
            infos.truncate((count as usize).min(room));
            return Ok(infos
                .iter()
                .map(|info| Listed {
                    pid: info.pid,
                    bytes: (info.used_gpu_memory != NOT_AVAILABLE).then_some(info.used_gpu_memory),
                })
                .collect());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is shut down once.
        unsafe { (self.library.shutdown)() };
    }
}

/// A UUID without what says of what it is.
fn bare_uuid(uuid: &str) -> &str {
    let uuid = uuid.strip_prefix("MIG-").unwrap_or(uuid);
    uuid.strip_prefix("GPU-").unwrap_or(uuid)
}

fn until_nul(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c as u8).collect();
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
