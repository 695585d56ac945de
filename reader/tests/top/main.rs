//! `vramtrace top`, from traces that processes write to what is on the screen.

#![allow(missing_docs)]

mod fixture;
mod keys;
mod model;
mod screen;
#[path = "../support/mod.rs"]
mod support;
