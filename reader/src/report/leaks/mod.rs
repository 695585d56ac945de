//! The leak report.

mod json;
mod junit;
mod text;

pub(crate) use json::Omitted;
pub use json::json;
pub use junit::{Verdict, junit};
pub use text::text;
pub(crate) use text::{frames, only, process_line, sum, symbol_warnings, what};

use super::frames::{Frames, ShownFrame};
use crate::analysis::leaks::Answer;
use crate::model::Process;

/// An answer with its stacks made readable.
pub struct Shown<'a> {
    /// The answer.
    pub answer: &'a Answer,
    /// Frames of each of its groups.
    pub stacks: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of an answer about `processes`.
    pub fn new(answer: &'a Answer, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        let unresolved = answer.stacks().map(|(id, stack)| (&processes[id], stack));
        frames.look_up(unresolved);
        let stacks = answer
            .groups
            .iter()
            .map(|placed| {
                let group = &placed.group;
                let process = &processes[placed.process];
                frames.of(placed.process, process, &group.stack, group.api.as_deref())
            })
            .collect();
        Shown {
            answer,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
