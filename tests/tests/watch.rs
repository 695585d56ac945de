//! `vramtrace watch`: real programs that cross thresholds, through the real command.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;
use vramtrace_tests::serving::Held;
use vramtrace_tests::{Scratch, script, skip, vramtrace};

fn watch(directory: &Path, options: &[&str], command: &[&str]) -> Output {
    let mut arguments = vec!["watch", "--no-nvml", "--every", "100ms"];
    arguments.extend(options);
    let directory = directory.to_str().expect("a plain name");
    arguments.push(directory);
    if !command.is_empty() {
        arguments.push("--");
        arguments.extend(command);
    }
    vramtrace(arguments)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_gets_its_arguments_and_facts_as_they_are() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let out = traces.path().join("out of it");
    let path = traces.path().join("script");
    let text = "#!/bin/sh\nprintf '%s\\n' \"$2\" \"$VRAMTRACE_WATCH_PID\" \"$VRAMTRACE_WATCH_LIVE_BYTES\" \"$VRAMTRACE_WATCH_WHEN\" > \"$1\"; printf %s \"$VRAMTRACE_WATCH_JSON\" > \"$1.json\"\n";
    script(&path, text);
    let out_text = out.to_str().expect("a plain name");
    let command = path.to_str().expect("a plain name");
    let when = "live > 2MiB and failures > 0";
    let output = watch(
        traces.path(),
        &["--once", "--when", when, "--do", "exec"],
        &[command, out_text, "$(id); `x` 'y'"],
    );
    assert!(output.status.success(), "{}", said(&output));
    let told = fs::read_to_string(&out).unwrap_or_else(|_| panic!("{}", said(&output)));
    let wanted = format!("$(id); `x` 'y'\n{}\n3145728\n{when}\n", held.child.id());
    assert_eq!(told, wanted);
    // What a webhook gets, for programs that know https.
    let json = fs::read(traces.path().join("out of it.json")).expect("the document");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["schema"], "vramtrace.watch/1");
    assert_eq!(json["when"], when);
    assert!(said(&output).contains(": done"), "{}", said(&output));
}

#[test]
fn a_signal_reaches_the_program() {
    let traces = Scratch::new();
    let mut held = Held::start(traces.path(), &[]);
    let dry = [
        "--once",
        "--dry-run",
        "--when",
        "live > 2MiB",
        "--do",
        "signal:USR1",
    ];
    let output = watch(traces.path(), &dry, &[]);
    assert!(
        said(&output).contains("would signal USR1"),
        "{}",
        said(&output)
    );
    assert!(
        held.child.try_wait().expect("asked").is_none(),
        "nothing was to be done"
    );
    let output = watch(
        traces.path(),
        &["--once", "--when", "live > 2MiB", "--do", "signal:USR1"],
        &[],
    );
    assert!(said(&output).contains("sent to"), "{}", said(&output));
    let status = held.child.wait().expect("its end");
    assert_eq!(status.signal(), Some(libc::SIGUSR1));
}

#[test]
fn a_webhook_gets_json() {
    let traces = Scratch::new();
    let held = Held::start(traces.path(), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let action = format!(
        "webhook:http://{}/alert?x=1",
        listener.local_addr().expect("an address")
    );
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream.try_clone().expect("the stream"));
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .expect("answered");
        (head, body)
    });
    let output = watch(
        traces.path(),
        &["--once", "--when", "failures > 0", "--do", &action],
        &[],
    );
    assert!(said(&output).contains("answered 204"), "{}", said(&output));
    let (head, body) = server.join().expect("the server");
    assert!(head.starts_with("POST /alert?x=1 HTTP/1.1\r\n"), "{head}");
    let document: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(document["schema"], "vramtrace.watch/1");
    assert_eq!(document["process"]["pid"], held.child.id());
    assert_eq!(document["accounts"][0]["live_bytes"], 3 << 20);
}

#[test]
fn growth_is_noticed_and_a_steady_program_is_not() {
    let traces = Scratch::new();
    let steady = Held::start(traces.path(), &[]);
    let growing = Held::start(traces.path(), &["leak", "1048576", "20"]);
    let options = [
        "--once",
        "--when",
        "growth(1s) > 1MiB/s",
        "--for",
        "300ms",
        "--do",
        "exec",
        "--dry-run",
    ];
    let output = watch(traces.path(), &options, &["true"]);
    let said = said(&output);
    assert!(
        said.contains(&format!("({}) on GPU 0: would exec true", growing.pid())),
        "{said}"
    );
    assert!(!said.contains(&format!("({})", steady.pid())), "{said}");
}

#[test]
fn a_snapshot_is_a_trace() {
    if !vramtrace(["snapshot", "--help"]).status.success() {
        skip(
            "watch --do snapshot",
            "this vramtrace has no command `snapshot`",
        );
        return;
    }
    let traces = Scratch::new();
    let _held = Held::start(traces.path(), &[]);
    let into = Scratch::new();
    let action = format!("snapshot:{}", into.path().display());
    let output = watch(
        traces.path(),
        &["--once", "--when", "live > 1MiB", "--do", &action],
        &[],
    );
    assert!(said(&output).contains("written to"), "{}", said(&output));
    let copies = into.files();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let leaks = vramtrace_tests::Leaks::of(&into.path().join(&copies[0]), &[]);
    assert_eq!(leaks.total("gpu"), (3 << 20, 3));
}

#[test]
fn what_is_wrong_is_said_and_where() {
    let traces = Scratch::new();
    let output = watch(
        traces.path(),
        &["--when", "live > 3 parsecs", "--do", "exec"],
        &["true"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("\n  live > 3 parsecs\n           ^"),
        "{}",
        said(&output)
    );
    for action in ["exec", "signal:KILLALL", "webhook:https://x", "mail"] {
        let output = watch(
            traces.path(),
            &["--when", "live > 3GiB", "--do", action],
            &[],
        );
        assert_eq!(output.status.code(), Some(2), "{action}");
    }
    // A command that is not there, and a webhook that nobody answers, are said.
    let _held = Held::start(traces.path(), &[]);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let hook = format!(
        "webhook:http://{}/",
        port.expect("a port that is free again")
    );
    let output = watch(
        traces.path(),
        &[
            "--once",
            "--when",
            "live > 1MiB",
            "--do",
            &hook,
            "--do",
            "exec",
        ],
        &["/nowhere/at/all"],
    );
    assert_eq!(
        said(&output).matches(" FAILED: ").count(),
        2,
        "{}",
        said(&output)
    );
}
