//! What commands that a benchmark starts have cost when they are over.

/// Waits for a child; the processor time that it took, which says more than the clock on a busy machine,
/// in seconds, and its peak resident memory, KiB.
pub fn wait(pid: u32) -> (f64, i64) {
    // SAFETY: rusage is plain data; the call fills it, and waits for a child of ours.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        let waited = libc::wait4(pid as i32, &mut status, 0, &mut usage);
        assert_eq!(waited, pid as i32);
        assert_eq!(status, 0, "the command failed");
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let taken = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        (taken, usage.ru_maxrss)
    }
}
