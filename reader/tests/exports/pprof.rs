//! Profiles, read by a decoder that knows only the published field numbers.

use super::program::{HOSTILE, hostile, random, story};
use super::{export, leaked, vramtrace};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// A field of a message.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("the message is cut off");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    unreachable!()
}

/// A message's fields, in order.
pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value)
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

pub fn numbers(fields: &[(u64, Value<'_>)], wanted: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for (_, value) in fields.iter().filter(|(field, _)| *field == wanted) {
        match value {
            Value::Number(number) => found.push(*number),
            Value::Bytes(packed) => {
                let mut packed = *packed;
                while !packed.is_empty() {
                    found.push(varint(&mut packed));
                }
            }
        }
    }
    found
}

pub fn messages<'a>(fields: &[(u64, Value<'a>)], wanted: u64) -> Vec<&'a [u8]> {
    let of = |(field, value): &(u64, Value<'a>)| match value {
        Value::Bytes(bytes) if *field == wanted => Some(*bytes),
        _ => None,
    };
    fields.iter().filter_map(of).collect()
}

/// A sample: `function file:line` of each frame, innermost first; values; labels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    frames: Vec<String>,
    values: Vec<u64>,
    labels: BTreeMap<String, String>,
}

struct Profile {
    types: Vec<String>,
    samples: Vec<Sample>,
    default: String,
}

fn profile(trace: &Path, args: &[&str]) -> Profile {
    let bytes = export(trace, &[&["--format", "pprof"], args].concat());
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut raw)
        .unwrap();
    let all = fields(&raw);
    let strings: Vec<&str> = messages(&all, 6)
        .into_iter()
        .map(|s| std::str::from_utf8(s).unwrap())
        .collect();
    assert_eq!(strings[0], "");
    let text = |index: u64| strings[index as usize].to_owned();
    let one = |message: &[u8], field: u64| {
        numbers(&fields(message), field)
            .first()
            .copied()
            .unwrap_or(0)
    };
    let mut functions = BTreeMap::new();
    for function in messages(&all, 5) {
        let name = (text(one(function, 2)), text(one(function, 4)));
        assert_eq!(functions.insert(one(function, 1), name), None);
    }
    let mappings: Vec<u64> = messages(&all, 3)
        .into_iter()
        .map(|mapping| one(mapping, 1))
        .collect();
    let mut locations = BTreeMap::new();
    for location in messages(&all, 4) {
        let mapping = one(location, 2);
        assert!(mapping == 0 || mappings.contains(&mapping));
        let lines = messages(&fields(location), 4);
        assert_eq!(lines.len(), 1);
        let (function, file) = &functions[&one(lines[0], 1)];
        let shown = format!("{function} {file}:{}", one(lines[0], 2));
        assert_eq!(locations.insert(one(location, 1), shown), None);
    }
    let sample = |sample: &[u8]| {
        let of = fields(sample);
        let label = |label: &[u8]| (text(one(label, 1)), text(one(label, 2)));
        Sample {
            frames: numbers(&of, 1)
                .iter()
                .map(|id| locations[id].clone())
                .collect(),
            values: numbers(&of, 2),
            labels: messages(&of, 3).into_iter().map(label).collect(),
        }
    };
    Profile {
        types: messages(&all, 1)
            .into_iter()
            .map(|t| format!("{}/{}", text(one(t, 1)), text(one(t, 2))))
            .collect(),
        samples: messages(&all, 2).into_iter().map(sample).collect(),
        default: text(numbers(&all, 14)[0]),
    }
}

const TYPES: [&str; 4] = [
    "alloc_objects/count",
    "alloc_space/bytes",
    "inuse_objects/count",
    "inuse_space/bytes",
];

#[test]
fn the_story() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let profile = profile(&trace, &[]);
    assert_eq!(profile.types, TYPES);
    assert_eq!(profile.default, "inuse_space");
    const MIB: u64 = 1 << 20;
    let a = profile
        .samples
        .iter()
        .find(|s| s.frames[0].contains("0x500"))
        .unwrap();
    assert_eq!(a.frames, ["train+0x500 :0", "train+0x1000 :0"]);
    assert_eq!(a.values, [6, 6 * MIB, 3, 3 * MIB]);
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        label("device", "GPU 0"),
        label("layer", "device"),
        label("kind", "device"),
        label("api", "cudaMalloc"),
        label("process", "train (pid 4711)"),
    ];
    assert_eq!(a.labels, BTreeMap::from(expected));
    let python = profile
        .samples
        .iter()
        .find(|s| s.labels["kind"] == "async")
        .unwrap();
    assert_eq!(python.frames, ["Model.forward /opt/app/model.py:12"]);
    assert_eq!(python.values, [3, 3 * MIB, 3, 3 * MIB]);
    let host = profile
        .samples
        .iter()
        .find(|s| s.labels["device"] == "host")
        .unwrap();
    assert_eq!(host.values, [1, 2 * MIB, 1, 2 * MIB]);
    assert_eq!(profile.samples.len(), 4);
}

#[test]
fn what_is_told_apart_is_a_label() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let profile = profile(&trace, &["--by", "range", "--kind", "async"]);
    assert_eq!(profile.samples.len(), 1);
    assert_eq!(profile.samples[0].labels["range"], "epoch 1");
    assert_eq!(profile.samples[0].values, [3, 3 << 20, 3, 3 << 20]);
}

#[test]
fn names_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let trace = hostile().write(dir.path(), "a.vrt");
    let profile = profile(&trace, &[]);
    let found: Vec<&str> = profile
        .samples
        .iter()
        .map(|sample| sample.frames[0].as_str())
        .collect();
    for (name, line) in HOSTILE.iter().zip(1..) {
        let frame = format!("{name} /x/{name}:{line}");
        assert!(found.contains(&frame.as_str()), "{frame:?} {found:?}");
    }
}

#[test]
fn sums_are_those_of_leaks() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let trace = random(seed, 1 << 20, 5_000).write(dir.path(), "a.vrt");
        for args in [&[][..], &["--device", "1"], &["--to", "4500ms"]] {
            let [gpu, host] = leaked(&trace, args);
            let profile = profile(&trace, args);
            let values = profile.types.len();
            let mut sums = [[0; 2]; 2];
            for sample in &profile.samples {
                let space = usize::from(sample.labels["device"] == "host");
                sums[space][0] += sample.values[values - 1];
                sums[space][1] += sample.values[values - 2];
                if values == 4 && args.is_empty() {
                    assert!(
                        sample.labels.contains_key("end") || sample.values[0] >= sample.values[2]
                    );
                }
            }
            assert_eq!(
                sums,
                [[gpu.0, gpu.1], [host.0, host.1]],
                "seed {seed} {args:?}"
            );
        }
    }
}

#[test]
fn what_is_not_known_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let trace = random(1, 1 << 20, 20_000).write(dir.path(), "a.vrt");
    let args = [
        "export", "--format", "pprof", "-o", "x.pb.gz", "--to", "19s", "a.vrt",
    ];
    let out = vramtrace(&args, dir.path());
    assert!(out.status.success());
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.starts_with("vramtrace: a.vrt: total is left out: its event log begins at"),
        "{said}"
    );
    assert_eq!(profile(&trace, &["--to", "19s"]).types, TYPES[2..]);
    assert_eq!(profile(&trace, &[]).types, TYPES);
}
