//! C, C++ and Rust, with debug information.

use crate::program::{Workshop, is_file, line_of, summary};

const C: &str = r#"
#include <stdlib.h>
static volatile int sink;
__attribute__((noinline)) static void keep(int value) {
    sink = value; /* keep */
}
static inline __attribute__((always_inline)) void inner(int value) {
    keep(value + 1); /* inner calls */
    sink++;
}
__attribute__((noinline)) void outer(int value) {
    inner(value * 3); /* outer calls */
    sink++;
}
__attribute__((noinline, noreturn)) void last(void) {
    abort(); /* never returns */
}
int main(int argc, char **argv) {
    outer(argc); /* main calls */
    if (argc > 5) last();
    return 0;
}
"#;

const CPP: &str = r#"
#include <vector>
#include <string>
namespace cache {
static volatile int sink;
template <typename T, int N> struct Ring {
    __attribute__((noinline)) void push(T value) {
        sink = (int)value + N; /* push */
        sink++;
    }
};
namespace {
__attribute__((noinline)) void hidden(int value) {
    Ring<double, 7> ring;
    ring.push(value); /* hidden calls */
    sink++;
}
}
static inline __attribute__((always_inline)) void middle(int value) {
    hidden(value); /* middle calls */
    sink++;
}
__attribute__((noinline)) std::string top(const std::vector<int> &values) {
    middle(values[0]); /* top calls */
    return "x";
}
}
int main(int argc, char **) { return (int)cache::top({argc}).size() - 1; }
"#;

const RUST: &str = r#"
use std::hint::black_box;
#[inline(never)]
fn keep(value: u64) {
    black_box(value); // keep
}
#[inline(always)]
fn inner(value: u64) {
    keep(value + 1); // inner calls
    black_box(value);
}
#[inline(never)]
fn generic<T: Into<u64>>(value: T) {
    inner(value.into()); // generic calls
    black_box(0);
}
fn main() {
    generic(std::env::args().count() as u32);
}
"#;

/// Every address of a function must come out as addr2line has it.
fn compare(shop: &Workshop, binary: &str, functions: &[&str]) {
    let module = shop.module(binary);
    let mut symbols = shop.symbolizer(&[]);
    let mut inlined = 0;
    for function in functions {
        let (start, end) = shop.range(binary, function);
        for address in start..end {
            let Some(expected) = shop.addr2line(binary, address) else {
                eprintln!("skipped: no addr2line here");
                return;
            };
            let frames = symbols.resolve(&module, address + 1);
            assert_eq!(
                summary(&frames),
                expected,
                "{binary} {function} {address:#x}"
            );
            inlined += frames.len() - 1;
        }
    }
    assert!(inlined > 0, "nothing was inlined in {binary}");
    assert_eq!(symbols.warnings(), [""; 0]);
}

/// The return address of the call on a line.
fn call_on(shop: &Workshop, binary: &str, function: &str, line: u32) -> u64 {
    let module = shop.module(binary);
    let (start, end) = shop.range(binary, function);
    let mut symbols = shop.symbolizer(&[]);
    let addresses = (start + 1)..=end;
    let mut on_line =
        addresses.filter(|&address| symbols.resolve(&module, address)[0].line == Some(line));
    on_line.next_back().unwrap()
}

#[test]
fn c_with_inlining() {
    let shop = Workshop::new();
    shop.write("program.c", C);
    if !shop.tool("cc -g -O2 -o program program.c") {
        return;
    }
    compare(&shop, "program", &["outer", "main"]);
    let call = call_on(&shop, "program", "outer", line_of(C, "inner calls"));
    let frames = shop.symbolizer(&[]).resolve(&shop.module("program"), call);
    let expected = [
        ("inner".to_owned(), Some(line_of(C, "inner calls"))),
        ("outer".to_owned(), Some(line_of(C, "outer calls"))),
    ];
    assert_eq!(summary(&frames), expected);
    assert!(
        frames
            .iter()
            .all(|frame| is_file(frame, "program.c") && frame.offset == call)
    );
}

