//! Python stacks: what the trace says of each allocation is what the interpreter said of itself.
//!
//! The programs (tests/programs/python) print, for every allocation, their own frames; each
//! version of Python that is installed runs them.

use object::{Object, ObjectSection};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vramtrace_tests::python::{
    KEPT, Place, Sums, assert_same, groups, is_interpreter, is_python, native, places, python_part,
    pythons, run, said, said_with, script_folder, traced,
};
use vramtrace_tests::{Build, Check, Finished, Run, artifacts, full, program, read_json, skip};

/// All of a program's allocations are where it says, in every version.
fn in_every_version(what: &[&str]) {
    for (minor, python) in pythons() {
        let finished = run(&python, "stacks.py", what).succeeds();
        let about = format!("Python 3.{minor} ({})", python.display());
        assert_eq!(finished.said(), [""; 0], "{about}");
        let groups = groups(&finished.trace(), &[]);
        assert_same(&traced(&groups), &said(&finished.stdout), &about);
        for group in &groups {
            let stack = group["stack"].as_array().expect("a stack");
            let truncated = group["stack_truncated"] == true;
            let deep = python_part(group).len() == KEPT;
            assert!(truncated || !deep, "{about}: {group:#}");
            assert!(!stack.iter().any(is_interpreter), "{about}: {group:#}");
            // Frequent calls have Python frames only; rare ones native ones too, in one order.
            let outermost_is_python = stack.iter().rposition(is_python);
            if group["api"] == "cuMemAllocAsync" {
                assert!(stack.iter().all(is_python), "{about}: {group:#}");
                assert_eq!(truncated, deep, "{about}: {group:#}");
            } else {
                assert!(!is_python(&stack[0]), "{about}: {group:#}");
                assert!(outermost_is_python > Some(1), "{about}: {group:#}");
            }
        }
    }
}

#[test]
fn functions_methods_and_callbacks() {
    in_every_version(&["plain"]);
}

#[test]
fn generators_and_coroutines() {
    in_every_version(&["generators"]);
}

#[test]
fn exceptions_and_finalizers() {
    in_every_version(&["exceptions"]);
}

#[test]
fn a_thousand_frames() {
    in_every_version(&["recursion"]);
}

#[test]
fn threads() {
    in_every_version(&["threads"]);
}

#[test]
fn names_of_every_kind_and_code_that_comes_and_goes() {
    in_every_version(&["names"]);
}

/// With Python in them they have Python frames; without, native ones, also for frequent calls.
#[test]
fn threads_that_python_did_not_make() {
    for (minor, python) in pythons() {
        let run = run(&python, "stacks.py", &["foreign"]).env("NATIVE", native());
        let finished = run.succeeds();
        let about = format!("Python 3.{minor}");
        let (native, python): (Vec<Value>, Vec<Value>) = groups(&finished.trace(), &[])
            .into_iter()
            .partition(|group| group["bytes"] == 77);
        assert_same(&traced(&python), &said(&finished.stdout), &about);
        assert_eq!(native.len(), 1, "{about}");
        assert_eq!(native[0]["api"], "cuMemAllocAsync");
        assert_eq!(
            native[0]["stack"][0]["function"], "without_python",
            "{about}"
        );
        assert!(python_part(&native[0]).is_empty(), "{about}");
    }
}

/// Each process has its own trace, with its own names.
#[test]
fn forked_children() {
    for (minor, python) in pythons() {
        let finished = run(&python, "stacks.py", &["forks"]).succeeds();
        let about = format!("Python 3.{minor}");
        let traces = finished.scratch.traces();
        assert_eq!(traces.len(), 3, "{about}: {traces:?}");
        let mut all = Sums::new();
        for trace in &traces {
            let of_process = traced(&groups(trace, &[]));
            assert!(!of_process.is_empty());
            for (key, sum) in of_process {
                let into = all.entry(key).or_default();
                *into = (into.0 + sum.0, into.1 + sum.1);
            }
            let check = Check::of(trace);
            assert_eq!(check.json["python"]["stacks_recorded"], true, "{about}");
        }
        assert_same(&all, &said(&finished.stdout), &about);
    }
}

