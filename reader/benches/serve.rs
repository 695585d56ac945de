//! What a scrape of `vramtrace serve` takes, with 50 running processes of 64 MiB traces and 400 call stacks each, all
//! of which have allocated since the scrape before; and the memory of the server.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::TraceFile;
use vramtrace_format::Section;
use vramtrace_format::cold::Cold;
use vramtrace_format::record::Kind;

const PROCESSES: usize = 50;
const STACKS: u64 = 400;
const SCRAPES: usize = 30;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let place = place.expect("a directory for the traces");
    let mut sleepers = Vec::new();
    let mut words = Vec::new();
    let mut journal = 0;
    for number in 0..PROCESSES {
        let sleeper = Command::new("sleep").arg("3600").spawn().expect("sleep");
        let mut trace = trace(&sleeper, number as u64);
        journal = trace.layout.of(Section::Journal).offset;
        words.push((write(place.path(), number, &mut trace), trace.seq));
        sleepers.push(sleeper);
    }
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
        for (file, seq) in &mut words {
            *seq += 1;
            let word = (*seq << 8 | 0xff).to_le_bytes();
            file.write_all_at(&word, journal).expect("an event");
        }
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
    for child in sleepers.iter_mut().chain([&mut server]) {
        let _ = child.kill();
        let _ = child.wait();
    }
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

fn trace(sleeper: &Child, seed: u64) -> TraceFile {
    let pid = sleeper.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its status");
    let after = stat.rsplit_once(')').expect("a name").1;
    let mut file = TraceFile::new(64 << 20);
    file.cold(Cold::Process(vramtrace_format::cold::Process {
        start_ticks: after
            .split_whitespace()
            .nth(19)
            .and_then(|ticks| ticks.parse().ok())
            .expect("ticks"),
        pid_namespace: fs::metadata("/proc/self/ns/pid")
            .expect("a namespace")
            .ino(),
        host: String::new(),
        rank: Some(seed as u32),
        ..support::process(pid, "/opt/bin/train")
    }));
    for number in 0..STACKS {
        let stack = file.program_stack(0x100 + 16 * number);
        let kind = [Kind::Device, Kind::Torch, Kind::Pinned][number as usize % 3];
        for _ in 0..3 {
            file.alloc(kind, 1000 + number * 512 + seed, stack);
        }
    }
    file
}

/// Writes what is not zero: what a recorder never touched takes no memory either.
fn write(place: &Path, number: usize, trace: &mut TraceFile) -> File {
    let path = place.join(format!("{number}.part"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let mut file = file.expect("a trace");
    let bytes = trace.bytes();
    file.set_len(bytes.len() as u64).expect("its length");
    for (index, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            file.write_all_at(page, index as u64 * 4096)
                .expect("a page");
        }
    }
    file.flush().expect("written");
    fs::rename(&path, place.join(format!("{number}.vrt"))).expect("its name");
    file
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
