//! The app on a screen of any size: nothing is ever drawn outside it, and every text goes through
//! [`Canvas::put`], which makes it harmless.

mod devices;
pub mod look;
mod overlay;
mod tables;

pub use look::Look;

use super::app::{Action, App, Overlay, Pane, Target};
use super::model::WITHOUT_NVML;
use super::table::time_of_day;
use super::text::{ascii, clean, fit, width};
use crate::report::words::counted;
use look::sparkline;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::time::Duration;

/// A narrower or lower terminal shows one table alone.
const SMALL: (u16, u16) = (50, 14);

/// A part of the screen that is drawn on.
pub struct Canvas<'a> {
    buffer: &'a mut Buffer,
    /// Signs and colours.
    pub look: Look,
    /// What is where.
    pub targets: Vec<(Rect, Target)>,
}

impl Canvas<'_> {
    /// Writes a text at a place, at most so many cells; returns how many it took.
    pub fn put(&mut self, x: u16, y: u16, cells: u16, text: &str, style: Style) -> u16 {
        let area = *self.buffer.area();
        if !area.contains(Position::new(x, y)) {
            return 0;
        }
        let cells = cells.min(area.right() - x);
        let mut text = fit(&clean(text), usize::from(cells));
        if !self.look.unicode {
            text = ascii(&text);
        }
        let (end, _) = self
            .buffer
            .set_stringn(x, y, text, usize::from(cells), style);
        end.saturating_sub(x)
    }

    /// As [`Canvas::put`], flush right.
    pub fn put_right(&mut self, x: u16, y: u16, cells: u16, text: &str, style: Style) {
        let text = fit(&clean(text), usize::from(cells));
        let free = cells.saturating_sub(width(&text) as u16);
        self.put(x.saturating_add(free), y, cells - free, &text, style);
    }

    /// Gives a part of the screen a style.
    pub fn style(&mut self, area: Rect, style: Style) {
        let area = area.intersection(*self.buffer.area());
        self.buffer.set_style(area, style);
    }

    /// Empties a part of the screen.
    pub fn clear(&mut self, area: Rect) {
        let area = area.intersection(*self.buffer.area());
        for position in area.positions() {
            if let Some(cell) = self.buffer.cell_mut(position) {
                cell.reset();
            }
        }
    }

    /// Says what is at a part of the screen.
    pub fn target(&mut self, area: Rect, target: Target) {
        self.targets.push((area, target));
    }

    /// A sparkline.
    pub fn spark(&mut self, x: u16, y: u16, cells: u16, values: &[Option<u64>], style: Style) {
        let line = sparkline(values, self.look);
        self.put(x, y, cells, &line, style);
    }
}

/// Draws all of it, and notes what is where.
pub fn draw(buffer: &mut Buffer, app: &mut App, look: Look) {
    let area = *buffer.area();
    let mut canvas = Canvas {
        buffer,
        look,
        targets: Vec::new(),
    };
    app.pages = Default::default();
    if area.width > 0 && area.height > 0 {
        screen(&mut canvas, app, area);
    }
    app.targets = canvas.targets;
}

fn screen(canvas: &mut Canvas<'_>, app: &mut App, area: Rect) {
    let (w, h) = (area.width, area.height);
    let small = w < SMALL.0 || h < SMALL.1;
    title(canvas, app, area);
    let mut top = 1;
    if h >= 8 {
        menu(canvas, app, Rect::new(0, 1, w, 1));
        top = 2;
    }
    let mut bottom = h;
    if h >= 5 {
        bottom -= 1;
        footer(canvas, app, Rect::new(0, bottom, w, 1));
    }
    let most_notes = if small { 0 } else { 2 };
    for note in app.picture.notes.iter().take(most_notes).rev() {
        bottom -= 1;
        let style = match note.starts_with(WITHOUT_NVML) {
            true => canvas.look.dim(),
            false => canvas.look.warn(),
        };
        canvas.put(1, bottom, w.saturating_sub(1), note, style);
    }
    let devices = devices::wanted(app, h);
    devices::draw(
        canvas,
        app,
        Rect::new(0, top, w, devices.min(bottom.saturating_sub(top))),
    );
    top += devices;
    let body = Rect::new(0, top, w, bottom.saturating_sub(top));
    if app.picture.is_empty() {
        nothing(canvas, app, body);
    } else {
        panes(canvas, app, body, small);
    }
    overlay::draw(canvas, app, Rect::new(0, 1, w, h.saturating_sub(2)));
}

