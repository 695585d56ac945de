//! From a module and an address in it to functions and source lines.
//!
//! In: a module as its trace recorded it (path, build id) and a return address as the module's ELF
//! file numbers it. Out: at least one frame, the innermost inlined function first; where nothing
//! is known, the module and the address. All of it offline: the file itself, separate debug files
//! (by build id, debug link, or a debuginfod cache), the symbol tables.
//!
//! A file whose build id is not the recorded one is never used: wrong names are worse than none.
//! Files are not trusted either: parsing happens on a thread of its own under a time limit, and
//! what goes wrong there costs the names of one module, never the report.
//!
//! - [`bytes`]: a file's content, read or mapped
//! - [`locate`]: which files belong to a module
//! - [`table`]: functions by address, from symbol tables
//! - [`lines`]: functions, inlining and lines, from DWARF
//! - [`demangle`]: names as people write them
//! - [`image`]: all that is known about one module
//! - [`worker`]: the thread and its time limit

mod bytes;
mod demangle;
mod image;
mod lines;
mod locate;
mod table;
mod worker;

use rustc_hash::FxHashMap;
use std::path::PathBuf;
use std::time::Duration;
use vramtrace_format::cold::Module;
use worker::{Answer, Worker};

/// How to look for symbols.
#[derive(Clone, Debug)]
pub struct SymbolOptions {
    /// Directories with separate debug files, most trusted first; below each may be a
    /// `.build-id/` tree, the tree of the target's root, or just files.
    pub debug_directories: Vec<PathBuf>,
    /// Caches as debuginfod clients keep them (`BUILDID/debuginfo`).
    pub debuginfod_caches: Vec<PathBuf>,
    /// Longest time for one answer, loading the module included.
    pub time_limit: Duration,
}

impl Default for SymbolOptions {
    /// `$VRAMTRACE_DEBUG_PATH`, `/usr/lib/debug`, and the debuginfod cache of this user.
    fn default() -> SymbolOptions {
        let mut debug_directories: Vec<PathBuf> = std::env::var_os("VRAMTRACE_DEBUG_PATH")
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default();
        debug_directories.retain(|path| !path.as_os_str().is_empty());
        debug_directories.push("/usr/lib/debug".into());
        let cache = std::env::var_os("DEBUGINFOD_CACHE_PATH").map(PathBuf::from);
        let home = |name: &str, below: &str| {
            std::env::var_os(name).map(|path| PathBuf::from(path).join(below))
        };
        SymbolOptions {
            debug_directories,
            debuginfod_caches: [
                cache,
                home("XDG_CACHE_HOME", "debuginfod_client"),
                home("HOME", ".cache/debuginfod_client"),
                home("HOME", ".debuginfod_client_cache"),
            ]
            .into_iter()
            .flatten()
            .collect(),
            time_limit: Duration::from_secs(30),
        }
    }
}

/// What a function was written in, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// Anything compiled.
    Native,
    /// Python source.
    Python,
}

/// One frame, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolvedFrame {
    /// Demangled function name.
    pub function: Option<String>,
    /// Source file, as the compiler recorded it.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
    /// Path of the module.
    pub module: String,
    /// Return address as the module's ELF file numbers it.
    pub offset: u64,
    /// Language.
    pub language: Language,
}

/// A function and a place in it: what a module's files say about an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

/// Modules are the same if path and build id are; ids and addresses differ between processes.
type Key = (String, Vec<u8>);

/// Resolves addresses, and remembers what it found.
#[derive(Debug)]
pub struct Symbolizer {
    worker: Worker,
    modules: FxHashMap<Key, usize>,
    /// By module (an index) and return address.
    known: FxHashMap<(usize, u64), Vec<Place>>,
    /// Modules that cost too much time or crashed the parser.
    given_up: Vec<bool>,
    warnings: Vec<String>,
}

impl Symbolizer {
    /// A symbolizer. Costs nothing until it is asked.
    pub fn new(options: SymbolOptions) -> Symbolizer {
        Symbolizer {
            worker: Worker::new(options),
            modules: FxHashMap::default(),
            known: FxHashMap::default(),
            given_up: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Frames at a return address (as the module's ELF file numbers it), innermost inlined
    /// function first; at least one.
    pub fn resolve(&mut self, module: &Module, offset: u64) -> Vec<ResolvedFrame> {
        let frame = |place: &Place| ResolvedFrame {
            function: place.function.clone(),
            file: place.file.clone(),
            line: place.line,
            module: module.path.clone(),
            offset,
            language: Language::Native,
        };
        let index = self.index(module);
        if let Some(places) = self.known.get(&(index, offset)) {
            return places.iter().map(frame).collect();
        }
        let mut places = self.ask(index, module, offset);
        if places.is_empty() {
            places.push(Place::default());
        }
        let frames = places.iter().map(frame).collect();
        self.known.insert((index, offset), places);
        frames
    }

    /// What should be said about symbols: each file that could not be used, once.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn index(&mut self, module: &Module) -> usize {
        let key = (module.path.clone(), module.build_id.clone());
        let next = self.modules.len();
        let index = *self.modules.entry(key).or_insert(next);
        if index == next {
            self.given_up.push(false);
        }
        index
    }

    fn ask(&mut self, index: usize, module: &Module, offset: u64) -> Vec<Place> {
        // The call is the instruction before the return address, which may be in another line, or
        // past the end of a function that never returns.
        let Some(address) = offset.checked_sub(1) else {
            return Vec::new();
        };
        if self.given_up[index] {
            return Vec::new();
        }
        match self.worker.ask(index, module, address) {
            Answer::Places(places, warnings) => {
                self.warnings.extend(warnings);
                places
            }
            Answer::GaveUp(why) => {
                self.given_up[index] = true;
                self.warnings.push(format!(
                    "{}: {why}; its functions are not named",
                    module.path
                ));
                Vec::new()
            }
        }
    }
}
