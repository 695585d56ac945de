//! A process can hold several runtimes (libcudart 12 and 13, say). Every call goes to the one that it
//! would go to without us.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use vramtrace_tests::{Build, Run, artifacts, program};

/// A runtime, under the name by which the loader finds it and that is its functions' version.
fn runtime(version: u32) -> PathBuf {
    let name = format!("libcudart.so.{version}");
    let built = Build::of("cudart")
        .flag(format!("-DVERSION={version}"))
        .flag(format!("-Wl,-soname,{name},--default-symver,-Bsymbolic"));
    named(&built.shared().build(), &name)
}

/// A library that is linked to a runtime.
fn user(name: &str, version: u32) -> PathBuf {
    let built = Build::of("cuda_user")
        .flag(format!("-DUSER={name}"))
        .flag("-Wl,--no-as-needed")
        .flag(runtime(version));
    named(&built.shared().build(), &format!("libuser_{name}.so"))
}

/// Another name for a library.
fn named(library: &Path, name: &str) -> PathBuf {
    let link = artifacts().programs.join(name);
    // Another test makes the same one.
    let _ = symlink(library, &link);
    link
}

/// A program that is linked to both users.
fn linked() -> Build {
    Build::of("runtimes")
        .flag("-DLINKED")
        .flag("-Wl,--allow-shlib-undefined")
        .flag(user("a", 12))
        .flag(user("b", 13))
}

fn run(program: &Path, way: &str) -> Run {
    let path = [&artifacts().programs, &artifacts().driver].map(|path| path.as_os_str());
    Run::new(program)
        .env("LD_LIBRARY_PATH", path.join(std::ffi::OsStr::new(":")))
        .arg(way)
        .args([runtime(12), runtime(13)])
        .args([user("a", 12), user("b", 13), user("c", 12)])
}

/// Each line is what it is without us; this is one of them.
fn the_same(program: &Path, way: &str, line: &str) {
    let plain = run(program, way).plain().succeeds();
    let traced = run(program, way).succeeds();
    assert_eq!(traced.observable(), plain.observable(), "{way}");
    assert!(plain.stdout.lines().any(|l| l == line), "{plain:?}");
}

#[test]
fn one_runtime_is_everybodys() {
    the_same(&program("runtimes"), "one", "a jumps: 112");
}

#[test]
fn libraries_opened_for_themselves() {
    the_same(&program("runtimes"), "local", "child: b calls: 213113");
}

#[test]
fn libraries_opened_for_everybody() {
    the_same(&program("runtimes"), "global", "b calls: 213113");
}

/// Linked to libraries that are linked to different runtimes; where those jump to the runtime, the
/// return address is the program's, which is linked to none.
#[test]
fn a_program_of_two_runtimes() {
    for binding in ["-Wl,-z,lazy", "-Wl,-z,now", "-fno-plt"] {
        the_same(&linked().flag(binding).build(), "linked", "b jumps: 113");
    }
}

/// The program is itself a user of one of them, and calls functions of a library that jump to the other.
#[test]
fn a_program_of_one_runtime_with_a_library_of_the_other() {
    let program = linked().flag("-DOWN").flag(runtime(12));
    the_same(&program.build(), "linked", "own: 112");
}

/// Another preloaded library's function has no version, and is everybody's.
#[test]
fn another_library_before_all_runtimes() {
    let other = Build::of("cudart").flag("-DVERSION=99").shared().build();
    let programs = [linked().build(), program("runtimes")];
    for (program, way) in programs.iter().zip(["linked", "local"]) {
        let alone = run(program, way).plain().preload_after(&other).succeeds();
        let before = run(program, way).preload_before(&other).succeeds();
        let after = run(program, way).preload_after(&other).succeeds();
        assert!(alone.stdout.contains("b calls: 299199\n"), "{alone:?}");
        assert_eq!(before.observable(), alone.observable(), "before us, {way}");
        assert_eq!(after.observable(), alone.observable(), "after us, {way}");
    }
}

/// What a place leads to is looked for once.
#[test]
fn calls_search_nothing() {
    let counter = Build::of("counts_searches").shared().build();
    let counted = run(&linked().build(), "linked")
        .env("SEARCHES", "1")
        .preload_before(&counter)
        .succeeds();
    let searches = counted.stdout.lines().next().unwrap_or_default();
    assert!(searches.ends_with(" searches, later 0"), "{counted:?}");
    assert!(!searches.starts_with("0 "), "{counted:?}");
}
