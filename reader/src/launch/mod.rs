//! Starting a program with the recorder in it, staying with it until it ends, and bringing its
//! traces to where they belong.
//!
//! In: a program, its arguments, the settings. Out: the program's own exit code and the traces at
//! their final paths. The program's terminal, standard streams, signals and exit code are its own
//! throughout; a trace is never deleted, and never overwrites a file that was not asked to be
//! overwritten.
//!
//! - [`pattern`]: the output file name with its `%` parts
//! - [`rundir`]: the private directory that traces are written in while programs run
//! - [`library`]: where `libvramtrace.so` is and how it gets into `LD_PRELOAD`
//! - [`supervise`]: the child process: start, signals, orphans, exit code
//! - [`head`]: the little of a trace that says whose it is
//! - [`liveness`]: whether the process of a trace still runs
//! - [`transfer`]: moving one file without losing or overwriting anything
//! - [`watch`]: the traces that appear while programs run
//! - [`sampler`]: asking NVML what nvidia-smi shows of their processes
//! - [`keep_samples`]: putting that into the traces
//! - [`collect`]: moving all traces of a run
//! - [`snapshots`]: moving what was taken of them when allocations failed
//! - [`orphans`]: moving what runs left that were killed
//! - [`session`]: all of that in order
//! - [`inspect`]: what kind of executable a program is
//! - [`checkup`]: whether a program can be traced here

pub mod checkup;
pub mod collect;
pub mod head;
pub mod inspect;
pub mod keep_samples;
pub mod library;
pub mod liveness;
pub mod nvtx;
pub mod orphans;
pub mod pattern;
pub mod rundir;
pub mod sampler;
pub mod session;
pub mod size;
pub mod snapshots;
pub mod supervise;
pub mod transfer;
pub mod watch;

use std::fmt;

/// Exit code for wrong usage, and for anything that kept us from starting the program at all.
pub const EXIT_USAGE: i32 = 2;

/// Why something could not be done, with the exit code that says so to scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What `vramtrace` exits with.
    pub code: i32,
    /// One sentence, with what to do about it where that is known.
    pub message: String,
}

impl Failure {
    /// A failure that wrong usage or a missing prerequisite caused.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: EXIT_USAGE,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
