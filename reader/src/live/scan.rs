//! Which traces are in a directory and below. Symbolic links are not followed, neither in names that
//! are found nor in those that are opened: what is outside stays outside.

use crate::trace::find::has_trace_name;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Directories below the one that was named: `run-…` of `vramtrace run`, or one a pod and container.
const DEPTH: usize = 3;
/// Entries that are looked at in one listing.
const MOST_ENTRIES: u64 = 100_000;
/// Traces that are remembered.
const MOST_TRACES: usize = 20_000;
/// Directories that are looked into.
const MOST_DIRECTORIES: usize = 4096;

/// A directory, held open: what takes its name later is another one.
pub struct Directory {
    path: PathBuf,
    file: File,
    /// These files of it alone; `None`: all that are called like traces.
    only: Option<Vec<PathBuf>>,
}

/// What is in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Names below the directory, and inodes.
    pub traces: Vec<(PathBuf, u64)>,
    /// Entries that were left out because there are too many.
    pub omitted: u64,
}

impl Directory {
    /// Opens it. It may itself be named by a symbolic link.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        Ok(Directory {
            path: path.to_owned(),
            file,
            only: None,
        })
    }

    /// Limits it to files with these names in it, whatever they are called.
    pub fn limit(&mut self, only: Vec<PathBuf>) {
        self.only = Some(only);
    }

    /// As it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All traces in it and below.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        if let Some(only) = &self.only {
            let here = through(&self.file);
            for name in only {
                match fs::symlink_metadata(here.join(name)) {
                    Ok(found) if found.is_file() => {
                        listing.traces.push((name.clone(), found.ino()))
                    }
                    // Not there, or not any more: as if it were not in the directory.
                    _ => {}
                }
            }
            return Ok(listing);
        }
        let (mut entries, mut directories) = (0u64, 0usize);
        let mut look = vec![(PathBuf::new(), 0)];
        while let Some((below, depth)) = look.pop() {
            let inside = self.open_directory(&below);
            let inside = inside.and_then(|directory| fs::read_dir(through(&directory)));
            let inside = match inside {
                Ok(inside) => inside,
                Err(error) if depth == 0 => return Err(error),
                // One of somebody else's, or it is gone: it is not ours to complain about.
                Err(_) => continue,
            };
            for entry in inside {
                // A directory that fails half-way would make processes look gone.
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) if depth == 0 => return Err(error),
                    Err(_) => break,
                };
                entries += 1;
                if entries > MOST_ENTRIES {
                    listing.omitted += 1;
                    continue;
                }
                let name = below.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind)
                        if kind.is_dir() && depth < DEPTH && directories < MOST_DIRECTORIES =>
                    {
                        directories += 1;
                        look.push((name, depth + 1));
                    }
                    Ok(kind) if !kind.is_dir() && !kind.is_symlink() && has_trace_name(&name) => {
                        if listing.traces.len() < MOST_TRACES {
                            listing.traces.push((name, entry.ino()));
                        } else {
                            listing.omitted += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(listing)
    }

    /// Opens a file below the directory, given by a name of a listing.
    pub fn open_file(&self, name: &Path) -> io::Result<File> {
        let (Some(file), Some(parent)) = (name.file_name(), name.parent()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = self.open_directory(parent)?;
        // Not blocking: a fifo with a trace's name must not hang us.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(through(&parent).join(file))
    }

    /// Opens a directory below, one step after the other.
    fn open_directory(&self, below: &Path) -> io::Result<File> {
        let mut at = self.file.try_clone()?;
        for step in below.components() {
            let Component::Normal(step) = step else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            at = OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(through(&at).join(step))?;
        }
        Ok(at)
    }
}

/// A path that is this open file.
pub fn through(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_outside_is_neither_listed_nor_opened() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.vrt"), "secret").unwrap();
        let inside = tempfile::tempdir().unwrap();
        fs::create_dir(inside.path().join("pod")).unwrap();
        fs::write(inside.path().join("pod/a.vrt"), "a").unwrap();
        fs::write(inside.path().join("other.txt"), "").unwrap();
        symlink(
            outside.path().join("secret.vrt"),
            inside.path().join("b.vrt"),
        )
        .unwrap();
        symlink(outside.path(), inside.path().join("way")).unwrap();
        let directory = Directory::open(inside.path()).unwrap();
        let names: Vec<PathBuf> = directory
            .list()
            .unwrap()
            .traces
            .into_iter()
            .map(|t| t.0)
            .collect();
        assert_eq!(names, [PathBuf::from("pod/a.vrt")]);
        assert!(directory.open_file(Path::new("pod/a.vrt")).is_ok());
        let absolute = outside.path().join("secret.vrt");
        for name in [
            "b.vrt",
            "way/secret.vrt",
            "../a.vrt",
            "pod/../../a.vrt",
            "",
            "pod/a.vrt/x",
        ] {
            assert!(directory.open_file(Path::new(name)).is_err(), "{name}");
        }
        assert!(directory.open_file(&absolute).is_err());
    }

    #[test]
    fn a_fifo_does_not_hang_and_depth_has_an_end() {
        let inside = tempfile::tempdir().unwrap();
        let deep = inside.path().join("1/2/3/4");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("deep.vrt"), "").unwrap();
        fs::write(deep.join("../three.vrt"), "").unwrap();
        let listing = Directory::open(inside.path()).unwrap().list().unwrap();
        assert_eq!(listing.traces.len(), 1);
        assert_eq!(listing.traces[0].0, PathBuf::from("1/2/3/three.vrt"));
    }
}