fn title(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let look = canvas.look;
    let mut x = 1;
    x += canvas.put(x, 0, area.width, "vramtrace top", look.strong());
    let [running, ended, unknown] = app.picture.states;
    let mut words = vec![format!("{running} running")];
    for (count, word) in [(ended, "ended"), (unknown, "unseen")] {
        if count > 0 {
            words.push(format!("{count} {word}"));
        }
    }
    if app.picture.naming {
        words.push("finding names".to_owned());
    }
    x += 2;
    x += canvas.put(x, 0, area.width, &words.join(" · "), Style::new());
    let (right, style) = if app.paused {
        (" PAUSED ".to_owned(), look.selected())
    } else {
        let time = time_of_day(app.picture.unix_ns);
        (
            format!("every {}  {time} UTC ", short(app.interval)),
            look.dim(),
        )
    };
    let cells = width(&right) as u16;
    if area.width > x + cells || app.paused {
        canvas.put(area.width.saturating_sub(cells), 0, cells, &right, style);
    }
}

fn short(interval: Duration) -> String {
    match interval.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{:.1} s", ms as f64 / 1000.0),
    }
}

/// What is shown, with the keys that change it.
fn menu(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let settings = &app.settings;
    let device = match (&settings.device, app.picture.device(settings)) {
        (None, _) => "all".to_owned(),
        (_, Some(row)) => row.label.clone(),
        (Some(_), None) => "gone".to_owned(),
    };
    let sorted = format!(
        "{}{}",
        settings.sort.word(),
        canvas.look.sorted(settings.reverse)
    );
    let layer = settings.layer.map_or("all", |layer| layer.name());
    let mut items = vec![
        (
            "b",
            "y",
            settings.by.word().to_owned(),
            Action::NextBy(false),
        ),
        ("s", "ort", sorted, Action::NextSort),
        ("l", "ayer", layer.to_owned(), Action::NextLayer),
        ("d", "evice", device, Action::NextDevice),
        (
            "w",
            "indow",
            settings.window.word().to_owned(),
            Action::NextWindow,
        ),
        (
            "u",
            "nit",
            settings.per.unit().1.to_owned(),
            Action::NextPer,
        ),
    ];
    if let Some(process) = settings.process {
        let rows = app.picture.processes.iter();
        let row = rows.clone().find(|row| row.process == process);
        let name = row.map_or("gone".to_owned(), |row| {
            format!("{} ({})", row.name, row.pid)
        });
        items.insert(0, ("Esc", " only", name, Action::Back));
    }
    if !settings.filter.is_empty() {
        items.insert(0, ("/", "", settings.filter.clone(), Action::Filter));
    }
    let look = canvas.look;
    let mut x = area.x + 1;
    for (key, rest, value, action) in items {
        let begin = x;
        x += canvas.put(x, area.y, area.right().saturating_sub(x), key, look.head());
        let rest = format!("{rest} ");
        x += canvas.put(x, area.y, area.right().saturating_sub(x), &rest, look.dim());
        let room = area.right().saturating_sub(x).min(24);
        x += canvas.put(x, area.y, room, &value, look.strong());
        canvas.target(
            Rect::new(begin, area.y, x.saturating_sub(begin), 1),
            Target::Do(action),
        );
        x += 2;
    }
}

