//! Archives: what every command says of one is what it says of the traces in it; a foreign, broken
//! or hostile one is said to be that.

#![allow(missing_docs)]

mod support;

use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::*;
use vramtrace_format::record::{Kind, Record};
use vramtrace_reader::archive::{Source, is_archive, open, write};
use vramtrace_reader::model::{Process, State};
use vramtrace_reader::trace::Trace;

/// A trace with events of both rings, of which the device layer's has wrapped.
fn trace(pid: u32, rounds: u64) -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.cold(vramtrace_format::cold::Cold::Process(process(
        pid,
        "/opt/app/train",
    )));
    let stacks: Vec<u32> = (0..5).map(|n| file.program_stack(0x100 + n)).collect();
    for round in 0..rounds {
        file.time = round * SECOND / 10;
        let kind = [Kind::Device, Kind::Torch, Kind::Pinned][(round % 3) as usize];
        let entry = file.alloc(kind, 512 * (1 + round % 9), stacks[(round % 5) as usize]);
        if round % 50 != 0 {
            file.free(&entry);
        }
    }
    file.exit();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory with traces of two processes, and an archive of it.
fn archived() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("traces")).unwrap();
    trace(4711, 3000).write(&dir.path().join("traces"), "train.4711.vrt");
    trace(4712, 100).write(&dir.path().join("traces"), "train.4712.vrt");
    let (code, said) = run(&["archive", "traces", "-o", "out.tar"], dir.path());
    assert_eq!(code, 0, "{said}");
    assert!(
        said.ends_with("2 traces in out.tar\nNext: vramtrace leaks out.tar\n"),
        "{said}"
    );
    dir
}

/// The one difference: which file it was.
fn without_names(mut document: Value, archive: &str) -> Value {
    fn walk(value: &mut Value, archive: &str) {
        match value {
            Value::String(text) => *text = text.replace(archive, "traces/"),
            Value::Array(all) => all.iter_mut().for_each(|own| walk(own, archive)),
            Value::Object(all) => all.values_mut().for_each(|own| walk(own, archive)),
            _ => {}
        }
    }
    walk(&mut document, archive);
    document
}

