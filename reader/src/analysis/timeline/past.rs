//! What history knows of one account or stack, as pieces of time that follow each other, each at the
//! finest resolution that still holds it.

use crate::trace;
use vramtrace_format::account::Account;
use vramtrace_format::curves;
use vramtrace_format::history::{self, Cell, History};

/// Live bytes in a piece of time of which no more is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its start, event time.
    pub from: u64,
    /// Its end, event time.
    pub to: u64,
    /// Fewest.
    pub min: u64,
    /// Most.
    pub max: u64,
    /// At its end.
    pub last: u64,
}

/// From when on the course of live bytes is known how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// From this event time on, until the next one's.
    pub from: u64,
    /// Length of a piece, nanoseconds; 0: every change is known.
    pub span_ns: u64,
}

/// What is kept of one account, or of one row of the totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Pieces, in order. Between them nothing changed.
    pub pieces: Vec<Piece>,
    /// From when on they are how long.
    pub resolution: Vec<Resolution>,
    /// Nothing is known before this event time.
    pub known_from: u64,
    /// Live bytes then; `None` where the first piece begins then.
    pub first: Option<u64>,
}

/// Cells of a level, ascending, and their length.
type Level = (u64, Vec<Cell>);

impl Past {
    /// Of an account. `has_room`: every account that needed a series has one.
    pub fn of_account(
        history: &History<'_>,
        cells: usize,
        account: &Account,
        has_room: bool,
    ) -> Past {
        if account.series == 0 && !has_room {
            return Past::of_nothing(u64::MAX);
        }
        let levels = (0..history::LEVELS).map(|level| {
            let mut kept: Vec<Cell> = match account.series.checked_sub(1) {
                Some(series) => history.level(series.into(), level).copied().collect(),
                None => Vec::new(),
            };
            if level == 0 {
                // What is newer than the copy of the account is not asked for.
                kept.retain(|cell| cell.span < account.second.into());
                kept.extend(account.this_second());
            }
            kept.sort_unstable_by_key(|cell| cell.span);
            (history::span_ns(level), kept)
        });
        let levels: Vec<Level> = levels.collect();
        Past::of_levels(&levels, history::cells_per_level(cells) as u64, 0, 0)
    }

    /// Of a row that has a curve; `account` is its own.
    pub fn of_curve(curve: &trace::Curve, account: &Account) -> Past {
        let span = curves::span_of(account.second.into(), 0);
        let open = curve.open.map(|open| Cell {
            span,
            min: open.min.min(curve.row.live_bytes),
            max: open.max.max(curve.row.live_bytes),
            last: curve.row.live_bytes,
        });
        let lengths = (0..curves::LEVELS).map(curves::span_ns);
        let mut levels: Vec<Level> = lengths.zip(curve.levels.iter().cloned()).collect();
        if let Some((_, finest)) = levels.first_mut() {
            finest.retain(|cell| cell.span < span || open.is_none() && cell.span == span);
            finest.extend(open);
        }
        let (since, first) = match curve.since <= curve.row.first_time {
            true => (0, 0),
            false => (curve.since, curve.first),
        };
        Past::of_levels(&levels, curve.per_level as u64, since, first)
    }

    /// Of what nothing is known of before an event time, or before its event log.
    pub fn of_nothing(known_from: u64) -> Past {
        Past {
            known_from,
            ..Past::default()
        }
    }

    /// Of what had no byte before the event log.
    pub fn of_zero() -> Past {
        Past {
            first: Some(0),
            ..Past::default()
        }
    }

    /// Most live bytes that it knows of.
    pub fn most(&self) -> u64 {
        let all = self.pieces.iter().map(|piece| piece.max);
        all.fold(self.first.unwrap_or(0), u64::max)
    }

    fn of_levels(levels: &[Level], per_level: u64, since: u64, first: u64) -> Past {
        let mut pieces = Vec::new();
        let mut resolution = Vec::new();
        let mut until = u64::MAX;
        for (level, (length, cells)) in levels.iter().enumerate() {
            let Some(newest) = cells.last().map(|cell| cell.span) else {
                continue;
            };
            // Older cells may be left over from further back, with gaps between.
            let kept = newest.saturating_sub(per_level);
            let mut from = kept.saturating_mul(*length);
            if let Some((coarser, _)) = levels.get(level + 1) {
                // The coarser level goes on until there, so that is where one of its cells ends.
                from = from.div_ceil(*coarser).saturating_mul(*coarser);
            }
            for cell in cells.iter().rev().filter(|cell| cell.span > kept) {
                let start = (cell.span - 1).saturating_mul(*length);
                let end = cell.span.saturating_mul(*length).min(until);
                if start < from || start.max(since) >= end {
                    continue;
                }
                pieces.push(Piece {
                    from: start.max(since),
                    to: end,
                    min: cell.min,
                    max: cell.max,
                    last: cell.last,
                });
            }
            let from = from.min(until);
            if from < until {
                resolution.push(Resolution {
                    from: from.max(since),
                    span_ns: *length,
                });
            }
            until = from;
            if until <= since {
                break;
            }
        }
        pieces.reverse();
        resolution.reverse();
        let mut past = Past {
            known_from: since,
            first: Some(first),
            pieces,
            resolution,
        };
        if until > since && until != u64::MAX {
            // Not even the coarsest level reaches back to the beginning.
            past.known_from = past.pieces.first().map_or(u64::MAX, |piece| piece.from);
            past.first = None;
        }
        past
    }
}

/// The coarsest of several at every time, until `exact_from`, from when on every change is known.
pub(crate) fn merged(all: &[&[Resolution]], known_from: u64, exact_from: u64) -> Vec<Resolution> {
    let at = |one: &[Resolution], time: u64| {
        let after = one.partition_point(|part| part.from <= time);
        one[..after].last().map_or(0, |part| part.span_ns)
    };
    let mut borders: Vec<u64> = all
        .iter()
        .copied()
        .flatten()
        .map(|part| part.from)
        .collect();
    borders.sort_unstable();
    let borders = borders.into_iter().map(|border| border.max(known_from));
    let mut merged: Vec<Resolution> = Vec::new();
    for from in borders.filter(|&border| border < exact_from) {
        let span_ns = all.iter().map(|one| at(one, from)).max().unwrap_or(0);
        match merged.last_mut() {
            Some(last) if last.from == from => last.span_ns = span_ns,
            Some(last) if last.span_ns == span_ns => {}
            _ => merged.push(Resolution { from, span_ns }),
        }
    }
    if exact_from != u64::MAX {
        merged.push(Resolution {
            from: exact_from.max(known_from),
            span_ns: 0,
        });
    }
    merged
}
