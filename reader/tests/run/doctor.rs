//! `vramtrace doctor`, and what `vramtrace demo` says where it cannot run.

use crate::fixture::{Ran, Scene, stand_in};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn command(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vramtrace"));
    command
        .args(arguments)
        .current_dir(scene.out())
        .env("VRAMTRACE_LIB", stand_in())
        .env("XDG_RUNTIME_DIR", scene.runtime())
        .env_remove("LD_PRELOAD")
        .env_remove("VRAMTRACE_OFF");
    command
}

fn document(mut command: Command, code: i32) -> Value {
    let ran = Ran::from(command.output().unwrap()).expect(code);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["schema"], "vramtrace.doctor/1");
    assert_eq!(document["traceable"], code == 0);
    document
}

/// Status and message of a check.
fn check<'a>(document: &'a Value, name: &str) -> (&'a str, &'a str) {
    let all = document["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {document}"));
    let text = |key: &str| found[key].as_str().unwrap();
    (text("status"), text("message"))
}

#[test]
fn an_ordinary_program_and_a_script() {
    let scene = Scene::new();
    scene.script("script", "#!/usr/bin/env -S sh -e\n");
    for program in ["sh", "./script"] {
        let found = document(command(&scene, &["doctor", "--json", program]), 0);
        let (status, message) = check(&found, "program");
        assert_eq!(status, "ok", "{message}");
        assert!(message.contains("dynamically linked"), "{message}");
        assert_eq!(check(&found, "recorder").0, "ok");
        assert_eq!(check(&found, "run directory").0, "ok");
    }
    assert!(scene.left_over().is_empty());
    let ran = Ran::from(command(&scene, &["doctor", "sh"]).output().unwrap()).expect(0);
    assert!(
        ran.stdout.contains("Next: vramtrace run sh"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_stands_in_the_way() {
    let scene = Scene::new();
    let found = document(command(&scene, &["doctor", "--json", "./nothing"]), 1);
    assert_eq!(
        check(&found, "program"),
        ("fail", "./nothing: no such program")
    );

    let mut off = command(&scene, &["doctor", "--json"]);
    off.env("VRAMTRACE_OFF", "1");
    assert_eq!(check(&document(off, 1), "settings").0, "fail");

    let mut missing = command(&scene, &["doctor", "--json"]);
    missing.env("VRAMTRACE_LIB", "/no/lib.so");
    assert_eq!(check(&document(missing, 1), "recorder").0, "fail");

    // An ELF file that the dynamic linker refuses.
    let broken = scene.out().join("libvramtrace.so");
    let mut content = fs::read(stand_in()).unwrap();
    content.truncate(64);
    fs::write(&broken, content).unwrap();
    let mut refused = command(&scene, &["doctor", "--json"]);
    refused.env("VRAMTRACE_LIB", &broken);
    let found = document(refused, 1);
    let (status, message) = check(&found, "recorder");
    assert_eq!(status, "fail");
    assert!(message.contains("does not load here"), "{message}");

    let mut crowded = command(&scene, &["doctor", "--json"]);
    crowded.env("LD_PRELOAD", "libm.so.6");
    let found = document(crowded, 0);
    assert_eq!(check(&found, "other preloads").0, "warn");
}

#[test]
fn static_and_privileged_programs() {
    let scene = Scene::new();
    fs::write(scene.out().join("x.c"), "int main(void) { return 0; }\n").unwrap();
    let build = |arguments: &[&str]| {
        let mut cc = Command::new("cc");
        let output = cc
            .args(arguments)
            .arg("x.c")
            .current_dir(scene.out())
            .output();
        output.unwrap().status.success()
    };
    if build(&["-static", "-o", "static"]) {
        let found = document(command(&scene, &["doctor", "--json", "./static"]), 1);
        assert!(check(&found, "program").1.contains("statically linked"));
    } else {
        eprintln!("skipped: no static C library here");
    }
    assert!(build(&["-o", "raised"]));
    let raised = scene.out().join("raised");
    // Only a file of somebody else raises anything.
    if std::os::unix::fs::chown(&raised, Some(12345), None).is_err() {
        eprintln!("skipped: not allowed to give files away");
        return;
    }
    fs::set_permissions(&raised, PermissionsExt::from_mode(0o4755)).unwrap();
    let found = document(command(&scene, &["doctor", "--json", "./raised"]), 1);
    assert!(check(&found, "program").1.contains("is set-user-ID"));
}

/// A driver with one device, as far as the demo's first question goes.
const DRIVER: &str = r#"
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *v) { *v = 12090; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int room, int d) { __builtin_strcpy(name, "Paper GPU"); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = c; return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuMemAlloc_v2(unsigned long *p, unsigned long n) { *p = 4096; return 0; }
int cuMemFree_v2(unsigned long p) { return 0; }
int cuMemAllocAsync(unsigned long *p, unsigned long n, void *s) { return 801; }
int cuMemHostAlloc(void **p, unsigned long n, unsigned f) { *p = p; return 0; }
"#;

#[test]
fn the_demo_needs_a_driver_and_a_recorder() {
    let scene = Scene::new();
    let demo = |scene: &Scene, directory: &str| {
        let mut command = command(scene, &["demo"]);
        command.env("VRAMTRACE_SIM_DIR", scene.path().join(directory));
        command.env("TMPDIR", scene.path());
        Ran::from(command.output().unwrap())
    };
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("skipped: there may be a real driver here");
        return;
    }
    demo(&scene, "nowhere")
        .expect(2)
        .says("no simulated driver");
    let sim = scene.path().join("sim");
    fs::create_dir(&sim).unwrap();
    fs::write(sim.join("x.c"), DRIVER).unwrap();
    let built = Command::new("cc")
        .args(["-w", "-shared", "-fPIC", "-o", "libcuda.so", "x.c"])
        .current_dir(&sim)
        .status();
    assert!(built.unwrap().success());
    demo(&scene, "sim")
        .expect(4)
        .says("running on a simulated driver: Paper GPU, CUDA 12.9")
        .says("8 steps, 8 batches cached, 0 results queued")
        .says("left no trace");
    let left = fs::read_dir(scene.path()).unwrap().flatten();
    let names: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().contains("demo")),
        "{names:?}"
    );
}
