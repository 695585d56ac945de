//! Exit codes, arguments, environment, and wrong usage.

use crate::fixture::{DEAD, Scene, stand_in};
use crate::support::{MIB, START, TraceFile, module, native, process};
use std::fs;
use std::os::unix::fs::symlink;
use vramtrace_format::cold::Cold;
use vramtrace_format::record::Kind;

#[test]
fn the_programs_own_exit_code() {
    let scene = Scene::new();
    for code in [0, 1, 7, 255] {
        scene
            .run(&["sh", "-c", &format!("exit {code}")])
            .expect(code);
    }
    scene.run(&["sh", "-c", "kill -9 $$"]).expect(137);
    scene.run(&["sh", "-c", "kill -SEGV $$"]).expect(139);
}

#[test]
fn what_cannot_be_run() {
    let scene = Scene::new();
    scene
        .run(&["no-such-program-anywhere"])
        .expect(127)
        .says("no-such-program-anywhere: no such program");
    scene
        .run(&["./missing"])
        .expect(127)
        .says("no such program");
    fs::write(scene.out().join("data"), "text").unwrap();
    scene.run(&["./data"]).expect(126).says("cannot run ./data");
    scene.run(&["/"]).expect(126);
    scene.script("script", "#!/no/such/interpreter\n");
    scene
        .run(&["./script"])
        .expect(127)
        .says("its interpreter /no/such/interpreter does not exist");
    assert!(scene.left_over().is_empty());
}

#[test]
fn the_program_finds_arguments_and_streams_as_they_were() {
    let scene = Scene::new();
    let ran = scene
        .run(&["printf", "%s|", "-o", "--force", "a b", ""])
        .expect(0);
    assert_eq!(ran.stdout, "-o|--force|a b||");
    let ran = scene.run(&["--", "echo", "--", "x"]).expect(0);
    assert_eq!(ran.stdout, "-- x\n");
}

#[test]
fn the_environment_tells_the_recorder_everything() {
    let scene = Scene::new();
    let options = [
        "-o",
        "t/%h.%p.vrt",
        "--size",
        "2GiB",
        "--stacks",
        "both",
        "--sample",
        "1MiB",
        "--budget",
        "0.5%",
        "--on-oom",
        "snapshot",
        "--keep",
        "4GiB",
        "env",
    ];
    let mut command = scene.command(&options);
    let output = command
        .env("LD_PRELOAD", "libc.so.6 libm.so.6")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let out = scene.out().canonicalize().unwrap();
    assert_eq!(
        value("VRAMTRACE_OUTPUT"),
        format!("{}/t/%h.%p.vrt", out.display())
    );
    assert_eq!(value("VRAMTRACE_SIZE"), (2u64 << 30).to_string());
    assert_eq!(value("VRAMTRACE_STACKS"), "both");
    assert_eq!(value("VRAMTRACE_SAMPLE"), (1 << 20).to_string());
    assert_eq!(value("VRAMTRACE_BUDGET"), "0.5");
    assert_eq!(value("VRAMTRACE_ON_OOM"), "snapshot");
    assert_eq!(value("VRAMTRACE_KEEP"), (4u64 << 30).to_string());
    let preload = format!("{}:libc.so.6:libm.so.6", stand_in().display());
    assert_eq!(value("LD_PRELOAD"), preload);
    let run_dir = value("VRAMTRACE_RUN_DIR");
    let base = scene.runtime().join("vramtrace");
    assert!(
        run_dir.starts_with(&format!("{}/run-", base.display())),
        "{run_dir}"
    );
}

