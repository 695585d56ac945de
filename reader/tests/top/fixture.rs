//! Traces of processes that run, and an app that looks at them.

use crate::support::{TraceFile, process};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use vramtrace_format::cold::Cold;
use vramtrace_reader::live::Options;
use vramtrace_reader::live::many::{Many, Source};
use vramtrace_reader::live::names::Naming;
use vramtrace_reader::top::app::{App, Effect};
use vramtrace_reader::top::input;
use vramtrace_reader::top::view::{Look, draw};

pub const PLAIN: Look = Look {
    colour: false,
    unicode: true,
};

/// A process that runs, and the trace that it could have written.
pub struct Traced {
    sleeper: Child,
    pub file: TraceFile,
    pub path: PathBuf,
}

impl Traced {
    pub fn new(directory: &Path, name: &str, rank: Option<u32>) -> Traced {
        let sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = sleeper.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = stat.rsplit_once(')').unwrap().1;
        let mut file = TraceFile::new(1 << 20);
        file.cold(Cold::Process(vramtrace_format::cold::Process {
            start_ticks: after.split_whitespace().nth(19).unwrap().parse().unwrap(),
            pid_namespace: fs::metadata("/proc/self/ns/pid").unwrap().ino(),
            rank,
            host: String::new(),
            ..process(pid, &format!("/opt/bin/{name}"))
        }));
        let path = directory.join(format!("{pid}.vrt"));
        let mut traced = Traced {
            sleeper,
            file,
            path,
        };
        fs::write(&traced.path, traced.file.bytes()).unwrap();
        traced
    }

    pub fn pid(&self) -> u32 {
        self.sleeper.id()
    }

    /// Writes into the file that is there, as a recorder does.
    pub fn write(&mut self) {
        let mut open = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        open.write_all(self.file.bytes()).unwrap();
    }

    pub fn end(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

/// An app, and what it looks at.
pub struct Watched {
    pub directory: tempfile::TempDir,
    pub many: Many,
    pub app: App,
    pub at: Duration,
}

pub fn options() -> Options {
    Options {
        nvml: false,
        naming: Naming::Here,
        sites: 0,
        places: 200,
        failures: 16,
        ..Options::default()
    }
}

impl Watched {
    pub fn new() -> Watched {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::Directory(directory.path().to_owned());
        let many = Many::open(&[source], &options(), false).unwrap();
        let app = App {
            interval: Duration::from_millis(500),
            looks_at: "somewhere".to_owned(),
            ..App::default()
        };
        Watched {
            directory,
            many,
            app,
            at: Duration::ZERO,
        }
    }

    /// A process in it.
    pub fn process(&self, name: &str, rank: Option<u32>) -> Traced {
        Traced::new(self.directory.path(), name, rank)
    }

    /// A sample, taken half a second after the one before as far as the app knows.
    pub fn look(&mut self) {
        let sample = self.many.sample();
        self.app.take(sample, self.at);
        self.at += Duration::from_millis(500);
    }

    /// Samples until all names are found, all taken at the same time as far as the app knows.
    pub fn named(&mut self) {
        for _ in 0..2000 {
            let sample = self.many.sample();
            let naming = sample.naming;
            self.app.take(sample, self.at);
            if !naming {
                self.at += Duration::from_millis(500);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("names are never found");
    }

    /// What a key does.
    pub fn press(&mut self, code: KeyCode) -> Option<Effect> {
        let event = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        let action = input::action(&event, &self.app.overlay)?;
        self.app.act(action)
    }

    pub fn keys(&mut self, keys: &str) {
        for key in keys.chars() {
            self.press(KeyCode::Char(key));
        }
    }

    /// The screen, as text.
    pub fn screen(&mut self, width: u16, height: u16) -> String {
        text(&self.draw(width, height, PLAIN))
    }

    pub fn draw(&mut self, width: u16, height: u16, look: Look) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw(&mut buffer, &mut self.app, look);
        buffer
    }
}

/// Lines of a screen, without what is empty at their ends.
pub fn text(buffer: &Buffer) -> String {
    let area = *buffer.area();
    let line = |y| {
        let cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
        let line: String = cells.collect();
        line.trim_end().to_owned()
    };
    let lines: Vec<String> = (0..area.height).map(line).collect();
    lines.join("\n")
}
