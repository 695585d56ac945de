//! Exports opened by the tools they are for, as far as those are there: scripts/check-exports brings
//! them. check_tools.py does it.

use super::program::{growing, hostile, random, story};
use super::vramtrace;
use std::process::Command;

#[test]
fn the_tools_read_what_is_written_for_them() {
    let Some(python) = std::env::var_os("VRAMTRACE_TEST_TOOLS") else {
        eprintln!("SKIPPED exports in their tools: scripts/check-exports brings these");
        return;
    };
    let traces = [
        ("", story()),
        ("", hostile()),
        ("", random(1, 4 << 20, 6_000)),
        ("", random(2, 4 << 20, 6_000)),
        // Of this one it is known what grows.
        ("1", growing()),
    ];
    for (grows, mut file) in traces {
        let dir = tempfile::tempdir().unwrap();
        file.write(dir.path(), "a.vrt");
        let run = |args: &[&str]| {
            let out = vramtrace(&[args, &["a.vrt"]].concat(), dir.path());
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            out.stdout
        };
        for output in ["a.pb.gz", "a.pftrace", "a.speedscope.json", "a.parquet"] {
            run(&["export", "--to", "end", "-o", output]);
        }
        run(&["flamegraph", "-o", "a.svg"]);
        let leaks = run(&[
            "leaks",
            "--json",
            "--to",
            "end",
            "--no-builtin-suppressions",
        ]);
        std::fs::write(dir.path().join("leaks.json"), leaks).unwrap();
        std::fs::write(dir.path().join("peak.json"), run(&["peak", "--json"])).unwrap();
        std::fs::write(dir.path().join("growth.json"), run(&["growth", "--json"])).unwrap();
        let here = env!("CARGO_MANIFEST_DIR");
        let status = Command::new(&python)
            .arg(format!("{here}/tests/exports/check_tools.py"))
            .arg(dir.path())
            .arg(format!("{here}/../docs/exports.md"))
            .env("VRAMTRACE_TEST_GROWS", grows)
            .status()
            .unwrap();
        assert!(status.success());
    }
}
