//! One order for the native and the Python frames of a stack.
//!
//! A stack stores its native frames and then its Python frames, each innermost first. One native
//! call of the interpreter's evaluation loop runs one or more Python frames, of which the outermost
//! is marked; so each run of them belongs where its loop stands among the native frames.

use super::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::cold::Module;
use vramtrace_format::stacks::Frame;

/// A function and its source file, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Function.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
}

/// Tells the interpreter's evaluation loop from its other functions. Names are not the model's
/// business, so whoever has them says it.
pub trait Loops {
    /// Questions about this process's modules come next; it may have brought their names along.
    fn meet(&mut self, _process: &Process) {}

    /// Whether a return address of a module lies in the loop.
    fn is_loop(&mut self, module: &Module, offset: u64) -> bool;

    /// The functions that a return address of a module lies in, inlined ones apart; none where
    /// nobody knows.
    fn names(&mut self, _module: &Module, _offset: u64) -> Vec<Name> {
        Vec::new()
    }
}

/// Where nobody knows names: Python frames go where the interpreter is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Loops for NoNames {
    fn is_loop(&mut self, _: &Module, _: u64) -> bool {
        false
    }
}

/// Asks about each address of one process once.
pub struct Remembered<'a> {
    asks: &'a mut dyn Loops,
    /// By module id and offset.
    known: FxHashMap<(u32, u64), bool>,
}

impl<'a> Remembered<'a> {
    /// Nothing is known yet.
    pub fn new(asks: &'a mut dyn Loops) -> Remembered<'a> {
        Remembered {
            asks,
            known: FxHashMap::default(),
        }
    }
}

impl Loops for Remembered<'_> {
    fn meet(&mut self, process: &Process) {
        self.asks.meet(process);
    }

    fn is_loop(&mut self, module: &Module, offset: u64) -> bool {
        let asks = &mut self.asks;
        *self
            .known
            .entry((module.id, offset))
            .or_insert_with(|| asks.is_loop(module, offset))
    }

    fn names(&mut self, module: &Module, offset: u64) -> Vec<Name> {
        self.asks.names(module, offset)
    }
}

/// What a native frame is, for this purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The evaluation loop: stands for a run of Python frames.
    Loop,
    /// Another function of the interpreter.
    Inside,
    /// Anything else.
    Outside,
}

/// Puts `python` frames among the `native` ones, all innermost first. The interpreter's own frames
/// stay only where `native_too` asks for them.
pub fn merge(native: &[(Frame, Part)], python: &[Frame], native_too: bool) -> Vec<Frame> {
    let last_of = |part: Part| native.iter().rposition(|(_, own)| *own == part);
    // What no loop is left for (the native part was cut, or its loops have no names) goes to the
    // outermost one, or to the outermost sign of the interpreter.
    let rest_at = last_of(Part::Loop).or(last_of(Part::Inside));
    let mut merged = Vec::with_capacity(native.len() + python.len());
    let mut rest = python;
    for (index, (frame, part)) in native.iter().enumerate() {
        if *part == Part::Loop {
            merged.extend(next_run(&mut rest));
        }
        if Some(index) == rest_at {
            merged.extend(std::mem::take(&mut rest));
        }
        if *part == Part::Outside || native_too {
            merged.push(*frame);
        }
    }
    merged.extend(rest);
    merged
}

/// Frames up to the next marked one.
fn next_run<'a>(rest: &mut &'a [Frame]) -> &'a [Frame] {
    let is_entry = |frame: &Frame| matches!(frame, Frame::Python { entry: true, .. });
    let end = rest
        .iter()
        .position(is_entry)
        .map_or(rest.len(), |at| at + 1);
    let (run, others) = rest.split_at(end);
    *rest = others;
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of words: `c` native code, `i` the interpreter's, `L` its loop.
    fn native(words: &str) -> Vec<(Frame, Part)> {
        let frame = |(at, word): (usize, char)| {
            let part = match word {
                'L' => Part::Loop,
                'i' => Part::Inside,
                _ => Part::Outside,
            };
            let offset = at as u64;
            (
                Frame::Native {
                    module: word as u32,
                    offset,
                },
                part,
            )
        };
        words.chars().enumerate().map(frame).collect()
    }

    /// Lines 1, 2, … in this many runs of these lengths.
    fn python(runs: &[u32]) -> Vec<Frame> {
        let mut line = 0;
        let mut frames = Vec::new();
        for &run in runs {
            for left in (0..run).rev() {
                line += 1;
                frames.push(Frame::Python {
                    code: 1,
                    line,
                    entry: left == 0,
                });
            }
        }
        frames
    }

    fn merged(words: &str, runs: &[u32], native_too: bool) -> String {
        let shown = |frame: Frame| match frame {
            Frame::Python { line, .. } => line.to_string(),
            Frame::Native { module, .. } => char::from_u32(module).unwrap_or('?').to_string(),
            Frame::Raw(_) => "?".to_owned(),
        };
        merge(&native(words), &python(runs), native_too)
            .into_iter()
            .map(shown)
            .collect()
    }

    #[test]
    fn each_run_stands_where_its_loop_is() {
        assert_eq!(merged("ciLicciLiic", &[2, 1], false), "c12cc3c");
        assert_eq!(merged("ciLicciLiic", &[2, 1], true), "ci12Licci3Liic");
        // Each frame its own loop, as up to 3.10.
        assert_eq!(merged("cLiLiLc", &[1, 1, 1], false), "c123c");
        // Nothing but Python.
        assert_eq!(merged("", &[3, 1], false), "1234");
    }

    #[test]
    fn what_has_no_loop_stays_with_the_interpreter() {
        // The native part was cut.
        assert_eq!(merged("cLiL", &[1, 1, 2], false), "c1234");
        // The Python part was cut.
        assert_eq!(merged("cLiLiLc", &[1, 1], false), "c12c");
        // The loop has no name.
        assert_eq!(merged("ciiicic", &[1, 1], false), "cc12c");
        assert_eq!(merged("cc", &[1, 1], false), "cc12");
    }
}
