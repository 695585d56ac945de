//! Reports of stacks with Python frames.

#![allow(missing_docs)]

mod support;

use support::*;
use vramtrace_format::cold::{self, Cold, stacks_of};
use vramtrace_format::record::Kind;
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::check::check;
use vramtrace_reader::analysis::leaks::{Answer, By, Options};
use vramtrace_reader::model::{Loops, NoNames, Process, Unhidden};
use vramtrace_reader::report;
use vramtrace_reader::report::frames::Frames;
use vramtrace_reader::report::style::Style;
use vramtrace_reader::trace::Trace;

const LIBPYTHON: u32 = 6;
const EXTENSION: u32 = 7;

/// Says that return addresses from 0x1000 on are the evaluation loop's.
struct From0x1000;

impl Loops for From0x1000 {
    fn is_loop(&mut self, module: &cold::Module, offset: u64) -> bool {
        assert!(
            module.path.contains("python"),
            "asked about {}",
            module.path
        );
        offset >= 0x1000
    }
}

fn python(code: u32, line: u32, entry: bool) -> Frame {
    Frame::Python { code, line, entry }
}

fn traced() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    file.cold(Cold::Module(module(
        LIBPYTHON,
        "/usr/lib/libpython3.12.so.1.0",
    )));
    file.cold(Cold::Module(module(
        EXTENSION,
        "/x/_C.cpython-312-x86_64-linux-gnu.so",
    )));
    for (id, function, first_line) in [(1, "Trainer.step", 10), (2, "<module>", 1)] {
        file.cold(Cold::PythonCode(cold::PythonCode {
            id,
            file: "/src/train.py".into(),
            function: function.into(),
            first_line,
        }));
    }
    file
}

fn process(file: &mut TraceFile) -> Process {
    let dir = tempfile::tempdir().unwrap();
    Process::read(Trace::open(&file.write(dir.path(), "t.vrt")).unwrap())
}

/// A call from a step, called back from C: the interpreter's own frames differ between the two
/// times that it was called (as they do when an instruction is specialised), the program does not.
fn two_of_one_step(file: &mut TraceFile) {
    for inside in [0x1100, 0x1200] {
        let stack = file.stack(&[
            native(2, 0x10),
            native(3, 0x20),
            native(EXTENSION, 0x50),
            native(LIBPYTHON, 0x10),
            native(LIBPYTHON, inside),
            native(EXTENSION, 0x60),
            native(LIBPYTHON, 0x20),
            native(LIBPYTHON, 0x1300),
            native(1, 0x900),
            python(1, 12, false),
            python(1, 14, true),
            python(2, 30, true),
        ]);
        file.alloc(Kind::Device, MIB, stack);
    }
    file.exit();
}

#[test]
fn what_only_the_interpreter_tells_apart_is_one_group() {
    let mut file = traced();
    two_of_one_step(&mut file);
    let processes = [process(&mut file)];
    let answer = Answer::of(&processes, &Options::default(), None, &mut From0x1000);
    let [placed] = &answer.groups[..] else {
        panic!("{:#?}", answer.groups)
    };
    assert_eq!((placed.group.bytes, placed.group.count), (2 * MIB, 2));
    assert_eq!(
        placed.group.stack.frames,
        [
            native(EXTENSION, 0x50),
            python(1, 12, false),
            python(1, 14, true),
            native(EXTENSION, 0x60),
            python(2, 30, true),
            native(1, 0x900),
        ]
    );
    let native_too = Options {
        unhidden: Unhidden {
            native: true,
            cuda: false,
        },
        ..Options::default()
    };
    let answer = Answer::of(&processes, &native_too, None, &mut From0x1000);
    assert_eq!(answer.groups.len(), 2);
    assert_eq!(answer.groups[0].group.stack.frames.len(), 10);
}

#[test]
fn functions_have_their_names_files_and_lines() {
    let mut file = traced();
    let unknown = 9;
    let stack = file.stack(&[python(1, 12, false), python(unknown, 3, true)]);
    file.alloc(Kind::Async, MIB, stack);
    file.exit();
    let processes = [process(&mut file)];
    let mut frames = Frames::default();
    let answer = Answer::of(&processes, &Options::default(), None, &mut frames);
    let shown = report::leaks::Shown::new(&answer, &processes, &mut frames);
    let text = report::leaks::text(&shown, Style::PLAIN);
    assert!(
        text.contains("#0  Trainer.step  /src/train.py:12\n"),
        "{text}"
    );
    assert!(text.contains("#1  Python function 9"), "{text}");
    let frame = &shown.stacks[0][0];
    assert_eq!(
        (frame.language, frame.function.as_deref(), frame.line),
        ("python", Some("Trainer.step"), Some(12))
    );
    let by_line = Options {
        by: By::Python,
        ..Options::default()
    };
    let answer = Answer::of(&processes, &by_line, None, &mut NoNames);
    assert_eq!(
        answer.groups[0].group.value.as_deref(),
        Some("Trainer.step (/src/train.py:12)")
    );
}

