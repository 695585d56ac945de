//! Dead traces in the default directory: enough to look at later, never enough to hurt.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;
use vramtrace_format::layout::{Header, MAGIC};

/// Deletes the oldest traces of dead processes until the others fit into `keep` bytes. Only files
/// that are traces, of this user, in this directory; a failure leaves things as they are.
pub fn prune(directory: &Path, keep: u64) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut dead: Vec<(SystemTime, u64, std::path::PathBuf)> = entries
        .take(10_000)
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(|meta| meta.is_file())?;
            // SAFETY: geteuid takes nothing and cannot fail.
            let ours = meta.uid() == unsafe { libc::geteuid() };
            let path = entry.path();
            (ours && is_dead_trace(&path)).then_some((
                meta.modified().ok()?,
                meta.blocks() * 512,
                path,
            ))
        })
        .collect();
    dead.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
    let mut kept = 0u64;
    for (_, bytes, path) in dead {
        kept = kept.saturating_add(bytes);
        if kept > keep {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether the file is a trace whose process is gone. A trace from another pid namespace (a
/// container that shares the directory) may be anybody's and is left alone; a pid in use may be
/// another process by now, whose trace is simply kept a while longer.
fn is_dead_trace(path: &Path) -> bool {
    let mut head = [0u8; size_of::<Header>()];
    let read = std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    if read.is_err() || head[..8] != MAGIC {
        return false;
    }
    let header: Header = bytemuck::pod_read_unaligned(&head);
    // SAFETY: signal 0 only asks whether there is such a process.
    let gone = || unsafe { libc::kill(header.pid as libc::pid_t, 0) } != 0
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    header.pid_namespace != 0
        && header.pid_namespace == crate::process::pid_namespace()
        && header.pid > 0
        && gone()
}