/// From 3.12 on a subinterpreter's allocations have its own frames. Before, a thread is known by
/// the interpreter that it came from, whose frames are there too, further out.
#[test]
fn subinterpreters() {
    for (minor, python) in pythons() {
        let finished = run(&python, "stacks.py", &["subinterpreters"]).succeeds();
        let about = format!("Python 3.{minor}");
        let outside = finished
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("outside "));
        let outside: Value = serde_json::from_str(outside.expect("a line")).expect("frames");
        let outside = places(&outside);
        let mut expected = said(&finished.stdout);
        for ((api, own), sum) in said_with(&finished.stdout, "inside ") {
            let frames = if minor < 12 { outside.clone() } else { own };
            let into = expected.entry((api, frames)).or_default();
            *into = (into.0 + sum.0, into.1 + sum.1);
        }
        assert_same(&traced(&groups(&finished.trace(), &[])), &expected, &about);
    }
}

/// A program that loads an interpreter when it is traced already.
#[test]
fn an_interpreter_that_comes_later() {
    let mut tried = 0;
    for (minor, python) in pythons() {
        let home = python.ancestors().nth(2).expect("bin/python");
        let library = home.join(format!("lib/libpython3.{minor}.so.1.0"));
        if !library.is_file() {
            continue;
        }
        tried += 1;
        let script = "def f():\n    driver.all_ways()\nimport driver; f()\n";
        let finished = Run::new(program("embeds_python"))
            .arg(&library)
            .arg(script)
            .env("PYTHONHOME", home)
            .env("PYTHONPATH", script_folder())
            .env("VRAMTRACE_SIZE", "16MiB")
            .succeeds();
        let about = format!("Python 3.{minor} in a program");
        let (native, python): (Vec<Value>, Vec<Value>) = groups(&finished.trace(), &[])
            .into_iter()
            .partition(|group| group["bytes"] == 99);
        assert_same(&traced(&python), &said(&finished.stdout), &about);
        assert_eq!(
            native[0]["stack"][0]["function"], "before_python",
            "{about}"
        );
        let sync = python.iter().find(|group| group["api"] == "cuMemAlloc_v2");
        let sync = sync.expect("a group")["stack"].as_array().expect("a stack");
        let main = sync.iter().position(|frame| frame["function"] == "main");
        // The program's own frames are outside of Python's.
        assert!(
            main > sync.iter().rposition(is_python),
            "{about}: {sync:#?}"
        );
        let check = finished.check();
        assert_eq!(check.json["python"]["stacks_recorded"], true, "{about}");
    }
    if tried == 0 {
        skip("a program that loads Python", "there is no libpython3 here");
    }
}

/// What cannot be read is said once, and native stacks take the place.
#[test]
fn what_is_not_as_it_should_be_is_switched_off() {
    for (version, state, free, says) in [
        (
            "0x031000f0",
            "memory",
            0,
            "Python 3.16.0: this version is not known",
        ),
        (
            "0x030c01f0",
            "(void *)8",
            0,
            "Python 3.12.1: its frames are not where they should be",
        ),
        (
            "0x030c01f0",
            "(char *)memory + 1",
            0,
            "Python 3.12.1: its frames are not",
        ),
        (
            "0x030b00f0",
            "memory",
            0,
            "Python 3.11.0: its frames are not",
        ),
        (
            "0x030d00f0",
            "memory",
            1,
            "Python 3.13.0 free-threaded: its frames are not",
        ),
        (
            "0x030e00f0",
            "memory",
            1,
            "Python 3.14.0 free-threaded: its frames are not",
        ),
    ] {
        let fake = Build::of("fake_python")
            .flag(format!("-DVERSION={version}"))
            .flag(format!("-DSTATE={state}"))
            .flag(format!("-DFREE={free}"))
            .flag("-rdynamic")
            .build();
        let finished = Run::new(&fake).succeeds();
        let said = finished.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("vramtrace: no Python stacks of"),
            "{said:?}"
        );
        assert!(said[0].contains(says), "{said:?}");
        for group in groups(&finished.trace(), &[]) {
            assert_eq!(group["stack"][0]["function"], "leak", "{group:#}");
        }
        let check = finished.check();
        assert_eq!(check.json["python"]["stacks_recorded"], false);
        assert_eq!(check.verdict(), "whole");
        let noted = check.json["notes"].to_string();
        assert!(
            noted.contains("python-stacks-off") && noted.contains(says),
            "{noted}"
        );
        // Who asked for none hears nothing, nor who asked for silence.
        for (name, value) in [("VRAMTRACE_STACKS", "native"), ("VRAMTRACE_LOG", "quiet")] {
            let quiet = Run::new(&fake).env(name, value).succeeds();
            assert_eq!(quiet.said(), [""; 0], "{name}");
        }
    }
}

