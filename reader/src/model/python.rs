//! The Python of a process: which, whether its stacks are recorded, and its functions.

use super::Process;
use vramtrace_format::cold::{self, stacks_of};

/// Whether the stacks of a process's Python are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonStacks {
    /// Its version; empty where the trace does not say.
    pub version: String,
    /// Whether they are.
    pub recorded: bool,
    /// Why not, half a sentence.
    pub why: String,
}

impl PythonStacks {
    /// What reports say.
    pub fn line(&self) -> String {
        let version = [" ", &self.version].concat();
        let version = version.trim_end();
        if self.recorded {
            format!("Python{version}: its stacks are recorded")
        } else {
            format!("Python{version}: its stacks are not recorded: {}", self.why)
        }
    }
}

impl Process {
    /// Whether a Python interpreter runs in the process.
    pub fn has_interpreter(&self) -> bool {
        self.interpreter.is_some() || self.notes.iter().any(|note| note.code == "python")
    }

    /// Notes that are worth a line: that there is an interpreter is said by
    /// [`Process::python_stacks`].
    pub fn remarks(&self) -> impl Iterator<Item = &cold::Note> {
        self.notes.iter().filter(|note| note.code != "python")
    }

    /// Which Python runs in the process, and whether its stacks are recorded; `None` without one.
    pub fn python_stacks(&self) -> Option<PythonStacks> {
        let Some(interpreter) = &self.interpreter else {
            return self.has_interpreter().then(|| PythonStacks {
                version: String::new(),
                recorded: false,
                why: "the vramtrace that wrote this trace could not".to_owned(),
            });
        };
        let setting = "VRAMTRACE_STACKS=";
        let settings = self.config.settings.iter();
        let wish = settings
            .filter_map(|entry| entry.strip_prefix(setting))
            .next_back();
        let why = match (wish, interpreter.stacks) {
            (Some(wish @ ("native" | "off")), _) => format!("{setting}{wish}"),
            (_, stacks_of::RECORDED) => String::new(),
            (_, stacks_of::NOT_SEEN) => "no Python code has allocated so far".to_owned(),
            _ => interpreter.reason.clone(),
        };
        Some(PythonStacks {
            version: interpreter.version.clone(),
            recorded: why.is_empty(),
            why,
        })
    }

    /// A function written in Python.
    pub fn python_code(&self, id: u32) -> Option<&cold::PythonCode> {
        self.python.get(&id)
    }

    /// Whether a function is the program's own: not of an installed package, the standard library, or
    /// what these compile at run time (`<frozen …>`, `<string>`).
    pub fn is_own_code(&self, id: u32) -> bool {
        self.python_code(id)
            .is_some_and(|code| is_own_file(&code.file))
    }

    /// How a Python line is called.
    pub fn python_name(&self, code: u32, line: u32) -> String {
        match self.python_code(code) {
            Some(code) => format!("{} ({}:{line})", code.function, code.file),
            None => format!("Python function {code}, line {line}"),
        }
    }
}

/// Whether a file of Python code is the program's own; see [`Process::is_own_code`].
pub fn is_own_file(file: &str) -> bool {
    const FOREIGN: [&str; 3] = ["/site-packages/", "/dist-packages/", "/lib/python"];
    !file.starts_with('<') && !FOREIGN.iter().any(|part| file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::is_own_file;

    #[test]
    fn own_files_are_told_from_packages() {
        for (file, own) in [
            ("/home/me/train.py", true),
            ("train.py", true),
            (
                "/opt/venv/lib/python3.12/site-packages/torch/nn/functional.py",
                false,
            ),
            ("/usr/lib/python3/dist-packages/numpy/core.py", false),
            ("/usr/lib/python3.12/runpy.py", false),
            ("<frozen importlib._bootstrap>", false),
            ("<string>", false),
        ] {
            assert_eq!(is_own_file(file), own, "{file}");
        }
    }
}
