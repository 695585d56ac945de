//! `vramtrace watch` of a directory that is full of what is no trace, and of traces that change and
//! vanish: it acts for the program that crosses its threshold, only for that one, and ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vramtrace_tests::serving::Held;
use vramtrace_tests::{Run, Scratch, artifacts, full, program, script};

/// Long after it should have ended: it hangs.
const HANGS: Duration = Duration::from_secs(120);

/// A trace of a program that has ended.
fn ended() -> Vec<u8> {
    let finished = Run::new(program("storm"))
        .args(["2000", "2"])
        .env("VRAMTRACE_SIZE", "1MiB")
        .finish();
    fs::read(finished.trace()).expect("its trace")
}

/// Files that are no traces, or were.
fn ruins(directory: &Path, whole: &[u8], many: usize) {
    for number in 0..many {
        let at = directory.join(format!("junk.{number}.vrt"));
        fs::write(at, &whole[..number * 7 % 300]).expect("written");
    }
    for (number, length) in [4095, 4096, 100_000, whole.len() - 1].iter().enumerate() {
        let at = directory.join(format!("cut.{number}.vrt"));
        fs::write(at, &whole[..*length]).expect("written");
    }
    for number in 0..64usize {
        let mut damaged = whole.to_vec();
        // Wherever the sections are: in the header, in counters, in tables.
        for nth in 0..40 {
            let at = (number * 6151 + nth * nth * 977) % damaged.len().min(1 << (12 + number % 9));
            damaged[at] ^= 1 << (nth % 8);
        }
        let at = directory.join(format!("damaged.{number}.vrt"));
        fs::write(at, damaged).expect("written");
    }
    let huge = fs::File::create(directory.join("huge.vrt")).expect("made");
    huge.set_len(1 << 40).expect("as long as that");
    (&huge).write_all(&whole[..4096]).expect("written");
    symlink("/dev/zero", directory.join("endless.vrt")).expect("a link");
    symlink("loop.vrt", directory.join("loop.vrt")).expect("a link");
    symlink("/nowhere", directory.join("dangling.vrt")).expect("a link");
    symlink(directory, directory.join("inside.itself")).expect("a link");
    fs::create_dir(directory.join("folder.vrt")).expect("made");
    let fifo = directory.join("fifo.vrt");
    let made = Command::new("mkfifo").arg(fifo).status();
    assert!(made.expect("mkfifo").success());
}

/// Makes, extends, cuts, renames and deletes traces until it is told to end.
fn restless(directory: &Path, whole: &[u8], stop: &AtomicBool) {
    let name = |number: usize| directory.join(format!("restless.{}.vrt", number % 7));
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (at, to) = (name(round), name(round * 3 + 1));
        let _ = fs::write(&at, &whole[..whole.len() / (1 + round % 4)]);
        if let Ok(file) = OpenOptions::new().write(true).open(&at) {
            let _ = file.set_len((round * 40_961 % (2 * whole.len())) as u64);
        }
        let _ = fs::rename(&at, &to);
        let _ = fs::remove_file(name(round * 5 + 2));
    }
}

/// A `watch` that must end.
struct Watch(Child);

impl Watch {
    fn start(directory: &Path, options: &[&str], command: &[&str]) -> Watch {
        let watch = Command::new(&artifacts().reader)
            .args(["watch", "--no-nvml", "--every", "50ms"])
            .args(options)
            .arg(directory)
            .arg("--")
            .args(command)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Watch(watch.expect("vramtrace starts"))
    }

    fn ends(&mut self) -> i32 {
        let begun = Instant::now();
        while begun.elapsed() < HANGS {
            if let Some(status) = self.0.try_wait().expect("it can be waited for") {
                return status.code().expect("it was not killed");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it hangs");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that notes for which process it was run.
fn notes(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let (command, into) = (scratch.path().join("note"), scratch.path().join("noted"));
    script(
        &command,
        "#!/bin/sh\nprintf '%s\\n' \"$VRAMTRACE_WATCH_PID\" >> \"$1\"\n",
    );
    (command, into)
}

#[test]
fn the_one_program_is_found_among_ruins() {
    let traces = Scratch::new();
    let beside = Scratch::new();
    let whole = ended();
    ruins(traces.path(), &whole, if full() { 10_000 } else { 500 });
    let (command, noted) = notes(&beside);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let restless = scope.spawn(|| restless(traces.path(), &whole, &stop));
        let held = Held::start(traces.path(), &[]);
        let mut watch = Watch::start(
            traces.path(),
            &["--once", "--when", "live > 2MiB", "--do", "exec"],
            &[
                command.to_str().expect("a plain name"),
                noted.to_str().expect("a plain name"),
            ],
        );
        let ended = watch.ends();
        stop.store(true, Ordering::Relaxed);
        restless.join().expect("it ends");
        assert_eq!(ended, 0);
        let noted = fs::read_to_string(&noted).expect("it was run");
        assert_eq!(noted, format!("{}\n", held.pid()));
    });
}

/// Its trace is cut, overwritten and deleted while it is watched; the next program is watched as the
/// first was.
#[test]
fn a_program_whose_trace_goes_is_missed_and_the_next_one_is_not() {
    let traces = Scratch::new();
    let beside = Scratch::new();
    let (command, noted) = notes(&beside);
    let first = Held::start(traces.path(), &[]);
    let trace = traces.path().join(&traces.files()[0]);
    let mut watch = Watch::start(
        traces.path(),
        &["--when", "live > 2MiB", "--do", "exec"],
        &[
            command.to_str().expect("a plain name"),
            noted.to_str().expect("a plain name"),
        ],
    );
    let until = |lines: usize| {
        let begun = Instant::now();
        loop {
            let noted = fs::read_to_string(&noted).unwrap_or_default();
            if noted.lines().count() >= lines {
                return noted;
            }
            assert!(begun.elapsed() < HANGS, "it does not act: {noted:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(until(1), format!("{}\n", first.pid()));
    // A copy in its place: the program's own file, which it has mapped, is not to be cut.
    let copy = fs::read(&trace).expect("read");
    fs::remove_file(&trace).expect("removed");
    for length in [copy.len() / 2, 4096, 100, 0] {
        fs::write(&trace, &copy[..length]).expect("written");
        std::thread::sleep(Duration::from_millis(120));
        let mut overwritten = copy.clone();
        overwritten[..length].fill(0xff);
        fs::write(&trace, overwritten).expect("written");
        std::thread::sleep(Duration::from_millis(60));
    }
    fs::remove_file(&trace).expect("removed");
    let second = Held::start(traces.path(), &[]);
    assert!(until(2).ends_with(&format!("{}\n", second.pid())));
    assert_eq!(watch.0.try_wait().expect("it can be asked"), None);
}
