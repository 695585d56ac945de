//! Snapshots beside traces: `NAME.oom-N` is one of the trace `NAME`, taken when an allocation
//! failed. They go where it goes.

use super::transfer::{Existing, move_file};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Between the name of a trace and the number of its snapshot.
const MARK: &[u8] = b".oom-";
/// More than this of one trace are a mistake.
const MOST: u32 = 10_000;

/// The name of the trace that a snapshot of this name is of, and which it is.
fn parts(name: &OsStr) -> Option<(&OsStr, u32)> {
    let name = name.as_bytes();
    let at = name.windows(MARK.len()).rposition(|part| part == MARK)?;
    let number = &name[at + MARK.len()..];
    let digits = number.split(|&byte| byte == b'.').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (at > 0).then_some((OsStr::from_bytes(&name[..at]), number))
}

/// What the name of a snapshot has behind that of its trace; `None` for other names.
pub fn suffix(path: &Path) -> Option<String> {
    let (_, number) = path.file_name().and_then(parts)?;
    Some(format!(".oom-{number}"))
}

/// Whether a file is by its name a snapshot of a trace that lies beside it.
pub fn belongs_to_another(path: &Path) -> bool {
    let name = path.file_name().and_then(parts);
    name.is_some_and(|(trace, _)| path.with_file_name(trace).exists())
}

/// The snapshots of a trace that lie beside it, the first one first. Whether they are of the same
/// process the files say.
pub fn beside(trace: &Path) -> Vec<PathBuf> {
    let Some(name) = trace.file_name() else {
        return Vec::new();
    };
    let directory = match trace.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let own = entry.file_name();
            let (of, number) = parts(&own)?;
            (of == name).then(|| (number, trace.with_file_name(&own)))
        })
        .collect();
    found.sort();
    found.truncate(MOST as usize);
    found.into_iter().map(|(_, path)| path).collect()
}

/// A trace went from one place to another: its snapshots do, too. What is there already stays, and
/// the number goes up. Returns what could not be done; sentences.
pub fn follow(from: &Path, to: &Path) -> Vec<String> {
    let mut remarks = Vec::new();
    for snapshot in beside(from) {
        let number = snapshot.file_name().and_then(parts);
        let number = number.map_or(1, |(_, number)| number);
        if let Err(error) = bring(&snapshot, to, number) {
            remarks.push(format!(
                "cannot move a snapshot of {} to its side: {error}; it stays at {}",
                to.display(),
                snapshot.display()
            ));
        }
    }
    remarks
}

fn bring(snapshot: &Path, trace: &Path, number: u32) -> io::Result<()> {
    for number in number..number.saturating_add(MOST) {
        let mut name = trace.as_os_str().to_owned();
        name.push(format!(".oom-{number}"));
        match move_file(snapshot, Path::new(&name), Existing::Keep) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    Err(io::Error::other("too many files of this name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names() {
        let parts = |name: &'static str| {
            parts(OsStr::new(name)).map(|(trace, number)| (trace.to_str().unwrap(), number))
        };
        assert_eq!(parts("a.vrt.oom-3"), Some(("a.vrt", 3)));
        assert_eq!(parts("a.vrt.oom-3.2"), Some(("a.vrt", 3)));
        assert_eq!(parts("a.oom-1.vrt.oom-12"), Some(("a.oom-1.vrt", 12)));
        for other in ["a.vrt", ".oom-1", "a.vrt.oom-", "a.vrt.oom-x", "a.vrt.oom"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn they_follow_their_trace_and_replace_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("1.vrt"), scratch.path().join("x.vrt"));
        for name in [
            "1.vrt",
            "1.vrt.oom-1",
            "1.vrt.oom-10",
            "1.vrt.oom-2",
            "x.vrt.oom-2",
        ] {
            fs::write(scratch.path().join(name), name).unwrap();
        }
        assert!(belongs_to_another(&scratch.path().join("1.vrt.oom-2")));
        assert!(!belongs_to_another(&scratch.path().join("x.vrt.oom-2")));
        fs::rename(&from, &to).unwrap();
        assert!(follow(&from, &to).is_empty());
        let names = beside(&to);
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            ["x.vrt.oom-1", "x.vrt.oom-2", "x.vrt.oom-3", "x.vrt.oom-10"]
        );
        let content = |name| fs::read_to_string(scratch.path().join(name)).unwrap();
        assert_eq!(content("x.vrt.oom-2"), "x.vrt.oom-2");
        assert_eq!(content("x.vrt.oom-3"), "1.vrt.oom-2");
    }
}