#[test]
fn whether_python_stacks_are_on_is_said() {
    let interpreter = |stacks, reason: &str| {
        Cold::Interpreter(cold::Interpreter {
            version: "3.12.1".into(),
            address: 0,
            stacks,
            reason: reason.into(),
        })
    };
    let note = |code: &str| {
        Cold::Note(cold::Note {
            code: code.into(),
            text: "said elsewhere".into(),
        })
    };
    let config = |value: &str| {
        Cold::Config(cold::Config {
            version: "1".into(),
            settings: vec![format!("VRAMTRACE_STACKS={value}")],
        })
    };
    for (records, says) in [
        (vec![], None),
        (
            vec![
                interpreter(stacks_of::NOT_SEEN, ""),
                interpreter(stacks_of::RECORDED, ""),
            ],
            Some("Python 3.12.1: its stacks are recorded"),
        ),
        (
            vec![interpreter(stacks_of::NOT_SEEN, "")],
            Some("Python 3.12.1: its stacks are not recorded: no Python code has allocated so far"),
        ),
        (
            vec![
                interpreter(stacks_of::UNREADABLE, "it is odd"),
                note("python-stacks-off"),
            ],
            Some("Python 3.12.1: its stacks are not recorded: it is odd"),
        ),
        (
            vec![config("native"), interpreter(stacks_of::NOT_SEEN, "")],
            Some("Python 3.12.1: its stacks are not recorded: VRAMTRACE_STACKS=native"),
        ),
        // A trace of an older version.
        (
            vec![note("python")],
            Some(
                "Python: its stacks are not recorded: the vramtrace that wrote this trace could not",
            ),
        ),
    ] {
        let mut file = TraceFile::new(1 << 20);
        for record in records {
            file.cold(record);
        }
        let process = process(file.exit());
        let said = process.python_stacks().map(|python| python.line());
        assert_eq!(said.as_deref(), says);
        assert_eq!(process.has_interpreter(), says.is_some());
        let text = report::check::text(&[check(&process, 0)], Style::PLAIN);
        let line = says.unwrap_or("Python");
        assert_eq!(text.contains(line), says.is_some(), "{line}\n{text}");
        assert!(!text.contains("said elsewhere"), "{text}");
        let summary = vramtrace_reader::analysis::summary::summary(
            &[process],
            &vramtrace_reader::analysis::Filter::default(),
            5,
            &mut NoNames,
        );
        assert_eq!(summary.processes[0].python.is_some(), says.is_some());
    }
}

/// Tensors of one call are made in many functions of a package; the program's own line is one.
#[test]
fn groups_by_the_programs_own_line() {
    let mut file = traced();
    for (id, name) in [(3, "relu"), (4, "linear")] {
        file.cold(Cold::PythonCode(cold::PythonCode {
            id,
            file: "/venv/lib/python3.12/site-packages/torch/nn/functional.py".into(),
            function: name.into(),
            first_line: 1,
        }));
    }
    for (code, line, own) in [(3, 100, 12), (4, 200, 12), (4, 200, 13)] {
        let stack = file.stack(&[
            python(code, line, false),
            python(1, own, false),
            python(2, 3, true),
        ]);
        file.alloc(Kind::Torch, MIB, stack);
    }
    let only_torch = file.stack(&[python(3, 5, true)]);
    file.alloc(Kind::Torch, MIB, only_torch);
    let options = Options {
        by: By::Line,
        ..Options::default()
    };
    let answer = Answer::of(&[process(&mut file)], &options, None, &mut NoNames);
    let mut found: Vec<(String, u64)> = answer
        .groups
        .iter()
        .map(|placed| (placed.group.value.clone().unwrap(), placed.group.count))
        .collect();
    found.sort();
    let torch = "/venv/lib/python3.12/site-packages/torch/nn/functional.py";
    assert_eq!(
        found,
        [
            ("Trainer.step (/src/train.py:12)".to_owned(), 2),
            ("Trainer.step (/src/train.py:13)".to_owned(), 1),
            (format!("relu ({torch}:5)"), 1),
        ]
    );
}
