//! A directory of a test's own.

use std::path::{Path, PathBuf};

/// A fresh directory, gone when the value is; a failing test leaves its directory behind.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory. Its name says nothing: process ids come back, and a test that failed or
    /// was killed may have left a directory behind.
    pub fn new() -> Scratch {
        let made = tempfile::Builder::new()
            .prefix("vramtrace-test-")
            .tempdir()
            .expect("a directory in the temporary directory");
        Scratch(made.keep())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Names of all files in it and below, sorted.
    pub fn files(&self) -> Vec<String> {
        fn below(directory: &Path, prefix: &str, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below(&entry.path(), &format!("{name}/"), names);
                } else {
                    names.push(name);
                }
            }
        }
        let mut names = Vec::new();
        below(&self.0, "", &mut names);
        names.sort();
        names
    }

    /// The traces in it, sorted by name.
    pub fn traces(&self) -> Vec<PathBuf> {
        let is_trace = |name: &String| name.ends_with(".vrt");
        self.files()
            .into_iter()
            .filter(is_trace)
            .map(|name| self.0.join(name))
            .collect()
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;
    use std::sync::Mutex;

    #[test]
    fn what_a_failed_test_left_is_in_nobodys_way() {
        let left = Mutex::new(None);
        std::panic::catch_unwind(|| {
            let scratch = Scratch::new();
            *left.lock().unwrap() = Some(scratch.path().to_owned());
            std::panic::resume_unwind(Box::new("a test fails"));
        })
        .unwrap_err();
        let left = left.into_inner().unwrap().unwrap();
        assert!(left.is_dir());
        let next = Scratch::new();
        assert_ne!(next.path(), left);
        assert_eq!(next.files(), [""; 0]);
        std::fs::remove_dir(left).unwrap();
        let gone = next.path().to_owned();
        drop(next);
        assert!(!gone.exists());
    }
}
