//! Stripped files, with and without debug files elsewhere.

use crate::program::{Workshop, summary};
use std::fs;

const LIBRARY: &str = r#"
static volatile int sink;
__attribute__((noinline)) static void local_work(int value) { sink = value; }
void exported(int value) { local_work(value); sink++; }
__asm__(".text\n.balign 64\n.skip 256, 0x90\n");
"#;

/// Compiles `lib.so`. `false` if there is no compiler.
fn library(shop: &Workshop) -> bool {
    shop.write("lib.c", LIBRARY);
    shop.tool("cc -g -O2 -shared -fPIC -Wl,--build-id -o lib.so lib.c")
}

/// The middle of a function of the library before it is stripped, as a return address.
fn inside(shop: &Workshop, function: &str) -> u64 {
    shop.range("lib.so", function).0 + 2
}

fn build_id(shop: &Workshop) -> String {
    let id = shop.module("lib.so").build_id;
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_debug_file_by_build_id() {
    let shop = Workshop::new();
    if !library(&shop) {
        return;
    }
    let call = inside(&shop, "local_work");
    let hex = build_id(&shop);
    let by_id = format!("debug/.build-id/{}", &hex[..2]);
    fs::create_dir_all(shop.path(&by_id)).unwrap();
    fs::create_dir_all(shop.path(&format!("cache/{hex}"))).unwrap();
    let debug_file = format!("{by_id}/{}.debug", &hex[2..]);
    if !shop.tool(&format!("objcopy --only-keep-debug lib.so {debug_file}")) {
        return;
    }
    shop.tool("strip lib.so");
    let module = shop.module("lib.so");
    let expected = [("local_work".to_owned(), Some(3))];
    assert_eq!(
        summary(&shop.symbolizer(&["debug"]).resolve(&module, call)),
        expected
    );

    // Also where the library itself is not on this machine.
    fs::rename(shop.path("lib.so"), shop.path("gone.so")).unwrap();
    let mut symbols = shop.symbolizer(&["debug"]);
    assert_eq!(summary(&symbols.resolve(&module, call)), expected);
    assert!(symbols.warnings().is_empty());

    // And from the cache of a debuginfod client.
    let cached = shop.path(&format!("cache/{hex}/debuginfo"));
    fs::rename(shop.path(&debug_file), cached).unwrap();
    assert_eq!(
        summary(&shop.symbolizer(&[]).resolve(&module, call)),
        expected
    );
}

#[test]
fn a_debug_file_by_debug_link() {
    for (directory, roots) in [("", &[][..]), (".debug/", &[]), ("root/", &["root"])] {
        for build_id in ["--build-id", "--build-id=none"] {
            let shop = Workshop::new();
            shop.write("lib.c", LIBRARY);
            let build = format!("cc -g -O2 -shared -fPIC -Wl,{build_id} -o lib.so lib.c");
            if !shop.tool(&build) {
                return;
            }
            let call = inside(&shop, "local_work");
            let debug = format!("{directory}lib.so.debug");
            fs::create_dir_all(shop.path(directory)).unwrap();
            if !shop.tool(&format!("objcopy --only-keep-debug lib.so {debug}")) {
                return;
            }
            shop.tool("strip lib.so");
            shop.tool(&format!("objcopy --add-gnu-debuglink={debug} lib.so"));
            let module = shop.module("lib.so");
            let expected = [("local_work".to_owned(), Some(3))];
            let found = summary(&shop.symbolizer(roots).resolve(&module, call));
            assert_eq!(found, expected, "{directory} {build_id}");

            // One that was changed since has another checksum, or another build id.
            shop.write("lib.c", &format!("int moved = 1;\n{LIBRARY}"));
            shop.tool(&build.replace("lib.so", "new.so"));
            shop.tool(&format!("objcopy --only-keep-debug new.so {debug}"));
            let found = summary(&shop.symbolizer(roots).resolve(&module, call));
            assert_ne!(found, expected, "{directory} {build_id}");
            assert_eq!(found[0].1, None);
        }
    }
}

#[test]
fn a_stripped_library_has_its_exported_functions_and_no_wrong_ones() {
    let shop = Workshop::new();
    if !library(&shop) {
        return;
    }
    let (start, end) = shop.range("lib.so", "exported");
    shop.tool("strip lib.so");
    let module = shop.module("lib.so");
    let mut symbols = shop.symbolizer(&[]);
    let mut name = |address| summary(&symbols.resolve(&module, address))[0].0.clone();
    assert_eq!(name(start + 1), "exported");
    assert_eq!(name(end), "exported");
    assert_eq!(name(end + 1), "??");
    assert_eq!(name(end + 200), "??");
    assert_eq!(name(0), "??");
    assert_eq!(name(u64::MAX), "??");
    let frames = symbols.resolve(&module, end + 200);
    assert_eq!((frames.len(), frames[0].offset), (1, end + 200));
    assert_eq!(frames[0].module, module.path);
}

#[test]
fn the_embedded_symbol_table_of_a_stripped_library() {
    let shop = Workshop::new();
    if !library(&shop) {
        return;
    }
    let call = inside(&shop, "local_work");
    if !(shop.tool("objcopy --only-keep-debug lib.so mini")
        && shop.tool("objcopy --strip-debug mini mini")
        && shop.tool("xz -k mini")
        && shop.tool("strip lib.so")
        && shop.tool("objcopy --add-section .gnu_debugdata=mini.xz lib.so"))
    {
        return;
    }
    let frames = shop.symbolizer(&[]).resolve(&shop.module("lib.so"), call);
    assert_eq!(summary(&frames), [("local_work".to_owned(), None)]);
}

#[test]
fn another_version_of_the_file_is_not_used() {
    let shop = Workshop::new();
    if !library(&shop) {
        return;
    }
    let call = inside(&shop, "local_work");
    let recorded = shop.module("lib.so");
    fs::create_dir(shop.path("kept")).unwrap();
    fs::copy(shop.path("lib.so"), shop.path("kept/lib.so")).unwrap();
    shop.write("lib.c", &LIBRARY.replace("local_work", "other_work"));
    shop.tool("cc -g -O2 -shared -fPIC -Wl,--build-id -o lib.so lib.c");

    let mut symbols = shop.symbolizer(&[]);
    for _ in 0..2 {
        assert_eq!(
            summary(&symbols.resolve(&recorded, call)),
            [("??".to_owned(), None)]
        );
        symbols.resolve(&recorded, call + 1);
    }
    let warnings = symbols.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("is not the file that was traced"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains(&build_id(&shop)), "{warnings:?}");

    // A copy of the right one in a debug directory is found by name, and checked by build id.
    let mut symbols = shop.symbolizer(&["kept"]);
    let frames = symbols.resolve(&recorded, call);
    assert_eq!(summary(&frames), [("local_work".to_owned(), Some(3))]);
    assert!(symbols.warnings().is_empty());
}

#[test]
fn a_file_that_is_gone_is_said_once() {
    let shop = Workshop::new();
    if !library(&shop) {
        return;
    }
    let mut module = shop.module("lib.so");
    module.path = "/no/such/lib.so".into();
    let mut symbols = shop.symbolizer(&[]);
    assert_eq!(symbols.resolve(&module, 64).len(), 1);
    assert_eq!(symbols.resolve(&module, 128).len(), 1);
    assert_eq!(symbols.warnings().len(), 1);
    for path in ["[vdso]", "linux-vdso.so.1", ""] {
        module.path = path.into();
        assert_eq!(symbols.resolve(&module, 64).len(), 1);
    }
    assert_eq!(symbols.warnings().len(), 1);
}
