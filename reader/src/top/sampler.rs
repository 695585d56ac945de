//! The thread that looks: samples at an interval, and frames of stacks when they are asked for. A disk or a
//! driver that hangs holds up this thread, and no key.

use super::app::{Frames, Place};
use crate::live::Sample;
use crate::live::many::Many;
use crate::live::names::frames_elsewhere;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Of its time, a thread that takes long to look spends at most one part in so many with it.
const SHARE: u32 = 5;

/// What it is asked for.
pub enum Ask {
    /// Samples at this interval; `None`: none.
    Interval(Option<Duration>),
    /// The frames of a stack.
    Frames(Place),
}

/// What it tells.
pub enum Told {
    /// What there is, so long after the first sample.
    Sample(Box<Sample>, Duration),
    /// The frames of a stack.
    Frames(Place, Frames),
}

/// Starts it. It ends when what it is asked through is dropped, or `tell` says that nobody listens.
pub fn start(
    many: Many,
    interval: Duration,
    tell: impl Fn(Told) -> bool + Clone + Send + 'static,
) -> std::io::Result<Sender<Ask>> {
    let (ask, asked) = channel();
    std::thread::Builder::new()
        .name("top-sampler".into())
        .spawn(move || work(many, interval, asked, tell))?;
    Ok(ask)
}

fn work(
    mut many: Many,
    interval: Duration,
    asked: Receiver<Ask>,
    tell: impl Fn(Told) -> bool + Clone + Send + 'static,
) {
    let begun = Instant::now();
    let mut interval = Some(interval);
    let mut last = None;
    let mut next = begun;
    loop {
        let wait = interval.map(|_| next.saturating_duration_since(Instant::now()));
        if wait.is_some_and(|wait| wait.is_zero()) {
            let at = Instant::now();
            let sample = many.sample();
            let took = at.elapsed();
            if !tell(Told::Sample(Box::new(sample), at - begun)) {
                return;
            }
            last = Some(at);
            let pause = interval.unwrap_or_default();
            next = at + pause.max(took.saturating_mul(SHARE));
            continue;
        }
        let got = match wait {
            Some(wait) => asked.recv_timeout(wait),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match got {
            Ok(Ask::Interval(wanted)) => {
                interval = wanted;
                // Not sooner than the new interval allows.
                next = last.map_or(begun, |last| last + wanted.unwrap_or_default());
            }
            Ok(Ask::Frames(place)) => find(&many, place, tell.clone()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Finds the frames of a stack, in a thread of its own: symbols of large libraries take their time.
fn find(many: &Many, place: Place, tell: impl Fn(Told) -> bool + Send + 'static) {
    let failed = |why: String| Frames::Failed(why);
    let file = match many.open_trace(&place.0) {
        Some(Ok(file)) => file,
        Some(Err(error)) => {
            tell(Told::Frames(
                place,
                failed(format!("the trace cannot be opened: {error}")),
            ));
            return;
        }
        None => {
            tell(Told::Frames(place, failed("the trace is gone".to_owned())));
            return;
        }
    };
    let work = move || {
        let frames = match frames_elsewhere(file, (place.1, place.2)) {
            Ok(lines) => Frames::Found(Arc::new(lines)),
            Err(why) => Frames::Failed(why),
        };
        tell(Told::Frames(place, frames));
    };
    // Without a thread, the frames stay to be found, and the next Enter asks again.
    let _ = std::thread::Builder::new()
        .name("top-frames".into())
        .spawn(work);
}
