//! Checks: text and `vramtrace.check/1`.

use super::json::{ProcessJson, PythonJson, document};
use super::losses::{self, LossesJson};
use super::style::Style;
use super::words::{bytes, count, foreign, shell};
use crate::analysis::check::{Check, Verdict};
use crate::model::CudaUse;
use serde::Serialize;
use std::fmt::Write;

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    traces: Vec<TraceJson>,
}

#[derive(Serialize)]
struct TraceJson {
    process: ProcessJson,
    verdict: &'static str,
    complete: bool,
    incomplete_because: Vec<String>,
    format_version: u32,
    file_bytes: u64,
    events: u64,
    recovered_event: Option<u64>,
    copied_while_written: bool,
    used_cuda: bool,
    memory_seen: bool,
    damage: Vec<String>,
    contradictions: Vec<String>,
    broken_records: u64,
    unknown_sections: Vec<u32>,
    losses: LossesJson,
    python: Option<PythonJson>,
    notes: Vec<NoteJson>,
    fill: Vec<FillJson>,
}

#[derive(Serialize)]
struct NoteJson {
    code: String,
    text: String,
}

#[derive(Serialize)]
struct FillJson {
    what: &'static str,
    used: u64,
    room: u64,
}

/// The document.
pub fn json(checks: &[Check]) -> String {
    document(&Document {
        schema: "vramtrace.check/1",
        traces: checks.iter().map(trace).collect(),
    })
}

fn trace(check: &Check) -> TraceJson {
    let incomplete_because = losses::reasons(&check.losses);
    TraceJson {
        process: (&check.view).into(),
        verdict: check.verdict.name(),
        complete: incomplete_because.is_empty(),
        incomplete_because,
        format_version: check.version,
        file_bytes: check.file_bytes,
        events: check.events,
        recovered_event: check.recovered,
        copied_while_written: check.moving,
        used_cuda: check.cuda_use != CudaUse::Nothing,
        memory_seen: check.cuda_use == CudaUse::Memory,
        damage: check.damage.clone(),
        contradictions: check.contradictions.clone(),
        broken_records: check.broken_records,
        unknown_sections: check.unknown_sections.clone(),
        losses: (&check.losses).into(),
        python: check.python.as_ref().map(PythonJson::from),
        notes: check
            .notes
            .iter()
            .map(|(code, text)| NoteJson {
                code: code.clone(),
                text: text.clone(),
            })
            .collect(),
        fill: check
            .fill
            .iter()
            .map(|fill| FillJson {
                what: fill.what,
                used: fill.used,
                room: fill.room,
            })
            .collect(),
    }
}

/// The report.
pub fn text(checks: &[Check], style: Style) -> String {
    let mut out = String::new();
    for check in checks {
        one(&mut out, check, style);
        out.push('\n');
    }
    let damaged = checks
        .iter()
        .filter(|c| c.verdict == Verdict::Damaged)
        .count();
    let _ = match damaged {
        0 => writeln!(
            out,
            "SUMMARY: {} checked, none damaged",
            traces(checks.len())
        ),
        n => writeln!(
            out,
            "SUMMARY: {} checked, {n} damaged",
            traces(checks.len())
        ),
    };
    let names: Vec<String> = checks
        .iter()
        .map(|check| shell(&check.view.trace))
        .collect();
    let _ = writeln!(out, "Next: vramtrace summary {}", names.join(" "));
    out
}

fn traces(number: usize) -> String {
    super::words::counted(number as u64, "trace")
}

fn one(out: &mut String, check: &Check, style: Style) {
    let verdict = match check.verdict {
        Verdict::Whole => style.good("whole: nothing was lost"),
        Verdict::HistoryLost => {
            style.good("sound: what is live and all sums are exact; some of the past is not kept")
        }
        Verdict::Inexact => style.warn("not exact: what is live may be wrong"),
        Verdict::Damaged => style.bad("damaged"),
    };
    let _ = writeln!(
        out,
        "{}: {verdict}",
        style.strong(&foreign(&check.view.trace.to_string_lossy()))
    );
    let _ = writeln!(
        out,
        "    {} (pid {}), format {}, {}, {} events",
        foreign(&check.view.name),
        check.view.pid,
        check.version,
        bytes(check.file_bytes),
        count(check.events)
    );
    let mut say = |lines: &[String]| {
        for line in lines {
            let _ = writeln!(out, "    {}", foreign(line));
        }
    };
    say(&check.damage);
    say(&check.contradictions);
    say(&losses::reasons(&check.losses));
    say(&losses::lines(&check.losses));
    if check.broken_records > 0 {
        say(&[format!(
            "{} records in its rings make no sense and are left out",
            count(check.broken_records)
        )]);
    }
    if let Some(seq) = check.recovered {
        say(&[format!(
            "event {} was interrupted when the process ended; it was applied whole",
            count(seq)
        )]);
    }
    if check.moving {
        say(&["it was being written while it was read; the copy is of one moment".to_owned()]);
    }
    if let Some(remark) = check.cuda_use.remark() {
        say(&[format!("the process {remark}")]);
    }
    if let Some(python) = &check.python {
        say(&[python.line()]);
    }
    say(&super::sampling::costs(&check.view));
    for (code, text) in &check.notes {
        // Said by the line above.
        if !code.starts_with("python") {
            say(std::slice::from_ref(text));
        }
    }
    if !check.unknown_sections.is_empty() {
        say(&[format!(
            "it has {} that this version does not know",
            super::words::counted(check.unknown_sections.len() as u64, "section")
        )]);
    }
    let full = check.fill.iter().filter(|fill| fill.room > 0);
    if !check.fill.is_empty() {
        let _ = writeln!(out, "    {}", style.dim("in use:"));
    }
    for fill in full {
        // A damaged file may claim more than all.
        let used = u128::from(fill.used.min(fill.room));
        let percent = (used * 100).div_ceil(u128::from(fill.room));
        let line = format!("{percent:>3} % of {}", fill.what);
        let _ = writeln!(out, "    {}", style.dim(&line));
    }
}
