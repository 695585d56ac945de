//! The curves of stacks, as they are in the file, each checked against the row that it is of.

use super::Trace;
use super::source::Through;
use rustc_hash::FxHashMap;
use std::io;
use vramtrace_format::Section;
use vramtrace_format::curves::{Geometry, Head, LEVELS, MAX_CURVES, account_of, span_of};
use vramtrace_format::history::{Cell, second_of};
use vramtrace_format::totals::{Totals, TotalsKey};

/// What a row held in the span that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSpan {
    /// Fewest live bytes.
    pub min: u64,
    /// Most.
    pub max: u64,
}

/// A row of the totals with what is known of it over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve {
    /// The row.
    pub row: Totals,
    /// When the curve began, event time.
    pub since: u64,
    /// Live bytes then.
    pub first: u64,
    /// Cells by level, ascending, only the row's own.
    pub levels: [Vec<Cell>; LEVELS],
    /// Cells that a level has room for: further back they may be left over.
    pub per_level: usize,
    /// The span that its account's second lies in, where the file still has it.
    pub open: Option<OpenSpan>,
}

impl Trace {
    /// All curves that belong to rows of the copy, in no particular order. None in older traces.
    pub fn curves(&self) -> io::Result<Vec<Curve>> {
        let extent = self.sections.of(Section::Curves);
        let rows = self.sections.of(Section::Totals).promised;
        if extent.rows == 0 || extent.rows != extent.promised {
            return Ok(Vec::new());
        }
        let most = Geometry::most_bytes(rows.min(super::MAX_FILE)) / 8;
        let geometry = Geometry::of(extent.rows.min(most) as usize, rows as usize);
        let read = || -> io::Result<Vec<u64>> {
            let mut words = vec![0; extent.rows.min(most) as usize];
            self.source
                .words(Through::Calls, extent.offset, &mut words)?;
            Ok(words)
        };
        let words = match &self.copy.past {
            Some(past) => past.curves.clone(),
            None if self.copy.moving => match still(read, geometry.rows)? {
                Some(words) => words,
                None => return Ok(Vec::new()),
            },
            None => read()?,
        };
        let now = match self.copy.moving {
            true => self.sections.accounts(&self.source)?,
            false => self.copy.accounts.clone(),
        };
        let heads = (0..geometry.curves.min(MAX_CURVES))
            .filter_map(|curve| Some((curve, geometry.head(&words, curve)?)));
        let mut heads: FxHashMap<TotalsKey, (usize, Head)> = heads
            .map(|(curve, head)| (head.key, (curve, head)))
            .collect();
        let mut found: Vec<Curve> = Vec::new();
        for row in &self.copy.totals {
            let Some(account) = account_of(&row.key) else {
                continue;
            };
            let Some((curve, head)) = heads.remove(&row.key) else {
                continue;
            };
            let second = |accounts: &[vramtrace_format::account::Account]| {
                let second = accounts.get(account).map_or(0, |account| account.second);
                span_of(second.into(), 0)
            };
            let is_open = second(&now) == second(&self.copy.accounts);
            let note = geometry.note(&words, head.row).filter(|_| is_open);
            found.push(Curve {
                row: *row,
                since: head.since,
                first: head.first,
                levels: levels(&geometry, &words, curve, &head),
                per_level: geometry.per_level,
                open: note.and_then(|note| {
                    Some(OpenSpan {
                        min: note.least,
                        max: note.most()?,
                    })
                }),
            });
        }
        Ok(found)
    }
}

/// Reads words until heads and cells are the same twice: they change each few seconds only.
fn still(read: impl Fn() -> io::Result<Vec<u64>>, rows: usize) -> io::Result<Option<Vec<u64>>> {
    const TRIES: u32 = 8;
    let notes = rows.saturating_mul(2);
    let mut before = read()?;
    for _ in 0..TRIES {
        let words = read()?;
        let changing = notes.saturating_add(8).min(words.len());
        if words[changing..] == before[changing..] {
            return Ok(Some(words));
        }
        before = words;
    }
    Ok(None)
}

fn levels(geometry: &Geometry, words: &[u64], curve: usize, head: &Head) -> [Vec<Cell>; LEVELS] {
    std::array::from_fn(|level| {
        let began = span_of(second_of(head.since).into(), level);
        let own = geometry.level(words, curve, level);
        let mut cells: Vec<Cell> = own.filter(|cell| cell.span >= began).collect();
        cells.sort_unstable_by_key(|cell| cell.span);
        cells
    })
}
