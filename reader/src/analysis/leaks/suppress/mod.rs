//! Leaks that are known and accepted: patterns that a function, file or module of any frame of the
//! stack matches, or the function of CUDA that was called.

mod builtin;
mod pattern;

pub use pattern::Pattern;

use crate::analysis::Sum;
use crate::model::{Loops, Process};
use builtin::BUILTIN;
use rustc_hash::FxHashMap;
use std::fmt;
use vramtrace_format::stacks::Frame;

/// What a file of suppressions may hold.
pub const ACCEPTED: &str = "accepted are lines of the form leak:PATTERN, comments that begin with \
                            #, and empty lines";

/// A pattern and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suppression {
    pattern: Pattern,
    builtin: bool,
    /// Parts of file names of modules; empty: any.
    only_in: &'static [&'static str],
}

/// Patterns; of several that match, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressions {
    list: Vec<Suppression>,
}

/// A line that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// From 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// What is wrong with it, half a sentence.
    pub why: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Malformed { line, text, why } = self;
        write!(f, "line {line}: `{text}`: {why}; {ACCEPTED}")
    }
}

/// What a pattern suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The pattern, without `leak:`.
    pub pattern: String,
    /// Whether it is one of the builtin list.
    pub builtin: bool,
    /// How much.
    pub sum: Sum,
}

impl Suppressions {
    /// Adds those of a file in LeakSanitizer's format.
    pub fn add(&mut self, file: &str) -> Result<(), Malformed> {
        for (index, text) in file.lines().map(str::trim).enumerate() {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let pattern = match text.strip_prefix("leak:") {
                Some(pattern) => Pattern::parse(pattern),
                None => Err("not a suppression of leaks"),
            };
            let malformed = |why| Malformed {
                line: index + 1,
                text: text.to_owned(),
                why,
            };
            self.list.push(Suppression {
                pattern: pattern.map_err(malformed)?,
                builtin: false,
                only_in: &[],
            });
        }
        Ok(())
    }

    /// Adds the builtin list.
    pub fn add_builtin(&mut self) {
        let known = BUILTIN.iter().filter_map(|entry| {
            Some(Suppression {
                pattern: Pattern::parse(entry.pattern).ok()?,
                builtin: true,
                only_in: entry.only_in,
            })
        });
        self.list.extend(known);
    }

    /// The builtin list in LeakSanitizer's format, each with its reason.
    pub fn builtin_file() -> String {
        let mut file = String::new();
        for entry in BUILTIN {
            let words = entry.only_in.join(", ");
            let why = entry.why.iter().map(|line| format!("# {line}\n"));
            file.extend(why);
            file.push_str(&format!(
                "# Looked for in libraries with one of these in their file names: {words}\n\
                 leak:{}\n\n",
                entry.pattern
            ));
        }
        file.truncate(file.trim_end().len());
        file + "\n"
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Numbers of those that are looked for in a module (`None`: anything that has no module).
    fn for_module(&self, path: Option<&str>) -> impl Iterator<Item = (usize, &Pattern)> {
        let name = path.map(|path| path.rsplit('/').next().unwrap_or(path));
        let wanted = move |own: &&Suppression| {
            own.only_in.is_empty()
                || name.is_some_and(|name| own.only_in.iter().any(|part| name.contains(part)))
        };
        let list = self.list.iter().enumerate();
        list.filter(move |(_, own)| wanted(own))
            .map(|(index, own)| (index, &own.pattern))
    }
}

/// Decides about the allocations of one process, about each stack and each frame once.
pub(super) struct Judge<'a> {
    process: &'a Process,
    suppressions: &'a Suppressions,
    by_stack: FxHashMap<(u32, u16), Option<usize>>,
    by_frame: FxHashMap<(u32, u64), Option<usize>>,
    sums: Vec<Sum>,
}

