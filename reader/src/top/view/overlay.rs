//! What is in front of the tables: the keys, a group with its stack, a failure with its stack.

use super::Canvas;
use crate::report::words::{bytes, count, utc};
use crate::top::app::{App, Frames, Overlay, Place};
use crate::top::input::KEYS;
use crate::top::picture::{FailureRow, GroupRow};
use crate::top::table::outcome;
use crate::top::text::{clean, growth, width};
use ratatui::layout::Rect;
use ratatui::style::Style;

/// A line, and whether it is emphasised.
type Line = (String, Emphasis);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Emphasis {
    Plain,
    Strong,
    Dim,
}

/// Draws what is open, if something is, within an area.
pub fn draw(canvas: &mut Canvas<'_>, app: &mut App, area: Rect) {
    if area.height < 3 || area.width < 4 {
        return;
    }
    let room = usize::from(area.width - 4);
    let (title, lines) = match &app.overlay {
        Overlay::None | Overlay::Prompt(_) => return,
        Overlay::Help => ("Keys", help(room)),
        Overlay::Group(row) => ("Stack", group(app, canvas, row, room)),
        Overlay::Failure(row) => ("Out of memory", failure(app, row, room)),
    };
    let wide = matches!(app.overlay, Overlay::Group(_) | Overlay::Failure(_));
    let longest = lines.iter().map(|(text, _)| width(text)).max().unwrap_or(0);
    let cells = match wide {
        true => area.width,
        false => (longest as u16 + 4).min(area.width),
    };
    let height = (lines.len() as u16 + 2).min(area.height);
    let window = Rect::new(
        area.x + (area.width - cells) / 2,
        area.y + (area.height - height) / 3,
        cells,
        height,
    );
    let page = usize::from(height - 2);
    app.overlay_offset = app.overlay_offset.min(lines.len().saturating_sub(page));
    frame(canvas, window, title, lines.len() > page);
    for (number, (text, emphasis)) in lines.iter().skip(app.overlay_offset).take(page).enumerate() {
        let style = match emphasis {
            Emphasis::Plain => Style::new(),
            Emphasis::Strong => canvas.look.strong(),
            Emphasis::Dim => canvas.look.dim(),
        };
        let y = window.y + 1 + number as u16;
        canvas.put(window.x + 2, y, cells - 4, text, style);
    }
}

fn frame(canvas: &mut Canvas<'_>, window: Rect, title: &str, more: bool) {
    let look = canvas.look;
    let [corner_a, corner_b, corner_c, corner_d, side] = if look.unicode {
        ["╭", "╮", "╰", "╯", "│"]
    } else {
        ["+", "+", "+", "+", "|"]
    };
    canvas.clear(window);
    let across = look.rule().repeat(usize::from(window.width - 2));
    let (x, right) = (window.x, window.right() - 1);
    for (y, left, end) in [
        (window.y, corner_a, corner_b),
        (window.bottom() - 1, corner_c, corner_d),
    ] {
        canvas.put(
            x,
            y,
            window.width,
            &format!("{left}{across}{end}"),
            look.dim(),
        );
    }
    for y in window.y + 1..window.bottom() - 1 {
        canvas.put(x, y, 1, side, look.dim());
        canvas.put(right, y, 1, side, look.dim());
    }
    let title = format!(" {title} ");
    canvas.put(
        x + 2,
        window.y,
        window.width.saturating_sub(4),
        &title,
        look.head(),
    );
    let hint = if more {
        " ↑↓ more · Esc closes "
    } else {
        " Esc closes "
    };
    canvas.put(
        x + 2,
        window.bottom() - 1,
        window.width.saturating_sub(4),
        hint,
        look.dim(),
    );
}

fn help(room: usize) -> Vec<Line> {
    let keys = KEYS.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (key, word) in KEYS {
        // On a narrow screen, one below the other.
        if room < 60 {
            lines.push(((*key).to_owned(), Emphasis::Strong));
            lines.extend(indented(word, "  ", room));
        } else {
            let gap = " ".repeat(keys - width(key) + 2);
            let indent = " ".repeat(keys + 2);
            let mut words = indented(word, &indent, room);
            if let Some((first, _)) = words.first_mut() {
                *first = format!("{key}{gap}{}", first.trim_start());
            }
            lines.extend(words);
        }
    }
    lines.push((String::new(), Emphasis::Plain));
    for text in [
        "Click: select, again: open; on a head: sort; on a table's name: go there. Wheel: scroll.",
        "Growth is the slope of the line that fits best over the window.",
    ] {
        let words = indented(text, "", room);
        lines.extend(words.into_iter().map(|(text, _)| (text, Emphasis::Dim)));
    }
    lines
}

