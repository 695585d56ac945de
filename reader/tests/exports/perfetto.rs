//! Perfetto's protobufs, read by a decoder that knows only the published field numbers. (That the
//! published descriptors agree: scripts/check-exports.)

use super::pprof::{Value, fields, messages, numbers};
use super::program::{HOSTILE, hostile, random, story};
use super::support::*;
use super::{export, json};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Default)]
struct Trace {
    /// Name, parent by number.
    tracks: BTreeMap<u64, (String, u64)>,
    /// Values of counters by name, in order.
    counters: BTreeMap<String, Vec<(u64, u64)>>,
    /// Slices: track, name, stack (outermost first), annotations, begin, end.
    slices: Vec<Slice>,
    /// Track, name.
    instants: Vec<(String, String)>,
}

struct Slice {
    track: String,
    name: String,
    stack: Vec<String>,
    said: BTreeMap<String, String>,
    begun: u64,
    ended: Option<u64>,
}

fn one(message: &[u8], field: u64) -> u64 {
    numbers(&fields(message), field)
        .first()
        .copied()
        .unwrap_or(0)
}

fn text(message: &[u8], field: u64) -> String {
    let all = fields(message);
    let found = messages(&all, field).first().copied().unwrap_or_default();
    String::from_utf8(found.to_vec()).unwrap()
}

fn trace(path: &Path, args: &[&str]) -> Trace {
    let bytes = export(path, &[&["--format", "perfetto"], args].concat());
    let mut trace = Trace::default();
    let mut interned: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (field, packet) in fields(&bytes) {
        let Value::Bytes(packet) = packet else {
            panic!("{field}")
        };
        assert_eq!((field, one(packet, 10)), (1, 1));
        let packet = fields(packet);
        for data in messages(&packet, 12) {
            for (space, entry) in fields(data) {
                let Value::Bytes(entry) = entry else { panic!() };
                assert_eq!(
                    interned.insert((space, one(entry, 1)), entry.to_vec()),
                    None
                );
            }
        }
        for track in messages(&packet, 60) {
            let parent = one(track, 5);
            assert!(parent == 0 || trace.tracks.contains_key(&parent));
            assert_eq!(
                trace.tracks.insert(one(track, 1), (text(track, 2), parent)),
                None
            );
        }
        for event in messages(&packet, 11) {
            let time = numbers(&packet, 8)[0];
            let track = one(event, 11);
            let track_name = trace.tracks[&track].0.clone();
            let name = |space: u64, iid: u64| text(&interned[&(space, iid)], 2);
            match one(event, 9) {
                1 => {
                    let stack = &interned[&(7, one(event, 56))];
                    let frames = numbers(&fields(stack), 2);
                    let function = |frame: &u64| name(5, one(&interned[&(6, *frame)], 2));
                    let said = messages(&fields(event), 4).into_iter().map(|annotation| {
                        let value = match numbers(&fields(annotation), 17).first() {
                            Some(&iid) => name(29, iid),
                            None => (one(annotation, 3) + one(annotation, 7)).to_string(),
                        };
                        (name(3, one(annotation, 1)), value)
                    });
                    trace.slices.push(Slice {
                        track: track_name,
                        name: name(2, one(event, 10)),
                        stack: frames.iter().map(function).collect(),
                        said: said.collect(),
                        begun: time,
                        ended: None,
                    });
                    // One after the other on each track.
                    assert_eq!(open.insert(track, trace.slices.len() - 1), None);
                }
                2 => {
                    let slice = open.remove(&track).unwrap();
                    trace.slices[slice].ended = Some(time);
                }
                3 => trace.instants.push((track_name, name(2, one(event, 10)))),
                4 => trace
                    .counters
                    .entry(track_name)
                    .or_default()
                    .push((time, one(event, 30))),
                other => panic!("{other}"),
            }
        }
    }
    trace
}

