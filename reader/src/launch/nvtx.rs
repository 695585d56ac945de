//! Who receives a program's NVTX ranges and marks.
//!
//! At its first call NVTX loads the library that `NVTX_INJECTION64_PATH` names. That is ours, unless
//! somebody else is named there, or a tool asks for the calls through the driver, which NVTX looks at
//! last (the recorder's shim/src/nvtx/place.rs has the same rules for programs without `run`).

use super::library;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// The variable.
pub const VARIABLE: &str = "NVTX_INJECTION64_PATH";

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The recorder.
    Recorder,
    /// What the variable names.
    Named(OsString),
    /// A tool that asks for them by this file.
    Asking(PathBuf),
}

/// Finds out from the environment and the files that tools leave.
pub fn receiver(recorder: &Path) -> Receiver {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    match named {
        Some(named) if is_recorder(&named, recorder) => Receiver::Recorder,
        Some(named) => Receiver::Named(named),
        None => match asking().into_iter().find(|file| file.exists()) {
            Some(file) => Receiver::Asking(file),
            None => Receiver::Recorder,
        },
    }
}

/// A run inside a run finds the outer one's name of the same library.
fn is_recorder(named: &OsStr, recorder: &Path) -> bool {
    let named = Path::new(named);
    named == recorder
        || named.file_name() == Some(OsStr::new(library::NAME))
            && match (fs::canonicalize(named), fs::canonicalize(recorder)) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            }
}

/// Files by which tools ask (NVTX's nvtxInit.h, load sequence 3).
fn asking() -> Vec<PathBuf> {
    const NAME: &str = "nvidia/nvtx/nvtx-cuda.yaml";
    let mut files = vec![
        Path::new("/run").join(NAME),
        PathBuf::from("/run/nvidia/nvtx/user.0/nvtx-cuda.yaml"),
    ];
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    files.extend(own.map(|directory| Path::new(&directory).join(NAME)));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_library_under_another_name() {
        let scratch = tempfile::tempdir().unwrap();
        let library = scratch.path().join("package.so");
        fs::write(&library, "").unwrap();
        let link = scratch.path().join(library::NAME);
        std::os::unix::fs::symlink(&library, &link).unwrap();
        assert!(is_recorder(library.as_os_str(), &library));
        assert!(is_recorder(link.as_os_str(), &library));
        assert!(!is_recorder(OsStr::new("/opt/other.so"), &library));
        assert!(!is_recorder(OsStr::new("./."), &library));
        fs::remove_file(&library).unwrap();
        assert!(!is_recorder(link.as_os_str(), &library));
    }
}
