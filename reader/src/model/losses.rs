//! What a trace does not know, and whether its live set is exact all the same.

use super::Torch;
use crate::trace::{Reach, Trace};

/// Counts of what was not recorded, or is not kept any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events that were never recorded: device layer and host, framework layer.
    pub events_lost: [u64; 2],
    /// Rings: device layer and control, framework layer.
    pub rings: [Reach; 2],
    /// Allocations that found no room in the live table.
    pub dropped_count: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Allocations whose stack found no room.
    pub stacks_dropped: u64,
    /// Allocations recorded without stack because the recorder was busy.
    pub stacks_skipped: u64,
    /// Names and facts that found no room.
    pub cold_dropped: u64,
    /// Entries of NVTX ranges that found no room: what was allocated in them counts for the ranges
    /// around them.
    pub ranges_without_room: u64,
    /// Calls that came while the recorder could not record.
    pub calls_unrecorded: u64,
    /// Panics caught in the recorder.
    pub panics: u64,
    /// Entry points that look like memory and were handed out unhooked.
    pub bypassed: u64,
    /// Frees of something that was not live.
    pub frees_unmatched: u64,
    /// Allocations whose address came back though no free was seen; as far as the ring reaches.
    pub frees_unseen: u64,
    /// Frees that failed; as far as the ring reaches.
    pub frees_failed: u64,
    /// Why the live set may not be exact; empty if it is.
    pub live_inexact: Vec<Reason>,
}

/// One reason why the live set may not be exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable word for scripts.
    pub code: &'static str,
    /// One sentence for people, with what to do where something can be done.
    pub text: String,
}

impl Losses {
    pub(super) fn of(trace: &Trace, torch: &[Torch]) -> Losses {
        let control = &trace.copy.control;
        let mut losses = Losses {
            events_lost: control.events_lost,
            rings: [trace.reach(0), trace.reach(1)],
            stacks_dropped: control.stacks_dropped,
            stacks_skipped: control.stacks_skipped,
            cold_dropped: control.cold_dropped,
            ranges_without_room: trace.range_counts.first().copied().unwrap_or(0),
            calls_unrecorded: control.calls_unrecorded,
            panics: control.panics,
            bypassed: control.bypassed,
            ..Losses::default()
        };
        for row in &trace.copy.accounts {
            losses.dropped_count = losses.dropped_count.saturating_add(row.dropped_count);
            losses.dropped_bytes = losses.dropped_bytes.saturating_add(row.dropped_bytes);
            losses.frees_unmatched = losses
                .frees_unmatched
                .saturating_add(row.unmatched_count.into());
        }
        losses.live_inexact = losses.reasons(trace);
        losses.live_inexact.extend(torch.iter().filter_map(differs));
        losses
    }

    /// Events that were never recorded, in both lanes.
    pub fn lost(&self) -> u64 {
        self.events_lost[0].saturating_add(self.events_lost[1])
    }

    fn reasons(&self, trace: &Trace) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut because = |code, text| reasons.push(Reason { code, text });
        if self.dropped_count > 0 {
            because(
                "live-table-full",
                format!(
                    "{} allocations ({} bytes) found no room in the live table; raise VRAMTRACE_SIZE",
                    self.dropped_count, self.dropped_bytes
                ),
            );
        }
        for (lane, layer) in [(0, "device"), (1, "framework")] {
            if self.events_lost[lane] > 0 {
                because(
                    "events-lost",
                    format!(
                        "{} events of the {layer} layer were lost before they could be recorded",
                        self.events_lost[lane]
                    ),
                );
            }
        }
        if self.calls_unrecorded > 0 {
            because(
                "calls-unrecorded",
                format!(
                    "{} calls came while the recorder could not record",
                    self.calls_unrecorded
                ),
            );
        }
        if self.panics > 0 {
            because(
                "recorder-panic",
                format!(
                    "the recorder caught {} panics of its own; please report this",
                    self.panics
                ),
            );
        }
        if let Some(why) = &trace.copy.inexact {
            because("copy-inexact", why.clone());
        }
        for damage in trace.damage.iter().filter(|damage| damage.affects_live) {
            because("damaged", damage.what.clone());
        }
        reasons
    }
}

/// That PyTorch has other blocks than the trace, if it has.
fn differs(torch: &Torch) -> Option<Reason> {
    let seen = torch.seen.filter(|_| torch.differs())?;
    Some(Reason {
        code: "torch-differs",
        text: format!(
            "PyTorch says that it had handed out {} bytes on GPU {} when it said so last, the trace \
             has {seen}: it was there before the trace, or blocks went past it",
            torch.allocated, torch.device
        ),
    })
}
