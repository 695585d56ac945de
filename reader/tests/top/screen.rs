//! What is on the screen: of every size, and harmless whatever traces say.

use crate::fixture::*;
use crate::support::{MIB, allocation, module, native};
use proptest::prelude::*;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::{Color, Modifier};
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::cold::Cold;
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_reader::top::app::{Action, Effect, Frames, Pane};
use vramtrace_reader::top::settings::{By, Settings};
use vramtrace_reader::top::view::Look;
use vramtrace_reader::top::{json, once};

/// A process that has something for every table.
fn busy(watched: &Watched) -> Traced {
    let mut a = watched.process("train", Some(3));
    let stacks = [a.file.program_stack(0x100), a.file.program_stack(0x200)];
    a.file.alloc(Kind::Device, 24 << 30, stacks[0]);
    a.file.alloc(Kind::Pool, 8 << 30, stacks[1]);
    a.file.alloc(Kind::Async, 2 << 30, stacks[1]);
    a.file.alloc(Kind::Pinned, 64 * MIB, stacks[0]);
    a.file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 1 << 40, stacks[1])
    });
    a.write();
    a
}

#[test]
fn a_usual_screen() {
    let mut watched = Watched::new();
    let a = busy(&watched);
    watched.named();
    watched.named();
    watched.app.picture.unix_ns = 1_767_225_600_000_000_000;
    for failure in &mut watched.app.picture.failures {
        failure.failure.unix_ns = 1_767_225_588_000_000_000;
    }
    let screen = watched
        .screen(80, 24)
        .replace(&format!("{:>7}", a.pid()), "   4711");
    let screen = screen.replace(&format!("{:<7}", a.pid()), "4711   ");
    let wanted = "\
\u{20}vramtrace top  1 running                            every 500 ms  00:00:00 UTC
 by stack  sort live▼  layer all  device all  window 1m  unit /s
 GPU 0 ███████████▓▓▓····················· traced 32.00 GiB of 80.00 GiB   40 %";
    let first: Vec<&str> = screen.lines().take(3).collect();
    assert_eq!(first.join("\n"), wanted);
    for part in [
        "─ Processes 1 ─",
        "     PID STATE     GPU        LIVE▼   OOM        GROWTH TREND    PROGRAM",
        "running",
        "train rank 3",
        "─ Stacks 4 ─ Pools 1 ─ Out of memory 1 ─",
        "       LIVE▼        GROWTH TREND    GPU      PID WHERE",
        "   24.00 GiB             ·",
        "host",
        "0x100 train ← 0x1000 train",
        "quit  ? help  Tab table",
        "traced 32.00 GiB of 80.00 GiB   40 %",
    ] {
        assert!(screen.contains(part), "{part}\n{screen}");
    }
    watched.keys("4");
    watched.app.focus = Pane::Failures;
    let screen = watched.screen(80, 24);
    assert!(
        screen.contains("12 s") && screen.contains("1.00 TiB"),
        "{screen}"
    );
    let wide = watched.screen(200, 60);
    for part in [
        "IN USE",
        "NVIDIA-SMI",
        "ALLOCATOR",
        "traced, held by allocators",
        "OUTCOME",
    ] {
        assert!(wide.contains(part), "{part}\n{wide}");
    }
    let small = watched.screen(40, 10);
    assert!(
        small.contains("GPU 0") && small.contains("ASKED"),
        "{small}"
    );
}

#[test]
fn nothing_to_see_says_what_to_do() {
    let mut watched = Watched::new();
    assert!(watched.screen(80, 24).contains("Looking"));
    watched.look();
    let screen = watched.screen(80, 24);
    for part in [
        "No traced program is running.",
        "vramtrace run -- PROGRAM",
        "somewhere",
    ] {
        assert!(screen.contains(part), "{part}\n{screen}");
    }
    assert!(watched.screen(40, 10).contains("vramtrace run -- PROGRAM"));
    let text = once::text(
        &watched.app.picture,
        &Settings::default(),
        20,
        watched.at,
        "/x",
    );
    assert!(text.contains("vramtrace run -- PROGRAM"), "{text}");
}

#[test]
fn without_colour_there_is_none_and_in_ascii_nothing_else() {
    let mut watched = Watched::new();
    let _a = busy(&watched);
    watched.named();
    watched.named();
    let coloured = |watched: &mut Watched, colour| {
        let look = Look {
            colour,
            unicode: false,
        };
        let buffer = watched.draw(120, 40, look);
        assert!(text(&buffer).is_ascii(), "{}", text(&buffer));
        buffer.content().iter().any(|cell| cell.fg != Color::Reset)
    };
    assert!(!coloured(&mut watched, false));
    assert!(coloured(&mut watched, true));
}

