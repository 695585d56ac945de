//! The tree for people: the number, what it is made of, what is left; then what lies beside it.

use crate::analysis::Sum;
use crate::analysis::reconcile::{Answer, Basis, Line, Part, Reconciled};
use crate::report::style::Style;
use crate::report::words::{bytes, count, counted, duration, foreign, shell};
use std::fmt::Write;

/// Of the number: more than this is worth a look.
const WORTH_A_LOOK: f64 = 0.01;
/// Bytes below which it is not, whatever the number is.
const SMALL: i64 = 32 << 20;

/// The report.
pub fn text(answer: &Answer, style: Style) -> String {
    let mut out = String::new();
    for tree in &answer.trees {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, answer, tree, style);
    }
    for sentence in &answer.without {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(sentence));
    }
    if answer.trees.is_empty() {
        let line = "SUMMARY: no GPU was used, so there is no number to explain";
        let _ = writeln!(out, "{}", style.warn(line));
    }
    next(&mut out, answer);
    out
}

fn one(out: &mut String, answer: &Answer, tree: &Reconciled, style: Style) {
    head(out, answer, tree, style);
    let whole = tree.number();
    let rows = rows(tree);
    let width = rows.iter().map(|row| row.label.chars().count()).max();
    let width = width.unwrap_or(0).max(24);
    for row in &rows {
        let padding = " ".repeat(width - row.label.chars().count());
        let label = if row.strong {
            style.strong(&row.label)
        } else {
            row.label.clone()
        };
        let _ = write!(out, "{label}{padding} {:>12}", mib(row.bytes));
        match (whole.filter(|whole| *whole > 0), row.share) {
            (Some(whole), true) => {
                let percent = row.bytes as f64 / whole as f64 * 100.0;
                let _ = write!(out, " {percent:>6.1} %");
            }
            (None, _) => {}
            _ if row.remark.is_empty() => {}
            _ => out.push_str("         "),
        }
        if !row.remark.is_empty() {
            let _ = write!(out, "  {}", style.dim(&row.remark));
        }
        out.push('\n');
    }
    beside(out, tree, style);
    for note in &tree.notes {
        let _ = writeln!(out, "{} {}", style.warn("note:"), foreign(note));
    }
    summary(out, tree, style);
}

fn head(out: &mut String, answer: &Answer, tree: &Reconciled, style: Style) {
    let process = &answer.processes[tree.process];
    let name = match process.name.as_str() {
        "" => "process".to_owned(),
        name => foreign(name),
    };
    let _ = write!(out, "{} (pid {}", style.strong(&name), process.pid);
    if let Some(rank) = process.rank {
        let _ = write!(out, ", rank {rank}");
    }
    out.push(')');
    if let Some(device) = answer.devices.all.get(tree.device) {
        let _ = write!(out, " on GPU {}", device.index);
        if !device.name.is_empty() {
            let _ = write!(out, " ({})", foreign(&device.name));
        }
    }
    let since = duration(tree.at_ns.saturating_sub(process.start_ns));
    let _ = writeln!(out, ", at {since}\n");
}

struct Row {
    label: String,
    bytes: i64,
    share: bool,
    remark: String,
    strong: bool,
}

fn rows(tree: &Reconciled) -> Vec<Row> {
    let mut rows = Vec::new();
    let number = tree.number();
    let (label, remark) = match tree.shown {
        Some(shown) if shown.process.is_some() => ("nvidia-smi shows", ""),
        Some(_) => (
            "the device uses",
            "all processes; nvidia-smi does not say how much is this one's",
        ),
        None => ("what is known", "nobody asked nvidia-smi"),
    };
    rows.push(Row {
        label: label.to_owned(),
        bytes: number.map_or(tree.explained, |number| number as i64),
        share: false,
        remark: remark.to_owned(),
        strong: true,
    });
    let last = |index: usize| index + 1 == tree.lines.len() && tree.unexplained.is_none();
    for (index, line) in tree.lines.iter().enumerate() {
        let (branch, below) = if last(index) {
            ("└ ", "  ")
        } else {
            ("├ ", "│ ")
        };
        rows.push(row(branch, line));
        for (at, inner) in line.within.iter().enumerate() {
            let branch = if at + 1 == line.within.len() {
                "└ "
            } else {
                "├ "
            };
            let inner = row(&format!("{below}{branch}"), inner);
            rows.push(Row {
                share: false,
                ..inner
            });
        }
    }
    if let Some(unexplained) = tree.unexplained {
        rows.push(Row {
            label: "└ unexplained".to_owned(),
            bytes: unexplained,
            share: true,
            remark: String::new(),
            strong: is_worth_a_look(unexplained, number),
        });
    }
    rows
}

