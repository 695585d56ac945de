//! One trace that is followed: from its first look until its process has ended.

use super::Options;
use super::failures::Failures;
use super::liveness::{Life, Pids};
use super::names::{MOST_PLACES, Named, Namer};
use super::sample::{
    AccountSample, Allocator, AllocatorSample, Device, Failed, Identity, KindSample, LossSample,
    OtherSites, Overhead, PlaceSample, ProcessSample, Rates,
};
use super::sites::{Candidate, Largest, Place, by_name};
use crate::launch::liveness;
use crate::model::State;
use crate::trace::{Glance, Sums};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vramtrace_format::account::{self, Account};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::layout::Control;
use vramtrace_format::record::{Kind, Layer, NO_DEVICE};
use vramtrace_format::sampling::{Head, NONE, interval};
use vramtrace_format::stacks::NOT_SAMPLED;
use vramtrace_format::totals::{End, Totals};

/// Names of call sites that are kept of one process.
const MOST_NAMES: usize = 1024;
/// How many rows of totals are named for one site that is shown: several stacks may be one place.
const ROWS_A_SITE: usize = 4;

/// What a look came to.
pub(super) enum Looked {
    /// It could be read.
    Process(Box<ProcessSample>),
    /// It could not.
    Failed(Box<Failed>),
    /// Its process has ended, and that was told for long enough.
    Ended,
    /// Nothing happened in it for long, and its process cannot be seen.
    Quiet,
}

/// A trace that is followed.
pub(super) struct Follow {
    /// Of the file that is open.
    pub inode: u64,
    name: PathBuf,
    glance: Glance,
    identity: Identity,
    life: Life,
    state: State,
    devices: BTreeMap<u8, cold::Device>,
    control: Control,
    ended: Option<Instant>,
    /// The last event that was seen, and when it was seen first.
    last: (u64, Instant),
    before: Option<Before>,
    /// As of the journal's word, and when that was.
    totals: Option<(u64, Instant, OfTotals)>,
    /// How long it took to read them.
    pub took: Duration,
    names: FxHashMap<Place, Arc<Named>>,
    failures: Failures,
    /// Most that was freed: a free that is taken back must not look like a counter that began anew.
    freed: FxHashMap<(Option<u8>, Freed), (u64, u64)>,
}

/// The sample before.
struct Before {
    at: Instant,
    accounts: Vec<Account>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freed {
    Layer(Layer),
    Kind(Kind),
}

/// What the totals come to.
#[derive(Clone, Default)]
struct OfTotals {
    kinds: BTreeMap<(Option<u8>, Kind), Kinds>,
    largest: Vec<Candidate>,
}

#[derive(Clone, Copy, Default)]
struct Kinds {
    live: (u64, u64),
    peak_bytes: u64,
    allocated: (u64, u64),
    ended_bytes: u64,
}

impl Follow {
    /// Looks for the first time.
    pub fn begin(name: PathBuf, inode: u64, glance: Glance) -> io::Result<Follow> {
        let control = glance.control()?;
        let header = *glance.header();
        let identity = Identity {
            pid: header.pid,
            start_ticks: header.start_ticks,
            start_unix_ns: header.start_unix_ns,
            ..Identity::default()
        };
        let mut follow = Follow {
            inode,
            name,
            glance,
            life: Life::new(
                own(header.pid, header.start_ticks, header.pid_namespace),
                "",
            ),
            identity,
            state: State::Unknown,
            devices: BTreeMap::new(),
            control,
            ended: None,
            last: (0, Instant::now()),
            before: None,
            totals: None,
            took: Duration::ZERO,
            names: FxHashMap::default(),
            failures: Failures::default(),
            freed: FxHashMap::default(),
        };
        follow.learn(&control)?;
        follow.state = follow
            .life
            .state(control.clean_exit != 0, &mut Pids::default());
        Ok(follow)
    }

    /// Whether its process has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Exited | State::Killed)
    }

    /// Whether its process cannot be seen, and nothing happened in it for that long.
    pub fn is_quiet(&self, unix_ns: u64, stale: Duration) -> bool {
        let since = unix_ns.saturating_sub(self.last_event());
        self.state == State::Unknown && u128::from(since) > stale.as_nanos()
    }

    fn last_event(&self) -> u64 {
        let start = self.glance.header().start_unix_ns;
        start.saturating_add(self.control.last_time)
    }

    /// Looks again. Sums by stack that are not older than `pause` are good enough.
    pub fn look(
        &mut self,
        options: &Options,
        namer: &mut Namer,
        pids: &mut Pids,
        now: Instant,
        pause: Duration,
    ) -> Looked {
        match self.try_look(options, namer, pids, now, pause) {
            Ok(looked) => looked,
            Err(error) => Looked::Failed(Box::new(Failed {
                trace: self.name.clone(),
                identity: Some(self.identity.clone()),
                why: format!("cannot be read: {error}"),
            })),
        }
    }

