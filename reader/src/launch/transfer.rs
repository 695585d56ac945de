//! Moves one file to another place without ever losing it or overwriting anything unasked.
//!
//! On one file system that is a rename. Across two it is a copy under a temporary name, brought to
//! disk, renamed, and only then is the original removed. Memory that was never written to is not
//! copied: a trace is reserved in full and mostly empty.

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What to do about a file that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Replace it.
    Replace,
}

/// Moves `from` to `to`. Whatever fails, `from` is still there afterwards.
pub fn move_file(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    match rename(from, to, existing) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => copy_over(from, to, existing),
        other => other,
    }
}

fn copy_over(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    let directory = to.parent().unwrap_or(Path::new("/"));
    // Asked before the work, and again by the rename after it.
    if existing == Existing::Keep && to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let (temporary, file) = temporary_in(directory)?;
    let done = copy_contents(&File::open(from)?, &file)
        .and_then(|()| file.sync_all())
        .and_then(|()| rename(&temporary, to, existing));
    if let Err(error) = done {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    // Some file systems refuse to sync a directory; the data is safe either way.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    std::fs::remove_file(from)
}

fn temporary_in(directory: &Path) -> io::Result<(PathBuf, File)> {
    for attempt in 0..1000 {
        let mut name = OsString::from(".vramtrace-moving-");
        name.push(format!("{}-{attempt}", std::process::id()));
        let path = directory.join(name);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (path, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Copies what is not zero; the rest becomes holes.
fn copy_contents(from: &File, to: &File) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0u8; 256 * BLOCK];
    let mut at = 0;
    while at < length {
        let wanted = buffer.len().min((length - at) as usize);
        let chunk = &mut buffer[..wanted];
        from.read_exact_at(chunk, at)?;
        // Neighbouring blocks with content go out in one write.
        let mut run: Option<usize> = None;
        for start in (0..wanted).step_by(BLOCK) {
            let end = (start + BLOCK).min(wanted);
            let empty = chunk[start..end].iter().all(|&byte| byte == 0);
            match (empty, run) {
                (false, None) => run = Some(start),
                (true, Some(first)) => {
                    to.write_all_at(&chunk[first..start], at + first as u64)?;
                    run = None;
                }
                _ => {}
            }
        }
        if let Some(first) = run {
            to.write_all_at(&chunk[first..], at + first as u64)?;
        }
        at += wanted as u64;
    }
    Ok(())
}

/// Gives a file another name on the same file system.
pub fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    if existing == Existing::Replace {
        return std::fs::rename(from, to);
    }
    match rename_unless_there(from, to) {
        // The file system does not know the flag (NFS, some FUSE): a hard link never overwrites
        // either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            match std::fs::hard_link(from, to) {
                Ok(()) => std::fs::remove_file(from),
                Err(error) if no_hard_links(&error) => {
                    // Take the name first; then it is ours to replace.
                    OpenOptions::new().write(true).create_new(true).open(to)?;
                    std::fs::rename(from, to)
                }
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

fn no_hard_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

fn rename_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    // By number: the C library has a wrapper only since glibc 2.28.
    // SAFETY: both strings are NUL-terminated and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_in_the_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        for attempt in [move_file, copy_over] {
            let error = attempt(&from, &to, Existing::Keep).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&to).unwrap(), b"old");
            assert_eq!(fs::read(&from).unwrap(), b"new");
        }
        move_file(&from, &to, Existing::Replace).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(!from.exists());
    }

    #[test]
    fn a_copy_is_equal_and_has_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut content = vec![0u8; (5 << 20) + 123];
        for at in [0, 4095, 4096, 1 << 20, (3 << 20) - 1, (5 << 20) + 122] {
            content[at] = 7;
        }
        fs::write(&from, &content).unwrap();
        copy_over(&from, &to, Existing::Keep).unwrap();
        assert!(!from.exists());
        assert!(fs::read(&to).unwrap() == content);
        let facts = fs::metadata(&to).unwrap();
        assert!(facts.blocks() * 512 < 1 << 20, "{} blocks", facts.blocks());
        assert_eq!(facts.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn across_file_systems() {
        let shared = Path::new("/dev/shm");
        let other = std::env::temp_dir();
        let device = |path: &Path| fs::metadata(path).map(|facts| facts.dev()).ok();
        if device(shared).is_none() || device(shared) == device(&other) {
            eprintln!("skipped: /dev/shm is not a file system of its own here");
            return;
        }
        let near = tempfile::tempdir_in(shared).unwrap();
        let far = tempfile::tempdir_in(other).unwrap();
        let (near, far) = (near.path(), far.path());
        fs::write(near.join("x"), "content").unwrap();
        move_file(&near.join("x"), &far.join("y"), Existing::Keep).unwrap();
        assert_eq!(fs::read(far.join("y")).unwrap(), b"content");
        assert!(!near.join("x").exists());
    }

    #[test]
    fn what_cannot_be_moved_stays() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::write(&from, "x").unwrap();
        let nowhere = dir.path().join("missing/to");
        assert!(move_file(&from, &nowhere, Existing::Keep).is_err());
        assert!(copy_over(&from, &nowhere, Existing::Keep).is_err());
        assert!(from.exists());
    }
}
