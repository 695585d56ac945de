//! The report of failed allocations.

mod json;
mod text;

pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::leaks::Placed;
use crate::analysis::oom::{Failure, Oom};
use crate::model::Process;

/// Stacks of one failure.
pub struct Stacks {
    /// Of who asked.
    pub asked: Vec<ShownFrame>,
    /// Of each group that held memory.
    pub held: Vec<Vec<ShownFrame>>,
}

/// Failures with their stacks made readable.
pub struct Shown<'a> {
    /// The failures.
    pub oom: &'a Oom,
    /// Their frames.
    pub stacks: Vec<Stacks>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of failures in `processes`.
    pub fn new(oom: &'a Oom, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        frames.look_up(oom.stacks().map(|(id, stack)| (&processes[id], stack)));
        let mut of = |placed: &Placed| {
            let (id, group) = (placed.process, &placed.group);
            frames.of(id, &processes[id], &group.stack, group.api.as_deref())
        };
        let stacks = |failure: &Failure| Stacks {
            asked: of(&failure.placed),
            held: failure
                .held
                .iter()
                .flat_map(|held| &held.groups)
                .map(&mut of)
                .collect(),
        };
        let stacks = oom.failures.iter().map(stacks).collect();
        Shown {
            oom,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
