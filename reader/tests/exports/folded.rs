//! Folded stacks.

use super::program::{HOSTILE, hostile, random, story};
use super::{export, json, leaked};
use std::collections::BTreeMap;
use std::path::Path;

fn folded(trace: &Path, args: &[&str]) -> String {
    String::from_utf8(export(trace, &[&["--format", "folded"], args].concat())).unwrap()
}

/// Sums by outermost frame.
fn sums(text: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (stack, number) = line.rsplit_once(' ').unwrap();
        let root = stack.split(';').next().unwrap().to_owned();
        *sums.entry(root).or_default() += number.parse::<u64>().unwrap();
    }
    sums
}

#[test]
fn the_story_by_stack() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    for (args, expected) in [
        (
            &[][..],
            "\
GPU 0;Model.forward model.py:12 3145728
GPU 0;train+0x1000;train+0x500 3145728
GPU 0;train+0x1000;train+0x600 4194304
host memory;train+0x1000;train+0x600 2097152
",
        ),
        (
            &["--what", "total", "--count"],
            "\
GPU 0;Model.forward model.py:12 3
GPU 0;train+0x1000;train+0x500 6
GPU 0;train+0x1000;train+0x600 4
host memory;train+0x1000;train+0x600 1
",
        ),
        (
            &["--what", "peak"],
            "\
GPU 0, device layer;memory pools' reserve;[no stack was taken] 8388608
GPU 0, device layer;train+0x1000;train+0x500 3145728
GPU 0, device layer;train+0x1000;train+0x600 4194304
GPU 0, framework layer;Model.forward model.py:12 3145728
host memory;train+0x1000;train+0x600 2097152
",
        ),
        (
            &["--what", "growth", "--from", "1500ms"],
            "\
GPU 0;Model.forward model.py:12 3145728
GPU 0;train+0x1000;train+0x600 4194304
host memory;train+0x1000;train+0x600 2097152
",
        ),
        (
            &[
                "--what", "growth", "--from", "0s", "--to", "1s", "--layer", "device",
            ],
            "GPU 0;train+0x1000;train+0x500 6291456\n",
        ),
        (
            &[
                "--what", "total", "--from", "1s", "--to", "3s", "--layer", "device",
            ],
            "GPU 0;train+0x1000;train+0x600 4194304\n",
        ),
        (
            &["--by", "python"],
            "\
GPU 0;Model.forward model.py:12 3145728
GPU 0;[no frame of this kind] 7340032
host memory;[no frame of this kind] 2097152
",
        ),
        (
            &["--by", "library"],
            "\
GPU 0;Python 3145728
GPU 0;train 7340032
host memory;train 2097152
",
        ),
        (
            &["--by", "range", "--device", "0"],
            "\
GPU 0;epoch 1;Model.forward model.py:12 3145728
GPU 0;no range;train+0x1000;train+0x500 3145728
GPU 0;no range;train+0x1000;train+0x600 4194304
",
        ),
        (
            &["--kind", "async", "--count"],
            "GPU 0;Model.forward model.py:12 3\n",
        ),
        (
            &["--kind", "async", "--what", "total", "--by", "thread"],
            "GPU 0;train (4711);Model.forward model.py:12 3145728\n",
        ),
        (&["--kind", "async", "--to", "4s"], ""),
    ] {
        assert_eq!(folded(&trace, args), expected, "{args:?}");
    }
}

#[test]
fn several_processes_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    story().write(dir.path(), "b.vrt");
    let args = [
        "export", "-o", "-", "--format", "folded", "--kind", "pinned", "a.vrt", "b.vrt",
    ];
    let out = super::vramtrace(&args, dir.path());
    let line = "train (pid 4711);host memory;train+0x1000;train+0x600 4194304\n";
    assert_eq!(String::from_utf8(out.stdout).unwrap(), line);
}

#[test]
fn names_stay_in_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let trace = hostile().write(dir.path(), "a.vrt");
    let text = folded(&trace, &["--by", "range"]);
    assert_eq!(text.lines().count(), HOSTILE.len());
    for line in text.lines() {
        assert_eq!(line.split(';').count(), 3, "{line}");
        assert!(line.ends_with(" 1000"), "{line}");
    }
}

#[test]
fn sums_are_those_of_leaks_and_peak() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..8 {
        let trace = random(seed, 1 << 20, 6_000).write(dir.path(), "a.vrt");
        for args in [
            &[][..],
            &["--to", "end"],
            &["--layer", "framework"],
            &["--from", "2s"],
        ] {
            let [gpu, host] = leaked(&trace, args);
            let bytes = sums(&folded(&trace, args));
            let on_gpus: u64 = bytes
                .iter()
                .filter(|(root, _)| root.starts_with("GPU"))
                .map(|s| s.1)
                .sum();
            let in_host = bytes.get("host memory").copied().unwrap_or(0);
            assert_eq!((on_gpus, in_host), (gpu.0, host.0), "seed {seed} {args:?}");
            let counts = sums(&folded(&trace, &[args, &["--count"]].concat()));
            assert_eq!(
                counts.values().sum::<u64>(),
                gpu.1 + host.1,
                "seed {seed} {args:?}"
            );
        }
        let peaks = json(&trace, &["peak"]);
        let mut expected = BTreeMap::new();
        for peak in peaks["peaks"].as_array().unwrap() {
            let layer = peak["layer"].as_str().unwrap();
            let root = match peak["device"].as_u64() {
                Some(device) => format!("GPU {device}, {layer} layer"),
                None => "host memory".to_owned(),
            };
            expected.insert(root, peak["bytes"].as_u64().unwrap());
        }
        assert_eq!(
            sums(&folded(&trace, &["--what", "peak"])),
            expected,
            "seed {seed}"
        );
        assert_eq!(expected.len(), 5);
    }
}
