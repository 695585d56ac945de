//! The private directory that traces are written in while the program runs.
//!
//! A store into a mapped file can block for seconds when its file system stalls, so the hot file
//! lives in memory: `$XDG_RUNTIME_DIR/vramtrace`, else `/dev/shm/vramtrace-UID`. Where neither
//! will do, a hidden directory beside the output, then one in the temporary directory.
//!
//! Whoever uses a directory holds a lock on it, which the kernel takes away when it dies: so others
//! know which ones nobody looks after any more.

use super::Failure;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The recorder takes at most an eighth of what is free, and needs a mebibyte.
const LEAST_FREE: u64 = 8 << 20;

/// What names of directories of runs begin with.
const PREFIX: &str = "run-";

/// A run's directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The directory itself, locked as long as it is open. Programs don't inherit it.
    _lock: File,
    /// Parent to remove when it is empty again, if we put it where the user has own files.
    tidy: Option<PathBuf>,
}

impl RunDir {
    /// Makes one, in the best place that works. `output` is the directory that traces end up in.
    pub fn create(output: &Path) -> Result<RunDir, Failure> {
        let mut tried = Vec::new();
        for place in places(output) {
            match place.make() {
                Ok(made) => return Ok(made),
                Err(why) => tried.push(format!("{}: {why}", place.base().display())),
            }
        }
        Err(Failure::usage(format!(
            "found no place to write traces while the program runs ({})",
            tried.join("; ")
        )))
    }

    /// Makes one in the temporary directory, for something to be kept there.
    pub fn temporary(name: &str) -> Result<RunDir, Failure> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        let uid = unsafe { libc::geteuid() };
        let place = Place {
            parent: std::env::temp_dir(),
            name: format!("{name}-{uid}"),
            tidy: true,
        };
        place
            .make()
            .map_err(|why| Failure::usage(format!("{}: {why}", place.base().display())))
    }

    /// Those of runs that were killed, or left behind children that wrote on. `output` is as for
    /// [`RunDir::create`].
    pub fn abandoned(output: &Path) -> Vec<RunDir> {
        places(output).iter().flat_map(Place::abandoned).collect()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory if nothing is left in it, and says whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        let gone = std::fs::remove_dir(&self.path).is_ok();
        if let Some(parent) = self.tidy.as_deref().filter(|_| gone) {
            // Another run may still use it; then this fails, as it should.
            let _ = std::fs::remove_dir(parent);
        }
        gone
    }
}

/// A candidate: a directory that exists, and the name of ours in it.
struct Place {
    parent: PathBuf,
    name: String,
    tidy: bool,
}

/// Whether a path looks like a directory of a run.
pub fn is_run_dir(path: &Path) -> bool {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let base = path.parent().and_then(name).unwrap_or_default();
    let base = base.trim_start_matches('.');
    name(path).is_some_and(|name| name.starts_with(PREFIX))
        && (base == "vramtrace" || base.starts_with("vramtrace-"))
}

/// Where directories of runs may be; `output` is as for [`RunDir::create`].
pub fn bases(output: &Path) -> Vec<PathBuf> {
    places(output).iter().map(Place::base).collect()
}

fn places(output: &Path) -> Vec<Place> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let mut places = Vec::new();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(parent) = runtime.filter(|path| path.is_absolute()) {
        places.push(Place {
            parent,
            name: "vramtrace".into(),
            tidy: false,
        });
    }
    places.push(Place {
        parent: "/dev/shm".into(),
        name: format!("vramtrace-{uid}"),
        tidy: false,
    });
    places.push(Place {
        parent: output.into(),
        name: format!(".vramtrace-{uid}"),
        tidy: true,
    });
    places.push(Place {
        parent: std::env::temp_dir(),
        name: format!("vramtrace-{uid}"),
        tidy: true,
    });
    places
}