#[test]
fn every_command_says_the_same_of_an_archive() {
    let dir = archived();
    for command in [
        &["leaks"][..],
        &["leaks", "--by", "thread", "--to", "peak"],
        &["summary"],
        &["timeline"],
        &["peak"],
        &["reconcile"],
        &["growth"],
        &["churn"],
        &["fragmentation"],
        &["oom"],
        &["check"],
        &["diff", "--from", "peak"],
    ] {
        let say = |what: &str| {
            let out = vramtrace(&[command, &["--json", what]].concat(), dir.path());
            let document: Value = serde_json::from_slice(&out.stdout)
                .unwrap_or_else(|why| panic!("{command:?} {what}: {why}: {out:?}"));
            (out.status.code(), without_names(document, "out.tar/"))
        };
        let (traces, archive) = (say("traces"), say("out.tar"));
        assert_eq!(traces, archive, "{command:?}");
        assert!(traces.1.to_string().len() > 100, "{command:?}");
    }
    for format in ["pprof", "perfetto", "speedscope", "folded", "csv", "json"] {
        let export = |what| {
            let arguments = ["export", what, "--format", format, "-o", "-"];
            let out = vramtrace(&arguments, dir.path());
            assert!(out.status.success() && !out.stdout.is_empty(), "{out:?}");
            String::from_utf8_lossy(&out.stdout).replace("out.tar/", "traces/")
        };
        assert!(export("traces") == export("out.tar"), "{format}");
    }
    let (code, said) = run(&["flamegraph", "out.tar", "-o", "out.svg"], dir.path());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn an_archive_is_small_and_opened_by_tar() {
    let dir = archived();
    let bytes = fs::metadata(dir.path().join("out.tar")).unwrap().len();
    assert!(bytes < (1 << 20) + (600 << 10), "{bytes}");
    match Command::new("tar")
        .args(["-xf", "out.tar", "--one-top-level=unpacked"])
        .current_dir(dir.path())
        .status()
    {
        Ok(status) => assert!(status.success()),
        Err(why) => return eprintln!("skipped: tar opens an archive: {why}"),
    }
    for name in ["traces/train.4711.vrt", "traces/train.4712.vrt"] {
        let unpacked = fs::read(dir.path().join("unpacked").join(name)).unwrap();
        assert!(
            unpacked == fs::read(dir.path().join(name)).unwrap(),
            "{name}"
        );
    }
    // Packed anew by hand it is an archive still.
    let packed = Command::new("tar")
        .args(["-cf", "again.tar", "-C", "unpacked", "."])
        .current_dir(dir.path())
        .status();
    assert!(packed.unwrap().success());
    let first = vramtrace(&["leaks", "--json", "out.tar"], dir.path()).stdout;
    let again = vramtrace(&["leaks", "--json", "again.tar"], dir.path()).stdout;
    let first = String::from_utf8(first)
        .unwrap()
        .replace("out.tar", "again.tar");
    assert_eq!(first, String::from_utf8(again).unwrap());
}

#[test]
fn an_archive_of_an_archive_is_the_same() {
    let dir = archived();
    let (code, said) = run(&["archive", "out.tar", "-o", "two.tar"], dir.path());
    assert_eq!(code, 0, "{said}");
    let bytes = |name| fs::read(dir.path().join(name)).unwrap();
    assert!(bytes("out.tar") == bytes("two.tar"));
    let out = vramtrace(&["archive", "traces", "-o", "-"], dir.path());
    assert!(out.stdout == bytes("out.tar"), "{:?}", out.stderr);
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = archived();
    let (code, said) = run(&["archive", "traces", "-o", "out.tar"], dir.path());
    assert_eq!(code, 2);
    assert!(said.contains("out.tar exists already; use -f"), "{said}");
    let (code, _) = run(&["archive", "traces", "-f", "-o", "out.tar"], dir.path());
    assert_eq!(code, 0);
}

/// What stands still of a running process is what was copied, whether its rings have wrapped or not.
#[test]
fn a_trace_that_stands_still_is_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    for (rounds, later) in [(100, 0), (3000, 0), (100, 40), (3000, 700)] {
        let mut file = trace(4711, rounds);
        file.control().clean_exit = 0;
        let path = file.write(dir.path(), "t.vrt");
        let copied = Trace::open(&path).unwrap();
        // The process goes on after its tables were copied.
        for _ in 0..later {
            file.alloc(Kind::Device, 512, 1);
        }
        use std::os::unix::fs::FileExt;
        let same = fs::OpenOptions::new().write(true).open(&path).unwrap();
        same.write_all_at(file.bytes(), 0).unwrap();
        let still = dir.path().join("still.vrt");
        copied
            .write_still(&fs::File::create(&still).unwrap())
            .unwrap();
        let found = Trace::open(&still).unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert!(found.copy.recovered.is_none());
        assert_eq!(found.copy.seq, copied.copy.seq);
        assert_eq!(found.copy.accounts, copied.copy.accounts);
        let sorted = |trace: &Trace| {
            let mut live = trace.copy.live.clone();
            live.sort_by_key(|row| row.seq);
            live
        };
        assert_eq!(sorted(&found), sorted(&copied));
        assert_eq!(found.copy.totals, copied.copy.totals);
        assert_eq!(found.stacks, copied.stacks);
        assert_eq!(found.cold, copied.cold);
        let events = |trace: &Trace| trace.events().collect::<Vec<Record>>();
        // Of the file as it is now: what later events took the place of is gone.
        let expected = events(&copied);
        let lane0: Vec<_> = found.events_of(0).collect();
        assert!(!lane0.is_empty());
        let mut all = found.events();
        let all_found: Vec<Record> = all.by_ref().collect();
        assert_eq!(all.damaged(), 0, "{rounds} {later}");
        let numbers = |events: &[Record]| events.iter().map(|own| own.seq).collect::<Vec<_>>();
        let (own, other) = (numbers(&all_found), numbers(&expected));
        let differs = own.iter().zip(&other).position(|(a, b)| a != b);
        assert!(
            all_found == expected,
            "{rounds} {later}: {} of {} events, other at {differs:?}: {:?}",
            own.len(),
            other.len(),
            differs.map(|at| (own[at], other[at])),
        );
        if later == 0 {
            assert_eq!(
                [found.reach(0), found.reach(1)],
                [copied.reach(0), copied.reach(1)]
            );
        }
    }
}

