//! C programs of tests/programs, compiled once and kept.

use crate::artifacts::{artifacts, repository};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a program is built.
#[derive(Clone, Debug, Default)]
pub struct Build {
    source: String,
    flags: Vec<OsString>,
    linked: bool,
    shared: bool,
    stripped: bool,
}

/// An executable from `tests/programs/NAME.c`, that finds the driver itself.
pub fn program(name: &str) -> PathBuf {
    Build::of(name).build()
}

/// Puts a copy of an executable in a place where a test can do as it likes with it, in the place of what
/// is there. A process of its own writes it: whatever another test starts meanwhile would inherit this
/// one's descriptor for a moment, and a file that is open for writing cannot be run.
pub fn copy_program(of: &Path, to: &Path, mode: &str) {
    let done = Command::new("install")
        .args(["-m", mode])
        .args([of, to])
        .status();
    assert!(
        done.expect("install").success(),
        "no copy of {}",
        of.display()
    );
}

/// An executable script, likewise.
pub fn script(path: &Path, text: &str) {
    let source = path.with_extension("text");
    std::fs::write(&source, text).expect("a script");
    copy_program(&source, path, "755");
}

/// The C compiler.
pub fn c_compiler() -> OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

impl Build {
    /// From `tests/programs/NAME.c`.
    pub fn of(name: &str) -> Build {
        Build {
            source: name.to_owned(),
            ..Build::default()
        }
    }

    /// Linked to libcuda.so.1, as driver-API programs are.
    pub fn linked(mut self) -> Build {
        self.linked = true;
        self.flag("-DLINKED")
    }

    /// A shared library.
    pub fn shared(mut self) -> Build {
        self.shared = true;
        self
    }

    /// Without symbols.
    pub fn stripped(mut self) -> Build {
        self.stripped = true;
        self
    }

    /// One more flag for the compiler.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Build {
        self.flags.push(flag.into());
        self
    }

    /// Path of the result.
    pub fn build(&self) -> PathBuf {
        self.try_build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Path of the result, or what the compiler said.
    pub fn try_build(&self) -> Result<PathBuf, String> {
        let sources = repository().join("tests/programs");
        let source = sources.join(format!("{}.c", self.source));
        let artifacts = artifacts();
        let programs = artifacts.programs.to_string_lossy();
        let mut variant = self.source.clone();
        for flag in &self.flags {
            let text = flag.to_string_lossy().replace(&*programs, "");
            variant.extend(
                text.chars()
                    .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }),
            );
        }
        if self.stripped {
            variant.push_str("-stripped");
        }
        if self.shared {
            variant = format!("lib{variant}.so");
        }
        let result = artifacts.programs.join(variant);
        let changed = |path: &PathBuf| {
            std::fs::metadata(path)
                .and_then(|meta| meta.modified())
                .ok()
        };
        let newest = std::fs::read_dir(&sources)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "h") || *path == source)
            .filter_map(|path| changed(&path))
            .max();
        if changed(&result) > newest {
            return Ok(result);
        }
        let own = result.with_extension(format!(
            "{}.{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut compiler = Command::new(c_compiler());
        // -O1 without sibling calls: every function of a test's call stack has a frame of its own.
        compiler.args([
            "-std=gnu11",
            "-g",
            "-O1",
            "-fno-optimize-sibling-calls",
            "-fno-inline",
        ]);
        compiler.args([
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Wno-unused-function",
            "-pthread",
        ]);
        compiler
            .arg("-I")
            .arg(&sources)
            .arg("-o")
            .arg(&own)
            .arg(&source);
        if self.shared {
            compiler.args(["-shared", "-fPIC"]);
        }
        if self.stripped {
            compiler.arg("-s");
        }
        compiler.args(&self.flags);
        if self.linked {
            compiler.arg("-L").arg(&artifacts.driver).arg("-lcuda");
        }
        compiler.arg("-ldl");
        let output = compiler
            .output()
            .map_err(|error| format!("{compiler:?}: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "{compiler:?}:\n{}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        debug_assert!(!own.as_os_str().as_bytes().is_empty());
        std::fs::rename(&own, &result).map_err(|error| error.to_string())?;
        Ok(result)
    }
}
