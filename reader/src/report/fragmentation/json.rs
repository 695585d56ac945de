//! `vramtrace.fragmentation/1`. Blocks of a segment tile it.

use crate::analysis::Sum;
use crate::analysis::fragmentation::{Advice, Fragmentation, OfDevice, Pool, Segment, Sums};
use crate::report::head::HeadJson;
use crate::report::json::{SumJson, document};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    head: HeadJson<'a>,
    point: &'a str,
    fragmentation: Vec<DeviceJson<'a>>,
}

#[derive(Serialize)]
struct DeviceJson<'a> {
    process: usize,
    device: usize,
    at_ns: u64,
    /// What the process had taken from the driver.
    taken_bytes: u64,
    #[serde(flatten)]
    sums: SumsJson,
    segments: Vec<SegmentJson<'a>>,
    omitted_segments: usize,
    pools: Vec<PoolJson>,
    /// Of arrays of which both are known: asked for, and needed by the driver.
    arrays_asked: SumJson,
    arrays_needed_bytes: u64,
    course: Vec<PointJson>,
    advice: Vec<AdviceJson>,
}

/// Of the segments of PyTorch's caching allocator.
#[derive(Serialize)]
struct SumsJson {
    reserved: SumJson,
    used: SumJson,
    free_bytes: u64,
    largest_free_bytes: u64,
    empty: SumJson,
}

impl From<&Sums> for SumsJson {
    fn from(sums: &Sums) -> SumsJson {
        SumsJson {
            reserved: sums.reserved.into(),
            used: sums.used.into(),
            free_bytes: sums.free(),
            largest_free_bytes: sums.largest_free,
            empty: sums.empty.into(),
        }
    }
}

#[derive(Serialize)]
struct PointJson {
    at_ns: u64,
    #[serde(flatten)]
    sums: SumsJson,
}

#[derive(Serialize)]
struct SegmentJson<'a> {
    address: String,
    bytes: u64,
    expandable: bool,
    used: SumJson,
    free_bytes: u64,
    largest_free_bytes: u64,
    blocks: Vec<BlockJson<'a>>,
}

#[derive(Serialize)]
struct BlockJson<'a> {
    /// From the segment's beginning.
    offset: u64,
    bytes: u64,
    state: &'a str,
}

#[derive(Serialize)]
struct PoolJson {
    id: u64,
    graphs: bool,
    reserved_bytes: u64,
    used: SumJson,
    free_bytes: u64,
}

#[derive(Serialize)]
struct AdviceJson {
    setting: &'static str,
    bytes: u64,
    segments: Option<u64>,
    pool: Option<u64>,
    value_mib: Option<u64>,
}

/// The document.
pub fn json(found: &Fragmentation) -> String {
    document(&Document {
        schema: "vramtrace.fragmentation/1",
        head: HeadJson::of(&found.head, &[]),
        point: found.asked.to.as_deref().unwrap_or("end"),
        fragmentation: found.devices.iter().map(of_device).collect(),
    })
}

fn of_device(device: &OfDevice) -> DeviceJson<'_> {
    let point = |(at_ns, sums): &(u64, Sums)| PointJson {
        at_ns: *at_ns,
        sums: sums.into(),
    };
    DeviceJson {
        process: device.process,
        device: device.device,
        at_ns: device.at_ns,
        taken_bytes: device.taken,
        sums: (&device.sums).into(),
        segments: device.segments.iter().map(of_segment).collect(),
        omitted_segments: device.omitted,
        pools: device.pools.iter().map(of_pool).collect(),
        arrays_asked: device.arrays.asked.into(),
        arrays_needed_bytes: device.arrays.needed,
        course: device.course.iter().map(point).collect(),
        advice: device.advice.iter().map(of_advice).collect(),
    }
}

fn of_segment(segment: &Segment) -> SegmentJson<'_> {
    let blocks = segment.blocks.iter().map(|block| BlockJson {
        offset: block.address - segment.address,
        bytes: block.size,
        state: if block.used { "used" } else { "free" },
    });
    SegmentJson {
        address: format!("{:#x}", segment.address),
        bytes: segment.size,
        expandable: segment.expandable,
        used: segment.used().into(),
        free_bytes: segment.free(),
        largest_free_bytes: segment.largest_free(),
        blocks: blocks.collect(),
    }
}

fn of_pool(pool: &Pool) -> PoolJson {
    PoolJson {
        id: pool.id,
        graphs: pool.of_graphs,
        reserved_bytes: pool.reserved,
        used: pool.used.into(),
        free_bytes: pool.free(),
    }
}

fn of_advice(advice: &Advice) -> AdviceJson {
    let segments = |sum: Sum| Some(sum.count);
    AdviceJson {
        setting: advice.name(),
        bytes: advice.bytes(),
        segments: match *advice {
            Advice::Expandable { trapped } | Advice::MaxSplit { trapped, .. } => segments(trapped),
            Advice::Collect { empty } => segments(empty),
            Advice::Trim { .. } => None,
        },
        pool: match advice {
            Advice::Trim { pool, .. } => Some(*pool),
            _ => None,
        },
        value_mib: match advice {
            Advice::MaxSplit { mib, .. } => Some(*mib),
            _ => None,
        },
    }
}
