//! Nothing that touches memory is forgotten: every export of every CUDA release is either hooked
//! or on a list with a reason, and every hook is what the lists say. How to add a release:
//! tests/exports/README.md.

use object::{Object, ObjectSymbol};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vramtrace_tests::exports::{classification, list, lists, signatures};
use vramtrace_tests::{artifacts, repository};

/// Names that the built library exports.
fn exports_of(library: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(library).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
    let file = object::File::parse(&*bytes).expect("an ELF file");
    file.dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .collect()
}

/// To be hooked, as the lists say.
fn hooks(list: &str) -> BTreeSet<String> {
    let hook = |(name, hook): (String, bool)| hook.then_some(name);
    classification(list).into_iter().filter_map(hook).collect()
}

fn assert_same(left: &BTreeSet<String>, left_is: &str, right: &BTreeSet<String>, right_is: &str) {
    let only: Vec<_> = left.difference(right).collect();
    assert!(only.is_empty(), "{left_is}, but not {right_is}: {only:?}");
    let only: Vec<_> = right.difference(left).collect();
    assert!(only.is_empty(), "{right_is}, but not {left_is}: {only:?}");
}

#[test]
fn every_export_of_every_release_is_classified_once() {
    let classified = classification("classification.txt");
    let patterns: Vec<String> = list("not-memory.txt")
        .iter()
        .map(|line| {
            let (pattern, reason) = line.split_once('\t').unwrap_or_else(|| panic!("{line}"));
            assert!(!reason.is_empty(), "no reason for {pattern}");
            pattern.to_owned()
        })
        .collect();
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in lists("libcuda-") {
        for name in list(&file) {
            let not_memory = patterns
                .iter()
                .filter(|pattern| matches(pattern, &name))
                .count();
            let memory = usize::from(classified.contains_key(&name));
            if memory + not_memory != 1 {
                wrong.push(format!(
                    "{file}: {name} is in {memory} + {not_memory} places"
                ));
            }
            seen.insert(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in classified.keys() {
        assert!(
            seen.contains(name),
            "{name} is classified and no release exports it"
        );
    }
    for pattern in &patterns {
        assert!(
            seen.iter().any(|name| matches(pattern, name)),
            "{pattern} matches no export"
        );
    }
}

#[test]
fn every_hook_has_a_signature_and_a_version() {
    for (classes, list_of_signatures) in [
        ("classification.txt", "signatures.txt"),
        ("classification-runtime.txt", "signatures-runtime.txt"),
    ] {
        let signed = signatures(list_of_signatures).into_keys().collect();
        assert_same(&hooks(classes), "to be hooked", &signed, list_of_signatures);
    }
    let mut handed_out = BTreeSet::new();
    for line in list("versions.txt") {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_base, version, export, per_thread, _evidence] = fields[..] else {
            panic!("{line}")
        };
        assert!(version.parse::<u32>().is_ok_and(|v| v >= 2000), "{line}");
        handed_out.insert(export.to_owned());
        handed_out.extend((per_thread != "-").then(|| per_thread.to_owned()));
    }
    let hooked = hooks("classification.txt");
    // Exports that no version of cuGetProcAddress hands out need no row.
    let unknown: Vec<_> = handed_out.difference(&hooked).collect();
    assert!(
        unknown.is_empty(),
        "in versions.txt, and not to be hooked: {unknown:?}"
    );
}

/// The shim embeds a copy, for answers with an address that it does not know.
#[test]
fn the_shim_has_the_same_versions() {
    let ours = std::fs::read_to_string(repository().join("tests/exports/versions.txt")).unwrap();
    let shims = std::fs::read_to_string(repository().join("shim/src/link/versions.txt")).unwrap();
    let rows = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    assert_same(
        &rows(&ours),
        "tests/exports",
        &rows(&shims),
        "shim/src/link",
    );
}

#[test]
fn the_library_exports_what_is_to_be_hooked_and_nothing_else() {
    let exports = exports_of(&artifacts().shim);
    let starting = |prefix: &'static str| -> BTreeSet<String> {
        exports
            .iter()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    };
    let runtime = starting("cuda");
    let driver: BTreeSet<String> = starting("cu").difference(&runtime).cloned().collect();
    assert_same(
        &driver,
        "exported",
        &hooks("classification.txt"),
        "to be hooked",
    );
    assert_same(
        &runtime,
        "exported",
        &hooks("classification-runtime.txt"),
        "to be hooked",
    );
    let allowed = [
        "dlsym",
        "dlvsym",
        "dlclose",
        "prctl",
        "vramtrace_mark",
        "InitializeInjection",
        "InitializeInjectionNvtx2",
        "InitializeInjectionNvtxExtension",
    ];
    // Of PyTorch: nobody else has such names.
    let of_torch = [
        "_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE",
        "_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE",
        "_ZN3c1027reportOutOfMemoryToProfilerElllNS_6DeviceE",
        "_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE",
    ];
    for name in of_torch {
        assert!(exports.contains(name), "{name} is not exported");
    }
    for name in &exports {
        let name = name.as_str();
        let known = name.starts_with("cu") || allowed.contains(&name) || of_torch.contains(&name);
        assert!(
            known,
            "the library exports {name}, in front of every other library's"
        );
    }
}

/// A hook as its source declares it.
fn declared_hooks(folder: &str, macro_name: &str) -> BTreeMap<String, Vec<String>> {
    let folder = repository().join("shim/src").join(folder);
    let mut hooks = BTreeMap::new();
    for entry in std::fs::read_dir(&folder)
        .expect("the shim's sources")
        .flatten()
    {
        let path = entry.path();
        let text = std::fs::read_to_string(&path).expect("a source file");
        let start = format!("{macro_name}! {{");
        let mut rest = &text[..];
        while let Some(at) = rest.find(&start) {
            let block = braces(&rest[at + start.len() - 1..]);
            for (name, parameters) in functions(block) {
                let classes = parameters.iter().map(|ty| class_of(ty, &path)).collect();
                assert!(
                    hooks.insert(name.clone(), classes).is_none(),
                    "{name} is hooked twice"
                );
            }
            rest = &rest[at + start.len() + block.len()..];
        }
    }
    hooks
}

/// What stands between the brace that the text begins with and its partner.
fn braces(text: &str) -> &str {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return &text[1..at],
            b'}' => depth -= 1,
            _ => {}
        }
    }
    panic!("unbalanced braces")
}

