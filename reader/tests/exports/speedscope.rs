//! Files for speedscope, against what its schema asks for. (The schema itself: scripts/check-exports.)

use super::program::{HOSTILE, hostile, random, story};
use super::{export, leaked};
use serde_json::Value;
use std::path::Path;

fn speedscope(trace: &Path, args: &[&str]) -> Value {
    let bytes = export(trace, &[&["--format", "speedscope"], args].concat());
    let file: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        file["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
    for profile in file["profiles"].as_array().unwrap() {
        let samples = profile["samples"].as_array().unwrap();
        let weights = profile["weights"].as_array().unwrap();
        assert_eq!(samples.len(), weights.len());
        for frame in samples.iter().flat_map(|sample| sample.as_array().unwrap()) {
            assert!(frame.as_u64().unwrap() < frames);
        }
        let sum: u64 = weights.iter().map(|weight| weight.as_u64().unwrap()).sum();
        assert_eq!(profile["endValue"], sum);
        assert_eq!(profile["startValue"], 0);
    }
    file
}

#[test]
fn the_story() {
    let dir = tempfile::tempdir().unwrap();
    let file = speedscope(&story().write(dir.path(), "a.vrt"), &[]);
    let profiles = file["profiles"].as_array().unwrap();
    let names: Vec<_> = profiles
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["unit"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("train (pid 4711): live", "bytes"),
            ("train (pid 4711): live, allocations", "none"),
            ("train (pid 4711): peak", "bytes"),
            ("train (pid 4711): peak, allocations", "none"),
            ("train (pid 4711): total", "bytes"),
            ("train (pid 4711): total, allocations", "none"),
        ]
    );
    let frames = &file["shared"]["frames"];
    let live = &profiles[0];
    let stacks: Vec<Vec<&str>> = live["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| {
            let ids = sample.as_array().unwrap().iter();
            ids.map(|id| {
                frames[id.as_u64().unwrap() as usize]["name"]
                    .as_str()
                    .unwrap()
            })
            .collect()
        })
        .collect();
    assert!(
        stacks.contains(&vec!["GPU 0", "Model.forward"]),
        "{stacks:?}"
    );
    assert!(
        stacks.contains(&vec!["host memory", "train+0x1000", "train+0x600"]),
        "{stacks:?}"
    );
    let python = frames
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["name"] == "Model.forward")
        .unwrap();
    assert_eq!(python["file"], "/opt/app/model.py");
    assert_eq!(python["line"], 12);
}

#[test]
fn names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = speedscope(&hostile().write(dir.path(), "a.vrt"), &[]);
    let live = &file["profiles"][0];
    assert_eq!(live["samples"].as_array().unwrap().len(), HOSTILE.len());
}

#[test]
fn sums_are_those_of_leaks() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let trace = random(seed, 1 << 20, 4_000).write(dir.path(), "a.vrt");
        let [gpu, host] = leaked(&trace, &[]);
        let file = speedscope(&trace, &[]);
        assert_eq!(file["profiles"][0]["endValue"], gpu.0 + host.0);
        assert_eq!(file["profiles"][1]["endValue"], gpu.1 + host.1);
    }
}
