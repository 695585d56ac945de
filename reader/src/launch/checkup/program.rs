//! Checks of the program that is to be traced.

use super::Finding;
use crate::launch::inspect::{Executable, Kind, Privilege, find_program};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Versions whose stacks the recorder can read (its table of layouts says the same).
const PYTHON: std::ops::RangeInclusive<(u32, u32)> = (3, 8)..=(3, 15);

pub(super) fn examine(program: &OsStr) -> Vec<Finding> {
    let Some(path) = find_program(program) else {
        return vec![Finding::fail(
            "program",
            format!("{}: no such program", program.display()),
            "check the name, and PATH",
        )];
    };
    let executable = match Executable::of(&path) {
        Ok(executable) => executable,
        Err(error) => {
            return vec![Finding::fail(
                "program",
                format!("{} cannot be read: {error}", path.display()),
                "doctor can only judge what this user may read",
            )];
        }
    };
    let mut findings = vec![kind(&executable)];
    findings.extend(python(&executable.binary));
    findings
}

fn kind(executable: &Executable) -> Finding {
    if let Some(obstacle) = executable.obstacle() {
        return Finding::fail("program", obstacle, advice(executable));
    }
    let binary = executable.binary.display();
    let by = if executable.path == executable.binary {
        String::new()
    } else {
        format!(", which runs {}", executable.path.display())
    };
    match &executable.kind {
        Kind::Dynamic { machine, .. } => Finding::ok(
            "program",
            format!("{binary} ({}, dynamically linked){by}", machine.name()),
        ),
        _ => Finding::warn(
            "program",
            format!("{binary} is neither an ELF program nor a script with #!"),
            "a shell will try to run it; the programs that it starts can be traced",
        ),
    }
}

fn advice(executable: &Executable) -> &'static str {
    match (&executable.privileged, &executable.kind) {
        (Some(Privilege::SetUser | Privilege::SetGroup), _) => {
            "run it as the user it switches to, or a copy without the bit (chmod u-s,g-s)"
        }
        (Some(Privilege::Capabilities), _) => {
            "run it as root, or a copy without capabilities (setcap -r)"
        }
        (None, Kind::Static { .. }) => {
            "link it dynamically against libc (Go: CGO_ENABLED=1; C: without -static)"
        }
        (None, kind) if kind.is_musl() => "use a build for glibc, in an image that has glibc",
        _ => "use a build for this machine",
    }
}

/// What is found only for a Python interpreter.
fn python(binary: &Path) -> Option<Finding> {
    let resolved = std::fs::canonicalize(binary).unwrap_or_else(|_| binary.into());
    let name = resolved.file_name()?.to_str()?;
    if !name.starts_with("python") {
        return None;
    }
    let Some(version) = version_in(name).or_else(|| version_from(&resolved)) else {
        return Some(Finding::warn(
            "python",
            format!("the Python version of {name} is unknown"),
            "native stacks are recorded in any case",
        ));
    };
    Some(judge(version))
}

fn judge(version: Version) -> Finding {
    let Version {
        major,
        minor,
        free_threaded,
    } = version;
    let (first, last) = (PYTHON.start(), PYTHON.end());
    let known = PYTHON.contains(&(major, minor)) && (!free_threaded || minor >= 13);
    if !known {
        return Finding::warn(
            "python",
            format!(
                "Python {major}.{minor}: only native stacks are recorded (Python stacks: {}.{} to \
                 {}.{})",
                first.0, first.1, last.0, last.1
            ),
            "memory is counted all the same",
        );
    }
    // 3.13 and 3.14 were run; of later ones only the headers were read.
    if free_threaded && minor > 14 {
        return Finding::warn(
            "python",
            format!(
                "Python {major}.{minor}, free-threaded: its stacks are recorded only if they pass a \
                 check when the program runs"
            ),
            "vramtrace check says of a trace whether they did; native stacks are recorded otherwise",
        );
    }
    Finding::ok(
        "python",
        format!("Python {major}.{minor}: its stacks are recorded"),
    )
}

/// What `doctor` needs to know of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    major: u32,
    minor: u32,
    free_threaded: bool,
}

/// `python3.11` says it, `python3.13t` that it is free-threaded.
fn version_in(name: &str) -> Option<Version> {
    let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    Some(Version {
        major: major.parse().ok()?,
        minor: minor[..digits].parse().ok()?,
        free_threaded: minor[digits..].starts_with('t'),
    })
}

/// Asks the interpreter, without site packages and anything of the current directory.
fn version_from(interpreter: &Path) -> Option<Version> {
    let output = Command::new(interpreter)
        .args([
            "-I",
            "-S",
            "-c",
            "import sys, sysconfig; print('python%d.%d' % sys.version_info[:2] + ('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''))",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    version_in(std::str::from_utf8(&output.stdout).ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32, free_threaded: bool) -> Version {
        Version {
            major,
            minor,
            free_threaded,
        }
    }

    #[test]
    fn versions_by_name() {
        assert_eq!(version_in("python3.11"), Some(version(3, 11, false)));
        assert_eq!(version_in("python3.13t"), Some(version(3, 13, true)));
        assert_eq!(version_in("python3"), None);
        assert_eq!(version_in("pythonic.1"), None);
    }

    #[test]
    fn what_is_recorded_of_each_version() {
        use crate::launch::checkup::Status;
        for (version, status, says) in [
            (version(3, 7, false), Status::Warn, "only native"),
            (version(3, 8, false), Status::Ok, "its stacks are recorded"),
            (version(3, 15, false), Status::Ok, "its stacks are recorded"),
            (version(3, 16, false), Status::Warn, "3.8 to 3.15"),
            (version(3, 14, true), Status::Ok, "its stacks are recorded"),
            (version(3, 15, true), Status::Warn, "if they pass a check"),
            (version(2, 7, false), Status::Warn, "only native"),
        ] {
            let finding = judge(version);
            assert_eq!(finding.status, status, "{version:?}");
            assert!(finding.message.contains(says), "{}", finding.message);
        }
    }
}
