//! NVTX ranges and marks: what the program says that it did in which range is what the trace says.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use vramtrace_tests::{
    Build, Finished, Leaks, Run, Scratch, artifacts, full, read_json, skip, vramtrace,
};

/// Bytes and number of allocations by range.
type ByRange = BTreeMap<String, (u64, u64)>;

/// `in BYTES COUNT RANGE` lines.
fn told(output: &str) -> ByRange {
    let mut told = ByRange::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("in ")) {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect(line);
        let (bytes, count): (u64, u64) = (number(), number());
        let sum = told
            .entry(words.next().expect(line).to_owned())
            .or_default();
        *sum = (sum.0 + bytes, sum.1 + count);
    }
    told
}

fn groups(trace: &Path) -> Vec<Value> {
    let leaks = Leaks::of(trace, &["--by", "range"]);
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    leaks.json["groups"].as_array().expect("groups").clone()
}

fn by_range(trace: &Path) -> ByRange {
    let mut sums = ByRange::new();
    for group in groups(trace) {
        let number = |field: &str| group[field].as_u64().expect("a number");
        let range = group["value"].as_str().expect("a range").to_owned();
        let none = sums.insert(range, (number("bytes"), number("count")));
        assert_eq!(none, None, "a range is there twice");
    }
    sums
}

/// Rows of a table of a trace.
fn rows(trace: &Path, table: &str) -> Vec<Value> {
    let arguments = ["export", "--format", "json", "--table", table, "-o", "-"];
    let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(|word| word.as_ref()).collect();
    arguments.push(trace.as_os_str());
    let output = vramtrace(arguments);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let row = |line: &str| serde_json::from_str(line).expect("a row");
    text.lines().map(row).collect()
}

fn entered(trace: &Path, range: &str) -> Option<u64> {
    let groups = groups(trace);
    let group = groups.iter().find(|group| group["value"] == range);
    group.unwrap_or_else(|| panic!("{range}: {groups:#?}"))["entered"].as_u64()
}

fn ranges() -> Build {
    Build::of("ranges")
}

fn runs(arguments: &[&str]) -> Finished {
    let finished = Run::new(ranges().build()).args(arguments).succeeds();
    assert_eq!(finished.stderr, "");
    finished
}

/// The program's own account is the trace's.
fn is_told(finished: &Finished) {
    let told = told(&finished.stdout);
    assert!(!told.is_empty());
    assert_eq!(by_range(&finished.trace()), told);
}

#[test]
fn every_kind_of_range() {
    let finished = runs(&["kinds"]);
    is_told(&finished);
    assert_eq!(entered(&finished.trace(), "again"), Some(41));
    assert_eq!(entered(&finished.trace(), "no range"), None);
}

/// NCCL pushes a range when a communicator is made, and pops it with the payload extension's function.
#[test]
fn ranges_that_are_popped_with_a_payload() {
    let finished = runs(&["payload"]);
    is_told(&finished);
    assert_eq!(entered(&finished.trace(), "library: call"), Some(101));
    let run = || Run::new(ranges().build()).arg("payload");
    let plain = run().plain().succeeds();
    assert_eq!(finished.observable(), plain.observable());
}

#[test]
fn ranges_that_are_older_than_the_trace() {
    is_told(&runs(&["before"]));
}

#[test]
fn ranges_of_several_threads() {
    let finished = runs(&["threads"]);
    is_told(&finished);
    let leaks = Leaks::of(&finished.trace(), &["--by", "thread"]);
    let groups = leaks.json["groups"].as_array().expect("groups");
    let named = |name: &str| {
        let begins = |group: &&Value| group["value"].as_str().is_some_and(|v| v.starts_with(name));
        groups.iter().filter(begins).count()
    };
    assert_eq!(
        (named("worker A ("), named("worker B (")),
        (1, 1),
        "{groups:#?}"
    );
}

