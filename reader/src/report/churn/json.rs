//! `vramtrace.churn/1`. What is the same as in `vramtrace.leaks/1` has the same name there.

use super::Shown;
use crate::analysis::churn::{Churning, Pooling};
use crate::report::frames::ShownFrame;
use crate::report::head::HeadJson;
use crate::report::json::{SumJson, document};
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
    shorter_than_ns: u64,
    /// How long each process's event log is.
    logs: Vec<LogJson>,
    total: SumJson,
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
}

#[derive(Serialize)]
struct LogJson {
    device_ns: u64,
    framework_ns: u64,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    /// Of short-lived allocations.
    bytes: u64,
    count: u64,
    per_second: f64,
    /// Frees of what had lived longer, or since before the event log begins.
    longer_lived: u64,
    /// Of lifetimes that the event log has whole; exact to a factor of two.
    lifetime_median_ns: Option<u64>,
    lifetime_90_percent_ns: Option<u64>,
    lifetimes: Vec<BucketJson>,
    /// In the whole run.
    freed: Option<SumJson>,
    pooling: Option<PoolingJson>,
}

#[derive(Serialize)]
struct BucketJson {
    below_ns: u64,
    count: u64,
}

#[derive(Serialize)]
struct PoolingJson {
    allocations: u64,
    reused: u64,
    kept_bytes: u64,
    kept_blocks: u64,
}

impl From<Pooling> for PoolingJson {
    fn from(pooling: Pooling) -> PoolingJson {
        PoolingJson {
            allocations: pooling.allocations,
            reused: pooling.reused,
            kept_bytes: pooling.kept.bytes,
            kept_blocks: pooling.kept.count,
        }
    }
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let churn = shown.churn;
    let log = |[device_ns, framework_ns]: &[u64; 2]| LogJson {
        device_ns: *device_ns,
        framework_ns: *framework_ns,
    };
    let groups = churn.groups.iter().zip(&shown.stacks);
    document(&Document {
        schema: "vramtrace.churn/1",
        head: HeadJson::of(&churn.head, &shown.symbols),
        from: churn.asked.from.as_deref(),
        to: churn.asked.to.as_deref(),
        shorter_than_ns: churn.limit,
        logs: churn.logs.iter().map(log).collect(),
        total: churn.short.into(),
        groups: groups
            .map(|(churning, stack)| of_group(churning, stack))
            .collect(),
        omitted: Omitted::new(churn.omitted.0, churn.omitted.1),
    })
}

fn of_group<'a>(churning: &'a Churning, stack: &'a [ShownFrame]) -> GroupJson<'a> {
    let lives = &churning.lives;
    let quantile = |share| (lives.count() > 0).then(|| lives.quantile(share));
    GroupJson {
        place: PlaceJson::of(&churning.placed, stack),
        bytes: churning.placed.group.bytes,
        count: churning.placed.group.count,
        per_second: churning.per_second,
        longer_lived: churning.longer,
        lifetime_median_ns: quantile(0.5),
        lifetime_90_percent_ns: quantile(0.9),
        lifetimes: lives
            .present()
            .map(|(below_ns, count)| BucketJson { below_ns, count })
            .collect(),
        freed: churning.freed.map(SumJson::from),
        pooling: churning.pooling.map(PoolingJson::from),
    }
}
