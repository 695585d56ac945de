//! What the environment can do to the recorder, it must not do to the program: on any doubt the
//! program runs untraced, with one line that says why.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use vramtrace_tests::{
    Build, Finished, Leaks, Run, Scratch, artifacts, copy_program, program, skip,
};

fn setting() -> Run {
    Run::new(program("setting"))
}

/// The program ran as ever, untraced, and one line says why.
fn untraced_with_a_line(finished: &Finished, words: &[&str]) {
    let plain = setting().plain().finish();
    assert_eq!(
        (finished.code(), &finished.stdout),
        (plain.code(), &plain.stdout),
        "{finished:#?}"
    );
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("not one line: {lines:?}")
    };
    assert!(line.starts_with("vramtrace: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{line:?} lacks {word:?}");
    }
    assert_eq!(finished.scratch.traces().len(), 0, "{finished:#?}");
}

fn traced(finished: &Finished) {
    assert_eq!(finished.code(), 0, "{finished:#?}");
    finished.leaks().assert_are(&finished.left());
}

#[test]
fn bad_values_name_the_variable_and_what_is_accepted() {
    let sizes = [
        "lots",
        "-1",
        "1.5GiB",
        "64MB",
        "MiB",
        "99999999999999999999",
        "18446744073709551615GiB",
        "2048TiB",
        "0x100000",
        " ",
        "\u{e9}",
        "5 5",
    ];
    for value in sizes {
        untraced_with_a_line(
            &setting().env("VRAMTRACE_SIZE", value).finish(),
            &["VRAMTRACE_SIZE", "accepted"],
        );
        if value != "2048TiB" {
            untraced_with_a_line(
                &setting().env("VRAMTRACE_KEEP", value).finish(),
                &["VRAMTRACE_KEEP", "accepted", "KiB"],
            );
        }
    }
    for (name, values, accepted) in [
        (
            "VRAMTRACE_STACKS",
            &["yes", "AUTO", "python,native", "1", "\x1b[31mred"][..],
            "native",
        ),
        ("VRAMTRACE_LOG", &["debug", "2", "WARN"], "quiet"),
        ("VRAMTRACE_OFF", &["yes", "true", "2", "01"], "0 or 1"),
        (
            "VRAMTRACE_OUTPUT",
            &["/tmp/%z.vrt", "/tmp/%", "/tmp/%q", "/tmp/%q{", "/tmp/%q{}"],
            "%p",
        ),
    ] {
        for value in values {
            let finished = setting().env(name, value).finish();
            untraced_with_a_line(&finished, &[name, accepted]);
            assert!(!finished.stderr.contains('\x1b'), "{:?}", finished.stderr);
        }
    }
}

#[test]
fn bad_values_of_sampling_variables() {
    for (name, value) in [
        ("VRAMTRACE_SAMPLE", "some"),
        ("VRAMTRACE_BUDGET", "-3"),
        ("VRAMTRACE_ON_OOM", "panic"),
    ] {
        untraced_with_a_line(&setting().env(name, value).finish(), &[name, "accepted"]);
    }
}

#[test]
fn bytes_that_are_not_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for name in [
        "VRAMTRACE_SIZE",
        "VRAMTRACE_STACKS",
        "VRAMTRACE_LOG",
        "VRAMTRACE_OFF",
    ] {
        untraced_with_a_line(
            &setting().env(name, OsStr::from_bytes(b"\xff\xfe")).finish(),
            &[name],
        );
    }
    // A path may be any bytes.
    let run = setting();
    let path = [run.scratch().as_os_str().as_bytes(), b"/\xff.vrt"].concat();
    let finished = run
        .env("VRAMTRACE_OUTPUT", OsStr::from_bytes(&path))
        .finish();
    assert_eq!(finished.said(), [""; 0]);
    Leaks::of(Path::new(OsStr::from_bytes(&path)), &[]).assert_are(&finished.left());
}

