//! A trace of 1 GiB with a million live allocations: how long `leaks` takes, and how much memory.
//! Run with `cargo test --release --test large -- --ignored --nocapture`.

#![allow(missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::*;
use vramtrace_format::record::Kind;

/// Peak resident memory of children so far, KiB.
fn peak_of_children() -> i64 {
    // SAFETY: rusage is plain data, and the call only fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage.ru_maxrss
    }
}

fn build(directory: &Path) -> TraceFile {
    let mut file = TraceFile::new(1 << 30);
    let stacks: Vec<u32> = (0..20_000u64)
        .map(|n| {
            let frames: Vec<_> = (0..25)
                .map(|depth| native(1 + (depth % 5 == 0) as u32, 0x1000 + n * 64 + depth))
                .collect();
            file.stack(&frames)
        })
        .collect();
    let mut kept = 0u64;
    let mut round = 0u64;
    while kept < 1_000_000 {
        round += 1;
        file.time = round * 20_000;
        let stack = stacks[(round * 7919 % 20_000) as usize];
        let kind = if round.is_multiple_of(2) {
            Kind::Device
        } else {
            Kind::Torch
        };
        let entry = file.alloc(kind, 512 + round % 100_000, stack);
        if round % 10 < 7 {
            file.free(&entry);
        } else {
            kept += 1;
        }
    }
    file.exit();
    file.write(directory, "large.vrt");
    file
}

#[test]
#[ignore = "writes 1 GiB; run it by name in a release build"]
fn a_million_live_allocations() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = build(dir.path());
    if let Some(keep) = std::env::var_os("VRAMTRACE_TEST_KEEP") {
        std::fs::copy(dir.path().join("large.vrt"), keep).unwrap();
        return;
    }
    println!("{} events", file.seq);
    for unclean in [false, true] {
        if unclean {
            let last = file.seq;
            let parts = file.parts();
            parts.control.clean_exit = 0;
            // In the middle of an event of which nothing is applied yet: all tables are read.
            let event = allocation(Kind::Device, 0x10, 4096, 0);
            let event = vramtrace_format::Record {
                seq: last + 1,
                ..event
            };
            file.parts().ring(0, &event);
            file.parts().journal.state = (last + 1) << 8;
            file.write(dir.path(), "large.vrt");
        }
        for args in [
            &["leaks"][..],
            &["leaks", "--json"],
            &["leaks", "--by", "thread"],
            &["summary"],
            &["check"],
            &["timeline"],
        ] {
            let begun = Instant::now();
            let status = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
                .args(args)
                .arg(dir.path().join("large.vrt"))
                .stdout(Stdio::null())
                .status()
                .unwrap();
            println!(
                "unclean {unclean}: {args:?} {:.0} ms, peak of all so far {} MiB",
                begun.elapsed().as_secs_f64() * 1e3,
                peak_of_children() / 1024
            );
            assert!(status.success());
        }
    }
}
