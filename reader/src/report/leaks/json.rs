//! `vramtrace.leaks/1`.

use super::Shown;
use crate::analysis::Sum;
use crate::analysis::leaks::{Answer, Cached, EntryEnd, Member, Placed, PlacedBack};
use crate::report::age::AgeJson;
use crate::report::frames::ShownFrame;
use crate::report::json::{DeviceJson, NamedJson, ProcessJson, SumJson, document, list};
use crate::report::place::PlaceJson;
use crate::report::ranks::RanksJson;
use serde::Serialize;
use vramtrace_format::record::Space;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    incomplete_because: &'a [String],
    lost_events: u64,
    point: &'a str,
    from: Option<&'a str>,
    processes: Vec<ProcessJson>,
    devices: Vec<DeviceJson>,
    total: Total,
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
    freed_before_end: Vec<BackJson>,
    warnings: &'a [String],
    suppressed: Vec<SuppressedJson<'a>>,
    caches: Vec<CacheJson>,
    torch: Vec<TorchJson>,
    /// Where there are several ranks: which of them is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<RanksJson>,
}

#[derive(Serialize)]
struct SuppressedJson<'a> {
    pattern: &'a str,
    bytes: u64,
    count: u64,
}

#[derive(Serialize)]
struct Total {
    gpu: SumJson,
    host: SumJson,
    cached: CachedJson,
    teardown: SumJson,
    corrupted: SumJson,
    imports: SumJson,
    mappings: SumJson,
    reservations: SumJson,
}

/// What caches hold without using it (`bytes`), of how much.
#[derive(Serialize)]
struct CachedJson {
    bytes: u64,
    reserved: u64,
    used: u64,
}

impl From<Cached> for CachedJson {
    fn from(cached: Cached) -> CachedJson {
        CachedJson {
            bytes: cached.unused,
            reserved: cached.reserved,
            used: cached.used(),
        }
    }
}

#[derive(Serialize)]
struct CacheJson {
    process: usize,
    device: Option<usize>,
    #[serde(flatten)]
    cached: CachedJson,
}

#[derive(Serialize)]
struct TorchJson {
    process: usize,
    device: usize,
    #[serde(flatten)]
    torch: crate::report::json::TorchJson,
}

/// What `top` left out.
#[derive(Serialize)]
pub(crate) struct Omitted {
    groups: usize,
    bytes: u64,
    count: u64,
}

impl Omitted {
    /// So many groups that hold so much.
    pub(crate) fn new(groups: usize, held: Sum) -> Omitted {
        Omitted {
            groups,
            bytes: held.bytes,
            count: held.count,
        }
    }
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    bytes: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    threads: Vec<NamedJson>,
    ranges: &'a [String],
    suspicion: &'static str,
    age: AgeJson,
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberJson>>,
}

/// `key` is an address, unless `space` says otherwise.
#[derive(Serialize)]
struct BackJson {
    process: usize,
    device: usize,
    layer: &'static str,
    peak_bytes: u64,
    peak_ns: u64,
    held_bytes: u64,
}

#[derive(Serialize)]
struct MemberJson {
    space: Option<&'static str>,
    key: u64,
    bytes: u64,
    at_ns: u64,
    thread: Option<u32>,
}

impl From<&Member> for MemberJson {
    fn from(member: &Member) -> MemberJson {
        MemberJson {
            space: member.space.map(Space::name),
            key: member.key,
            bytes: member.bytes,
            at_ns: member.at_ns,
            thread: member.thread,
        }
    }
}

fn back_json(answer: &Answer, placed: &PlacedBack) -> BackJson {
    let back = placed.back;
    BackJson {
        process: placed.process,
        device: placed.device,
        layer: back.layer.name(),
        peak_bytes: back.peak_bytes,
        peak_ns: answer.processes[placed.process]
            .start_ns
            .saturating_add(back.peak_time),
        held_bytes: back.held_bytes,
    }
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let answer = shown.answer;
    document(&Document {
        schema: "vramtrace.leaks/1",
        complete: answer.complete,
        incomplete_because: &answer.incomplete_because,
        lost_events: answer.lost_events,
        point: answer.point(),
        from: answer.asked.from.as_deref(),
        processes: list(&answer.processes),
        devices: list(&answer.devices),
        total: Total {
            gpu: answer.gpu.into(),
            host: answer.host.into(),
            cached: answer.cached.into(),
            teardown: answer.teardown_only.into(),
            corrupted: answer.corrupted.into(),
            imports: answer.aside.imports.into(),
            mappings: answer.aside.mappings.into(),
            reservations: answer.aside.reservations.into(),
        },
        groups: answer
            .groups
            .iter()
            .zip(&shown.stacks)
            .map(|(placed, stack)| {
                let start = answer.processes[placed.process].start_ns;
                group(placed, stack, start, answer.members)
            })
            .collect(),
        omitted: Omitted::new(answer.omitted_groups, answer.omitted),
        freed_before_end: answer
            .given_back
            .iter()
            .map(|placed| back_json(answer, placed))
            .collect(),
        warnings: &shown.symbols,
        suppressed: answer
            .suppressed
            .iter()
            .map(|used| SuppressedJson {
                pattern: &used.pattern,
                bytes: used.sum.bytes,
                count: used.sum.count,
            })
            .collect(),
        caches: answer
            .caches
            .iter()
            .map(|placed| CacheJson {
                process: placed.process,
                device: placed.device,
                cached: placed.cached.into(),
            })
            .collect(),
        ranks: RanksJson::of(answer.ranks().as_ref()),
        torch: answer
            .torch
            .iter()
            .map(|placed| TorchJson {
                process: placed.process,
                device: placed.device,
                torch: (&placed.torch).into(),
            })
            .collect(),
    })
}

fn group<'a>(
    placed: &'a Placed,
    stack: &'a [ShownFrame],
    start: u64,
    members: bool,
) -> GroupJson<'a> {
    let group = &placed.group;
    GroupJson {
        place: PlaceJson::of(placed, stack),
        bytes: group.bytes,
        count: group.count,
        first_ns: group.first_ns,
        last_ns: group.last_ns,
        threads: list(&group.threads),
        ranges: &group.ranges,
        suspicion: group.suspicion.name(),
        age: AgeJson::of(&group.age, start),
        end: group.end.map(EntryEnd::name),
        members: members.then(|| list(&group.members)),
        entered: group.entered,
    }
}