/// A tar with these members.
fn tar_of(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        // As they are: paths that no tar would write, too.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn manifest(members: &[&str]) -> (&'static str, Vec<u8>) {
    let traces: Vec<Value> = members
        .iter()
        .map(|member| serde_json::json!({"member": member, "end": "exited"}))
        .collect();
    let document = serde_json::json!({
        "schema": "vramtrace.archive/1", "vramtrace": "0", "traces": traces
    });
    ("vramtrace-archive.json", document.to_string().into_bytes())
}

fn symbols() -> (&'static str, Vec<u8>) {
    let document = r#"{"schema":"vramtrace.symbols/1","strings":[""],"modules":[]}"#;
    ("symbols.json", document.into())
}

#[test]
fn what_is_wrong_with_an_archive_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let whole = trace(4711, 10).bytes().to_vec();
    let named = |name| (name, whole.clone());
    let cases: [(&str, Vec<u8>, i32, &str); 9] = [
        (
            "foreign",
            tar_of(&[("readme", b"x".to_vec())]),
            3,
            "is a tar file, but not one of `vramtrace archive`",
        ),
        (
            "later version",
            tar_of(&[(
                "vramtrace-archive.json",
                br#"{"schema":"vramtrace.archive/2","vramtrace":"9","traces":[]}"#.to_vec(),
            )]),
            3,
            "is an archive of another version (`vramtrace.archive/2`",
        ),
        (
            "deep nesting",
            tar_of(&[("vramtrace-archive.json", "[".repeat(100_000).into_bytes())]),
            3,
            "whose vramtrace-archive.json makes no sense",
        ),
        (
            "missing",
            tar_of(&[manifest(&["traces/a.vrt"]), symbols()]),
            3,
            "t.tar/a.vrt: is missing in the archive",
        ),
        (
            "there twice",
            tar_of(&[
                manifest(&["traces/a.vrt"]),
                symbols(),
                named("traces/a.vrt"),
                named("traces/a.vrt"),
            ]),
            3,
            "t.tar/a.vrt: is there twice in the archive",
        ),
        (
            "listed twice",
            tar_of(&[
                manifest(&["traces/a.vrt", "traces/a.vrt"]),
                symbols(),
                named("traces/a.vrt"),
            ]),
            3,
            "t.tar/a.vrt: is listed twice in its archive",
        ),
        (
            "no symbols",
            tar_of(&[manifest(&["traces/a.vrt"]), named("traces/a.vrt")]),
            0,
            "the symbols in it are not used: symbols.json is missing",
        ),
        (
            "symbols of another kind",
            tar_of(&[
                manifest(&["traces/a.vrt"]),
                ("symbols.json", b"{}".to_vec()),
                named("traces/a.vrt"),
            ]),
            0,
            "the symbols in it are not used: missing field",
        ),
        (
            "names that lead elsewhere",
            tar_of(&[
                manifest(&["/etc/passwd", "../../x"]),
                symbols(),
                named("../../x"),
            ]),
            3,
            "t.tar//etc/passwd: is missing in the archive",
        ),
    ];
    for (what, bytes, code, expected) in cases {
        fs::write(dir.path().join("t.tar"), &bytes).unwrap();
        let (found, said) = run(&["leaks", "t.tar"], dir.path());
        assert!(said.contains(expected), "{what}: {said}");
        assert_eq!(found, code, "{what}: {said}");
    }
}

#[test]
fn an_archive_that_was_cut_off_says_which_traces_are_missing() {
    let dir = archived();
    let path = dir.path().join("out.tar");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100_000]).unwrap();
    let (code, said) = run(&["leaks", "out.tar"], dir.path());
    assert_eq!(code, 3);
    assert!(
        said.contains("out.tar/train.4712.vrt: is cut off: the archive ends"),
        "{said}"
    );
    assert!(said.contains("leaked"), "{said}");
    fs::write(&path, &whole[..700]).unwrap();
    let (code, said) = run(&["leaks", text(&path)], dir.path());
    assert_eq!(code, 3);
    assert!(said.contains("vramtrace-archive.json"), "{said}");
}

