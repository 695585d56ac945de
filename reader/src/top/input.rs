//! Keys and mouse to actions.

use super::app::{Action, Overlay, Pane};
use super::settings::Sort;
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind,
};

/// Every key with what it does, for the help.
pub const KEYS: &[(&str, &str)] = &[
    ("q, ctrl-C", "end"),
    (
        "Tab, 1 2 3 4",
        "next table; processes, stacks, pools, out of memory",
    ),
    ("↑ ↓ j k, PgUp PgDn, Home End", "select a row"),
    (
        "Enter, click twice",
        "only this process; the frames of this stack",
    ),
    (
        "Esc",
        "back: close, then drop filter, process, device, layer",
    ),
    ("/", "filter: program, pid, function, file, library, kind"),
    (
        "b, B",
        "put together by stack, line, python, library, kind, api, process",
    ),
    ("l", "layer: all, device, framework, host"),
    ("d", "device: all, or one"),
    (
        "s, S, r",
        "sort by live, growth, allocations, name; by growth; reverse",
    ),
    ("w", "growth and trend over one minute, ten, an hour"),
    ("u", "growth a second, a minute, an hour"),
    ("p, space", "stand still, go on"),
    ("+ -", "look more often, less often"),
    ("ctrl-Z, ctrl-L", "to the shell and back by fg; draw anew"),
];

/// What an event does; `None` if nothing.
pub fn action(event: &Event, overlay: &Overlay) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => match overlay {
            Overlay::Prompt(_) => written(key),
            _ => pressed(key),
        },
        Event::Mouse(mouse) => {
            let (column, row) = (mouse.column, mouse.row);
            match mouse.kind {
                MouseEventKind::Down(MouseButton::Left) => Some(Action::Click(column, row)),
                MouseEventKind::Down(MouseButton::Right) => Some(Action::Back),
                MouseEventKind::ScrollDown => Some(Action::Wheel(column, row, 3)),
                MouseEventKind::ScrollUp => Some(Action::Wheel(column, row, -3)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn control(key: &KeyEvent) -> Option<Action> {
    match key.code {
        KeyCode::Char('c' | 'd') => Some(Action::Quit),
        KeyCode::Char('z') => Some(Action::Suspend),
        KeyCode::Char('l') => Some(Action::Redraw),
        _ => None,
    }
}

/// While a filter is written.
fn written(key: &KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('h') => Some(Action::Erase),
            KeyCode::Char('u') => Some(Action::Back),
            _ => control(key),
        };
    }
    match key.code {
        KeyCode::Char(c) => Some(Action::Write(c)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::Open),
        KeyCode::Esc => Some(Action::Back),
        KeyCode::Up => Some(Action::Move(-1)),
        KeyCode::Down => Some(Action::Move(1)),
        _ => None,
    }
}

fn pressed(key: &KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return control(key);
    }
    Some(match key.code {
        KeyCode::Char('q' | 'Q') => Action::Quit,
        KeyCode::Char('j') | KeyCode::Down => Action::Move(1),
        KeyCode::Char('k') | KeyCode::Up => Action::Move(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Char('g') | KeyCode::Home => Action::First,
        KeyCode::Char('G') | KeyCode::End => Action::Last,
        KeyCode::Tab => Action::NextPane(false),
        KeyCode::BackTab => Action::NextPane(true),
        KeyCode::Char('1') => Action::Focus(Pane::Processes),
        KeyCode::Char('2') => Action::Focus(Pane::Stacks),
        KeyCode::Char('3') => Action::Focus(Pane::Pools),
        KeyCode::Char('4') => Action::Focus(Pane::Failures),
        KeyCode::Enter => Action::Open,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Char('s') => Action::NextSort,
        KeyCode::Char('S') => Action::SortBy(Sort::Growth),
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char('b') => Action::NextBy(false),
        KeyCode::Char('B') => Action::NextBy(true),
        KeyCode::Char('l') => Action::NextLayer,
        KeyCode::Char('d') => Action::NextDevice,
        KeyCode::Char('w') => Action::NextWindow,
        KeyCode::Char('u') => Action::NextPer,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('+' | '=') => Action::Faster,
        KeyCode::Char('-') => Action::Slower,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('/') => Action::Filter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::MouseEvent;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Event {
        Event::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_do_what_they_say_also_while_a_filter_is_written() {
        let plain = KeyModifiers::NONE;
        let prompt = Overlay::Prompt(String::new());
        let q = key(KeyCode::Char('q'), plain);
        assert_eq!(action(&q, &Overlay::None), Some(Action::Quit));
        assert_eq!(action(&q, &prompt), Some(Action::Write('q')));
        let c = key(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&c, &Overlay::Help), Some(Action::Quit));
        assert_eq!(action(&c, &prompt), Some(Action::Quit));
        let enter = key(KeyCode::Enter, plain);
        assert_eq!(action(&enter, &prompt), Some(Action::Open));
        let mut released = KeyEvent::new(KeyCode::Char('q'), plain);
        released.kind = KeyEventKind::Release;
        assert_eq!(action(&Event::Key(released), &Overlay::None), None);
        let wheel = Event::Mouse(MouseEvent {
            kind: MouseEventKind::ScrollUp,
            column: 3,
            row: 4,
            modifiers: plain,
        });
        assert_eq!(action(&wheel, &prompt), Some(Action::Wheel(3, 4, -3)));
        assert_eq!(action(&Event::Resize(1, 1), &prompt), None);
    }
}
