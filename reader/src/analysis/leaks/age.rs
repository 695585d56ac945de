//! How old what a group holds is, beside what was ever made there.

use crate::analysis::Sum;
use crate::analysis::growth::{CELLS, Judgement, Survivor, cell_of, judge};
use crate::model::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use vramtrace_format::totals::End;

/// Parts of a group's life that [`Age::parts`] tells of.
pub const PARTS: usize = 8;

/// When what a group holds was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Age {
    /// When the first allocation ever was made there, event time; where that is not kept, the
    /// first that is held.
    pub from: u64,
    /// Until when the group is looked at, event time.
    pub to: u64,
    /// What was ever allocated there; `None` where groups are made by something that sums by
    /// stack do not know.
    pub made: Option<Sum>,
    /// What was made in each of so many equal parts of that time. What is only kept as a sum is
    /// in none.
    pub parts: [Sum; PARTS],
    /// What these say.
    pub judgement: Judgement,
}

/// What a row of sums by stack stands for, but how its allocations ended: stack, API, device, kind.
pub type Row = (u32, u16, u8, u8);

/// First allocation and all allocations ever made, by row.
pub(super) struct Rows(FxHashMap<Row, (u64, Sum)>);

impl Rows {
    pub fn of(process: &Process) -> Rows {
        let live = process.totals().iter();
        let live = live.filter(|row| row.key.end == End::Live as u8);
        let rows = live.map(|row| {
            let key = (row.key.stack, row.key.api, row.key.device, row.key.kind);
            let made = Sum {
                bytes: row.alloc_bytes,
                count: row.alloc_count,
            };
            (key, (row.first_time, made))
        });
        Rows(rows.collect())
    }

    /// Of a group that is made of these rows, and looked at from and to these event times. `are_whole`:
    /// nothing else of the rows is in another group.
    pub fn age(
        &self,
        members: impl Iterator<Item = Row>,
        are_whole: bool,
        span: (u64, u64),
        survivors: &[Survivor],
    ) -> Age {
        let mut from = survivors.iter().map(|one| one.time).min().unwrap_or(span.1);
        let mut made = are_whole.then(Sum::default);
        let mut counted = FxHashSet::default();
        for key in members {
            let Some((first, sum)) = self.0.get(&key) else {
                made = None;
                continue;
            };
            from = from.min(*first);
            if let Some(made) = made.as_mut().filter(|_| counted.insert(key)) {
                made.merge(*sum);
            }
        }
        let (from, to) = (from.max(span.0), span.1);
        // Those of the beginning itself are older, who knows how much.
        let dated = |one: &&Survivor| span.0 == 0 || one.time > span.0;
        let dated: Vec<Survivor> = survivors.iter().filter(dated).copied().collect();
        let mut parts = [Sum::default(); PARTS];
        let mut held = Sum::default();
        for one in survivors {
            held.add(one.bytes, one.count);
        }
        for one in &dated {
            let part = cell_of(one.time, from, to.saturating_sub(from).saturating_add(1));
            parts[part * PARTS / CELLS].add(one.bytes, one.count);
        }
        let all_stay = made.is_some_and(|made| made.count == held.count);
        Age {
            from,
            to,
            made,
            parts,
            judgement: judge(&dated, from, to, all_stay),
        }
    }
}
