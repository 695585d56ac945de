//! The files: beside the trace, whole or not there at all, the first few and the last few.

use super::copy::Trouble;
use crate::clock;
use crate::file::{self, TraceFile};
use crate::place::directory::{self, Storage};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use vramtrace_format::cold::{Cold, Snapshot};
use vramtrace_format::layout::Header;
use vramtrace_format::snapshot::Contents;

/// So many of the first are kept.
const FIRST: u32 = 2;
/// And so many of the last.
const LAST: usize = 2;
/// Of storage that others need as well, at most one part in so many of what is free.
const MODEST: u64 = 8;
/// Of other storage.
const SHARE: u64 = 2;

/// This process's snapshots.
pub struct Store {
    header: Header,
    directory: PathBuf,
    /// Name of the trace.
    trace: OsString,
    modest: bool,
    /// Bytes that all snapshots may take together.
    bound: u64,
    kept: Vec<Kept>,
}

struct Kept {
    number: u32,
    name: OsString,
    bytes: u64,
}

impl Store {
    /// For snapshots of this trace.
    pub fn beside(file: &TraceFile, keep: u64) -> Option<Store> {
        Some(Store {
            header: file.header,
            directory: file.path.parent()?.to_owned(),
            trace: file.path.file_name()?.to_owned(),
            modest: file.modest,
            bound: file.layout.file_size.min(keep),
            kept: Vec::new(),
        })
    }

    /// Writes a snapshot, and deletes an older one that is neither among the first nor among the
    /// last. Returns its bytes.
    pub fn write(
        &mut self,
        mut contents: Contents,
        number: u32,
        failure: u64,
    ) -> Result<u64, Trouble> {
        let seq = contents.seq;
        contents.add(&Cold::Snapshot(Snapshot {
            number,
            failure,
            seq,
            unix_ns: clock::unix_ns(),
            trace: self.trace.to_string_lossy().into_owned(),
        }));
        let place = self.directory.display().to_string();
        let said = |what: &str, error: &dyn std::fmt::Display| format!("{place}: {what}: {error}");
        let directory =
            directory::again(&self.directory).map_err(|why| format!("{place}: {why}"))?;
        let bytes = contents.bytes();
        self.make_room(bytes, &directory, &place)?;
        let length = contents.layout().file_size;
        if file::file_size_limit().is_some_and(|limit| length > limit) {
            // Beyond the limit a signal would be raised in a process that is not ours.
            return Err(format!(
                "{place}: a file of {length} bytes is above this process's limit (ulimit -f)"
            ));
        }
        let unnamed = file::unnamed(&directory).map_err(|why| format!("{place}: {why}"))?;
        let header = self.header;
        let written = set_length(&unnamed.fd, length)
            .and_then(|()| contents.write(&header, |at, bytes| put(&unnamed.fd, at, bytes)));
        if let Err(error) = written {
            if let Some(name) = &unnamed.temporary {
                remove(&directory, name);
            }
            return Err(said("can't write it", &error));
        }
        let mut wished = self.trace.clone();
        wished.push(format!(".oom-{number}"));
        let name = file::publish(&directory, &unnamed, &wished)
            .map_err(|error| said("can't name it", &error))?;
        self.kept.push(Kept {
            number,
            name,
            bytes,
        });
        while self.kept.iter().filter(|one| one.number > FIRST).count() > LAST {
            self.drop_oldest(&directory);
        }
        Ok(bytes)
    }

    /// Deletes of the last ones until there is room for one more of this size.
    fn make_room(&mut self, bytes: u64, directory: &OwnedFd, place: &str) -> Result<(), Trouble> {
        let all = |kept: &[Kept]| kept.iter().map(|one| one.bytes).sum::<u64>();
        while all(&self.kept).saturating_add(bytes) > self.bound {
            if !self.drop_oldest(directory) {
                return Err(format!(
                    "{place}: it would take {bytes} bytes, and all of them together may take {} \
                     (VRAMTRACE_SIZE, VRAMTRACE_KEEP)",
                    self.bound
                ));
            }
        }
        let share = if self.modest { MODEST } else { SHARE };
        match directory::storage(directory) {
            Ok(Storage { free, .. }) if bytes > free / share => Err(format!(
                "{place}: it would take {bytes} bytes, more than 1/{share} of the {free} that are \
                 free there"
            )),
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{place}: {why}")),
        }
    }

