//! Interpreters to test with.

use std::path::PathBuf;

/// One interpreter of each minor version that there is a layout for, among those of pyenv and on
/// PATH. What is missing is said.
pub fn interpreters() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let mut found = Vec::new();
    for minor in super::layout::OLDEST..=super::layout::NEWEST {
        let name = format!("python3.{minor}");
        let of_pyenv = std::fs::read_dir(home.join(".pyenv/versions"));
        let of_pyenv = of_pyenv
            .into_iter()
            .flatten()
            .flatten()
            .map(|version| version.path().join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).filter(|place| !place.ends_with("shims"));
        let file = of_pyenv
            .chain(on_path)
            .map(|place| place.join(&name))
            .find(|file| file.is_file());
        match file {
            Some(file) => found.push(file),
            None => eprintln!("SKIPPED Python 3.{minor}: it is not installed"),
        }
    }
    found
}
