//! `vramtrace run` as a user sees it, through the real binary. The recorder is an empty library
//! here, and traces are put into the run directory by the program that is run.

mod doctor;
mod exit;
mod fixture;
mod orphans;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod traces;
