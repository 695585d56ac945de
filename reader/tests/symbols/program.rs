//! Compiled programs, and what is known about them.

use object::{Object, ObjectSymbol};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vramtrace_format::cold::Module;
use vramtrace_reader::symbols::{ResolvedFrame, SymbolOptions, Symbolizer};

/// A directory with sources and what was made of them.
pub struct Workshop {
    dir: TempDir,
}

impl Workshop {
    pub fn new() -> Workshop {
        Workshop {
            dir: TempDir::with_prefix("vramtrace-symbols-").unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs a tool in the directory. `false` if there is no such tool.
    pub fn tool(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let tool = words.next().unwrap();
        let output = Command::new(tool)
            .args(words)
            .current_dir(self.dir.path())
            .output();
        match output {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {said}");
                true
            }
            Err(error) => {
                eprintln!("skipped: {tool}: {error}");
                false
            }
        }
    }

    /// What a trace would say about the file.
    pub fn module(&self, name: &str) -> Module {
        let path = self.path(name);
        let content = fs::read(&path).unwrap();
        let elf = object::File::parse(&*content).unwrap();
        Module {
            id: 1,
            path: path.to_str().unwrap().into(),
            build_id: elf.build_id().unwrap().unwrap_or_default().to_vec(),
            ..Module::default()
        }
    }

    /// Looks nowhere but in the given directories.
    pub fn symbolizer(&self, directories: &[&str]) -> Symbolizer {
        Symbolizer::new(SymbolOptions {
            debug_directories: directories.iter().map(|name| self.path(name)).collect(),
            debuginfod_caches: vec![self.path("cache")],
            ..SymbolOptions::default()
        })
    }

    /// The start and the end of a function.
    pub fn range(&self, name: &str, function: &str) -> (u64, u64) {
        let content = fs::read(self.path(name)).unwrap();
        let elf = object::File::parse(&*content).unwrap();
        let symbol = elf
            .symbols()
            .find(|symbol| symbol.name().is_ok_and(|name| name.contains(function)))
            .unwrap_or_else(|| panic!("no {function} in {name}"));
        (symbol.address(), symbol.address() + symbol.size())
    }

    /// What addr2line says about an address: functions and lines, innermost first.
    pub fn addr2line(&self, name: &str, address: u64) -> Option<Vec<(String, Option<u32>)>> {
        let output = Command::new("addr2line")
            .args(["-f", "-i", "-C", "-e", name, &format!("{address:#x}")])
            .current_dir(self.dir.path())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let line = |place: &str| place.rsplit(':').next()?.split(' ').next()?.parse().ok();
        let pairs = lines.chunks(2);
        Some(
            pairs
                .map(|pair| (pair[0].to_owned(), line(pair[1])))
                .collect(),
        )
    }
}

/// Name and line of each frame.
pub fn summary(frames: &[ResolvedFrame]) -> Vec<(String, Option<u32>)> {
    let name = |frame: &ResolvedFrame| frame.function.clone().unwrap_or_else(|| "??".into());
    frames
        .iter()
        .map(|frame| (name(frame), frame.line))
        .collect()
}

/// The number, from 1, of the line with a text.
pub fn line_of(source: &str, text: &str) -> u32 {
    let at = source.lines().position(|line| line.contains(text));
    at.unwrap_or_else(|| panic!("no `{text}`")) as u32 + 1
}

pub fn is_file(frame: &ResolvedFrame, name: &str) -> bool {
    let file = frame.file.as_deref().map(Path::new);
    file.is_some_and(|file| file.ends_with(name))
}
