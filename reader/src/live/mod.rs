//! The traced processes of a directory, looked at again and again: what `serve`, `watch` and `top`
//! show.
//!
//! In: a directory, into which recorders write. Out: a [`Sample`] whenever one is asked for, with what
//! each process has now. Only sums are read (accounts, totals), never live tables, and of rings
//! the end where an allocation has failed, so that a sample costs little however much the programs do;
//! names of call sites are found once, by another process ([`names`]), and kept.
//!
//! Nothing outside the directory is read: no symbolic link is followed, and there are limits on
//! everything that a directory or a file can make grow. What cannot be read is a [`Failed`], never a
//! process without memory.
//!
//! - [`child`]: work of other processes, bounded
//! - [`scan`]: which files there are
//! - [`follow`]: one trace, from its first look to its end
//! - [`liveness`]: whether its process still runs
//! - [`sites`]: which call stacks hold most
//! - [`names`]: what these are called
//! - [`largest`]: the largest free block of allocators
//! - [`smi`]: what NVML says of the devices
//! - [`failures`]: which allocations failed lately
//! - [`sample`]: the answer
//! - [`many`]: several directories, and single traces, as one

pub mod child;
mod failures;
mod follow;
mod largest;
pub mod liveness;
pub mod many;
pub mod names;
pub mod sample;
pub mod scan;
mod sites;
mod smi;

pub use sample::*;

use crate::trace::Glance;
use follow::{Follow, Looked};
use largest::Looker;
use names::{Namer, Naming};
use scan::{Directory, Listing};
use smi::Smi;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Files that are looked at again in one sample though nothing was to be had of them before.
const SECOND_LOOKS: usize = 64;
/// Files that could not be read, of which a sample gives the reason.
const MOST_FAILED: usize = 32;

/// How to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most processes that are followed at once.
    pub most_processes: usize,
    /// Call sites that are told of each process; 0: none, and nothing is looked up.
    pub sites: usize,
    /// Rows of the sums by stack that are told of each process, largest first; 0: none.
    pub places: usize,
    /// Sums by stack are read again when the time that they took, of all processes, so many times over is
    /// past; 0: with each sample. 100: reading them takes at most a hundredth of a core.
    pub totals_share: u32,
    /// Failed allocations that are told of each process; 0: none, and they are not looked for.
    pub failures: usize,
    /// These files of the directory alone, by name; `None`: all traces in it and below.
    pub only: Option<Vec<PathBuf>>,
    /// Whether processes are told of that had ended before they were looked at first.
    pub already_ended: bool,
    /// How long a process is still told of after its end.
    pub linger: Duration,
    /// After how long without an event a process is taken to be gone, where whether it runs cannot be
    /// seen from here (another pid namespace, another machine).
    pub stale: Duration,
    /// Whether NVML is asked.
    pub nvml: bool,
    /// Who finds names.
    pub naming: Naming,
    /// How often the largest free block of each process's allocator is looked for, by another process;
    /// `None` never.
    pub largest_free: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            most_processes: 256,
            sites: 10,
            places: 0,
            failures: 0,
            totals_share: 0,
            only: None,
            already_ended: false,
            linger: Duration::from_secs(120),
            stale: Duration::from_secs(3600),
            nvml: true,
            naming: Naming::default(),
            largest_free: None,
        }
    }
}

/// A directory that is looked at.
pub struct Live {
    directory: Directory,
    options: Options,
    followed: BTreeMap<PathBuf, Follow>,
    /// Files that nothing is to be had of now, by name.
    passed: HashMap<PathBuf, Passed>,
    /// In which order they are looked at again.
    second_looks: VecDeque<PathBuf>,
    namer: Namer,
    smi: Option<Smi>,
    looker: Option<Looker>,
    read_errors: u64,
}

/// Why a file is not followed.
struct Passed {
    inode: u64,
    why: Why,
}

enum Why {
    /// Its process has ended.
    Ended,
    /// Nothing happened in it for long, and whether its process runs cannot be seen.
    Quiet,
    /// It cannot be read.
    Failed(String),
    /// There are too many.
    NoRoom,
}

fn looker(options: &Options) -> Option<Looker> {
    let program = match &options.naming {
        Naming::Command(program) => program.clone(),
        _ => std::env::current_exe().ok()?,
    };
    Some(Looker::new(program, options.largest_free?))
}

impl Live {
    /// Opens the directory; fails if that is not possible. No file is looked at yet.
    pub fn new(directory: &Path, options: Options) -> io::Result<Live> {
        let mut directory = Directory::open(directory)?;
        if let Some(only) = &options.only {
            directory.limit(only.clone());
        }
        Ok(Live {
            directory,
            namer: Namer::new(options.naming.clone()),
            smi: options.nvml.then(Smi::start),
            looker: looker(&options),
            options,
            followed: BTreeMap::new(),
            passed: HashMap::new(),
            second_looks: VecDeque::new(),
            read_errors: 0,
        })
    }

