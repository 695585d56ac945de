//! Which CUDA driver the demo runs on.

use super::PROGRAM;
use crate::launch::Failure;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What every CUDA program asks the loader for.
const LIBRARY: &str = "libcuda.so.1";
/// Name of the directory with a link to the simulated driver.
const LINKS: &str = "sim";
/// Where the simulated driver is.
const VARIABLE: &str = "VRAMTRACE_SIM_DIR";

/// A driver.
pub(super) struct Driver {
    /// One line about it.
    pub(super) said: String,
    /// Directory to find it in first; `None` for the installed one.
    directory: Option<PathBuf>,
}

impl Driver {
    /// The installed driver if it has a device, else the simulated one.
    pub(super) fn choose(own: &Path, scratch: &Path) -> Result<Driver, Failure> {
        let real = Driver {
            said: String::new(),
            directory: None,
        };
        if let Ok(said) = real.probe(own) {
            return Ok(Driver {
                said: format!("running on the real driver: {said}"),
                ..real
            });
        }
        let Some(directory) = simulated(own, scratch) else {
            return Err(Failure::usage(format!(
                "no GPU here, and no simulated driver: put {LIBRARY} into sim/ beside vramtrace, \
                 or set {VARIABLE} to its directory"
            )));
        };
        let simulated = Driver {
            said: String::new(),
            directory: Some(directory),
        };
        match simulated.probe(own) {
            Ok(said) => Ok(Driver {
                said: format!("no GPU here; running on a simulated driver: {said}"),
                ..simulated
            }),
            Err(why) => Err(Failure::usage(format!(
                "the simulated driver does not work: {why}"
            ))),
        }
    }

    /// What the program needs in its environment to find this driver.
    pub(super) fn environment(&self) -> Option<(String, OsString)> {
        let directory = self.directory.as_ref()?;
        let before = std::env::var_os("LD_LIBRARY_PATH").filter(|paths| !paths.is_empty());
        let mut value = directory.clone().into_os_string();
        if let Some(before) = before {
            value.push(":");
            value.push(before);
        }
        Some(("LD_LIBRARY_PATH".into(), value))
    }

    /// Asks in a process of its own: a broken driver must not end this one.
    fn probe(&self, own: &Path) -> Result<String, String> {
        let output = Command::new(own)
            .args([PROGRAM, "--probe"])
            .envs(self.environment())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.lines().last().unwrap_or_default().to_owned()
        };
        if output.status.success() {
            Ok(last(&output.stdout))
        } else {
            Err(last(&output.stderr))
        }
    }
}

/// A directory with the simulated driver. A build tree has it under the name that the compiler
/// gave it; then `scratch` gets a link with the right one.
fn simulated(own: &Path, scratch: &Path) -> Option<PathBuf> {
    let places = match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let beside = own.parent()?;
            vec![
                beside.join("sim"),
                beside.join("../lib/vramtrace/sim"),
                beside.into(),
            ]
        }
    };
    for place in places {
        let place = std::path::absolute(place).ok()?;
        if place.join(LIBRARY).exists() {
            return Some(place);
        }
        let built = place.join("libcuda.so");
        if built.exists() {
            let links = scratch.join(LINKS);
            std::fs::create_dir(&links).ok()?;
            std::os::unix::fs::symlink(built, links.join(LIBRARY)).ok()?;
            return Some(links);
        }
    }
    None
}

/// Removes what [`Driver::choose`] made.
pub(super) fn discard(scratch: &Path) {
    let links = scratch.join(LINKS);
    let _ = std::fs::remove_file(links.join(LIBRARY));
    let _ = std::fs::remove_dir(links);
}
