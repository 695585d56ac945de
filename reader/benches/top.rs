//! What `vramtrace top` takes of one core, on a terminal of 120 × 40, twice a second, with 20 running processes of
//! 64 MiB traces and 400 call stacks each, all of which allocate all the time; and its memory.

#[path = "running/mod.rs"]
mod running;
#[path = "../tests/support/mod.rs"]
mod support;

use running::Running;
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROCESSES: usize = 20;
/// Names are found in it, and caches filled.
const WARM: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(30);

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let place = place.expect("a directory for the traces");
    let mut running = Running::start(place.path(), PROCESSES);
    let (mut terminal, name) = terminal(40, 120).expect("a terminal");
    let mut top = start(&name, place.path());
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    std::thread::spawn(move || {
        let mut bytes = [0; 64 << 10];
        while let Ok(read) = terminal.read(&mut bytes) {
            count.fetch_add(read as u64, Ordering::Relaxed);
        }
    });
    let mut go_on = |until: Instant| {
        while Instant::now() < until {
            running.go_on();
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    go_on(Instant::now() + WARM);
    let (from, bytes) = (cpu(&top), written.load(Ordering::Relaxed));
    let begun = Instant::now();
    go_on(begun + MEASURED);
    let (used, over) = (cpu(&top) - from, begun.elapsed().as_secs_f64());
    let bytes = written.load(Ordering::Relaxed) - bytes;
    assert!(bytes > 0, "nothing was drawn");
    println!(
        "top of {PROCESSES} processes, twice a second: {:.2} % of one core ({:.2} ms a look), {:.1} KiB/s drawn; \
         it has {:.1} MiB",
        used / over * 100.0,
        used / over / 2.0 * 1e3,
        bytes as f64 / over / 1024.0,
        memory(&top)
    );
    let _ = top.kill();
    let _ = top.wait();
}

fn start(terminal: &str, place: &std::path::Path) -> Child {
    let open = || {
        let file = OpenOptions::new().read(true).write(true).open(terminal);
        file.expect("the terminal")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vramtrace"));
    command
        .args(["top", "--no-nvml"])
        .arg(place)
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .stdin(open())
        .stdout(open())
        .stderr(open());
    // SAFETY: system calls with plain numbers only, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command.spawn().expect("the command")
}

/// A terminal of this size: our end of it, and the name of the other.
fn terminal(rows: u16, columns: u16) -> io::Result<(File, String)> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let mut name = [0; 128];
    // SAFETY: plain numbers; the descriptor that comes back is owned by nobody else; the buffer has the
    // length that is given, and the size is a valid one.
    unsafe {
        let fd = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = File::from_raw_fd(fd);
        let fd = file.as_raw_fd();
        if libc::grantpt(fd) != 0
            || libc::unlockpt(fd) != 0
            || libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) != 0
            || libc::ioctl(fd, libc::TIOCSWINSZ, &size) != 0
        {
            return Err(io::Error::last_os_error());
        }
        let name = CStr::from_ptr(name.as_ptr());
        Ok((file, name.to_string_lossy().into_owned()))
    }
}

/// Seconds of processor time that it took, without those of what it started.
fn cpu(of: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", of.id())).expect("its status");
    let after = stat.rsplit_once(')').expect("a name").1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|&at| fields[at].parse::<f64>().ok())
        .sum();
    // SAFETY: takes a plain number.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// MiB that it has.
fn memory(of: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", of.id())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
