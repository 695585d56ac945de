//! Snapshots: those that the recorder keeps when allocations fail (`VRAMTRACE_ON_OOM=snapshot`), and
//! those that `vramtrace snapshot` makes.

use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;
use vramtrace_tests::{
    Check, Finished, Leaks, Run, Scratch, artifacts, program, read_json, vramtrace,
};

fn oom(what: &str, which: &str) -> Run {
    Run::new(program("oom"))
        .args([what, which])
        .env("VRAMTRACE_SIM_MEMORY", "2GiB")
        .env("VRAMTRACE_ON_OOM", "snapshot")
}

fn snapshots(scratch: &Scratch) -> Vec<PathBuf> {
    let files = scratch.files().into_iter();
    let named = files.filter(|name| name.contains(".oom-"));
    named.map(|name| scratch.path().join(name)).collect()
}

/// Every one is a whole trace in which live entries, sums and accounts agree.
fn are_whole(files: &[PathBuf]) {
    for file in files {
        let check = Check::of(file);
        let verdict = check.verdict();
        assert!(
            ["whole", "history-lost"].contains(&verdict),
            "{}: {:#}",
            file.display(),
            check.json
        );
    }
}

fn failures(document: &Value) -> &Vec<Value> {
    document["failures"].as_array().expect("failures")
}

#[test]
fn every_command_reads_one() {
    let finished = oom("full", "linear").succeeds();
    let [snapshot] = &snapshots(&finished.scratch)[..] else {
        panic!("{:?}", finished.scratch.files())
    };
    are_whole(std::slice::from_ref(snapshot));
    let trace = finished.trace();
    assert_eq!(
        snapshot.to_string_lossy(),
        format!("{}.oom-1", trace.display())
    );
    let of = |command: &str, file: &Path| {
        let mut document = read_json(command, file, &[]);
        for process in document["processes"].as_array_mut().expect("processes") {
            assert_eq!(process["pid"].as_u64(), trace_pid(&trace));
            *process = Value::Null;
        }
        document["notes"] = Value::Null;
        document
    };
    // What was live then is live in the end.
    for command in ["leaks", "peak"] {
        assert_eq!(of(command, snapshot), of(command, &trace), "{command}");
    }
    for command in [
        "summary",
        "timeline",
        "growth",
        "churn",
        "fragmentation",
        "reconcile",
        "oom",
    ] {
        let document = read_json(command, snapshot, &[]);
        assert_eq!(document["processes"][0]["end"], "snapshot", "{command}");
    }
    let leaks = Leaks::of(snapshot, &[]);
    assert!(leaks.complete());
    assert_eq!(leaks.total("gpu"), (1300 << 20, 1));
    assert_eq!(leaks.groups()[0].functions[0], "fill");
    let document = read_json("oom", snapshot, &[]);
    let [failure] = &failures(&document)[..] else {
        panic!("{document:#}")
    };
    assert_eq!(failure["fate"], "open");
    assert_eq!(failure["stack"][0]["function"], "ask");
    // A directory's traces are its processes, each once.
    let all = read_json("leaks", finished.scratch.path(), &[]);
    assert_eq!(all["processes"].as_array().map(Vec::len), Some(1));
}

fn trace_pid(trace: &Path) -> Option<u64> {
    trace.file_name()?.to_str()?.split('.').nth(1)?.parse().ok()
}

#[test]
fn what_the_log_has_forgotten() {
    let finished = oom("forgotten", "9000")
        .env("VRAMTRACE_SIZE", "1MiB")
        .succeeds();
    let document = read_json("oom", &finished.trace(), &[]);
    let [failure] = &failures(&document)[..] else {
        panic!("{document:#}")
    };
    assert_eq!(document["forgotten"], 0);
    assert_eq!(failure["fate"], "went-on");
    assert_eq!(failure["later_allocations"], 9000);
    assert_eq!(failure["asked_bytes"], 1u64 << 30);
    assert!(failure["free_bytes"].is_u64());
    let held = &failure["held"];
    assert_eq!(held["source"], "snapshot");
    assert_eq!(held["used"]["bytes"], 1300u64 << 20);
    assert_eq!(held["groups"][0]["stack"][0]["function"], "fill");
    // Without it, the answer is that there is none.
    let snapshot = &snapshots(&finished.scratch)[0];
    std::fs::remove_file(snapshot).expect("it is gone");
    let without = read_json("oom", &finished.trace(), &[]);
    assert!(failures(&without).is_empty());
    assert_eq!(without["forgotten"], 1);
}

