//! What a `vramtrace run` that was itself killed leaves behind.

use crate::fixture::{DEAD, Ran, Scene};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Kills a `vramtrace run` whose program left these traces. Returns the program's pid: it goes on.
fn kill_a_run(scene: &Scene, traces: &[&str]) -> i32 {
    let program = r#"cp "$@" "$VRAMTRACE_RUN_DIR"; echo $$; exec sleep 100 >/dev/null"#;
    let mut child = scene
        .command(&["sh", "-c", program, "sh"])
        .args(traces)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line.trim().parse().unwrap()
}

/// Ends a process, and waits until it is gone: nobody here is its parent.
fn end(pid: i32) {
    // SAFETY: plain integers.
    while unsafe { libc::kill(pid, libc::SIGKILL) } == 0 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_next_run_brings_its_traces_home() {
    let scene = Scene::new();
    let home = scene.out().join("x.vrt");
    let ended = scene.trace("1.vrt", DEAD, 1, Some(&home));
    let running = scene.trace("2.vrt", std::process::id(), 2, Some(&home));
    let gone = scene.trace("3.vrt", DEAD, 3, Some(&scene.out().join("gone/x.vrt")));
    let sleeper = kill_a_run(&scene, &[&ended, &running, &gone]);
    let [left] = &scene.left_over()[..] else {
        panic!("{:?}", scene.left_over());
    };

    let read = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(["leaks", "--json"])
        .current_dir(scene.out())
        .env("XDG_RUNTIME_DIR", scene.runtime())
        .output();
    Ran::from(read.unwrap())
        .expect(0)
        .says(left.to_str().unwrap());

    scene
        .run(&["true"])
        .expect(0)
        .says("the trace of fake from an earlier run, which was killed, is now ")
        .says("No CUDA");
    assert!(fs::read(&home).unwrap() == fs::read(&ended).unwrap());
    // One still grows, and nobody makes the other's directory anew.
    assert!(left.join("2.vrt").exists() && left.join("3.vrt").exists());
    let quiet = scene.run(&["true"]).expect(0);
    assert!(!quiet.stderr.contains("earlier run"), "{}", quiet.stderr);

    fs::remove_file(left.join("2.vrt")).unwrap();
    fs::create_dir(scene.out().join("gone")).unwrap();
    scene.run(&["true"]).expect(0).says("gone/x.vrt");
    // The program may yet begin a trace there.
    assert!(left.exists());
    end(sleeper);
    scene.run(&["true"]).expect(0);
    assert!(scene.left_over().is_empty());
}

#[test]
fn a_run_that_goes_on_is_left_alone() {
    let scene = Scene::new();
    let home = scene.out().join("x.vrt");
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&home));
    // The inner run ends while the outer one still looks after its directory.
    let program = r#"cp "$1" "$VRAMTRACE_RUN_DIR"; "$2" run true 2>inner; cat inner; ls"#;
    let own = env!("CARGO_BIN_EXE_vramtrace");
    let ran = scene
        .run(&["sh", "-c", program, "sh", &trace, own])
        .expect(0);
    assert!(ran.stdout.contains("No CUDA"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("x.vrt"), "{}", ran.stdout);
    assert!(home.exists() && scene.left_over().is_empty());
}
