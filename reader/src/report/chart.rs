//! Bars of live bytes over time, in a terminal.

use super::words::{bytes, duration};

/// Eighths of a character cell, from below.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of the labels on the left, with the axis.
pub const LABELS: usize = 13;
/// Rows of a chart.
pub const HEIGHT: usize = 10;

/// How many values fit into a terminal of so many columns.
pub fn values_in(columns: usize) -> usize {
    columns.saturating_sub(LABELS + 1).clamp(10, 400)
}

/// Draws values (bytes) over the time from `from` to `to` (nanoseconds), and below them where the
/// times in `marks` are.
pub fn chart(values: &[u64], from: u64, to: u64, marks: &[u64]) -> String {
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let mut out = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            _ if row == HEIGHT - 1 => bytes(top),
            _ if row == HEIGHT / 2 - 1 => bytes(top / 2),
            0 => "0 B".to_owned(),
            _ => String::new(),
        };
        let axis = if label.is_empty() { '│' } else { '┤' };
        let bars: String = values.iter().map(|&value| cell(value, top, row)).collect();
        let line = format!("{label:>width$} {axis}{bars}", width = LABELS - 2);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let width = values.len().max(1);
    out.push_str(&format!(
        "{:>w$}└{}\n",
        "",
        "─".repeat(width),
        w = LABELS - 1
    ));
    if let Some(line) = marks_line(width, from, to, marks) {
        out.push_str(&format!("{:>LABELS$}{line}\n", ""));
    }
    let start = match from {
        0 => "0".to_owned(),
        from => duration(from),
    };
    let (middle, end) = (duration(from + to.saturating_sub(from) / 2), duration(to));
    let wide = |label: &String| label.chars().count();
    let left = LABELS;
    let at_middle = (width / 2).saturating_sub(wide(&middle) / 2 + wide(&start));
    let gap = width.saturating_sub(at_middle + wide(&start) + wide(&middle) + wide(&end));
    // In a narrow terminal they stay apart.
    let (at_middle, gap) = (at_middle.max(1), gap.max(1));
    out.push_str(&format!(
        "{:>left$}{start}{:>at_middle$}{middle}{:>gap$}{end}\n",
        "", "", ""
    ));
    out
}

/// Values as one line of bars, the largest full.
pub fn bars(values: &[u64]) -> String {
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |&value: &u64| EIGHTHS[(u128::from(value) * 8).div_ceil(u128::from(top)) as usize];
    values.iter().map(bar).collect()
}

/// A line with a `▲` at each of these times that lies in it.
fn marks_line(width: usize, from: u64, to: u64, marks: &[u64]) -> Option<String> {
    let length = u128::from(to.saturating_sub(from)) + 1;
    let mut columns = vec![false; width];
    for mark in marks {
        let since = mark.checked_sub(from).filter(|_| *mark <= to);
        let column = since.map(|since| (u128::from(since) * width as u128 / length) as usize);
        if let Some(column) = column.and_then(|column| columns.get_mut(column)) {
            *column = true;
        }
    }
    let last = columns.iter().rposition(|marked| *marked)?;
    let shown = columns[..=last].iter();
    Some(
        shown
            .map(|marked| if *marked { '▲' } else { ' ' })
            .collect(),
    )
}

/// The part of a bar that lies in one row.
fn cell(value: u64, top: u64, row: usize) -> char {
    let full = (HEIGHT * 8) as u128;
    // Rounded up: what is there at all is seen.
    let eighths = (u128::from(value) * full).div_ceil(u128::from(top)) as usize;
    EIGHTHS[eighths.saturating_sub(row * 8).min(8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp() {
        let values: Vec<u64> = (0..20).map(|n| n << 20).collect();
        let text = chart(&values, 0, 20_000_000_000, &[]);
        let expected = "  19.00 MiB ┤                  ▄█\n            │                ▄███\n";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(text.lines().count(), HEIGHT + 2, "{text}");
        assert!(text.contains("0 B ┤"), "{text}");
        assert!(text.lines().last().unwrap().ends_with("20.0 s"), "{text}");
        let later = chart(&values, 10_000_000_000, 20_000_000_000, &[]);
        let labels = later.lines().last().unwrap();
        let labels: Vec<&str> = labels.split_whitespace().collect();
        assert_eq!(labels, ["10.0", "s", "15.0", "s", "20.0", "s"]);
    }

    #[test]
    fn marks_are_below_their_time() {
        let marks = [
            0,
            5_500_000_000,
            5_600_000_000,
            10_000_000_000,
            11_000_000_000,
        ];
        let text = chart(&[1; 10], 0, 10_000_000_000, &marks);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 3, "{text}");
        assert_eq!(lines[HEIGHT + 1], "             ▲    ▲   ▲", "{text}");
        let later = chart(&[1; 10], 6_000_000_000, 10_000_000_000, &marks[..3]);
        assert_eq!(later.lines().count(), HEIGHT + 2, "{later}");
    }

    #[test]
    fn extremes_are_drawn() {
        assert_eq!(bars(&[0, 1, 4, 8, 800]), " ▁▁▁█");
        assert_eq!(bars(&[0, 0]), "  ");
        chart(&[], 0, 0, &[0]);
        chart(&[0], 1, 0, &[0, 1, u64::MAX]);
        chart(&[u64::MAX; 300], 0, u64::MAX, &[0, u64::MAX]);
        assert_eq!(cell(1, u64::MAX, 0), '▁');
    }
}
