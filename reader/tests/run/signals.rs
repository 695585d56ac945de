//! Signals, orphans, terminals, and being process 1.

use crate::fixture::{Ran, Scene};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Says when it is ready, then what it gets.
const LISTENER: &str = r#"
for s in HUP INT QUIT TERM USR1 USR2; do trap "echo $s" $s; done
trap 'echo done; exit 9' ALRM
echo ready
while :; do sleep 0.02; done
"#;

fn send(child: &Child, signal: libc::c_int) {
    // SAFETY: plain integers; the child is not reaped yet.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn signals_are_passed_on() {
    let scene = Scene::new();
    let mut child = scene
        .command(&["sh", "-c", LISTENER])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "ready");
    let signals = [
        (libc::SIGHUP, "HUP"),
        (libc::SIGINT, "INT"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
        (libc::SIGALRM, "done"),
    ];
    for (number, name) in signals {
        send(&child, number);
        assert_eq!(next(), name);
    }
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_signal_that_kills_is_told_in_the_exit_code() {
    let scene = Scene::new();
    let mut child = scene
        .command(&["sh", "-c", "echo ready; exec sleep 30"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0u8; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    send(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGTERM));
}

#[test]
fn the_program_finds_its_signals_as_they_were() {
    let scene = Scene::new();
    // Not through a shell: shells change some.
    let show = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
    let mut command = scene.command(&show);
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let ran = Ran::from(command.output().unwrap()).expect(0);
    let mask = |name: &str| {
        let line = ran
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    let ignored = mask("SigIgn:");
    for signal in [libc::SIGHUP, libc::SIGCHLD] {
        assert!(ignored & (1 << (signal - 1)) != 0, "{ignored:x}");
    }
    assert!(ignored & (1 << (libc::SIGPIPE - 1)) == 0, "{ignored:x}");
}

#[test]
fn an_exit_code_survives_where_children_are_ignored() {
    let scene = Scene::new();
    let mut command = scene.command(&["sh", "-c", "exit 5"]);
    // SAFETY: the call is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    Ran::from(command.output().unwrap()).expect(5);
}

#[test]
fn an_untraced_orphan_keeps_nobody_waiting_and_is_named() {
    let scene = Scene::new();
    let start = Instant::now();
    scene
        .run(&["sh", "-c", "sleep 20 >/dev/null 2>&1 & exit 4"])
        .expect(4)
        .says("still running: sleep (pid ");
    assert_eq!(scene.left_over().len(), 1);
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// A terminal: what is typed goes into the returned file.
fn on_terminal(mut command: Command) -> (Child, File) {
    let (mut ours, mut theirs) = (0, 0);
    use std::ptr::{null, null_mut};
    // SAFETY: both descriptors are valid for writes; null means not wanted, or the default.
    let made = unsafe { libc::openpty(&mut ours, &mut theirs, null_mut(), null(), null()) };
    assert_eq!(made, 0);
    // SAFETY: openpty just made these descriptors; nothing else owns them.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let terminal = theirs.as_raw_fd();
    command
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs.try_clone().unwrap());
    // SAFETY: both calls are async-signal-safe; the descriptor is open in the child.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            libc::ioctl(terminal, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    (command.spawn().unwrap(), ours)
}

#[test]
fn control_c_arrives_once() {
    let scene = Scene::new();
    let program = r#"
trap 'n=$((n+1))' INT
trap 'echo "got $n"; exit 6' TERM
echo ready
while :; do sleep 0.02; done
"#;
    let (mut child, mut terminal) = on_terminal(scene.command(&["sh", "-c", program]));
    let mut seen = String::new();
    let mut until = |terminal: &mut File, text: &str| {
        let mut buffer = [0u8; 256];
        while !seen.contains(text) {
            let length = terminal.read(&mut buffer).unwrap_or(0);
            assert!(length > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    until(&mut terminal, "ready");
    terminal.write_all(b"\x03").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    send(&child, libc::SIGTERM);
    until(&mut terminal, "got 1");
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

/// The command as process 1 of a namespace of its own, if that is allowed here.
fn as_first(scene: &Scene, arguments: &[&str]) -> Option<Command> {
    let options = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let allowed = Command::new("unshare").args(options).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a pid namespace is not allowed here");
        return None;
    }
    let inner = scene.command(arguments);
    let mut command = Command::new("unshare");
    command
        .args(options)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(scene.out());
    Some(command)
}

#[test]
fn process_1_reaps_orphans_and_keeps_the_exit_code() {
    let scene = Scene::new();
    let program = r#"
for i in 1 2 3 4 5; do (sh -c 'sleep 0.1; exit 3' &); done
sleep 0.6
echo zombies $(cat /proc/[0-9]*/stat | grep -c ') Z ')
[ "$(cat /proc/1/comm)" = vramtrace ] || exit 70
exit 11
"#;
    let Some(mut command) = as_first(&scene, &["sh", "-c", program]) else {
        return;
    };
    let ran = Ran::from(command.output().unwrap()).expect(11);
    assert_eq!(ran.stdout, "zombies 0\n");
}

#[test]
fn process_1_passes_signals_on() {
    let scene = Scene::new();
    let program = "trap 'exit 12' TERM; kill -TERM 1; while :; do sleep 0.02; done";
    let Some(mut command) = as_first(&scene, &["sh", "-c", program]) else {
        return;
    };
    Ran::from(command.output().unwrap()).expect(12);
}

#[test]
fn process_1_ends_the_others_and_brings_their_traces_home() {
    let scene = Scene::new();
    let home = scene.out().join("daemon.vrt");
    let trace = scene.trace("3.vrt", 3, 1, Some(&home));
    // The shell is process 2; the daemon, whose trace it is, process 3: one more thread would take
    // that number.
    let program = r#"
setsid sleep 60 >/dev/null 2>&1 &
[ $! = 3 ] || exit 70
cp "$1" "$VRAMTRACE_RUN_DIR"
"#;
    let arguments = ["--no-nvml", "--", "sh", "-c", program, "sh", &trace];
    let Some(mut command) = as_first(&scene, &arguments) else {
        return;
    };
    let start = Instant::now();
    Ran::from(command.output().unwrap()).expect(0);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(home.exists());
}
