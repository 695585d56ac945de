//! A `vramtrace serve` of a test's own, what it says, and programs for it to tell of.

use crate::{Run, artifacts, program};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes nearly as long.
pub const HANGS: Duration = Duration::from_secs(60);

/// A `vramtrace serve` of a directory.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it on a port of its own.
    pub fn start(directory: &Path, options: &[&str]) -> Server {
        Server::with(directory, options, &[])
    }

    /// The same with more in its environment.
    pub fn with(directory: &Path, options: &[&str], environment: &[(&str, &OsStr)]) -> Server {
        let mut command = Command::new(&artifacts().reader);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("VRAMTRACE") {
                command.env_remove(&name);
            }
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(options)
            .envs(environment.iter().copied());
        command.arg(directory).stderr(Stdio::piped());
        let mut child = command.spawn().expect("vramtrace starts");
        let mut line = String::new();
        let stderr = child.stderr.take().expect("its standard error");
        BufReader::new(stderr).read_line(&mut line).expect("a line");
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        Server {
            child,
            address: address.unwrap_or_else(|| panic!("no address: {line}")),
        }
    }

    /// What comes back for a whole request.
    pub fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(HANGS)).expect("a limit");
        // A server that refuses may close before all of it is written.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status, head and body.
    pub fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let answer = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.unwrap_or(0), head.to_lowercase(), body.to_owned())
    }

    /// Its metrics.
    pub fn scrape(&self) -> Scrape {
        let (status, _, body) = self.get("/metrics", "");
        assert_eq!(status, 200, "{body}");
        Scrape::of(&body)
    }

    /// Scrapes until it says so.
    pub fn until(&self, what: &str, says: impl Fn(&Scrape) -> bool) -> Scrape {
        let begun = Instant::now();
        loop {
            let scrape = self.scrape();
            if says(&scrape) {
                return scrape;
            }
            assert!(begun.elapsed() < HANGS, "never {what}: {scrape:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks it to end; returns the exit code.
    pub fn end(mut self) -> Option<i32> {
        // SAFETY: the number of a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let begun = Instant::now();
        while begun.elapsed() < HANGS {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Series and values of an exposition whose form was checked.
#[derive(Debug)]
pub struct Scrape(pub BTreeMap<String, f64>);

impl Scrape {
    /// Of an exposition in OpenMetrics.
    pub fn of(text: &str) -> Scrape {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(
                series.insert(name.to_owned(), value).is_none(),
                "twice: {line}"
            );
        }
        Scrape(series)
    }

    /// Values of the series of a family that have all these labels.
    pub fn all(&self, family: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let wanted: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let found = self.0.iter().filter(|(name, _)| {
            let own = name.split('{').next().unwrap_or(name);
            own == family && wanted.iter().all(|label| name.contains(label))
        });
        found.map(|(_, &value)| value).collect()
    }

    /// The value of the only series that has all these labels.
    pub fn one(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.all(family, labels);
        assert_eq!(found.len(), 1, "{family} {labels:?}: {self:#?}");
        found[0]
    }
}

/// A program that holds memory until it is dropped.
pub struct Held {
    /// The program.
    pub child: Child,
}

impl Held {
    /// Starts it, and waits until it holds what it does.
    pub fn start(directory: &Path, arguments: &[&str]) -> Held {
        let run = Run::new(program("held"))
            .args(arguments)
            .env("VRAMTRACE_OUTPUT", directory.join("%e.%p.vrt"));
        let mut seen = false;
        let child = run.with_stdout(|out| {
            seen = BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .any(|line| line == "held");
        });
        assert!(seen, "the program ended early");
        Held { child }
    }

    /// Its number.
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
