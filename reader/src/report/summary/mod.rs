//! Summaries: text and `vramtrace.summary/1`.

mod json;
mod text;

pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::summary::Summary;
use crate::model::Process;

/// A summary with its stacks made readable.
pub struct Shown<'a> {
    /// The summary.
    pub summary: &'a Summary,
    /// Frames of each of its top stacks.
    pub stacks: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of a summary about `processes`.
    pub fn new(summary: &'a Summary, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        let unresolved = summary.top.iter();
        frames.look_up(unresolved.map(|top| (&processes[top.process], &top.stack)));
        let stacks = summary
            .top
            .iter()
            .map(|top| {
                let process = &processes[top.process];
                frames.of(top.process, process, &top.stack, Some(&top.api))
            })
            .collect();
        Shown {
            summary,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
