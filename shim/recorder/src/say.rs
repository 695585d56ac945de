//! The few lines that the recorder writes to standard error.

use crate::settings::Log;

/// Writes one line, whole, without buffering or locks.
pub fn line(threshold: Log, level: Log, text: &str) {
    if level > threshold {
        return;
    }
    // A pipe that nobody reads would kill or stop the program; poll says so beforehand.
    let mut error = libc::pollfd {
        fd: 2,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd, no waiting.
    let ready = unsafe { libc::poll(&mut error, 1, 0) } == 1;
    if !ready || error.revents != libc::POLLOUT {
        return;
    }
    let _uncancelled = crate::process::Uncancelled::new();
    let line = format!("vramtrace: {}\n", text.replace(['\n', '\r'], " "));
    // SAFETY: a valid buffer of this length; a short or failed write to stderr is nobody's
    // problem.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