/// One that an earlier process left, under the name that this one would have.
#[test]
fn another_process_s_snapshot_is_not_taken_for_this_one_s() {
    let finished = oom("full", "linear").succeeds();
    let other = oom("hoarded", "linear").succeeds();
    let (own, foreign) = (
        &snapshots(&finished.scratch)[0],
        &snapshots(&other.scratch)[0],
    );
    std::fs::copy(foreign, own).expect("replaced");
    let document = read_json("oom", &finished.trace(), &[]);
    assert_eq!(failures(&document)[0]["snapshot"], Value::Null);
    assert_eq!(failures(&document).len(), 1);
}

#[test]
fn a_storm_leaves_a_few_within_their_bound() {
    let plain = oom("storm", "3000").plain().succeeds();
    let finished = oom("storm", "3000").succeeds();
    assert_eq!(finished.observable(), plain.observable());
    let files = snapshots(&finished.scratch);
    // Four at once, and one a second, of which the first and the last two are kept.
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files[0].to_string_lossy().ends_with(".oom-1"));
    assert!(files[1].to_string_lossy().ends_with(".oom-2"));
    are_whole(&files);
    let size = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).expect("metadata");
        std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
    };
    let bytes: u64 = files.iter().map(size).sum();
    assert!(bytes <= 4 << 20, "{bytes}");
}

/// Each is of one event, though three threads go on.
#[test]
fn other_threads_go_on() {
    for size in ["1MiB", "4MiB"] {
        let finished = oom("busy", "").env("VRAMTRACE_SIZE", size).succeeds();
        let files = snapshots(&finished.scratch);
        assert!(!files.is_empty());
        are_whole(&files);
        for file in &files {
            assert!(Leaks::of(file, &[]).complete());
        }
        finished.leaks().assert_are(&[]);
    }
}

fn one_line(finished: &Finished, with: &str) {
    let said = finished.said();
    let [line] = said[..] else { panic!("{said:?}") };
    assert!(
        line.contains("no snapshot") && line.contains(with),
        "{line}"
    );
    let document = read_json("check", &finished.trace(), &[]);
    assert!(document.to_string().contains("no-snapshot"), "{document:#}");
}

#[test]
fn one_that_finds_no_room_is_one_line() {
    let finished = oom("storm", "50").env("VRAMTRACE_KEEP", "4KiB").succeeds();
    assert_eq!(finished.stdout, "over\n");
    one_line(&finished, "VRAMTRACE_KEEP");
    assert!(snapshots(&finished.scratch).is_empty());
}

