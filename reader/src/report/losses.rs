//! What is not in a trace, in words and in JSON.

use super::words::{bytes, count, counted};
use crate::model::Losses;
use serde::Serialize;

/// `"losses"` of summary and check.
#[derive(Clone, Debug, Serialize)]
pub struct LossesJson {
    events_lost: [u64; 2],
    events_overwritten: [u64; 2],
    ring_capacity: [u64; 2],
    allocations_dropped: u64,
    bytes_dropped: u64,
    stacks_dropped: u64,
    stacks_skipped: u64,
    facts_dropped: u64,
    ranges_without_room: u64,
    calls_unrecorded: u64,
    recorder_panics: u64,
    entry_points_bypassed: u64,
    frees_unmatched: u64,
    frees_unseen: u64,
    frees_failed: u64,
}

impl From<&Losses> for LossesJson {
    fn from(losses: &Losses) -> LossesJson {
        let [device, framework] = losses.rings;
        LossesJson {
            events_lost: losses.events_lost,
            events_overwritten: [device.overwritten, framework.overwritten],
            ring_capacity: [device.capacity, framework.capacity],
            allocations_dropped: losses.dropped_count,
            bytes_dropped: losses.dropped_bytes,
            stacks_dropped: losses.stacks_dropped,
            stacks_skipped: losses.stacks_skipped,
            facts_dropped: losses.cold_dropped,
            ranges_without_room: losses.ranges_without_room,
            calls_unrecorded: losses.calls_unrecorded,
            recorder_panics: losses.panics,
            entry_points_bypassed: losses.bypassed,
            frees_unmatched: losses.frees_unmatched,
            frees_unseen: losses.frees_unseen,
            frees_failed: losses.frees_failed,
        }
    }
}

/// Reasons why a live set is not exact, as documents give them: a stable word, a colon, a
/// sentence.
pub fn reasons(losses: &Losses) -> Vec<String> {
    let reason = |reason: &crate::model::Reason| format!("{}: {}", reason.code, reason.text);
    losses.live_inexact.iter().map(reason).collect()
}

/// What was lost, bypassed or odd without making the live set inexact; a sentence each.
pub fn lines(losses: &Losses) -> Vec<String> {
    let mut lines = Vec::new();
    for (ring, layer) in losses.rings.iter().zip(["device", "framework"]) {
        if ring.overwritten > 0 {
            lines.push(format!(
                "the ring of the {layer} layer forgot its oldest {} (it keeps {}); what is live \
                 and all sums are exact all the same",
                counted(ring.overwritten, "event"),
                count(ring.capacity)
            ));
        }
    }
    let mut note = |number: u64, text: String| {
        if number > 0 {
            lines.push(text);
        }
    };
    note(
        losses.dropped_count,
        format!(
            "{} with {} found no room in the live table",
            counted(losses.dropped_count, "allocation"),
            bytes(losses.dropped_bytes)
        ),
    );
    note(
        losses.stacks_dropped,
        format!(
            "{} have no call stack because the stack table was full; raise VRAMTRACE_SIZE",
            counted(losses.stacks_dropped, "allocation")
        ),
    );
    note(
        losses.stacks_skipped,
        format!(
            "{} have no call stack because the recorder was busy",
            counted(losses.stacks_skipped, "allocation")
        ),
    );
    note(
        losses.cold_dropped,
        format!(
            "{} found no room; raise VRAMTRACE_SIZE",
            counted(losses.cold_dropped, "name or fact").replace("name or facts", "names or facts")
        ),
    );
    note(
        losses.ranges_without_room,
        format!(
            "{} NVTX ranges were entered that found no room; what was allocated in them counts for \
             the ranges around them",
            count(losses.ranges_without_room)
        ),
    );
    note(
        losses.bypassed,
        format!(
            "{} that look like memory were handed out unhooked; what is allocated through them is \
             not seen",
            counted(losses.bypassed, "CUDA entry point")
        ),
    );
    note(
        losses.frees_unmatched,
        format!(
            "{} of memory that was not known to be live (allocated before tracing began, or by a \
             way that is not hooked)",
            counted(losses.frees_unmatched, "free")
        ),
    );
    note(
        losses.frees_unseen,
        format!(
            "{} whose free was not seen: their addresses were handed out again",
            counted(losses.frees_unseen, "allocation")
        ),
    );
    note(
        losses.frees_failed,
        format!("{} failed", counted(losses.frees_failed, "free")),
    );
    lines
}