/// Symbols that lie are shown as names and do nothing else.
#[test]
fn symbols_in_an_archive_name_functions() {
    let dir = tempfile::tempdir().unwrap();
    let whole = trace(4711, 10).bytes().to_vec();
    let id = "01".repeat(20);
    let document = format!(
        r#"{{"schema":"vramtrace.symbols/1","strings":["","leaky()","a.cu"],"modules":[
        {{"path":"/opt/app/train","build_id":"{id}","addresses":[
          [256,[[1,2,7],[4294967295,99,0]]],[256,[]],[18446744073709551615,[]]]}}]}}"#
    );
    let bytes = tar_of(&[
        manifest(&["traces/a.vrt"]),
        ("symbols.json", document.into_bytes()),
        ("traces/a.vrt", whole),
    ]);
    fs::write(dir.path().join("t.tar"), bytes).unwrap();
    let out = vramtrace(&["leaks", "--json", "t.tar"], dir.path());
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let stack = &json["groups"][0]["stack"];
    assert_eq!(stack[0]["function"], "leaky()", "{json:#}");
    assert_eq!(stack[0]["file"], "a.cu");
    assert_eq!(stack[0]["line"], 7);
    assert_eq!(stack[1]["function"], Value::Null);
}

#[test]
fn what_became_of_the_process_is_what_was_known_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut own = trace(4711, 10);
    // This very process: it runs.
    own.control().clean_exit = 0;
    let path = own.write(dir.path(), "t.vrt");
    for (state, kept) in [
        (State::Running, State::Unknown),
        (State::Killed, State::Killed),
        (State::Exited, State::Exited),
    ] {
        let mut process = Process::read(Trace::open(&path).unwrap());
        process.state = state;
        let tar = dir.path().join("t.tar");
        let sources = [Source::of(&process).unwrap()];
        write(&sources, fs::File::create(&tar).unwrap()).unwrap();
        assert!(is_archive(&tar) && !is_archive(&path));
        let inside = open(&tar).unwrap();
        assert_eq!(inside.processes[0].as_ref().ok().unwrap().state, kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes changed anywhere, most of them where tar, manifest, symbols and maps are.
    #[test]
    fn changed_archives(
        changes in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..40)), 1..8),
        cut in prop::option::weighted(0.2, any::<u32>()),
        checksums: bool,
    ) {
        thread_local!(static WHOLE: (Vec<u8>, tempfile::TempDir) = {
            let dir = archived();
            (fs::read(dir.path().join("out.tar")).unwrap(), dir)
        });
        WHOLE.with(|(whole, dir)| {
            let mut bytes = whole.clone();
            for (at, early, with) in &changes {
                let room = if *early { 8192 } else { bytes.len() };
                let at = *at as usize % room;
                let end = (at + with.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
            if let Some(cut) = cut {
                bytes.truncate(cut as usize % bytes.len());
            }
            if checksums {
                mend(&mut bytes);
            }
            let path = dir.path().join("changed.tar");
            fs::write(&path, &bytes).unwrap();
            if !is_archive(&path) {
                return;
            }
            let Ok(inside) = open(&path) else { return };
            for process in inside.processes.into_iter().flatten() {
                use vramtrace_reader::analysis::leaks::{Answer, Options};
                let mut frames = vramtrace_reader::report::frames::Frames::default();
                let processes = [process];
                let answer = Answer::of(&processes, &Options::default(), Some(10), &mut frames);
                let shown = vramtrace_reader::report::leaks::Shown::new(&answer, &processes, &mut frames);
                vramtrace_reader::report::leaks::json(&shown);
                processes[0].events().for_each(drop);
            }
        });
    }
}

/// Makes the checksums of the headers right again that are where headers were, so that changes in
/// them get past the first check.
fn mend(bytes: &mut [u8]) {
    let positions: Vec<usize> = (0..bytes.len() / 512)
        .filter(|block| bytes[block * 512..][..512].get(257..262) == Some(b"ustar"))
        .map(|block| block * 512)
        .collect();
    for at in positions {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[at..at + 512]);
        header.set_cksum();
        bytes[at..at + 512].copy_from_slice(header.as_bytes());
    }
}