#[test]
fn one_whose_directory_is_gone_is_one_line() {
    let run = oom("moved", "");
    let directory = run.scratch().join("there");
    let finished = run
        .with(|command| {
            // The second argument, anew.
            let program = command.get_program().to_owned();
            let environment: Vec<_> = command
                .get_envs()
                .map(|(name, value)| (name.to_owned(), value.map(OsStr::to_owned)))
                .collect();
            *command = std::process::Command::new(program);
            command.arg("moved").arg(&directory);
            for (name, value) in environment {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        })
        .env("VRAMTRACE_OUTPUT", directory.join("x.vrt"))
        .succeeds();
    assert_eq!(finished.stdout, "linear 2\nlinear 2\n");
    one_line(&finished, "there");
    assert_eq!(finished.scratch.files(), ["there.gone/x.vrt"]);
}

#[test]
fn a_policy_that_does_not_exist_is_no_guess() {
    let finished = oom("full", "linear")
        .env("VRAMTRACE_ON_OOM", "pray")
        .succeeds();
    assert_eq!(finished.stdout, "linear 2\n");
    assert!(finished.said()[0].contains("record, snapshot or rescue"));
    assert!(finished.scratch.files().is_empty());
}

/// Starts it, and waits until it has said something.
fn started(run: Run) -> Child {
    run.with_stdout(|stdout| {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(!line.is_empty());
    })
}

fn kill(mut child: Child) {
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
}

/// Whatever was being done when it was killed: what has a name is whole.
#[test]
fn killed_while_they_are_written() {
    let rounds = if vramtrace_tests::full() { 60 } else { 12 };
    for round in 0..rounds {
        let directory = Scratch::new();
        let run = oom("storm-killed", "")
            .env("VRAMTRACE_OUTPUT", directory.path().join("x.vrt"))
            .env("VRAMTRACE_SIZE", "1MiB");
        let child = started(run);
        std::thread::sleep(Duration::from_micros(round * 700));
        kill(child);
        are_whole(&snapshots(&directory));
        for name in directory.files() {
            let known = name == "x.vrt" || name.contains(".oom-") || name.ends_with(".tmp");
            assert!(known, "{name}");
        }
        assert!(Check::of(&directory.path().join("x.vrt")).verdict() != "damaged");
    }
}

/// The story of a job that was killed, from its files alone; and from the snapshot alone.
#[test]
fn killed_after_it_failed() {
    let directory = Scratch::new();
    let trace = directory.path().join("x.vrt");
    kill(started(oom("killed", "").env("VRAMTRACE_OUTPUT", &trace)));
    let document = read_json("oom", directory.path(), &[]);
    let [failure] = &failures(&document)[..] else {
        panic!("{document:#}")
    };
    assert_eq!(document["processes"][0]["end"], "killed");
    assert_eq!(failure["fate"], "last");
    assert_eq!(failure["held"]["used"]["bytes"], 1300u64 << 20);
    std::fs::remove_file(&trace).expect("the trace is lost");
    let document = read_json("oom", directory.path(), &[]);
    let [failure] = &failures(&document)[..] else {
        panic!("{document:#}")
    };
    assert_eq!(document["processes"][0]["end"], "snapshot");
    assert_eq!(failure["held"]["used"]["bytes"], 1300u64 << 20);
    assert_eq!(failure["held"]["groups"][0]["stack"][0]["function"], "fill");
}

#[test]
fn a_run_brings_them_home() {
    let scratch = Scratch::new();
    let out = scratch.path().join("out");
    let runtime = scratch.path().join("runtime");
    for made in [&out, &runtime] {
        std::fs::create_dir(made).expect("a directory");
    }
    let run = |options: &[&str]| {
        std::process::Command::new(&artifacts().reader)
            .args(["run", "-o", "x.vrt", "--on-oom", "snapshot"])
            .args(options)
            .arg("--")
            .arg(program("oom"))
            .args(["full", "linear"])
            .current_dir(&out)
            .env("LD_LIBRARY_PATH", &artifacts().driver)
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("VRAMTRACE_SIM_MEMORY", "2GiB")
            .env("VRAMTRACE_SIZE", "4MiB")
            .output()
            .expect("it runs")
    };
    let ran = run(&[]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.contains("x.vrt"), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "linear 2\n");
    assert_eq!(scratch.files(), ["out/x.vrt", "out/x.vrt.oom-1"], "{said}");
    let document = read_json("oom", &out.join("x.vrt"), &[]);
    let snapshot = failures(&document)[0]["snapshot"].as_str();
    assert!(snapshot.is_some_and(|path| path.ends_with("x.vrt.oom-1")));
    // The trace is replaced; the old snapshot is not, nor taken for the new one's.
    assert!(run(&["-f"]).status.success());
    let files = ["out/x.vrt", "out/x.vrt.oom-1", "out/x.vrt.oom-2"];
    assert_eq!(scratch.files(), files);
    let document = read_json("oom", &out.join("x.vrt"), &[]);
    assert_eq!(failures(&document).len(), 1);
    let snapshot = failures(&document)[0]["snapshot"].as_str();
    assert!(snapshot.is_some_and(|path| path.ends_with("x.vrt.oom-2")));
}

#[test]
fn a_running_process_is_copied_while_it_goes_on() {
    let directory = Scratch::new();
    let trace = directory.path().join("x.vrt");
    let child = started(oom("endless", "").env("VRAMTRACE_OUTPUT", &trace));
    let pid = child.id().to_string();
    for round in 0..5 {
        let copy = directory.path().join(format!("copy-{round}"));
        let made = vramtrace([
            OsStr::new("snapshot"),
            pid.as_ref(),
            "-o".as_ref(),
            copy.as_ref(),
        ]);
        assert!(made.status.success(), "{made:?}");
        are_whole(std::slice::from_ref(&copy));
        let leaks = Leaks::of(&copy, &[]);
        assert!(leaks.complete());
        let (_, live) = leaks.total("gpu");
        assert!((1..=128).contains(&live), "{live}");
        assert_eq!(leaks.json["processes"][0]["end"], "snapshot");
        let again = vramtrace([
            OsStr::new("snapshot"),
            pid.as_ref(),
            "-o".as_ref(),
            copy.as_ref(),
        ]);
        assert_eq!(again.status.code(), Some(2), "{again:?}");
    }
    kill(child);
    let gone = vramtrace(["snapshot", &pid]);
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
    // Its trace can be copied all the same.
    let copy = directory.path().join("last");
    let made = vramtrace([
        OsStr::new("snapshot"),
        trace.as_ref(),
        "-o".as_ref(),
        copy.as_ref(),
    ]);
    assert!(made.status.success(), "{made:?}");
    are_whole(std::slice::from_ref(&copy));
    assert_eq!(
        Leaks::of(&copy, &[]).total("gpu"),
        Leaks::of(&trace, &[]).total("gpu")
    );
}
