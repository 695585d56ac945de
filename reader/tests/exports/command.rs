//! The commands: formats by name and ending, what they refuse, what they leave behind.

use super::program::story;
use super::vramtrace;
use std::path::Path;

fn run(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let out = vramtrace(args, directory);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        out.status.code().unwrap(),
        text(out.stdout),
        text(out.stderr),
    )
}

#[test]
fn the_output_says_the_format() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    for name in ["a.folded", "deep/er/a.speedscope.json", "a.pb.gz"] {
        let (code, out, err) = run(dir.path(), &["export", "-o", name, "a.vrt"]);
        assert_eq!(code, 0, "{name}: {err}");
        // All that there is to say: a file of the made-up program is missing.
        assert!(
            err.starts_with("vramtrace: /opt/app/train is not on this machine"),
            "{err}"
        );
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(out.contains(name) && out.starts_with("Next: "), "{out}");
        assert!(dir.path().join(name).metadata().unwrap().len() > 20);
    }
    let (code, _, err) = run(dir.path(), &["export", "-o", "a.foo", "a.vrt"]);
    assert_eq!(code, 2);
    assert!(
        err.starts_with(
            "vramtrace: a.foo does not say the format by how it ends; say it with --format: pprof, "
        ),
        "{err}"
    );
    let (code, _, err) = run(dir.path(), &["export", "-o", "a.svg", "a.vrt"]);
    assert_eq!(code, 2);
    assert_eq!(
        err,
        "vramtrace: flame graphs are made by `vramtrace flamegraph`\n"
    );
    let (code, _, err) = run(
        dir.path(),
        &["export", "--format", "foo", "-o", "x", "a.vrt"],
    );
    assert_eq!(code, 2);
    assert!(err.contains("accepted are pprof, "), "{err}");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    for (command, name) in [("export", "a.folded"), ("flamegraph", "a.svg")] {
        std::fs::write(dir.path().join(name), "mine").unwrap();
        let (code, _, err) = run(dir.path(), &[command, "-o", name, "a.vrt"]);
        assert_eq!(code, 2);
        assert_eq!(
            err,
            format!(
                "vramtrace: {name} exists already; use -f to overwrite it, or another name with -o\n"
            )
        );
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"mine");
        let (code, ..) = run(dir.path(), &[command, "-f", "-o", name, "a.vrt"]);
        assert_eq!(code, 0);
        assert_ne!(std::fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
    // Nothing but what was asked for is left.
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a.folded", "a.svg", "a.vrt"]);
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    std::fs::create_dir(dir.path().join("folder.svg")).unwrap();
    for (args, said) in [
        (
            &["flamegraph", "-o", "x.svg", "--what", "growth", "a.vrt"][..],
            "say which with --from",
        ),
        (
            &[
                "flamegraph",
                "-o",
                "x.svg",
                "--what",
                "peak",
                "--by",
                "thread",
                "a.vrt",
            ],
            "not by thread",
        ),
        (
            &[
                "flamegraph",
                "-o",
                "x.svg",
                "--what",
                "peak",
                "--to",
                "2s",
                "a.vrt",
            ],
            "peaks are kept of the whole trace",
        ),
        (
            &["flamegraph", "-o", "x.svg", "--device", "5", "a.vrt"],
            "no device 5",
        ),
        (
            &["flamegraph", "-o", "x.svg", "--what", "foo", "a.vrt"],
            "accepted are live, peak, total, growth",
        ),
        (
            &["flamegraph", "-f", "-o", "folder.svg", "a.vrt"],
            "folder.svg: is a directory",
        ),
        (&["flamegraph", "a.vrt"], "--output <OUT>"),
        (
            &[
                "export", "--format", "pprof", "--what", "peak", "-o", "x", "a.vrt",
            ],
            "--what is for folded, not for pprof",
        ),
        (
            &[
                "export",
                "--format",
                "speedscope",
                "--count",
                "-o",
                "x",
                "a.vrt",
            ],
            "--count is for folded",
        ),
    ] {
        let (code, _, err) = run(dir.path(), args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
    }
    let (code, ..) = run(dir.path(), &["export", "-o", "x.folded", "absent.vrt"]);
    assert_eq!(code, 3);
    assert!(!dir.path().join("x.svg").exists() && !dir.path().join("x.folded").exists());
}