#[test]
fn a_selected_row_is_of_one_colour() {
    let mut watched = Watched::new();
    let _a = busy(&watched);
    watched.named();
    watched.app.act(Action::Focus(Pane::Processes));
    for pane in [Pane::Processes, Pane::Stacks] {
        watched.app.act(Action::Focus(pane));
        watched.app.act(Action::First);
        let look = Look {
            colour: true,
            unicode: true,
        };
        let buffer = watched.draw(120, 40, look);
        let dull = |y: u16| {
            let cells = (0..120).map(|x| &buffer[(x, y)]);
            let selected = cells.filter(|cell| cell.modifier.contains(Modifier::REVERSED));
            selected
                .map(|cell| (cell.fg, cell.bg, cell.modifier.contains(Modifier::DIM)))
                .collect::<Vec<_>>()
        };
        // The name of a table is reversed, too, but not a whole line.
        let row = (0..40).map(dull).find(|cells| cells.len() > 100).unwrap();
        assert!(
            row.iter()
                .all(|cell| *cell == (Color::Reset, Color::Reset, false)),
            "{pane:?} {row:?}"
        );
    }
}

/// Whether a text could do something to a terminal.
fn steers(c: char) -> bool {
    c.is_control()
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[test]
fn hostile_names_do_nothing() {
    let mut watched = Watched::new();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}evil\u{9b}31m\r\n";
    let mut a = watched.process(evil, None);
    a.file.cold(Cold::Module(module(
        9,
        &format!("/opt/{evil}{}", "x".repeat(10_000)),
    )));
    a.file.cold(Cold::Api(vramtrace_format::cold::Name {
        id: 7,
        text: evil.into(),
    }));
    let stack = a.file.stack(&[native(9, 1), native(9, 2)]);
    a.file.event(Record {
        api: 7,
        ..allocation(Kind::Device, 0x7000, MIB, stack)
    });
    a.file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 1 << 40, stack)
    });
    a.write();
    let hostile = watched
        .directory
        .path()
        .join(format!("{}.vrt", "\u{1b}[31m\n\u{202e}"));
    std::fs::write(hostile, "nonsense").unwrap();
    watched.named();
    let frames = Frames::Found(Arc::new(vec![evil.repeat(500)]));
    for by in By::ALL {
        watched.app.settings.by = by;
        watched.look();
        for pane in Pane::ALL {
            watched.app.focus = pane;
            for size in [(80, 24), (200, 60), (40, 10)] {
                let screen = watched.screen(size.0, size.1);
                assert!(
                    !screen.chars().any(|c| c != '\n' && steers(c)),
                    "{screen:?}"
                );
                watched.press(KeyCode::Down);
                if let Some(Effect::Frames(place)) = watched.press(KeyCode::Enter) {
                    watched.app.take_frames(place, frames.clone());
                }
                let screen = watched.screen(size.0, size.1);
                assert!(
                    !screen.chars().any(|c| c != '\n' && steers(c)),
                    "{screen:?}"
                );
                watched.press(KeyCode::Esc);
                watched.app.settings = Settings {
                    by,
                    ..Settings::default()
                };
                watched.look();
            }
        }
        let picture = &watched.app.picture;
        let text = once::text(picture, &watched.app.settings, 20, watched.at, evil);
        assert!(!text.chars().any(|c| c != '\n' && steers(c)), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() < 8_000));
        let document = json::json(picture, &watched.app.settings, 20, watched.at);
        assert!(!document.chars().any(|c| c != '\n' && c.is_control()));
        let _: serde_json::Value = serde_json::from_str(&document).unwrap();
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let keys = "qwertyuiop asdfghjklzxcvbnm/?1234+-BSG"
        .chars()
        .collect::<Vec<_>>();
    prop_oneof![
        prop::sample::select(keys).prop_map(Action::Write),
        (0u16..250, 0u16..80).prop_map(|(x, y)| Action::Click(x, y)),
        (0u16..250, 0u16..80, -3isize..4).prop_map(|(x, y, by)| Action::Wheel(x, y, by)),
        Just(Action::Open),
        Just(Action::Back),
        Just(Action::Page(1)),
        Just(Action::Page(-1)),
        Just(Action::Last),
        Just(Action::First),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_order_of_actions_is_too_much(
        steps in prop::collection::vec((any_action(), 0u16..250, 0u16..80), 1..60),
    ) {
        let mut watched = Watched::new();
        let a = busy(&watched);
        watched.named();
        for (number, (action, width, height)) in steps.into_iter().enumerate() {
            match action {
                Action::Write(key) => drop(watched.press(KeyCode::Char(key))),
                action => drop(watched.app.act(action)),
            }
            if number == 30 {
                std::fs::remove_file(&a.path).unwrap();
            }
            watched.look();
            watched.at += Duration::from_millis(u64::from(width) * 10);
            let screen = watched.screen(width, height);
            prop_assert!(screen.lines().count() <= usize::from(height).max(1));
        }
    }
}
