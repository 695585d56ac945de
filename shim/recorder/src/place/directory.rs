//! Directories, opened so that nobody can lead us elsewhere, and what kind of storage they are on.

use super::Candidate;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Why a place can't be used.
#[derive(Debug)]
pub enum Unusable {
    /// The system said no.
    Io(&'static str, io::Error),
    /// A store there can block for as long as a network does.
    Remote(&'static str),
    /// The private directory belongs to somebody else, or is open to others.
    NotPrivate,
    /// Not even the smallest trace fits.
    Full,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unusable::Io(what, error) => write!(f, "{what}: {error}"),
            Unusable::Remote(name) => {
                write!(
                    f,
                    "it is on {name}, where writing can block; set VRAMTRACE_OUTPUT to a local path"
                )
            }
            Unusable::NotPrivate => write!(
                f,
                "the directory is not this user's own and private (mode 0700)"
            ),
            Unusable::Full => write!(f, "no room there for even the smallest trace (1 MiB)"),
        }
    }
}

/// Opens a candidate's directory, creating it where that is ours to do.
pub fn open(candidate: &Candidate) -> Result<OwnedFd, Unusable> {
    let path = &candidate.directory;
    if candidate.private {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Unusable::Io("can't create the directory", error));
            }
            _ => {}
        }
    } else {
        std::fs::create_dir_all(path)
            .map_err(|error| Unusable::Io("can't create the directory", error))?;
    }
    let directory = open_directory(path, candidate.private)
        .map_err(|error| Unusable::Io("can't open the directory", error))?;
    if candidate.private {
        let meta = std::fs::File::from(
            directory
                .try_clone()
                .map_err(|e| Unusable::Io("can't open the directory", e))?,
        )
        .metadata()
        .map_err(|error| Unusable::Io("can't look at the directory", error))?;
        // SAFETY: geteuid takes nothing and cannot fail.
        if meta.uid() != unsafe { libc::geteuid() } || meta.mode() & 0o077 != 0 {
            return Err(Unusable::NotPrivate);
        }
    }
    match storage(&directory)? {
        Storage {
            remote: Some(name), ..
        } => Err(Unusable::Remote(name)),
        _ => Ok(directory),
    }
}

/// Opens a directory that was opened as a candidate's before.
pub fn again(path: &Path) -> Result<OwnedFd, Unusable> {
    open_directory(path, false).map_err(|error| Unusable::Io("can't open the directory", error))
}

fn open_directory(path: &Path, no_follow: bool) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC | if no_follow { libc::O_NOFOLLOW } else { 0 };
    // SAFETY: a NUL-terminated path and plain flags.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open just returned it; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a directory is on.
pub struct Storage {
    /// Name of the network or FUSE file system, if it is one.
    pub remote: Option<&'static str>,
    /// Bytes this user may still take there.
    pub free: u64,
}

/// Magic numbers of file systems whose server can stall (linux/magic.h and the projects' own).
const REMOTE: [(i64, &str); 15] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0BD0_0BD0, "Lustre"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0102_1997, "9p"),
    (0xAAD7_AAEA, "PanFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x786F_4256, "a VirtualBox shared folder"),
];

/// What the directory is on.
pub fn storage(directory: &OwnedFd) -> Result<Storage, Unusable> {
    // SAFETY: statfs is plain data; all zeroes is a valid value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a valid struct to write to.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), &mut stat) } != 0 {
        return Err(Unusable::Io(
            "can't look at the file system",
            io::Error::last_os_error(),
        ));
    }
    let magic = stat.f_type & 0xffff_ffff;
    Ok(Storage {
        remote: REMOTE
            .iter()
            .find(|(number, _)| *number == magic)
            .map(|(_, name)| *name),
        free: (stat.f_bavail).saturating_mul(stat.f_bsize as u64),
    })
}
