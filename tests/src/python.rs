//! Python programs that say of each allocation where they made it, and what a trace says of it.
//!
//! The programs are in tests/programs/python; every version of Python that is installed runs them.

use crate::programs::Build;
use crate::report::Leaks;
use crate::run::Run;
use crate::{repository, skip};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Minor versions of Python 3 that these tests want.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 8..=15;

/// `(3.x, interpreter)` of each version that is installed, by pyenv or on PATH.
pub fn pythons() -> Vec<(u32, PathBuf)> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::fs::read_dir(home.join(".pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    // Every installation counts: they are built in different ways.
    places.extend(std::env::split_paths(&path).filter(|place| !place.ends_with("shims")));
    let mut found = Vec::new();
    for minor in VERSIONS {
        let name = format!("python3.{minor}");
        let of_version: Vec<PathBuf> = places
            .iter()
            .map(|place| place.join(&name))
            .filter(|file| file.is_file())
            .collect();
        if of_version.is_empty() {
            skip(
                &format!("stacks of Python 3.{minor}"),
                "it is not installed",
            );
        }
        found.extend(of_version.into_iter().map(|file| (minor, file)));
    }
    let mut seen = BTreeSet::new();
    found.retain(|(_, file)| seen.insert(std::fs::canonicalize(file).ok()));
    found
}

/// A program of tests/programs/python.
pub fn script(name: &str) -> PathBuf {
    let folder = repository().join("tests/programs/python");
    std::fs::canonicalize(folder)
        .expect("the programs")
        .join(name)
}

/// One of them, to run with an interpreter.
pub fn run(python: &Path, name: &str, what: &[&str]) -> Run {
    Run::new(python)
        .args(["-B"])
        .arg(script(name))
        .args(what)
        .env("VRAMTRACE_SIZE", "16MiB")
        .env("PYTHONIOENCODING", "utf-8")
}

/// One place in a program: function, file, line.
pub type Place = (String, String, u64);
/// Bytes and number of allocations, by API and Python stack.
pub type Sums = BTreeMap<(String, Vec<Place>), (u64, u64)>;

/// Frames that the recorder keeps of one stack.
pub const KEPT: usize = 256;

/// Frames as a program prints them; so many of them as the recorder keeps.
pub fn places(frames: &Value) -> Vec<Place> {
    let place = |frame: &Value| {
        let text = |at: usize| frame[at].as_str().expect("text").to_owned();
        (text(0), text(1), frame[2].as_u64().unwrap_or(0))
    };
    let frames = frames.as_array().expect("frames");
    frames.iter().take(KEPT).map(place).collect()
}

/// What a program said of itself.
pub fn said(output: &str) -> Sums {
    said_with(output, "at ")
}

/// In lines that begin with a word.
pub fn said_with(output: &str, word: &str) -> Sums {
    let mut sums = Sums::new();
    for line in output.lines().filter_map(|line| line.strip_prefix(word)) {
        let (api, rest) = line.split_once(' ').expect("an API");
        let (bytes, frames) = rest.split_once(' ').expect("bytes");
        let frames: Value = serde_json::from_str(frames).expect("frames");
        let sum = sums.entry((api.to_owned(), places(&frames))).or_default();
        sum.0 += bytes.parse::<u64>().expect("bytes");
        sum.1 += 1;
    }
    assert!(!sums.is_empty(), "{output}");
    sums
}

/// Whether a frame of a report is Python's.
pub fn is_python(frame: &Value) -> bool {
    frame["language"] == "python"
}

/// Whether it is a native one of the interpreter.
pub fn is_interpreter(frame: &Value) -> bool {
    let module = frame["module"].as_str().unwrap_or("");
    let name = module.rsplit('/').next().unwrap_or(module);
    name.starts_with("libpython") || name.starts_with("python")
}

/// The groups of `leaks` at the end, which must be exact.
pub fn groups(trace: &Path, options: &[&str]) -> Vec<Value> {
    let options = [&["--point", "end"], options].concat();
    let leaks = Leaks::of(trace, &options);
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    leaks.json["groups"].as_array().expect("groups").clone()
}

/// The Python frames of a group.
pub fn python_part(group: &Value) -> Vec<Place> {
    let frames = group["stack"].as_array().expect("a stack");
    let place = |frame: &Value| {
        let text = |name: &str| frame[name].as_str().unwrap_or("?").to_owned();
        (
            text("function"),
            text("file"),
            frame["line"].as_u64().unwrap_or(0),
        )
    };
    frames.iter().filter(|f| is_python(f)).map(place).collect()
}

/// What a trace says.
pub fn traced(groups: &[Value]) -> Sums {
    let mut sums = Sums::new();
    for group in groups {
        let api = group["api"].as_str().expect("an API").to_owned();
        let sum = sums.entry((api, python_part(group))).or_default();
        sum.0 += group["bytes"].as_u64().expect("bytes");
        sum.1 += group["count"].as_u64().expect("a count");
    }
    sums
}

/// Fails unless a trace says of every allocation what the program said, and nothing else.
pub fn assert_same(traced: &Sums, said: &Sums, about: &str) {
    for (key, sum) in said {
        let found = traced.get(key);
        assert_eq!(
            found,
            Some(sum),
            "{about}: {key:#?}\nhas: {:#?}",
            traced.iter().filter(|(_, s)| *s == sum).collect::<Vec<_>>()
        );
    }
    assert_eq!(traced.len(), said.len(), "{about}: stacks that nobody said");
}

/// What the programs need in C.
pub fn native() -> PathBuf {
    Build::of("python_native").shared().linked().build()
}

/// Where the programs are.
pub fn script_folder() -> PathBuf {
    script("driver.py").parent().expect("a folder").to_owned()
}
