//! A directory of traces, looked at again and again: what appears, grows, ends, vanishes, cannot be read.

#![allow(missing_docs)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use support::*;
use vramtrace_format::Section;
use vramtrace_format::cold::{Cold, Device};
use vramtrace_format::record::{Kind, Layer, Op, Record};
use vramtrace_format::reported::Reported;
use vramtrace_reader::live::names::Naming;
use vramtrace_reader::live::{Live, Options, ProcessSample, Sample};
use vramtrace_reader::model::State;
use vramtrace_reader::serve::metrics;

/// A process that runs, whose the traces of these tests are.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn identity(&self) -> vramtrace_format::cold::Process {
        let pid = self.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = stat.rsplit_once(')').unwrap().1;
        vramtrace_format::cold::Process {
            start_ticks: after.split_whitespace().nth(19).unwrap().parse().unwrap(),
            pid_namespace: fs::metadata("/proc/self/ns/pid").unwrap().ino(),
            rank: Some(3),
            host: String::new(),
            ..process(pid, "/opt/bin/train")
        }
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options() -> Options {
    Options {
        nvml: false,
        naming: Naming::Here,
        ..Options::default()
    }
}

fn of(sleeper: &Sleeper) -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Process(sleeper.identity()));
    file.cold(Cold::Device(Device {
        index: 0,
        uuid: "GPU-1".into(),
        total_bytes: 80 << 30,
        name: "H100".into(),
        ..Device::default()
    }));
    file
}

fn only(sample: &Sample) -> &ProcessSample {
    assert_eq!(sample.processes.len(), 1, "{sample:#?}");
    &sample.processes[0]
}

/// Writes into the file that is there, as a recorder does.
fn rewrite(path: &Path, file: &mut TraceFile) {
    let mut open = fs::OpenOptions::new().write(true).open(path).unwrap();
    open.write_all(file.bytes()).unwrap();
}

#[test]
fn a_process_appears_grows_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options();
    options.linger = Duration::from_secs(3600);
    let mut live = Live::new(directory.path(), options).unwrap();
    assert!(live.sample().processes.is_empty());

    let mut sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    let stacks = [file.program_stack(0x100), file.program_stack(0x200)];
    let kept = file.alloc(Kind::Device, 3 * MIB, stacks[0]);
    file.alloc(Kind::Pinned, MIB, stacks[1]);
    fs::create_dir(directory.path().join("pod")).unwrap();
    let path = file.write(&directory.path().join("pod"), "a.vrt");
    let sample = live.sample();
    let process = only(&sample);
    assert_eq!(process.trace, PathBuf::from("pod/a.vrt"));
    assert_eq!(process.state, State::Running);
    assert_eq!(
        (process.identity.name.as_str(), process.identity.rank),
        ("train", Some(3))
    );
    assert_eq!(process.devices[0].total_bytes, 80 << 30);
    let device = process
        .accounts
        .iter()
        .find(|a| a.layer == Layer::Device)
        .unwrap();
    assert_eq!(
        (device.live_bytes, device.live_count, device.device),
        (3 * MIB, 1, Some(0))
    );
    assert_eq!(device.rates, None);
    let host = process
        .accounts
        .iter()
        .find(|a| a.layer == Layer::Host)
        .unwrap();
    assert_eq!((host.live_bytes, host.device), (MIB, None));
    let open = live.open(Path::new("pod/a.vrt")).unwrap().unwrap();
    assert_eq!(open.metadata().unwrap().len(), 1 << 20);
    assert!(live.open(Path::new("pod/b.vrt")).is_none());

    file.free(&kept);
    file.alloc(Kind::Device, 5 * MIB, stacks[1]);
    file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 1 << 40, stacks[0])
    });
    rewrite(&path, &mut file);
    let sample = live.sample();
    let process = only(&sample);
    let device = process
        .accounts
        .iter()
        .find(|a| a.layer == Layer::Device)
        .unwrap();
    assert_eq!((device.live_bytes, device.peak_bytes), (5 * MIB, 5 * MIB));
    assert_eq!(
        (
            device.allocated_bytes,
            device.freed_bytes,
            device.failed_count
        ),
        (8 * MIB, 3 * MIB, 1)
    );
    assert!(device.rates.unwrap().growth > 0.0);
    let kind = process
        .kinds
        .iter()
        .find(|kind| kind.kind == Kind::Device)
        .unwrap();
    assert_eq!(
        (kind.live_bytes, kind.freed_bytes),
        (5 * MIB, Some(3 * MIB))
    );

    sleeper.end();
    assert_eq!(only(&live.sample()).state, State::Killed);
    let mut live = Live::new(directory.path(), self::options()).unwrap();
    let sample = live.sample();
    assert!(sample.processes.is_empty() && sample.failed.is_empty());
    assert_eq!(sample.ended, 1);
}

