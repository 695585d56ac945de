//! Leaks that are known and accepted.

#![allow(missing_docs)]

mod support;

use object::{Object, ObjectSymbol};
use std::fs;
use std::path::Path;
use support::*;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::Kind;
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::Sum;
use vramtrace_reader::analysis::leaks::{Answer, Options, Suppressions};
use vramtrace_reader::model::{Loops, Name, Process};
use vramtrace_reader::trace::Trace;

/// Its name and place are looked for in this test's own file.
#[inline(never)]
fn planted_plan_cache() -> u32 {
    std::hint::black_box(17)
}

/// Called as in TensorFlow and JAX.
#[allow(non_snake_case)]
mod BFCAllocator {
    #[inline(never)]
    pub fn Extend() -> u32 {
        std::hint::black_box(18)
    }
}

/// This test as a module, and an address in one of the functions above.
fn planted(function: &str) -> (cold::Module, u64) {
    assert_eq!((planted_plan_cache(), BFCAllocator::Extend()), (17, 18));
    let path = std::env::current_exe().unwrap();
    let content = fs::read(&path).unwrap();
    let elf = object::File::parse(&*content).unwrap();
    let symbol = elf
        .symbols()
        .find(|symbol| symbol.name().is_ok_and(|name| name.contains(function)))
        .unwrap();
    let module = cold::Module {
        path: path.to_str().unwrap().into(),
        build_id: elf.build_id().unwrap().unwrap_or_default().to_vec(),
        ..module(6, "")
    };
    (module, symbol.address() + 1)
}

/// 1 MiB leaked by a function of this file, 2 MiB by one of Python, 4 MiB of pinned memory in
/// libvendor, 8 MiB by a program that nobody knows.
fn leaking() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let (module_here, address) = planted("planted_plan_cache");
    file.cold(Cold::Module(module_here));
    file.cold(Cold::Module(module(7, "/opt/vendor/lib/libvendor.so.3")));
    file.cold(Cold::PythonCode(cold::PythonCode {
        id: 1,
        file: "/src/weights.py".into(),
        function: "Store.load".into(),
        first_line: 1,
    }));
    let known = file.stack(&[
        native(2, 1),
        native(3, 1),
        native(6, address),
        native(1, 0x500),
    ]);
    let python = file.stack(&[
        native(3, 1),
        Frame::Python {
            code: 1,
            line: 7,
            entry: true,
        },
    ]);
    let vendor = file.stack(&[native(3, 1), native(7, 0x77), native(1, 0x500)]);
    let other = file.stack(&[native(3, 1), native(1, 0x500)]);
    file.alloc(Kind::Device, MIB, known);
    file.alloc(Kind::Device, 2 * MIB, python);
    file.alloc(Kind::Pinned, 4 * MIB, vendor);
    file.alloc(Kind::Device, 8 * MIB, other);
    file.exit();
    file
}

fn leaks(options: &[&str], directory: &Path) -> (i32, serde_json::Value) {
    let args = [&["leaks", "--json", "--fail", "a.vrt"], options].concat();
    let out = vramtrace(&args, directory);
    let document = serde_json::from_slice(&out.stdout).unwrap_or_default();
    (out.status.code().unwrap(), document)
}

