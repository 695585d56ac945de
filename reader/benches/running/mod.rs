//! Processes that run, with traces that grow: what benchmarks of what follows them share.

use super::support::{self, TraceFile};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command};
use vramtrace_format::Section;
use vramtrace_format::account::Account;
use vramtrace_format::cold::Cold;
use vramtrace_format::record::Kind;
use vramtrace_format::totals::Totals;

/// Call stacks of each.
const STACKS: u64 = 400;
/// Of these, how many hold more with each event.
const CHANGING: usize = 20;

/// Processes that run until it is dropped.
pub struct Running {
    sleepers: Vec<Child>,
    words: Vec<(File, u64)>,
    journal: u64,
    /// Where figures are that change with what happens: live bytes of the accounts, and of call stacks.
    figures: Vec<(u64, u64)>,
}

impl Running {
    /// So many, with their traces in a directory.
    pub fn start(place: &Path, count: usize) -> Running {
        let mut running = Running {
            sleepers: Vec::new(),
            words: Vec::new(),
            journal: 0,
            figures: Vec::new(),
        };
        for number in 0..count {
            let sleeper = Command::new("sleep").arg("3600").spawn().expect("sleep");
            let mut trace = trace(&sleeper, number as u64);
            running.journal = trace.layout.of(Section::Journal).offset;
            running.figures = figures(&mut trace);
            let file = write(place, number, &mut trace);
            running.words.push((file, trace.seq));
            running.sleepers.push(sleeper);
        }
        running
    }

    /// Something happens in each of them.
    pub fn go_on(&mut self) {
        for (file, seq) in &mut self.words {
            *seq += 1;
            let word = (*seq << 8 | 0xff).to_le_bytes();
            file.write_all_at(&word, self.journal).expect("an event");
            // Other figures than before on every line that shows them.
            for (at, figure) in &self.figures {
                let figure = (figure + *seq * 4099).to_le_bytes();
                file.write_all_at(&figure, *at).expect("a figure");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.sleepers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
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

/// Offsets and values of live bytes: of the accounts that are used, and of the stacks that hold most.
fn figures(trace: &mut TraceFile) -> Vec<(u64, u64)> {
    let of = |section| trace.layout.of(section).offset;
    let (accounts, totals) = (of(Section::Accounts), of(Section::Totals));
    let parts = trace.parts();
    let rows = (0..).zip(&*parts.totals);
    let at = |row: u64| totals + row * size_of::<Totals>() as u64;
    let mut figures: Vec<(u64, u64)> = rows
        .filter(|(_, row)| row.key.used != 0)
        .map(|(at_row, row)| {
            (
                at(at_row) + offset_of!(Totals, live_bytes) as u64,
                row.live_bytes,
            )
        })
        .collect();
    figures.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    figures.truncate(CHANGING);
    let used = (0..)
        .zip(&*parts.accounts)
        .filter(|(_, row)| row.live_bytes > 0);
    figures.extend(used.map(|(row, account): (u64, &Account)| {
        let at = accounts + row * size_of::<Account>() as u64;
        (
            at + offset_of!(Account, live_bytes) as u64,
            account.live_bytes,
        )
    }));
    figures
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