#[test]
fn one_that_has_ended_is_told_of_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let mut sleeper = Sleeper::new();
    of(&sleeper).write(directory.path(), "a.vrt");
    let mut options = options();
    options.linger = Duration::ZERO;
    let mut live = Live::new(directory.path(), options).unwrap();
    only(&live.sample());
    sleeper.end();
    let sample = live.sample();
    assert!(sample.processes.is_empty());
    assert_eq!(sample.ended, 1);
    fs::remove_file(directory.path().join("a.vrt")).unwrap();
    assert_eq!(live.sample().ended, 0);
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    file.alloc(Kind::Device, MIB, 0);
    let path = file.write(directory.path(), "a.vrt");
    fs::write(directory.path().join("b.vrt"), "not a trace").unwrap();
    fs::write(directory.path().join("c.vrt"), "").unwrap();
    let cut: Vec<u8> = file.bytes()[..300_000].to_vec();
    fs::write(directory.path().join("d.vrt"), cut).unwrap();
    let mut live = Live::new(directory.path(), options()).unwrap();
    let sample = live.sample();
    only(&sample);
    assert_eq!(
        (sample.unreadable, sample.failed.len()),
        (3, 3),
        "{sample:#?}"
    );
    assert!(sample.read_errors >= 3);

    // A file that is cut while it is followed, and comes back.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let sample = live.sample();
    assert!(sample.processes.is_empty());
    let failed = sample
        .failed
        .iter()
        .find(|failed| failed.trace == Path::new("a.vrt"))
        .unwrap();
    assert_eq!(failed.identity.as_ref().unwrap().pid, sleeper.0.id());
    rewrite(&path, &mut file);
    only(&live.sample());
    // Overwritten by something else of the same length.
    let mut open = fs::OpenOptions::new().write(true).open(&path).unwrap();
    open.write_all(&[7; 4096]).unwrap();
    assert!(live.sample().processes.is_empty());
    fs::remove_file(&path).unwrap();
    let sample = live.sample();
    assert!(sample.processes.is_empty());
    assert_eq!(sample.unreadable, 3);
}

#[test]
fn a_directory_that_goes_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("traces");
    fs::create_dir(&inside).unwrap();
    let sleeper = Sleeper::new();
    of(&sleeper).write(&inside, "a.vrt");
    let mut live = Live::new(&inside, options()).unwrap();
    only(&live.sample());
    assert!(Live::new(&directory.path().join("none"), options()).is_err());
}

#[test]
fn call_sites_are_named_and_the_rest_is_other() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    for at in 0..20u64 {
        let stack = file.program_stack(0x100 + 16 * at);
        file.alloc(Kind::Device, (at + 1) * 1000, stack);
    }
    file.write(directory.path(), "a.vrt");
    let mut options = options();
    options.sites = 3;
    let mut live = Live::new(directory.path(), options).unwrap();
    let first = live.sample();
    let all: u64 = (1..=20).map(|at| at * 1000).sum();
    let told = |process: &ProcessSample| {
        let sites: u64 = process.sites.iter().map(|site| site.live_bytes).sum();
        sites + process.other[0].live_bytes
    };
    assert_eq!(told(only(&first)), all);
    let mut sample = first;
    while sample.naming || only(&sample).sites.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
        sample = live.sample();
    }
    let process = only(&sample);
    let bytes: Vec<u64> = process.sites.iter().map(|site| site.live_bytes).collect();
    assert_eq!(bytes, [20_000, 19_000, 18_000]);
    assert_eq!(told(process), all);
    assert!(process.sites.iter().all(|site| !site.site.is_empty()));
}

