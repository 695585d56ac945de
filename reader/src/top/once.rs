//! One picture as plain text, for scripts and for terminals that can do nothing.

use super::app::Pane;
use super::picture::Picture;
use super::settings::Settings;
use super::table::{self, Column, FAILURES, GROUPS, POOLS, PROCESSES};
use super::text::{clean, growth, percent, width};
use crate::report::words::{bytes, counted, utc};
use std::fmt::Write;
use std::time::Duration;

/// Rows of each table, unless more are asked for.
pub const MOST_ROWS: usize = 20;

/// The text. `over` is the time that growth is about, `looks_at` where it was looked.
pub fn text(
    picture: &Picture,
    settings: &Settings,
    most: usize,
    over: Duration,
    looks_at: &str,
) -> String {
    let [running, ended, unseen] = picture.states;
    let mut out = format!(
        "{}   {running} running, {ended} ended, {unseen} unseen   growth over {:.1} s\n",
        utc(picture.unix_ns),
        over.as_secs_f64()
    );
    for note in &picture.notes {
        let _ = writeln!(out, "{}", clean(note));
    }
    for (trace, why) in &picture.unreadable {
        let _ = writeln!(out, "{} {}", clean(&trace.to_string_lossy()), clean(why));
    }
    if picture.is_empty() {
        let _ = writeln!(
            out,
            "\nNo traced program is running in {}.\nNext: vramtrace run -- PROGRAM, or name another \
             directory, a TRACE or a PID",
            clean(looks_at)
        );
        return out;
    }
    devices(&mut out, picture, settings);
    for pane in Pane::ALL {
        let (title, columns, rows) = match pane {
            Pane::Processes => ("Processes", PROCESSES, picture.processes.len()),
            Pane::Stacks => ("Memory", GROUPS, picture.groups.len()),
            Pane::Pools => ("Pools", POOLS, picture.pools.len()),
            Pane::Failures => ("Out of memory", FAILURES, picture.failures.len()),
        };
        if rows == 0 {
            continue;
        }
        let title = match pane {
            Pane::Stacks => format!("{title} by {}", settings.by.word()),
            _ => title.to_owned(),
        };
        let _ = writeln!(out, "\n{title}");
        let shown = rows.min(most);
        let cell = |at: usize, column: Column| match pane {
            Pane::Processes => table::process(&picture.processes[at], column, settings),
            Pane::Stacks => table::group(&picture.groups[at], column, settings, " < "),
            Pane::Pools => table::pool(&picture.pools[at], column),
            Pane::Failures => table::failure(&picture.failures[at], column, picture, " < "),
        };
        print(&mut out, columns, shown, cell);
        if rows > shown {
            let _ = writeln!(
                out,
                "… and {} (--top)",
                counted((rows - shown) as u64, "more row")
            );
        }
    }
    out
}

fn devices(out: &mut String, picture: &Picture, settings: &Settings) {
    for row in &picture.devices {
        let used = row
            .used
            .map_or(String::new(), |used| format!(", used {}", bytes(used)));
        let of = match row.total {
            0 => String::new(),
            total => format!(
                " of {} ({})",
                bytes(total),
                percent(row.used.unwrap_or(row.traced), total)
            ),
        };
        let cached = match row.cached {
            0 => String::new(),
            cached => format!(" ({} held by allocators)", bytes(cached)),
        };
        let _ = writeln!(
            out,
            "{} {}: traced {}{cached}{used}{of}  {}",
            clean(&row.label),
            clean(&row.name),
            bytes(row.traced),
            growth(row.growth, settings.per)
        );
    }
}

/// A table, each column as wide as its widest cell. The last one has any width.
fn print(
    out: &mut String,
    columns: &[Column],
    rows: usize,
    cell: impl Fn(usize, Column) -> String,
) {
    let columns: Vec<Column> = columns
        .iter()
        .copied()
        .filter(|column| !matches!(column, Column::Trend | Column::Whose))
        .collect();
    let cells: Vec<Vec<String>> = (0..rows)
        .map(|at| columns.iter().map(|&column| cell(at, column)).collect())
        .collect();
    let heads: Vec<String> = columns
        .iter()
        .map(|column| column.head().to_owned())
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            let all = cells.iter().chain([&heads]);
            all.map(|row| width(&row[at])).max().unwrap_or(0)
        })
        .collect();
    for row in [&heads].into_iter().chain(&cells) {
        let mut line = String::new();
        for ((text, column), &cells) in row.iter().zip(&columns).zip(&widths) {
            let gap = " ".repeat(cells.saturating_sub(width(text)));
            if column.is_right() {
                line.push_str(&gap);
            }
            line.push_str(text);
            if !column.is_right() {
                line.push_str(&gap);
            }
            line.push_str("  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}
