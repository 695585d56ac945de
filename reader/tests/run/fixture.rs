//! A directory of a test's own, a stand-in recorder, and traces made by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;
use vramtrace_format::cold::{self, Cold, Process};
use vramtrace_format::layout::{Control, MIN_SIZE};
use vramtrace_format::{Layout, Section};

/// No process can have this pid (the kernel's own limit is 2^22).
pub const DEAD: u32 = 1 << 30;

/// What a test works in: `out` is the current directory, `runtime` is `$XDG_RUNTIME_DIR`.
pub struct Scene {
    root: TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        let root = TempDir::with_prefix("vramtrace-run-").unwrap();
        for name in ["out", "runtime", "traces"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Scene { root }
    }

    pub fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    /// An executable script in the current directory. A process of its own writes it: what another test
    /// starts meanwhile would inherit this one's descriptor for a moment, and a file that is open for
    /// writing cannot be run.
    pub fn script(&self, name: &str, text: &str) {
        let (source, script) = (self.path().join(name), self.out().join(name));
        fs::write(&source, text).unwrap();
        let done = Command::new("install").args([&source, &script]).status();
        assert!(done.unwrap().success());
    }

    pub fn runtime(&self) -> PathBuf {
        self.root.path().join("runtime")
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// `vramtrace run ARGUMENTS...`, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vramtrace"));
        command.arg("run").args(arguments).current_dir(self.out());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("VRAMTRACE_") {
                command.env_remove(name);
            }
        }
        command
            .env("VRAMTRACE_LIB", stand_in())
            .env("XDG_RUNTIME_DIR", self.runtime())
            .env_remove("LD_PRELOAD");
        as_from_a_terminal(&mut command);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// A trace to be copied into the run directory. `pid` wrote it; it belongs at `final_path`.
    pub fn trace(&self, name: &str, pid: u32, start: u64, final_path: Option<&Path>) -> String {
        let path = self.path().join("traces").join(name);
        fs::write(&path, trace(pid, start, final_path)).unwrap();
        path.to_str().unwrap().into()
    }

    /// Runs a program that leaves copies of `traces` in the run directory.
    pub fn run_leaving(&self, options: &[&str], traces: &[&str]) -> Ran {
        let mut arguments = options.to_vec();
        arguments.extend(["--", "sh", "-c", r#"cp "$@" "$VRAMTRACE_RUN_DIR""#, "sh"]);
        arguments.extend(traces);
        self.run(&arguments)
    }

    /// Everything below the runtime directory that is not a directory of ours.
    pub fn left_over(&self) -> Vec<PathBuf> {
        let base = self.runtime().join("vramtrace");
        let runs = fs::read_dir(base).into_iter().flatten().flatten();
        runs.map(|entry| entry.path()).collect()
    }
}

/// What a finished command left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().expect("vramtrace itself was killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Checks the exit code, showing what was said where it differs.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks that standard error says something.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(
            self.stderr.contains(text),
            "no `{text}` in:\n{}",
            self.stderr
        );
        self
    }
}

/// A library that does nothing, to be preloaded. Every test is a process of its own and may be the
/// first to need it, so it gets its name when it is whole.
pub fn stand_in() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
        fs::create_dir_all(&shared).unwrap();
        let library = shared.join("libvramtrace.so");
        if library.exists() {
            return library;
        }
        let own = TempDir::new_in(&shared).unwrap();
        let (source, made) = (own.path().join("x.c"), own.path().join("x.so"));
        fs::write(&source, "int vramtrace_stand_in;\n").unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&made, &source])
            .status()
            .expect("these tests need a C compiler");
        assert!(status.success());
        fs::rename(made, &library).unwrap();
        library
    })
}

fn trace(pid: u32, start: u64, final_path: Option<&Path>) -> Vec<u8> {
    let layout = Layout::for_size(MIN_SIZE);
    let mut bytes = vec![0u8; layout.file_size as usize];
    let header = layout.header(pid, start, start);
    bytes[..size_of_val(&header)].copy_from_slice(bytemuck::bytes_of(&header));
    let cold = layout.of(Section::Cold);
    let range = cold.offset as usize..(cold.offset + cold.length) as usize;
    let process = Cold::Process(Process {
        pid,
        name: "fake".into(),
        final_path: final_path.map(|path| path.to_str().unwrap().into()),
        ..Process::default()
    });
    let used = cold::append(&mut bytes[range], 0, &process).unwrap();
    let control = Control {
        cold_used: used,
        clean_exit: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    let at = layout.of(Section::Control).offset as usize;
    bytes[at..at + size_of::<Control>()].copy_from_slice(bytemuck::bytes_of(&control));
    bytes
}

/// Whoever runs the tests in the background or under nohup has had these signals ignored, which a
/// program inherits and a shell cannot undo.
pub fn as_from_a_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let reset = || {
        for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: async-signal-safe; SIG_DFL is a valid action.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe { command.pre_exec(reset) };
}
