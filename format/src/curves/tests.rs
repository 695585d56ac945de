//! Curves against a naive model: what a row's live bytes were in each span.

use super::*;
use crate::account::Account;
use crate::history::second_of;
use crate::record::Record;
use std::collections::BTreeMap;

/// Fewest, most, last.
type Truth = (u64, u64, u64);

/// What every row held in each span of level 0, as the events say, from a time on (with what it held
/// just before).
fn truth(events: &[Record], key: &TotalsKey, since: u64) -> BTreeMap<u64, Truth> {
    let mut spans: BTreeMap<u64, Truth> = BTreeMap::new();
    let (mut live, mut open, mut now) = (0u64, 0u64, 0u64);
    let account = account_of(key);
    for event in events {
        let Some(op) = event.op() else { continue };
        let own = TotalsKey::of(op, event, End::Live);
        if account_of(&own) != account {
            continue;
        }
        // A free that failed has the time of its allocation: it counts where its account is.
        now = now.max(event.time);
        open = open.max(u64::from(second_of(now)));
        if own == *key {
            let before = live;
            live = match op {
                _ if op.begins_allocation() => live + event.size,
                _ if op.ends_allocation() => live - event.size,
                _ => live,
            };
            if now < since {
                continue;
            }
            let span = span_of(open, 0);
            let cell = spans.entry(span).or_insert((before, before, before));
            *cell = (cell.0.min(live), cell.1.max(live), live);
        }
    }
    spans
}

