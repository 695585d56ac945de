//! The report of what grows.

mod common;
mod json;
mod text;

pub use common::{Common, common};
pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::growth::Growths;
use crate::analysis::leaks::Placed;
use crate::model::Process;

/// Growth with its stacks made readable.
pub struct Shown<'a> {
    /// The growth.
    pub growths: &'a Growths,
    /// Frames of each group that grows.
    pub growing: Vec<Vec<ShownFrame>>,
    /// Frames of each other group.
    pub others: Vec<Vec<ShownFrame>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of growth in `processes`; those of groups that do not grow only if
    /// `others` asks for them.
    pub fn new(
        growths: &'a Growths,
        processes: &[Process],
        others: bool,
        frames: &mut Frames,
    ) -> Shown<'a> {
        let wanted = if others {
            usize::MAX
        } else {
            growths.growing.len()
        };
        let stacks = growths.stacks().take(wanted);
        frames.look_up(stacks.map(|(id, stack)| (&processes[id], stack)));
        let mut readable = |groups: &[Placed]| {
            let of = |placed: &Placed| {
                let (id, group) = (placed.process, &placed.group);
                frames.of(id, &processes[id], &group.stack, group.api.as_deref())
            };
            groups.iter().map(of).collect()
        };
        let growing = readable(&growths.growing);
        let others = if others {
            readable(&growths.others)
        } else {
            Vec::new()
        };
        Shown {
            growths,
            growing,
            others,
            symbols: frames.warnings(),
        }
    }
}
