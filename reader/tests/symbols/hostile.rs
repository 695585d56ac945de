//! Damaged files: an answer, in bounded time.

use crate::program::Workshop;
use proptest::prelude::*;
use std::fs;
use std::time::Duration;
use vramtrace_reader::symbols::{SymbolOptions, Symbolizer};

const PROGRAM: &str = r#"
static volatile int sink;
static inline __attribute__((always_inline)) void inner(int value) { sink = value; }
__attribute__((noinline)) void outer(int value) { inner(value); inner(value + 1); }
int main(int argc, char **argv) { outer(argc); return 0; }
"#;

fn program() -> Option<(Workshop, Vec<u8>)> {
    let shop = Workshop::new();
    shop.write("program.c", PROGRAM);
    // No build id: what is damaged must still be taken for the right file.
    if !shop.tool("cc -g -O2 -gz=zlib -Wl,--build-id=none -o program program.c") {
        return None;
    }
    let content = fs::read(shop.path("program")).unwrap();
    Some((shop, content))
}

#[test]
fn damaged_files_give_an_answer() {
    let Some((shop, content)) = program() else {
        return;
    };
    let (start, end) = shop.range("program", "outer");
    let module = shop.module("program");
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(damage, cut), |(damage, cut)| {
            let mut content = content.clone();
            for (at, byte) in damage {
                let at = at.index(content.len());
                content[at] = byte;
            }
            if let Some(cut) = cut {
                content.truncate(cut.index(content.len()));
            }
            fs::write(shop.path("program"), &content).unwrap();
            let mut symbols = shop.symbolizer(&[]);
            for address in [start + 1, start + 5, end, 0, 1, u64::MAX] {
                prop_assert!(!symbols.resolve(&module, address).is_empty());
            }
            // Nor did it take the whole time limit.
            let warnings = symbols.warnings();
            prop_assert!(!warnings.iter().any(|text| text.contains("took too long")));
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let shop = Workshop::new();
    if !shop.tool("mkfifo program") {
        return;
    }
    let module = vramtrace_format::cold::Module {
        path: shop.path("program").to_str().unwrap().into(),
        ..Default::default()
    };
    let mut symbols = Symbolizer::new(SymbolOptions::default());
    assert_eq!(symbols.resolve(&module, 64).len(), 1);
    let warnings = symbols.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!warnings[0].contains("took too long"), "{warnings:?}");
}

#[test]
fn a_module_that_takes_too_long_is_given_up() {
    let Some((shop, _)) = program() else {
        return;
    };
    let module = shop.module("program");
    let mut symbols = Symbolizer::new(SymbolOptions {
        time_limit: Duration::ZERO,
        ..SymbolOptions::default()
    });
    for address in 1..50 {
        assert_eq!(symbols.resolve(&module, address).len(), 1);
    }
    let warnings = symbols.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("took too long"), "{warnings:?}");
}

#[test]
fn many_addresses_at_once_are_answered_as_one_by_one() {
    let Some((shop, _)) = program() else {
        return;
    };
    let module = shop.module("program");
    let missing = vramtrace_format::cold::Module {
        path: shop.path("missing").to_str().unwrap().into(),
        ..Default::default()
    };
    // Every address of the function, its surroundings, and those where no call can end.
    let (start, end) = shop.range("program", "outer");
    let addresses: Vec<u64> = (start - 300..end + 300).chain([0, 1, u64::MAX]).collect();
    let (mut single, mut many) = (shop.symbolizer(&[]), shop.symbolizer(&[]));
    let both = addresses
        .iter()
        .flat_map(|&at| [(&module, at), (&missing, at)]);
    many.look_up(both.clone().chain(both.clone()));
    assert_eq!(many.warnings().len(), 1);
    let known: Vec<_> = both.clone().map(|(of, at)| many.resolve(of, at)).collect();
    let asked: Vec<_> = both.map(|(of, at)| single.resolve(of, at)).collect();
    assert_eq!(known, asked);
    // Inlined functions among them.
    assert!(known.iter().any(|frames| frames.len() > 1));
}
