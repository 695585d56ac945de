//! Names of Python functions: each once in the trace, found by content.
//!
//! A code object's address says nothing for long: it is freed with its function, and the next one
//! may be put where it was. So a function is known by what it says of itself (file, name, first
//! line), read when a stack is seen for the first time.

use super::code::{Described, describe};
use super::interpreter::Interpreter;
use super::memory::Memory;
use super::walk::RawFrame;
use crate::renew::Renewable;
use parking_lot::MutexGuard;
use std::collections::HashMap;
use vramtrace_format::cold::PythonCode;
use vramtrace_format::stacks::Frame;

/// Most functions that get a name: a program that makes new ones without end must not fill memory.
const MAX_CODES: usize = 1 << 17;

#[derive(Default)]
struct Known {
    ids: HashMap<Box<[u8]>, u32>,
}

static KNOWN: Renewable<Known> = Renewable::new();

/// The names, while a stack is put into the form that the trace stores. What is new becomes known
/// with [`Names::commit`], when its records have been written: no stack of another thread can
/// name it before.
pub struct Names {
    known: MutexGuard<'static, Known>,
    new: Vec<(Box<[u8]>, PythonCode)>,
}

impl Names {
    /// `None` if they cannot be had in time.
    pub fn lock() -> Option<Names> {
        Some(Names {
            known: KNOWN.lock()?,
            new: Vec::new(),
        })
    }

    /// A frame as the trace stores it; `None` for one that the interpreter put in by itself.
    pub fn stored<M: Memory>(
        &mut self,
        memory: &M,
        interpreter: &Interpreter,
        frame: &RawFrame,
    ) -> Option<u64> {
        let described = describe(memory, interpreter, frame).ok();
        if !frame.entry && described.as_ref().is_some_and(Described::is_shim) {
            return None;
        }
        let line = described.as_ref().and_then(|described| described.line);
        let frame = Frame::Python {
            code: described.map_or(0, |described| self.id(described)),
            line: line.unwrap_or(0),
            entry: frame.entry,
        };
        Some(frame.encode())
    }

    fn id(&mut self, described: Described) -> u32 {
        let mut key = Vec::with_capacity(described.file.len() + described.function.len() + 5);
        key.extend(described.file.as_bytes());
        key.push(0);
        key.extend(described.function.as_bytes());
        key.extend(described.first_line.to_le_bytes());
        if let Some(&id) = self.known.ids.get(&key[..]) {
            return id;
        }
        if let Some((_, code)) = self.new.iter().find(|(known, _)| known[..] == key) {
            return code.id;
        }
        let count = self.known.ids.len() + self.new.len();
        if count >= MAX_CODES {
            return 0;
        }
        let id = count as u32 + 1;
        self.new.push((
            key.into(),
            PythonCode {
                id,
                file: described.file,
                function: described.function,
                first_line: described.first_line,
            },
        ));
        id
    }

    /// What the trace does not have yet.
    pub fn new_codes(&mut self) -> impl Iterator<Item = PythonCode> + '_ {
        self.new.iter_mut().map(|(_, code)| PythonCode {
            id: code.id,
            ..std::mem::take(code)
        })
    }

    /// It has it now. Call after [`Names::new_codes`], whose order gives the numbers.
    pub fn commit(mut self) {
        let first = self.known.ids.len() as u32 + 1;
        for (id, (key, _)) in (first..).zip(std::mem::take(&mut self.new)) {
            self.known.ids.insert(key, id);
        }
    }
}

/// Forgets all: a forked child writes a trace of its own.
pub fn start_over() {
    KNOWN.renew();
}
