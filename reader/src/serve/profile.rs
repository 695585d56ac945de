//! Profiles of running processes for Pyroscope, Parca and `go tool pprof`, made by another process:
//! `vramtrace export` on the open files.

use crate::live::child::{self, Bounds};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(50);
/// Bytes of a profile.
const LONGEST: u64 = 64 << 20;
/// Processes in one profile.
pub const MOST_PROCESSES: usize = 64;

/// The profile of these traces, gzipped profile.proto. An error is a sentence's end.
pub fn pprof(files: &[File]) -> Result<Vec<u8>, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    command
        .args(["export", "--format", "pprof", "-o", "-"])
        .args(
            files
                .iter()
                .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd())),
        )
        .stdin(Stdio::null());
    let bounds = Bounds {
        time: PATIENCE,
        output: LONGEST,
    };
    child::output(command, files, bounds)
}
