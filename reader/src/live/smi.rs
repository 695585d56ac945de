//! What NVML says of the devices that traced processes use, asked with each sample.
//!
//! In a thread of its own, which may hang in a driver that hangs: then samples go on without. NVML is
//! initialised only while a process uses a device.

use super::sample::{AccountSample, Device, DeviceState, ProcessSample, Sample, Shown};
use crate::analysis::reconcile;
use crate::model::{State, UseSample};
use crate::nvml::{self, Handle, Reading, Session, Unavailable};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use vramtrace_format::record::{Kind, Layer};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Devices that are asked about.
const MOST_DEVICES: usize = 256;

/// UUID and PCI id of a device, as traces have them.
type Key = (String, String);

struct Known {
    number: Option<u32>,
    uuid: String,
    reading: Reading,
}

type Answer = Result<HashMap<Key, Known>, Unavailable>;

/// What the looks at a process on a device have shown of its first context.
#[derive(Default)]
struct Followed {
    /// The least that a number was more than everything else, at looks between which nothing changed.
    left: Option<i64>,
    /// Another process was there at some look.
    shared: bool,
    /// At the last look: what would show a change, and what its number left.
    last: Option<([u64; 4], i64)>,
}

impl Followed {
    /// One more look: `left` is what the number that was asked for after it leaves.
    fn look(&mut self, changes: [u64; 4], left: i64, others: u64) {
        self.shared |= reconcile::is_another(others);
        // A number is of some time between two looks, and allocations between them may be in it, or not.
        if let Some((before, sure)) = self.last
            && before == changes
        {
            self.left = Some(self.left.map_or(sure, |least| least.min(sure)));
        }
        self.last = Some((changes, left));
    }
}

/// The thread, and what it said last.
pub(super) struct Smi {
    ask: Option<(Sender<Vec<Key>>, Receiver<Answer>)>,
    /// A question is not answered yet.
    waiting: bool,
    known: HashMap<Key, Known>,
    trouble: Option<Unavailable>,
    followed: HashMap<(PathBuf, u8), Followed>,
}

impl Smi {
    pub fn start() -> Smi {
        let (ask, questions) = channel::<Vec<Key>>();
        let (answer, answers) = channel();
        let work = move || {
            let mut session = None;
            for keys in questions {
                if answer.send(look(&mut session, keys)).is_err() {
                    return;
                }
            }
        };
        let started = nvml::thread(work).is_ok();
        Smi {
            ask: started.then_some((ask, answers)),
            waiting: false,
            known: HashMap::new(),
            trouble: None,
            followed: HashMap::new(),
        }
    }

