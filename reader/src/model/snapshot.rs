//! What a trace says of failed allocations beside their events: that it is a snapshot, and how many
//! were rescued.

use super::{Process, State};
use std::collections::BTreeMap;
use vramtrace_format::cold::{self, Rescues};
use vramtrace_format::record::Op;

impl Process {
    /// Allocations that were tried once more after pools were trimmed, by device ordinal. One pass
    /// over the event log, where that was asked of the recorder.
    pub fn rescues(&self) -> BTreeMap<u8, Rescues> {
        let mut all = self.rescues.clone();
        let asked = |setting: &String| setting == "VRAMTRACE_ON_OOM=rescue";
        if !self.config.settings.iter().any(asked) {
            return all;
        }
        // Those that came after the last record of sums are in the event log.
        for event in self.events().filter(|event| event.op == Op::Rescue as u8) {
            let sums = all.entry(event.device).or_default();
            sums.device = event.device;
            if event.seq > sums.seq {
                sums.tried = sums.tried.saturating_add(1);
                sums.saved = sums.saved.saturating_add(u64::from(event.rescue().0 == 0));
                sums.bytes = sums.bytes.saturating_add(event.key);
            }
        }
        all
    }

    /// Whether this is a snapshot of the same process as a trace.
    pub fn is_snapshot_of(&self, trace: &Process) -> bool {
        let of = |process: &Process| {
            let header = process.trace.header();
            (
                header.pid,
                header.pid_namespace,
                header.start_ticks,
                header.start_unix_ns,
                header.start_monotonic_ns,
            )
        };
        self.snapshot.is_some() && of(self) == of(trace)
    }

    /// Reports say that this is not the end of the process.
    pub(super) fn note_snapshot(&mut self) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        let why = match snapshot.failure {
            0 => String::new(),
            failure => format!(", taken when an allocation failed (event {failure})"),
        };
        let text = format!(
            "this is a snapshot of {}: the process as of event {}{why}",
            snapshot.trace, snapshot.seq
        );
        let code = "snapshot".to_owned();
        self.notes.push(cold::Note { code, text });
        self.state = State::Snapshot;
    }
}