#[test]
fn functions_files_modules_and_calls_are_matched() {
    let dir = tempfile::tempdir().unwrap();
    leaking().write(dir.path(), "a.vrt");
    for (file, gpu, host, suppressed) in [
        ("# nothing\n", 11, 4, &[][..]),
        (
            "leak:planted_plan_cache",
            10,
            4,
            &[("planted_plan_cache", 1)],
        ),
        (
            "leak:tests/suppressions.rs$",
            10,
            4,
            &[("tests/suppressions.rs$", 1)],
        ),
        ("leak:^Store.load$", 9, 4, &[("^Store.load$", 2)]),
        ("leak:^/src/*.py$", 9, 4, &[("^/src/*.py$", 2)]),
        ("leak:^load$", 11, 4, &[]),
        ("leak:libvendor.so", 11, 0, &[("libvendor.so", 4)]),
        ("leak:^cudaMallocHost$", 11, 0, &[("^cudaMallocHost$", 4)]),
        // Hidden frames are frames.
        ("leak:libcudart.so", 0, 0, &[("libcudart.so", 15)]),
        // The first that matches counts, whichever frame it matches; ours are nobody's.
        (
            "leak:libvramtrace\nleak:/opt/app/train\nleak:planted\n",
            2,
            0,
            &[("/opt/app/train", 13)],
        ),
        (
            "leak:planted\nleak:/opt/app/train\n",
            2,
            0,
            &[("/opt/app/train", 12), ("planted", 1)],
        ),
    ] {
        fs::write(dir.path().join("known"), file).unwrap();
        let (code, document) = leaks(&["--suppressions", "known"], dir.path());
        let expected: Vec<serde_json::Value> = suppressed
            .iter()
            .map(|(pattern, mib)| (pattern, mib * MIB))
            .map(|(pattern, bytes)| {
                let count = (bytes / MIB).count_ones();
                serde_json::json!({"pattern": pattern, "bytes": bytes, "count": count})
            })
            .collect();
        assert_eq!(
            document["suppressed"],
            serde_json::json!(expected),
            "{file}"
        );
        let total = &document["total"];
        let bytes = |space: &str| total[space]["bytes"].as_u64().unwrap() / MIB;
        assert_eq!((bytes("gpu"), bytes("host")), (gpu, host), "{file}");
        assert_eq!(code, i32::from(gpu + host > 0), "{file}");
        let groups = document["groups"].as_array().unwrap();
        let sum: u64 = groups.iter().map(|g| g["bytes"].as_u64().unwrap()).sum();
        assert_eq!(sum / MIB, gpu + host, "{file}");
        // What is shown, and how, does not matter.
        let options = ["--suppressions", "known", "--by", "kind", "--all-frames"];
        let (_, other) = leaks(&options, dir.path());
        assert_eq!(other["suppressed"], document["suppressed"], "{file}");
    }
}

#[test]
fn limits_are_about_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    leaking().write(dir.path(), "a.vrt");
    fs::write(dir.path().join("one"), "leak:Store.load").unwrap();
    fs::write(dir.path().join("two"), "leak:planted").unwrap();
    let both = ["--suppressions", "one", "--suppressions", "two"];
    for (limit, options, expected) in [
        ("8MiB", &both[..], 0),
        ("8MiB", &both[..2], 1),
        ("8MiB", &[], 1),
        ("11MiB", &[], 0),
    ] {
        let args = [&["leaks", "--max-leak-bytes", limit, "a.vrt"], options].concat();
        let out = vramtrace(&args, dir.path());
        assert_eq!(out.status.code(), Some(expected), "{args:?}");
    }
    let out = vramtrace(&[&["leaks", "a.vrt"], &both[..]].concat(), dir.path());
    let text = String::from_utf8(out.stdout).unwrap();
    let expected = "\
Suppressed: 2.00 MiB in 1 allocation by leak:Store.load
Suppressed: 1.00 MiB in 1 allocation by leak:planted
";
    assert!(text.contains(expected), "{text}");
    let summary = "SUMMARY: 8.00 MiB in 1 allocation of GPU memory leaked, 4.00 MiB in 1 \
                   allocation of page-locked host memory, 3.00 MiB in 2 allocations suppressed\n";
    assert!(text.contains(summary), "{text}");
}

#[test]
fn a_malformed_file_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    leaking().write(dir.path(), "a.vrt");
    let accepted = "accepted are lines of the form leak:PATTERN, comments that begin with #, and \
                    empty lines";
    for (text, expected) in [
        (
            "leak:a\nrace:b\n",
            format!("known: line 2: `race:b`: not a suppression of leaks; {accepted}"),
        ),
        (
            "\nleak:\n",
            format!("known: line 2: `leak:`: the pattern is missing; {accepted}"),
        ),
        (
            "leak:a^b",
            format!(
                "known: line 1: `leak:a^b`: ^ is accepted at the start of a pattern, $ at its end; \
                 write * for others; {accepted}"
            ),
        ),
    ] {
        fs::write(dir.path().join("known"), text).unwrap();
        for command in [&["leaks", "a.vrt"][..], &["run"]] {
            let file = ["--suppressions", "known"];
            let program: &[&str] = if command[0] == "run" {
                &["touch", "ran"]
            } else {
                &[]
            };
            let out = vramtrace(&[command, &file, program].concat(), dir.path());
            assert_eq!(out.status.code(), Some(2), "{text}");
            let said = String::from_utf8(out.stderr).unwrap();
            assert_eq!(said, format!("vramtrace: {expected}\n"));
        }
        assert!(!dir.path().join("ran").exists());
    }
    let (code, _) = leaks(&["--suppressions", "absent"], dir.path());
    assert_eq!(code, 2);
}

