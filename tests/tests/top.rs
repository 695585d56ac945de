//! `vramtrace top`: the real command in a real terminal (tmux), with real keys, over real programs.
//!
//! `scripts/check-top` brings tmux; without it, what needs a terminal is skipped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use vramtrace_tests::serving::HANGS;
use vramtrace_tests::{Run, Scratch, artifacts, program, skip};

/// A program whose memory moves.
struct Moves(Child);

impl Moves {
    fn start(directory: &Path) -> Moves {
        let run = Run::new(program("moves"))
            .arg("200")
            .env("VRAMTRACE_OUTPUT", directory.join("%e.%p.vrt"));
        let mut seen = false;
        let child = run.with_stdout(|out| {
            seen = BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .any(|line| line == "moves");
        });
        assert!(seen, "the program ended early");
        Moves(child)
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn top(arguments: &[&str]) -> Output {
    Command::new(&artifacts().reader)
        .arg("top")
        .args(arguments)
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .expect("vramtrace starts")
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn one_picture_needs_no_terminal() {
    let traces = Scratch::new();
    let one = Moves::start(traces.path());
    let path = traces.path().to_string_lossy().into_owned();
    let document = top(&["--json", "--no-nvml", &path]);
    assert!(document.status.success(), "{}", said(&document));
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).expect("JSON");
    assert_eq!(document["schema"], "vramtrace.top/1");
    assert_eq!(document["processes"][0]["pid"], one.0.id());
    assert!(document["growth_over_s"].as_f64() > Some(0.3));
    let groups = document["groups"].as_array().expect("groups");
    let site = |name: &str| {
        let is_it = |group: &&serde_json::Value| {
            group["value"]
                .as_str()
                .is_some_and(|value| value.starts_with(name))
        };
        let found = groups.iter().find(is_it);
        found.unwrap_or_else(|| panic!("no {name}: {document:#}"))
    };
    assert_eq!(site("keeps moves.c:")["bytes"], 3u64 << 30);
    assert_eq!(site("pins moves.c:")["layer"], "host");
    assert!(
        site("batch moves.c:")["callers"][0]
            .as_str()
            .is_some_and(|c| c.starts_with("forward"))
    );
    let failure = &document["failures"][0];
    assert_eq!(failure["asked_bytes"], 1u64 << 46);
    assert!(
        failure["site"]
            .as_str()
            .is_some_and(|site| site.starts_with("fails"))
    );

    // By its number, wherever its trace is.
    let number = one.0.id().to_string();
    let text = top(&["--once", "--no-nvml", "--by", "kind", &number]);
    let text = said(&text);
    for part in [
        "1 running",
        "Memory by kind",
        "pinned",
        "fails moves.c",
        "64.00 TiB",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let without = top(&[&path]);
    assert_eq!(without.status.code(), Some(2));
    assert!(said(&without).contains("--once"), "{}", said(&without));
    let nobody = top(&["--once", "/no/such/directory"]);
    assert_eq!(nobody.status.code(), Some(3));
    fs::write(traces.path().join("bad.vrt"), "nonsense").expect("a file");
    let bad = traces.path().join("bad.vrt");
    let bad = top(&["--once", "--no-nvml", &bad.to_string_lossy()]);
    assert_eq!(bad.status.code(), Some(3), "{}", said(&bad));
    let empty = Scratch::new();
    let none = top(&["--once", "--no-nvml", &empty.path().to_string_lossy()]);
    assert_eq!(none.status.code(), Some(0));
    assert!(said(&none).contains("vramtrace run -- PROGRAM"));
}

/// A terminal of a test's own, in which one command runs.
struct Terminal {
    tmux: PathBuf,
    socket: String,
    number: std::cell::Cell<u32>,
}

impl Terminal {
    /// `None`, said aloud, where there is no tmux.
    fn start(what: &str, size: (u16, u16), command: &str) -> Option<Terminal> {
        let Some(tmux) = std::env::var_os("VRAMTRACE_TEST_TMUX") else {
            skip(
                what,
                "VRAMTRACE_TEST_TMUX does not name tmux (scripts/check-top does)",
            );
            return None;
        };
        let terminal = Terminal {
            tmux: tmux.into(),
            socket: format!("vramtrace-{}-{what}", std::process::id()),
            number: std::cell::Cell::new(0),
        };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        // What comes after it shows that the terminal is given back.
        let script = format!(
            "{command}; echo ENDED $?; stty -a | grep -o '.icanon\\|.echo '; exec sleep 100"
        );
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            &script,
        ]);
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.tmux)
            .args(["-L", &self.socket])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .output()
            .expect("tmux starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        for key in keys {
            self.tmux(&["send-keys", key]);
        }
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen, once it says so; kept where somebody wants to look at it.
    fn until(&self, what: &str, says: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if says(&screen) {
                if let Some(folder) = std::env::var_os("VRAMTRACE_TEST_SCREENS") {
                    let name = format!("{}-{:02}-{what}", self.socket, self.number.get());
                    self.number.set(self.number.get() + 1);
                    let path = PathBuf::from(folder).join(name.replace(' ', "-"));
                    let colours = self.tmux(&["capture-pane", "-p", "-e"]);
                    fs::write(path.with_extension("txt"), &screen).expect("a screen");
                    fs::write(path.with_extension("ansi"), colours).expect("a screen");
                }
                return screen;
            }
            assert!(begun.elapsed() < HANGS, "never {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_has(&self, part: &str) -> String {
        self.until(part, |screen| screen.contains(part))
    }

    /// The command has ended with this code, and the terminal is as it was.
    fn ended(&self, code: i32) {
        let screen = self.until("ended", |screen| {
            screen.contains("ENDED") && screen.contains(" echo")
        });
        assert!(screen.contains(&format!("ENDED {code}")), "{screen}");
        assert!(
            !screen.contains("-icanon") && !screen.contains("-echo "),
            "{screen}"
        );
        let flags = "#{alternate_on} #{mouse_any_flag} #{cursor_flag}";
        let state = self.tmux(&["display-message", "-p", flags]);
        assert_eq!(state.trim(), "0 0 1", "{screen}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn command(directory: &Path) -> String {
    let reader = artifacts().reader.display();
    format!(
        "'{reader}' top --no-nvml --interval 200ms '{}'",
        directory.display()
    )
}

#[test]
fn keys_on_a_terminal() {
    let traces = Scratch::new();
    let mut all = [Moves::start(traces.path()), Moves::start(traces.path())];
    let Some(terminal) = Terminal::start("keys", (100, 36), &command(traces.path())) else {
        return;
    };
    let screen = terminal.until_has("leaks moves.c:");
    for part in ["2 running", "GPU 0", "Stacks", "keeps moves.c:", "MiB/s"] {
        assert!(screen.contains(part), "{part}\n{screen}");
    }
    terminal.keys(&["b", "b", "b", "b"]);
    terminal.until_has("By kind");
    terminal.keys(&["B", "B", "B", "B", "S"]);
    terminal.until_has("sort growth");
    terminal.keys(&["s", "s", "s", "/"]);
    terminal.keys(&["keeps", "Enter"]);
    terminal.until("filtered", |screen| {
        screen.contains("/ keeps") && !screen.contains("leaks moves.c")
    });
    terminal.keys(&["2", "Down", "Enter"]);
    let screen = terminal.until_has("#0 ");
    assert!(
        screen.contains("keeps") && screen.contains("#1 "),
        "{screen}"
    );
    terminal.keys(&["Escape"]);
    terminal.until("closed", |screen| !screen.contains("#0 "));
    terminal.keys(&["Escape"]);
    terminal.until_has("leaks moves.c:");
    terminal.keys(&["4", "Down", "Enter"]);
    terminal.until_has("64.00 TiB asked for");
    terminal.keys(&["Escape", "p"]);
    terminal.until_has("PAUSED");
    terminal.keys(&["p", "?"]);
    terminal.until_has("ctrl-Z");
    terminal.keys(&["Escape"]);
    // A click, as a terminal reports it: on the first process, twice.
    terminal.until_has("Processes 2");
    let screen = terminal.until_has("PROGRAM");
    let row = screen
        .lines()
        .position(|line| line.contains("PROGRAM"))
        .expect("heads")
        + 2;
    let click = format!("\u{1b}[<0;12;{row}M\u{1b}[<0;12;{row}m");
    terminal.tmux(&["send-keys", "-l", &click]);
    terminal.tmux(&["send-keys", "-l", &click]);
    terminal.until_has("Esc only moves");
    terminal.keys(&["Escape"]);
    for (width, height) in [("40", "10"), ("20", "4"), ("200", "60"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
        terminal.until("drawn anew", |screen| {
            let lines: Vec<&str> = screen.lines().collect();
            lines
                .first()
                .is_some_and(|line| line.contains("vramtrace top"))
                && (height == "4" || lines.iter().any(|line| line.starts_with(" quit")))
        });
    }
    // One that ends stays, marked.
    let _ = all[0].0.kill();
    let _ = all[0].0.wait();
    let screen = terminal.until_has("killed");
    assert!(screen.contains("1 running · 1 ended"), "{screen}");
    terminal.keys(&["q"]);
    terminal.ended(0);
}

#[test]
fn signals_and_ctrl_c_give_the_terminal_back() {
    let traces = Scratch::new();
    let _one = Moves::start(traces.path());
    for how in ["C-c", "TERM", "INT"] {
        let Some(terminal) = Terminal::start(how, (80, 24), &command(traces.path())) else {
            return;
        };
        terminal.until_has("keeps moves.c:");
        match how {
            "C-c" => terminal.keys(&["C-c"]),
            signal => {
                let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
                let number: i32 = children(shell.trim())[0];
                let signal = match signal {
                    "TERM" => libc::SIGTERM,
                    _ => libc::SIGINT,
                };
                // SAFETY: the number of a process that this test started, which runs: it was drawing.
                unsafe { libc::kill(number, signal) };
            }
        }
        terminal.ended(0);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let traces = Scratch::new();
    let _one = Moves::start(traces.path());
    let Some(terminal) = Terminal::start("gone", (80, 24), &command(traces.path())) else {
        return;
    };
    terminal.until_has("keeps moves.c:");
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let number = children(shell.trim())[0];
    drop(terminal);
    let begun = Instant::now();
    while Path::new(&format!("/proc/{number}/cwd"))
        .read_link()
        .is_ok()
    {
        assert!(begun.elapsed() < HANGS, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let own = std::env::current_exe().expect("this test");
    let command = format!(
        "'{}' --ignored --exact --nocapture panics_on_a_terminal",
        own.display()
    );
    let Some(terminal) = Terminal::start("panic", (80, 24), &command) else {
        return;
    };
    terminal.until_has("on purpose");
    terminal.ended(101);
}

/// What [`a_panic_gives_the_terminal_back`] runs, in a terminal of its own.
#[test]
#[ignore = "run by another test"]
fn panics_on_a_terminal() {
    let Ok(_screen) = vramtrace_reader::top::terminal::Screen::take(true) else {
        return;
    };
    panic!("on purpose");
}

/// Children of a process.
fn children(of: &str) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}