    /// Deletes the oldest that is not among the first.
    fn drop_oldest(&mut self, directory: &OwnedFd) -> bool {
        let Some(at) = self.kept.iter().position(|one| one.number > FIRST) else {
            return false;
        };
        let dropped = self.kept.remove(at);
        if let Ok(name) = CString::new(dropped.name.as_bytes()) {
            remove(directory, &name);
        }
        true
    }
}

fn remove(directory: &OwnedFd, name: &CString) {
    // SAFETY: an open directory and a NUL-terminated name, of a file that we made.
    unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) };
}

fn set_length(fd: &OwnedFd, length: u64) -> io::Result<()> {
    // SAFETY: an open descriptor and a number.
    match unsafe { libc::ftruncate(fd.as_raw_fd(), length as libc::off_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes all of it, by calls: where there is no room that is an error, and not a signal as it
/// would be through a mapping.
fn put(fd: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: an open descriptor and a valid buffer of this length.
        let done = unsafe {
            libc::pwrite(
                fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                at as libc::off_t,
            )
        };
        match usize::try_from(done) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(done) => {
                bytes = &bytes[done.min(bytes.len())..];
                at += done as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Log, OnOom, Sample, Settings, Stacks};
    use std::path::Path;
    use vramtrace_format::layout::MIN_SIZE;
    use vramtrace_format::record::Record;

    fn store(directory: &Path, keep: u64) -> Store {
        let output = directory.join("x.vrt").into_os_string();
        let settings = Settings {
            output: Some(output.into_encoded_bytes()),
            run_dir: None,
            size: MIN_SIZE,
            size_raised: false,
            keep,
            stacks: Stacks::Off,
            log: Log::Quiet,
            sample: Sample::All,
            budget: None,
            on_oom: OnOom::Snapshot,
            shown: Vec::new(),
        };
        let file = file::create(&settings).unwrap();
        Store::beside(&file, settings.keep).unwrap()
    }

    fn contents(entries: usize) -> Contents {
        let mut contents = Contents::new();
        contents.live[0] = vec![Record::default(); entries];
        contents
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "x.vrt").collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_and_the_last_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store(directory.path(), 1 << 30);
        for number in 1..=9 {
            store.write(contents(10), number, 7).unwrap();
        }
        let kept = ["x.vrt.oom-1", "x.vrt.oom-2", "x.vrt.oom-8", "x.vrt.oom-9"];
        assert_eq!(names(directory.path()), kept);
    }

    #[test]
    fn all_together_stay_within_their_bound() {
        let directory = tempfile::tempdir().unwrap();
        let one = contents(1000).bytes() + 4096;
        let mut store = store(directory.path(), 3 * one);
        for number in 1..=9 {
            store.write(contents(1000), number, 7).unwrap();
        }
        let kept = ["x.vrt.oom-1", "x.vrt.oom-2", "x.vrt.oom-9"];
        assert_eq!(names(directory.path()), kept);
        // A large one takes the place of the last ones, not of the first.
        let why = store.write(contents(3000), 10, 7).unwrap_err();
        assert!(why.contains("VRAMTRACE_KEEP"), "{why}");
        assert_eq!(names(directory.path()), kept[..2]);
    }

    #[test]
    fn one_that_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store(directory.path(), 1 << 30);
        store.directory = directory.path().join("gone");
        let why = store.write(contents(10), 1, 7).unwrap_err();
        assert!(why.contains("gone"), "{why}");
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store(directory.path(), 1 << 30);
        std::fs::write(directory.path().join("x.vrt.oom-1"), "precious").unwrap();
        store.write(contents(10), 1, 7).unwrap();
        assert_eq!(names(directory.path()), ["x.vrt.oom-1", "x.vrt.oom-1.2"]);
    }
}
