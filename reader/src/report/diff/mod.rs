//! The report of a difference.

mod json;
mod site;
mod text;

pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::diff::Diff;
use crate::model::Process;

/// A difference with its stacks made readable.
pub struct Shown<'a> {
    /// The difference.
    pub diff: &'a Diff,
    /// Frames of each change.
    pub stacks: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of a difference between processes, which `frames` has named.
    pub fn new(
        diff: &'a Diff,
        before: &[Process],
        after: &[Process],
        frames: &mut Frames,
    ) -> Shown<'a> {
        let stacks = diff.changes.iter().map(|change| {
            let (id, group) = (change.placed.process, &change.placed.group);
            let (first_id, processes) = match change.from_before {
                true => (0, before),
                false => (before.len(), after),
            };
            let process = &processes[id];
            frames.of(first_id + id, process, &group.stack, group.api.as_deref())
        });
        let stacks = stacks.collect();
        Shown {
            diff,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