#[test]
fn empty_values_are_as_if_not_set() {
    let mut run = setting();
    for name in [
        "SIZE", "KEEP", "STACKS", "LOG", "OFF", "SAMPLE", "BUDGET", "ON_OOM",
    ] {
        run = run.env(&format!("VRAMTRACE_{name}"), "");
    }
    let finished = run.finish();
    assert_eq!(finished.said(), [""; 0]);
    traced(&finished);
}

#[test]
fn off_is_off() {
    let finished = setting().env("VRAMTRACE_OFF", "1").finish();
    let plain = setting().plain().finish();
    assert_eq!(finished.observable(), plain.observable());
    assert_eq!(finished.scratch.files(), [""; 0]);
    traced(&setting().env("VRAMTRACE_OFF", "0").finish());
}

#[test]
fn log_levels() {
    let quiet = setting()
        .env("VRAMTRACE_LOG", "quiet")
        .env("VRAMTRACE_SIZE", "1")
        .finish();
    assert_eq!(quiet.said(), [""; 0]);
    traced(&quiet);
    let info = setting().env("VRAMTRACE_LOG", "info").finish();
    assert_eq!(info.said().len(), 1);
    assert!(
        info.said()[0].contains(&*info.trace().to_string_lossy()),
        "{:?}",
        info.said()
    );
}

