//! Checks of the recorder: is it there, does it load, who else is loaded, where can it write.

use super::Finding;
use crate::launch::inspect::find_program;
use crate::launch::library;
use crate::launch::nvtx::{self, Receiver};
use crate::launch::rundir::{FileSystem, RunDir};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let run_dir = RunDir::create(&here);
    match library::find() {
        Err(failure) => findings.push(Finding::fail(
            "recorder",
            failure.message,
            "install libvramtrace.so beside vramtrace",
        )),
        Ok(library) => {
            findings.push(match &run_dir {
                Ok(run_dir) => loads(&library, run_dir.path()),
                Err(_) => loads(&library, &std::env::temp_dir()),
            });
            findings.extend(neighbours(&library));
            findings.push(ranges(&library));
        }
    }
    findings.push(match run_dir {
        Ok(run_dir) => {
            let place = run_dir.path().parent().unwrap_or(run_dir.path());
            let message = format!("traces are written in {}{}", place.display(), room(place));
            let _ = std::fs::remove_file(run_dir.path().join(library::NAME));
            run_dir.remove_if_empty();
            Finding::ok("run directory", message)
        }
        Err(failure) => Finding::fail(
            "run directory",
            failure.message,
            "set XDG_RUNTIME_DIR to a local directory of this user with 64 MiB free or more",
        ),
    });
    if std::env::var_os("VRAMTRACE_OFF").is_some_and(|value| !value.is_empty() && value != "0") {
        findings.push(Finding::fail(
            "settings",
            "VRAMTRACE_OFF is set: nothing would be traced",
            "unset VRAMTRACE_OFF",
        ));
    }
    findings
}

fn room(place: &Path) -> String {
    let file_system = File::open(place).and_then(|place| FileSystem::of(&place));
    file_system.map_or_else(
        |_| String::new(),
        |facts| {
            let name = facts.name().unwrap_or("unknown file system");
            format!(" ({name}, {} MiB free)", facts.free >> 20)
        },
    )
}

/// Preloads it into a program that does nothing.
fn loads(library: &Path, directory: &Path) -> Finding {
    let shown = library.display();
    let carried = match library::carriable(library, directory) {
        Ok(carried) => carried,
        Err(failure) => {
            return Finding::fail("recorder", failure.message, "install it under a plain path");
        }
    };
    let Some(program) = find_program(OsStr::new("true")) else {
        return Finding::warn(
            "recorder",
            format!("{shown}: not tried, for want of the program `true`"),
            "put coreutils into PATH",
        );
    };
    let output = Command::new(program)
        .env("LD_PRELOAD", carried)
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) => Finding::warn(
            "recorder",
            format!("{shown}: not tried: {error}"),
            "see that `true` runs",
        ),
        // The dynamic linker either says that it ignored it, or ends the program.
        Ok(output) if !output.status.success() || !output.stderr.is_empty() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            Finding::fail(
                "recorder",
                format!("{shown} does not load here: {said}"),
                "use the build for this machine; it needs glibc 2.17 or later",
            )
        }
        Ok(_) => Finding::ok("recorder", format!("{shown} loads")),
    }
}

/// Whether NVTX's calls come to the recorder.
fn ranges(library: &Path) -> Finding {
    let elsewhere = |whose: String, advice: String| {
        Finding::warn(
            "NVTX",
            format!("ranges and marks go to {whose} and are not recorded"),
            advice,
        )
    };
    match nvtx::receiver(library) {
        Receiver::Recorder => Finding::ok("NVTX", "ranges and marks are recorded"),
        Receiver::Named(path) => elsewhere(
            format!("{} ({} names it)", path.display(), nvtx::VARIABLE),
            format!("unset {} to have them recorded", nvtx::VARIABLE),
        ),
        Receiver::Asking(file) => elsewhere(
            format!("a tool that asks for them by {}", file.display()),
            format!(
                "run with {}={} to have them recorded instead",
                nvtx::VARIABLE,
                library.display()
            ),
        ),
    }
}

/// Others that are loaded into every program.
fn neighbours(library: &Path) -> Vec<Finding> {
    let preload = std::env::var_os("LD_PRELOAD");
    let mut names: Vec<String> = library::others(preload.as_deref(), library)
        .iter()
        .map(|entry| entry.display().to_string())
        .collect();
    if let Ok(global) = std::fs::read_to_string("/etc/ld.so.preload") {
        let entries = global.lines().filter_map(|line| line.split('#').next());
        names.extend(entries.flat_map(str::split_whitespace).map(str::to_owned));
    }
    if names.is_empty() {
        return Vec::new();
    }
    vec![Finding::warn(
        "other preloads",
        format!("also loaded into programs: {}", names.join(", ")),
        "they stay loaded; if something looks wrong, try without them (unset LD_PRELOAD)",
    )]
}