/// Name and parameter types of each `fn cuName(argument: type, …)`.
fn functions(block: &str) -> Vec<(String, Vec<String>)> {
    let mut functions = Vec::new();
    for piece in block.split("fn cu").skip(1) {
        let (name, rest) = piece.split_once('(').expect("parameters");
        let mut depth = 1;
        let end = rest.bytes().position(|byte| {
            depth += i32::from(byte == b'(') - i32::from(byte == b')');
            depth == 0
        });
        let parameters = &rest[..end.expect("the end of the parameters")];
        let mut types = Vec::new();
        for parameter in split_at_commas(parameters) {
            let (_, ty) = parameter
                .split_once(':')
                .unwrap_or_else(|| panic!("{name}: {parameter}"));
            types.push(ty.trim().to_owned());
        }
        functions.push((format!("cu{name}"), types));
    }
    functions
}

/// Splits at commas outside of all brackets.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'<' | b'[' => depth += 1,
            b')' | b'>' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .collect()
}

/// The class of a Rust type at the ABI edge of a hook.
fn class_of(ty: &str, path: &Path) -> String {
    let class = match ty {
        "u32" | "i32" | "u64" => ty,
        "usize" => "u64",
        "Handle" => "ptr",
        "IpcHandle" if path.ends_with("driver/ipc.rs") => "struct:CUipcMemHandle(64)",
        "IpcHandle" => "struct:cudaIpcMemHandle_t(64)",
        "Extent" => "struct:cudaExtent(24)",
        _ if ty.starts_with("*mut ") || ty.starts_with("*const ") || ty.starts_with("Option<") => {
            "ptr"
        }
        _ => panic!("{}: {ty} has no class yet", path.display()),
    };
    class.to_owned()
}

/// Compares the parameters of all hooks in the shim's source with the lists, whose agreement with
/// cudarc is the business of signatures.rs.
fn hooks_have_the_listed_parameters(folder: &str, macro_name: &str, list: &str) {
    let declared = declared_hooks(folder, macro_name);
    let listed = signatures(list);
    let names = |map: &BTreeMap<String, Vec<String>>| map.keys().cloned().collect();
    assert_same(&names(&declared), "declared", &names(&listed), list);
    for (name, classes) in &declared {
        assert_eq!(
            classes, &listed[name],
            "{name}: declared (left), listed (right)"
        );
    }
}

#[test]
fn driver_hooks_have_the_listed_parameters() {
    hooks_have_the_listed_parameters("driver", "driver_hooks", "signatures.txt");
}

#[test]
fn runtime_hooks_have_the_listed_parameters() {
    hooks_have_the_listed_parameters("runtime", "runtime_hooks", "signatures-runtime.txt");
}

/// The simulated driver would hide a forgotten hook if it lacked the function.
#[test]
fn the_simulated_driver_has_the_usual_memory_functions() {
    let exports = exports_of(&artifacts().driver.join("libcuda.so.1"));
    let listed: BTreeSet<String> = list("libcuda-13.0.txt").into_iter().collect();
    let invented: Vec<_> = exports
        .iter()
        .filter(|name| name.starts_with("cu") && !listed.contains(*name))
        .collect();
    assert!(
        invented.is_empty(),
        "not exported by libcuda 13.0: {invented:?}"
    );
    // Graphics contexts, multicast by other names and the like are not simulated.
    let missing = hooks("classification.txt")
        .intersection(&listed)
        .filter(|name| !exports.contains(*name))
        .count();
    assert!(
        missing < 12,
        "{missing} of the hooked functions are not simulated"
    );
}
