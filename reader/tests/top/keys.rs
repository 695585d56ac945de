//! Does each key do what the help says, and the mouse as well?

use crate::fixture::*;
use crate::support::MIB;
use ratatui::crossterm::event::KeyCode;
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::record::{Kind, Layer};
use vramtrace_reader::top::app::{Action, Effect, Frames, Overlay, Pane, Target};
use vramtrace_reader::top::series::Window;
use vramtrace_reader::top::settings::{By, Per, Sort};

/// Two processes with two stacks each, sizes 8, 4, 2, 1 MiB.
fn two() -> (Watched, [Traced; 2]) {
    let mut watched = Watched::new();
    let mut all = [
        watched.process("train", Some(0)),
        watched.process("serve", None),
    ];
    let mut size = 8 * MIB;
    for stack in [0x100, 0x200] {
        for one in &mut all {
            let stack = one.file.program_stack(stack);
            one.file.alloc(Kind::Device, size, stack);
            size /= 2;
        }
    }
    all.iter_mut().for_each(Traced::write);
    watched.named();
    (watched, all)
}

#[test]
fn a_selected_row_stays_selected_wherever_it_goes() {
    let (mut watched, mut all) = two();
    watched.press(KeyCode::Down);
    watched.press(KeyCode::Down);
    assert_eq!(watched.app.cursors[Pane::Stacks as usize].at, 1);
    let bytes = |watched: &Watched| {
        let at = watched.app.cursors[Pane::Stacks as usize].at;
        watched.app.picture.groups[at].bytes
    };
    assert_eq!(bytes(&watched), 4 * MIB);
    let stack = all[1].file.program_stack(0x100);
    all[1].file.alloc(Kind::Device, 20 * MIB, stack);
    all[1].write();
    watched.look();
    assert_eq!((bytes(&watched), watched.app.cursors[1].at), (24 * MIB, 0));
    watched.keys("r");
    assert_eq!((bytes(&watched), watched.app.cursors[1].at), (24 * MIB, 3));
    watched.press(KeyCode::Home);
    assert_eq!(watched.app.cursors[1].at, 0);
    watched.press(KeyCode::End);
    watched.press(KeyCode::Down);
    assert_eq!(watched.app.cursors[1].at, 3);
}

#[test]
fn settings_go_round() {
    let (mut watched, _all) = two();
    for by in By::ALL.iter().cycle().skip(1).take(By::ALL.len()) {
        watched.keys("b");
        assert_eq!(watched.app.settings.by, *by);
    }
    watched.keys("B");
    assert_eq!(watched.app.settings.by, By::Process);
    watched.keys("bl");
    assert_eq!(watched.app.settings.layer, Some(Layer::Device));
    watched.keys("lll");
    assert_eq!(watched.app.settings.layer, None);
    watched.keys("d");
    assert!(watched.app.settings.device.is_some());
    watched.keys("d");
    assert_eq!(watched.app.settings.device, None);
    watched.keys("w");
    assert_eq!(watched.app.settings.window, Window::TenMinutes);
    watched.keys("u");
    assert_eq!(watched.app.settings.per, Per::Minute);
    watched.keys("s");
    assert_eq!(watched.app.settings.sort, Sort::Growth);
    watched.keys("S");
    assert!(watched.app.settings.reverse);
    let half = Duration::from_millis(250);
    assert_eq!(
        watched.press(KeyCode::Char('+')),
        Some(Effect::Interval(Some(half)))
    );
    assert_eq!(watched.press(KeyCode::Char('q')), Some(Effect::Quit));
}

#[test]
fn a_filter_is_written_kept_and_dropped() {
    let (mut watched, _all) = two();
    watched.keys("/SERVE");
    assert!(matches!(watched.app.overlay, Overlay::Prompt(_)));
    assert_eq!(watched.app.picture.groups.len(), 2);
    assert_eq!(watched.app.picture.processes.len(), 1);
    assert!(watched.screen(80, 24).contains("filter: SERVE"));
    watched.press(KeyCode::Enter);
    assert!(matches!(watched.app.overlay, Overlay::None));
    watched.press(KeyCode::Esc);
    assert_eq!(watched.app.picture.groups.len(), 4);
    // By what is in a stack: both processes have it, and only that stack of each is shown.
    watched.keys("/0x200");
    assert_eq!(watched.app.picture.groups.len(), 2);
    assert_eq!(watched.app.picture.processes.len(), 2);
    watched.keys("nothing has this");
    assert!(watched.screen(80, 24).contains("Nothing is like that"));
    watched.press(KeyCode::Esc);
    assert_eq!(watched.app.settings.filter, "");
}