#[test]
fn processes_that_cannot_be_seen_are_followed_while_something_happens() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    let mut elsewhere = sleeper.identity();
    elsewhere.pid = u32::MAX;
    elsewhere.pid_namespace = 1;
    file.cold(Cold::Process(elsewhere));
    file.alloc(Kind::Device, MIB, 0);
    file.write(directory.path(), "a.vrt");
    // The traces of these tests began long ago.
    let mut live = Live::new(directory.path(), options()).unwrap();
    let sample = live.sample();
    assert!(sample.processes.is_empty());
    assert_eq!(sample.quiet, 1);
    let mut options = options();
    options.stale = Duration::MAX;
    let mut live = Live::new(directory.path(), options).unwrap();
    assert_eq!(only(&live.sample()).state, State::Unknown);
}

#[test]
fn there_may_be_any_number_of_files() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..10_000 {
        fs::write(directory.path().join(format!("{number}.vrt")), "x").unwrap();
    }
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    for name in ["a.vrt", "b.vrt", "c.vrt"] {
        file.write(directory.path(), name);
    }
    let mut options = options();
    options.most_processes = 2;
    let mut live = Live::new(directory.path(), options).unwrap();
    for _ in 0..2 {
        let sample = live.sample();
        assert_eq!(sample.processes.len(), 2);
        assert_eq!(sample.unreadable, 10_000);
        assert_eq!(sample.omitted_processes, 1);
        assert!(sample.failed.len() <= 32);
    }
}

/// What the metrics of a sample say in the one series that begins so.
fn said(sample: &Sample, series: &str) -> Option<String> {
    let text = metrics::openmetrics(&std::sync::Arc::new(sample.clone())).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with(series));
    let value = lines.next()?.rsplit(' ').next()?.to_owned();
    assert_eq!(lines.next(), None, "{text}");
    Some(value)
}

#[test]
fn one_that_stands_in_the_middle_of_an_event_is_said_to() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    let stack = file.program_stack(0x100);
    file.alloc(Kind::Device, MIB, stack);
    let path = file.write(directory.path(), "a.vrt");
    let mut live = Live::new(directory.path(), options()).unwrap();
    let sample = live.sample();
    assert!(!only(&sample).interrupted);
    let series = "vramtrace_process_interrupted{";
    assert_eq!(said(&sample, series).as_deref(), Some("0"));
    // The journal's word says that event 2 is being applied.
    let at = file.layout.of(Section::Journal).offset as usize;
    file.bytes()[at..at + 8].copy_from_slice(&(2u64 << 8 | 1).to_le_bytes());
    rewrite(&path, &mut file);
    let sample = live.sample();
    assert!(only(&sample).interrupted);
    assert_eq!(said(&sample, series).as_deref(), Some("1"));
}

#[test]
fn the_largest_free_block_is_told_once_it_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    let mut file = of(&sleeper);
    // A segment as PyTorch's allocator takes it: 100 MiB, of which 30 are handed out after the first ten.
    let frames = [(2, 0x10), (3, 0x20), (4, 0x30), (1, 0x500)];
    let frames = frames.map(|(module, offset)| native(module, offset));
    let (segment, tensor) = (file.stack(&frames), file.program_stack(0x600));
    file.at(SECOND);
    let base = 0x7f00_0000_0000;
    file.alloc_at(Kind::Device, base, 100 * MIB, segment);
    let block = file.alloc_at(Kind::Torch, base + 10 * MIB, 30 * MIB, tensor);
    let mut row = Reported::default();
    row.set(block.seq, 30 * MIB, 100 * MIB);
    let at = file.layout.of(Section::Reported).offset as usize;
    file.bytes()[at..at + size_of::<Reported>()].copy_from_slice(bytemuck::bytes_of(&row));
    file.write(directory.path(), "a.vrt");
    let looking = |often| Options {
        naming: Naming::Command(env!("CARGO_BIN_EXE_vramtrace").into()),
        largest_free: often,
        ..options()
    };
    let series = "vramtrace_allocator_largest_free_bytes{";
    let mut live = Live::new(directory.path(), looking(None)).unwrap();
    assert!(only(&live.sample()).largest_free.is_empty());
    let mut live = Live::new(directory.path(), looking(Some(Duration::from_secs(600)))).unwrap();
    // Not known is not told.
    let sample = live.sample();
    assert_eq!(said(&sample, series), None);
    let begun = std::time::Instant::now();
    loop {
        let sample = live.sample();
        if let [found] = only(&sample).largest_free[..] {
            assert_eq!((found.device, found.bytes), (0, 60 * MIB));
            let value = said(&sample, series);
            assert_eq!(value, Some((60 * MIB).to_string()));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "never found");
        std::thread::sleep(Duration::from_millis(20));
    }
}