#[test]
fn a_call_that_never_returns_belongs_to_its_function() {
    let shop = Workshop::new();
    shop.write("program.c", C);
    if !shop.tool("cc -g -O2 -o program program.c") {
        return;
    }
    // The return address is the first byte of whatever comes next.
    let (_, end) = shop.range("program", "last");
    let frames = shop.symbolizer(&[]).resolve(&shop.module("program"), end);
    let expected = [("last".to_owned(), Some(line_of(C, "never returns")))];
    assert_eq!(summary(&frames), expected);
}

#[test]
fn cpp_with_templates_and_hidden_functions() {
    let shop = Workshop::new();
    shop.write("program.cpp", CPP);
    if !shop.tool("g++ -g -O2 -o program program.cpp") {
        return;
    }
    let call = call_on(&shop, "program", "3top", line_of(CPP, "middle calls"));
    let frames = shop.symbolizer(&[]).resolve(&shop.module("program"), call);
    let said = summary(&frames);
    // Of a function that exists only inlined, compilers may record just the bare name.
    assert!(said[0].0.contains("middle"), "{said:?}");
    assert!(said[1].0.starts_with("cache::top"), "{said:?}");
    assert!(said[1].0.contains("std::vector<int"), "{said:?}");
    assert_eq!(said[1].1, Some(line_of(CPP, "top calls")));
    let (start, _) = shop.range("program", "6hidden");
    let frames = shop
        .symbolizer(&[])
        .resolve(&shop.module("program"), start + 1);
    let name = frames.last().unwrap().function.clone().unwrap();
    assert_eq!(name, "cache::(anonymous namespace)::hidden(int)");
    let (start, _) = shop.range("program", "4push");
    let frames = shop
        .symbolizer(&[])
        .resolve(&shop.module("program"), start + 1);
    assert_eq!(
        frames[0].function.as_deref(),
        Some("cache::Ring<double, 7>::push(double)")
    );
}

#[test]
fn rust_without_hashes() {
    for version in ["legacy", "v0"] {
        let shop = Workshop::new();
        shop.write("program.rs", RUST);
        let mangling = format!("-C symbol-mangling-version={version}");
        let unstable = if version == "legacy" {
            "-Z unstable-options"
        } else {
            ""
        };
        let build = format!("rustc -g -O {mangling} {unstable} program.rs");
        // The older mangling needs a nightly compiler by now; then the new one has to do.
        let built = std::panic::catch_unwind(|| shop.tool(&build));
        if !matches!(built, Ok(true)) {
            assert_eq!(version, "legacy");
            continue;
        }
        let (start, end) = shop.range("program", "generic");
        let module = shop.module("program");
        let mut symbols = shop.symbolizer(&[]);
        let line = Some(line_of(RUST, "inner calls"));
        let frames = (start + 1..=end)
            .map(|address| symbols.resolve(&module, address))
            .find(|frames| frames[0].line == line)
            .unwrap();
        let names: Vec<String> = summary(&frames).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[0], "program::inner");
        assert!(
            names.last().unwrap().starts_with("program::generic"),
            "{names:?}"
        );
        assert!(!names.iter().any(|name| name.contains("::h")), "{names:?}");
    }
}

#[test]
fn compressed_sections() {
    let shop = Workshop::new();
    shop.write("program.c", C);
    if !shop.tool("cc -g -O2 -gz=zlib -o program program.c") {
        return;
    }
    compare(&shop, "program", &["outer"]);
}

#[test]
fn a_position_dependent_program() {
    let shop = Workshop::new();
    shop.write("program.c", C);
    if !shop.tool("cc -g -O2 -no-pie -o program program.c") {
        return;
    }
    compare(&shop, "program", &["outer"]);
}
