//! Brings the traces of a run to where they belong, once their processes have ended.
//!
//! Nothing is lost: a trace that cannot be moved stays in the run directory and is reported with
//! its path, and so is one whose process still runs.

use super::head::Head;
use super::keep_samples::keep;
use super::sampler::OfTrace;
use super::snapshots;
use super::transfer::{Existing, move_file};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What names of traces end in.
const SUFFIX: &str = ".vrt";
/// More traces of one name than this are a mistake in the pattern.
const MOST_NUMBERS: u32 = 100_000;

/// A file in the run directory.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Whose trace it is; `None` if it is none.
    pub head: Option<Head>,
}

impl Found {
    /// Whether its process still writes to it.
    pub fn runs(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.identity.runs())
    }
}

/// What became of a file.
#[derive(Debug)]
pub enum Outcome {
    /// It is at its place.
    Moved {
        /// Its path now.
        path: PathBuf,
        /// The path it should have had, where another program's file was in the way.
        instead_of: Option<PathBuf>,
    },
    /// Its process still runs; it stays where it is.
    Running {
        /// Its path, for now.
        path: PathBuf,
        /// Its process, as that sees itself.
        pid: u32,
        /// The program's short name.
        name: String,
    },
    /// It could not be moved and stays where it is.
    Stuck {
        /// Its path.
        path: PathBuf,
        /// Where it should be.
        wanted: PathBuf,
        /// What was in the way.
        error: io::Error,
    },
    /// It is not a trace and stays where it is.
    Foreign {
        /// Its path.
        path: PathBuf,
    },
}

/// The files of a run directory, in the order in which their processes began. Snapshots go where
/// their traces go, and are none of them.
pub fn scan(run_dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run_dir)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_file() || snapshots::belongs_to_another(&path) {
            continue;
        }
        // A file that cannot be read is treated as no trace: it stays, and is named.
        let head = Head::read(&path).unwrap_or_default();
        found.push(Found { path, head });
    }
    found.sort_by_cached_key(|found| {
        let start = found.head.as_ref().map(|head| head.start_unix_ns);
        (start, found.path.clone())
    });
    Ok(found)
}

/// Whether the process of any trace still runs.
pub fn any_runs(run_dir: &Path) -> bool {
    scan(run_dir).is_ok_and(|found| found.iter().any(Found::runs))
}

/// Moves the traces of one run. Remembers the names it gave, so that one trace of the run never
/// replaces another even where replacing is allowed.
#[derive(Debug)]
pub struct Collector {
    existing: Existing,
    /// Where a trace goes that does not say.
    fallback: PathBuf,
    given: HashSet<PathBuf>,
    /// What NVML said of the processes, by path of the trace before it is moved.
    samples: HashMap<PathBuf, OfTrace>,
    remarks: Vec<String>,
}

impl Collector {
    /// `fallback` is the directory for traces that do not say where they belong.
    pub fn new(existing: Existing, fallback: PathBuf) -> Collector {
        Collector {
            existing,
            fallback,
            given: HashSet::new(),
            samples: HashMap::new(),
            remarks: Vec::new(),
        }
    }

    /// Puts these samples, by path in the run directory, into the traces before they are moved.
    pub fn keeping(mut self, samples: HashMap<PathBuf, OfTrace>) -> Collector {
        self.samples = samples;
        self
    }

    /// What could not be put into traces; sentences.
    pub fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Moves every trace in `run_dir` whose process has ended.
    pub fn collect(&mut self, run_dir: &Path) -> io::Result<Vec<Outcome>> {
        let found = scan(run_dir)?;
        Ok(found
            .into_iter()
            .filter_map(|found| self.place(found))
            .collect())
    }

    /// Moves one file. `None` if it never held anything: then it is gone.
    pub(super) fn place(&mut self, found: Found) -> Option<Outcome> {
        let runs = found.runs();
        let Some(head) = found.head else {
            if never_written(&found.path) && std::fs::remove_file(&found.path).is_ok() {
                return None;
            }
            return Some(Outcome::Foreign { path: found.path });
        };
        if runs {
            return Some(Outcome::Running {
                path: found.path,
                pid: head.identity.pid,
                name: head.name,
            });
        }
        let mut wanted = head.final_path.clone().unwrap_or_else(|| {
            let name = match head.name.replace('/', "_") {
                name if name.is_empty() => "unknown".into(),
                name => name,
            };
            self.fallback
                .join(format!("vramtrace.{name}.{}.vrt", head.identity.pid))
        });
        // One whose trace was moved before, by a run that was killed meanwhile.
        if let Some(suffix) = snapshots::suffix(&found.path) {
            wanted.as_mut_os_string().push(suffix);
        }
        if let Some(samples) = self.samples.remove(&found.path)
            && let Err(why) = keep(&found.path, samples)
        {
            let name = wanted.file_name().unwrap_or_default().display();
            self.remarks
                .push(format!("{name} is without what nvidia-smi showed: {why}"));
        }
        Some(match self.move_to(&found.path, &wanted) {
            Ok((path, foreign)) => {
                let remarks = snapshots::follow(&found.path, &path);
                self.remarks.extend(remarks);
                Outcome::Moved {
                    path,
                    instead_of: foreign.then_some(wanted),
                }
            }
            Err(error) => Outcome::Stuck {
                path: found.path,
                wanted,
                error,
            },
        })
    }

    /// The path that the file got, and whether a foreign file kept it from the wanted one.
    fn move_to(&mut self, from: &Path, wanted: &Path) -> io::Result<(PathBuf, bool)> {
        if let Some(parent) = wanted.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut foreign = false;
        for number in 1..=MOST_NUMBERS {
            let to = numbered(wanted, number);
            if self.given.contains(&to) {
                continue;
            }
            match move_file(from, &to, self.existing) {
                Ok(()) => {
                    self.given.insert(to.clone());
                    return Ok((to, foreign));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => foreign = true,
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("too many files of this name"))
    }
}

/// A process killed while it made its file leaves one that is empty, or still has the name under
/// which the recorder prepares it.
fn never_written(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    (name.starts_with(b".vramtrace-") && name.ends_with(b".tmp"))
        || path.metadata().is_ok_and(|facts| facts.len() == 0)
}

/// `x.vrt`, `x.2.vrt`, `x.3.vrt` …, as the recorder numbers its files too.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return path.into();
    }
    let bytes = path.as_os_str().as_bytes();
    let (stem, suffix) = match bytes.strip_suffix(SUFFIX.as_bytes()) {
        Some(stem) if !stem.is_empty() && !stem.ends_with(b"/") => (stem, SUFFIX),
        _ => (bytes, ""),
    };
    let mut name = OsStr::from_bytes(stem).to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_before_the_suffix() {
        let name = |path: &str, number| numbered(Path::new(path), number);
        assert_eq!(name("/a/x.vrt", 1), Path::new("/a/x.vrt"));
        assert_eq!(name("/a/x.vrt", 2), Path::new("/a/x.2.vrt"));
        assert_eq!(name("/a/x", 3), Path::new("/a/x.3"));
        assert_eq!(name("/a/.vrt", 2), Path::new("/a/.vrt.2"));
    }
}
