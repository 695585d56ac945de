//! The report of churn.

mod json;
mod text;

pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::churn::Churn;
use crate::model::Process;

/// Churn with its stacks made readable.
pub struct Shown<'a> {
    /// The churn.
    pub churn: &'a Churn,
    /// Frames of each group.
    pub stacks: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of churn of `processes`.
    pub fn new(churn: &'a Churn, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        frames.look_up(churn.stacks().map(|(id, stack)| (&processes[id], stack)));
        let groups = churn.groups.iter().map(|churning| &churning.placed);
        let stacks = groups
            .map(|placed| {
                let (id, group) = (placed.process, &placed.group);
                frames.of(id, &processes[id], &group.stack, group.api.as_deref())
            })
            .collect();
        Shown {
            churn,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
