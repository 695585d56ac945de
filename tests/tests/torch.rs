//! PyTorch's tensors, by way of a stand-in for its libraries: what leaks are tensors, each where
//! the allocator has it, and what it holds besides is its cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use vramtrace_format::record::{Kind, Op};
use vramtrace_reader::trace::Trace;
use vramtrace_tests::python::{assert_same, pythons, run, said, traced};
use vramtrace_tests::torch::Form;
use vramtrace_tests::{
    Build, Check, Finished, Leaks, Left, Run, full, program, read_json, repository, skip, vramtrace,
};

/// The modes in which the allocator hands out blocks of its own.
const MODES: [&str; 2] = ["native", "expandable"];

/// The program, with the libraries loaded like this.
fn torch(form: Form, scope: &str, mode: &str, what: &[&str]) -> Run {
    let allocator = form.allocator();
    let run = if scope == "linked" {
        let build = Build::of("torch").flag("-DWITH_TORCH").flag(&allocator);
        Run::new(build.flag(form.c10()).build())
    } else {
        Run::new(program("torch"))
    };
    run.args([scope, mode])
        .args(what)
        .env("TORCH_LIBRARY", allocator)
        .env("VRAMTRACE_SIM_DEVICES", "2")
}

/// Lines of the program's output that begin like this, as words.
fn lines<'a>(finished: &'a Finished, word: &str) -> Vec<Vec<&'a str>> {
    let lines = finished.stdout.lines().map(|line| line.split(' '));
    lines
        .map(Iterator::collect)
        .filter(|words: &Vec<&str>| words[0] == word)
        .collect()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word}"))
}

/// PyTorch's own profiler hears all that its allocator says.
fn profilers_heard_all(finished: &Finished, profilers: usize) {
    let heard = lines(finished, "profiler");
    assert_eq!(heard.len(), profilers, "{finished:#?}");
    for profiler in heard {
        assert!(profiler[1] != "0" && profiler[2] == "same", "{profiler:?}");
    }
}

/// Device, address, bytes.
type Blocks = BTreeSet<(u64, u64, u64)>;

/// The blocks that the allocator says are handed out.
fn snapshot(finished: &Finished) -> Blocks {
    let blocks = lines(finished, "block");
    blocks
        .iter()
        .map(|words| (number(words[1]), number(words[2]), number(words[3])))
        .collect()
}

/// The blocks in a trace.
fn blocks(leaks: &Leaks) -> Blocks {
    let mut blocks = Blocks::new();
    for group in leaks.json["groups"].as_array().expect("groups") {
        let device = group["device"].as_u64();
        for member in group["members"].as_array().expect("members") {
            if member["space"] == "torch" {
                let word = |name: &str| member[name].as_u64().expect("a number");
                let block = (device.expect("a device"), word("key"), word("bytes"));
                assert!(blocks.insert(block), "{block:?} twice");
            }
        }
    }
    blocks
}

/// Fails unless the trace has the very blocks that the allocator has, and what that has besides is
/// its cache.
fn agree(finished: &Finished) {
    let leaks = Leaks::of(&finished.trace(), &["--members"]);
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    assert_eq!(blocks(&leaks), snapshot(finished), "{finished:#?}");
    let by_device = |list: &str| -> BTreeMap<u64, serde_json::Value> {
        let of = |row: &serde_json::Value| (row["device"].as_u64().expect("a device"), row.clone());
        let rows = leaks.json[list].as_array().expect("a list").iter();
        rows.map(of).collect()
    };
    let (caches, says) = (by_device("caches"), by_device("torch"));
    let devices = lines(finished, "device");
    assert!(!devices.is_empty());
    for words in devices {
        let [device, allocated, reserved] = [1, 2, 3].map(|at| number(words[at]));
        if reserved > 0 {
            let cache = &caches[&device];
            assert_eq!(cache["reserved"], reserved, "{cache:#}");
            assert_eq!(cache["used"], allocated, "{cache:#}");
            assert_eq!(cache["bytes"], reserved - allocated, "{cache:#}");
        }
        let says = &says[&device];
        assert_eq!(says["allocated"], allocated, "{says:#}");
        assert_eq!(says["seen"], allocated, "{says:#}");
        assert_eq!(says["differs"], false, "{says:#}");
    }
}

