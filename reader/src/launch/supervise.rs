//! The child process: start it, pass signals on, reap what it leaves, learn how it ended.
//!
//! The child stays in our process group, so the terminal is its own: what the terminal sends
//! (Ctrl-C, Ctrl-\, hang-up, a new window size) the kernel delivers to both, and we let it pass.
//! What somebody sends to us alone is passed on. The signals are blocked and taken one by one with
//! sigtimedwait; there is no handler. As process 1 of a container we also have to reap every
//! orphan; elsewhere we ask for them (`PR_SET_CHILD_SUBREAPER`), to know when daemons end.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Exit code where the program does not exist, as shells have it.
pub const EXIT_NOT_FOUND: i32 = 127;
/// Exit code where the program cannot be executed, as shells have it.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;

/// What is passed on. Not among them: signals that report a fault of our own, those that stop and
/// continue (they are for the whole job), and SIGKILL, which nobody can see coming.
const FORWARDED: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGIO,
    libc::SIGPWR,
];

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code that says the same to a shell.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => 128 + signal,
        }
    }

    fn from_status(status: libc::c_int) -> Ended {
        if libc::WIFSIGNALED(status) {
            Ended::Killed(libc::WTERMSIG(status))
        } else {
            Ended::Exited(libc::WEXITSTATUS(status))
        }
    }
}

/// A running program.
#[derive(Debug)]
pub struct Supervised {
    pid: libc::pid_t,
    ended: Option<Ended>,
    interrupted: bool,
}

impl Supervised {
    /// Starts `program` with `environment` on top of ours. Takes over this process's children and
    /// the signals of the calling thread, so it must be called before other threads start.
    pub fn start(
        program: &OsStr,
        arguments: &[OsString],
        environment: &[(String, OsString)],
    ) -> Result<Supervised, Failure> {
        let before = take_signals();
        // SAFETY: this option takes plain integers.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        let mut command = Command::new(program);
        command.args(arguments);
        for (name, value) in environment {
            command.env(name, value);
        }
        // SAFETY: between fork and exec only async-signal-safe calls are made.
        unsafe { command.pre_exec(move || before.restore()) };
        match command.spawn() {
            Ok(child) => Ok(Supervised {
                pid: child.id() as libc::pid_t,
                ended: None,
                interrupted: false,
            }),
            Err(error) => Err(cannot_start(program, &error)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Stays with the program until it ends.
    pub fn wait(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.ended {
                return ended;
            }
            self.handle(next_signal(None));
        }
    }

    /// Reaps orphans until `done` says so, nothing is left to wait for, `limit` has passed, or
    /// somebody asks us to stop.
    pub fn settle(&mut self, limit: Duration, mut done: impl FnMut() -> bool) {
        const STEP: Duration = Duration::from_millis(20);
        let end = Instant::now() + limit;
        self.interrupted = false;
        while !done() && !self.interrupted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.handle(next_signal(Some(left.min(STEP))));
        }
    }

    fn handle(&mut self, signal: Option<(libc::c_int, libc::c_int)>) {
        match signal {
            Some((libc::SIGCHLD, _)) | None => {}
            // The kernel itself sent it, for the terminal: the program has it already.
            Some((_, libc::SI_KERNEL)) => self.interrupted = true,
            Some((number, _)) if self.ended.is_none() => {
                // SAFETY: kill takes plain integers. The child is not reaped yet, so the number is
                // still its own.
                unsafe { libc::kill(self.pid, number) };
            }
            Some(_) => self.interrupted = true,
        }
        self.reap();
    }

    /// Takes the state of every child that ended. One SIGCHLD can stand for many.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: `status` is valid for writes.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            if pid == self.pid {
                self.ended = Some(Ended::from_status(status));
            }
        }
    }
}

/// Signal state to give back to the child: it must find what we found.
#[derive(Clone, Copy)]
struct Before {
    mask: libc::sigset_t,
    child: libc::sigaction,
}

impl Before {
    /// Runs between fork and exec.
    fn restore(&self) -> io::Result<()> {
        // SAFETY: both calls are async-signal-safe; the pointers are to values that live through
        // the calls, or null where that means "not wanted".
        unsafe {
            libc::sigaction(libc::SIGCHLD, &self.child, std::ptr::null_mut());
            libc::sigprocmask(libc::SIG_SETMASK, &self.mask, std::ptr::null_mut());
        }
        Ok(())
    }
}

/// Blocks the signals that we take one by one. SIGCHLD gets its default action: where it is
/// ignored, the kernel throws exit codes away.
fn take_signals() -> Before {
    let set = signal_set();
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut child = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero sigaction is SIG_DFL without flags; all pointers are to live values; an
    // all-zero mask and action are valid values should a call not fill them in.
    unsafe {
        let default = MaybeUninit::<libc::sigaction>::zeroed();
        libc::sigaction(libc::SIGCHLD, default.as_ptr(), child.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, mask.as_mut_ptr());
        Before {
            mask: mask.assume_init(),
            child: child.assume_init(),
        }
    }
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset initialises the set; sigaddset is given valid signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        for number in FORWARDED {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}

/// The next signal and where it came from (`si_code`); `None` when the time is over.
fn next_signal(limit: Option<Duration>) -> Option<(libc::c_int, libc::c_int)> {
    let set = signal_set();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos() as libc::c_long,
    });
    let limit = limit
        .as_ref()
        .map_or(std::ptr::null(), |limit| limit as *const _);
    // SAFETY: set and info are valid; a null limit means to wait without one. An all-zero siginfo
    // is a valid value.
    unsafe {
        let number = libc::sigtimedwait(&set, info.as_mut_ptr(), limit);
        (number > 0).then(|| (number, info.assume_init().si_code))
    }
}

/// Says why a program did not start, with the exit code that shells use for it.
fn cannot_start(program: &OsStr, error: &io::Error) -> Failure {
    let name = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            let why = match super::inspect::find_program(program) {
                Some(path) => match super::inspect::missing_interpreter(&path) {
                    Some(interpreter) => format!(
                        "cannot run {name}: its interpreter {} does not exist",
                        interpreter.display()
                    ),
                    None => format!("cannot run {name}: {error}"),
                },
                None => format!("{name}: no such program"),
            };
            Failure {
                code: EXIT_NOT_FOUND,
                message: why,
            }
        }
        _ => Failure {
            code: EXIT_NOT_EXECUTABLE,
            message: format!("cannot run {name}: {error}"),
        },
    }
}
