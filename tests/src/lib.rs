//! What whole-system tests need: the real library, the real command and the simulated driver,
//! built once; programs to trace; and what the reader says about their traces.
//!
//! A test compiles or names a program, runs it with [`Run`], and asks [`Finished::leaks`].

mod artifacts;
pub mod exports;
mod programs;
pub mod python;
mod report;
mod run;
mod scratch;
pub mod serving;
pub mod torch;

pub use artifacts::{Artifacts, artifacts, repository};
pub use programs::{Build, c_compiler, copy_program, program, script};
pub use report::{Check, Group, Leaks, Left, left_lines, read_json, vramtrace};
pub use run::{Finished, Run};
pub use scratch::Scratch;

/// Says, where nobody can overlook it, that a test did not run on this machine.
pub fn skip(what: &str, why: &str) {
    // Past libtest's capture: a skip that nobody sees looks like a pass.
    let line = format!("SKIPPED {what}: {why}\n");
    // SAFETY: a valid buffer of this length.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

/// Whether the long form of the tests was asked for (`scripts/test --full`).
pub fn full() -> bool {
    std::env::var_os("VRAMTRACE_TEST_FULL").is_some()
}