fn footer(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let look = canvas.look;
    if let Overlay::Prompt(text) = &app.overlay {
        let mut x = 1;
        x += canvas.put(x, area.y, area.width, "filter: ", look.head());
        // The end of what is written is what one looks at.
        let room = usize::from(area.width.saturating_sub(x + 2));
        let text = clean(text);
        let skip = text.chars().count().saturating_sub(room);
        let tail: String = text.chars().skip(skip).collect();
        x += canvas.put(
            x,
            area.y,
            area.right().saturating_sub(x),
            &tail,
            look.strong(),
        );
        x += canvas.put(x, area.y, 1, " ", look.selected());
        canvas.put(
            x + 1,
            area.y,
            area.right().saturating_sub(x + 1),
            "Enter keeps it, Esc drops it",
            look.dim(),
        );
        return;
    }
    let keys = [
        ("q", "uit", Action::Quit),
        ("?", "help", Action::Help),
        ("Tab", "table", Action::NextPane(false)),
        ("Enter", "open", Action::Open),
        ("Esc", "back", Action::Back),
        ("/", "filter", Action::Filter),
        ("p", "ause", Action::Pause),
        ("+-", "interval", Action::Faster),
    ];
    let mut x = area.x + 1;
    for (key, word, action) in keys {
        let gap = u16::from(!matches!(key, "q" | "p"));
        let need = (key.len() + word.len()) as u16 + gap;
        if x + need > area.right() {
            break;
        }
        let begin = x;
        x += canvas.put(x, area.y, need, key, look.head()) + gap;
        x += canvas.put(x, area.y, need, word, look.dim());
        canvas.target(Rect::new(begin, area.y, x - begin, 1), Target::Do(action));
        x += 2;
    }
}

/// Where each table goes. There is always room for the one that keys are for.
fn panes(canvas: &mut Canvas<'_>, app: &mut App, body: Rect, small: bool) {
    if body.height == 0 {
        return;
    }
    if small || body.height < 9 {
        tables::draw(canvas, app, app.focus, body, true);
        return;
    }
    let processes = app.picture.processes.len() as u16 + 2;
    let upper = processes.clamp(3, (body.height / 3).max(4));
    let part = |y: u16, height: u16| Rect::new(0, body.y + y, body.width, height);
    tables::draw(canvas, app, Pane::Processes, part(0, upper), false);
    let rest = body.height - upper;
    if rest < 18 {
        // One of the three; the others are a key away.
        let shown = match app.focus {
            Pane::Processes => Pane::Stacks,
            pane => pane,
        };
        tables::draw(canvas, app, shown, part(upper, rest), true);
        return;
    }
    let most = (rest / 4).max(5);
    let wanted = app.picture.pools.len().max(app.picture.failures.len()) as u16 + 2;
    let strip = wanted.clamp(4, most);
    tables::draw(canvas, app, Pane::Stacks, part(upper, rest - strip), false);
    let low = part(body.height - strip, strip);
    if body.width >= 110 {
        // Failures say more.
        let left = body.width * 2 / 5;
        let pools = Rect {
            width: left - 1,
            ..low
        };
        let failures = Rect {
            x: left,
            width: body.width - left,
            ..low
        };
        tables::draw(canvas, app, Pane::Pools, pools, false);
        tables::draw(canvas, app, Pane::Failures, failures, false);
    } else {
        let shown = match app.focus {
            Pane::Pools => Pane::Pools,
            Pane::Failures => Pane::Failures,
            _ if app.picture.failures.is_empty() => Pane::Pools,
            _ => Pane::Failures,
        };
        tables::draw(canvas, app, shown, low, true);
    }
}

/// What to do where there is nothing to see.
fn nothing(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let looks_at = format!("Looking at {}.", app.looks_at);
    let lines = if !app.started {
        vec!["Looking …".to_owned()]
    } else if !app.settings.filter.is_empty() || app.settings.device.is_some() {
        vec!["Nothing is like that. Esc drops the filter.".to_owned()]
    } else {
        let unreadable = app.picture.unreadable.len() as u64;
        let unreadable = match unreadable {
            0 => String::new(),
            _ => format!("{} cannot be read.", counted(unreadable, "trace")),
        };
        vec![
            "No traced program is running.".to_owned(),
            unreadable,
            "Start one in another terminal:".to_owned(),
            "    vramtrace run -- PROGRAM".to_owned(),
            "It appears here when it first uses the GPU.".to_owned(),
            String::new(),
            looks_at,
            "Other places:  vramtrace top DIRECTORY, TRACE or PID".to_owned(),
        ]
    };
    let lines: Vec<String> = lines
        .into_iter()
        .filter(|line| !line.is_empty() || area.height > 9)
        .collect();
    let top = area.y + area.height.saturating_sub(lines.len() as u16) / 3;
    for (number, line) in lines.iter().enumerate() {
        let y = top + number as u16;
        if y >= area.bottom() {
            break;
        }
        let style = if number == 0 {
            canvas.look.strong()
        } else {
            Style::new()
        };
        canvas.put(2, y, area.width.saturating_sub(2), line, style);
    }
}
