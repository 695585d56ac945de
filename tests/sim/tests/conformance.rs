//! The conformance program on the simulated driver says what it says on a real one.
//!
//! `conformance.expected.txt` is the output on an H100 (driver 580.159, CUDA 13.0). Where the program
//! changes, it must run there again: the file never comes from the simulator.

mod common;

use std::path::Path;

#[test]
fn says_what_a_gpu_says() {
    let program = common::compile("conformance.c");
    let got = common::stdout(&common::run(&program, &[], &[]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.expected.txt");
    let expected = std::fs::read_to_string(&file).expect("expectations");
    let expected: Vec<&str> = expected.lines().filter(|l| !l.starts_with('#')).collect();
    let got: Vec<&str> = got.lines().collect();
    let differences: Vec<String> = (0..expected.len().max(got.len()))
        .filter(|&i| expected.get(i) != got.get(i))
        .map(|i| {
            format!(
                "line {i}: expected {:?}, got {:?}",
                expected.get(i),
                got.get(i)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn lists_its_sections() {
    let program = common::compile("conformance.c");
    let sections = common::stdout(&common::run(&program, &["--list"], &[]));
    assert!(sections.lines().any(|s| s == "graph_memory"));
    assert!(!sections.contains("child"));
}
