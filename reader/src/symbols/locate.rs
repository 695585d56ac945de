//! Which files may belong to a module. Only names them; whether one does belong is checked by
//! build id or checksum where it is opened.

use super::SymbolOptions;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vramtrace_format::cold::Module;

/// Knows the directories to look in.
pub(super) struct Locator {
    options: SymbolOptions,
}

impl Locator {
    pub(super) fn new(options: SymbolOptions) -> Locator {
        Locator { options }
    }

    /// Where the module itself may be, most likely first. The second part says whether the file
    /// there must have the recorded build id to be considered at all: a file of the same name in
    /// some directory proves nothing.
    pub(super) fn binaries(&self, module: &Module) -> Vec<(PathBuf, bool)> {
        let path = Path::new(&module.path);
        let mut found = vec![(path.to_path_buf(), false)];
        let mut also = |path: PathBuf| found.push((path, true));
        for directory in &self.options.debug_directories {
            if let Some(id) = by_build_id(directory, &module.build_id, "") {
                also(id);
            }
            also(below(directory, path));
            if let Some(name) = path.file_name() {
                also(directory.join(name));
            }
        }
        for cache in &self.options.debuginfod_caches {
            if let Some(hex) = hex(&module.build_id) {
                also(cache.join(hex).join("executable"));
            }
        }
        found
    }

    /// Where debug files for this build id may be.
    pub(super) fn debug_by_build_id(&self, build_id: &[u8]) -> Vec<PathBuf> {
        let directories = self.options.debug_directories.iter();
        let caches = self.options.debuginfod_caches.iter();
        directories
            .filter_map(|directory| by_build_id(directory, build_id, ".debug"))
            .chain(caches.filter_map(|cache| Some(cache.join(hex(build_id)?).join("debuginfo"))))
            .collect()
    }

    /// Where the debug file that `binary` names may be (as gdb's manual, "Separate Debug Files",
    /// has it).
    pub(super) fn debug_by_name(&self, binary: &Path, name: &[u8]) -> Vec<PathBuf> {
        let name = Path::new(OsStr::from_bytes(name));
        // A name with directories in it, or none, is not a debug link.
        if name.file_name() != Some(name.as_os_str()) {
            return Vec::new();
        }
        let mut found = Vec::new();
        if let Some(directory) = binary.parent() {
            found.push(directory.join(name));
            found.push(directory.join(".debug").join(name));
            for root in &self.options.debug_directories {
                found.push(below(root, directory).join(name));
            }
        }
        for root in &self.options.debug_directories {
            found.push(root.join(name));
        }
        found
    }

    /// Where the file may be that a debug file shares with others (`.gnu_debugaltlink`).
    pub(super) fn shared(&self, debug_file: &Path, name: &[u8], build_id: &[u8]) -> Vec<PathBuf> {
        let name = Path::new(OsStr::from_bytes(name));
        let mut found = vec![debug_file.parent().unwrap_or(Path::new("/")).join(name)];
        found.extend(self.debug_by_build_id(build_id));
        for root in &self.options.debug_directories {
            if let Some(name) = name.file_name() {
                found.push(root.join(".dwz").join(name));
            }
        }
        found
    }
}

/// `DIRECTORY/.build-id/ab/cdef….SUFFIX`.
fn by_build_id(directory: &Path, build_id: &[u8], suffix: &str) -> Option<PathBuf> {
    let hex = hex(build_id)?;
    let (first, rest) = hex
        .split_at_checked(2)
        .filter(|(_, rest)| !rest.is_empty())?;
    Some(
        directory
            .join(".build-id")
            .join(first)
            .join(format!("{rest}{suffix}")),
    )
}

/// A build id as files are named after it; `None` if there is none.
pub(super) fn hex(build_id: &[u8]) -> Option<String> {
    // The GNU linkers' longest is 20 bytes; file names end at 255 letters.
    (!build_id.is_empty() && build_id.len() <= 64)
        .then(|| build_id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `path` as seen in a copy of the target's root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
