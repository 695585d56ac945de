//! Asks NVML, while a program runs, what nvidia-smi shows of the processes that have traces.
//!
//! In a thread of its own, which may hang in a driver that hangs: nobody waits for it, and what it
//! found so far is taken from it. NVML is left alone until there is a trace, that is until
//! a process uses CUDA, and again when none does.

use super::watch::Traces;
use crate::model::UseSample;
use crate::nvml::series::Series;
use crate::nvml::{self, Handle, Reading, Session, Unavailable};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use vramtrace_format::cold::Device;

/// Time between two samples, by how long ago the newest process came: what a context and libraries
/// take, they take first.
const STEPS: [(Duration, Duration); 2] = [
    (Duration::from_secs(2), Duration::from_millis(50)),
    (Duration::from_secs(10), Duration::from_millis(250)),
];
/// Time between two samples later.
const STEADY: Duration = Duration::from_secs(1);
/// Asking takes at most one part in so many of the time, however many devices there are.
const SHARE: u32 = 40;
/// How often the directory is looked at where the kernel does not tell of new files.
const LOOK: Duration = Duration::from_millis(100);

/// Samples of the devices of one trace, by ordinal.
pub type OfTrace = BTreeMap<u8, Series>;

/// What was found.
#[derive(Debug, Default)]
pub struct Samples {
    /// By path of the trace in the run directory.
    pub traces: HashMap<PathBuf, OfTrace>,
    /// Why there are none, where NVML is there and refuses.
    pub trouble: Option<Unavailable>,
}

/// The thread.
#[derive(Debug)]
pub struct Sampler(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Never held during a call of NVML.
    samples: Mutex<Samples>,
    stop: AtomicBool,
    wake: OwnedFd,
}

impl Shared {
    fn samples(&self) -> MutexGuard<'_, Samples> {
        // A panic between two assignments leaves nothing half done.
        self.samples
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Sampler {
    /// Starts it. Signals that the calling thread blocks, it blocks too. `None` where the kernel
    /// refuses a thread or a descriptor: then there are no samples.
    pub fn start(run_dir: &Path) -> Option<Sampler> {
        // SAFETY: plain integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return None;
        }
        let shared = Arc::new(Shared {
            samples: Mutex::default(),
            stop: AtomicBool::new(false),
            // SAFETY: eventfd just returned it; nobody else owns it.
            wake: unsafe { OwnedFd::from_raw_fd(fd) },
        });
        let (its_own, run_dir) = (Arc::clone(&shared), run_dir.to_owned());
        nvml::thread(move || sample(&its_own, &run_dir)).ok()?;
        Some(Sampler(shared))
    }

    /// Ends it, and takes what it found. Nothing is waited for: what is under way is about processes
    /// that have ended. Its thread may go on for a moment, or for ever (see [`nvml::end_process`]).
    pub fn finish(self) -> Samples {
        self.0.stop.store(true, Ordering::SeqCst);
        let one = 1u64.to_ne_bytes();
        // SAFETY: an open eventfd and eight bytes.
        unsafe { libc::write(self.0.wake.as_raw_fd(), one.as_ptr().cast(), 8) };
        std::mem::take(&mut *self.0.samples())
    }
}

/// The thread's work.
fn sample(shared: &Shared, run_dir: &Path) {
    let arrivals = Arrivals::watch(run_dir);
    let mut traces = Traces::default();
    let mut open: Option<Open> = None;
    let mut newest = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        if traces.refresh(run_dir) {
            newest = Instant::now();
        }
        if traces.running().next().is_none() {
            // Nobody uses CUDA: the GPU may sleep.
            open = None;
            arrivals.wait(&shared.wake, None);
            continue;
        }
        let open = match &mut open {
            Some(open) => open,
            none => match Open::start() {
                Ok(started) => none.insert(started),
                Err(why) => {
                    if why != Unavailable::NoLibrary {
                        shared.samples().trouble = Some(why);
                    }
                    return;
                }
            },
        };
        let began = Instant::now();
        let readings = open.ask(&traces, shared);
        if traces.refresh(run_dir) {
            newest = Instant::now();
        }
        open.give(&readings, &traces, shared);
        let pause = pause(newest.elapsed(), began.elapsed());
        arrivals.wait(&shared.wake, Some(pause));
    }
}

/// What was read.
#[derive(Default)]
struct Readings {
    /// Traces of the processes that it was read for.
    asked: Vec<PathBuf>,
    /// What devices were said to have; `None` where NVML refused.
    devices: HashMap<Handle, Option<Reading>>,
}

/// NVML while it is initialised.
struct Open {
    session: Session,
    /// By UUID and PCI id in traces; `None` for what NVML does not know.
    handles: HashMap<(String, String), Option<(Handle, String)>>,
}

