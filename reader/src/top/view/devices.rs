//! Devices, one on a line: a bar against what the device has, and the figures.

use super::Canvas;
use super::look::parts;
use crate::report::words::bytes;
use crate::top::app::{Action, App, Target};
use crate::top::picture::DeviceRow;
use crate::top::text::{growth, percent, width};
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Cells of a bar, at most.
const LONGEST_BAR: u16 = 60;
/// The same, at least: a shorter one says nothing.
const SHORTEST_BAR: u16 = 8;

/// Lines that are wanted on a screen of this height.
pub fn wanted(app: &App, height: u16) -> u16 {
    let devices = app.picture.devices.len() as u16;
    let legend = u16::from(height >= 30 && devices > 0);
    let most = match height {
        0..8 => 0,
        8..14 => 1,
        14..24 => 3,
        _ => height / 4,
    };
    (devices + legend).min(most)
}

/// Draws as many as there is room for; the last line says how many more there are.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let rows = &app.picture.devices;
    if area.height == 0 {
        return;
    }
    let room = usize::from(area.height);
    let shown = if rows.len() > room && room > 1 {
        room - 1
    } else {
        room
    };
    let labels = rows.iter().map(|row| width(&row.label) as u16).max();
    let figures: Vec<String> = rows.iter().map(|row| figures(row, area.width)).collect();
    let most = figures
        .iter()
        .map(|text| width(text) as u16)
        .max()
        .unwrap_or(0);
    for (number, row) in rows.iter().take(shown).enumerate() {
        let y = area.y + number as u16;
        let line = Rect::new(area.x, y, area.width, 1);
        canvas.target(line, Target::Do(Action::NextDevice));
        let widths = (labels.unwrap_or(0), most);
        one(canvas, app, row, &figures[number], widths, line);
    }
    if rows.len() > shown {
        let more = format!("and {} more; d goes through them", rows.len() - shown);
        canvas.put(
            1,
            area.y + shown as u16,
            area.width,
            &more,
            canvas.look.dim(),
        );
    } else if room > rows.len() && !rows.is_empty() {
        legend(
            canvas,
            Rect::new(area.x, area.y + rows.len() as u16, area.width, 1),
        );
    }
}

fn figures(row: &DeviceRow, width: u16) -> String {
    let held = row.used.unwrap_or(row.traced);
    let of = match row.total {
        0 => String::new(),
        total => format!(" of {}", bytes(total)),
    };
    let share = match percent(held, row.total) {
        share if share.is_empty() => share,
        share => format!("  {share:>5}"),
    };
    match (row.used, width) {
        (_, 0..60) => format!("{}{of}", bytes(held)),
        (Some(used), _) => format!(
            "traced {}, used {}{of}{share}",
            bytes(row.traced),
            bytes(used)
        ),
        (None, _) => format!("traced {}{of}{share}", bytes(row.traced)),
    }
}

fn one(
    canvas: &mut Canvas<'_>,
    app: &App,
    row: &DeviceRow,
    figures: &str,
    (label, most): (u16, u16),
    line: Rect,
) {
    let look = canvas.look;
    let selected = app.settings.device.as_ref() == Some(&row.key);
    let style = if selected {
        look.selected()
    } else {
        look.strong()
    };
    let mut x = line.x + 1;
    canvas.put(x, line.y, label, &row.label, style);
    x += label + 1;
    if line.width >= 120 {
        canvas.put(x, line.y, 22, &row.name, look.dim());
        x += 23;
    }
    let trend = match line.width {
        0..90 => 0,
        90..150 => 12,
        _ => 24,
    };
    let rate = if line.width >= 90 { 14 } else { 0 };
    let right = most + trend + rate + 2;
    let bar = line.right().saturating_sub(x + right).min(LONGEST_BAR);
    if bar >= SHORTEST_BAR {
        draw_bar(canvas, row, x, line.y, bar);
        x += bar + 1;
    }
    let full = row.total > 0 && row.used.unwrap_or(row.traced) as f64 / row.total as f64 > 0.95;
    let style = if full { look.bad() } else { Style::new() };
    canvas.put(x, line.y, line.right().saturating_sub(x), figures, style);
    if rate > 0 {
        x += most;
        let text = growth(row.growth, app.settings.per);
        canvas.put_right(x, line.y, rate, &text, Style::new());
        x += rate + 1;
        if let (Some(key), true) = (row.series, trend > 0) {
            let columns = app
                .model
                .columns(&[key], app.settings.window, usize::from(trend));
            let room = trend.min(line.right().saturating_sub(x));
            canvas.spark(x, line.y, room, &columns, look.trend());
        }
    }
}

fn draw_bar(canvas: &mut Canvas<'_>, row: &DeviceRow, x: u16, y: u16, cells: u16) {
    let look = canvas.look;
    let others = row.used.map_or(0, |used| used.saturating_sub(row.traced));
    let amounts = [row.traced.saturating_sub(row.cached), row.cached, others];
    let taken = amounts
        .iter()
        .fold(0u64, |sum, &part| sum.saturating_add(part));
    let found = parts(row.total.max(taken), &amounts, cells);
    let styles = [look.used(), look.cached(), look.others()];
    let mut at = x;
    for ((&part, sign), style) in found.iter().zip(look.bar()).zip(styles) {
        canvas.put(at, y, part, &sign.repeat(usize::from(part)), style);
        at += part;
    }
    let free = cells.saturating_sub(at - x);
    let sign = look.bar()[3].repeat(usize::from(free));
    canvas.put(at, y, free, &sign, look.dim());
}

fn legend(canvas: &mut Canvas<'_>, line: Rect) {
    let look = canvas.look;
    let [used, cached, others, free] = look.bar();
    let mut x = line.x + 1;
    for (sign, word, style) in [
        (used, "traced, in use", look.used()),
        (cached, "traced, held by allocators", look.cached()),
        (others, "others, contexts (nvidia-smi)", look.others()),
        (free, "free", look.dim()),
    ] {
        if x + 2 + word.len() as u16 > line.right() {
            break;
        }
        x += canvas.put(x, line.y, 1, sign, style) + 1;
        x += canvas.put(x, line.y, line.right().saturating_sub(x), word, look.dim()) + 2;
    }
}
