//! Traces with their symbols in one file, read where the programs are not any more.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use vramtrace_tests::{Build, Leaks, Left, Run, copy_program, program, vramtrace};

/// A copy of a program in a directory of the test's own, so that it can be taken away.
fn own_copy(of: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join(of.file_name().expect("a file"));
    copy_program(of, &copy, "755");
    copy
}

/// Ends its process, whatever comes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn archive(what: &Path, to: &Path) {
    let output = vramtrace([
        "archive".as_ref(),
        what.as_os_str(),
        "-o".as_ref(),
        to.as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
}

/// What `leaks --json` says, with what differs from file to file made equal.
fn leaks(of: &Path, named: &Path) -> String {
    let json = Leaks::of(of, &["--native", "--all-frames"])
        .json
        .to_string();
    json.replace(&*named.to_string_lossy(), "DIRECTORY")
}

/// Functions, source lines and inlined frames come from the archive when the file that had them is
/// gone, and another one with the same path changes nothing.
#[test]
fn symbols_survive_the_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let built = Build::of("kinds").flag("-g").build();
    let kinds = own_copy(&built, directory.path());
    let finished = Run::new(&kinds)
        .args(["dlsym", "linear", "pitch"])
        .succeeds();
    let before = leaks(&finished.trace(), finished.scratch.path());
    assert!(
        before.contains("kinds.c") && before.contains("\"linear\""),
        "{before}"
    );
    let tar = directory.path().join("out.tar");
    archive(finished.scratch.path(), &tar);
    std::fs::remove_file(&kinds).expect("the program can be removed");
    // Without the archive the names are gone.
    let without = leaks(&finished.trace(), finished.scratch.path());
    assert!(!without.contains("\"linear\""), "{without}");
    assert_eq!(leaks(&tar, &tar), before);
    copy_program(&program("uses"), &kinds, "755");
    assert_eq!(leaks(&tar, &tar), before);
    Leaks::of(&tar, &[]).assert_are(&finished.left());
}

/// All processes of a run are in it, each with its own modules.
#[test]
fn several_processes() {
    let directory = tempfile::tempdir().expect("a directory");
    let ipc = own_copy(&program("ipc"), directory.path());
    let finished = Run::new(&ipc).args(["dlsym", "1"]).succeeds();
    assert_eq!(finished.scratch.traces().len(), 2);
    let before = leaks(finished.scratch.path(), finished.scratch.path());
    let tar = directory.path().join("out.tar");
    archive(finished.scratch.path(), &tar);
    std::fs::remove_file(&ipc).expect("the program can be removed");
    assert_eq!(leaks(&tar, &tar), before);
    let named = |left: &Left| before.contains(&format!("\"{}\"", left.function));
    assert!(finished.left().iter().all(named), "{before}");
}

/// A process that goes on allocating is archived as of one moment: the archive holds together, and
/// its live set adds up with its sums by stack.
#[test]
fn a_running_process_is_archived_as_of_one_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let (child, scratch) = Run::new(program("busy")).spawn();
    let mut child = Ended(child);
    let begun = std::time::Instant::now();
    while scratch.traces().is_empty() && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut before = 0;
    for round in 0..5 {
        let tar = directory.path().join(format!("{round}.tar"));
        archive(scratch.path(), &tar);
        let check = vramtrace([OsStr::new("check"), "--json".as_ref(), tar.as_os_str()]);
        let check: serde_json::Value = serde_json::from_slice(&check.stdout).expect("JSON");
        let own = &check["traces"][0];
        assert_ne!(own["verdict"], "damaged", "{check:#}");
        assert_eq!(own["process"]["end"], "unknown", "{check:#}");
        assert_eq!(own["contradictions"], serde_json::json!([]), "{check:#}");
        assert_eq!(own["broken_records"], 0, "{check:#}");
        assert_eq!(own["copied_while_written"], false, "{check:#}");
        let events = own["events"].as_u64().expect("a number");
        assert!(events > before, "{events} after {before}");
        before = events;
        let leaks = Leaks::of(&tar, &[]);
        assert!(leaks.complete(), "{}", leaks.incomplete_because());
        assert!(leaks.total("gpu").1 <= 64);
    }
    let ended = child.0.try_wait().expect("it can be asked");
    assert!(ended.is_none(), "it ended too early: {ended:?}");
}

/// Whoever has no vramtrace can look inside.
#[test]
fn tar_lists_what_is_inside() {
    let finished = Run::new(program("kinds"))
        .args(["dlsym", "linear"])
        .succeeds();
    let tar = finished.scratch.path().join("out.tar");
    archive(&finished.trace(), &tar);
    let listed = match Command::new("tar").arg("-tf").arg(&tar).output() {
        Ok(listed) => String::from_utf8_lossy(&listed.stdout).into_owned(),
        Err(why) => return vramtrace_tests::skip("tar -tf", &why.to_string()),
    };
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names[..2], ["vramtrace-archive.json", "symbols.json"]);
    assert!(
        names[2].starts_with("traces/kinds.") && names.len() == 3,
        "{listed}"
    );
}
