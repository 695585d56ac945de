//! The four tables.

use super::Canvas;
use crate::top::app::{Action, App, Pane, Target};
use crate::top::picture::SeriesKey;
use crate::top::settings::{By, Settings};
use crate::top::table::{self, Column, FAILURES, GROUPS, POOLS, PROCESSES};
use crate::top::text::width;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Draws a table: a line with its name (and, with `tabs`, those that are a key away), the heads, the rows.
pub fn draw(canvas: &mut Canvas<'_>, app: &mut App, pane: Pane, area: Rect, tabs: bool) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    canvas.target(area, Target::Pane(pane));
    let mut y = area.y;
    if area.height >= 3 {
        name(canvas, app, pane, area, tabs);
        y += 1;
    }
    let columns = layout(pane, app, area.width);
    if area.height >= 2 {
        heads(
            canvas,
            app,
            pane,
            &columns,
            Rect {
                y,
                height: 1,
                ..area
            },
        );
        y += 1;
    }
    let room = usize::from(area.bottom() - y);
    let rows = app.rows(pane);
    app.pages[pane as usize] = room;
    let cursor = &mut app.cursors[pane as usize];
    // The selected row is always to be seen, and no line is empty that need not be.
    let last = cursor.at.saturating_add(1).saturating_sub(room);
    cursor.offset = cursor.offset.clamp(last, cursor.at.max(last));
    cursor.offset = cursor.offset.min(rows.saturating_sub(room));
    let offset = cursor.offset;
    if rows == 0 {
        let word = match pane {
            Pane::Processes => "none",
            Pane::Stacks => "nothing is allocated",
            Pane::Pools => "no allocator holds anything",
            Pane::Failures => "no allocation has failed",
        };
        canvas.put(area.x + 1, y, area.width, word, canvas.look.dim());
    }
    for (line, at) in (offset..rows).take(room).enumerate() {
        let line = Rect::new(area.x, y + line as u16, area.width, 1);
        row(canvas, app, pane, &columns, at, line);
        canvas.target(line, Target::Row(pane, at));
    }
}

/// Columns that there is room for, each with its cells.
fn layout(pane: Pane, app: &App, screen: u16) -> Vec<(Column, u16)> {
    let all = match pane {
        Pane::Processes => PROCESSES,
        Pane::Stacks => GROUPS,
        Pane::Pools => POOLS,
        Pane::Failures => FAILURES,
    };
    let says_something = |column: &Column| match (pane, column) {
        (Pane::Stacks, Column::Process | Column::Whose) => {
            app.settings.process.is_none() && app.settings.by == By::Stack
        }
        _ => true,
    };
    let mut left = screen.saturating_sub(1);
    let wanted = all.iter().copied().filter(says_something);
    let mut columns: Vec<(Column, u16)> = Vec::new();
    for column in wanted {
        match column.width(screen) {
            Some(0) => {}
            Some(cells) if cells < left => {
                left -= cells + 1;
                columns.push((column, cells));
            }
            Some(_) => {}
            None => columns.push((column, 0)),
        }
    }
    // The last one takes what is left, whichever it is.
    if let Some((_, cells)) = columns.last_mut() {
        *cells += left;
    }
    columns
}

fn name(canvas: &mut Canvas<'_>, app: &App, pane: Pane, area: Rect, tabs: bool) {
    let look = canvas.look;
    let focused = app.focus == pane;
    let line = look.rule().repeat(usize::from(area.width));
    canvas.put(area.x, area.y, area.width, &line, look.dim());
    let mut x = area.x + 1;
    for one in Pane::ALL {
        if one != pane && (!tabs || one == Pane::Processes) {
            continue;
        }
        let count = app.rows(one);
        let word = match one {
            Pane::Processes => "Processes".to_owned(),
            Pane::Stacks if app.settings.by == By::Stack => "Stacks".to_owned(),
            Pane::Stacks => format!("By {}", app.settings.by.word()),
            Pane::Pools => "Pools".to_owned(),
            Pane::Failures => "Out of memory".to_owned(),
        };
        let style = match (one == pane, focused) {
            (true, true) => look.selected().patch(look.strong()),
            (true, false) => look.strong(),
            _ if one == Pane::Failures && count > 0 => look.bad(),
            _ => look.dim(),
        };
        let text = format!(" {word} {count} ");
        let begin = x;
        x += canvas.put(x, area.y, area.right().saturating_sub(x), &text, style);
        canvas.target(
            Rect::new(begin, area.y, x.saturating_sub(begin), 1),
            Target::Do(Action::Focus(one)),
        );
        x += 1;
    }
}

