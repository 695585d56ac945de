//! Stacks of every version, built byte by byte as its layout says: what is right is read, what is
//! not is refused, and nothing that lies there can lead a walk astray.

use super::code::{Described, describe};
use super::interpreter::Interpreter;
use super::layout::{Entry, Identity, Innermost, Instruction, Layout, NEWEST, OLDEST};
use super::lines::Table;
use super::memory::Memory;
use super::walk::{Broken, Frames, walk};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vramtrace_format::stacks::MAX_FRAMES;

const CODE: u64 = 0x10;
const STRING: u64 = 0x20;
const BYTES: u64 = 0x30;

/// An address space with an interpreter's objects.
struct World {
    interpreter: Interpreter,
    objects: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Memory for World {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let Some((start, object)) = self.objects.range(..=address).next_back() else {
            return false;
        };
        let at = (address - start) as usize;
        match at
            .checked_add(into.len())
            .and_then(|end| object.get(at..end))
        {
            Some(found) => {
                into.copy_from_slice(found);
                true
            }
            None => false,
        }
    }
}

impl World {
    fn new(layout: Layout) -> World {
        World {
            interpreter: Interpreter {
                layout,
                code_type: CODE,
                string_type: STRING,
                bytes_type: BYTES,
            },
            objects: BTreeMap::new(),
            next: 0x10_0000,
        }
    }

    fn layout(&self) -> Layout {
        self.interpreter.layout
    }

    fn object(&mut self, size: usize) -> u64 {
        let at = self.next;
        self.next += (size as u64).next_multiple_of(16) + 16;
        self.objects.insert(at, vec![0; size]);
        at
    }

