//! A bar on standard error while something takes long.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes less than this is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two drawings.
const PAUSE: Duration = Duration::from_millis(100);
/// Steps between two looks at the clock.
const STRIDE: u64 = 1 << 14;

/// Counts steps, and draws a bar if they take long and somebody watches.
pub struct Progress {
    what: &'static str,
    done: u64,
    all: u64,
    begun: Instant,
    drawn: Option<Instant>,
    watched: bool,
}

impl Progress {
    /// Nothing is done yet, of about `all` steps.
    pub fn new(what: &'static str, all: u64) -> Progress {
        Progress {
            what,
            done: 0,
            all: all.max(1),
            begun: Instant::now(),
            drawn: None,
            watched: io::stderr().is_terminal(),
        }
    }

    /// A step is done.
    #[inline]
    pub fn tick(&mut self) {
        self.done += 1;
        if self.watched && self.done.is_multiple_of(STRIDE) {
            self.draw();
        }
    }

    /// So many steps are done.
    pub fn advance(&mut self, steps: u64) {
        self.done += steps;
        if self.watched {
            self.draw();
        }
    }

    #[cold]
    fn draw(&mut self) {
        let now = Instant::now();
        let since = self.drawn.unwrap_or(self.begun + PATIENCE - PAUSE);
        if now < since + PAUSE {
            return;
        }
        self.drawn = Some(now);
        let share = (self.done as f64 / self.all as f64).min(1.0);
        let filled = (share * 30.0) as usize;
        let line = format!(
            "\r{} [{}{}] {:3.0} %",
            self.what,
            "=".repeat(filled),
            " ".repeat(30 - filled),
            share * 100.0
        );
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let line = format!("\r{}\r", " ".repeat(self.what.len() + 42));
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}