impl Place {
    fn base(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    fn make(&self) -> io::Result<RunDir> {
        let parent = File::open(&self.parent)?;
        let file_system = FileSystem::of(&parent)?;
        if let Some(kind) = file_system.refused() {
            return Err(io::Error::other(format!(
                "{kind} is not a local file system"
            )));
        }
        if file_system.free < LEAST_FREE {
            return Err(io::Error::other("too little free space"));
        }
        let base = own_directory(&parent, OsStr::new(&self.name))?;
        // SAFETY: getpid has no preconditions and cannot fail.
        let pid = unsafe { libc::getpid() };
        for _ in 0..16 {
            let name = OsString::from(format!("{PREFIX}{pid}-{:08x}", random()));
            match make_directory(&base, &name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Until it is locked, another run may take it for an abandoned one and remove it.
            match self.take(&base, &name) {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no free name"))
    }

    /// Takes a directory that is there; `None` if somebody looks after it.
    fn take(&self, base: &File, name: &OsStr) -> io::Result<Option<RunDir>> {
        let lock = open_own_directory(base, name)?;
        let path = self.base().join(name);
        // SAFETY: the descriptor is open.
        let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
        // Whoever had it before may have removed it.
        let same = locked && std::fs::symlink_metadata(&path)?.ino() == lock.metadata()?.ino();
        Ok(same.then(|| RunDir {
            path,
            _lock: lock,
            tidy: self.tidy.then(|| self.base()),
        }))
    }

    fn abandoned(&self) -> Vec<RunDir> {
        let base = File::open(&self.parent)
            .and_then(|parent| open_own_directory(&parent, OsStr::new(&self.name)));
        let (Ok(base), Ok(entries)) = (base, std::fs::read_dir(self.base())) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.as_bytes().starts_with(PREFIX.as_bytes()))
            .filter_map(|name| self.take(&base, &name).ok().flatten())
            .collect()
    }
}

/// Makes or takes a directory that only this user can enter. In a directory that everyone may
/// write to, somebody else may have put a link or an own directory in its place.
fn own_directory(parent: &File, name: &OsStr) -> io::Result<File> {
    match make_directory(parent, name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => open_own_directory(parent, name),
    }
}

fn open_own_directory(parent: &File, name: &OsStr) -> io::Result<File> {
    let path = CString::new(name.as_bytes())?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::openat(parent.as_raw_fd(), path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: openat just returned this descriptor and nothing else owns it.
    let directory = unsafe { File::from_raw_fd(fd) };
    let facts = directory.metadata()?;
    // SAFETY: geteuid has no preconditions and cannot fail.
    if facts.uid() != unsafe { libc::geteuid() } {
        return Err(io::Error::other("belongs to another user"));
    }
    if facts.mode() & 0o777 != 0o700 {
        // SAFETY: the descriptor is open and ours.
        if unsafe { libc::fchmod(fd, 0o700) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(directory)
}

fn make_directory(parent: &File, name: &OsStr) -> io::Result<()> {
    let path = CString::new(name.as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    match unsafe { libc::mkdirat(parent.as_raw_fd(), path.as_ptr(), 0o700) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A number that others can't guess, from the seed of std's hash maps (the getrandom function is
/// newer than the oldest glibc that is supported).
fn random() -> u32 {
    std::collections::hash_map::RandomState::new().hash_one(std::process::id()) as u32
}

/// Whether files can be made in a directory.
pub fn writable(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let mode = libc::W_OK | libc::X_OK;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What kind of file system something is on, and how much room it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `f_type` of statfs(2).
    pub magic: u64,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that this user may still take.
    pub free: u64,
}

/// File systems by the numbers in linux/magic.h (and, for those out of tree, their own sources);
/// the flag says whether a stall over the network can block a store into a mapped file.
const KINDS: [(u64, &str, bool); 21] = [
    (0x0102_1994, "tmpfs", false),
    (0x8584_58f6, "ramfs", false),
    (0xef53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683e, "btrfs", false),
    (0x2fc1_2fc1, "zfs", false),
    (0x794c_7630, "overlayfs", false),
    (0xf2f5_2010, "f2fs", false),
    (0xca45_1a4e, "bcachefs", false),
    (0x4d44, "vfat", false),
    (0x2011_bab0, "exfat", false),
    (0x6969, "NFS", true),
    (0xff53_4d42, "CIFS", true),
    (0xfe53_4d42, "SMB", true),
    (0x517b, "SMB", true),
    (0x6573_5546, "FUSE", true),
    (0x0bd0_0bd0, "Lustre", true),
    (0x00c3_6400, "Ceph", true),
    (0x4750_4653, "GPFS", true),
    (0x0102_1997, "9p", true),
    (0x1983_0326, "BeeGFS", true),
];

impl FileSystem {
    /// Of an open file or directory.
    pub fn of(file: &File) -> io::Result<FileSystem> {
        // SAFETY: an all-zero statfs is a valid value for the call to fill in.
        let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and `facts` is valid for writes.
        if unsafe { libc::fstatfs(file.as_raw_fd(), &mut facts) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let block = facts.f_bsize as u64;
        Ok(FileSystem {
            magic: facts.f_type as u64 & 0xffff_ffff,
            size: facts.f_blocks.saturating_mul(block),
            free: facts.f_bavail.saturating_mul(block),
        })
    }

    /// Its name, if we know it.
    pub fn name(&self) -> Option<&'static str> {
        KINDS
            .iter()
            .find(|(magic, ..)| *magic == self.magic)
            .map(|&(_, name, _)| name)
    }

    /// The name of a file system that must not hold the hot file.
    pub fn refused(&self) -> Option<&'static str> {
        KINDS
            .iter()
            .find(|&&(magic, _, remote)| remote && magic == self.magic)
            .map(|&(_, name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place(parent: &Path) -> Place {
        Place {
            parent: parent.into(),
            name: "base".into(),
            tidy: true,
        }
    }

    #[test]
    fn the_directory_is_private_and_goes_away_with_its_parent() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = scratch.path();
        std::fs::create_dir(scratch.join("base")).unwrap();
        let lax = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.join("base"), lax).unwrap();
        let run = place(scratch).make().unwrap();
        for path in [run.path(), &scratch.join("base")] {
            let mode = std::fs::metadata(path).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
        std::fs::write(run.path().join("trace"), "x").unwrap();
        assert!(!run.remove_if_empty());
        std::fs::remove_file(run.path().join("trace")).unwrap();
        assert!(run.remove_if_empty());
        assert!(!scratch.join("base").exists());
    }

    #[test]
    fn only_what_nobody_looks_after_is_abandoned() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        assert!(place.abandoned().is_empty());
        let (kept, left) = (place.make().unwrap(), place.make().unwrap());
        let path = left.path().to_owned();
        drop(left);
        std::fs::create_dir(scratch.path().join("base/other")).unwrap();
        symlink(kept.path(), scratch.path().join("base/run-link")).unwrap();
        let abandoned = place.abandoned();
        let paths: Vec<&Path> = abandoned.iter().map(RunDir::path).collect();
        assert_eq!(paths, [path]);
        // They are looked after now.
        assert!(place.abandoned().is_empty());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = scratch.path();
        symlink("/tmp", scratch.join("base")).unwrap();
        assert!(place(scratch).make().is_err());
    }

    #[test]
    fn the_file_system_is_known() {
        let facts = FileSystem::of(&File::open("/proc").unwrap()).unwrap();
        assert_eq!((facts.name(), facts.refused()), (None, None));
        let nfs = FileSystem {
            magic: 0x6969,
            size: 0,
            free: 0,
        };
        assert_eq!(nfs.refused(), Some("NFS"));
    }
}