    fn put(&mut self, object: u64, offset: u16, bytes: &[u8]) {
        let offset = usize::from(offset);
        let memory = self.objects.get_mut(&object).expect("an object");
        memory[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put_word(&mut self, object: u64, offset: u16, value: u64) {
        self.put(object, offset, &value.to_le_bytes());
    }

    /// A string in the narrowest form, as CPython makes them.
    fn string(&mut self, text: &str) -> u64 {
        let strings = self.layout().strings;
        let widest = text.chars().map(u32::from).max().unwrap_or(0);
        let width = match widest {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        let ascii = widest < 0x80;
        let data: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes()[..width].to_vec())
            .collect();
        let start = if ascii {
            strings.ascii
        } else {
            strings.compact
        };
        let string = self.object(usize::from(start) + data.len() + 16);
        let state = (width as u32) << 2 | 1 << 5 | u32::from(ascii) << 6;
        self.put_word(string, self.layout().kind, STRING);
        self.put_word(string, strings.length, text.chars().count() as u64);
        self.put_word(string, strings.hash, text.len() as u64 * 31);
        self.put(
            string,
            strings.state,
            &(state << strings.state_shift).to_le_bytes(),
        );
        self.put(string, start, &data);
        string
    }

    /// A function whose instructions are all in the line after its first.
    fn code(&mut self, file: &str, function: &str, first_line: i32) -> u64 {
        let layout = self.layout();
        let table: &[u8] = match layout.table {
            Table::Lnotab => &[0, 1],
            Table::Ranges => &[200, 1],
            Table::Locations => &[0x80 | (11 << 3) | 7, 0, 0],
        };
        let lines = self.object(usize::from(layout.bytes) + 16);
        self.put_word(lines, layout.kind, BYTES);
        self.put_word(lines, layout.size, table.len() as u64);
        self.put(lines, layout.bytes, table);
        let (file, function) = (self.string(file), self.string(function));
        let code = self.object(400);
        self.put_word(code, layout.kind, CODE);
        if layout.codes.start != 0 {
            self.put_word(code, layout.size, 8);
        } else {
            let instructions = self.object(usize::from(layout.bytes) + 16);
            self.put_word(instructions, layout.kind, BYTES);
            self.put_word(instructions, layout.size, 16);
            self.put_word(code, layout.codes.instructions, instructions);
        }
        self.put_word(code, layout.codes.file, file);
        match layout.codes.qualified {
            0 => self.put_word(code, layout.codes.name, function),
            qualified => {
                let name = self.string("not this one");
                self.put_word(code, layout.codes.name, name);
                self.put_word(code, qualified, function);
            }
        }
        self.put_word(code, layout.codes.table, lines);
        self.put(code, layout.codes.first_line, &first_line.to_le_bytes());
        if let Identity::Version(at) = layout.codes.identity {
            self.put(code, at, &(code as u32).to_le_bytes());
        }
        code
    }

    /// A frame that is 4 bytes into its code.
    fn frame(&mut self, code: u64, previous: u64, entry: bool) -> u64 {
        let layout = self.layout();
        let frame = self.object(128);
        self.put_word(frame, layout.code, code);
        self.put_word(frame, layout.previous, previous);
        match layout.instruction {
            Instruction::Index { at, unit } => {
                self.put(frame, at, &(4 / i32::from(unit)).to_le_bytes());
            }
            Instruction::Pointer(at) => {
                self.put_word(frame, at, code + u64::from(layout.codes.start) + 4);
            }
        }
        if let Entry::Flag(at) = layout.entry {
            self.put(frame, at, &[u8::from(entry)]);
        }
        frame
    }

    /// What the interpreter puts below a run of frames, where it does.
    fn shim(&mut self, previous: u64) -> u64 {
        let Entry::Shim(owner) = self.layout().entry else {
            return previous;
        };
        let shim = self.frame(0, previous, false);
        self.put(shim, owner, &[3]);
        shim
    }

    fn thread(&mut self, innermost: u64) -> u64 {
        let thread = self.object(128);
        match self.layout().innermost {
            Innermost::At(at) => self.put_word(thread, at, innermost),
            Innermost::Through(at, next) => {
                let native = self.object(32);
                self.put_word(native, next, innermost);
                self.put_word(thread, at, native);
            }
        }
        thread
    }

    fn walk(&self, thread: u64) -> (Box<Frames>, Result<(), Broken>) {
        let mut frames = Box::new(Frames::default());
        let result = walk(self, &self.interpreter, thread, &mut frames);
        (frames, result)
    }

    fn described(&self, frames: &Frames) -> Vec<(String, u32, bool)> {
        frames
            .get()
            .iter()
            .map(|frame| {
                let found = describe(self, &self.interpreter, frame).expect("a whole frame");
                (found.function, found.line.unwrap_or(0), frame.entry)
            })
            .collect()
    }
}

fn layouts() -> impl Iterator<Item = Layout> {
    (OLDEST..=NEWEST)
        .flat_map(|minor| [false, true].map(|free| Layout::of(minor, free)))
        .flatten()
}

#[test]
fn two_runs_of_frames_in_every_layout() {
    for layout in layouts() {
        let mut world = World::new(layout);
        let names = [
            ("train.py", "<module>", 0),
            ("/home/é/модель.py", "Модель.шаг", 40),
            ("𝔪odel.py", "naïve.<locals>.<lambda>", 7),
        ];
        let [module, step, lambda] = names.map(|(file, name, line)| world.code(file, name, line));
        let base = world.shim(0);
        let outer = world.frame(module, base, true);
        let between = world.shim(outer);
        let middle = world.frame(step, between, true);
        let inner = world.frame(lambda, middle, false);
        let thread = world.thread(inner);
        let (frames, result) = world.walk(thread);
        assert_eq!(result, Ok(()));
        assert!(!frames.truncated);
        let every = layout.entry == Entry::Every;
        assert_eq!(
            world.described(&frames),
            [
                ("naïve.<locals>.<lambda>".into(), 8, every),
                ("Модель.шаг".into(), 41, true),
                ("<module>".into(), 1, true),
            ],
            "{layout:?}"
        );
        let outermost = describe(&world, &world.interpreter, &frames.get()[1]);
        assert_eq!(
            outermost,
            Ok(Described {
                file: "/home/é/модель.py".into(),
                function: "Модель.шаг".into(),
                first_line: 40,
                line: Some(41),
            })
        );
    }
}

#[test]
fn another_function_at_the_same_address_is_another_stack() {
    for layout in layouts() {
        let hash_of = |file: &str, function: &str, first_line: i32, version: u32| {
            let mut world = World::new(layout);
            let code = world.code(file, function, first_line);
            if let Identity::Version(at) = layout.codes.identity {
                world.put(code, at, &version.to_le_bytes());
            } else {
                // The name that is looked at is the plain one.
                let name = world.string(function);
                world.put_word(code, layout.codes.name, name);
            }
            let frame = world.frame(code, 0, true);
            let thread = world.thread(frame);
            world.walk(thread).0.hash
        };
        let first = hash_of("<cell 11>", "run", 1, 7);
        assert_eq!(first, hash_of("<cell 11>", "run", 1, 7));
        for other in [
            hash_of("<cell 12>", "run", 1, 8),
            hash_of("<cell 11>", "runs", 1, 9),
            hash_of("<cell 11>", "run", 2, 10),
        ] {
            assert_ne!(first, other, "{layout:?}");
        }
    }
}

#[test]
fn a_deep_recursion_keeps_its_innermost_frames() {
    let mut world = World::new(Layout::of(12, false).expect("a layout"));
    let (outer, inner) = (world.code("a", "outer", 1), world.code("a", "inner", 1));
    let mut frame = world.shim(0);
    for _ in 0..1000 {
        frame = world.frame(outer, frame, false);
    }
    frame = world.frame(inner, frame, false);
    let thread = world.thread(frame);
    let (frames, result) = world.walk(thread);
    assert_eq!(
        (result, frames.len, frames.truncated),
        (Ok(()), MAX_FRAMES, true)
    );
    let described = world.described(&frames);
    assert_eq!(described[0].0, "inner");
    assert!(described[1..].iter().all(|(name, ..)| name == "outer"));
    assert!(described.iter().all(|(.., entry)| !entry));
}

#[test]
fn what_makes_no_sense_ends_the_walk_and_keeps_what_came_before() {
    for layout in layouts() {
        let mut world = World::new(layout);
        let code = world.code("a", "f", 1);
        let no_code = world.string("not a code object");
        let broken = [
            world.frame(no_code, 0, true),
            world.frame(0, 0, true),
            world.frame(code, 0, true) + 4,
            0x6666_0000,
            u64::MAX - 7,
        ];
        for previous in broken {
            let frame = world.frame(code, previous, true);
            let thread = world.thread(frame);
            let (frames, result) = world.walk(thread);
            assert!(result.is_err(), "{layout:?}");
            assert_eq!((frames.len, frames.truncated), (1, true), "{layout:?}");
        }
        let turns = world.frame(code, 0, true);
        world.put_word(turns, layout.previous, turns);
        let thread = world.thread(turns);
        let (frames, _) = world.walk(thread);
        assert_eq!((frames.len, frames.truncated), (MAX_FRAMES, true));
    }
}

#[test]
fn an_instruction_outside_its_code_is_refused() {
    for layout in layouts() {
        for (units, fits) in [(-1, true), (0, true), (7, true), (8, false), (-2, false)] {
            let mut world = World::new(layout);
            let code = world.code("a", "f", 1);
            let frame = world.frame(code, 0, true);
            match layout.instruction {
                Instruction::Index { at, unit } => {
                    let index: i32 = units * 2 / i32::from(unit);
                    world.put(frame, at, &index.to_le_bytes());
                }
                Instruction::Pointer(at) => {
                    let start = code + u64::from(layout.codes.start);
                    world.put_word(frame, at, start.wrapping_add_signed(2 * i64::from(units)));
                }
            }
            let thread = world.thread(frame);
            let (frames, _) = world.walk(thread);
            let described = describe(&world, &world.interpreter, &frames.get()[0]);
            assert_eq!(described.is_ok(), fits, "{units}: {layout:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Objects in which any byte may be anything.
    #[test]
    fn damaged_objects_are_refused_or_read_but_never_followed_blindly(
        which in 0usize..64,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let all: Vec<Layout> = layouts().collect();
        let mut world = World::new(all[which % all.len()]);
        let (f, g) = (world.code("a.py", "f", 3), world.code("b.py", "gé", 4));
        let base = world.shim(0);
        let outer = world.frame(f, base, true);
        let inner = world.frame(g, outer, true);
        let thread = world.thread(inner);
        for (object, at, byte) in changes {
            let keys: Vec<u64> = world.objects.keys().copied().collect();
            let memory = world.objects.get_mut(object.get(&keys)).expect("an object");
            let at = at.index(memory.len());
            memory[at] = byte;
        }
        let (frames, _) = world.walk(thread);
        for frame in frames.get() {
            let _ = describe(&world, &world.interpreter, frame);
        }
    }
}