fn row(branch: &str, line: &Line) -> Row {
    let name = match line.part {
        Part::Library => foreign(&line.name),
        Part::TorchReserved => "PyTorch's caching allocator".to_owned(),
        Part::Pools => "stream-ordered pools".to_owned(),
        Part::GraphPool => "graph memory pool".to_owned(),
        Part::Context => "CUDA context".to_owned(),
        Part::Code => "kernels and modules".to_owned(),
        Part::Limits => "enlarged limits".to_owned(),
        Part::Streams => "streams".to_owned(),
        Part::InUse => "in use".to_owned(),
        Part::Cached => "cached".to_owned(),
    };
    let allocations = || counted(line.count, "allocation");
    let remark = match (line.part, line.basis) {
        (Part::Library, _) if !line.file.is_empty() && line.file != line.name => {
            format!("{} by {}", allocations(), foreign(&line.file))
        }
        (Part::Library | Part::TorchReserved, _) => allocations(),
        (Part::InUse, _) => counted(line.count, "block"),
        (_, Basis::Measured) => "measured".to_owned(),
        (_, Basis::Derived) => "what was left at first".to_owned(),
        (_, Basis::Gauge) => "as the driver last said".to_owned(),
        (_, Basis::Events) => String::new(),
    };
    Row {
        label: format!("{branch}{name}"),
        bytes: line.bytes,
        share: true,
        remark,
        strong: false,
    }
}

/// MiB with one decimal, thousands apart, so that lines can be compared by eye.
fn mib(bytes: i64) -> String {
    let tenths = (bytes.unsigned_abs() as f64 / (1u64 << 20) as f64 * 10.0).round() as u64;
    let sign = if bytes < 0 && tenths > 0 { "-" } else { "" };
    format!("{sign}{}.{} MiB", count(tenths / 10), tenths % 10)
}

fn beside(out: &mut String, tree: &Reconciled, style: Style) {
    let of = &tree.beside;
    let lines = [
        ("page-locked host memory", of.pinned, "of the whole process"),
        (
            "managed memory",
            of.managed,
            "its pages are on the device (then in `unexplained`) or on the host",
        ),
        (
            "imported from other processes",
            of.imports,
            "theirs, not counted here",
        ),
        ("physical memory on the host", of.host_physical, ""),
    ];
    let some: Vec<_> = lines.iter().filter(|(_, sum, _)| sum.count > 0).collect();
    if some.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nbeside it:");
    for (what, Sum { bytes: size, count }, remark) in some {
        let of = counted(*count, "allocation");
        let _ = write!(out, "  {what}: {} in {of}", bytes(*size));
        if !remark.is_empty() {
            let _ = write!(out, "  {}", style.dim(remark));
        }
        out.push('\n');
    }
}

fn is_worth_a_look(unexplained: i64, number: Option<u64>) -> bool {
    let share = number.filter(|number| *number > 0);
    let share = share.map_or(0.0, |number| unexplained as f64 / number as f64);
    unexplained.abs() > SMALL && share.abs() > WORTH_A_LOOK
}

fn summary(out: &mut String, tree: &Reconciled, style: Style) {
    let line = match (tree.unexplained, tree.number()) {
        (Some(unexplained), Some(number)) => {
            let line = format!(
                "SUMMARY: {} of {} explained, {} unexplained",
                mib(tree.explained),
                mib(number as i64),
                mib(unexplained)
            );
            if is_worth_a_look(unexplained, Some(number)) {
                style.warn(&line)
            } else {
                style.good(&line)
            }
        }
        _ => style.strong(&format!(
            "SUMMARY: {} known; what nvidia-smi showed was not recorded",
            mib(tree.explained)
        )),
    };
    let _ = writeln!(out, "\n{line}");
}

fn next(out: &mut String, answer: &Answer) {
    let largest = answer.trees.iter().max_by_key(|tree| tree.explained);
    if let Some(tree) = largest {
        let trace = shell(&answer.processes[tree.process].trace);
        let _ = writeln!(
            out,
            "Next: vramtrace leaks --by library --to @{} {trace}",
            tree.at_ns
        );
    }
}

#[cfg(test)]
mod tests {
    use super::mib;

    #[test]
    fn sizes_in_one_unit() {
        for (bytes, text) in [
            (0, "0.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (1_619 << 20, "1,619.0 MiB"),
            (-(3 << 19), "-1.5 MiB"),
            (-10, "0.0 MiB"),
        ] {
            assert_eq!(mib(bytes), text);
        }
    }
}