    /// Asks about the devices of all processes that run, and takes the answer if it comes in time.
    pub fn wanted(&mut self, sample: &Sample) {
        self.known.clear();
        let Some((ask, answers)) = &self.ask else {
            self.trouble = Some(Unavailable::Silent);
            return;
        };
        if self.waiting {
            // Still at the last question: what it says to that is old.
            match answers.try_recv() {
                Ok(_) => self.waiting = false,
                Err(_) => return,
            }
        }
        let running = sample.processes.iter().filter(|process| is_there(process));
        let devices = running.flat_map(|process| &process.devices);
        let mut keys: Vec<Key> = devices
            .map(|device| (device.uuid.clone(), device.pci.clone()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(MOST_DEVICES);
        if ask.send(keys).is_err() {
            self.ask = None;
            return;
        }
        match answers.recv_timeout(PATIENCE) {
            Ok(Ok(known)) => {
                self.known = known;
                self.trouble = None;
            }
            Ok(Err(why)) => self.trouble = Some(why),
            Err(RecvTimeoutError::Timeout) => {
                self.waiting = true;
                self.trouble = Some(Unavailable::Silent);
            }
            Err(RecvTimeoutError::Disconnected) => self.ask = None,
        }
    }

    /// Puts what was said into the sample.
    pub fn add_to(&mut self, sample: &mut Sample) {
        let present: HashSet<&PathBuf> = sample
            .processes
            .iter()
            .map(|process| &process.trace)
            .collect();
        self.followed
            .retain(|(trace, _), _| present.contains(trace));
        sample.nvml_error = self.trouble.as_ref().map(ToString::to_string);
        let mut users: HashMap<Key, usize> = HashMap::new();
        for process in sample.processes.iter().filter(|process| is_there(process)) {
            for device in &process.devices {
                *users
                    .entry((device.uuid.clone(), device.pci.clone()))
                    .or_default() += 1;
            }
        }
        for process in sample.processes.iter_mut() {
            let there = is_there(process);
            for at in 0..process.devices.len() {
                let device = &process.devices[at];
                let key = (device.uuid.clone(), device.pci.clone());
                let Some(known) = self.known.get(&key) else {
                    continue;
                };
                let alone = process.state == State::Running && users.get(&key) == Some(&1);
                let number = known.number;
                let shown = known
                    .reading
                    .sample(&process.pids, alone, process.began)
                    .filter(|_| there);
                let followed = &mut self.followed;
                let told = shown.and_then(|shown| explain(process, device, &shown, followed));
                if let Some(shown) = shown
                    && !sample.devices.iter().any(|state| state.uuid == known.uuid)
                {
                    sample.devices.push(DeviceState {
                        uuid: known.uuid.clone(),
                        number,
                        name: device.name.clone(),
                        total_bytes: shown.total_bytes,
                        used_bytes: shown.used_bytes,
                        reserved_bytes: shown.reserved_bytes,
                    });
                }
                process.devices[at].number = number;
                process.devices[at].shown = told;
            }
        }
        sample
            .devices
            .sort_by(|a, b| (a.number, &a.uuid).cmp(&(b.number, &b.uuid)));
    }
}

fn is_there(process: &ProcessSample) -> bool {
    matches!(process.state, State::Running | State::Unknown)
}

/// How far nvidia-smi's number of a process is explained; as `vramtrace reconcile` does it.
fn explain(
    process: &ProcessSample,
    device: &Device,
    shown: &UseSample,
    followed: &mut HashMap<(PathBuf, u8), Followed>,
) -> Option<Shown> {
    let process_bytes = shown.process_bytes?;
    let here = |of: Option<u8>| of == Some(device.ordinal);
    let account = process
        .accounts
        .iter()
        .find(|account| here(account.device) && account.layer == Layer::Device);
    let managed = process
        .kinds
        .iter()
        .filter(|kind| here(kind.device) && kind.kind == Kind::Managed)
        .fold(0u64, |sum, kind| sum.saturating_add(kind.live_bytes));
    let live = account.map_or(0, |account| account.live_bytes.saturating_sub(managed));
    let live = i64::try_from(live).unwrap_or(i64::MAX);
    let number = i64::try_from(process_bytes).unwrap_or(i64::MAX);
    let own_bytes = device.used_at_start.map(|used_at_start| {
        let left = number
            .saturating_sub(live)
            .saturating_sub(device.own_growth);
        let others = shown.used_bytes.saturating_sub(process_bytes);
        let sum = |of: fn(&AccountSample) -> u64| account.map_or(0, of);
        let changes = [
            sum(|account| account.allocated_bytes),
            sum(|account| account.freed_bytes),
            sum(|account| account.ended_bytes),
            device.own_growth as u64,
        ];
        let key = (process.trace.clone(), device.ordinal);
        let followed = followed.entry(key).or_default();
        followed.look(changes, left, others);
        let first = reconcile::Known {
            used_at_start,
            others: Some(others),
            left: followed.left.filter(|_| followed.shared),
        };
        first.bytes().saturating_add(device.own_growth)
    });
    let explained = live.saturating_add(own_bytes.unwrap_or(0));
    Some(Shown {
        process_bytes,
        own_bytes,
        unexplained_bytes: number.saturating_sub(explained),
    })
}

/// The session, and devices that were looked for in it.
struct Open {
    session: Session,
    handles: HashMap<Key, Option<(Handle, String, Option<u32>)>>,
    since: Instant,
}

/// How long what was not found is believed not to be there.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

fn look(open: &mut Option<Open>, keys: Vec<Key>) -> Answer {
    if keys.is_empty() {
        // Nobody is to be kept from taking the driver down.
        *open = None;
        return Ok(HashMap::new());
    }
    if open
        .as_ref()
        .is_none_or(|open| open.since.elapsed() > LOOK_AGAIN)
    {
        *open = None;
        *open = Some(Open {
            session: Session::start()?,
            handles: HashMap::new(),
            since: Instant::now(),
        });
    }
    let Some(Open {
        session, handles, ..
    }) = open
    else {
        return Ok(HashMap::new());
    };
    let mut known = HashMap::new();
    let mut trouble = None;
    for key in keys {
        let handle = handles.entry(key.clone()).or_insert_with(|| {
            let handle = session.device(&key.0, &key.1).ok()?;
            Some((handle, session.uuid(handle), session.index(handle)))
        });
        let Some((handle, uuid, number)) = handle else {
            continue;
        };
        match Reading::of(session, *handle) {
            Ok(reading) => {
                known.insert(
                    key,
                    Known {
                        number: *number,
                        uuid: uuid.clone(),
                        reading,
                    },
                );
            }
            Err(why) => trouble = Some(why),
        }
    }
    match trouble {
        Some(why) if known.is_empty() => Err(why),
        _ => Ok(known),
    }
}
