//! Exports: what is in them, that it is what `leaks` and `peak` say, and that nothing in a trace can
//! break their formats. That the tools they are for open them: scripts/check-exports.

#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod damage;
mod flamegraph;
mod folded;
mod parquet;
mod perfetto;
mod pprof;
mod program;
mod speedscope;
mod tables;
mod tools;
mod torch_snapshot;

use std::path::Path;
use support::vramtrace;

/// Runs an export into standard output.
fn export(trace: &Path, args: &[&str]) -> Vec<u8> {
    let mut all = vec!["export", "-o", "-"];
    all.extend(args);
    let out = vramtrace(
        &[&all[..], &[trace.to_str().unwrap()]].concat(),
        trace.parent().unwrap(),
    );
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

/// What a command prints as JSON.
fn json(trace: &Path, args: &[&str]) -> serde_json::Value {
    let args = [args, &["--json", trace.to_str().unwrap()]].concat();
    let out = vramtrace(&args, trace.parent().unwrap());
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What `leaks` says: bytes and allocations of the GPU and of the host.
fn leaked(trace: &Path, args: &[&str]) -> [(u64, u64); 2] {
    let leaks = json(
        trace,
        &[&["leaks", "--no-builtin-suppressions"], args].concat(),
    );
    ["gpu", "host"].map(|space| {
        let of = |what: &str| leaks["total"][space][what].as_u64().unwrap();
        (of("bytes"), of("count"))
    })
}
