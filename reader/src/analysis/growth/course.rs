//! What a group held over time, and what that says about its growth.
//!
//! Ages of what is live can be mistaken in two ways: where allocations live for long before they are
//! freed, those of a stack that grows no more look like a leak's, and a leak's among such look like
//! theirs. The course of what was held shows both. It is known for the stacks that have curves in the
//! trace, and for all of them where the event log reaches back to the beginning.

use super::survivors::Shape;
use super::trend::{Slope, slope};
use crate::analysis::leaks::{Group, Row};
use crate::analysis::timeline::{
    Grid, Line, Part, Resolution, Span, curved, key_of, lane_of, of_rows,
};
use crate::model::Process;
use rustc_hash::FxHashSet;
use std::io;
use vramtrace_format::curves::account_of;

/// Equal parts of the time from the beginning of the trace on.
const SPANS: usize = 256;
/// Fewer known spans than this say nothing.
const FEWEST: usize = 32;
/// Groups that are looked at, at most: the first, which are the largest, and those that have curves.
const MOST_GROUPS: usize = 256;
/// A later span holds more than an earlier one in at most this share of pairs: no growth.
const LEVEL: f64 = 0.4;
/// In at least this share of pairs: growth, if no part of the time does without.
const RISING: f64 = 0.95;
/// In how many parts growth has to be seen, and how far from their mean it may be in each.
const PARTS: usize = 8;
const EVEN: std::ops::RangeInclusive<f64> = 0.4..=2.0;

/// What the course says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// In each part of the time it holds more, at all times, than in the one before.
    Rising,
    /// In the last third of the time it rises no more.
    Level,
    /// Neither.
    Unclear,
}

impl Trend {
    /// The word that JSON uses.
    pub const fn name(self) -> &'static str {
        match self {
            Trend::Rising => "rising",
            Trend::Level => "level",
            Trend::Unclear => "unclear",
        }
    }
}

/// What a group held over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// From when on it is known, and until when it is looked at, event times.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// What it held in equal parts of that time, oldest first.
    pub spans: Vec<Span>,
    /// How finely it is known from when on.
    pub resolution: Vec<Resolution>,
    /// By how many bytes a second what it holds at all times grows.
    pub slope: Slope,
    /// In which share of pairs of spans the later one holds more.
    pub rises: f64,
    /// What that says.
    pub trend: Trend,
}

/// Adds their courses to groups of which they are known, and puts right what ages alone got wrong.
pub(in crate::analysis) fn add(process: &Process, groups: &mut [Group]) -> io::Result<()> {
    let curved = curved(process)?;
    let whole = [0, 1].map(|lane: usize| process.losses.rings[lane].overwritten == 0);
    let wanted: Vec<usize> = (0..groups.len())
        .filter(|&index| is_known(&groups[index], &curved, whole))
        .take(MOST_GROUPS)
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let ends = wanted.iter().map(|&index| groups[index].age.to);
    let to = ends.max().unwrap_or(0);
    let grid = Grid::of(Part { from: 0, to }, SPANS);
    let rows: Vec<Vec<Row>> = wanted
        .iter()
        .map(|&index| groups[index].rows.clone())
        .collect();
    let lines = of_rows(process, &rows, grid)?;
    for (index, line) in wanted.into_iter().zip(lines) {
        let group = &mut groups[index];
        let course = Course::of(line, grid, group.age.from, group.age.to);
        if let Some(course) = course {
            correct(group, &course);
            group.course = Some(Box::new(course));
        }
    }
    Ok(())
}

/// Whether all of a group's rows are of one account, and known further back than the event log may be.
fn is_known(group: &Group, curved: &FxHashSet<Row>, whole: [bool; 2]) -> bool {
    let accounts = group.rows.iter().map(|row| account_of(&key_of(row)));
    let accounts: FxHashSet<Option<usize>> = accounts.collect();
    let mut accounts = accounts.into_iter();
    match (accounts.next().flatten(), accounts.next()) {
        (Some(account), None) => {
            whole[lane_of(account)] || group.rows.iter().all(|row| curved.contains(row))
        }
        _ => false,
    }
}