#[test]
fn the_story() {
    let dir = tempfile::tempdir().unwrap();
    let path = story().write(dir.path(), "a.vrt");
    let found = trace(&path, &[]);
    let names: Vec<&str> = found
        .tracks
        .values()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names[0], "train (pid 4711)");
    for name in [
        "GPU 0: live bytes, device layer",
        "host memory: allocations",
        "marks",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let last = |name: &str| *found.counters[name].last().unwrap();
    assert_eq!(
        last("GPU 0: live bytes, device layer"),
        (START + 5 * SECOND, 15 * MIB)
    );
    assert_eq!(
        last("GPU 0: live bytes, framework layer"),
        (START + 5 * SECOND, 3 * MIB)
    );
    assert_eq!(
        last("host memory: live bytes"),
        (START + 3 * SECOND, 2 * MIB)
    );
    assert_eq!(found.instants, [("marks".to_owned(), "epoch 1".to_owned())]);
    assert_eq!(found.slices.len(), 15);
    let first = &found.slices[0];
    assert_eq!(
        (first.begun, first.ended),
        (START + SECOND, Some(START + 4 * SECOND))
    );
    assert_eq!(
        (first.track.as_str(), first.name.as_str()),
        ("GPU 0: allocations", "train+0x500")
    );
    assert_eq!(first.stack, ["train+0x1000", "train+0x500"]);
    assert_eq!(first.said["bytes"], MIB.to_string());
    assert_eq!(first.said["api"], "cudaMalloc");
    let block = found.slices.last().unwrap();
    assert_eq!(
        (block.name.as_str(), block.ended),
        ("Model.forward model.py:12", None)
    );
    assert_eq!(block.said["range"], "epoch 1");
    // What was there before is there from its beginning on; counters begin with what they were.
    let part = trace(&path, &["--from", "3500ms", "--to", "4s"]);
    assert_eq!(part.slices.len(), 11);
    assert_eq!(
        part.counters["GPU 0: live bytes, device layer"][0],
        (START + 4 * SECOND, 10 * MIB)
    );
    assert_eq!(
        part.slices
            .iter()
            .filter(|slice| slice.ended.is_some())
            .count(),
        3
    );
    assert!(part.instants.is_empty());
}

#[test]
fn names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let found = trace(&hostile().write(dir.path(), "a.vrt"), &[]);
    assert_eq!(found.instants.len(), HOSTILE.len());
    assert_eq!(found.slices.len(), HOSTILE.len());
}

#[test]
fn counters_and_slices_are_what_summary_and_peak_say() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, size) in [(1, 4 << 20), (2, 4 << 20), (3, 1 << 20), (4, 1 << 20)] {
        let mut file = random(seed, size, 6_000);
        let kept = file.parts().rings.each_ref().map(|ring| ring.len() as u64);
        let whole = (0..2).all(|lane| file.parts().control.ring_written[lane] <= kept[lane]);
        assert_eq!(whole, size == 4 << 20);
        let path = file.write(dir.path(), "a.vrt");
        let found = trace(&path, &[]);
        let peaks = json(&path, &["peak"]);
        let timeline = json(&path, &["timeline", "--points", "1"]);
        for series in timeline["series"].as_array().unwrap() {
            let layer = series["layer"].as_str().unwrap();
            let name = match series["device"].as_u64() {
                Some(device) => format!("GPU {device}: live bytes, {layer} layer"),
                None => "host memory: live bytes".to_owned(),
            };
            let values = &found.counters[&name];
            assert_eq!(
                values.last().unwrap().1,
                series["live_bytes"].as_u64().unwrap(),
                "{name}"
            );
            let most = values.iter().map(|(_, value)| *value).max().unwrap();
            let peaks = peaks["peaks"].as_array().unwrap();
            let peak = peaks
                .iter()
                .find(|p| p["layer"] == *layer && p["device"] == series["device"]);
            let peak = peak.unwrap()["bytes"].as_u64().unwrap();
            assert!(
                if whole { most == peak } else { most <= peak },
                "seed {seed} {name}"
            );
        }
        // Slices that have not ended are what is live.
        let csv = String::from_utf8(export(&path, &["--format", "csv"])).unwrap();
        let live = csv
            .lines()
            .filter(|line| line.split(',').nth(2) == Some("live"))
            .count();
        let open = found
            .slices
            .iter()
            .filter(|slice| slice.ended.is_none())
            .count();
        assert_eq!(open, live, "seed {seed}");
    }
}
