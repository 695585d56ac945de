//! What is done when a condition holds. Nothing goes through a shell; everything has a time limit; the
//! watched process is sent a signal only while it certainly is that process.

use crate::launch::liveness;
use crate::live::ProcessSample;
use crate::live::child::{self, Bounds};
use crate::model::State;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(300);
/// How long a snapshot may take.
const SNAPSHOT: Duration = Duration::from_secs(300);
/// How long a webhook may take.
const WEBHOOK: Duration = Duration::from_secs(10);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A copy of the trace, into this directory.
    Snapshot(PathBuf),
    /// A command and its arguments.
    Exec(Vec<OsString>),
    /// A signal to the process: its number, its name.
    Signal(i32, &'static str),
    /// An HTTP POST of JSON.
    Webhook(String),
}

/// Signals that can be sent: none that a program could take for somebody's wish to see it end in pieces.
const SIGNALS: [(&str, i32); 7] = [
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("TERM", libc::SIGTERM),
    ("STOP", libc::SIGSTOP),
    ("KILL", libc::SIGKILL),
];

impl Action {
    /// Reads `snapshot`, `snapshot:DIR`, `exec`, `signal:USR1`, `webhook:http://…`. `command` is what
    /// `exec` runs.
    pub fn parse(text: &str, command: &[OsString]) -> Result<Action, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        match (name, rest) {
            ("snapshot", "") => Ok(Action::Snapshot(PathBuf::from("."))),
            ("snapshot", directory) => Ok(Action::Snapshot(PathBuf::from(directory))),
            ("exec", "") if command.is_empty() => {
                Err("exec needs a command: vramtrace watch --do exec … -- PROGRAM ARGS".to_owned())
            }
            ("exec", "") => Ok(Action::Exec(command.to_vec())),
            ("signal", signal) => {
                let bare = signal.strip_prefix("SIG").unwrap_or(signal);
                let found = SIGNALS.iter().find(|(name, _)| *name == bare);
                let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
                found
                    .map(|&(name, number)| Action::Signal(number, name))
                    .ok_or_else(|| {
                        format!(
                            "signal:{signal} is not one of signal:{}",
                            names.join(", signal:")
                        )
                    })
            }
            ("webhook", url) => webhook_address(url).map(|_| Action::Webhook(url.to_owned())),
            _ => Err(format!(
                "`{text}` is not done; there are snapshot, snapshot:DIR, exec, signal:USR1, webhook:http://HOST/PATH"
            )),
        }
    }

    /// What it is, for the log.
    pub fn describe(&self) -> String {
        match self {
            Action::Snapshot(directory) => format!("snapshot into {}", directory.display()),
            Action::Exec(command) => {
                let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
                format!("exec {}", words.join(" "))
            }
            Action::Signal(_, name) => format!("signal {name}"),
            Action::Webhook(url) => format!("webhook {url}"),
        }
    }

    /// Does it; returns what came of it, for the log.
    pub fn run(&self, event: &Event) -> Result<String, String> {
        match self {
            Action::Snapshot(directory) => snapshot(directory, event),
            Action::Exec(command) => exec(command, event),
            Action::Signal(number, _) => signal(*number, event),
            Action::Webhook(url) => webhook(url, event),
        }
    }
}

/// A condition that holds.
#[derive(Debug)]
pub struct Event {
    /// The condition, as it was written.
    pub when: String,
    /// The process.
    pub process: ProcessSample,
    /// Ordinal of the device; `None` where it is about host memory only.
    pub device: Option<u8>,
    /// When, Unix nanoseconds.
    pub unix_ns: u64,
    /// The directory's path and the trace's name in it.
    pub path: PathBuf,
    /// The trace, open.
    pub file: Option<File>,
}

impl Event {
    /// Facts, for webhooks.
    pub fn json(&self) -> Value {
        let identity = &self.process.identity;
        let own = self.own_device();
        json!({
            "schema": "vramtrace.watch/1",
            "when": self.when,
            "unix_ns": self.unix_ns,
            "process": {
                "pid": identity.pid,
                "outer_pid": identity.outer_pid,
                "program": identity.program,
                "rank": identity.rank,
                "host": identity.host,
                "state": self.process.state.name(),
            },
            "trace": self.path.to_string_lossy(),
            "device": own.map(|own| json!({
                "index": own.ordinal,
                "uuid": own.uuid,
                "name": own.name,
                "total_bytes": own.total_bytes,
                "process_used_bytes": own.shown.map(|shown| shown.process_bytes),
            })),
            "accounts": self.process.accounts.iter().filter(|one| one.device == self.device || one.device.is_none()).map(|one| json!({
                "device": one.device,
                "layer": one.layer.name(),
                "live_bytes": one.live_bytes,
                "peak_bytes": one.peak_bytes,
                "failed_count": one.failed_count,
            })).collect::<Vec<_>>(),
            "sites": self.process.sites.iter().filter(|one| one.device == self.device).map(|one| json!({
                "site": one.site,
                "kind": one.kind.name(),
                "live_bytes": one.live_bytes,
            })).collect::<Vec<_>>(),
        })
    }

    fn own_device(&self) -> Option<&crate::live::Device> {
        let mut devices = self.process.devices.iter();
        devices.find(|one| Some(one.ordinal) == self.device)
    }

