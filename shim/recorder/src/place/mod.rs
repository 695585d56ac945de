//! Where the hot trace file lives.
//!
//! A store into a mapped file can block for seconds while its file system stalls, so the file
//! goes where memory is: the run directory of `vramtrace run`, `$XDG_RUNTIME_DIR`, or a private
//! directory on `/dev/shm`; an explicit path is taken at its word unless it lies on a network or
//! FUSE file system.

pub mod directory;
pub mod keep;
pub mod pattern;

use crate::settings::Settings;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Name of a trace where none was chosen.
const DEFAULT_NAME: &[u8] = b"%e.%p.vrt";

/// One place to try.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Directory of the file.
    pub directory: PathBuf,
    /// Its name; `.2`, `.3` … is added if it is taken.
    pub name: OsString,
    /// The directory is shared memory that others need as well: take at most 1/8 of what is free.
    pub modest: bool,
    /// Created by us: private, and owned by this user, or not used at all.
    pub private: bool,
}

/// The places to try, best first, and where the file belongs in the end if not there.
pub fn candidates(settings: &Settings) -> (Vec<Candidate>, Option<String>) {
    let chosen = settings.output.as_ref().map(|pattern| {
        let mut expanded = pattern::expand(pattern);
        // A directory stands for the usual name in it.
        let is_directory = expanded.ends_with(b"/")
            || PathBuf::from(OsString::from_vec(expanded.clone())).is_dir();
        if is_directory {
            expanded.push(b'/');
            expanded.extend(pattern::expand(DEFAULT_NAME));
        }
        let path = PathBuf::from(OsString::from_vec(expanded));
        std::path::absolute(&path).unwrap_or(path)
    });
    if let Some(directory) = &settings.run_dir {
        let directory = PathBuf::from(OsString::from_vec(directory.clone()));
        let name = OsString::from(format!("{}.vrt", std::process::id()));
        // The run directory lies on shared memory like the default one.
        let candidate = Candidate {
            directory,
            name,
            modest: true,
            private: false,
        };
        return (
            vec![candidate],
            chosen.map(|path| path.to_string_lossy().into_owned()),
        );
    }
    if let Some(path) = chosen {
        let name = path
            .file_name()
            .map_or_else(|| OsString::from("vramtrace.vrt"), OsString::from);
        let directory = path
            .parent()
            .map_or_else(|| PathBuf::from("/"), PathBuf::from);
        return (
            vec![Candidate {
                directory,
                name,
                modest: false,
                private: false,
            }],
            None,
        );
    }
    let name = OsString::from_vec(pattern::expand(DEFAULT_NAME));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| dir.as_bytes().starts_with(b"/"))
        .map(|dir| PathBuf::from(dir).join("vramtrace"));
    // SAFETY: geteuid takes nothing and cannot fail.
    let shared = PathBuf::from(format!("/dev/shm/vramtrace-{}", unsafe { libc::geteuid() }));
    let places = runtime.into_iter().chain([shared]);
    (
        places
            .map(|directory| Candidate {
                directory,
                name: name.clone(),
                modest: true,
                private: true,
            })
            .collect(),
        None,
    )
}