#[test]
fn enter_goes_in_and_esc_out() {
    let (mut watched, all) = two();
    watched.keys("1");
    watched.press(KeyCode::Down);
    watched.press(KeyCode::Enter);
    assert_eq!(watched.app.focus, Pane::Stacks);
    assert_eq!(watched.app.picture.groups.len(), 2);
    let effect = watched.press(KeyCode::Enter);
    let Some(Effect::Frames(place)) = effect else {
        panic!("{effect:?}");
    };
    assert_eq!(place.0, all[0].path);
    assert!(watched.screen(100, 30).contains("finding the frames"));
    let frames = vec!["cudaMalloc".to_owned(), "main  app.cu:5".to_owned()];
    watched
        .app
        .take_frames(place, Frames::Found(Arc::new(frames)));
    let screen = watched.screen(100, 30);
    assert!(screen.contains("#1   main  app.cu:5") && screen.contains("8.00 MiB in 1 allocations"));
    watched.press(KeyCode::Esc);
    // What is known is not asked for again.
    assert_eq!(watched.press(KeyCode::Enter), None);
    watched.press(KeyCode::Esc);
    watched.press(KeyCode::Esc);
    assert_eq!(watched.app.picture.groups.len(), 4);
    // Of a library, the stacks that allocated in it.
    watched.keys("bbb");
    assert_eq!(watched.app.settings.by, By::Library);
    assert_eq!(watched.app.picture.groups.len(), 1);
    watched.press(KeyCode::Enter);
    assert_eq!(watched.app.settings.by, By::Stack);
    assert_eq!(watched.app.picture.groups.len(), 4);
}

#[test]
fn what_stands_still_stands_still() {
    let (mut watched, mut all) = two();
    assert_eq!(
        watched.press(KeyCode::Char('p')),
        Some(Effect::Interval(None))
    );
    let stack = all[0].file.program_stack(0x900);
    all[0].file.alloc(Kind::Device, 90 * MIB, stack);
    all[0].write();
    watched.look();
    assert_eq!(watched.app.picture.groups[0].bytes, 8 * MIB);
    assert!(watched.screen(80, 24).contains("PAUSED"));
    let on = watched.press(KeyCode::Char(' '));
    assert_eq!(on, Some(Effect::Interval(Some(Duration::from_millis(500)))));
    watched.look();
    assert_eq!(watched.app.picture.groups[0].bytes, 90 * MIB);
}

#[test]
fn the_mouse_selects_opens_sorts_and_scrolls() {
    let (mut watched, _all) = two();
    watched.screen(100, 30);
    let place = |watched: &Watched, wanted: &Target| {
        let found = watched
            .app
            .targets
            .iter()
            .rev()
            .find(|(_, target)| target == wanted);
        let (area, _) = found.unwrap_or_else(|| panic!("{wanted:?} is nowhere"));
        (area.x + area.width / 2, area.y)
    };
    let (x, y) = place(&watched, &Target::Row(Pane::Stacks, 2));
    watched.app.act(Action::Click(x, y));
    assert_eq!(watched.app.cursors[1].at, 2);
    let effect = watched.app.act(Action::Click(x, y));
    assert!(matches!(effect, Some(Effect::Frames(_))));
    watched.app.act(Action::Click(0, 0));
    assert!(matches!(watched.app.overlay, Overlay::None));
    let (x, y) = place(&watched, &Target::Do(Action::SortBy(Sort::Name)));
    watched.app.act(Action::Click(x, y));
    assert_eq!(watched.app.settings.sort, Sort::Name);
    let (x, y) = place(&watched, &Target::Row(Pane::Processes, 0));
    watched.app.act(Action::Wheel(x, y, 3));
    assert_eq!(
        (watched.app.focus, watched.app.cursors[0].at),
        (Pane::Processes, 1)
    );
    let (x, y) = place(&watched, &Target::Do(Action::Help));
    watched.app.act(Action::Click(x, y));
    assert!(watched.screen(100, 30).contains("ctrl-Z"));
    watched.app.act(Action::Click(500, 500));
    assert!(matches!(watched.app.overlay, Overlay::None));
}
