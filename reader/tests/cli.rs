//! The commands as scripts use them: which trace, which exit code, what on which stream.

#![allow(missing_docs)]

mod support;

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use support::*;
use vramtrace_format::record::Kind;

fn leaking(bytes: u64) -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    if bytes > 0 {
        file.alloc(Kind::Device, bytes, stack);
    } else {
        let entry = file.alloc(Kind::Device, 512, stack);
        file.free(&entry);
    }
    file.exit();
    file
}

fn code(args: &[&str], directory: &Path) -> i32 {
    vramtrace(args, directory).status.code().unwrap()
}

#[test]
fn exit_codes_of_leaks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leaking(4096).write(path, "leak.vrt");
    leaking(0).write(path, "clean.vrt");
    TraceFile::new(1 << 20).exit().write(path, "unused.vrt");
    let mut inexact = leaking(0);
    inexact.control().events_lost[0] = 3;
    inexact.write(path, "inexact.vrt");
    std::fs::write(path.join("foreign.vrt"), "hello").unwrap();
    for (args, expected) in [
        (&["leaks", "leak.vrt"][..], 0),
        (&["leaks", "--fail", "leak.vrt"], 1),
        (&["leaks", "--fail", "clean.vrt"], 0),
        (&["leaks", "--fail", "clean.vrt", "leak.vrt"], 1),
        (&["leaks", "--fail", "unused.vrt"], 4),
        (&["leaks", "--fail", "inexact.vrt"], 4),
        (&["leaks", "inexact.vrt"], 0),
        (&["leaks", "--max-leak-bytes", "4KiB", "leak.vrt"], 0),
        (&["leaks", "--max-leak-bytes", "4095", "leak.vrt"], 1),
        (&["leaks", "--max-leak-bytes", "lots", "leak.vrt"], 2),
        (&["leaks", "--to", "peak", "leak.vrt"], 0),
        (&["leaks", "--to", "oom", "leak.vrt"], 2),
        (&["leaks", "--from", "5s", "--fail", "leak.vrt"], 0),
        (&["leaks", "--kind", "nonsense", "leak.vrt"], 2),
        (&["leaks", "--nonsense"], 2),
        (&["leaks", "foreign.vrt"], 3),
        (&["leaks", "--fail", "leak.vrt", "foreign.vrt"], 3),
        (&["leaks", "absent.vrt"], 3),
        (&["check", "leak.vrt"], 0),
        (&["check", "foreign.vrt"], 3),
        (&["summary", "leak.vrt"], 0),
        (&["timeline", "--json", "leak.vrt"], 0),
        (&["timeline", "--json", "--csv", "leak.vrt"], 2),
    ] {
        assert_eq!(code(args, path), expected, "{args:?}");
    }
}

#[test]
fn the_newest_trace_is_named_first() {
    let dir = tempfile::tempdir().unwrap();
    leaking(4096).write(dir.path(), "old.vrt");
    std::thread::sleep(std::time::Duration::from_millis(20));
    leaking(8192).write(dir.path(), "new.vrt");
    std::fs::write(dir.path().join("foreign.vrt"), "hello").unwrap();
    let out = vramtrace(&["leaks"], dir.path());
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with("Trace: new.vrt (the newest)\n"), "{text}");
    let out = vramtrace(&["leaks", "--json"], dir.path());
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "Trace: new.vrt (the newest)\n"
    );
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["total"]["gpu"]["bytes"], 8192);
}

#[test]
fn no_trace_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let out = vramtrace(&["leaks", "."], dir.path());
    assert_eq!(out.status.code(), Some(3));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(said, "vramtrace: .: no traces (*.vrt) in this directory\n");
    TraceFile::new(1 << 20)
        .exit()
        .write(dir.path(), "unused.vrt");
    let out = vramtrace(&["leaks", "unused.vrt"], dir.path());
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("SUMMARY: no CUDA memory was seen"), "{text}");
}

