//! What snapshots add to the event log: who held the memory at a failure, and failures that the log
//! has forgotten.

use super::Part;
use super::series::{Series, series};
use crate::analysis::Filter;
use crate::model::Process;
use vramtrace_format::record::Kind;

/// Attempts, and the snapshot that was taken at one of them.
pub struct Known<'a> {
    /// The attempts.
    pub series: Series,
    /// The snapshot.
    pub snapshot: Option<&'a Process>,
    /// The attempt that it was taken at.
    pub failure: u64,
    /// Only the snapshot tells of them.
    pub forgotten: bool,
}

/// Puts snapshots to the attempts that they were taken at; adds those of which only a snapshot
/// knows, and says how many attempts these are.
pub fn complete<'a>(
    of_log: Vec<Series>,
    process: &Process,
    snapshots: &'a [Process],
    filter: &Filter,
    part: Part,
) -> (Vec<Known<'a>>, u64) {
    let mut all: Vec<Known<'_>> = of_log
        .into_iter()
        .map(|series| Known {
            series,
            snapshot: None,
            failure: 0,
            forgotten: false,
        })
        .collect();
    let mut recovered = 0u64;
    for snapshot in snapshots {
        let failure = snapshot.snapshot.as_ref().map_or(0, |of| of.failure);
        if failure == 0 {
            continue;
        }
        if let Some(known) = all.iter_mut().find(|known| known.series.spans(failure)) {
            known.snapshot = Some(snapshot);
            known.failure = failure;
            continue;
        }
        let (seen, _) = series(snapshot, filter, part);
        let Some(mut series) = seen.into_iter().find(|series| series.spans(failure)) else {
            continue;
        };
        series.allocations = made(process).saturating_sub(made(snapshot));
        let gave_up = u64::from(series.framework.is_some());
        recovered = recovered
            .saturating_add(series.attempts)
            .saturating_add(gave_up);
        all.push(Known {
            series,
            snapshot: Some(snapshot),
            failure,
            forgotten: true,
        });
    }
    all.sort_by_key(|known| known.series.first_seq);
    (all, recovered)
}

/// Allocations that a process has made, blocks of frameworks among them.
fn made(process: &Process) -> u64 {
    let rows = process.totals().iter();
    // What pools hold is a gauge.
    let rows = rows.filter(|row| row.key.kind != Kind::Pool as u8);
    rows.fold(0, |sum, row| sum.saturating_add(row.alloc_count))
}
