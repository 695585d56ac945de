//! Perfetto's protobufs, read by a decoder that knows only the published field numbers. (That the
//! published descriptors agree: scripts/check-exports.)

use super::pprof::{Value, fields, messages, numbers};
use super::program::{HOSTILE, hostile, random, story};
use super::support::*;
use super::{export, json};
use std::collections::BTreeMap;
use std::path::Path;
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, Op, Record};

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
    let mut open: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
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
                    // Ranges have none.
                    let stack = interned.get(&(7, one(event, 56)));
                    let frames = stack.map_or_else(Vec::new, |stack| numbers(&fields(stack), 2));
                    let function = |frame: &u64| name(5, one(&interned[&(6, *frame)], 2));
                    let said = messages(&fields(event), 4).into_iter().map(|annotation| {
                        let value = match numbers(&fields(annotation), 17).first() {
                            Some(&iid) => name(29, iid),
                            None => (one(annotation, 3) + one(annotation, 7)).to_string(),
                        };
                        (name(3, one(annotation, 1)), value)
                    });
                    let is_range = track_name.starts_with("NVTX");
                    trace.slices.push(Slice {
                        track: track_name,
                        name: name(2, one(event, 10)),
                        stack: frames.iter().map(function).collect(),
                        said: said.collect(),
                        begun: time,
                        ended: None,
                    });
                    // One after the other on each track; ranges lie in each other.
                    let open = open.entry(track).or_default();
                    assert!(open.is_empty() || is_range);
                    open.push(trace.slices.len() - 1);
                }
                2 => {
                    let slice = open.get_mut(&track).and_then(Vec::pop).unwrap();
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
    let mut found = trace(&path, &[]);
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
    let ranges: Vec<Slice> = found
        .slices
        .extract_if(.., |slice| slice.track.starts_with("NVTX"))
        .collect();
    assert_eq!(found.slices.len(), 15);
    let [range] = &ranges[..] else { panic!() };
    assert_eq!(
        (range.track.as_str(), range.name.as_str()),
        ("NVTX ranges: train (4711)", "epoch 1")
    );
    assert_eq!(
        (range.begun, range.ended),
        (START + 5 * SECOND, Some(START + 5 * SECOND))
    );
    assert_eq!(range.said["bytes"], (3 * MIB).to_string());
    assert_eq!(
        range.said["drawn"],
        "from the first to the last allocation in it"
    );
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

fn range_ended(thread: u32, range: u16, began: u64) -> Record {
    Record {
        thread,
        range,
        aux: began,
        ..control_event(Op::RangeEnded)
    }
}

/// Steps of two threads, a range of the process over all of them, and one that never ends.
#[test]
fn ranges_are_slices_from_when_they_were_entered() {
    let mut file = TraceFile::new(1 << 20);
    for (id, parent, text) in [
        (1, 0, "step"),
        (2, 1, "forward"),
        (3, 0, "job"),
        (4, 0, "open"),
    ] {
        file.cold(Cold::Range(cold::Range {
            id,
            parent,
            text: text.into(),
            ..cold::Range::default()
        }));
    }
    file.cold(Cold::Thread(cold::Name {
        id: 70,
        text: "loader".into(),
    }));
    let block = |file: &mut TraceFile, thread: u32, range: u16| {
        let key = 0x7e00_0000_0000 + file.seq * MIB;
        let mut block = allocation(Kind::Device, key, MIB, 0);
        (block.thread, block.range) = (thread, range);
        file.event(block);
    };
    for step in 0..3u64 {
        let at = |tenths: u64| step * SECOND + tenths * SECOND / 10;
        file.at(at(2));
        for thread in [70, 71] {
            block(&mut file, thread, 2);
        }
        for (range, began, ended) in [(2, 1, 3), (1, 0, 4)] {
            for thread in [70, 71] {
                file.at(at(ended))
                    .event(range_ended(thread, range, at(began)));
            }
        }
    }
    block(&mut file, 72, 3);
    file.at(3 * SECOND).event(range_ended(0, 3, 0));
    block(&mut file, 72, 4);
    file.at(4 * SECOND);
    block(&mut file, 72, 4);
    file.at(5 * SECOND).exit();
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "a.vrt");
    let shown = |args: &[&str]| {
        let found = trace(&path, args);
        let ranges = found.slices.into_iter();
        let mut ranges: Vec<_> = ranges
            .filter(|slice| slice.track.starts_with("NVTX"))
            .map(|slice| {
                let tenths = |time: u64| (time - START) / (SECOND / 10);
                let drawn = slice.said.contains_key("drawn");
                let count = slice.said["allocations"].parse::<u64>().unwrap();
                let times = (tenths(slice.begun), slice.ended.map(tenths));
                (slice.track, slice.name, times, count, drawn)
            })
            .collect();
        ranges.sort();
        ranges
    };
    let mut expected = Vec::new();
    for track in ["NVTX ranges: loader (70)", "NVTX ranges: thread 71"] {
        for (name, begun, ended) in [("step", 0, 4), ("forward", 1, 3)] {
            expected.extend((0..3).map(|step| {
                let times = (10 * step + begun, Some(10 * step + ended));
                (track.to_owned(), name.to_owned(), times, 1, false)
            }));
        }
    }
    let process = "NVTX ranges of the process".to_owned();
    expected.push((process, "job".to_owned(), (0, Some(30)), 1, false));
    let open = "NVTX ranges: thread 72".to_owned();
    expected.push((open, "open".to_owned(), (30, Some(40)), 2, true));
    expected.sort();
    assert_eq!(shown(&[]), expected);
    // Those that ended before what is asked about are not in it, and without blocks there are none.
    let part = shown(&["--from", "2350ms"]);
    assert_eq!(part.len(), 4, "{part:?}");
    assert!(shown(&["--kind", "device"]).is_empty());
}

#[test]
fn names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let found = trace(&hostile().write(dir.path(), "a.vrt"), &[]);
    assert_eq!(found.instants.len(), HOSTILE.len());
    let is_range = |slice: &&Slice| slice.track.starts_with("NVTX");
    let ranges = found.slices.iter().filter(is_range).count();
    assert_eq!(
        (ranges, found.slices.len()),
        (HOSTILE.len(), 2 * HOSTILE.len())
    );
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
