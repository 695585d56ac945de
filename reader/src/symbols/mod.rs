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
//! What an archive brought along ([`Archived`]) comes before all of that: it was found out where the
//! files were.
//!
//! - [`archived`]: symbols in an archive
//! - [`bytes`]: a file's content, read or mapped
//! - [`locate`]: which files belong to a module
//! - [`table`]: functions by address, from symbol tables
//! - [`lines`]: functions, inlining and lines, from DWARF
//! - [`demangle`]: names as people write them
//! - [`image`]: all that is known about one module
//! - [`worker`]: the thread and its time limit

mod archived;
mod bytes;
mod demangle;
mod image;
mod lines;
mod locate;
mod table;
mod worker;

pub use archived::{Archived, Bad, write as write_archived};

use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::cold::Module;
use worker::Worker;

/// Addresses in one question: enough that asking costs little, few enough for the time limit.
const AT_ONCE: usize = 256;

/// How to look for symbols.
#[derive(Clone, Debug)]
pub struct SymbolOptions {
    /// Directories with separate debug files, most trusted first; below each may be a
    /// `.build-id/` tree, the tree of the target's root, or just files.
    pub debug_directories: Vec<PathBuf>,
    /// Caches as debuginfod clients keep them (`BUILDID/debuginfo`).
    pub debuginfod_caches: Vec<PathBuf>,
    /// Longest time for one answer, which is about one module, its loading included.
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
    /// What archives brought along, and whose warnings (by module) were said.
    archived: Vec<Arc<Archived>>,
    said: FxHashSet<usize>,
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
            archived: Vec::new(),
            said: FxHashSet::default(),
        }
    }

    /// Takes in what an archive brought along, for all questions that come.
    pub fn meet(&mut self, archived: &Arc<Archived>) {
        if !self
            .archived
            .iter()
            .any(|known| Arc::ptr_eq(known, archived))
        {
            self.archived.push(Arc::clone(archived));
        }
    }

    /// Finds out about many return addresses (as their modules' ELF files number them), which is
    /// faster than to [`resolve`](Symbolizer::resolve) one after the other.
    pub fn look_up<'m>(&mut self, addresses: impl IntoIterator<Item = (&'m Module, u64)>) {
        let mut asked = FxHashSet::default();
        let mut by_module: BTreeMap<usize, (&Module, Vec<u64>)> = BTreeMap::new();
        for (module, offset) in addresses {
            let index = self.index(module);
            let key = (index, offset);
            if !self.known.contains_key(&key) && asked.insert(key) {
                let (_, offsets) = by_module.entry(index).or_insert((module, Vec::new()));
                offsets.push(offset);
            }
        }
        for (index, (module, offsets)) in by_module {
            for offsets in offsets.chunks(AT_ONCE) {
                self.ask(index, module, offsets);
            }
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
        if !self.known.contains_key(&(index, offset)) {
            self.ask(index, module, &[offset]);
        }
        match self.known.get(&(index, offset)) {
            Some(places) if !places.is_empty() => places.iter().map(frame).collect(),
            _ => vec![frame(&Place::default())],
        }
    }

    /// What should be said about symbols: each file that could not be used, once.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// Makes those addresses known that an archive knows; returns the others.
    fn recall(&mut self, index: usize, module: &Module, offsets: &[u64]) -> Vec<u64> {
        let mut left = offsets.to_vec();
        for archived in &self.archived {
            let Some(own) = archived.module(&module.path, &module.build_id) else {
                continue;
            };
            if self.said.insert(index) {
                self.warnings.extend_from_slice(&own.warnings);
            }
            left.retain(|&offset| match archived.places(own, offset) {
                Some(places) => {
                    self.known.insert((index, offset), places);
                    false
                }
                None => true,
            });
        }
        left
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

    /// Makes all of these addresses known, be it that nothing is known about them.
    fn ask(&mut self, index: usize, module: &Module, offsets: &[u64]) {
        let left = self.recall(index, module, offsets);
        if left.is_empty() {
            return;
        }
        let offsets = &left[..];
        let mut places = Vec::new();
        if !self.given_up[index] {
            // The call is the instruction before the return address, which may be in another line,
            // or past the end of a function that never returns.
            let addresses = offsets.iter().map(|offset| offset.saturating_sub(1));
            let answer = self.worker.ask(index, module, addresses.collect());
            places = answer.places;
            self.warnings.extend(answer.warnings);
            if let Some(why) = answer.gave_up {
                self.given_up[index] = true;
                self.warnings.push(format!(
                    "{}: {why}; its functions are not named",
                    module.path
                ));
            }
        }
        let mut places = places.into_iter();
        for &offset in offsets {
            let places = match offset {
                // No call ends there.
                0 => places.next().and(None),
                _ => places.next(),
            };
            self.known
                .insert((index, offset), places.unwrap_or_default());
        }
    }
}
