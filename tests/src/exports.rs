//! The lists of tests/exports: what libcuda and libcudart export, and what is to be hooked.

use crate::artifacts::repository;
use std::collections::BTreeMap;

/// Lines of a list, without comments.
pub fn list(name: &str) -> Vec<String> {
    let path = repository().join("tests/exports").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let meant = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines().filter(meant).map(str::to_owned).collect()
}

/// Names of the lists of exports whose file name begins like this.
pub fn lists(prefix: &str) -> Vec<String> {
    let folder = repository().join("tests/exports");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{prefix}");
    names
}

/// Each classified export, and whether it is to be hooked.
pub fn classification(name: &str) -> BTreeMap<String, bool> {
    let mut classified = BTreeMap::new();
    for line in list(name) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [export, verdict, _group, reason] = fields[..] else {
            panic!("{name}: {line}")
        };
        assert!(!reason.is_empty(), "{name}: no reason for {export}");
        let hook = match verdict {
            "hook" => true,
            "not" => false,
            _ => panic!("{name}: {line}"),
        };
        assert!(
            classified.insert(export.to_owned(), hook).is_none(),
            "{name}: {export} twice"
        );
    }
    classified
}

/// Compact signatures by name: the class of each parameter.
pub fn signatures(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut signatures = BTreeMap::new();
    for line in list(name) {
        let compact = line.split('\t').next().unwrap_or(&line).to_owned();
        let (export, classes) = signature(&compact);
        assert!(
            signatures.insert(export, classes).is_none(),
            "{name}: {compact} twice"
        );
    }
    signatures
}

/// Name and parameter classes of `name(class, class)`.
pub fn signature(compact: &str) -> (String, Vec<String>) {
    let (export, rest) = compact
        .split_once('(')
        .unwrap_or_else(|| panic!("{compact}"));
    let inner = rest
        .strip_suffix(')')
        .unwrap_or_else(|| panic!("{compact}"));
    let classes = inner
        .split(", ")
        .filter(|class| !class.is_empty())
        .map(str::to_owned)
        .collect();
    (export.to_owned(), classes)
}
