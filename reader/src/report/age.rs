//! What documents say about the ages of a group.

use super::json::SumJson;
use crate::analysis::growth::CELLS;
use crate::analysis::leaks::Age;
use serde::Serialize;

/// What the ages of a group say. Slopes are bytes a second.
#[derive(Serialize)]
pub(crate) struct AgeJson {
    shape: &'static str,
    confidence: f64,
    slope: f64,
    slope_low: f64,
    slope_high: f64,
    /// Of so many equal parts of `[from_ns, to_ns]`, how many left something.
    parts_with_survivors: usize,
    parts: usize,
    from_ns: u64,
    to_ns: u64,
    /// What was ever allocated there.
    made: Option<SumJson>,
    /// What is live, by when it was made: equal parts of the same time.
    made_in: Vec<SumJson>,
}

impl AgeJson {
    /// `start`: Unix time of event time 0, nanoseconds.
    pub fn of(age: &Age, start: u64) -> AgeJson {
        let judged = &age.judgement;
        AgeJson {
            shape: judged.shape.name(),
            confidence: judged.confidence,
            slope: judged.slope.median,
            slope_low: judged.slope.low,
            slope_high: judged.slope.high,
            parts_with_survivors: judged.cells,
            parts: CELLS,
            from_ns: start.saturating_add(age.from),
            to_ns: start.saturating_add(age.to),
            made: age.made.map(SumJson::from),
            made_in: age.parts.iter().map(|&sum| sum.into()).collect(),
        }
    }
}