/// A sentence of ours on as many lines as it takes, broken between words.
fn indented(text: &str, indent: &str, room: usize) -> Vec<Line> {
    let mut lines = vec![indent.to_owned()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| width(line));
        if line > width(indent) && line + 1 + width(word) > room {
            lines.push(indent.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if width(line) > width(indent) {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let lines = lines.into_iter();
    lines.map(|line| (line, Emphasis::Plain)).collect()
}

fn group(app: &App, canvas: &Canvas<'_>, row: &GroupRow, room: usize) -> Vec<Line> {
    let settings = &app.settings;
    let about = if row.estimated { "about " } else { "" };
    let mut lines = vec![(
        format!(
            "{about}{} in {} allocations   {}",
            bytes(row.bytes),
            count(row.count),
            growth(row.growth, settings.per)
        ),
        Emphasis::Strong,
    )];
    let kind = row.key.kind.map_or("", |kind| kind.name());
    let api = row.named.as_ref().and_then(|named| named.api.as_deref());
    let place = if row.gpu.is_empty() {
        "host memory"
    } else {
        &row.gpu
    };
    let mut facts = format!("{kind} ({} layer) · {place}", row.key.layer.name());
    if let Some(api) = api {
        facts = format!("{api} · {facts}");
    }
    lines.extend(wrapped(&facts, room, Emphasis::Plain));
    let mut whose = row.process.clone();
    if let Some(trace) = &row.trace {
        whose = format!("{whose} · {}", trace.display());
    }
    lines.extend(wrapped(&whose, room, Emphasis::Dim));
    let cells = room.saturating_sub(12).min(120);
    let columns = app.model.columns(&row.series, settings.window, cells);
    let line = super::look::sparkline(&columns, canvas.look);
    if !line.is_empty() {
        let known = || columns.iter().flatten().copied();
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        lines.push((String::new(), Emphasis::Plain));
        lines.push((
            format!("last {:>3}  {line}", settings.window.word()),
            Emphasis::Plain,
        ));
        let range = format!("          {} to {}", bytes(least), bytes(most));
        lines.push((range, Emphasis::Dim));
    }
    lines.push((String::new(), Emphasis::Plain));
    if let (Some(trace), Some((stack, api))) = (&row.trace, row.key.place) {
        lines.extend(stack_of(app, &(trace.clone(), stack, api), room));
    }
    lines
}

fn failure(app: &App, row: &FailureRow, room: usize) -> Vec<Line> {
    let failure = &row.failure;
    let free = failure.free_bytes.map_or_else(
        || "what was free is not known".to_owned(),
        |free| format!("{} were free", bytes(free)),
    );
    let mut lines = vec![(
        format!("{} asked for, {free}", bytes(failure.asked_bytes)),
        Emphasis::Strong,
    )];
    let place = if row.gpu.is_empty() {
        "host memory"
    } else {
        &row.gpu
    };
    let facts = format!(
        "{} · {place} · {} · {} · event {}",
        failure.kind.name(),
        outcome(row),
        utc(failure.unix_ns),
        failure.seq
    );
    lines.extend(wrapped(&facts, room, Emphasis::Plain));
    let whose = format!("{} · {}", row.label, row.trace.display());
    lines.extend(wrapped(&whose, room, Emphasis::Dim));
    let next = format!(
        "Who held the memory: vramtrace oom {}",
        crate::report::words::shell(&row.trace)
    );
    lines.extend(wrapped(&next, room, Emphasis::Dim));
    lines.push((String::new(), Emphasis::Plain));
    let (stack, api) = failure.place;
    lines.extend(stack_of(app, &(row.trace.clone(), stack, api), room));
    lines
}

fn stack_of(app: &App, place: &Place, room: usize) -> Vec<Line> {
    match app.frames.get(place) {
        None | Some(Frames::Asked) => vec![("finding the frames …".to_owned(), Emphasis::Dim)],
        Some(Frames::Failed(why)) => wrapped(why, room, Emphasis::Plain),
        Some(Frames::Found(frames)) => {
            let frames = frames.iter().enumerate();
            frames
                .flat_map(|(number, frame)| {
                    wrapped(&format!("#{number:<3} {frame}"), room, Emphasis::Plain)
                })
                .collect()
        }
    }
}

/// A text on as many lines as it takes, broken anywhere: names have few spaces.
fn wrapped(text: &str, room: usize, emphasis: Emphasis) -> Vec<Line> {
    const MOST: usize = 12;
    let text = clean(text);
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for c in text.chars() {
        let mut buffer = [0; 4];
        let cells = width(c.encode_utf8(&mut buffer));
        if used + cells > room && !line.is_empty() {
            lines.push((std::mem::replace(&mut line, "     ".to_owned()), emphasis));
            used = 5;
            if lines.len() >= MOST {
                return lines;
            }
        }
        line.push(c);
        used += cells;
    }
    lines.push((line, emphasis));
    lines
}