    /// The directory, as it was named.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Looks at all processes. Takes about a millisecond a process.
    pub fn sample(&mut self) -> Sample {
        let begun = Instant::now();
        let unix_ns = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let mut sample = Sample {
            unix_ns,
            ..Sample::default()
        };
        match self.directory.list() {
            Ok(listing) => {
                sample.omitted_entries = listing.omitted;
                self.update(listing, unix_ns);
            }
            Err(error) => {
                self.read_errors = self.read_errors.saturating_add(1);
                sample.directory_error = Some(error.to_string());
            }
        }
        self.namer.collect();
        let took = self.followed.values().map(|follow| follow.took);
        let took = took.fold(Duration::ZERO, Duration::saturating_add);
        let pause = took.saturating_mul(self.options.totals_share);
        let mut gone = Vec::new();
        let mut processes_in_proc = liveness::Pids::default();
        for (name, follow) in &mut self.followed {
            match follow.look(
                &self.options,
                &mut self.namer,
                &mut processes_in_proc,
                begun,
                pause,
            ) {
                Looked::Process(process) => sample.processes.push(*process),
                Looked::Failed(failed) => {
                    self.read_errors = self.read_errors.saturating_add(1);
                    sample.failed.push(*failed);
                }
                Looked::Ended => gone.push((name.clone(), Why::Ended)),
                Looked::Quiet => gone.push((name.clone(), Why::Quiet)),
            }
        }
        for (name, why) in gone {
            if let Some(follow) = self.followed.remove(&name) {
                let inode = follow.inode;
                self.pass(name, inode, why);
            }
        }
        self.describe_passed(&mut sample);
        if let Some(smi) = &mut self.smi {
            smi.wanted(&sample);
            smi.add_to(&mut sample);
        }
        if let Some(looker) = &mut self.looker {
            let directory = &self.directory;
            looker.look(&mut sample, |trace| directory.open_file(trace).ok());
        }
        sample.naming = self.namer.is_busy();
        sample.read_errors = self.read_errors;
        sample.took = begun.elapsed();
        sample
    }

    /// Opens the trace with this name, as in [`ProcessSample::trace`], if it is one of those that are
    /// followed.
    pub fn open(&self, trace: &Path) -> Option<io::Result<std::fs::File>> {
        self.followed.get(trace)?;
        Some(self.directory.open_file(trace))
    }

    /// Brings what is followed up to what is there.
    fn update(&mut self, listing: Listing, unix_ns: u64) {
        let there: HashMap<PathBuf, u64> = listing.traces.into_iter().collect();
        self.followed
            .retain(|name, follow| there.get(name) == Some(&follow.inode));
        self.passed
            .retain(|name, passed| there.get(name) == Some(&passed.inode));
        self.second_looks
            .retain(|name| self.passed.contains_key(name));
        let mut look: Vec<(PathBuf, u64)> = Vec::new();
        for (name, inode) in there {
            if !self.followed.contains_key(&name) && !self.passed.contains_key(&name) {
                look.push((name, inode));
            }
        }
        look.sort_unstable();
        for _ in 0..SECOND_LOOKS.min(self.second_looks.len()) {
            if let Some(name) = self.second_looks.pop_front()
                && let Some(passed) = self.passed.remove(&name)
            {
                look.push((name, passed.inode));
            }
        }
        for (name, inode) in look {
            self.first_look(name, inode, unix_ns);
        }
    }

    fn first_look(&mut self, name: PathBuf, inode: u64, unix_ns: u64) {
        let opened = self
            .directory
            .open_file(&name)
            .map_err(crate::trace::Problem::Io)
            .and_then(Glance::open)
            .and_then(|glance| {
                Follow::begin(name.clone(), inode, glance).map_err(crate::trace::Problem::Io)
            });
        match opened {
            Err(problem) => {
                self.read_errors = self.read_errors.saturating_add(1);
                self.pass(name, inode, Why::Failed(problem.to_string()));
            }
            Ok(follow) if follow.has_ended() && !self.options.already_ended => {
                self.pass(name, inode, Why::Ended)
            }
            Ok(follow) if follow.is_quiet(unix_ns, self.options.stale) => {
                self.pass(name, inode, Why::Quiet);
            }
            Ok(_) if self.followed.len() >= self.options.most_processes => {
                self.pass(name, inode, Why::NoRoom);
            }
            Ok(follow) => drop(self.followed.insert(name, follow)),
        }
    }

    fn pass(&mut self, name: PathBuf, inode: u64, why: Why) {
        if !matches!(why, Why::Ended) {
            self.second_looks.push_back(name.clone());
        }
        self.passed.insert(name, Passed { inode, why });
    }

    fn describe_passed(&self, sample: &mut Sample) {
        let mut failed: Vec<(&PathBuf, &String)> = Vec::new();
        for (name, passed) in &self.passed {
            match &passed.why {
                Why::Ended => sample.ended += 1,
                Why::Quiet => sample.quiet += 1,
                Why::NoRoom => sample.omitted_processes += 1,
                Why::Failed(why) => failed.push((name, why)),
            }
        }
        sample.unreadable = (failed.len() + sample.failed.len()) as u64;
        failed.sort_unstable();
        let room = MOST_FAILED.saturating_sub(sample.failed.len());
        let describe = |(name, why): (&PathBuf, &String)| Failed {
            trace: name.clone(),
            identity: None,
            why: why.clone(),
        };
        let failed = failed.into_iter().take(room).map(describe);
        sample.failed.extend(failed);
    }
}