    fn try_look(
        &mut self,
        options: &Options,
        namer: &mut Namer,
        pids: &mut Pids,
        now: Instant,
        pause: Duration,
    ) -> io::Result<Looked> {
        if !self.glance.is_whole()? {
            return Err(io::Error::other(
                "it is not the file any more that it was: its header or its length has changed",
            ));
        }
        let word = self.glance.word()?;
        let sums = self.glance.sums()?;
        self.control = sums.control;
        self.learn(&sums.control)?;
        self.state = self.life.state(sums.control.clean_exit != 0, pids);
        if sums.seq != self.last.0 {
            self.last = (sums.seq, now);
        }
        if self.has_ended() {
            let ended = *self.ended.get_or_insert(now);
            if now.saturating_duration_since(ended) >= options.linger {
                return Ok(Looked::Ended);
            }
        } else if self.state == State::Unknown
            && now.saturating_duration_since(self.last.1) >= options.stale
        {
            return Ok(Looked::Quiet);
        }
        let (word, at, totals) = match self.totals.take() {
            Some(known) if known.0 == word => known,
            // Of one that has ended, the last figures are those that stay.
            Some(known) if now.saturating_duration_since(known.1) < pause && !self.has_ended() => {
                known
            }
            _ => {
                let begun = Instant::now();
                let totals = self.read_totals(&sums, options)?;
                self.took = begun.elapsed();
                (word, now, totals)
            }
        };
        let sample = self.sample(&sums, &totals, options, namer, now)?;
        self.totals = Some((word, at, totals));
        self.before = Some(Before {
            at: now,
            accounts: sums.accounts,
        });
        Ok(Looked::Process(Box::new(sample)))
    }

    /// Takes in facts that came since.
    fn learn(&mut self, control: &Control) -> io::Result<()> {
        let (identity, devices) = (&mut self.identity, &mut self.devices);
        let mut who = None;
        self.glance.news(control, |record| match record {
            Cold::Process(process) => who = Some(process),
            Cold::Config(config) => identity.recorder = config.version,
            Cold::Device(device) => drop(devices.insert(device.index, device)),
            Cold::Driver(name) => {
                identity.driver = format!("{}.{}", name.id / 1000, name.id % 1000 / 10);
            }
            Cold::Interpreter(interpreter) => identity.python = interpreter.version,
            _ => {}
        })?;
        if let Some(process) = who {
            let ours = own(process.pid, process.start_ticks, process.pid_namespace);
            self.life = Life::new(ours, &process.host);
            let base = process.program.rsplit('/').next().unwrap_or_default();
            identity.name = match base {
                "" => process.name,
                base => base.to_owned(),
            };
            identity.pid = process.pid;
            identity.start_ticks = process.start_ticks;
            identity.program = process.program;
            identity.rank = process.rank;
            identity.host = process.host;
        }
        Ok(())
    }

    fn read_totals(&mut self, sums: &Sums, options: &Options) -> io::Result<OfTotals> {
        let mut found = OfTotals::default();
        let room = options.sites.saturating_mul(ROWS_A_SITE);
        let room = room.max(options.places).min(MOST_PLACES);
        let mut largest = Largest::new(room);
        self.glance.totals(|row| {
            let Some(kind) = row.kind().filter(|kind| kind.counted()) else {
                return;
            };
            let device = device_of(row, kind);
            let sum = found.kinds.entry((device, kind)).or_default();
            match End::from_u8(row.key.end) {
                Some(End::Live) => {}
                Some(End::Context | End::Reset) => {
                    sum.ended_bytes = sum.ended_bytes.saturating_add(row.live_bytes);
                    return;
                }
                _ => return,
            }
            let account = sums
                .accounts
                .get(account::index(row.key.device, kind.layer()));
            let (at_peak, _) = row.at_peak(account.map_or(0, |account| account.peak_epoch));
            add(&mut sum.live.0, row.live_bytes);
            add(&mut sum.live.1, row.live_count);
            add(&mut sum.peak_bytes, at_peak);
            add(&mut sum.allocated.0, row.alloc_bytes);
            add(&mut sum.allocated.1, row.alloc_count);
            if room > 0 {
                largest.add(row, kind, device);
            }
        })?;
        found.largest = largest.finish();
        Ok(found)
    }

