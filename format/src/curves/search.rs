//! Which rows get a curve.

use super::{Curves, HAS_CURVE, Head, MAX_CURVES, is_wanted, span_of};
use crate::totals::Totals;

/// Rows that are looked at in one second: all of a small table within a minute, of one with half a
/// million rows within ten.
fn at_once(rows: usize) -> usize {
    (rows / 32).clamp(64, 1024)
}

/// What speaks for a row.
#[derive(Clone, Copy, Debug, Default)]
struct Merit {
    /// Bytes that it holds at all times.
    holds: u64,
    /// How much more that is than it usually held.
    gains: u64,
}

/// The row with a curve that has the least claim to it.
struct Least {
    curve: usize,
    gains: u64,
    /// What the smallest of those holds that have theirs for what they hold.
    holds: u64,
}

impl Curves<'_> {
    /// Looks at the next rows, once a second at most. One that outgrew the least of those with a curve
    /// takes its place.
    pub(super) fn look_around(&mut self, second: u64, time: u64, rows: &[Totals]) {
        let Some(search) = self.search.as_deref_mut() else {
            return;
        };
        if search.second >= second || rows.is_empty() {
            return;
        }
        search.second = second;
        let (from, pass) = (search.next as usize, search.pass_took);
        let until = from.saturating_add(at_once(rows.len())).min(rows.len());
        let mut best = [(0, Merit::default()); 2];
        for (at, row) in rows.iter().enumerate().take(until).skip(from) {
            if !is_wanted(&row.key) {
                continue;
            }
            let share = share(pass, time.saturating_sub(row.first_time));
            let Some(note) = self.notes.get_mut(at) else {
                break;
            };
            if note.other & HAS_CURVE != 0 {
                self.look_at_curve(at, share);
                continue;
            }
            let holds = note.least.min(row.live_bytes);
            let merit = Merit {
                holds,
                gains: holds.saturating_sub(note.other),
            };
            note.other = towards(note.other, holds, share) & !HAS_CURVE;
            note.least = row.live_bytes;
            if merit.holds > best[0].1.holds {
                best[0] = (at, merit);
            }
            if merit.gains > best[1].1.gains {
                best[1] = (at, merit);
            }
        }
        let Some(search) = self.search.as_deref_mut() else {
            return;
        };
        search.next = until as u64;
        if until == rows.len() {
            search.next = 0;
            search.pass_took = second.saturating_sub(search.pass_began).max(1);
            search.pass_began = second;
        }
        for (at, merit) in best {
            self.challenge(at, merit, time, rows);
        }
    }

    /// What a row with a curve usually holds goes on as that of others.
    fn look_at_curve(&mut self, row: usize, share: u64) {
        let of_row = |head: &Head| head.serial != 0 && head.row == row as u64;
        let Some(curve) = self.heads.iter().position(of_row) else {
            return;
        };
        let holds = self.holds(curve);
        let head = &mut self.heads[curve];
        head.usual = towards(head.usual, holds, share) & !HAS_CURVE;
    }

    /// What a row with a curve held at all times of the last minute.
    fn holds(&self, curve: usize) -> u64 {
        const MINUTE: usize = 1;
        let head = &self.heads[curve];
        let second_of = |time| u64::from(crate::history::second_of(time));
        let now = self.search.as_deref().map_or(0, |search| search.second);
        let (since, now) = (span_of(second_of(head.since), MINUTE), span_of(now, MINUTE));
        let note = self.notes.get(head.row as usize).copied();
        let cell = |span: u64| {
            let cell = self.cells[self.cell_at(curve, MINUTE, span)];
            (cell.span == span && span >= since).then_some(cell.min)
        };
        let ago = [cell(now), cell(now.saturating_sub(1))];
        let least = note.unwrap_or_default().least;
        ago.into_iter().flatten().fold(least, u64::min)
    }

    fn challenge(&mut self, at: usize, merit: Merit, time: u64, rows: &[Totals]) {
        let has = |note: &super::Note| note.other & HAS_CURVE != 0;
        if merit.holds == 0 || self.notes.get(at).is_none_or(has) {
            return;
        }
        let used = self.search.as_deref().map_or(0, |search| search.used);
        let row = &rows[at];
        if (used as usize) < self.heads.len() {
            self.begin(used as usize, at, row.key, row.live_bytes, time);
            return;
        }
        let Some(least) = self.least(time) else {
            return;
        };
        // By some more, so that equals do not take turns.
        let holds_more = merit.holds > least.holds.saturating_add(least.holds / 2);
        let gains_more = merit.gains > least.gains.saturating_mul(2);
        if holds_more || gains_more {
            self.begin(least.curve, at, row.key, row.live_bytes, time);
        }
    }

    /// Of the rows that are not among the half that holds most, the one that gains least. No row loses
    /// its curve before that is as old as a 16th of the process's life.
    fn least(&self, time: u64) -> Option<Least> {
        let mut all = [(0, Merit::default()); MAX_CURVES];
        let all = &mut all[..self.heads.len()];
        for (curve, place) in all.iter_mut().enumerate() {
            let holds = self.holds(curve);
            let gains = holds.saturating_sub(self.heads[curve].usual);
            *place = (curve, Merit { holds, gains });
        }
        all.sort_unstable_by_key(|(_, merit)| std::cmp::Reverse(merit.holds));
        let large = all.len().div_ceil(2);
        let (large, others) = all.split_at(large);
        let holds = large.last()?.1.holds;
        let is_old = |(curve, _): &&(usize, Merit)| self.heads[*curve].since <= time - time / 16;
        let old = others.iter().filter(is_old);
        let (curve, merit) = old.min_by_key(|(_, merit)| merit.gains)?;
        Some(Least {
            curve: *curve,
            gains: merit.gains,
            holds,
        })
    }
}

/// How far, in 65,536ths, what a row usually held moves in a pass of so many seconds, so that it is a
/// mean over a quarter of its life (nanoseconds).
fn share(pass: u64, life: u64) -> u64 {
    let life = (life / crate::history::FINEST_NS).max(1);
    (pass.max(1).saturating_mul(4 << 16) / life).min(1 << 16)
}

fn towards(from: u64, to: u64, share: u64) -> u64 {
    let (from, to) = (i128::from(from), i128::from(to));
    let moved = from + (to - from) * i128::from(share) / (1 << 16);
    moved.clamp(0, u64::MAX.into()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_usual_follows_what_is() {
        assert_eq!(share(60, 240_000_000_000), 1 << 16);
        assert_eq!(towards(0, 1000, 1 << 16), 1000);
        assert_eq!(towards(1000, 0, 1 << 15), 500);
        assert_eq!(towards(u64::MAX, u64::MAX, 1 << 16), u64::MAX);
        // A day old, looked at each minute.
        assert_eq!(share(60, 86_400_000_000_000), 182);
    }
}
