//! The few lines that the recorder writes to standard error.

use crate::settings::Log;

/// Writes one line, whole, without buffering or locks.
pub fn line(threshold: Log, level: Log, text: &str) {
    if level > threshold {
        return;
    }
    let line = format!("vramtrace: {}\n", text.replace(['\n', '\r'], " "));
    // SAFETY: a valid buffer of this length; a short or failed write to stderr is nobody's
    // problem.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
