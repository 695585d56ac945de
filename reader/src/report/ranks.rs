//! Ranks side by side: which of them is different.

use super::style::Style;
use super::words::bytes;
use crate::analysis::ranks::{OfRank, Ranks};
use serde::Serialize;
use std::fmt::Write;

/// Ranks that are listed, beside those that are different.
const SHOWN: usize = 16;

/// A line for each rank, the different ones marked, and one that names these; `what` is what they hold: `leaked`.
pub(crate) fn lines(out: &mut String, ranks: Option<&Ranks>, what: &str, style: Style) {
    let Some(ranks) = ranks else { return };
    let _ = writeln!(out, "By rank, {what}:");
    let width = ranks.all.iter().map(|of| bytes(of.bytes).len()).max();
    let width = width.unwrap_or(0);
    let mut left_out = 0;
    for (number, of) in ranks.all.iter().enumerate() {
        if number >= SHOWN && !of.differs {
            left_out += 1;
            continue;
        }
        let line = format!("    rank {:<4} {:>width$}", of.rank, bytes(of.bytes));
        match of.differs {
            true => {
                let _ = writeln!(
                    out,
                    "{}",
                    style.bad(&format!("{line}   {}", against(of, ranks)))
                );
            }
            false => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    if left_out > 0 {
        let _ = writeln!(out, "    … and {left_out} more that are not different");
    }
    let different: Vec<String> = ranks.different().map(|of| of.rank.to_string()).collect();
    let verdict = match (&different[..], ranks.all.len()) {
        ([], 2) => "of two ranks it cannot be told which is different".to_owned(),
        ([], _) => "no rank is different from the others".to_owned(),
        ([one], _) => format!("rank {one} is different from the others"),
        (several, _) => format!("ranks {} are different from the others", several.join(", ")),
    };
    let verdict = if different.is_empty() {
        style.dim(&verdict)
    } else {
        style.strong(&verdict)
    };
    let _ = writeln!(out, "    {verdict}");
}

/// `30.00 MiB more than usual (4.0 times as much)`.
fn against(of: &OfRank, ranks: &Ranks) -> String {
    let usual = ranks.usual;
    let difference = bytes(of.bytes.abs_diff(usual));
    if of.bytes < usual {
        return format!("{difference} less than usual");
    }
    let times = match usual {
        0 => String::new(),
        usual => format!(" ({:.1} times as much)", of.bytes as f64 / usual as f64),
    };
    format!("{difference} more than usual{times}")
}

/// `"ranks"` of a document.
#[derive(Serialize)]
pub(crate) struct RanksJson {
    /// The median, bytes.
    usual_bytes: u64,
    /// Ranks that are different from the others.
    different: Vec<u32>,
    all: Vec<OfRankJson>,
}

#[derive(Serialize)]
struct OfRankJson {
    rank: u32,
    /// Ids of its processes.
    processes: Vec<usize>,
    bytes: u64,
    differs: bool,
}

impl RanksJson {
    /// `None` where there are not several ranks.
    pub fn of(ranks: Option<&Ranks>) -> Option<RanksJson> {
        let ranks = ranks?;
        Some(RanksJson {
            usual_bytes: ranks.usual,
            different: ranks.different().map(|of| of.rank).collect(),
            all: ranks
                .all
                .iter()
                .map(|of| OfRankJson {
                    rank: of.rank,
                    processes: of.processes.clone(),
                    bytes: of.bytes,
                    differs: of.differs,
                })
                .collect(),
        })
    }
}
