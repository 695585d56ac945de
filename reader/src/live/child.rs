//! Work that is done by another process: it may take memory, time, or its own life, and nothing of ours.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Address space that it may take, bytes.
const MOST_MEMORY: u64 = 16 << 30;

/// What bounds it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may take.
    pub time: Duration,
    /// Bytes that it may write on its standard output.
    pub output: u64,
}

/// Runs a command to its end, with open files that it inherits, and returns what it wrote. It ends with
/// us. Fails where it does not succeed within its bounds; a sentence.
pub fn output(mut command: Command, files: &[File], bounds: Bounds) -> Result<Vec<u8>, String> {
    let inherited: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || -> io::Result<()> {
        let limit = libc::rlimit {
            rlim_cur: MOST_MEMORY,
            rlim_max: MOST_MEMORY,
        };
        // SAFETY: system calls with plain numbers and a valid limit, which may be made between fork and
        // exec. The descriptors are open: `files` outlives the spawn.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            for &fd in &inherited {
                if libc::fcntl(fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    };
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: the closure makes system calls only; it neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let pipe = child.stdout.take();
    let most = bounds.output;
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let pipe = pipe?;
        // One more byte tells that there is too much.
        let read = pipe.take(most.saturating_add(1)).read_to_end(&mut bytes);
        (read.is_ok() && bytes.len() as u64 <= most).then_some(bytes)
    });
    let until = Instant::now() + bounds.time;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => break None,
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let bytes = reading.join().ok().flatten();
    match (status, bytes) {
        (None, _) => Err(format!("took longer than {} s", bounds.time.as_secs())),
        (Some(status), _) if !status.success() => Err(format!("ended with {status}")),
        (Some(_), None) => Err(format!("wrote more than {most} bytes")),
        (Some(_), Some(bytes)) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn it_is_bounded_and_inherits_what_it_is_given() {
        let bounds = Bounds {
            time: Duration::from_secs(60),
            output: 100,
        };
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"content").unwrap();
        let script = format!("cat /proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(output(shell(&script), &[file], bounds).unwrap(), b"content");
        assert!(
            output(shell("exit 3"), &[], bounds)
                .unwrap_err()
                .contains('3')
        );
        let endless = output(
            shell("while :; do echo yyyyyyyyyyyyyyyyyyyy; done"),
            &[],
            Bounds {
                time: Duration::from_millis(300),
                ..bounds
            },
        );
        assert!(endless.is_err());
        let slow = Bounds {
            time: Duration::from_millis(20),
            ..bounds
        };
        assert!(
            output(shell("exec sleep 60"), &[], slow)
                .unwrap_err()
                .contains("longer")
        );
    }
}