#[test]
fn tensors_are_what_leaks() {
    for (form, scope, mode) in [
        (Form::New, "local", "native"),
        (Form::New, "global", "native"),
        (Form::New, "linked", "native"),
        (Form::Old, "local", "native"),
        (Form::New, "local", "expandable"),
        (Form::Old, "linked", "expandable"),
    ] {
        let plain = torch(form, scope, mode, &["some"]).plain().succeeds();
        profilers_heard_all(&plain, 1);
        let finished = torch(form, scope, mode, &["some"]).succeeds();
        profilers_heard_all(&finished, 1);
        finished.leaks().assert_are(&finished.left());
        agree(&finished);
    }
}

/// There, the blocks of the driver's pool are the tensors, and the rest of the pool is the cache.
#[test]
fn with_cuda_malloc_async_the_driver_has_the_tensors() {
    let finished = torch(Form::New, "local", "async", &["some"]).succeeds();
    let leaks = finished.leaks();
    leaks.assert_are(&finished.left());
    let cached = &leaks.json["total"]["cached"];
    assert!(cached["reserved"].as_u64() >= cached["used"].as_u64());
    assert_eq!(leaks.json["torch"].as_array().map(Vec::len), Some(0));
}

#[test]
fn what_is_cached_is_no_leak() {
    for mode in MODES {
        let finished = torch(Form::New, "local", mode, &["no-cache"]).succeeds();
        finished.leaks().assert_are(&finished.left());
        agree(&finished);
    }
}

#[test]
fn random_blocks_of_eight_threads() {
    let rounds = if full() { 12 } else { 2 };
    for mode in MODES {
        for round in 0..rounds {
            let seed = round.to_string();
            let run = torch(Form::New, "local", mode, &["threads", &seed]);
            let finished = run.env("VRAMTRACE_STACKS", "native").succeeds();
            profilers_heard_all(&finished, 1);
            agree(&finished);
            let check = finished.check();
            assert_eq!(check.loss("frees_unmatched"), 0);
            assert_eq!(check.loss("frees_unseen"), 0);
        }
    }
}

/// Where the log of events has long forgotten the first.
#[test]
fn random_blocks_in_a_small_trace() {
    let run = torch(Form::New, "local", "native", &["threads", "77"]);
    let finished = run.env("VRAMTRACE_SIZE", "1MiB").succeeds();
    assert_eq!(finished.check().verdict(), "history-lost");
    agree(&finished);
}

#[test]
fn running_out_of_memory_is_an_event() {
    for form in [Form::Old, Form::New] {
        let run = torch(form, "local", "native", &["out-of-memory"]);
        let finished = run.succeeds();
        assert!(finished.stdout.contains("asked 0"), "{finished:#?}");
        profilers_heard_all(&finished, 1);
        agree(&finished);
        let trace = Trace::open(&finished.trace()).expect("a trace");
        let ooms: Vec<_> = trace
            .events_of(1)
            .filter(|event| event.op() == Some(Op::FrameworkOom))
            .collect();
        let [oom] = ooms[..] else { panic!("{ooms:?}") };
        let device = &lines(&finished, "device")[0];
        let holds = (number(device[2]), number(device[3]));
        assert_eq!((oom.key, oom.aux), holds);
        assert_eq!((oom.size, oom.device), (900 << 30, 0));
        assert_eq!(oom.kind(), Some(Kind::Torch));
        assert!(oom.stack != 0);
        // The driver had said no twice, and the cache was given back in between.
        let mut refused: Vec<u64> = trace
            .events_of(0)
            .filter(|event| event.op() == Some(Op::AllocFailed))
            .map(|event| event.seq)
            .collect();
        refused.retain(|seq| *seq < oom.seq);
        assert_eq!(refused.len(), 2);
        // One story: the driver's refusals, and that the allocator gave up over them.
        let document = read_json("oom", &finished.trace(), &[]);
        let of_framework: Vec<_> = document["failures"]
            .as_array()
            .expect("failures")
            .iter()
            .filter(|failure| failure["framework"].is_object())
            .collect();
        let [failure] = of_framework[..] else {
            panic!("{document:#}")
        };
        assert_eq!(failure["attempts"], 2, "{failure:#}");
        let gave_up = &failure["framework"];
        assert_eq!(gave_up["asked_bytes"], 900u64 << 30);
        assert_eq!(gave_up["allocated_bytes"], oom.key);
        assert_eq!(gave_up["reserved_bytes"], oom.aux);
        assert_eq!(document["forgotten"], 0, "{document:#}");
        let summary = read_json("summary", &finished.trace(), &[]);
        let framework = summary["processes"][0]["accounts"]
            .as_array()
            .expect("accounts")
            .iter()
            .find(|account| account["layer"] == "framework");
        assert_eq!(framework.expect("an account")["failed_count"], 1);
        // At that moment the block that had been freed was gone.
        let then = Leaks::of(&finished.trace(), &["--to", "oom"]);
        assert_eq!(then.total("gpu"), (30 << 20, 1));
    }
}