    fn sample(
        &mut self,
        sums: &Sums,
        totals: &OfTotals,
        options: &Options,
        namer: &mut Namer,
        now: Instant,
    ) -> io::Result<ProcessSample> {
        let accounts = self.accounts(sums, now);
        if options.failures > 0 {
            self.failures.look(&self.glance, sums, options.failures)?;
        }
        self.name(&totals.largest, options, namer);
        let sites = by_name(&totals.largest, &self.names, options.sites);
        let other = accounts
            .iter()
            .map(|account| {
                let here = sites.iter().filter(|site| {
                    (site.device, site.kind.layer()) == (account.device, account.layer)
                });
                let (mut bytes, mut count) = (0, 0);
                for site in here {
                    add(&mut bytes, site.live_bytes);
                    add(&mut count, site.live_count);
                }
                OtherSites {
                    device: account.device,
                    layer: account.layer,
                    live_bytes: account.live_bytes.saturating_sub(bytes),
                    live_count: account.live_count.saturating_sub(count),
                }
            })
            .collect();
        let mut identity = self.identity.clone();
        identity.outer_pid = self.life.outer().unwrap_or(0);
        Ok(ProcessSample {
            trace: self.name.clone(),
            id: format!("{}-{}", self.identity.pid, self.inode),
            identity,
            state: self.state,
            devices: self.devices(sums),
            accounts,
            kinds: self.kinds(totals),
            allocators: allocators(sums, totals),
            largest_free: Vec::new(),
            sites,
            other,
            places: self.places(&totals.largest, options.places),
            failures: self
                .failures
                .known(self.glance.header().start_unix_ns, &self.names),
            losses: losses(sums),
            overhead: sums.sampling.map(|head| overhead(&head, sums.seq)),
            seq: sums.seq,
            last_event_unix_ns: self.last_event(),
            interrupted: sums.interrupted,
            pids: self.life.pids(),
            began: self.glance.header().start_monotonic_ns,
        })
    }

    fn places(&self, largest: &[Candidate], most: usize) -> Vec<PlaceSample> {
        let largest = largest.iter().take(most);
        largest
            .map(|one| PlaceSample {
                stack: one.place.0,
                api: one.place.1,
                device: one.device,
                kind: one.kind,
                live_bytes: one.live_bytes,
                live_count: one.live_count,
                estimated_bytes: one.estimated_bytes,
                not_sampled: one.place.0 == NOT_SAMPLED,
                named: self.names.get(&one.place).cloned(),
            })
            .collect()
    }

    fn accounts(&mut self, sums: &Sums, now: Instant) -> Vec<AccountSample> {
        let used = sums.accounts.iter().enumerate();
        let used = used.filter(|(_, row)| **row != Account::default());
        used.map(|(index, row)| {
            let (device, layer) = account::of_index(index);
            let most = self.freed.entry((device, Freed::Layer(layer))).or_default();
            most.0 = most.0.max(row.freed_bytes());
            most.1 = most.1.max(row.freed_count());
            let before = self.before.as_ref();
            let rates =
                before.and_then(|before| rates(before.accounts.get(index)?, row, before.at, now));
            AccountSample {
                device,
                layer,
                live_bytes: row.live_bytes,
                live_count: row.live_count,
                peak_bytes: row.peak_bytes,
                allocated_bytes: row.alloc_bytes,
                allocated_count: row.alloc_count,
                freed_bytes: most.0,
                freed_count: most.1,
                ended_bytes: row.ended_bytes,
                failed_count: row.failed_count.into(),
                unmatched_count: row.unmatched_count.into(),
                rates,
            }
        })
        .collect()
    }

    fn kinds(&mut self, totals: &OfTotals) -> Vec<KindSample> {
        let freed = &mut self.freed;
        let kinds = totals.kinds.iter();
        kinds
            .map(|(&(device, kind), sum)| {
                let now = sum
                    .allocated
                    .0
                    .saturating_sub(sum.live.0)
                    .saturating_sub(sum.ended_bytes);
                let most = freed.entry((device, Freed::Kind(kind))).or_default();
                most.0 = most.0.max(now);
                KindSample {
                    device,
                    kind,
                    live_bytes: sum.live.0,
                    live_count: sum.live.1,
                    peak_bytes: sum.peak_bytes,
                    allocated_bytes: sum.allocated.0,
                    allocated_count: sum.allocated.1,
                    freed_bytes: (kind != Kind::Pool).then_some(most.0),
                }
            })
            .collect()
    }

    /// Asks for the names that are missing.
    fn name(&mut self, largest: &[Candidate], options: &Options, namer: &mut Namer) {
        let failed = self.failures.places();
        let wanted = || largest.iter().map(|one| one.place).chain(failed.clone());
        if self.names.len() > MOST_NAMES {
            self.names
                .retain(|place, _| wanted().any(|one| one == *place));
        }
        for (place, mut named) in namer.fetch(&self.name) {
            if options.places == 0 {
                // Who shows sites alone keeps no more than these.
                named = Named::bare(named.site);
            }
            self.names.insert(place, Arc::new(named));
        }
        let mut missing: Vec<Place> = wanted()
            .filter(|place| !self.names.contains_key(place))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing.truncate(MOST_PLACES);
        let glance = &self.glance;
        namer.ask(&self.name, missing, || glance.file());
    }

