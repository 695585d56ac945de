//! Compiles C programs and runs them on the simulated driver that cargo just built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

/// A scratch folder that cargo keeps under its target folder.
fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A folder with `libcuda.so.1` and `libcuda.so`, for LD_LIBRARY_PATH.
pub fn driver_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let driver = built_driver();
        let profile = driver
            .parent()
            .and_then(Path::file_name)
            .expect("a profile's folder");
        let dir = scratch().join("libcuda").join(profile);
        std::fs::create_dir_all(&dir).expect("scratch folder");
        for name in ["libcuda.so.1", "libcuda.so"] {
            // Made aside and renamed: other test programs may use the folder right now.
            let (link, fresh) = (
                dir.join(name),
                dir.join(format!("{name}.{}", std::process::id())),
            );
            // A killed process of this id may have left one.
            let _ = std::fs::remove_file(&fresh);
            std::os::unix::fs::symlink(&driver, &fresh).expect("symlink");
            std::fs::rename(&fresh, &link).expect("rename");
        }
        dir
    })
}

/// The library of this build. A test of a package that is only a `cdylib` does not make cargo build
/// it, so that this does, into the same target folder and profile.
fn built_driver() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("a profile's folder");
    let target = profile.parent().expect("the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "-p", "vramtrace-sim", "--target-dir"])
        .arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    assert!(
        cargo.status().expect("cargo").success(),
        "the simulated driver does not build"
    );
    profile.join("libcuda.so")
}

/// Compiles a program of `tests/programs`, once per test process.
pub fn compile(name: &'static str) -> PathBuf {
    static DONE: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut done = DONE.lock().expect("no test panics while it compiles");
    if let Some(program) = done.get(name) {
        return program.clone();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../programs")
        .join(name);
    let program = scratch().join(name.trim_end_matches(".c"));
    let fresh = program.with_extension(std::process::id().to_string());
    let status = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&fresh)
        .arg(source)
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("a C compiler");
    assert!(status.success(), "{name} does not compile");
    std::fs::rename(&fresh, &program).expect("rename");
    done.insert(name, program.clone());
    program
}

/// Runs a program on the simulated driver, with nothing of the caller's simulator configuration.
pub fn run(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LD_LIBRARY_PATH", driver_dir())
        .env_remove("LD_PRELOAD");
    for (name, _) in std::env::vars() {
        if name.starts_with("VRAMTRACE_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().copied());
    command.output().expect("the program starts")
}

/// What a run wrote to its standard output; the run must have succeeded.
pub fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
