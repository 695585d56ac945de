//! Stacks as people read them: functions and source lines instead of addresses.

use crate::model::{Loops, Name, Process, VisibleStack};
use crate::symbols::{SymbolOptions, Symbolizer};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use vramtrace_format::cold::Module;
use vramtrace_format::stacks::Frame;

/// One frame of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct ShownFrame {
    /// `native` or `python`.
    pub language: &'static str,
    /// Function, if known.
    pub function: Option<Arc<str>>,
    /// Source file, if known.
    pub file: Option<Arc<str>>,
    /// Line in it, if known.
    pub line: Option<u32>,
    /// Path of its program or library, if it has one.
    pub module: Option<Arc<str>>,
    /// Return address as the module's ELF file numbers it; the address itself if it has none.
    pub offset: Option<u64>,
}

/// Resolves frames, each once.
pub struct Frames {
    symbolizer: Symbolizer,
    known: FxHashMap<(usize, u32, u64), Vec<ShownFrame>>,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            symbolizer: Symbolizer::new(SymbolOptions::default()),
            known: FxHashMap::default(),
        }
    }
}

impl Frames {
    /// Finds out about all frames of these stacks, each with its process, which is faster than to
    /// ask [`of`](Frames::of) for one after the other.
    pub fn look_up<'a>(
        &mut self,
        stacks: impl IntoIterator<Item = (&'a Process, &'a VisibleStack)>,
    ) {
        let stacks: Vec<_> = stacks.into_iter().collect();
        for (process, _) in &stacks {
            self.meet(process);
        }
        let native = |(process, stack): (&'a Process, &'a VisibleStack)| {
            stack.frames.iter().filter_map(|frame| match frame {
                Frame::Native { module, offset } => Some((process.modules.get(module)?, *offset)),
                _ => None,
            })
        };
        self.symbolizer.look_up(stacks.into_iter().flat_map(native));
    }

    /// Files whose symbols could not be had so far; sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.symbolizer.warnings()
    }

    /// The frames of a stack of the process with this id, innermost first, inlined ones apart.
    ///
    /// A statically linked CUDA runtime has no module of its own; its frames above the call of
    /// `api` are known by their names and left out.
    pub fn of(
        &mut self,
        id: usize,
        process: &Process,
        stack: &VisibleStack,
        api: Option<&str>,
    ) -> Vec<ShownFrame> {
        self.meet(process);
        let mut shown = Vec::new();
        for &frame in &stack.frames {
            match frame {
                Frame::Native { module, offset } => {
                    shown.extend_from_slice(self.native(id, process, module, offset));
                }
                Frame::Raw(address) => shown.push(ShownFrame {
                    language: "native",
                    offset: Some(address),
                    ..ShownFrame::default()
                }),
                Frame::Python { code, line, .. } => shown.push(python(process, code, line)),
            }
        }
        let inner = shown
            .iter()
            .take_while(|frame| is_static_runtime(frame, api))
            .count();
        if inner < shown.len() {
            shown.drain(..inner);
        }
        shown
    }

    fn native(&mut self, id: usize, process: &Process, module: u32, offset: u64) -> &[ShownFrame] {
        let symbolizer = &mut self.symbolizer;
        self.known.entry((id, module, offset)).or_insert_with(|| {
            let Some(module) = process.modules.get(&module) else {
                return vec![ShownFrame {
                    language: "native",
                    module: Some(format!("module {module}").into()),
                    offset: Some(offset),
                    ..ShownFrame::default()
                }];
            };
            symbolizer
                .resolve(module, offset)
                .into_iter()
                .map(|frame| ShownFrame {
                    language: "native",
                    function: frame.function.map(Arc::from),
                    file: frame.file.map(Arc::from),
                    line: frame.line,
                    module: Some(frame.module.into()),
                    offset: Some(frame.offset),
                })
                .collect()
        })
    }
}

impl Loops for Frames {
    fn meet(&mut self, process: &Process) {
        if let Some(archived) = &process.symbols {
            self.symbolizer.meet(archived);
        }
    }

    /// CPython's loop is one function, whichever way it is built; where it was built as many small
    /// ones that jump to each other (from 3.14), by their common prefix.
    fn is_loop(&mut self, module: &Module, offset: u64) -> bool {
        let frames = self.symbolizer.resolve(module, offset);
        frames.iter().any(|frame| {
            let function = frame.function.as_deref().unwrap_or_default();
            function.starts_with("_PyEval_EvalFrameDefault") || function.starts_with("_TAIL_CALL_")
        })
    }