#[test]
fn what_teardown_frees_is_known_until_then() {
    let finished = torch(Form::New, "local", "native", &["at-exit"]).succeeds();
    let leaks = finished.leaks();
    assert_eq!((leaks.point(), leaks.total("gpu")), ("end", (0, 0)));
    let before = Leaks::of(&finished.trace(), &["--to", "teardown"]);
    assert_eq!(before.total("gpu"), (3 * 5120, 3));
    assert_eq!(before.total("teardown"), (3 * 5120, 3));
}

#[test]
fn blocks_go_with_their_device() {
    let finished = torch(Form::New, "local", "native", &["reset"]).succeeds();
    let ends: Vec<(u64, String)> = finished
        .leaks()
        .groups()
        .iter()
        .map(|group| (group.bytes, group.end.clone()))
        .collect();
    assert_eq!(ends, [(5120, "reset".into()), (7168, "live".into())]);
}

/// Each hears what its own allocator says, as without us.
#[test]
fn two_copies_in_a_process() {
    for too in [Form::Old.allocator(), Form::New.another()] {
        let run =
            || torch(Form::New, "local", "native", &["two-copies"]).env("TORCH_LIBRARY_TOO", &too);
        profilers_heard_all(&run().plain().succeeds(), 2);
        let finished = run().succeeds();
        profilers_heard_all(&finished, 2);
        let leaks = finished.leaks();
        let sums = |left: &[Left]| -> Vec<(u64, u64)> {
            left.iter().map(|left| (left.bytes, left.count)).collect()
        };
        assert_eq!(sums(&leaks.as_left()), sums(&finished.left()));
        // Each knows its own part, which is compared with nothing.
        assert!(leaks.complete(), "{}", leaks.incomplete_because());
    }
}

/// An allocator whose reports nobody listens to.
#[test]
fn nobody_to_report_to() {
    let run = torch(Form::New, "local", "native", &["some"]);
    let finished = run.env("TORCH_LIBRARY", Form::New.alone()).succeeds();
    finished.leaks().assert_are(&finished.left());
}

#[test]
fn children_of_a_fork_are_nobodys_business() {
    let finished = torch(Form::New, "local", "native", &["forks"]).succeeds();
    assert!(finished.stdout.contains("child 0"), "{finished:#?}");
    finished.leaks().assert_are(&finished.left());
    agree(&finished);
}

#[test]
fn switched_off_it_only_passes_on() {
    let run = torch(Form::New, "local", "native", &["some"]).env("VRAMTRACE_OFF", "1");
    let finished = run.succeeds();
    profilers_heard_all(&finished, 1);
    assert_eq!(finished.scratch.files(), [""; 0]);
}

/// The CPU's allocator reports through the same function, also by jumps, which do not say whose they
/// are: what was found for a place stays.
#[test]
fn reports_search_nothing() {
    for library in [Form::New.allocator(), Form::New.jumping()] {
        let run = torch(Form::New, "local", "native", &["searches"]);
        let counter = Build::of("counts_searches").shared().build();
        let run = run.preload_before(counter).env("TORCH_LIBRARY", library);
        let finished = run.succeeds();
        profilers_heard_all(&finished, 1);
        let [searches] = &lines(&finished, "searches")[..] else {
            panic!("{finished:#?}")
        };
        assert!(searches[1] != "0" && searches[3] == "0", "{searches:?}");
    }
}