#[test]
fn the_parts_of_an_output_pattern() {
    let run = setting();
    let pattern = run
        .scratch()
        .join("deep/er/%e-%h-%q{VT_A}-%q{VT_NONE}-%q{VT_SLASH}-%n-%%-%p.vrt");
    let finished = run
        .env("VRAMTRACE_OUTPUT", &pattern)
        .env("VT_A", "rank7")
        .env("VT_SLASH", "../../x")
        .finish();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = finished.scratch.files().pop().expect("a trace");
    let stem = name.strip_suffix(".vrt").expect("its ending");
    let (stem, pid) = stem.rsplit_once('-').expect("its pid");
    assert!(pid.parse::<u32>().is_ok(), "{name}");
    assert_eq!(
        stem,
        format!("deep/er/setting-{}-rank7-unset-.._.._x-1-%", host.trim())
    );
    traced(&finished);
    let mode = std::fs::metadata(finished.trace())
        .expect("the trace")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Pids repeat in containers: a name that is taken is never a reason not to trace.
#[test]
fn taken_names_get_a_number() {
    let scratch = Scratch::new();
    let output = scratch.path().join("same.vrt");
    for _ in 0..3 {
        assert_eq!(
            setting().env("VRAMTRACE_OUTPUT", &output).finish().said(),
            [""; 0]
        );
    }
    assert_eq!(scratch.files(), ["same.2.vrt", "same.3.vrt", "same.vrt"]);
    std::os::unix::fs::symlink(
        scratch.path().join("elsewhere"),
        scratch.path().join("link.vrt"),
    )
    .expect("a link");
    setting()
        .env("VRAMTRACE_OUTPUT", scratch.path().join("link.vrt"))
        .finish();
    assert!(
        scratch.files().contains(&"link.2.vrt".to_owned())
            && !scratch.path().join("elsewhere").exists()
    );
}

#[test]
fn relative_paths_are_of_the_working_directory() {
    let run = setting();
    let directory = run.scratch().to_owned();
    let finished = run
        .directory(&directory)
        .env("VRAMTRACE_OUTPUT", "here.vrt")
        .finish();
    assert_eq!(finished.scratch.files(), ["here.vrt"]);
}

#[test]
fn places_that_cannot_be_written() {
    for place in ["/proc/no/such/%p.vrt", "/sys/%p.vrt", "/dev/null/%p.vrt"] {
        untraced_with_a_line(
            &setting().env("VRAMTRACE_OUTPUT", place).finish(),
            &["not tracing"],
        );
    }
    // A file where a directory should be.
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let finished = setting()
        .env("VRAMTRACE_OUTPUT", file.join("x.vrt"))
        .finish();
    untraced_with_a_line(&finished, &["not tracing", &file.to_string_lossy()]);
}

/// Runs in a mount namespace of its own, where `/mnt` is a file system of this size; `None` where
/// that is not permitted.
fn with_a_small_disk(options: &str, output: &str, prepare: &str, size: &str) -> Option<Finished> {
    let scratch = Scratch::new();
    let check = Command::new("unshare")
        .args(["-m", "true"])
        .stderr(Stdio::null())
        .status();
    if !check.is_ok_and(|status| status.success()) {
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o {options} none {0} || exit 99; {prepare}; exec env LD_PRELOAD={1} {2}; ",
        scratch.path().display(),
        artifacts().shim.display(),
        program("setting").display()
    );
    let finished = Run::new("unshare")
        .plain()
        .args([
            "-m",
            "sh",
            "-c",
            &script.replace("MNT", &scratch.path().to_string_lossy()),
        ])
        .env(
            "VRAMTRACE_OUTPUT",
            output.replace("MNT", &scratch.path().to_string_lossy()),
        )
        .env("VRAMTRACE_SIZE", size)
        .finish();
    (finished.code() != 99).then_some(finished)
}

#[test]
fn a_full_disk() {
    let full = "head -c 8192k /dev/zero > MNT/full 2>/dev/null";
    match with_a_small_disk("size=4M", "MNT/%p.vrt", full, "4MiB") {
        Some(finished) => untraced_with_a_line(&finished, &["not tracing"]),
        None => skip("a full disk", "mounting is not permitted here"),
    }
}

#[test]
fn a_disk_with_less_room_than_wished() {
    match with_a_small_disk("size=10M", "MNT/%p.vrt", "true", "64MiB") {
        Some(finished) => {
            assert_eq!(finished.code(), 0, "{finished:#?}");
            assert_eq!(finished.said().len(), 1, "{}", finished.stderr);
            assert!(
                finished.stderr.contains("instead of 64 MiB"),
                "{}",
                finished.stderr
            );
        }
        None => skip("a disk with little room", "mounting is not permitted here"),
    }
}

#[test]
fn a_disk_that_cannot_be_written() {
    match with_a_small_disk("size=10M,ro", "MNT/%p.vrt", "true", "1MiB") {
        Some(finished) => untraced_with_a_line(&finished, &["not tracing", "ead-only"]),
        None => skip("a read-only disk", "mounting is not permitted here"),
    }
}

/// Docker's /dev/shm has 64 MiB, which others need: an eighth of what is free is taken.
#[test]
fn a_small_shared_memory() {
    let run = |size: &str| {
        let script = format!(
            "mount -t tmpfs -o size={size} none /dev/shm || exit 99; LD_PRELOAD={} {} && du -k -a /dev/shm >&2",
            artifacts().shim.display(),
            program("setting").display()
        );
        Run::new("unshare")
            .plain()
            .args(["-m", "sh", "-c", &script])
            .without("VRAMTRACE_OUTPUT")
            .without("XDG_RUNTIME_DIR")
            .without("VRAMTRACE_SIZE")
            .finish()
    };
    let docker = run("64M");
    if docker.code() == 99 || docker.stderr.contains("unshare") {
        return skip("a small /dev/shm", "mounting is not permitted here");
    }
    assert_eq!(docker.code(), 0, "{docker:#?}");
    assert_eq!(docker.said().len(), 1, "{}", docker.stderr);
    assert!(
        docker
            .stderr
            .contains("the trace is 8 MiB instead of 64 MiB"),
        "{}",
        docker.stderr
    );
    let used = |line: &&str| line.ends_with(".vrt");
    let line = docker.stderr.lines().find(used).expect("a trace");
    let kib: u64 = line
        .split_ascii_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("its size");
    assert!(kib <= 8 << 10, "{line}");
    let tiny = run("4M");
    assert_eq!(tiny.code(), 0, "{tiny:#?}");
    assert!(
        tiny.stderr.contains("not tracing") && !tiny.stderr.contains(".vrt"),
        "{}",
        tiny.stderr
    );
}

#[test]
fn a_limit_on_file_sizes() {
    let limited = |bytes: u64| {
        setting()
            .env("VRAMTRACE_SIZE", "64MiB")
            .with(|command| {
                let limit = libc::rlimit {
                    rlim_cur: bytes,
                    rlim_max: bytes,
                };
                // SAFETY: setrlimit is async-signal-safe and gets a valid struct.
                unsafe {
                    command.pre_exec(move || {
                        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
                        Ok(())
                    })
                };
            })
            .finish()
    };
    untraced_with_a_line(&limited(4096), &["not tracing"]);
    untraced_with_a_line(&limited(0), &["not tracing"]);
    let smaller = limited(3 << 20);
    assert!(
        smaller.stderr.contains("3 MiB instead of 64 MiB"),
        "{}",
        smaller.stderr
    );
    traced(&smaller);
}

#[test]
fn a_network_file_system() {
    let netfs = Build::of("netfs").shared().build();
    let finished = setting().preload_before(&netfs).finish();
    untraced_with_a_line(&finished, &["not tracing", "NFS", "VRAMTRACE_OUTPUT"]);
}

/// A setuid program runs with rights that its caller has not: nothing is written for it.
#[test]
fn a_setuid_program() {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return skip("a setuid program", "only root can make one");
    }
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).expect("its mode");
    let copy = scratch.path().join("setuid");
    copy_program(&program("setting"), &copy, "4755");
    // The loader drops LD_LIBRARY_PATH and, for lack of a setuid library, the preload; through
    // a driver in the program's own search path the recorder is reached all the same.
    let finished = Run::new("setpriv")
        .plain()
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "env"])
        .arg(format!("LD_PRELOAD={}", artifacts().shim.display()))
        .arg(&copy)
        .env("VRAMTRACE_OUTPUT", scratch.path().join("%p.vrt"))
        .finish();
    if finished.stderr.contains("setpriv") {
        return skip("a setuid program", &finished.stderr);
    }
    assert_eq!(scratch.traces().len(), 0, "{finished:#?}");
}