/// Compares all curves of a section with the events; returns how many cells were compared.
pub(crate) fn compare(
    words: &[u64],
    totals: &[Totals],
    accounts: &[Account],
    events: &[Record],
) -> usize {
    let geometry = Geometry::of(words.len(), totals.len());
    let mut compared = 0;
    let mut rows = std::collections::BTreeSet::new();
    for curve in 0..geometry.curves {
        let Some(head) = geometry.head(words, curve) else {
            continue;
        };
        assert!(rows.insert(head.row), "a row has two curves");
        let row = &totals[head.row as usize];
        assert_eq!(row.key, head.key);
        let account = &accounts[account_of(&head.key).unwrap()];
        let open = span_of(account.second.into(), 0);
        let spans = truth(events, &head.key, head.since);
        let began = span_of(second_of(head.since).into(), 0);
        let note = geometry.note(words, head.row).unwrap();
        if let Some(&(min, max, last)) = spans.get(&open).filter(|_| began < open) {
            assert_eq!(
                (note.least, note.most(), row.live_bytes),
                (min, Some(max), last)
            );
        }
        for level in 0..LEVELS {
            let step = COARSENING.pow(level as u32);
            let kept: BTreeMap<u64, Cell> = geometry
                .level(words, curve, level)
                .map(|cell| (cell.span, cell))
                .collect();
            let Some(newest) = kept.keys().last().copied() else {
                continue;
            };
            let began = (began - 1) / step + 1;
            for (span, cell) in kept {
                if span <= began || span + geometry.per_level as u64 <= newest {
                    continue;
                }
                // All spans of level 0 in it that are over; between changes the value is the last one.
                let (first, end) = ((span - 1) * step + 1, (span * step + 1).min(open));
                let mut value = spans.range(..first).next_back().map(|(_, cell)| cell.2);
                let mut expected: Option<Truth> = None;
                for at in first..end {
                    let here = spans.get(&at).copied();
                    let here = here.or(value.map(|value| (value, value, value)));
                    value = here.map(|here| here.2);
                    expected = match (expected, here) {
                        (Some(sum), Some(here)) => {
                            Some((sum.0.min(here.0), sum.1.max(here.1), here.2))
                        }
                        (sum, here) => here.or(sum),
                    };
                }
                let expected = expected.unwrap_or((head.first, head.first, head.first));
                assert_eq!(
                    (cell.min, cell.max, cell.last),
                    expected,
                    "{head:?} level {level} span {span}"
                );
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn a_section_of_any_size_is_divided_within_itself() {
    for words in [0, 7, 8, 1000, 5000, 70_000] {
        for rows in [0, 1, 100, 10_000, usize::MAX] {
            let geometry = Geometry::of(words, rows);
            let zeros = vec![0; words];
            for curve in [0, 1, MAX_CURVES, usize::MAX / 1_000_000] {
                assert!(geometry.head(&zeros, curve).is_none());
                assert_eq!(geometry.level(&zeros, curve, 0).count(), 0);
            }
            assert!(geometry.note(&zeros, u64::MAX).is_none());
            let mut zeros = zeros;
            let mut curves = Curves::new(&mut zeros, rows);
            curves.note_more(0, 1);
            curves.note_less(0, 0);
            let rows = [Totals::default()];
            curves.turn(0, (1, 100), 100 * FINEST_NS, &rows);
        }
    }
}

/// A table of rows whose live bytes a test sets, all in one account.
struct Program {
    words: Vec<u64>,
    rows: Vec<Totals>,
    second: u32,
}

impl Program {
    fn new(rows: usize) -> Program {
        let row = |stack: usize| {
            let key = TotalsKey {
                stack: stack as u32 + 1,
                kind: Kind::Device as u8,
                used: 1,
                ..TotalsKey::default()
            };
            let row = Totals::default();
            Totals {
                key,
                first_time: 1,
                ..row
            }
        };
        Program {
            words: vec![0; (1 << 20) / 8],
            rows: (0..rows).map(row).collect(),
            second: 1,
        }
    }

    fn set(&mut self, row: usize, live: u64) {
        let before = std::mem::replace(&mut self.rows[row].live_bytes, live);
        let mut curves = Curves::new(&mut self.words, self.rows.len());
        if live > before {
            curves.note_more(row, live);
        } else {
            curves.note_less(row, live);
        }
    }

    fn pass(&mut self, seconds: u32) {
        let next = self.second + seconds;
        let time = u64::from(next - 1) * FINEST_NS;
        let mut curves = Curves::new(&mut self.words, self.rows.len());
        curves.turn(0, (self.second, next), time, &self.rows);
        self.second = next;
    }

    fn with_curves(&self) -> std::collections::BTreeSet<usize> {
        let geometry = Geometry::of(self.words.len(), self.rows.len());
        let heads = (0..geometry.curves).filter_map(|curve| geometry.head(&self.words, curve));
        heads.map(|head| head.row as usize).collect()
    }
}

/// Two thousand stacks of a program that has run for long: those that hold most have curves, and a
/// small one that leaks gets one though a thousand others are larger, and stays.
#[test]
#[cfg_attr(miri, ignore = "a week takes too long")]
fn what_holds_most_and_what_gains_most_have_curves() {
    const ROWS: usize = 2_000;
    const LEAK: usize = 1_717;
    let mut program = Program::new(ROWS);
    for row in 0..ROWS {
        program.set(row, 1_000_000 + 1_000 * row as u64);
    }
    let mut leaked = 0;
    let mut random = 7u64;
    let mut since = None;
    for minute in 0..10_000u64 {
        // Some come and go meanwhile.
        for _ in 0..20 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let row = (random >> 33) as usize % (ROWS / 2);
            let usual = 1_000_000 + 1_000 * row as u64;
            program.set(row, usual + 300_000);
            program.set(row, usual);
        }
        leaked += 1_000;
        program.set(LEAK, leaked);
        program.pass(60);
        if program.with_curves().contains(&LEAK) {
            since.get_or_insert(minute);
        } else {
            assert_eq!(since, None, "it lost its curve in minute {minute}");
        }
    }
    let with = program.with_curves();
    // Without one is nothing that holds half as much again as the smaller ones of the largest half.
    let mut held: Vec<u64> = with
        .iter()
        .map(|&row| program.rows[row].live_bytes)
        .collect();
    held.sort_unstable_by_key(|&held| std::cmp::Reverse(held));
    let least = held[held.len().div_ceil(2) - 1];
    for row in (0..ROWS).filter(|row| !with.contains(row)) {
        let live = program.rows[row].live_bytes;
        assert!(live * 2 <= least * 3, "{row} holds {live}: {with:?}");
    }
    println!("the leak has a curve from minute {since:?} on");
    assert!(since.is_some(), "{with:?}");
}