impl<'a> Judge<'a> {
    pub fn new(process: &'a Process, suppressions: &'a Suppressions) -> Judge<'a> {
        Judge {
            process,
            suppressions,
            by_stack: FxHashMap::default(),
            by_frame: FxHashMap::default(),
            sums: vec![Sum::default(); suppressions.list.len()],
        }
    }

    /// Whether allocations with this stack and of this function are suppressed; if so they are
    /// counted here.
    pub fn takes(&mut self, stack: u32, api: u16, held: Sum, names: &mut dyn Loops) -> bool {
        if self.suppressions.is_empty() {
            return false;
        }
        let first = match self.by_stack.get(&(stack, api)) {
            Some(&first) => first,
            None => {
                let first = self.first_of(stack, api, names);
                self.by_stack.insert((stack, api), first);
                first
            }
        };
        if let Some(sum) = first.and_then(|first| self.sums.get_mut(first)) {
            sum.merge(held);
        }
        first.is_some()
    }

    /// What was suppressed, by which.
    pub fn finish(self) -> Vec<Suppressed> {
        let used = self.suppressions.list.iter().zip(self.sums);
        used.filter(|(_, sum)| sum.count > 0)
            .map(|(own, sum)| Suppressed {
                pattern: own.pattern.text().to_owned(),
                builtin: own.builtin,
                sum,
            })
            .collect()
    }

    fn first_of(&mut self, stack: u32, api: u16, names: &mut dyn Loops) -> Option<usize> {
        let process = self.process;
        names.meet(process);
        let called = self.first_that(None, &[process.api(api)]);
        let frames = process.stored(stack).into_iter();
        let of_frames = frames.filter_map(|frame| match frame {
            Frame::Native { module, offset } => self.of_native(module, offset, names),
            Frame::Python { code, .. } => {
                let code = process.python_code(code)?;
                self.first_that(None, &[Some(&code.function), Some(&code.file)])
            }
            Frame::Raw(_) => None,
        });
        of_frames.min().into_iter().chain(called).min()
    }

    fn of_native(&mut self, module: u32, offset: u64, names: &mut dyn Loops) -> Option<usize> {
        if let Some(&known) = self.by_frame.get(&(module, offset)) {
            return known;
        }
        let described = self.process.modules.get(&module)?;
        let path = Some(described.path.as_str());
        let mut first = self.first_that(path, &[path]);
        // Names are dear: they are asked for where a pattern is left that they could match.
        if self.suppressions.for_module(path).next().is_some() && first != Some(0) {
            for name in names.names(described, offset) {
                let words = [name.function.as_deref(), name.file.as_deref()];
                let own = self.first_that(path, &words);
                first = first.into_iter().chain(own).min();
            }
        }
        self.by_frame.insert((module, offset), first);
        first
    }

    fn first_that(&self, module: Option<&str>, words: &[Option<&str>]) -> Option<usize> {
        let mut patterns = self.suppressions.for_module(module);
        let matches = |pattern: &Pattern| words.iter().flatten().any(|word| pattern.matches(word));
        patterns
            .find(|(_, pattern)| matches(pattern))
            .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_list_is_a_file_that_is_accepted() {
        let mut builtin = Suppressions::default();
        builtin.add_builtin();
        let mut read = Suppressions::default();
        read.add(&Suppressions::builtin_file()).unwrap();
        let patterns = |of: &Suppressions| -> Vec<String> {
            let list = of.list.iter();
            list.map(|own| own.pattern.text().to_owned()).collect()
        };
        assert_eq!(patterns(&builtin), patterns(&read));
        assert_eq!(builtin.list.len(), BUILTIN.len());
    }

    #[test]
    fn the_builtin_list_knows_names_as_they_are_demangled() {
        let mut builtin = Suppressions::default();
        builtin.add_builtin();
        let first = |module: &str, function: &str| {
            let mut patterns = builtin.for_module(Some(module));
            patterns.find(|(_, pattern)| pattern.matches(function))
        };
        for (module, function, known) in [
            (
                "/x/libtorch_cuda.so",
                "at::cuda::getCurrentCUDABlasHandle()",
                true,
            ),
            ("/x/app", "at::cuda::getCurrentCUDABlasHandle()", false),
            ("/x/libtorch_cuda.so", "at::native::empty_cuda(long)", false),
            (
                "/x/libtensorflow_framework.so.2",
                "tsl::BFCAllocator::Extend(unsigned long, unsigned long)",
                true,
            ),
        ] {
            assert_eq!(first(module, function).is_some(), known, "{function}");
        }
    }

    #[test]
    fn malformed_lines_are_named() {
        let mut read = Suppressions::default();
        let malformed = read.add("# fine\n\nleak:a\n  race:b\n").unwrap_err();
        assert_eq!((malformed.line, &*malformed.text), (4, "race:b"));
        assert!(read.add("leak:").is_err() && read.add("leak:a$b").is_err());
        assert_eq!(read.add("\r\n  leak:a b \r\n"), Ok(()));
        assert!(read.list.last().unwrap().pattern.matches("a b"));
    }
}
