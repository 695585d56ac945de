//! A process that allocates no GPU memory is the same with and without the library: it is
//! inherited by every shell, compiler and interpreter that a traced program starts. And with
//! other tools of the kind it gets along.

use std::path::{Path, PathBuf};
use vramtrace_tests::{Build, Finished, Run, Scratch, full, program, skip};

/// Where a program that is not to leave anything runs.
fn bare(run: Run, scratch: &Scratch) -> Finished {
    let runtime = scratch.path().join("runtime");
    let _ = std::fs::create_dir(&runtime);
    run.without("VRAMTRACE_OUTPUT")
        .env("XDG_RUNTIME_DIR", runtime)
        .directory(scratch.path())
        .finish()
}

/// Traces in the shared directory that a process of this program made.
fn shared_traces(program: &str) -> Vec<String> {
    let mut names = Vec::new();
    for directory in std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
    {
        if directory
            .file_name()
            .to_string_lossy()
            .starts_with("vramtrace-")
        {
            let files = std::fs::read_dir(directory.path())
                .into_iter()
                .flatten()
                .flatten();
            names.extend(files.map(|file| file.file_name().to_string_lossy().into_owned()));
        }
    }
    names.retain(|name| name.starts_with(&format!("{program}.")));
    names
}

fn found(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Same output, same exit code, no file.
fn is_the_same(program: &str, arguments: &[&str]) {
    let Some(path) = found(program) else {
        return skip(&format!("inertness of {program}"), "it is not installed");
    };
    let scratch = Scratch::new();
    std::fs::write(
        scratch.path().join("hello.c"),
        "int main(void) { return 3; }\n",
    )
    .expect("a source file");
    let plain = bare(Run::new(&path).args(arguments).plain(), &scratch);
    let files = scratch.files();
    let traced = bare(Run::new(&path).args(arguments), &scratch);
    assert_eq!(
        traced.observable(),
        plain.observable(),
        "{program} {arguments:?}: traced (left), plain (right)"
    );
    assert_eq!(scratch.files(), files, "{program} {arguments:?}");
    assert_eq!(shared_traces(program), [""; 0]);
}

#[test]
fn shells() {
    is_the_same(
        "bash",
        &[
            "-c",
            "echo $((6 * 7)); ls / | head -3; (exit 5); echo $? >&2; exec sh -c 'exit 9'",
        ],
    );
    is_the_same(
        "sh",
        &[
            "-c",
            "for i in 1 2 3; do echo $i | tr 123 abc; done; kill -TERM $$",
        ],
    );
    is_the_same("ls", &["/"]);
    is_the_same("ls", &["/nowhere"]);
    is_the_same("env", &["--version"]);
}

#[test]
fn interpreters() {
    is_the_same(
        "python3",
        &[
            "-c",
            "import ctypes, json, subprocess, threading; print(json.dumps([ctypes.sizeof(ctypes.c_long)])); print(subprocess.check_output(['echo', 'x'])); t = threading.Thread(target=print, args=('y',)); t.start(); t.join()",
        ],
    );
    is_the_same("python3", &["-c", "import sys; sys.exit('bad')"]);
    is_the_same("perl", &["-e", "print 1 + 1, \"\\n\"; warn 'w'; exit 4"]);
    is_the_same(
        "node",
        &[
            "-e",
            "console.log([1, 2, 3].map(x => x * x)); process.exitCode = 6",
        ],
    );
    is_the_same("java", &["-version"]);
}

#[test]
fn every_python() {
    if !full() {
        return skip(
            "inertness of every installed Python",
            "only with scripts/test --full",
        );
    }
    let versions = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv/versions"));
    for version in versions
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
    {
        let python = version.path().join("bin/python");
        is_the_same(
            &python.to_string_lossy(),
            &[
                "-c",
                "import ctypes, sys; print(sys.version); ctypes.CDLL(None).getpid",
            ],
        );
    }
}

#[test]
fn tools() {
    is_the_same("git", &["--version"]);
    is_the_same("git", &["status"]);
    is_the_same("cc", &["-O2", "-o", "hello", "hello.c"]);
    is_the_same("gcc", &["-c", "nowhere.c"]);
}

#[test]
fn a_static_program() {
    match Build::of("static").flag("-static").try_build() {
        Ok(program) => is_the_same(&program.to_string_lossy(), &[]),
        Err(error) => skip("inertness of a static program", &error),
    }
}

/// Programs that look for the driver and never allocate (data-loader workers do).
#[test]
fn a_program_that_only_asks_the_driver() {
    let asks = program("asks");
    let scratch = Scratch::new();
    let plain = bare(Run::new(&asks).plain(), &scratch);
    let traced = bare(Run::new(&asks), &scratch);
    assert_eq!(plain.code(), 0, "{plain:?}");
    assert_eq!(traced.observable(), plain.observable());
    assert_eq!(scratch.files(), [""; 0]);
}

/// What the loader says is what it says without us; the lines of resolve.c that begin like this.
fn the_loader_answers_the_same(questions: impl Fn(&str) -> bool) {
    let stub = Build::of("stub").shared().build();
    for build in [
        Build::of("resolve"),
        Build::of("resolve").flag("-Wl,-z,now"),
    ] {
        let resolve = build.build();
        let plain = Run::new(&resolve).arg(&stub).plain().succeeds();
        let traced = Run::new(&resolve).arg(&stub).succeeds();
        assert_eq!(traced.stdout.lines().count(), plain.stdout.lines().count());
        assert_eq!(traced.stderr, plain.stderr);
        let mut asked = 0;
        for (traced, plain) in traced.stdout.lines().zip(plain.stdout.lines()) {
            if questions(plain) {
                asked += 1;
                assert_eq!(traced, plain, "traced (left), plain (right)");
            }
        }
        assert!(asked > 0, "{}", plain.stdout);
    }
}

const NEXT: &str = "next ";
const PROGRAM: &str = "program ";
const ITSELF: &str = "stub asks";
const GLOBAL: &str = "default beside a global";
const VERSION: &str = "default cuMemAlloc_v2 libcuda.so.1";

#[test]
fn dlsym_is_still_dlsym() {
    let known = |line: &str| {
        [NEXT, PROGRAM, ITSELF, GLOBAL, VERSION]
            .iter()
            .any(|start| line.starts_with(start))
    };
    the_loader_answers_the_same(|line| !known(line));
}

#[test]
fn dlsym_of_the_program() {
    the_loader_answers_the_same(|line| line.starts_with(PROGRAM));
}

#[test]
fn dlsym_of_a_local_librarys_own_scope() {
    the_loader_answers_the_same(|line| line.starts_with(ITSELF));
}

#[test]
fn dlsym_leaves_no_error_behind() {
    the_loader_answers_the_same(|line| line.starts_with(GLOBAL));
}

#[test]
fn dlvsym_names_the_version() {
    the_loader_answers_the_same(|line| line.starts_with(VERSION));
}

#[test]
fn dlsym_of_what_comes_next() {
    the_loader_answers_the_same(|line| line.starts_with(NEXT));
}

/// With another interposer: it sees and does what it would without us, and we see everything.
fn coexists(interposer: &Path, before: bool) {
    for route in ["linked", "dlsym", "default", "proc"] {
        let program = match route {
            "linked" => Build::of("coexist").linked().build(),
            _ => program("coexist"),
        };
        let alone = Run::new(&program)
            .arg(route)
            .plain()
            .preload_after(interposer)
            .succeeds();
        let both = Run::new(&program).arg(route);
        let both = if before {
            both.preload_before(interposer)
        } else {
            both.preload_after(interposer)
        };
        let both = both.succeeds();
        let place = if before { "before" } else { "after" };
        assert_eq!(
            both.observable(),
            alone.observable(),
            "{} {place} us, {route}: both (left), it alone (right)",
            interposer.display()
        );
        let leaks = both.leaks();
        assert_eq!(
            leaks.total("gpu"),
            (2000, 2),
            "{} {place} us, {route}",
            interposer.display()
        );
        assert!(leaks.complete());
    }
}

#[test]
fn an_interposer_of_allocations_before_us() {
    coexists(&Build::of("interposer").shared().build(), true);
}

#[test]
fn an_interposer_of_allocations_after_us() {
    coexists(&Build::of("interposer").shared().build(), false);
}

#[test]
fn an_interposer_of_dlsym_before_us() {
    coexists(
        &Build::of("interposer")
            .shared()
            .flag("-DHOOK_DLSYM")
            .build(),
        true,
    );
}

#[test]
fn an_interposer_of_dlsym_after_us() {
    coexists(
        &Build::of("interposer")
            .shared()
            .flag("-DHOOK_DLSYM")
            .build(),
        false,
    );
}

/// One whose own functions only its `dlsym` gives away.
fn hidden_interposer() -> PathBuf {
    Build::of("interposer")
        .shared()
        .flag("-DHOOK_DLSYM")
        .flag("-DHIDDEN")
        .build()
}

#[test]
fn an_interposer_of_nothing_but_dlsym_before_us() {
    coexists(&hidden_interposer(), true);
}

#[test]
fn an_interposer_of_nothing_but_dlsym_after_us() {
    coexists(&hidden_interposer(), false);
}

/// One that stands before every way to the driver.
#[test]
fn an_interposer_of_all_look_ups() {
    let exported = Build::of("interposer")
        .shared()
        .flag("-DHOOK_DLSYM")
        .flag("-DHOOK_PROC");
    let hidden = exported.clone().flag("-DHIDDEN");
    coexists(&exported.build(), true);
    coexists(&hidden.build(), false);
}

/// Without libcuda, a function of the driver's name is whosever it is.
#[test]
fn a_program_linked_to_another_library_with_such_names() {
    let stub = Build::of("stub").shared().build();
    for build in [
        Build::of("calls_stub").flag(&stub),
        Build::of("calls_stub").flag("-Wl,-z,now").flag(&stub),
    ] {
        let program = build.build();
        let plain = Run::new(&program).plain().succeeds();
        let traced = Run::new(&program).succeeds();
        assert_eq!(plain.stdout, "4242\n");
        assert_eq!(traced.observable(), plain.observable());
    }
}

/// Our exported functions make weak references look as if there were a driver and a runtime; a call
/// says that there is none, also where another part of the program has opened one for itself.
#[test]
fn weak_references_find_nothing_that_works() {
    let weak = program("weak");
    let runtime = Build::of("cudart").flag("-DVERSION=99").shared().build();
    for arguments in [vec![], vec!["libcuda.so.1".into()], vec![runtime]] {
        let plain = Run::new(&weak).args(&arguments).plain().succeeds();
        let traced = Run::new(&weak).args(&arguments).succeeds();
        assert_eq!(
            plain.stderr,
            "cuInit is null, says 0; cudaMalloc is null, says 0\n"
        );
        assert_eq!(
            traced.stderr,
            "cuInit is there, says 3; cudaMalloc is there, says 3\n"
        );
        assert_eq!(traced.stdout, plain.stdout, "{arguments:?}");
    }
}

/// We may not see what goes past us, but it works.
#[test]
fn ways_past_us_work() {
    let plugin = Build::of("plugin").shared().linked().build();
    for way in ["deepbind", "dlmopen"] {
        let run = || Run::new(program("bypass")).arg(way).arg(&plugin);
        let (plain, traced) = (run().plain().finish(), run().finish());
        assert_eq!(plain.code(), 0, "{plain:?}");
        assert_eq!(traced.observable(), plain.observable(), "{way}");
    }
}