#[test]
fn closed_descriptors() {
    let plain = setting().arg("closed").plain().finish();
    let finished = setting().arg("closed").finish();
    assert_eq!(finished.code(), plain.code(), "{finished:#?}");
    let (bytes, count) = finished.leaks().total("gpu");
    assert_eq!((bytes, count), (4321, 1));
    // Something is to be said, and there is nowhere to say it.
    let finished = setting()
        .arg("closed")
        .env("VRAMTRACE_SIZE", "lots")
        .finish();
    assert_eq!(finished.code(), plain.code(), "{finished:#?}");
}

#[test]
fn a_standard_error_that_is_full() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let finished = setting()
        .stderr(full.into())
        .env("VRAMTRACE_SIZE", "lots")
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
}

#[test]
fn a_directory_that_is_gone() {
    let scratch = Scratch::new();
    let gone = scratch.path().join("gone");
    std::fs::create_dir(&gone).expect("a directory");
    let script = format!(
        "rmdir '{}' && exec '{}'",
        gone.display(),
        program("setting").display()
    );
    let finished = Run::new("sh")
        .args(["-c", &script])
        .directory(&gone)
        .env("VRAMTRACE_OUTPUT", "x.vrt")
        .finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert!(
        finished.left().len() == 1 && finished.said().len() <= 1,
        "{finished:#?}"
    );
}

/// Then reading it is a segmentation fault, and so is the C library's clock.
#[test]
fn a_process_that_forbids_itself_the_time_stamp_counter() {
    for when in ["early", "unheard", "late", "crowd"] {
        let run = || Run::new(program("counter")).arg(when);
        let plain = run().plain().finish();
        if plain.stdout == "unsupported\n" {
            return skip(
                "a forbidden time-stamp counter",
                "it cannot be forbidden here",
            );
        }
        let finished = run().finish();
        assert_eq!(finished.observable(), plain.observable(), "{when}");
        traced(&finished);
    }
}