#[test]
fn the_run_directory_is_private_and_goes_away() {
    let scene = Scene::new();
    let ran = scene
        .run(&["sh", "-c", r#"stat -c %a "$VRAMTRACE_RUN_DIR""#])
        .expect(0);
    assert_eq!(ran.stdout, "700\n");
    assert!(scene.left_over().is_empty());
}

#[test]
fn a_library_path_with_a_space_gets_through() {
    let scene = Scene::new();
    let spaced = scene.path().join("my tools: new");
    fs::create_dir(&spaced).unwrap();
    symlink(stand_in(), spaced.join("libvramtrace.so")).unwrap();
    let mut command = scene.command(&[
        "sh",
        "-c",
        "grep -c libvramtrace /proc/self/maps; echo $LD_PRELOAD",
    ]);
    let output = command
        .env("VRAMTRACE_LIB", spaced.join("libvramtrace.so"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().next().is_some_and(|count| count != "0"),
        "{text}"
    );
    assert!(text.contains("/run-"), "{text}");
    assert!(scene.left_over().is_empty());
}

#[test]
fn wrong_usage_is_2_and_nothing_runs() {
    let scene = Scene::new();
    let wrong: [&[&str]; 11] = [
        &["-o", "%x"],
        &["-o", "%q{"],
        &["-o", "a%"],
        &["-o", ""],
        &["-o", "/proc/x/y/z"],
        &["--size", "lots"],
        &["--size", "2048GiB"],
        &["--stacks", "yes"],
        &["--sample", "0"],
        &["--budget", "-1"],
        &["--on-oom", "cry"],
    ];
    for options in wrong {
        let mut arguments = options.to_vec();
        arguments.extend(["touch", "ran"]);
        let ran = scene.run(&arguments).expect(2);
        assert!(!ran.stderr.is_empty());
        assert!(!scene.out().join("ran").exists(), "{options:?}");
    }
    scene.run(&[]).expect(2);
    scene
        .run(&["--sise", "1MiB", "true"])
        .expect(2)
        .says("--sise");
    let output = scene
        .command(&["true"])
        .env("VRAMTRACE_SIZE", "lots")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = scene
        .command(&["true"])
        .env("VRAMTRACE_LIB", "/no/lib.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/lib.so"));
}

#[test]
fn no_cuda_is_said_plainly() {
    let scene = Scene::new();
    scene
        .run(&["true"])
        .expect(0)
        .says("No CUDA memory was allocated");
    scene.run(&["--fail-on-leak", "true"]).expect(4);
    scene
        .run(&["--fail-on-leak", "sh", "-c", "exit 3"])
        .expect(3);
}

#[test]
fn a_program_that_cannot_be_traced_runs_with_a_warning() {
    let scene = Scene::new();
    fs::write(scene.out().join("x.c"), "int main(void) { return 5; }\n").unwrap();
    let built = std::process::Command::new("cc")
        .args(["-static", "-o", "static", "x.c"])
        .current_dir(scene.out())
        .output()
        .unwrap();
    if !built.status.success() {
        eprintln!("skipped: no static C library here");
        return;
    }
    scene
        .run(&["./static"])
        .expect(5)
        .says("statically linked: it cannot be traced");
}

#[test]
fn a_run_fails_for_leaks_that_are_not_suppressed() {
    let scene = Scene::new();
    let mut file = TraceFile::bare(1 << 20);
    let header = file.layout.header(DEAD, START, 1);
    file.bytes()[..size_of_val(&header)].copy_from_slice(bytemuck::bytes_of(&header));
    file.cold(Cold::Process(process(DEAD, "/opt/app/train")));
    file.cold(Cold::Module(module(1, "/opt/app/libknown.so")));
    let stack = file.stack(&[native(1, 0x500)]);
    file.alloc(Kind::Device, MIB, stack);
    let path = file.exit().write(&scene.path().join("traces"), "leak.vrt");
    fs::write(scene.out().join("known"), "leak:libknown.so$\n").unwrap();
    fs::write(scene.out().join("other"), "leak:libother\n").unwrap();
    for (suppressions, code, said) in [
        (
            &[][..],
            1,
            ": 1.00 MiB of GPU memory still allocated in 1 allocation\n",
        ),
        (
            &["--suppressions", "other"],
            1,
            ": 1.00 MiB of GPU memory still allocated in 1 allocation\n",
        ),
        (
            &["--suppressions", "other", "--suppressions", "known"],
            0,
            ": nothing left allocated, 1.00 MiB in 1 allocation suppressed\n",
        ),
    ] {
        let options = [&["-f", "--fail-on-leak"], suppressions].concat();
        let ran = scene.run_leaving(&options, &[path.to_str().unwrap()]);
        let next = [&["next: vramtrace leaks"], suppressions]
            .concat()
            .join(" ");
        ran.expect(code).says(said).says(&next);
    }
}