impl Course {
    /// Of a group that lived from `from` to `to`; `None` where too little is known.
    fn of(line: Line, grid: Grid, from: u64, to: u64) -> Option<Course> {
        let since = from.max(line.known_from);
        let starts = |index: usize| {
            let since = grid.width.saturating_mul(index as u64);
            grid.start.saturating_add(since)
        };
        let spans: Vec<Span> = line
            .spans
            .iter()
            .enumerate()
            .map(|(index, span)| (starts(index + line.unknown), *span))
            // A span that begins before says what was before.
            .filter(|(start, _)| (since..=to).contains(start))
            .map(|(_, span)| span)
            .collect();
        if spans.len() < FEWEST {
            return None;
        }
        let floors: Vec<f64> = spans.iter().map(|span| span.min as f64).collect();
        let known = (to - since.min(to)) as f64 / (to.saturating_sub(from).max(1)) as f64;
        let last = &floors[floors.len() - floors.len() / 3..];
        let rises = rising_pairs(&floors);
        let trend = if known >= 0.9 && rises >= RISING && is_even(&floors) {
            Trend::Rising
        } else if known >= 0.5 && rising_pairs(last) <= LEVEL {
            Trend::Level
        } else {
            Trend::Unclear
        };
        Some(Course {
            from: since,
            to,
            slope: slope(&floors, grid.width as f64 / 1e9),
            rises,
            trend,
            resolution: line.resolution,
            spans,
        })
    }
}

/// The share of pairs of which the later value is greater.
fn rising_pairs(values: &[f64]) -> f64 {
    let mut rising = 0u32;
    for (index, value) in values.iter().enumerate() {
        let later = values[index + 1..].iter();
        rising += later.filter(|later| *later > value).count() as u32;
    }
    let pairs = values.len() * values.len().saturating_sub(1) / 2;
    f64::from(rising) / pairs.max(1) as f64
}

/// Whether the least value rises from each part to the next, about as much.
fn is_even(values: &[f64]) -> bool {
    let part = |index: usize| {
        let range = index * values.len() / PARTS..(index + 1) * values.len() / PARTS;
        values[range].iter().copied().fold(f64::INFINITY, f64::min)
    };
    let parts: Vec<f64> = (0..PARTS).map(part).collect();
    let mean = (parts[PARTS - 1] - parts[0]) / (PARTS - 1) as f64;
    let even = |pair: &[f64]| EVEN.contains(&((pair[1] - pair[0]) / mean));
    mean > 0.0 && parts.windows(2).all(even)
}

fn correct(group: &mut Group, course: &Course) {
    let judged = &mut group.age.judgement;
    match (judged.shape, course.trend) {
        (Shape::Growing, Trend::Level) => {
            judged.shape = Shape::Renewed;
            judged.confidence = judged.confidence.min(0.5);
        }
        (Shape::Unclear | Shape::Renewed, Trend::Rising) => {
            judged.shape = Shape::Growing;
            judged.confidence = course.rises;
            judged.slope = course.slope;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(floor: impl Fn(f64) -> f64) -> Trend {
        let floors = (0..SPANS).map(|index| floor(index as f64 / SPANS as f64));
        let spans = floors.map(|floor| Span {
            min: (1e9 + 1e9 * floor) as u64,
            max: u64::MAX,
            last: 0,
        });
        let line = Line {
            spans: spans.collect(),
            ..Line::default()
        };
        let (to, grid) = (
            SPANS as u64 * 1000 - 1,
            Grid {
                start: 0,
                width: 1000,
                spans: SPANS,
            },
        );
        Course::of(line, grid, 0, to).unwrap().trend
    }

    #[test]
    fn textbook_courses() {
        assert_eq!(trend(|x| x), Trend::Rising);
        assert_eq!(trend(|x| x.powf(0.8)), Trend::Rising);
        assert_eq!(trend(|x| (40.0 * x).floor() / 40.0), Trend::Rising);
        // A queue that is full after 40 % of the time.
        assert_eq!(trend(|x| x.min(0.4)), Trend::Level);
        assert_eq!(trend(|_| 0.0), Trend::Level);
        assert_eq!(trend(|x| 1.0 - (-8.0 * x).exp()), Trend::Unclear);
        assert_eq!(trend(|x| (x / 0.3).fract()), Trend::Unclear);
        assert_eq!(trend(|x| (x + 1e-3).ln() / 10.0 + 0.7), Trend::Unclear);
        assert_eq!(trend(|x| (7.0 * x).floor() / 7.0), Trend::Unclear);
    }

    #[test]
    fn too_little_is_no_course() {
        let line = Line {
            spans: vec![Span::default(); FEWEST - 1],
            unknown: SPANS - FEWEST + 1,
            ..Line::default()
        };
        let grid = Grid {
            start: 0,
            width: 1000,
            spans: SPANS,
        };
        assert_eq!(Course::of(line, grid, 0, 255_999), None);
    }
}
