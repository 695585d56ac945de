//! `vramtrace.oom/1`. What is the same as in `vramtrace.leaks/1` has the same name there.

use super::{Shown, Stacks};
use crate::analysis::oom::{Failure, Fate, HeldThen};
use crate::report::frames::ShownFrame;
use crate::report::head::HeadJson;
use crate::report::json::{NamedJson, SumJson, document, list};
use crate::report::leaks::Omitted;
use crate::report::place::PlaceJson;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    head: HeadJson<'a>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    failures: Vec<FailureJson<'a>>,
    /// Earlier failures that were left out.
    omitted: usize,
    /// Failed attempts that the event log has forgotten.
    forgotten: u64,
}

#[derive(Serialize)]
struct FailureJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    threads: Vec<NamedJson>,
    event: u64,
    asked_bytes: u64,
    attempts: u64,
    first_ns: u64,
    at_ns: u64,
    free_bytes: Option<u64>,
    total_bytes: Option<u64>,
    /// Of the device, what this process had not allocated and was not free.
    others_bytes: Option<u64>,
    /// `rescued`, `retried`, `went-on`, `last`, `open`.
    fate: &'static str,
    /// How much later it was granted (`retried`), or the process ended (`last`).
    after_ns: Option<u64>,
    /// Allocations of the process since, for `went-on`.
    later_allocations: Option<u64>,
    /// `in-free`, `without-cache`, `never`, `unknown`.
    fits: &'static str,
    /// The recorder's own second attempt.
    rescue: Option<RescueJson>,
    /// What a framework's allocator said when it gave up.
    framework: Option<FrameworkJson>,
    /// Path of the snapshot that was taken then.
    snapshot: Option<String>,
    held: Option<HeldJson<'a>>,
    held_unknown_because: Option<&'a str>,
}

#[derive(Serialize)]
struct RescueJson {
    saved: bool,
    given_back_bytes: u64,
    took_ns: u64,
    /// Whether the device's work was waited for to its end.
    waited: bool,
}

#[derive(Serialize)]
struct FrameworkJson {
    asked_bytes: u64,
    allocated_bytes: u64,
    reserved_bytes: u64,
    event: u64,
}

#[derive(Serialize)]
struct HeldJson<'a> {
    /// `log`: by going back from the end; `snapshot`: the event log has forgotten it.
    source: &'static str,
    taken_bytes: u64,
    used: SumJson,
    cached_bytes: u64,
    allocated_in_last_10_s: SumJson,
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    bytes: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let oom = shown.oom;
    let failures = oom.failures.iter().zip(&shown.stacks);
    document(&Document {
        schema: "vramtrace.oom/1",
        head: HeadJson::of(&oom.head, &shown.symbols),
        from: oom.asked.from.as_deref(),
        to: oom.asked.to.as_deref(),
        failures: failures
            .map(|(failure, stacks)| of_failure(failure, stacks))
            .collect(),
        omitted: oom.omitted,
        forgotten: oom.forgotten,
    })
}

fn of_failure<'a>(failure: &'a Failure, stacks: &'a Stacks) -> FailureJson<'a> {
    let group = &failure.placed.group;
    FailureJson {
        place: PlaceJson::of(&failure.placed, &stacks.asked),
        threads: list(&group.threads),
        event: failure.seq,
        asked_bytes: group.bytes,
        attempts: group.count,
        first_ns: group.first_ns,
        at_ns: group.last_ns,
        free_bytes: failure.free.map(|(free, _)| free),
        total_bytes: failure.free.map(|(_, total)| total),
        others_bytes: failure.others(),
        fate: failure.fate.name(),
        after_ns: match failure.fate {
            Fate::Retried(after) | Fate::Last(after) => Some(after),
            _ => None,
        },
        later_allocations: match failure.fate {
            Fate::WentOn(later) => Some(later),
            _ => None,
        },
        fits: failure.fits().name(),
        rescue: failure.rescue.map(|rescue| RescueJson {
            saved: rescue.saved,
            given_back_bytes: rescue.bytes,
            took_ns: rescue.took_ns,
            waited: !rescue.impatient,
        }),
        framework: failure.framework.map(|gave_up| FrameworkJson {
            asked_bytes: gave_up.asked,
            allocated_bytes: gave_up.allocated,
            reserved_bytes: gave_up.reserved,
            event: gave_up.seq,
        }),
        snapshot: failure
            .snapshot
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        held: failure
            .held
            .as_ref()
            .ok()
            .map(|held| of_held(held, &stacks.held)),
        held_unknown_because: failure.held.as_ref().err().map(String::as_str),
    }
}

fn of_held<'a>(held: &'a HeldThen, stacks: &'a [Vec<ShownFrame>]) -> HeldJson<'a> {
    let groups = held.groups.iter().zip(stacks);
    HeldJson {
        source: if held.by_snapshot { "snapshot" } else { "log" },
        taken_bytes: held.taken,
        used: held.used.into(),
        cached_bytes: held.cached,
        allocated_in_last_10_s: held.recent.into(),
        groups: groups
            .map(|(placed, stack)| GroupJson {
                place: PlaceJson::of(placed, stack),
                bytes: placed.group.bytes,
                count: placed.group.count,
                first_ns: placed.group.first_ns,
                last_ns: placed.group.last_ns,
            })
            .collect(),
        omitted: Omitted::new(held.omitted.0, held.omitted.1),
    }
}
