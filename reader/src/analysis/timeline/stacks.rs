//! Timelines of stacks.

use super::lines::{Grid, Line, Of, Wanted, draw, lane_of};
use super::past::Past;
use super::{Part, Series, Stacks};
use crate::analysis::Filter;
use crate::analysis::estimate::Weighted;
use crate::analysis::leaks::{EntryEnd, Grouping, Item, Options, Placed, Row};
use crate::model::Process;
use crate::trace::Curve;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::io;
use vramtrace_format::curves::account_of;
use vramtrace_format::totals::{End, Totals, TotalsKey};

/// The stacks that held most at some time, largest first, and how many others there are.
pub(super) fn of_process(
    process: &Process,
    id: usize,
    part: Part,
    filter: &Filter,
    spans: usize,
    stacks: &mut Stacks<'_>,
) -> io::Result<(Vec<Series>, usize)> {
    let curves = curves(process)?;
    let options = Options {
        filter: filter.clone(),
        unhidden: stacks.unhidden,
        ..Options::default()
    };
    let mut grouping = Grouping::new(process, &options);
    let mut held: FxHashMap<Row, u64> = FxHashMap::default();
    for row in process.totals() {
        let Some(kind) = row.kind().filter(|kind| kind.counted()) else {
            continue;
        };
        if row.key.end != End::Live as u8 || !filter.takes(row.key.device, kind) {
            continue;
        }
        grouping.add(&Item {
            stack: row.key.stack,
            api: row.key.api,
            device: row.key.device,
            kind,
            end: EntryEnd::Live,
            thread: None,
            range: 0,
            stream: 0,
            context: 0,
            bytes: row.live_bytes,
            count: row.live_count,
            first_time: row.first_time,
            last_time: row.last_time,
            key: None,
            weighted: Weighted::of_bytes(row.sampled.live_bytes, process.sampling.coarsest()),
        });
        let own: Row = (row.key.stack, row.key.api, row.key.device, row.key.kind);
        held.insert(own, most(process, row, &curves));
    }
    let mut groups: Vec<(u64, _, Vec<Row>)> = grouping
        .finish_with_members(stacks.loops)
        .into_iter()
        .map(|(group, members)| {
            let rows: Vec<Row> = members.iter().map(|(_, raw)| raw.row()).collect();
            let most = rows.iter().filter_map(|row| held.get(row));
            let most = most.fold(0u64, |sum, &bytes| sum.saturating_add(bytes));
            (most, group, rows)
        })
        .collect();
    // Stable: equals stay in the order of groups.
    groups.sort_by_key(|(most, ..)| Reverse(*most));
    let shown = stacks.top.unwrap_or(groups.len()).min(groups.len());
    let omitted = groups.len() - shown;
    groups.truncate(shown);
    let rows: Vec<Vec<Row>> = groups.iter().map(|(.., rows)| rows.clone()).collect();
    let grid = Grid::of(part, spans);
    let lines = of_rows_with(process, &rows, grid, &curves);
    let start = process.unix_ns(part.from);
    let mut series: Vec<Series> = groups
        .into_iter()
        .zip(lines)
        .map(|((_, group, _), line)| Series {
            process: id,
            layer: group.layer.unwrap_or(vramtrace_format::record::Layer::Host),
            live_bytes: group.bytes,
            stack: Some(Placed {
                process: id,
                device: None,
                group,
            }),
            ..Series::of(line, grid, start)
        })
        .collect();
    series.sort_by_key(|series| Reverse(series.peak_bytes));
    Ok((series, omitted))
}

/// The most that a row is known to have held.
fn most(process: &Process, row: &Totals, curves: &FxHashMap<Row, Curve>) -> u64 {
    let account = account_of(&row.key).and_then(|at| process.trace.copy.accounts.get(at));
    let Some(account) = account else { return 0 };
    let (at_peak, _) = row.at_peak(account.peak_epoch);
    let known = curves.get(&row_of(&row.key));
    let known = known.map_or(0, |curve| Past::of_curve(curve, account).most());
    row.live_bytes.max(at_peak).max(known)
}

fn row_of(key: &TotalsKey) -> Row {
    (key.stack, key.api, key.device, key.kind)
}

/// The key of a row of what has not ended.
pub(crate) fn key_of(row: &Row) -> TotalsKey {
    TotalsKey {
        stack: row.0,
        api: row.1,
        device: row.2,
        kind: row.3,
        end: End::Live as u8,
        used: 1,
        reserved: [0; 6],
    }
}

fn curves(process: &Process) -> io::Result<FxHashMap<Row, Curve>> {
    let curves = process.trace.curves()?.into_iter();
    Ok(curves
        .map(|curve| (row_of(&curve.row.key), curve))
        .collect())
}

/// The rows that have curves.
pub(crate) fn curved(process: &Process) -> io::Result<FxHashSet<Row>> {
    Ok(curves(process)?.into_keys().collect())
}

/// Lines of groups of rows, each of one account.
pub(crate) fn of_rows(process: &Process, groups: &[Vec<Row>], grid: Grid) -> io::Result<Vec<Line>> {
    Ok(of_rows_with(process, groups, grid, &curves(process)?))
}

fn of_rows_with(
    process: &Process,
    groups: &[Vec<Row>],
    grid: Grid,
    curves: &FxHashMap<Row, Curve>,
) -> Vec<Line> {
    let totals: FxHashMap<Row, &Totals> = {
        let live = process.totals().iter();
        let live = live.filter(|row| row.key.end == End::Live as u8);
        live.map(|row| (row_of(&row.key), row)).collect()
    };
    let account = |key: &TotalsKey| {
        let at = account_of(key)?;
        Some((at, process.trace.copy.accounts.get(at)?))
    };
    let wanted: Vec<Wanted> = groups
        .iter()
        .map(|rows| {
            let keys: Vec<TotalsKey> = rows.iter().map(key_of).collect();
            let lane = keys
                .first()
                .and_then(account)
                .map_or(0, |(at, _)| lane_of(at));
            let live = rows.iter().filter_map(|row| totals.get(row));
            Wanted {
                live: live.fold(0, |sum: u64, row| sum.wrapping_add(row.live_bytes)),
                of: Of::Rows(keys),
                lane,
            }
        })
        .collect();
    draw(process, &wanted, grid, |of, exact_from| {
        let Of::Rows(keys) = of else {
            return Vec::new();
        };
        let past = |key: &TotalsKey| {
            let row = row_of(key);
            match (curves.get(&row), account(key)) {
                (Some(curve), Some((_, account))) => Past::of_curve(curve, account),
                _ => {
                    let first = totals.get(&row).map_or(0, |row| row.first_time);
                    match first >= exact_from {
                        true => Past::of_zero(),
                        false => Past::of_nothing(exact_from),
                    }
                }
            }
        };
        keys.iter().map(past).collect()
    })
}
