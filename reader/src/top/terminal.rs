//! Taking the terminal, and giving it back: when the program ends, by whatever way, and also when a thread
//! panics.

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are written at once: a whole screen.
const BUFFER: usize = 64 << 10;
/// Clicks and the wheel, with coordinates of any size; not every move of the mouse.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &[u8] = b"\x1b[?1006l\x1b[?1000l";

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal, while it is ours.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    mouse: bool,
}

impl Screen {
    /// Takes it. From here on it is given back whatever happens.
    pub fn take(mouse: bool) -> io::Result<Screen> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |what| {
                let ours = TAKEN.load(Ordering::SeqCst);
                give_back();
                before(what);
                // The main thread unwinds to its end; a thread beside it would leave a program that
                // draws on a terminal that is not its own any more.
                if ours && std::thread::current().name() != Some("main") {
                    crate::nvml::end_process(PANICKED);
                }
            }));
        });
        begin(mouse)?;
        let out = BufWriter::with_capacity(BUFFER, io::stdout());
        let made = Terminal::new(CrosstermBackend::new(out));
        let terminal = made.inspect_err(|_| give_back())?;
        Ok(Screen { terminal, mouse })
    }

    /// Draws.
    pub fn draw(&mut self, show: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(show).map(drop)
    }

    /// Everything is drawn anew the next time.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Gives the terminal to the shell until that lets us go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SAFETY: a signal to this process itself, which stops it as whoever pressed the key wants.
        unsafe { libc::raise(libc::SIGTSTP) };
        begin(self.mouse)?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// The exit code of a Rust program that panics.
const PANICKED: i32 = 101;

fn begin(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    let mut began = execute!(out, EnterAlternateScreen, Hide);
    if mouse && began.is_ok() {
        began = out.write_all(MOUSE_ON).and_then(|()| out.flush());
    }
    began.inspect_err(|_| give_back())
}

/// Gives the terminal back, if it is ours. What cannot be done is not to be helped: it may be gone.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = out.write_all(MOUSE_OFF);
    let _ = execute!(out, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