#[test]
fn what_a_report_is_limited_to_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = leaking(4096);
    let stack = file.program_stack(0x600);
    file.alloc(Kind::Pinned, 8192, stack);
    file.write(dir.path(), "a.vrt");
    for (options, expected) in [
        (
            &[][..],
            "4.00 KiB in 1 allocation of GPU memory leaked, 8.00 KiB in 1 allocation of \
             page-locked host memory",
        ),
        (
            &["--layer", "host"],
            "8.00 KiB in 1 allocation of page-locked host memory leaked (only host layer)",
        ),
        (
            &["--device", "0", "--kind", "managed"],
            "nothing leaked (only GPU 0, managed)",
        ),
    ] {
        let out = vramtrace(&[&["leaks", "a.vrt"], options].concat(), dir.path());
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(
            text.contains(&format!("SUMMARY: {expected}\n")),
            "{options:?}: {text}"
        );
    }
    for command in ["leaks", "summary", "timeline"] {
        let out = vramtrace(&[command, "--device", "7", "a.vrt"], dir.path());
        assert_eq!(out.status.code(), Some(2));
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(
            said,
            "vramtrace: no device 7 in what was traced; there is 0\n"
        );
    }
}

#[test]
fn tables_are_no_wider_than_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    leaking(4096).write(dir.path(), "a.vrt");
    let wide = on_terminal(&["summary", "a.vrt"], dir.path(), 200);
    assert!(wide.contains("  allocated  "), "{wide}");
    let narrow = on_terminal(&["summary", "a.vrt"], dir.path(), 60);
    let (before, after) = narrow.split_once("call stack").unwrap();
    let (table, _) = after.split_once("Largest").unwrap();
    assert!(!before.contains("peak"), "{narrow}");
    assert!(table.contains("allocated  4.00 KiB in 1"), "{narrow}");
    for line in table.lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }
}

/// What the command prints on a terminal of this width.
fn on_terminal(args: &[&str], directory: &Path, columns: u16) -> String {
    let size = libc::winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both descriptors are valid for writes, the size for reads; no name is wanted.
    let made = unsafe {
        libc::openpty(
            &mut ours,
            &mut theirs,
            std::ptr::null_mut(),
            std::ptr::null(),
            &size,
        )
    };
    assert_eq!(made, 0, "a terminal");
    // SAFETY: openpty just returned them; nobody else owns them.
    let (mut ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let mut child = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(args)
        .current_dir(directory)
        .env_remove("XDG_RUNTIME_DIR")
        .env("NO_COLOR", "1")
        .stdout(theirs)
        .spawn()
        .unwrap();
    let mut text = Vec::new();
    // Ends with an error when the last one who has the terminal open is gone.
    let _ = ours.read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap().replace('\r', "")
}

#[test]
fn a_reader_that_goes_away_ends_it_silently() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(4 << 20);
    for offset in 0..3000 {
        let stack = file.program_stack(0x10_0000 + offset);
        file.alloc(Kind::Device, 512, stack);
    }
    file.exit().write(dir.path(), "big.vrt");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vramtrace"))
        .args(["leaks", "--top", "0", "--fail", "big.vrt"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "");
    // What was found does not depend on who listens.
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn timelines_are_exact_where_the_ring_reaches_and_keep_spikes_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    let capacity = file.parts().rings[0].len() as u64;
    file.at(10 * SECOND);
    let spike = file.alloc(Kind::Device, 1 << 30, stack);
    file.free(&spike);
    let kept = file.alloc(Kind::Device, 1 << 20, stack);
    for n in 0..capacity * 3 {
        file.at(20 * SECOND + n * SECOND / 100);
        let entry = file.alloc(Kind::Device, 4096, stack);
        file.free(&entry);
    }
    let end = file.time;
    file.at(end + SECOND).free(&kept);
    file.exit().write(dir.path(), "t.vrt");
    let out = vramtrace(
        &["timeline", "--json", "--points", "500", "t.vrt"],
        dir.path(),
    );
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let series = &document["series"][0];
    let points = series["points"].as_array().unwrap();
    assert_eq!(points.len(), 500);
    let at = |time: u64| {
        let span = series["span_ns"].as_u64().unwrap();
        &points[(time / span) as usize]
    };
    assert_eq!(at(10 * SECOND)["max"], (1u64 << 30));
    assert_eq!(at(5 * SECOND)["max"], 0);
    assert_eq!(at(30 * SECOND)["last"], 1 << 20);
    assert_eq!(at(30 * SECOND)["max"], (1 << 20) + 4096);
    assert_eq!(at(end - SECOND)["min"], 1 << 20);
    assert_eq!(points[499]["last"], 0);
    assert!(series["exact_from_ns"].as_u64().unwrap() > START + 20 * SECOND);
}
