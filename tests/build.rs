//! Turns the signature lists into code, so that the compiler itself reads cudarc's declarations
//! (tests/signatures.rs).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

fn main() {
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    for (list, code) in [
        ("signatures.txt", "driver.rs"),
        ("signatures-runtime.txt", "runtime.rs"),
    ] {
        let list = format!("exports/{list}");
        println!("cargo:rerun-if-changed={list}");
        let text = std::fs::read_to_string(&list).expect(&list);
        std::fs::write(Path::new(&out).join(code), generate(&text)).expect(code);
    }
}

/// A function that lists each signature with what cudarc declares. A name that cudarc does not
/// declare is not in the inner block's import and so is found in the outer one's.
fn generate(list: &str) -> String {
    let mut stubs = BTreeMap::new();
    let mut rows = String::new();
    for line in list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let compact = line.split('\t').next().unwrap_or(line);
        let (export, parameters) = compact.split_once('(').expect(line);
        // cudarc declares no per-thread exports; they have the parameters of their base.
        let base = export.strip_suffix("_ptsz").unwrap_or(export);
        let count = parameters
            .trim_end_matches(')')
            .split(',')
            .filter(|p| !p.trim().is_empty())
            .count();
        let any = vec!["_"; count].join(", ");
        let _ = writeln!(
            rows,
            "({compact:?}, classes({base} as unsafe fn({any}) -> _)),"
        );
        stubs.insert(base, vec!["_: Undeclared"; count].join(", "));
    }
    let mut code = String::from("mod undeclared {\nuse super::super::Undeclared;\n");
    for (name, parameters) in stubs {
        let _ = writeln!(
            code,
            "pub unsafe fn {name}({parameters}) -> Undeclared {{ Undeclared }}"
        );
    }
    let _ = write!(
        code,
        "}}\npub fn all() -> Vec<Declared> {{\nuse undeclared::*;\n{{\nuse self::sys::*;\nvec![\n{rows}]\n}}\n}}\n"
    );
    code
}