#[test]
fn the_builtin_list_is_printed_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = vramtrace(&["leaks", "--print-suppressions"], dir.path());
    assert_eq!(out.status.code(), Some(0));
    leaking().write(dir.path(), "a.vrt");
    fs::write(dir.path().join("known"), &out.stdout).unwrap();
    let (code, document) = leaks(&["--suppressions", "known"], dir.path());
    assert_eq!((code, &document["suppressed"]), (1, &serde_json::json!([])));
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with("# ") && text.contains("\nleak:"), "{text}");
}

/// Names everything of PyTorch, and is to be asked about nothing else.
struct OfTorch;

impl Loops for OfTorch {
    fn is_loop(&mut self, _: &cold::Module, _: u64) -> bool {
        false
    }

    fn names(&mut self, module: &cold::Module, offset: u64) -> Vec<Name> {
        assert_eq!(module.path, "/x/torch/lib/libtorch_cuda.so");
        let function = match offset {
            0x10 => "at::cuda::getCurrentCUDABlasHandle()",
            _ => "at::native::empty_cuda(long)",
        };
        vec![Name {
            function: Some(function.to_owned()),
            file: None,
        }]
    }
}

#[test]
fn builtin_ones_ask_for_names_only_where_they_may_match() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = leaking();
    file.cold(Cold::Module(module(8, "/x/torch/lib/libtorch_cuda.so")));
    for (at, mib) in [(0x10, 16), (0x20, 32)] {
        let stack = file.stack(&[native(3, 1), native(8, at), native(1, 0x500)]);
        file.alloc(Kind::Device, mib * MIB, stack);
    }
    let path = file.write(dir.path(), "a.vrt");
    let process = [Process::read(Trace::open(&path).unwrap())];
    let mut options = Options::default();
    let all = Answer::of(&process, &options, None, &mut OfTorch);
    assert_eq!((all.gpu.bytes, all.suppressed.len()), (59 * MIB, 0));
    options.suppressions = Suppressions::default();
    options.suppressions.add_builtin();
    let left = Answer::of(&process, &options, None, &mut OfTorch);
    assert_eq!(left.gpu.bytes, 43 * MIB);
    let [used] = &left.suppressed[..] else {
        panic!("{:?}", left.suppressed);
    };
    let sum = Sum {
        bytes: 16 * MIB,
        count: 1,
    };
    assert_eq!((used.sum, used.builtin), (sum, true));
}

#[test]
fn the_arena_of_a_framework_is_no_leak_but_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (here, address) = planted("12BFCAllocator6Extend");
    let library = dir.path().join("libtensorflow_framework.so.2");
    fs::copy(&here.path, &library).unwrap();
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Module(cold::Module {
        path: library.to_str().unwrap().into(),
        ..here
    }));
    let stack = file.stack(&[native(3, 1), native(6, address), native(1, 0x500)]);
    file.alloc(Kind::Device, 64 * MIB, stack);
    file.exit().write(dir.path(), "a.vrt");
    let arena = "Suppressed: 64.00 MiB in 1 allocation by leak:BFCAllocator::Extend (builtin; \
                 --no-builtin-suppressions reports it)\n";
    for (options, suppressed) in [
        (&[][..], true),
        (&["--to", "end"], true),
        (&["--no-builtin-suppressions"], false),
        (&["--to", "peak"], false),
    ] {
        let out = vramtrace(
            &[&["leaks", "--fail", "a.vrt"], options].concat(),
            dir.path(),
        );
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(text.contains(arena), suppressed, "{text}");
        assert_eq!(
            out.status.code(),
            Some(i32::from(!suppressed)),
            "{options:?}"
        );
    }
}