impl Open {
    fn start() -> Result<Open, Unavailable> {
        Ok(Open {
            session: Session::start()?,
            handles: HashMap::new(),
        })
    }

    /// Asks each device once, for all processes on it.
    fn ask(&mut self, traces: &Traces, shared: &Shared) -> Readings {
        let mut readings = Readings::default();
        for (path, watched) in traces.running() {
            readings.asked.push(path.to_owned());
            for device in watched.devices.values() {
                let Some((handle, _)) = self.known(device, shared) else {
                    continue;
                };
                readings.devices.entry(handle).or_insert_with(|| {
                    let reading = Reading::of(&self.session, handle);
                    reading
                        .map_err(|why| shared.samples().trouble.get_or_insert(why).clone())
                        .ok()
                });
            }
        }
        readings
    }

    /// Gives what was read to the processes that it was read for.
    fn give(&mut self, readings: &Readings, traces: &Traces, shared: &Shared) {
        for path in &readings.asked {
            // What was read may be about the program that it has become.
            let Some(watched) = traces.get(path).filter(|watched| !watched.replaced) else {
                continue;
            };
            for (&index, device) in &watched.devices {
                let Some((handle, uuid)) = self.known(device, shared) else {
                    continue;
                };
                let Some(Some(reading)) = readings.devices.get(&handle) else {
                    continue;
                };
                let alone = watched.runs && traces.users(&device.uuid) == 1;
                let began = watched.start_monotonic_ns;
                let sample = reading.sample(&watched.pids, alone, began);
                // One that has ended since would look like a process without memory.
                let valid = |sample: &UseSample| watched.runs || sample.process_bytes.is_some();
                if let Some(sample) = sample.filter(valid) {
                    let mut samples = shared.samples();
                    let of_trace = samples.traces.entry(path.to_owned()).or_default();
                    let series = of_trace.entry(index);
                    series.or_insert_with(|| Series::new(uuid)).add(sample);
                }
            }
        }
    }

    /// A device that a trace names, and its UUID; it is looked for once.
    fn known(&mut self, device: &Device, shared: &Shared) -> Option<(Handle, String)> {
        let key = (device.uuid.clone(), device.pci.clone());
        let session = &self.session;
        let look = || match session.device(&device.uuid, &device.pci) {
            Ok(handle) => Some((handle, session.uuid(handle))),
            Err(why) => {
                shared.samples().trouble.get_or_insert(why);
                None
            }
        };
        self.handles.entry(key).or_insert_with(look).clone()
    }
}

/// How long to wait after an answer that took so long, the newest process having come so long ago.
fn pause(age: Duration, took: Duration) -> Duration {
    let step = STEPS.iter().find(|(until, _)| age < *until);
    step.map_or(STEADY, |&(_, step)| step).max(took * SHARE)
}

/// New files in a directory.
struct Arrivals {
    /// An inotify descriptor; `None` where the kernel gives none.
    inotify: Option<OwnedFd>,
}

impl Arrivals {
    fn watch(directory: &Path) -> Arrivals {
        Arrivals {
            inotify: inotify(directory).ok(),
        }
    }

    /// Waits until a file has come, `wake` is written to, or `limit` is over.
    fn wait(&self, wake: &OwnedFd, limit: Option<Duration>) {
        let limit = match (limit, &self.inotify) {
            (None, None) => Some(LOOK),
            (limit, _) => limit,
        };
        let entry = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // A negative descriptor is left out.
        let inotify = self.inotify.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut entries = [entry(wake.as_raw_fd()), entry(inotify)];
        let limit = limit.map_or(-1, |limit| limit.as_millis() as libc::c_int);
        // SAFETY: two valid entries.
        unsafe { libc::poll(entries.as_mut_ptr(), 2, limit) };
        if entries[1].revents != 0 {
            let mut events = [0u8; 4096];
            // SAFETY: an open, non-blocking descriptor and a buffer of this length.
            unsafe { libc::read(inotify, events.as_mut_ptr().cast(), events.len()) };
        }
    }
}

fn inotify(directory: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: plain flags.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: inotify_init1 just returned it; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let wanted = libc::IN_CREATE | libc::IN_MOVED_TO;
    // SAFETY: an inotify descriptor and a NUL-terminated path.
    match unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), wanted) } {
        watch if watch >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_often_first_and_never_all_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(0), ms(0)), ms(50));
        assert_eq!(pause(ms(2000), ms(1)), ms(250));
        assert_eq!(pause(ms(10_000), ms(1)), ms(1000));
        assert_eq!(pause(ms(0), ms(5)), ms(200));
        assert_eq!(pause(ms(60_000), ms(100)), ms(4000));
    }
}
