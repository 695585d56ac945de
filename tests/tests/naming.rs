//! Processes by rank, threads by name, devices by what they are.

use std::collections::BTreeSet;
use vramtrace_tests::{Leaks, Run, Scratch, program};

/// Variables that are set, and the rank that they mean.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<u64>);

/// The first of the launchers' variables that is set says the rank; a value that is no number is
/// passed over.
#[test]
fn ranks() {
    let scratch = Scratch::new();
    let cases: [Case<'_>; 9] = [
        (
            &[("RANK", "3"), ("LOCAL_RANK", "1"), ("SLURM_PROCID", "9")],
            Some(3),
        ),
        (&[("LOCAL_RANK", "1")], Some(1)),
        (&[("SLURM_PROCID", "11"), ("LOCAL_RANK", "0")], Some(11)),
        (&[("OMPI_COMM_WORLD_RANK", "12")], Some(12)),
        (&[("PMI_RANK", "13")], Some(13)),
        (&[("PMIX_RANK", "14")], Some(14)),
        (&[("MV2_COMM_WORLD_RANK", "15")], Some(15)),
        (&[("RANK", "none"), ("PMI_RANK", "16")], Some(16)),
        (&[], None),
    ];
    let variables: BTreeSet<&str> = cases
        .iter()
        .flat_map(|(set, _)| set.iter().map(|v| v.0))
        .collect();
    for (number, (set, rank)) in cases.iter().enumerate() {
        let trace = scratch.path().join(format!("{number}.vrt"));
        let mut run = Run::new(program("setting")).env("VRAMTRACE_OUTPUT", &trace);
        for variable in &variables {
            run = run.without(variable);
        }
        for (name, value) in *set {
            run = run.env(name, value);
        }
        run.succeeds();
        let leaks = Leaks::of(&trace, &["--by", "rank"]);
        assert_eq!(
            leaks.json["processes"][0]["rank"].as_u64(),
            *rank,
            "{set:?}"
        );
        let expected = rank.map_or("no rank".to_owned(), |rank| format!("rank {rank}"));
        assert_eq!(
            leaks.json["groups"][0]["value"],
            expected.as_str(),
            "{set:?}"
        );
    }
    // All of them together are told apart.
    let leaks = Leaks::of(scratch.path(), &["--by", "rank"]);
    let groups = leaks.json["groups"].as_array().expect("groups");
    let values: BTreeSet<&str> = groups
        .iter()
        .filter_map(|group| group["value"].as_str())
        .collect();
    assert_eq!(values.len(), 9, "{values:?}");
}

#[test]
fn devices() {
    let leaks = Run::new(program("setting")).succeeds().leaks();
    let device = &leaks.json["devices"][0];
    let text = |field: &str| device[field].as_str().expect("a text").to_owned();
    assert!(
        text("uuid").starts_with("GPU-") && text("uuid").len() == 40,
        "{device}"
    );
    assert_eq!(text("pci").len(), "0000:01:00.0".len(), "{device}");
    assert_eq!(
        (device["index"].as_u64(), text("name").is_empty()),
        (Some(0), false)
    );
}
