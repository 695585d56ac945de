//! Exports opened by the tools they are for, as far as those are there: scripts/check-exports brings
//! them. check_tools.py does it.

use super::program::{hostile, random, story};
use super::vramtrace;
use std::process::Command;

#[test]
fn the_tools_read_what_is_written_for_them() {
    let Some(python) = std::env::var_os("VRAMTRACE_TEST_TOOLS") else {
        eprintln!("SKIPPED exports in their tools: scripts/check-exports brings these");
        return;
    };
    let traces = [
        story(),
        hostile(),
        random(1, 4 << 20, 6_000),
        random(2, 4 << 20, 6_000),
    ];
    for mut file in traces {
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
        let here = env!("CARGO_MANIFEST_DIR");
        let status = Command::new(&python)
            .arg(format!("{here}/tests/exports/check_tools.py"))
            .arg(dir.path())
            .arg(format!("{here}/../docs/exports.md"))
            .status()
            .unwrap();
        assert!(status.success());
    }
}