/// Of the ranges in which something was recorded the trace says from when to when they were there, and
/// of no others.
#[test]
fn when_ranges_were_there() {
    let finished = runs(&["times"]);
    let trace = finished.trace();
    // What both clocks may be apart, nanoseconds.
    const APART: u64 = 1_000_000;
    let mut told: Vec<(u64, [u64; 4], String)> = Vec::new();
    for line in finished.stdout.lines() {
        let line = line.strip_prefix("was ").expect(line);
        let mut words = line.splitn(6, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect(line);
        let thread = number();
        let times = [number(), number(), number(), number()];
        told.push((thread, times, words.next().expect(line).to_owned()));
    }
    let events = rows(&trace, "events");
    let mut found: Vec<(u64, u64, u64, String)> = Vec::new();
    let mut deep = 0;
    for event in events.iter().filter(|event| event["op"] == "range-ended") {
        let number = |field: &str| event[field].as_u64();
        let (thread, began) = (
            number("thread").unwrap_or(0),
            number("aux").expect("a time"),
        );
        let (ended, name) = (number("time_ns").expect("a time"), event["range"].as_str());
        let name = name.expect("a range").to_owned();
        assert!(began <= ended);
        match name.starts_with("deep") {
            true => deep += 1,
            false => found.push((thread, began, ended, name)),
        }
    }
    assert_eq!(deep, 24, "as many levels as have their times kept");
    assert_eq!(found.len(), told.len());
    for (thread, times, name) in &told {
        let is_it = |of: &&(u64, u64, u64, String)| {
            let [entered, by, ended, ended_by] = *times;
            (of.0, &of.3) == (*thread, name)
                && (entered - APART..=by + APART).contains(&of.1)
                && (ended - APART..=ended_by + APART).contains(&of.2)
        };
        assert!(
            found.iter().any(|of| is_it(&of)),
            "{thread} {times:?} {name}: {found:#?}"
        );
    }
}

#[test]
fn random_ranges_of_random_threads() {
    let runs_of = if full() { 20 } else { 2 };
    for seed in 0..runs_of {
        is_told(&runs(&["random", &seed.to_string()]));
    }
}

/// What the program hands over may be anything; reports stay one line a range and show no escapes.
#[test]
fn odd_ranges() {
    let finished = runs(&["odd"]);
    let mut found = by_range(&finished.trace());
    for (range, sum) in told(&finished.stdout) {
        assert_eq!(found.remove(&range), Some(sum), "{range}");
    }
    assert_eq!(
        found.remove("\u{1b}[2J\r\n\u{202e}evil\u{7}"),
        Some((3008, 1))
    );
    let not_utf_8 = "\u{fffd}\u{fffd} not UTF-8 \u{fffd}";
    assert_eq!(found.remove(not_utf_8), Some((3009, 1)));
    assert_eq!(found.remove(&"x".repeat(255)), Some((3010, 1)));
    assert_eq!(found.remove(&"\u{6f22}".repeat(85)), Some((3011, 1)));
    assert_eq!(found, ByRange::new());
    for command in [&["leaks", "--by", "range"][..], &["leaks"], &["summary"]] {
        let trace = finished.trace();
        let mut arguments: Vec<&std::ffi::OsStr> = command.iter().map(|w| w.as_ref()).collect();
        arguments.push(trace.as_os_str());
        let output = vramtrace(arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains("evil"), "{command:?}: {text}");
        let plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
        assert!(text.chars().all(plain), "{command:?}: {text:?}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest < Some(1500), "{command:?}: {text}");
    }
}

#[test]
fn ranges_that_are_never_closed() {
    let found = by_range(&runs(&["deep"]).trace());
    let of = |bytes: u64| {
        let found = found.iter().find(|(_, sum)| **sum == (bytes, 1));
        found.map(|(range, _)| range.split(" > ").count())
    };
    assert_eq!((of(4000), of(4002)), (Some(64), Some(64)));
    assert_eq!(found["no range"], (4001, 1));
}

#[test]
fn names_with_ever_new_numbers() {
    let finished = runs(&["numbers"]);
    is_told(&finished);
    let trace = finished.trace();
    let steps = "step # > op # of #";
    // The count of each of the first few that had memory, and of all that came later.
    let entered = entered(&trace, steps).expect("a count");
    assert!((99_000..=100_000).contains(&entered), "{entered}");
    assert_eq!(finished.check().verdict(), "whole");
}

/// More names than the tables hold: all memory is in some range, the first ones have their own, and the
/// report says what became of the others.
#[test]
fn more_names_than_there_is_room_for() {
    let finished = Run::new(ranges().build())
        .arg("names")
        .env("VRAMTRACE_SIZE", "16MiB")
        .env("VRAMTRACE_STACKS", "off")
        .succeeds();
    let found = by_range(&finished.trace());
    let all: (u64, u64) = found.values().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert_eq!(all, (1000 * 600 + 19_000 * 700, 20_000));
    let own = found
        .iter()
        .filter(|(range, _)| range.starts_with("around > "));
    assert_eq!(
        own.clone().filter(|(_, sum)| **sum == (600, 1)).count(),
        1000
    );
    assert!(found.len() < 3000, "{}", found.len());
    assert!(found["around"].1 > 15_000, "{:?}", found["around"]);
    let check = vramtrace(["check".as_ref(), finished.trace().as_os_str()]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("NVTX ranges were entered that found no room"),
        "{text}"
    );
    assert_eq!(finished.check().verdict(), "whole");
}

/// A forked child writes to no trace of its parent's, and a program that it executes has no ranges.
#[test]
fn a_child_that_is_forked_inside_a_range() {
    let finished = runs(&["fork"]);
    let mut told = told(&finished.stdout);
    let childs = told.remove("no range").expect("the child's");
    let traces = finished.scratch.traces();
    let all: Vec<ByRange> = traces.iter().map(|trace| by_range(trace)).collect();
    let is_childs = |found: &&ByRange| found.contains_key("no range");
    let child: Vec<_> = all.iter().filter(is_childs).collect();
    assert_eq!(child, [&ByRange::from([("no range".to_owned(), childs)])]);
    let parent = all.iter().position(|found| *found == told);
    let parent = &traces[parent.unwrap_or_else(|| panic!("{told:?}: {all:?}"))];
    assert_eq!(entered(parent, "parent > later"), Some(5));
    assert_eq!(entered(parent, "parent"), Some(1));
}

#[test]
fn a_child_that_uses_cuda_in_its_parents_ranges() {
    let finished = runs(&["inherits"]);
    let mut all: Vec<ByRange> = finished
        .scratch
        .traces()
        .iter()
        .map(|t| by_range(t))
        .collect();
    all.sort_by_key(BTreeMap::len);
    let expected = |sums: &[(&str, u64)]| -> ByRange {
        sums.iter()
            .map(|&(range, bytes)| (range.to_owned(), (bytes, 1)))
            .collect()
    };
    assert_eq!(
        all,
        [
            expected(&[("parent", 7200)]),
            expected(&[
                ("parent > child", 7100),
                ("started by the parent", 7101),
                ("no range", 7102)
            ])
        ]
    );
}

/// Counts are in the trace at every moment, not only at the end.
#[test]
fn a_program_that_is_killed() {
    let scratch = Scratch::new();
    let output = scratch.path().join("killed.vrt");
    let mut child = Run::new(ranges().build())
        .arg("wait")
        .env("VRAMTRACE_OUTPUT", &output)
        .with_stdout(|mut stdout| {
            use std::io::BufRead;
            let mut line = String::new();
            std::io::BufReader::new(&mut stdout)
                .read_line(&mut line)
                .expect("a line");
            assert_eq!(line, "ready\n");
        });
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    assert_eq!(
        by_range(&output),
        ByRange::from([("outer > inner".to_owned(), (9000, 1))])
    );
    assert_eq!(entered(&output, "outer > inner"), Some(100));
}

#[test]
fn in_a_small_trace() {
    for story in ["numbers", "names", "many"] {
        let finished = Run::new(ranges().build())
            .arg(story)
            .env("VRAMTRACE_SIZE", "1MiB")
            .succeeds();
        let size = std::fs::metadata(finished.trace()).expect("a trace").len();
        assert!(size <= 1 << 20);
        let check = finished.check();
        // Whatever is not kept of ranges and marks, of other facts nothing is missing.
        assert_eq!(check.loss("facts_dropped"), 0, "{story}");
    }
}

fn live_at(trace: &Path, moment: &str) -> (u64, u64) {
    Leaks::of(trace, &["--to", moment]).total("gpu")
}

#[test]
fn marks_are_moments_and_on_the_timeline() {
    let finished = runs(&["marks"]);
    let trace = finished.trace();
    // Blocks of 8000, 8001 … bytes were left between the marks.
    for (moment, count) in [
        ("second \u{6f22}", 1),
        ("third", 3),
        ("library: third", 3),
        ("fourth", 4),
        ("library: fourth", 4),
        ("mark:fifth", 5),
        ("begin", 6),
    ] {
        assert_eq!(live_at(&trace, moment).1, count, "{moment}");
    }
    let json = read_json("timeline", &trace, &[]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let marks: Vec<_> = json["marks"].as_array().expect("marks").iter().collect();
    let texts: Vec<_> = marks
        .iter()
        .map(|m| (text(&m["domain"]), text(&m["text"])))
        .collect();
    let expected = [
        (None, "begin"),
        (None, "second \u{6f22}"),
        (None, "third"),
        (Some("library"), "third"),
        (Some("library"), "fourth"),
        (None, "fifth"),
        (None, "begin"),
        (None, "\u{1b}[2J evil \u{202e}"),
    ];
    let expected =
        expected.map(|(domain, text)| (domain.map(str::to_owned), Some(text.to_owned())));
    assert_eq!(texts, expected);
    let times: Vec<u64> = marks
        .iter()
        .filter_map(|mark| mark["time_ns"].as_u64())
        .collect();
    assert!(times.len() == 8 && times.is_sorted(), "{times:?}");

    let shown = |options: &[&str]| {
        let words = ["timeline"].iter().chain(options).map(std::ffi::OsStr::new);
        let output = vramtrace(words.chain([trace.as_os_str()]));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let chart = shown(&[]);
    let below: Vec<&str> = chart
        .lines()
        .filter(|line| line.contains('\u{25b2}'))
        .collect();
    assert_eq!(below.len(), 9, "{chart}");
    assert!(below[4].ends_with("library: third"), "{chart}");
    let plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(chart.chars().all(plain), "{chart:?}");
    let table = shown(&["--csv", "--marks"]);
    assert_eq!(table.lines().count(), 9, "{table}");
    assert!(
        table
            .lines()
            .nth(4)
            .is_some_and(|line| line.ends_with(",library,third")),
        "{table}"
    );
}

#[test]
fn more_marks_than_there_is_room_for() {
    let finished = Run::new(ranges().build())
        .arg("many")
        .env("VRAMTRACE_SIZE", "2MiB")
        .succeeds();
    let trace = finished.trace();
    let json = read_json("timeline", &trace, &[]);
    let of = |text: &str| {
        let marks = json["marks"].as_array().expect("marks").iter();
        marks.filter(|mark| mark["text"] == text).count()
    };
    // The last ones are what the event log still has: marks without a text of their own, and one
    // whose text had been kept.
    assert!(
        of("mark # of a program that sets far too many of them") > 0 || of("(other marks)") > 1
    );
    assert_eq!(of("mark 3 of a program that sets far too many of them"), 1);
    assert_eq!(
        live_at(&trace, "mark 3 of a program that sets far too many of them"),
        (8100, 1)
    );
    assert_eq!(live_at(&trace, "(other marks)"), (0, 0));
}

/// What `vramtrace run` sets, and what the library does where nobody has: the same.
#[test]
fn run_names_the_library() {
    let scratch = Scratch::new();
    let program = ranges().build();
    let environment = |with: &[(&str, &str)]| {
        let mut command = std::process::Command::new(&artifacts().reader);
        command.args([
            "run",
            "-o",
            "%e.%n.vrt",
            "--",
            "sh",
            "-c",
            "echo $NVTX_INJECTION64_PATH",
        ]);
        command
            .env_remove("NVTX_INJECTION64_PATH")
            .env("VRAMTRACE_LIB", &artifacts().shim);
        command
            .envs(with.iter().copied())
            .current_dir(scratch.path());
        let output = command.output().expect("it runs");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    };
    let library = artifacts().shim.to_string_lossy().into_owned();
    assert_eq!(environment(&[]), library);
    assert_eq!(environment(&[("NVTX_INJECTION64_PATH", "")]), library);
    assert_eq!(
        environment(&[("NVTX_INJECTION64_PATH", "/opt/tool.so")]),
        "/opt/tool.so"
    );
    assert_eq!(environment(&[("VRAMTRACE_OFF", "1")]), "");
    // A tool that asks through the driver.
    let asks = scratch.path().join("nvidia/nvtx");
    std::fs::create_dir_all(&asks).expect("a directory");
    std::fs::write(asks.join("nvtx-cuda.yaml"), "").expect("a file");
    let runtime = scratch.path().to_string_lossy();
    assert_eq!(environment(&[("XDG_RUNTIME_DIR", &runtime)]), "");

    let output = scratch.path().join("run.vrt");
    let mut command = std::process::Command::new(&artifacts().reader);
    command
        .arg("run")
        .arg("-o")
        .arg(&output)
        .arg("--")
        .arg(&program)
        .arg("kinds");
    command
        .env_remove("NVTX_INJECTION64_PATH")
        .env("VRAMTRACE_LIB", &artifacts().shim);
    command
        .env("LD_LIBRARY_PATH", &artifacts().driver)
        .env("VRAMTRACE_SIZE", "4MiB");
    let finished = command.output().expect("it runs");
    assert!(finished.status.success(), "{finished:?}");
    let told = told(&String::from_utf8(finished.stdout).expect("UTF-8"));
    assert_eq!(by_range(&output), told);
}

/// The environment of a program that the library alone was preloaded into.
fn seen_in(run: Run) -> Option<String> {
    let run = run.succeeds();
    let line = run
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("NVTX_INJECTION64_PATH="));
    line.map(str::to_owned)
}

#[test]
fn the_library_names_itself_where_nobody_is_named() {
    let library = artifacts().shim.to_string_lossy().into_owned();
    let env = || Run::new("env");
    assert_eq!(seen_in(env()), Some(library.clone()));
    assert_eq!(seen_in(env().plain()), None);
    assert_eq!(
        seen_in(env().env("NVTX_INJECTION64_PATH", "")),
        Some(library.clone())
    );
    let other = env().env("NVTX_INJECTION64_PATH", "/opt/tool.so");
    assert_eq!(seen_in(other), Some("/opt/tool.so".to_owned()));
    assert_eq!(seen_in(env().env("VRAMTRACE_OFF", "1")), None);
    // Everything else in the environment is what it was, in its order.
    let lines = |run: Run| -> Vec<String> {
        let own = ["NVTX_", "LD_PRELOAD=", "VRAMTRACE_OUTPUT=", "_="];
        let stdout = run.succeeds().stdout;
        let others = stdout
            .lines()
            .filter(|line| !own.iter().any(|own| line.starts_with(own)));
        others.map(str::to_owned).collect()
    };
    assert_eq!(lines(env()), lines(env().plain()));
    assert_eq!(
        lines(env().env("NVTX_INJECTION64_PATH", "")),
        lines(env().plain())
    );
    // Nothing at all in it but what the loader needs.
    let alone = env().with(|command| {
        command.env_clear();
    });
    assert_eq!(seen_in(alone), Some(library.clone()));
    // A tool that asks through the driver.
    let scratch = Scratch::new();
    let asks = scratch.path().join("nvidia/nvtx");
    std::fs::create_dir_all(&asks).expect("a directory");
    std::fs::write(asks.join("nvtx-cuda.yaml"), "").expect("a file");
    assert_eq!(seen_in(env().env("XDG_RUNTIME_DIR", scratch.path())), None);
    // Preloaded by a name that holds in one directory only.
    let folder = artifacts().shim.parent().expect("a folder");
    let from = env().directory(folder).preload_only("./libvramtrace.so");
    let named = seen_in(from).expect("a name");
    assert!(named.starts_with('/'), "{named}");
    assert_eq!(
        std::fs::canonicalize(&named).ok(),
        std::fs::canonicalize(&library).ok()
    );
    // A shell hands it on as it does everything else.
    let shell = Run::new("bash").args(["-c", "unset LD_PRELOAD; exec env"]);
    assert_eq!(seen_in(shell), Some(library));
}

/// Another tool gets all calls, we get none, and the trace says so.
#[test]
fn another_tools_injection_is_left_alone() {
    let tool = Build::of("nvtx_tool").shared().build();
    let run = || {
        Run::new(ranges().build())
            .arg("kinds")
            .env("NVTX_INJECTION64_PATH", &tool)
    };
    let alone = run().plain().succeeds();
    let both = run().succeeds();
    assert!(alone.stderr.contains("tool: push plain"), "{alone:?}");
    assert_eq!(both.observable(), alone.observable());
    let found = by_range(&both.trace());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["no range"]);
    let notes = both.check().json["notes"].to_string();
    assert!(
        notes.contains("nvtx-elsewhere") && notes.contains("nvtx_tool"),
        "{notes}"
    );
    let ours = runs(&["kinds"]).check().json["notes"].to_string();
    assert!(!ours.contains("nvtx"), "{ours}");
}

/// A program that looks for no tool, or finds one that is not there, runs as it would.
#[test]
fn without_a_tool() {
    let run = || Run::new(ranges().build()).arg("kinds");
    let plain = run().plain().succeeds();
    assert_eq!(run().succeeds().observable(), plain.observable());
    let missing = run()
        .env("NVTX_INJECTION64_PATH", "/nowhere/tool.so")
        .succeeds();
    assert_eq!(missing.observable(), plain.observable());
    // A child without the preload, but with the variable.
    let library = artifacts().shim.clone();
    let late = run()
        .plain()
        .env("NVTX_INJECTION64_PATH", &library)
        .succeeds();
    assert_eq!(late.observable(), plain.observable());
    assert_eq!(late.scratch.files(), [""; 0]);
}

/// With NVIDIA's own headers, of the package nvidia-nvtx.
#[test]
fn with_nvidias_header() {
    if !full() {
        return skip("NVTX's own header", "only with scripts/test --full");
    }
    let folder = artifacts().programs.join("nvidia-nvtx-13");
    let include = folder.join("nvidia/cu13/include");
    if !include.join("nvtx3/nvToolsExtPayload.h").exists() {
        let mut pip = std::process::Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        let got = pip.arg(&folder).arg("nvidia-nvtx>=13,<14").output();
        if !got.is_ok_and(|got| got.status.success()) {
            return skip("NVTX's own header", "pip cannot get nvidia-nvtx");
        }
    }
    let program = ranges()
        .flag("-DREAL_NVTX")
        .flag("-I")
        .flag(&include)
        .build();
    for story in [
        "kinds", "payload", "before", "odd", "threads", "numbers", "marks", "inherits",
    ] {
        let (real, own) = (Run::new(&program).arg(story).succeeds(), runs(&[story]));
        let found = |finished: &Finished| -> Vec<ByRange> {
            let mut all: Vec<ByRange> = finished
                .scratch
                .traces()
                .iter()
                .map(|trace| by_range(trace))
                .collect();
            all.sort();
            all
        };
        assert_eq!(
            found(&real),
            found(&own),
            "{story}: NVIDIA's header (left), ours (right)"
        );
    }
}
