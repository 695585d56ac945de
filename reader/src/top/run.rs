//! The loop: waits for a sample, a key, a signal; then draws.

use super::app::{App, Effect};
use super::input;
use super::sampler::{self, Ask, Told};
use super::terminal::Screen;
use super::view::{self, Look};
use crate::live::many::Many;
use ratatui::crossterm::event::{self, Event};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

enum Message {
    Told(Told),
    Input(Event),
    /// Somebody wants us to end, or the terminal is gone.
    End,
}

/// Shows `app` until somebody ends it. Fails if the terminal cannot be had.
pub fn run(mut app: App, many: Many, look: Look, mouse: bool) -> io::Result<()> {
    let (send, messages) = channel();
    ends_by_signal(send.clone())?;
    let mut screen = Screen::take(mouse)?;
    let tell = {
        let send = send.clone();
        move |told| send.send(Message::Told(told)).is_ok()
    };
    let ask = sampler::start(many, app.interval, tell)?;
    reads_input(send)?;
    // A terminal that is gone takes no goodbye: that is no failure of ours.
    let _ = follow(&mut app, &mut screen, &messages, &ask, look);
    Ok(())
}

fn follow(
    app: &mut App,
    screen: &mut Screen,
    messages: &Receiver<Message>,
    ask: &Sender<Ask>,
    look: Look,
) -> io::Result<()> {
    loop {
        screen.draw(|frame| view::draw(frame.buffer_mut(), app, look))?;
        let Ok(first) = messages.recv() else {
            return Ok(());
        };
        let mut next = Some(first);
        // All that has come meanwhile, before it is drawn once.
        while let Some(message) = next {
            let effect = match message {
                Message::End => return Ok(()),
                Message::Told(Told::Sample(sample, at)) => {
                    app.take(*sample, at);
                    None
                }
                Message::Told(Told::Frames(place, frames)) => {
                    app.take_frames(place, frames);
                    None
                }
                Message::Input(event) => {
                    let action = input::action(&event, &app.overlay);
                    action.and_then(|action| app.act(action))
                }
            };
            match effect {
                None => {}
                Some(Effect::Quit) => return Ok(()),
                Some(Effect::Suspend) => screen.suspend()?,
                Some(Effect::Redraw) => screen.clear()?,
                Some(Effect::Interval(interval)) => drop(ask.send(Ask::Interval(interval))),
                Some(Effect::Frames(place)) => drop(ask.send(Ask::Frames(place))),
            }
            next = messages.try_recv().ok();
        }
    }
}

/// Reads keys and mouse in a thread of its own, which ends with the process.
fn reads_input(send: Sender<Message>) -> io::Result<()> {
    let work = move || {
        loop {
            let message = match event::read() {
                Ok(event) => Message::Input(event),
                Err(_) => Message::End,
            };
            let ends = matches!(message, Message::End);
            if send.send(message).is_err() || ends {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("top-input".into())
        .spawn(work)
        .map(drop)
}

/// SIGTERM, SIGINT and SIGHUP (the terminal is gone) end it.
fn ends_by_signal(send: Sender<Message>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let work = move || {
        runtime.block_on(async {
            let [terminate, interrupt, hangup] = &mut signals;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let _ = send.send(Message::End);
    };
    std::thread::Builder::new()
        .name("top-signals".into())
        .spawn(work)
        .map(drop)
}