    /// The same, as variables for commands.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let identity = &self.process.identity;
        let live = self.process.accounts.iter().find(|one| {
            one.device == self.device && one.layer == vramtrace_format::record::Layer::Device
        });
        let own = self.own_device();
        vec![
            ("VRAMTRACE_WATCH_WHEN", self.when.clone()),
            ("VRAMTRACE_WATCH_PID", identity.outer_pid.to_string()),
            ("VRAMTRACE_WATCH_INNER_PID", identity.pid.to_string()),
            ("VRAMTRACE_WATCH_PROGRAM", identity.program.clone()),
            (
                "VRAMTRACE_WATCH_RANK",
                identity.rank.map_or(String::new(), |rank| rank.to_string()),
            ),
            (
                "VRAMTRACE_WATCH_TRACE",
                self.path.to_string_lossy().into_owned(),
            ),
            (
                "VRAMTRACE_WATCH_DEVICE",
                self.device.map_or(String::new(), |one| one.to_string()),
            ),
            (
                "VRAMTRACE_WATCH_UUID",
                own.map_or(String::new(), |own| own.uuid.clone()),
            ),
            ("VRAMTRACE_WATCH_JSON", self.json().to_string()),
            (
                "VRAMTRACE_WATCH_LIVE_BYTES",
                live.map_or(0, |one| one.live_bytes).to_string(),
            ),
        ]
    }
}

fn snapshot(directory: &Path, event: &Event) -> Result<String, String> {
    let file = event
        .file
        .as_ref()
        .ok_or("its trace cannot be opened any more")?;
    let file = file.try_clone().map_err(|error| error.to_string())?;
    let base = event
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let target = directory.join(format!("{base}.watch-{}", event.unix_ns / 1_000_000));
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    command
        .arg("snapshot")
        .arg(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .arg("-o")
        .arg(&target)
        .stdin(Stdio::null());
    let bounds = Bounds {
        time: SNAPSHOT,
        output: 1 << 20,
    };
    child::output(command, &[file], bounds)?;
    Ok(format!("written to {}", target.display()))
}

fn exec(command: &[OsString], event: &Event) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        // Variables of C strings: a NUL, which only a damaged trace has, ends nothing.
        .envs(
            event
                .variables()
                .into_iter()
                .map(|(name, value)| (name, value.replace('\0', ""))),
        )
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.to_string_lossy()))?;
    let until = Instant::now() + COMMAND;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok("done".to_owned()),
            Ok(Some(status)) => return Err(format!("ended with {status}")),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "took longer than {} s, and was killed",
                    COMMAND.as_secs()
                ));
            }
        }
    }
}

/// A descriptor of the process is opened first, and then it is made sure that it is this process: a
/// number that is given to another one meanwhile is not that descriptor's.
fn signal(number: i32, event: &Event) -> Result<String, String> {
    let identity = &event.process.identity;
    if event.process.state != State::Running || identity.outer_pid == 0 {
        return Err("it does not run where it can be seen from here".to_owned());
    }
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, identity.outer_pid, 0) };
    if fd < 0 {
        return Err(format!("pidfd_open: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: it was just opened, and nobody else has it.
    let process = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let known = liveness::Identity {
        pid: identity.pid,
        start_ticks: identity.start_ticks,
        pid_namespace: 0,
    };
    if identity.start_ticks == 0 || !known.still_runs_as(identity.outer_pid) {
        return Err("it has ended; its number may be another's now".to_owned());
    }
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor of a process, and no further information.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            number,
            none,
            0,
        )
    };
    if sent != 0 {
        return Err(format!(
            "pidfd_send_signal: {}",
            std::io::Error::last_os_error()
        ));
    }
    Ok(format!("sent to {}", identity.outer_pid))
}

/// Host, port and URI of a webhook.
fn webhook_address(url: &str) -> Result<(String, u16, Uri), String> {
    if url.starts_with("https:") {
        return Err(format!(
            "a webhook is http only; for https let curl do it: --do exec -- sh -c 'curl -sS --json \
             \"$VRAMTRACE_WATCH_JSON\" {url}', or a proxy on this machine"
        ));
    }
    let wrong = || format!("`{url}` is no address; accepted is webhook:http://HOST[:PORT]/PATH");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong());
    }
    let host = uri.host().ok_or_else(wrong)?.to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok((host, port, uri))
}

fn webhook(url: &str, event: &Event) -> Result<String, String> {
    let (host, port, uri) = webhook_address(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| error.to_string())?;
    let body = event.json().to_string();
    let posted = runtime
        .block_on(async { tokio::time::timeout(WEBHOOK, post(&host, port, &uri, body)).await });
    runtime.shutdown_background();
    posted.map_err(|_| format!("no answer within {} s", WEBHOOK.as_secs()))?
}

async fn post(host: &str, port: u16, uri: &Uri, body: String) -> Result<String, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::net::TcpStream::connect((bare, port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header("host", format!("{host}:{port}"))
        .header("content-type", "application/json")
        .header(
            "user-agent",
            concat!("vramtrace/", env!("CARGO_PKG_VERSION")),
        )
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    connection.abort();
    if answer.status().is_success() {
        Ok(format!("answered {}", answer.status()))
    } else {
        Err(format!("answered {}", answer.status()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_or_refused() {
        let none: &[OsString] = &[];
        assert_eq!(
            Action::parse("snapshot:/x", none),
            Ok(Action::Snapshot("/x".into()))
        );
        assert_eq!(
            Action::parse("signal:SIGUSR1", none),
            Ok(Action::Signal(libc::SIGUSR1, "USR1"))
        );
        assert!(Action::parse("webhook:http://127.0.0.1:9/x", none).is_ok());
        let command = [OsString::from("true")];
        assert!(Action::parse("exec", &command).is_ok());
        for (text, why) in [
            ("exec", "needs a command"),
            ("signal:9", "not one of"),
            (
                "webhook:https://x/",
                "curl -sS --json \"$VRAMTRACE_WATCH_JSON\" https://x/",
            ),
            ("webhook:ftp://x/", "no address"),
            ("mail", "is not done"),
        ] {
            let wrong = Action::parse(text, none).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