fn heads(canvas: &mut Canvas<'_>, app: &App, pane: Pane, columns: &[(Column, u16)], line: Rect) {
    let look = canvas.look;
    let sorts = matches!(pane, Pane::Processes | Pane::Stacks);
    let mut x = line.x + 1;
    for &(column, cells) in columns {
        let sort = column.sort().filter(|_| sorts);
        let mut head = column.head().to_owned();
        if sort == Some(app.settings.sort) {
            head.push_str(look.sorted(app.settings.reverse));
        }
        if column.is_right() {
            canvas.put_right(x, line.y, cells, &head, look.head());
        } else {
            canvas.put(x, line.y, cells, &head, look.head());
        }
        if let Some(sort) = sort {
            let area = Rect::new(x, line.y, cells, 1);
            canvas.target(area, Target::Do(Action::SortBy(sort)));
        }
        x += cells + 1;
    }
}

fn row(
    canvas: &mut Canvas<'_>,
    app: &App,
    pane: Pane,
    columns: &[(Column, u16)],
    at: usize,
    line: Rect,
) {
    let look = canvas.look;
    let settings = &app.settings;
    let base = base_style(canvas, app, pane, at);
    let mut x = line.x + 1;
    for &(column, cells) in columns {
        let cells = cells.min(line.right().saturating_sub(x));
        if column == Column::Trend {
            let keys = series(app, pane, at);
            let columns = app
                .model
                .columns(&keys, settings.window, usize::from(cells));
            canvas.spark(x, line.y, cells, &columns, look.trend());
        } else {
            let text = cell(app, pane, at, column, settings, look.arrow());
            let style = base.patch(cell_style(canvas, column, &text));
            if column.is_right() {
                canvas.put_right(x, line.y, cells, &text, style);
            } else {
                canvas.put(x, line.y, cells, &text, style);
            }
        }
        x += cells + 1;
    }
    let cursor = &app.cursors[pane as usize];
    if cursor.selected.is_some() && cursor.at == at && app.focus == pane {
        canvas.style(line, look.selected());
    }
}

fn base_style(canvas: &Canvas<'_>, app: &App, pane: Pane, at: usize) -> Style {
    let look = canvas.look;
    match pane {
        Pane::Processes => match app.picture.processes.get(at) {
            Some(row) if row.ended => look.dim(),
            Some(row) if app.settings.process == Some(row.process) => look.strong(),
            _ => Style::new(),
        },
        Pane::Stacks => match app.picture.groups.get(at) {
            Some(row) if row.rest => look.dim(),
            _ => Style::new(),
        },
        _ => Style::new(),
    }
}

fn cell_style(canvas: &Canvas<'_>, column: Column, text: &str) -> Style {
    let look = canvas.look;
    match column {
        Column::Growth if text.starts_with('+') => look.warn(),
        Column::Failed | Column::Outcome if text != "-" && text != "rescued" => look.bad(),
        Column::State if text.ends_with('!') => look.warn(),
        Column::Kind | Column::Process | Column::Whose | Column::Gpu => look.dim(),
        _ => Style::new(),
    }
}

fn series(app: &App, pane: Pane, at: usize) -> Vec<SeriesKey> {
    match pane {
        Pane::Processes => {
            let row = app.picture.processes.get(at);
            row.and_then(|row| row.series).into_iter().collect()
        }
        Pane::Stacks => {
            let row = app.picture.groups.get(at);
            row.map_or_else(Vec::new, |row| row.series.clone())
        }
        _ => Vec::new(),
    }
}

fn cell(
    app: &App,
    pane: Pane,
    at: usize,
    column: Column,
    settings: &Settings,
    arrow: &str,
) -> String {
    let picture = &app.picture;
    let text = match pane {
        Pane::Processes => {
            let row = picture.processes.get(at);
            row.map(|row| table::process(row, column, settings))
        }
        Pane::Stacks => {
            let row = picture.groups.get(at);
            row.map(|row| table::group(row, column, settings, arrow))
        }
        Pane::Pools => picture.pools.get(at).map(|row| table::pool(row, column)),
        Pane::Failures => {
            let row = picture.failures.get(at);
            row.map(|row| table::failure(row, column, picture, arrow))
        }
    };
    debug_assert!(text.as_deref().is_none_or(|text| width(text) < 10_000));
    text.unwrap_or_default()
}