    fn names(&mut self, module: &Module, offset: u64) -> Vec<Name> {
        let frames = self.symbolizer.resolve(module, offset).into_iter();
        frames
            .map(|frame| Name {
                function: frame.function,
                file: frame.file,
            })
            .collect()
    }
}

fn python(process: &Process, code: u32, line: u32) -> ShownFrame {
    let known = process.python_code(code);
    ShownFrame {
        language: "python",
        function: Some(known.map_or_else(
            || format!("Python function {code}").into(),
            |known| known.function.as_str().into(),
        )),
        file: known.map(|known| known.file.as_str().into()),
        line: (line != 0).then_some(line),
        ..ShownFrame::default()
    }
}

/// How many frames, from the innermost, are the program's own: what calls `main`, or a thread's
/// function, says nothing about the program.
pub fn up_to_main(stack: &[ShownFrame]) -> usize {
    fn name(frame: &ShownFrame) -> &str {
        match frame.language {
            // A function `main` of a script is not the one that starts the program.
            "python" => "",
            _ => frame.function.as_deref().unwrap_or_default(),
        }
    }
    let is = |frame: &ShownFrame, names: &[&str]| {
        let function = name(frame);
        names.contains(&function.split('(').next().unwrap_or(function))
    };
    let rust = |frame: &ShownFrame| name(frame).contains("__rust_begin_short_backtrace");
    let call_once =
        |frame: &ShownFrame| name(frame).starts_with("core::ops::function::FnOnce::call_once");
    let end = if let Some(begin) = stack.iter().position(rust) {
        begin - usize::from(begin > 0 && call_once(&stack[begin - 1]))
    } else if let Some(main) = stack.iter().rposition(|frame| is(frame, &["main"])) {
        main + 1
    } else {
        // Of a program whose main is the interpreter's, hidden, what calls that is left.
        let starts = [
            "start_thread",
            "clone",
            "clone3",
            "__clone",
            "__clone3",
            "__libc_start_call_main",
            "__libc_start_main",
        ];
        let start = stack.iter().position(|frame| is(frame, &starts));
        start.unwrap_or(stack.len())
    };
    if end == 0 { stack.len() } else { end }
}

fn is_static_runtime(frame: &ShownFrame, api: Option<&str>) -> bool {
    let Some(function) = frame.function.as_deref() else {
        return false;
    };
    if frame.language == "python" {
        return false;
    }
    let bare = function.split(['(', '<']).next().unwrap_or(function);
    ["cudart::", "__cudart", "libcudart_static_"]
        .iter()
        .any(|prefix| bare.starts_with(prefix))
        || api.is_some_and(|api| !api.is_empty() && bare == api)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(functions: &[&str]) -> Vec<ShownFrame> {
        let frame = |function: &&str| ShownFrame {
            function: Some((*function).into()),
            ..ShownFrame::default()
        };
        functions.iter().map(frame).collect()
    }

    #[test]
    fn what_calls_main_is_not_the_programs() {
        for (functions, own) in [
            (&["f", "main", "__libc_start_main", "_start"][..], 2),
            (&["f", "worker", "start_thread", "clone3"], 2),
            (&["f", "g"], 2),
            (&["start_thread"], 1),
            (&["f", "__libc_start_call_main", "_start"], 1),
            (
                &[
                    "f",
                    "app::main",
                    "core::ops::function::FnOnce::call_once",
                    "std::sys::backtrace::__rust_begin_short_backtrace",
                    "main",
                ],
                2,
            ),
            (&[], 0),
        ] {
            assert_eq!(up_to_main(&stack(functions)), own, "{functions:?}");
        }
    }

    #[test]
    fn a_script_may_call_its_functions_as_it_likes() {
        let mut frames = stack(&["cudaMalloc", "main", "<module>"]);
        for frame in &mut frames {
            frame.language = "python";
        }
        assert_eq!(up_to_main(&frames), 3);
        assert!(!is_static_runtime(&frames[0], Some("cudaMalloc")));
    }

    #[test]
    fn a_static_runtime_is_known_by_its_names() {
        let frames = stack(&["cudart::contextState::malloc(void*)", "cudaMalloc", "main"]);
        let hidden = |frame: &ShownFrame| is_static_runtime(frame, Some("cudaMalloc"));
        assert_eq!(
            frames.iter().map(hidden).collect::<Vec<_>>(),
            [true, true, false]
        );
    }
}
