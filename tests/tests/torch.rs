//! PyTorch's tensors, by way of a stand-in for its libraries.

use std::path::PathBuf;
use vramtrace_tests::{Build, Finished, Run, program};

/// Which names the libraries have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// PyTorch 1.10 to 1.13.
    Old,
    /// PyTorch 2.
    New,
}

impl Form {
    fn of(self, source: &str) -> Build {
        let build = Build::of(source).shared();
        match self {
            Form::Old => build.flag("-DOLD"),
            Form::New => build,
        }
    }

    /// The allocator, linked to the library that it reports to.
    fn allocator(self) -> PathBuf {
        let c10 = self.of("c10").build();
        self.of("c10_cuda").flag(c10).build()
    }
}

/// The program, with the libraries loaded like this.
fn torch(form: Form, scope: &str, mode: &str, what: &[&str]) -> Run {
    let allocator = form.allocator();
    let run = if scope == "linked" {
        let build = Build::of("torch").flag("-DWITH_TORCH").flag(&allocator);
        Run::new(build.flag(form.of("c10").build()).build())
    } else {
        Run::new(program("torch"))
    };
    let run = run.args([scope, mode]).args(what);
    run.env("TORCH_LIBRARY", allocator)
        .env("VRAMTRACE_SIM_DEVICES", "2")
}

/// Lines of the program's output that begin like this, as words.
fn said<'a>(finished: &'a Finished, word: &str) -> Vec<Vec<&'a str>> {
    let words = finished.stdout.lines().map(|line| line.split(' '));
    words
        .map(|words| words.collect::<Vec<_>>())
        .filter(|words| words[0] == word)
        .collect()
}

/// PyTorch's own profiler hears all that its allocator says.
fn profiler_heard_all(finished: &Finished) {
    let [heard] = &said(finished, "profiler")[..] else {
        panic!("{finished:#?}")
    };
    assert!(heard[1] != "0" && heard[2] == "same", "{heard:?}");
}

#[test]
fn tensors_are_what_leaks() {
    for (form, scope) in [
        (Form::New, "local"),
        (Form::New, "global"),
        (Form::New, "linked"),
        (Form::Old, "local"),
    ] {
        profiler_heard_all(&torch(form, scope, "native", &["some"]).plain().succeeds());
        let finished = torch(form, scope, "native", &["some"]).succeeds();
        profiler_heard_all(&finished);
        finished.leaks().assert_are(&finished.left());
    }
}
