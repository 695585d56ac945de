//! The report of peaks.

mod json;
mod text;

pub use json::json;
pub use text::text;

use super::frames::{Frames, ShownFrame};
use crate::analysis::peak::{Peak, Peaks};
use crate::model::Process;

/// Peaks with their stacks made readable.
pub struct Shown<'a> {
    /// The peaks.
    pub peaks: &'a Peaks,
    /// Frames of each group of each peak.
    pub stacks: Vec<Vec<Vec<ShownFrame>>>,
    /// Files whose symbols could not be had; sentences.
    pub symbols: Vec<String>,
}

impl<'a> Shown<'a> {
    /// Resolves the stacks of peaks of `processes`.
    pub fn new(peaks: &'a Peaks, processes: &[Process], frames: &mut Frames) -> Shown<'a> {
        frames.look_up(peaks.stacks().map(|(id, stack)| (&processes[id], stack)));
        let mut of_peak = |peak: &Peak| {
            let groups = peak.groups.iter().map(|placed| {
                let (id, group) = (placed.process, &placed.group);
                frames.of(id, &processes[id], &group.stack, group.api.as_deref())
            });
            groups.collect()
        };
        let stacks = peaks.peaks.iter().map(&mut of_peak).collect();
        Shown {
            peaks,
            stacks,
            symbols: frames.warnings(),
        }
    }
}
