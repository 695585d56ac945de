//! Which rows get a curve.
//!
//! A row that leaks cannot be told by its size, nor by how much more it holds than before: what comes and
//! goes by the day is larger. But what it holds at all times passes its own high again and again, in small
//! steps, and hardly anything else does. So these passes are counted, those of the last quarter of a row's
//! life only, and whoever has most of them gains most.

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
    /// How often that passed its own high lately ([`Gains::passes`]).
    gains: u64,
}

/// How often what a row holds at all times passed its high. Packed into the 63 bits of a
/// [`super::Note`] that has no curve: the high above, the number below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gains {
    /// The high, in units of 4 KiB, 32 bits. It follows what is held, slowly, down as well.
    high: u64,
    /// How often it was passed in about the last quarter of the row's life, in 65,536ths, 31 bits.
    passes: u64,
}

const UNIT: u64 = 4096;
const ONE: u64 = 1 << 16;
const MOST_PASSES: u64 = (1 << 31) - 1;
const MOST_HIGH: u64 = (1 << 32) - 1;
/// Fewer passes than this are no reason to take a curve away.
const FEWEST_PASSES: u64 = 2 * ONE;

impl Gains {
    fn of(packed: u64) -> Gains {
        Gains {
            high: packed >> 31 & MOST_HIGH,
            passes: packed & MOST_PASSES,
        }
    }

    fn packed(self) -> u64 {
        self.high << 31 | self.passes
    }

    /// The row was looked at again, and held so much at all times meanwhile. `share` says, in
    /// 65,536ths, how much of a quarter of its life has passed.
    fn looked_at(self, holds: u64, share: u64) -> Gains {
        let now = (holds / UNIT).min(MOST_HIGH);
        let fewer = |value: u64, by: u64| value - value * share / ONE / by;
        let passes = fewer(self.passes, 1);
        if now > self.high {
            Gains {
                high: now,
                passes: (passes + ONE).min(MOST_PASSES),
            }
        } else {
            Gains {
                // Slower, so that what goes up and down at random stays below its high.
                high: now + fewer(self.high - now, 8),
                passes,
            }
        }
    }
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
            let gains = Gains::of(note.other).looked_at(holds, share);
            let merit = Merit {
                holds,
                gains: gains.passes,
            };
            note.other = gains.packed();
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

    /// The gains of a row with a curve are counted as those of others.
    fn look_at_curve(&mut self, row: usize, share: u64) {
        let of_row = |head: &Head| head.serial != 0 && head.row == row as u64;
        let Some(curve) = self.heads.iter().position(of_row) else {
            return;
        };
        let holds = self.holds(curve);
        let head = &mut self.heads[curve];
        head.gains = Gains::of(head.gains).looked_at(holds, share).packed();
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
        let (key, live) = (rows[at].key, rows[at].live_bytes);
        if (used as usize) < self.heads.len() {
            self.begin(used as usize, at, key, live, time);
            return;
        }
        let Some(least) = self.least(time) else {
            return;
        };
        // By some more, so that equals do not take turns.
        let holds_more = merit.holds > least.holds.saturating_add(least.holds / 2);
        let gains_more = merit.gains >= FEWEST_PASSES && merit.gains / 2 > least.gains;
        if holds_more || gains_more {
            self.begin(least.curve, at, key, live, time);
        }
    }

    /// Of the rows that are not among the half that holds most, the one that gains least. No row loses
    /// its curve before that is as old as a 16th of the process's life.
    fn least(&self, time: u64) -> Option<Least> {
        let mut all = [(0, Merit::default()); MAX_CURVES];
        let all = &mut all[..self.heads.len()];
        for (curve, place) in all.iter_mut().enumerate() {
            let holds = self.holds(curve);
            let gains = Gains::of(self.heads[curve].gains).passes;
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

/// Which part of a quarter of its life (nanoseconds) a row was not looked at, if a pass takes so many
/// seconds; in 65,536ths.
fn share(pass: u64, life: u64) -> u64 {
    let life = (life / crate::history::FINEST_NS).max(1);
    (pass.max(1).saturating_mul(4 * ONE) / life).min(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_and_back() {
        for gains in [
            Gains::default(),
            Gains {
                high: MOST_HIGH,
                passes: 1,
            },
            Gains {
                high: 1,
                passes: MOST_PASSES,
            },
        ] {
            assert_eq!(Gains::of(gains.packed()), gains);
            assert_eq!(gains.packed() & HAS_CURVE, 0);
        }
    }

    /// A week, looked at each minute: who passes its high how often at the end.
    fn passes(held: impl Fn(u64) -> u64) -> f64 {
        let mut gains = Gains::default();
        for minute in 1..7 * 24 * 60 {
            let share = share(60, minute * 60_000_000_000);
            gains = gains.looked_at(held(minute), share);
        }
        gains.passes as f64 / ONE as f64
    }

    #[test]
    #[cfg_attr(miri, ignore = "a week takes too long")]
    fn a_small_leak_gains_more_than_what_comes_and_goes() {
        let leak = passes(|minute| (minute / 60) << 20);
        assert!((25.0..50.0).contains(&leak), "{leak}");
        let weights = passes(|minute| minute.min(45) << 30);
        let daily = passes(|minute| [1, 7, 3, 5, 9, 2, 8][minute as usize / 1440] << 30);
        let noise = passes(|minute| (minute * 7919 % 100_003) << 20);
        let sawtooth = passes(|minute| (minute % 500) << 20);
        assert!(weights < 2.0 && daily < 2.0, "{weights} {daily}");
        assert!(sawtooth < leak && noise < leak, "{sawtooth} {noise}");
    }

    #[test]
    fn nothing_overflows() {
        let most = Gains {
            high: MOST_HIGH,
            passes: MOST_PASSES,
        };
        assert_eq!(most.looked_at(u64::MAX, 0), most);
        assert_eq!(most.looked_at(0, ONE).passes, 0);
        assert_eq!(share(u64::MAX, 0), ONE);
        // A day old, looked at each minute.
        assert_eq!(share(60, 86_400_000_000_000), 182);
    }
}