/// PyTorch's own number tells.
#[test]
fn blocks_that_were_there_before_are_missed() {
    let finished = torch(Form::New, "local", "native", &["before-us"]).succeeds();
    let leaks = finished.leaks();
    assert!(!leaks.complete());
    assert!(leaks.incomplete_because().contains("torch-differs"));
    assert_eq!(leaks.as_left(), finished.left());
    let says = &leaks.json["torch"][0];
    assert_eq!(
        (&says["allocated"], &says["seen"]),
        (&5120.into(), &3072.into())
    );
    assert_eq!(says["differs"], true);
    assert_eq!(finished.check().loss("frees_unmatched"), 1);
    // Among the events of tensors, and on their device.
    let trace = Trace::open(&finished.trace()).expect("a trace");
    let unmatched = |lane| {
        let of = trace.events_of(lane);
        of.filter(|event| event.op() == Some(Op::FreeUnmatched))
            .count()
    };
    assert_eq!((unmatched(0), unmatched(1)), (0, 1));
    let text = vramtrace(["summary".as_ref(), finished.trace().as_os_str()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("the trace has another number"), "{text}");
}

/// While the program runs, the number is compared with the blocks of the same moment.
#[test]
fn a_running_program_agrees_at_every_moment() {
    let run = torch(Form::New, "local", "native", &["storm"]);
    let (mut child, scratch) = run.env("VRAMTRACE_SIZE", "8MiB").spawn();
    let mut compared = 0;
    let mut rounds = 0;
    while compared < 10 && rounds < 2000 {
        rounds += 1;
        let Some(trace) = scratch.traces().pop() else {
            std::thread::sleep(std::time::Duration::from_millis(5));
            continue;
        };
        let leaks = Leaks::of(&trace, &[]);
        for says in leaks.json["torch"].as_array().expect("a list") {
            assert_eq!(says["differs"], false, "{says:#}");
            compared += usize::from(!says["seen"].is_null());
        }
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
    assert!(compared >= 10, "{compared} in {rounds}");
    let leaks = Leaks::of(&scratch.traces()[0], &[]);
    assert!(leaks.complete(), "{}", leaks.incomplete_because());
    for says in leaks.json["torch"].as_array().expect("a list") {
        assert_eq!(says["differs"], false, "{says:#}");
    }
}

/// Every tensor is in the line of Python that made it.
#[test]
fn lines_of_python() {
    for (minor, python) in pythons() {
        for mode in MODES {
            let run = run(&python, "torch.py", &[mode]);
            let finished = run.env("TORCH_LIBRARY", Form::New.allocator()).succeeds();
            profilers_heard_all(&finished, 1);
            let about = format!("Python 3.{minor}, {mode}");
            let leaks = Leaks::of(&finished.trace(), &[]);
            // As of the moment before the interpreter took down what a leaked list holds.
            assert_eq!(leaks.point(), "teardown", "{about}");
            assert!(leaks.complete(), "{about}: {}", leaks.incomplete_because());
            let groups = leaks.json["groups"].as_array().expect("groups");
            assert!(groups.iter().all(|group| group["kind"] == "torch"));
            assert_same(&traced(groups), &said(&finished.stdout), &about);
        }
    }
}

/// An exception that PyTorch's profiler, or a callback of it, throws passes through.
#[test]
fn exceptions_pass_through() {
    let source = repository().join("tests/programs/c10_throws.cc");
    let folder = vramtrace_tests::Scratch::new();
    let compile = |output: &Path, more: &[&str]| {
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()));
        compiler.args(["-g", "-O1", "-Wall"]).args(more);
        compiler.arg("-o").arg(output).arg(&source);
        if more.contains(&"-DPROGRAM") {
            compiler
                .arg("-L")
                .arg(folder.path())
                .args(["-lc10", "-ldl"]);
            compiler.arg(format!("-Wl,-rpath,{}", folder.path().display()));
        }
        compiler.output()
    };
    let (library, thrower) = (
        folder.path().join("libc10.so"),
        folder.path().join("throws"),
    );
    match compile(&library, &["-shared", "-fPIC"]) {
        Ok(output) if output.status.success() => {}
        other => {
            return skip(
                "exceptions through PyTorch's reports",
                &format!("{other:?}"),
            );
        }
    }
    let output = compile(&thrower, &["-DPROGRAM"]).expect("a compiler");
    assert!(output.status.success(), "{output:?}");
    for stacks in ["auto", "both", "off"] {
        let run = || Run::new(&thrower).env("VRAMTRACE_STACKS", stacks);
        let plain = run().plain().succeeds();
        let finished = run().succeeds();
        assert_eq!(finished.stdout, plain.stdout);
        assert!(finished.stdout.contains("caught"), "{finished:#?}");
        let leaks = finished.leaks();
        assert!(leaks.total("gpu").1 > 0, "{finished:#?}");
        assert_eq!(Check::of(&finished.trace()).verdict(), "whole");
    }
}