/// Nothing of it is called when it is gone, not even to ask whether it goes down.
#[test]
fn an_interpreter_that_is_unloaded() {
    let fake = Build::of("fake_python")
        .flag("-DVERSION=0x030c01f0")
        .flag("-DSTATE=0")
        .flag("-DFREE=0")
        .shared()
        .build();
    let unloads = program("unloads_python");
    let finished = Run::new(unloads).arg(fake).succeeds();
    assert_eq!(finished.said(), [""; 0]);
    assert_eq!(finished.leaks().total("gpu"), (6000, 6));
}

#[test]
fn settings_choose_the_stacks() {
    for (minor, python) in pythons() {
        let with = |stacks: &str| -> (Finished, Vec<Value>) {
            let run = run(&python, "stacks.py", &["exceptions"]);
            let finished = run.env("VRAMTRACE_STACKS", stacks).succeeds();
            let groups = groups(&finished.trace(), &[]);
            (finished, groups)
        };
        let frames = |group: &Value| group["stack"].as_array().expect("a stack").clone();
        let about = format!("Python 3.{minor}");
        let (finished, groups) = with("python");
        assert_same(&traced(&groups), &said(&finished.stdout), &about);
        assert!(
            groups
                .iter()
                .all(|group| frames(group).iter().all(is_python))
        );
        let (finished, groups) = with("both");
        assert_same(&traced(&groups), &said(&finished.stdout), &about);
        assert!(groups.iter().all(|group| !is_python(&group["stack"][0])));
        for (stacks, frames_at_all) in [("native", true), ("off", false)] {
            let (finished, groups) = with(stacks);
            assert!(groups.iter().all(|group| python_part(group).is_empty()));
            assert!(
                groups
                    .iter()
                    .all(|group| frames(group).is_empty() != frames_at_all)
            );
            let python = &finished.check().json["python"];
            assert_eq!(
                python["why_not"],
                format!("VRAMTRACE_STACKS={stacks}"),
                "{about}"
            );
        }
    }
}

/// `--native` shows the interpreter's frames too, in their places; grouping by line needs none.
#[test]
fn reports_show_what_they_are_asked_for() {
    for (minor, python) in pythons() {
        let finished = run(&python, "stacks.py", &["exceptions"]).succeeds();
        let about = format!("Python 3.{minor}");
        let said = said(&finished.stdout);
        let with_native = groups(&finished.trace(), &["--native"]);
        assert_same(&traced(&with_native), &said, &about);
        for group in with_native
            .iter()
            .filter(|group| group["api"] == "cuMemAlloc_v2")
        {
            let stack = group["stack"].as_array().expect("a stack");
            let is_loop = |frame: &&Value| {
                let function = frame["function"].as_str().unwrap_or_default();
                !is_python(frame)
                    && ["_PyEval_EvalFrameDefault", "_TAIL_CALL_"]
                        .iter()
                        .any(|name| function.starts_with(name))
            };
            let loops = stack.iter().filter(is_loop).count();
            // From 3.14 an instruction may be a function of its own, whose name `strip` removes.
            if minor >= 14 && loops == 0 {
                skip(
                    &format!("{about}'s loops among native frames"),
                    "they have no names",
                );
                continue;
            }
            let frames = stack.iter().filter(|frame| is_python(frame)).count();
            // Up to 3.10 each Python frame has a loop; later ones share.
            assert!(loops > 0 && loops <= frames, "{about}: {group:#}");
            assert!(minor > 10 || loops == frames, "{about}: {group:#}");
            // The innermost Python frame is called from the loop that runs it.
            let first = stack.iter().position(is_python).expect("a Python frame");
            let first_loop = stack
                .iter()
                .position(|frame| is_loop(&frame))
                .expect("a loop");
            assert!(first < first_loop, "{about}: {group:#}");
        }
        let by_line = groups(&finished.trace(), &["--by", "python"]);
        let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for ((_, frames), sum) in &said {
            let (function, file, line) = &frames[0];
            let into = expected
                .entry(format!("{function} ({file}:{line})"))
                .or_default();
            *into = (into.0 + sum.0, into.1 + sum.1);
        }
        let found: BTreeMap<String, (u64, u64)> = by_line
            .iter()
            .map(|group| {
                let number = |name: &str| group[name].as_u64().expect("a number");
                let value = group["value"].as_str().expect("a line").to_owned();
                (value, (number("bytes"), number("count")))
            })
            .collect();
        assert_eq!(found, expected, "{about}");
    }
}

