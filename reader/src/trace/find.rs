//! Which files a command is about: those that were named, those in a named directory, or the
//! newest trace of this user.

use crate::launch::head::Head;
use crate::launch::{rundir, snapshots};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use vramtrace_format::layout::{Header, MAGIC};

/// What a command's arguments came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The traces, in the order they were named; of a directory, by name.
    pub traces: Vec<PathBuf>,
    /// None was named: this is the newest one.
    pub chosen: bool,
}

/// Why there is nothing to work on; a sentence.
pub type NotFound = String;

/// Resolves the TRACE arguments of a command.
pub fn resolve(named: &[PathBuf]) -> Result<Found, NotFound> {
    if named.is_empty() {
        return newest(&places());
    }
    let mut traces = Vec::new();
    for path in named {
        if !path.is_dir() {
            traces.push(path.clone());
            continue;
        }
        let mut inside = traces_in(path, has_trace_name);
        inside.extend(traces_in(path, is_all_that_is_left));
        inside.sort();
        if inside.is_empty() {
            return Err(format!(
                "{}: no traces (*.vrt) in this directory",
                path.display()
            ));
        }
        traces.extend(inside);
    }
    Ok(Found {
        traces,
        chosen: false,
    })
}

/// The trace that a running process writes: the one that it has mapped, wherever that is, else one of
/// its id where traces are when nobody says.
pub fn of_process(pid: u32) -> Result<PathBuf, NotFound> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    if let Ok(maps) = &maps {
        for (inode, path) in maps.lines().filter_map(shared_file) {
            // In a container the path is one of the container's.
            let inside = format!("/proc/{pid}/root{path}");
            let found = [path, &inside].into_iter().find_map(|path| {
                let path = Path::new(path);
                let named = linked_later(path, inode).unwrap_or_else(|| path.to_owned());
                is_of(&named, pid).then_some(named)
            });
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
    let known = places()
        .into_iter()
        .flat_map(|place| traces_in(&place, has_trace_name))
        .find(|path| is_of(path, pid));
    known.ok_or_else(|| match maps {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no process {pid}; name its trace")
        }
        Err(error) => format!("process {pid}: {error}; name its trace"),
        Ok(_) => format!(
            "process {pid} is not being traced (a program that has not used CUDA yet has no trace)"
        ),
    })
}

/// Inode and path of a line of `/proc/PID/maps` about a file that is shared and written to.
fn shared_file(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let inode = fields.nth(4)?.parse().ok().filter(|&inode| inode != 0)?;
    let path = &line[line.find('/')?..];
    line.contains(" rw-s ").then_some((inode, path))
}

/// The recorder gives its file a name when the file is complete; the kernel goes on to show the one
/// without (`DIRECTORY/#INODE (deleted)`).
fn linked_later(shown: &Path, inode: u64) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|facts| facts.ino() == inode);
    let unnamed = shown.file_name()?.to_str()?.starts_with('#');
    let files = || fs::read_dir(shown.parent()?).ok();
    let mut paths = unnamed.then(files)??.flatten().map(|entry| entry.path());
    paths.find(is_it)
}

/// Whether a file is the trace of a running process that we see as `pid`.
fn is_of(path: &Path, pid: u32) -> bool {
    // A driver's device is mapped as well, and opening it would mean something to the driver.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let head = Head::read(path).ok().flatten();
    head.is_some_and(|head| head.identity.pids().first() == Some(&pid))
}

fn newest(places: &[PathBuf]) -> Result<Found, NotFound> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let user = unsafe { libc::geteuid() };
    let newest = places
        .iter()
        .flat_map(|place| traces_in(place, has_trace_name))
        .filter_map(|path| Some((age_key(&path, user)?, path)))
        .max();
    match newest {
        Some((_, path)) => Ok(Found {
            traces: vec![path],
            chosen: true,
        }),
        None => Err(format!(
            "no trace found in {}; trace a program with `vramtrace run -- PROGRAM` (a program \
             that never uses CUDA leaves no trace)",
            places
                .iter()
                .map(|place| place.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// Where traces are when nobody says.
fn places() -> Vec<PathBuf> {
    let here = PathBuf::from(".");
    let mut places = rundir::bases(&here);
    places.push(here);
    places
}

/// A snapshot whose trace is not there any more. (Of others, `oom` finds them beside their trace,
/// and no other command is about two moments of one process unasked.)
fn is_all_that_is_left(path: &Path) -> bool {
    snapshots::suffix(path).is_some() && !snapshots::belongs_to_another(path)
}

/// Files in a directory, and in those that `vramtrace run` makes in it, that are what is `wanted`;
/// by name.
fn traces_in(place: &Path, wanted: fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut look = vec![(place.to_owned(), 0)];
    while let Some((place, depth)) = look.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth == 0 && rundir::is_run_dir(&path) => {
                    look.push((path, 1));
                }
                Ok(kind) if !kind.is_dir() && wanted(&path) => {
                    found.push(match path.strip_prefix("./") {
                        Ok(short) => short.to_owned(),
                        Err(_) => path,
                    });
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// `*.vrt`, or `*.vrt.2` and so on where a name was taken.
pub(crate) fn has_trace_name(path: &Path) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let extension = path.extension().and_then(|e| e.to_str());
    match extension {
        Some("vrt") => true,
        Some(text) if number(text) => path
            .file_stem()
            .is_some_and(|stem| Path::new(stem).extension().is_some_and(|e| e == "vrt")),
        _ => false,
    }
}

/// When a trace of `user` began or was last touched, Unix nanoseconds. (A mapped file in memory
/// is written without its time of change moving, so that alone says too little.)
fn age_key(path: &Path, user: u32) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.uid() != user {
        return None;
    }
    let mut start = [0; 8];
    let file = File::open(path).ok()?;
    file.read_exact_at(&mut start, 0).ok()?;
    if start != MAGIC {
        return None;
    }
    file.read_exact_at(
        &mut start,
        std::mem::offset_of!(Header, start_unix_ns) as u64,
    )
    .ok()?;
    let touched = (metadata.mtime().max(0) as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec() as u64);
    // A start in the future is nonsense.
    Some(touched.max(u64::from_le_bytes(start).min(touched.saturating_add(1 << 50))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traces() {
        for (name, is) in [
            ("a.vrt", true),
            ("a.vrt.2", true),
            ("a.2", false),
            ("a.vrt.", false),
            ("vrt", false),
            ("a.vrt.x", false),
        ] {
            assert_eq!(has_trace_name(Path::new(name)), is, "{name}");
        }
    }
}
