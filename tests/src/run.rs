//! Running programs with the library preloaded.

use crate::artifacts::artifacts;
use crate::report::{Check, Leaks, Left, left_lines};
use crate::scratch::Scratch;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// No program of the tests takes nearly as long; one that does hangs.
const HANGS: Duration = Duration::from_secs(180);

/// A program to run. It gets the simulated driver, the library (unless [`Run::plain`]), and none
/// of the variables of whoever runs the tests.
pub struct Run {
    command: Command,
    preload: Vec<PathBuf>,
    scratch: Scratch,
    default_output: bool,
    own_stderr: bool,
}

/// Enough for the programs of the tests, and quicker to make than the default.
const SIZE: &str = "4MiB";

impl Run {
    /// Traced, to a file in a directory of its own.
    pub fn new(program: impl AsRef<OsStr>) -> Run {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["VRAMTRACE", "LD_", "CARGO", "NVTX_"]
                .iter()
                .any(|of| text.starts_with(of))
            {
                command.env_remove(&name);
            }
        }
        command
            .env("LD_LIBRARY_PATH", &artifacts().driver)
            .env("VRAMTRACE_SIZE", SIZE)
            // Every stack, also where a debug build takes its time for them.
            .env("VRAMTRACE_BUDGET", "off");
        command.stdin(Stdio::null());
        Run {
            command,
            preload: vec![artifacts().shim.clone()],
            scratch: Scratch::new(),
            default_output: true,
            own_stderr: false,
        }
    }

    /// Without the library.
    pub fn plain(mut self) -> Run {
        self.preload.clear();
        self
    }

    /// Preloads what is called like this, instead of our library by its path.
    pub fn preload_only(mut self, library: impl Into<PathBuf>) -> Run {
        self.preload = vec![library.into()];
        self
    }

    /// One more library before ours.
    pub fn preload_before(mut self, library: impl Into<PathBuf>) -> Run {
        self.preload.insert(0, library.into());
        self
    }

    /// One more library after ours.
    pub fn preload_after(mut self, library: impl Into<PathBuf>) -> Run {
        self.preload.push(library.into());
        self
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Run {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.command.args(arguments);
        self
    }

    /// A variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.default_output &= name != "VRAMTRACE_OUTPUT";
        self.command.env(name, value);
        self
    }

    /// Not this variable.
    pub fn without(mut self, name: &str) -> Run {
        self.default_output &= name != "VRAMTRACE_OUTPUT";
        self.command.env_remove(name);
        self
    }

    /// Where it runs.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// Where its standard error goes.
    pub fn stderr(mut self, to: Stdio) -> Run {
        self.command.stderr(to);
        self.own_stderr = true;
        self
    }

    /// Everything else that a command has.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Run {
        change(&mut self.command);
        self
    }

    /// The directory of its traces.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn prepare(&mut self) {
        if self.default_output {
            let output = self.scratch.path().join("%e.%p.vrt");
            self.command.env("VRAMTRACE_OUTPUT", output);
        }
        if !self.preload.is_empty() {
            let list: Vec<&OsStr> = self.preload.iter().map(|path| path.as_os_str()).collect();
            self.command.env("LD_PRELOAD", list.join(OsStr::new(":")));
        }
    }

    /// Starts it; its output is nobody's.
    pub fn spawn(mut self) -> (Child, Scratch) {
        self.prepare();
        self.command.stdout(Stdio::null());
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        (child, self.scratch)
    }

    /// Starts it, and shows what it prints to `look` until that has seen enough.
    pub fn with_stdout(mut self, look: impl FnMut(std::process::ChildStdout)) -> Child {
        self.prepare();
        self.command.stdout(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        child.stdout.take().into_iter().for_each(look);
        child
    }

    /// Runs it to its end, however that comes.
    pub fn finish(mut self) -> Finished {
        self.prepare();
        let spoken = format!("{:?}", self.command);
        self.command.stdout(Stdio::piped());
        if !self.own_stderr {
            self.command.stderr(Stdio::piped());
        }
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{spoken}: {e}"));
        let reader = |source: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut source) = source {
                    let _ = source.read_to_end(&mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = reader(child.stdout.take().map(|s| Box::new(s) as _));
        let stderr = reader(child.stderr.take().map(|s| Box::new(s) as _));
        let deadline = Instant::now() + HANGS;
        let status = loop {
            match child.try_wait().expect("the program can be waited for") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("hangs: {spoken}");
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        Finished {
            command: spoken,
            status,
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
            scratch: self.scratch,
        }
    }

    /// Runs it to its end, which must be a successful one.
    pub fn succeeds(self) -> Finished {
        let finished = self.finish();
        assert!(finished.status.success(), "{finished:#?}");
        finished
    }
}

/// A program that ran.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it, and the library, wrote on standard error.
    pub stderr: String,
    /// Where its traces are.
    pub scratch: Scratch,
}

impl Finished {
    /// Exit code, or minus the signal that killed it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| -self.status.signal().unwrap_or(0))
    }

    /// Its only trace.
    pub fn trace(&self) -> PathBuf {
        match &self.scratch.traces()[..] {
            [trace] => trace.clone(),
            traces => panic!("{} traces, not one: {traces:?}\n{self:#?}", traces.len()),
        }
    }

    /// What its only trace says is leaked.
    pub fn leaks(&self) -> Leaks {
        Leaks::of(&self.trace(), &[])
    }

    /// What `check` says about its only trace.
    pub fn check(&self) -> Check {
        Check::of(&self.trace())
    }

    /// What the program itself says that it left (see tests/programs/driver.h).
    pub fn left(&self) -> Vec<Left> {
        left_lines(&self.stdout)
    }
}

impl Finished {
    /// The lines on standard error that the library wrote.
    pub fn said(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter(|line| line.starts_with("vramtrace:"))
            .collect()
    }

    /// What somebody sees who runs the program.
    pub fn observable(&self) -> (i32, &str, &str) {
        (self.code(), &self.stdout, &self.stderr)
    }
}