    fn devices(&self, sums: &Sums) -> Vec<Device> {
        let mut ordinals: Vec<u8> = self.devices.keys().copied().collect();
        for (index, row) in sums.accounts.iter().enumerate() {
            if let (Some(device), true) = (account::of_index(index).0, *row != Account::default()) {
                ordinals.push(device);
            }
        }
        ordinals.sort_unstable();
        ordinals.dedup();
        let describe = |ordinal: u8| {
            let known = self.devices.get(&ordinal).cloned().unwrap_or_default();
            let row = sums
                .footprints
                .get(usize::from(ordinal))
                .copied()
                .unwrap_or_default();
            let growth = [row.contexts, row.code, row.limits, row.streams];
            Device {
                ordinal,
                uuid: known.uuid,
                pci: known.pci,
                name: known.name,
                total_bytes: known.total_bytes,
                number: None,
                own_growth: growth
                    .iter()
                    .fold(0i64, |sum, &part| sum.saturating_add(part as i64)),
                used_at_start: (row.used_at_start != 0).then_some(row.used_at_start),
                shown: None,
            }
        };
        ordinals.into_iter().map(describe).collect()
    }
}

fn own(pid: u32, start_ticks: u64, pid_namespace: u64) -> liveness::Identity {
    liveness::Identity {
        pid,
        start_ticks,
        pid_namespace,
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn device_of(row: &Totals, kind: Kind) -> Option<u8> {
    let index = account::index(row.key.device, kind.layer());
    match row.key.device {
        NO_DEVICE => None,
        _ => account::of_index(index).0,
    }
}

fn rates(before: &Account, now: &Account, at: Instant, then: Instant) -> Option<Rates> {
    let over = then.saturating_duration_since(at);
    let seconds = over.as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let grown = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    Some(Rates {
        over,
        growth: (now.live_bytes as f64 - before.live_bytes as f64) / seconds,
        allocated_bytes: grown(before.alloc_bytes, now.alloc_bytes),
        allocated_count: grown(before.alloc_count, now.alloc_count),
        freed_bytes: grown(before.freed_bytes(), now.freed_bytes()),
    })
}

/// Reserved and used bytes, of which the totals tell the pools', and PyTorch its own.
fn allocators(sums: &Sums, totals: &OfTotals) -> Vec<AllocatorSample> {
    let mut all = Vec::new();
    for (device, row) in sums.reported.iter().enumerate() {
        if let Some(row) = row.whole() {
            all.push(AllocatorSample {
                allocator: Allocator::Torch,
                device: device as u8,
                reserved_bytes: row.reserved,
                used_bytes: row.allocated,
            });
        }
    }
    let live = |device: u8, kind: Kind| {
        let sum = totals.kinds.get(&(Some(device), kind));
        sum.map_or(0, |sum| sum.live.0)
    };
    for &(device, kind) in totals.kinds.keys() {
        let (Kind::Pool, Some(device)) = (kind, device) else {
            continue;
        };
        all.push(AllocatorSample {
            allocator: Allocator::Pool,
            device,
            reserved_bytes: live(device, Kind::Pool),
            used_bytes: live(device, Kind::Async).saturating_add(live(device, Kind::Graph)),
        });
    }
    all.sort_unstable_by_key(|one| (one.allocator, one.device));
    all
}

fn losses(sums: &Sums) -> LossSample {
    let control = &sums.control;
    let mut losses = LossSample {
        events: control.events_lost,
        stacks: control
            .stacks_dropped
            .saturating_add(control.stacks_skipped),
        calls: control.calls_unrecorded,
        panics: control.panics,
        bypassed: control.bypassed,
        ..LossSample::default()
    };
    for row in &sums.accounts {
        add(&mut losses.dropped_count, row.dropped_count);
        add(&mut losses.dropped_bytes, row.dropped_bytes);
    }
    losses
}

/// What recording costs the process, as its recorder measured it.
fn overhead(head: &Head, events: u64) -> Overhead {
    let each = (head.events > 0).then(|| head.event_ns as f64 / head.events as f64);
    Overhead {
        stacks_seconds: head.stack_ns as f64 / 1e9,
        events_seconds: each.map(|each| each * events as f64 / 1e9),
        interval: (head.step != NONE).then(|| interval(head.step)),
        not_sampled: head.not_sampled,
    }
}
