//! Several directories, and single traces, looked at as one: what `top` is asked about.

use super::smi::Smi;
use super::{Live, Options, Sample};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory, with those below it.
    Directory(PathBuf),
    /// One trace, which is told of also after its end.
    Trace(PathBuf),
}

/// Directories and traces that are looked at together.
pub struct Many {
    lives: Vec<Live>,
    /// Directories that are not there yet.
    awaited: Vec<PathBuf>,
    options: Options,
    smi: Option<Smi>,
}

impl Many {
    /// Opens what is there. A directory that is not there is looked for again with each sample if
    /// `patient`; anything else that cannot be opened is an error, with its path.
    pub fn open(
        sources: &[Source],
        options: &Options,
        patient: bool,
    ) -> Result<Many, (PathBuf, io::Error)> {
        let mut many = Many {
            lives: Vec::new(),
            awaited: Vec::new(),
            smi: options.nvml.then(Smi::start),
            options: Options {
                // Asked once, of all of them.
                nvml: false,
                ..options.clone()
            },
        };
        let mut single: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
        for source in sources {
            match source {
                Source::Directory(path) => match Live::new(path, many.options.clone()) {
                    Ok(live) => many.lives.push(live),
                    Err(error) if patient && error.kind() == io::ErrorKind::NotFound => {
                        many.awaited.push(path.clone());
                    }
                    Err(error) => return Err((path.clone(), error)),
                },
                Source::Trace(path) => {
                    let failed = |error| (path.clone(), error);
                    // The file itself, should it be named by a link.
                    let path = path.canonicalize().map_err(failed)?;
                    let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
                    let name = PathBuf::from(path.file_name().unwrap_or_default());
                    match single.iter_mut().find(|(known, _)| *known == parent) {
                        Some((_, names)) if names.contains(&name) => {}
                        Some((_, names)) => names.push(name),
                        None => single.push((parent, vec![name])),
                    }
                }
            }
        }
        for (parent, names) in single {
            let options = Options {
                only: Some(names),
                already_ended: true,
                linger: std::time::Duration::MAX,
                stale: std::time::Duration::MAX,
                ..many.options.clone()
            };
            let live = Live::new(&parent, options).map_err(|error| (parent.clone(), error))?;
            many.lives.push(live);
        }
        Ok(many)
    }

    /// Looks at all of it. Traces are named by their whole paths.
    pub fn sample(&mut self) -> Sample {
        let begun = Instant::now();
        let options = &self.options;
        let lives = &mut self.lives;
        self.awaited
            .retain(|path| match Live::new(path, options.clone()) {
                Ok(live) => {
                    lives.push(live);
                    false
                }
                Err(_) => true,
            });
        let mut all = Sample {
            unix_ns: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            ..Sample::default()
        };
        let mut seen = HashSet::new();
        for live in &mut self.lives {
            let one = live.sample();
            let directory = live.directory();
            for mut process in one.processes {
                process.trace = directory.join(&process.trace);
                if seen.insert(process.trace.clone()) {
                    all.processes.push(process);
                }
            }
            for mut failed in one.failed {
                failed.trace = directory.join(&failed.trace);
                if seen.insert(failed.trace.clone()) {
                    all.failed.push(failed);
                }
            }
            all.unreadable = all.unreadable.saturating_add(one.unreadable);
            all.ended = all.ended.saturating_add(one.ended);
            all.quiet = all.quiet.saturating_add(one.quiet);
            all.omitted_processes = all.omitted_processes.saturating_add(one.omitted_processes);
            all.omitted_entries = all.omitted_entries.saturating_add(one.omitted_entries);
            all.read_errors = all.read_errors.saturating_add(one.read_errors);
            all.naming |= one.naming;
            if let Some(why) = one.directory_error {
                let whole = format!("{}: {why}", directory.display());
                all.directory_error.get_or_insert(whole);
            }
        }
        if let Some(smi) = &mut self.smi {
            smi.wanted(&all);
            smi.add_to(&mut all);
        }
        all.took = begun.elapsed();
        all
    }

    /// Opens the trace at this path, as in [`super::ProcessSample::trace`], if it is one of those that
    /// are followed.
    pub fn open_trace(&self, path: &Path) -> Option<io::Result<File>> {
        self.lives.iter().find_map(|live| {
            let name = path.strip_prefix(live.directory()).ok()?;
            live.open(name)
        })
    }
}
