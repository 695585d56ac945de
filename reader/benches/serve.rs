//! What a scrape of `vramtrace serve` takes, with 50 running processes of 64 MiB traces and 400 call stacks each, all
//! of which have allocated since the scrape before; and the memory of the server.

#[path = "running/mod.rs"]
mod running;
#[path = "../tests/support/mod.rs"]
mod support;

use running::Running;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROCESSES: usize = 50;
const SCRAPES: usize = 30;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let place = place.expect("a directory for the traces");
    let mut running = Running::start(place.path(), PROCESSES);
    let mut server = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(["serve", "--no-nvml", "--listen", "127.0.0.1:0"])
        .arg(place.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut line = String::new();
    let said = server.stderr.take().expect("its standard error");
    BufReader::new(said)
        .read_line(&mut line)
        .expect("its address");
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let address = address.expect("its address").to_owned();
    // Names are found once, at the beginning.
    let begun = Instant::now();
    while scrape(&address)
        .matches("site_allocated_bytes_total{")
        .count()
        < 10 * PROCESSES
    {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "call sites are never named"
        );
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut times = Vec::new();
    let mut bytes = 0;
    let processor = processor_time(server.id());
    for _ in 0..SCRAPES {
        std::thread::sleep(Duration::from_millis(300));
        running.go_on();
        let at = Instant::now();
        bytes = scrape(&address).len();
        times.push(at.elapsed());
    }
    times.sort_unstable();
    let processor = processor_time(server.id()) - processor;
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).expect("its status");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    println!(
        "a scrape of {PROCESSES} processes: fastest {:.1} ms, median {:.1} ms, slowest of {SCRAPES} {:.1} ms; \
         {:.1} ms of processor time each, {} KiB of text; the server has {:.1} MiB, at most {:.1} MiB so far",
        times[0].as_secs_f64() * 1e3,
        times[SCRAPES / 2].as_secs_f64() * 1e3,
        times[SCRAPES - 1].as_secs_f64() * 1e3,
        processor.as_secs_f64() * 1e3 / SCRAPES as f64,
        bytes >> 10,
        kib("VmRSS:") as f64 / 1024.0,
        kib("VmHWM:") as f64 / 1024.0
    );
    let _ = server.kill();
    let _ = server.wait();
}

/// What a process took so far, in itself and in the kernel. (A busy machine does not make it longer by
/// much, as it does with the time that a scrape takes.)
fn processor_time(pid: u32) -> Duration {
    let all = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let threads = all.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(threads.sum())
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}
