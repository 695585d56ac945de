//! What nvidia-smi shows: asked of the system's management library (NVML), always from outside the
//! process that it is about.
//!
//! In: a device by its UUID, and the process ids that a process has. Out: [`UseSample`]s. Without the
//! library, or where it refuses, there is one reason, an [`Unavailable`].
//!
//! - [`library`]: loading libnvidia-ml.so.1, and its functions
//! - [`session`]: the time in which it is initialised
//! - [`find`]: which of the processes on a device is the one in question
//! - [`series`]: samples of a device, thinned out as they become many

pub mod find;
mod library;
pub mod series;
mod session;

pub use library::{Handle, Unavailable};
pub use session::{Listed, Memory, Session};

use crate::launch::liveness::Identity;
use crate::model::{FoundBy, Process, UseSample};
use find::find;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long an answer is waited for where somebody waits for ours.
const PATIENCE: Duration = Duration::from_secs(5);

/// What NVML said of a device.
#[derive(Clone, Debug)]
pub struct Reading {
    list: Vec<Listed>,
    memory: Memory,
    /// CLOCK_MONOTONIC, nanoseconds.
    at: u64,
}

impl Reading {
    /// Asks now.
    pub fn of(session: &Session, device: Handle) -> Result<Reading, Unavailable> {
        let at = monotonic_ns();
        // The list first: what a process takes in between shows in the device's figure, not the
        // other way round. Without a list there is still that figure.
        let mut list = session.processes(device).unwrap_or_default();
        let memory = session.memory(device)?;
        // More than there is: one of them gave memory back in between, or ended.
        let sum = list
            .iter()
            .filter_map(|of| of.bytes)
            .fold(0, u64::saturating_add);
        if sum > memory.used {
            list = session.processes(device).unwrap_or_default();
        }
        Ok(Reading { list, memory, at })
    }

    /// What that says about a process: its ids, ours first; whether no other traced process uses the
    /// device; and CLOCK_MONOTONIC of its event time 0. `None` if that was later.
    pub fn sample(&self, pids: &[u32], alone: bool, began: u64) -> Option<UseSample> {
        let time = self.at.checked_sub(began)?;
        let found = find(&self.list, pids, alone, &find::is_visible);
        Some(UseSample {
            time,
            process_bytes: found.and_then(|found| found.bytes),
            found_by: found.map_or_else(FoundBy::default, |found| found.by),
            used_bytes: self.memory.used,
            reserved_bytes: self.memory.reserved,
            total_bytes: self.memory.total,
        })
    }
}

/// What NVML says now of each device of a process that runs, by ordinal. The sample's time is event
/// time, as everything in the trace. A device that NVML does not know is not there.
pub fn sample_now(process: &Process) -> Result<Vec<(u8, UseSample)>, Unavailable> {
    let identity = Identity {
        pid: process.identity.pid,
        start_ticks: process.identity.start_ticks,
        pid_namespace: process.identity.pid_namespace,
    };
    let began = process.trace.header().start_monotonic_ns;
    let devices: Vec<(u8, String, String)> = process
        .devices
        .values()
        .map(|device| (device.index, device.uuid.clone(), device.pci.clone()))
        .collect();
    in_time(move || {
        let session = Session::start()?;
        let pids = identity.pids();
        let mut samples = Vec::new();
        for (index, uuid, pci) in devices {
            let Ok(handle) = session.device(&uuid, &pci) else {
                continue;
            };
            // Whether others use it is not known here, so nothing is assumed.
            let reading = Reading::of(&session, handle)?;
            let sample = reading.sample(&pids, false, began);
            samples.extend(sample.map(|sample| (index, sample)));
        }
        Ok(samples)
    })
}

/// Version of the driver and number of GPUs, as far as NVML knows them.
pub fn about() -> Result<(Option<String>, Option<u32>), Unavailable> {
    in_time(|| {
        let session = Session::start()?;
        Ok((session.driver_version(), session.count()))
    })
}

/// Threads that may be inside the library.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Starts a thread that calls the library, and may never come back from it.
pub fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    INSIDE.fetch_add(1, Ordering::SeqCst);
    // If there is no thread, the closure goes, and it with it.
    let inside = Inside;
    let work = move || {
        let _inside = inside;
        work();
    };
    std::thread::Builder::new()
        .name("nvml".into())
        .spawn(work)
        .map(drop)
}

/// Ends this process. Where a thread is still inside the library, without what libraries do at an
/// ordinary end: it would be taken down under that thread.
pub fn end_process(code: i32) -> ! {
    if INSIDE.load(Ordering::SeqCst) != 0 {
        // Nobody may be reading any more.
        let _ = io::stdout().flush();
        // SAFETY: takes a plain number. What was buffered is written.
        unsafe { libc::_exit(code) };
    }
    std::process::exit(code)
}

/// Asks in a thread of its own, which is left alone if it does not answer.
fn in_time<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
) -> Result<T, Unavailable> {
    let (tell, told) = mpsc::channel();
    if thread(move || drop(tell.send(ask()))).is_err() {
        return Err(Unavailable::Silent);
    }
    told.recv_timeout(PATIENCE)
        .unwrap_or(Err(Unavailable::Silent))
}

/// CLOCK_MONOTONIC, nanoseconds.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