/// Nothing goes wrong while the interpreter goes down, whoever allocates then.
#[test]
fn the_end_of_the_interpreter() {
    for (minor, python) in pythons() {
        for _ in 0..if full() { 20 } else { 2 } {
            let finished = run(&python, "teardown.py", &[])
                .env("NATIVE", native())
                .succeeds();
            let about = format!("Python 3.{minor}");
            assert_eq!(finished.said(), [""; 0], "{about}");
            let said = said(&finished.stdout);
            let traced = traced(&groups(&finished.trace(), &[]));
            for (key, sum) in &said {
                assert_eq!(traced.get(key), Some(sum), "{about}: {key:#?}");
            }
        }
    }
}

/// Every stack allocates its own number of bytes: one wrong stack among all, and a sum is no
/// multiple of that.
#[test]
fn many_captures_beside_busy_threads() {
    let captures = if full() { 3_000_000 } else { 30_000 };
    for (minor, python) in pythons() {
        let run = run(&python, "soak.py", &[&captures.to_string()]);
        let finished = run.env("NATIVE", native()).succeeds();
        let about = format!("Python 3.{minor}");
        let mut expected: BTreeMap<Vec<Place>, (u64, u64)> = BTreeMap::new();
        for line in finished
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix("storm "))
        {
            let fields: Vec<&str> = line.splitn(3, ' ').collect();
            let number = |at: usize| fields[at].parse::<u64>().expect("a number");
            let frames: Value = serde_json::from_str(fields[2]).expect("frames");
            expected.insert(places(&frames), (number(0), number(0) * number(1)));
        }
        let summary = read_json("summary", &finished.trace(), &["--top", "0"]);
        let mut found: BTreeMap<Vec<Place>, (u64, u64)> = BTreeMap::new();
        for top in summary["top"].as_array().expect("stacks") {
            if top["kind"] != "async" {
                continue;
            }
            let number = |name: &str| top["allocated"][name].as_u64().expect("a number");
            let into = found.entry(python_part(top)).or_default();
            *into = (into.0 + number("count"), into.1 + number("bytes"));
        }
        assert!(expected.len() >= 40, "{about}: {} stacks", expected.len());
        assert_eq!(found, expected, "{about}");
        let total: u64 = found.values().map(|(count, _)| count).sum();
        assert_eq!(total, captures, "{about}");
    }
}

/// Of the interpreter the library knows only what takes no lock: the names that are looked for are
/// in the library as text, and none is linked.
#[test]
fn no_hook_can_reach_a_call_that_takes_the_interpreters_lock() {
    const HARMLESS: [&str; 9] = [
        "PyBytes_Type",
        "PyCode_Type",
        "PyGILState_GetThisThreadState",
        "PyUnicode_Type",
        "Py_GetVersion",
        "Py_IsFinalizing",
        "Py_Version",
        "_PyRuntime",
        "_Py_IsFinalizing",
    ];
    let library = std::fs::read(&artifacts().shim).expect("the library");
    let library = object::File::parse(&*library).expect("an ELF file");
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    // Shorter words are chance; the shortest function that takes the lock is Py_Exit.
    let is_name = |word: &str| {
        let rest = word.trim_start_matches('_').strip_prefix("Py");
        word.len() >= 7
            && rest.is_some_and(|r| r.starts_with(|c: char| c == '_' || c.is_ascii_uppercase()))
    };
    let mut found = BTreeSet::new();
    let mut sections = 0;
    for section in library.sections() {
        // Where text is that a program can use: constants, and what it is linked by.
        let name = section.name().expect("a name");
        if ![".rodata", ".data", ".dynstr"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            continue;
        }
        sections += 1;
        let bytes = section.data().expect("its content");
        let words = bytes.split(|byte| !is_word(byte));
        let words = words.filter_map(|word| std::str::from_utf8(word).ok());
        found.extend(words.filter(|word| is_name(word)).map(str::to_owned));
    }
    assert!(sections >= 3, "{sections}");
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, HARMLESS);
}
