//! Tables, as CSV and as JSON lines: the story by hand, and that their sums are those of `leaks`,
//! `peak` and `summary`.

use super::program::{HOSTILE, hostile, random, story};
use super::support::*;
use super::{export, json, leaked};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use vramtrace_format::record::{Kind, Op, Record};

/// Rows of a table by column name.
fn csv(trace: &Path, args: &[&str]) -> Vec<BTreeMap<String, String>> {
    let bytes = export(trace, &[&["--format", "csv"], args].concat());
    let mut lines = records(std::str::from_utf8(&bytes).unwrap()).into_iter();
    let names = lines.next().unwrap();
    lines
        .map(|line| {
            assert_eq!(line.len(), names.len());
            names.iter().cloned().zip(line).collect()
        })
        .collect()
}

/// Records of a CSV file as RFC 4180 has them.
fn records(text: &str) -> Vec<Vec<String>> {
    let mut records = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let record = records.last_mut().unwrap();
        let field = record.last_mut().unwrap();
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(String::new()),
            '\n' if !quoted => records.push(vec![String::new()]),
            c => field.push(c),
        }
    }
    assert!(!quoted);
    assert_eq!(records.pop().unwrap(), [""]);
    records
}

fn lines(trace: &Path, args: &[&str]) -> Vec<Value> {
    let bytes = export(trace, &[&["--format", "json"], args].concat());
    let text = std::str::from_utf8(&bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(rows: &'a [Value], what: &'a str) -> impl Iterator<Item = &'a Value> {
    rows.iter().filter(move |row| row["type"] == what)
}

#[test]
fn the_story_as_csv() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let bytes = export(&trace, &["--format", "csv"]);
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "process,allocation,state,role,layer,kind,device,bytes,address,allocated_ns,freed_ns,\
         lifetime_ns,free_event,thread,thread_name,range,stream,context,api,free_thread,free_api,\
         stack,site"
    );
    assert_eq!(
        lines[1],
        "0,1,freed,memory,device,device,0,1048576,139715286138880,1767225601000000000,\
         1767225604000000000,3000000000,12,4711,train,,0,1,cudaMalloc,4711,cudaFree,1,train+0x500"
    );
    assert_eq!(
        lines[11],
        "0,11,live,memory,host,pinned,,2097152,139715296624640,1767225603000000000,,,,4711,train,,\
         0,1,cudaMallocHost,,,3,train+0x600"
    );
    assert_eq!(
        lines[13],
        "0,17,live,memory,framework,async,0,1048576,138538481876992,1767225605000000000,,,,4711,\
         train,epoch 1,0,1,cudaMallocAsync,,,4,Model.forward model.py:12"
    );
    assert_eq!(lines.len(), 16);
    let events = csv(&trace, &["--table", "events"]);
    assert_eq!(events.len(), 19);
    let free = &events[11];
    let get = |name: &str| free[name].as_str();
    assert_eq!(
        (get("op"), get("allocation"), get("aux")),
        ("free", "1", "")
    );
    assert_eq!(
        (events[14]["op"].as_str(), events[14]["text"].as_str()),
        ("mark", "epoch 1")
    );
    let stacks = csv(&trace, &["--table", "stacks"]);
    let frames = stacks.iter().filter(|row| row["stack"] == "1");
    let offsets: Vec<&str> = frames.map(|row| row["offset"].as_str()).collect();
    assert_eq!(offsets, ["1280", "4096"]);
    let devices = csv(&trace, &["--table", "devices"]);
    assert_eq!(devices[0]["peak_device_bytes"], (15 * MIB).to_string());
    let processes = csv(&trace, &["--table", "processes"]);
    assert_eq!(processes[0]["program"], "/opt/app/train");
}

#[test]
fn the_story_as_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let rows = lines(&trace, &[]);
    let count = |what: &str| of(&rows, what).count();
    assert_eq!(
        ["process", "device", "allocation", "event"].map(count),
        [1, 1, 15, 19]
    );
    let block = of(&rows, "allocation").last().unwrap();
    assert_eq!(
        *block,
        serde_json::json!({
            "type": "allocation", "process": 0, "allocation": 19, "state": "live", "role": "memory",
            "layer": "framework", "kind": "async", "device": 0, "bytes": MIB,
            "address": 0x7e00_0000_0000u64 + 18 * MIB, "allocated_ns": START + 5 * SECOND,
            "thread": 4711, "thread_name": "train", "range": "epoch 1", "stream": 0, "context": 1,
            "api": "cudaMallocAsync", "stack": 4, "site": "Model.forward model.py:12",
        })
    );
    let only = lines(&trace, &["--table", "devices", "--table", "processes"]);
    assert_eq!(only.len(), 2);
}

#[test]
fn a_part_of_the_time_has_what_was_there_then() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    for (args, allocations, events) in [
        (&["--from", "4s"][..], 12, 5),
        (&["--to", "2s"], 10, 10),
        (&["--from", "2s", "--to", "3s"], 11, 1),
        (&["--from", "11"], 15, 8),
        (&["--kind", "async"], 3, 3),
        (&["--device", "0", "--layer", "device"], 11, 14),
    ] {
        let rows = lines(&trace, args);
        let found = ["allocation", "event"].map(|what| of(&rows, what).count());
        assert_eq!(found, [allocations, events], "{args:?}");
    }
}

#[test]
fn text_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let trace = hostile().write(dir.path(), "a.vrt");
    let functions = csv(&trace, &["--table", "stacks"]);
    let names: Vec<&str> = functions
        .iter()
        .filter(|row| row["language"] == "python")
        .map(|row| row["function"].as_str())
        .collect();
    assert_eq!(names, HOSTILE);
    let rows = lines(&trace, &[]);
    let marks: Vec<&str> = of(&rows, "event")
        .filter(|row| row["op"] == "mark")
        .map(|row| row["text"].as_str().unwrap())
        .collect();
    assert_eq!(marks, HOSTILE);
    let ranges: Vec<&str> = of(&rows, "allocation")
        .map(|row| row["range"].as_str().unwrap())
        .collect();
    // What has no text is called something.
    let named = |text: &&'static str| if text.is_empty() { "(unnamed)" } else { text };
    let said: Vec<&str> = HOSTILE.iter().map(named).collect();
    assert_eq!(ranges, said);
}

/// A free that fails leaves one allocation, from its beginning on.
#[test]
fn a_free_that_failed_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let entry = file.at(5).alloc(Kind::Device, 512, 0);
    file.at(7).free(&entry);
    let back = file.event(Record {
        op: Op::Restore as u8,
        ..entry
    });
    let trace = file.write(dir.path(), "a.vrt");
    let rows = csv(&trace, &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0]["allocation"].as_str(), rows[0]["state"].as_str()),
        ("1", "live")
    );
    file.at(9).free(&back);
    let trace = file.write(dir.path(), "a.vrt");
    let rows = csv(&trace, &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0]["allocation"].as_str(), rows[0]["state"].as_str()),
        ("1", "freed")
    );
    assert_eq!(
        (
            rows[0]["lifetime_ns"].as_str(),
            rows[0]["free_event"].as_str()
        ),
        ("4", "4")
    );
}

/// What leaks, from the rows of allocations alone, as docs/exports.md tells to do it.
fn leaks_of(rows: &[Value], teardown: Option<u64>) -> [(u64, u64); 2] {
    let mut sums = [(0, 0); 2];
    for row in of(rows, "allocation").filter(|row| row["role"] == "memory") {
        let state = row["state"].as_str().unwrap();
        let counts = match (state, teardown) {
            ("context" | "reset", _) => true,
            ("live", None) => true,
            // What was allocated while the process went down was not there before.
            ("live" | "teardown", Some(began)) => row["allocation"].as_u64().unwrap() < began,
            _ => false,
        };
        if counts {
            let sum = &mut sums[usize::from(row["layer"] == "host")];
            sum.0 += row["bytes"].as_u64().unwrap();
            sum.1 += 1;
        }
    }
    sums
}

#[test]
fn sums_are_those_of_leaks_peak_and_summary() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let mut file = random(seed, 4 << 20, 6_000);
        // All of it is in the event log: then everything is known.
        let parts = file.parts();
        let kept = parts.rings.each_ref().map(|ring| ring.len() as u64);
        assert!((0..2).all(|lane| parts.control.ring_written[lane] <= kept[lane]));
        let trace = file.write(dir.path(), "a.vrt");
        let rows = lines(&trace, &[]);
        let expected = leaked(&trace, &["--to", "end"]);
        assert_eq!(leaks_of(&rows, None), expected, "seed {seed}");
        let teardown = of(&rows, "event").find(|row| row["op"] == "teardown");
        assert_eq!(teardown.is_some(), seed.is_multiple_of(2));
        if let Some(event) = teardown {
            let expected = leaked(&trace, &["--to", "teardown"]);
            let began = event["event"].as_u64();
            assert_eq!(leaks_of(&rows, began), expected, "seed {seed}");
        }
        peaks(&rows, &json(&trace, &["peak"]), seed);
        // Each allocation once, in order, and each end with its event.
        let ids: Vec<u64> = of(&rows, "allocation")
            .map(|row| row["allocation"].as_u64().unwrap())
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let allocs = of(&rows, "event")
            .filter(|row| row["op"] == "alloc")
            .count();
        assert_eq!(ids.len(), allocs, "seed {seed}");
        assert_eq!(of(&rows, "event").count() as u64, file.seq);
    }
}

/// Walks through the events, and compares with the peaks.
fn peaks(rows: &[Value], expected: &Value, seed: u64) {
    let mut live: BTreeMap<(Option<u64>, String), (i64, i64)> = BTreeMap::new();
    let counted = [
        "device", "managed", "pinned", "array", "vmm", "pool", "async", "torch",
    ];
    for row in of(rows, "event").filter(|row| counted.iter().any(|kind| row["kind"] == *kind)) {
        let bytes = row["bytes"].as_i64().unwrap();
        let change = match row["op"].as_str().unwrap() {
            "alloc" | "restore" => bytes,
            "resize" => bytes - row["aux"].as_i64().unwrap(),
            "free" | "free-unseen" | "end-context" | "end-reset" | "free-teardown" => -bytes,
            _ => 0,
        };
        let account = (
            row["device"].as_u64(),
            row["layer"].as_str().unwrap().to_owned(),
        );
        let (now, peak) = live.entry(account).or_default();
        *now += change;
        *peak = (*now).max(*peak);
    }
    let said: BTreeMap<(Option<u64>, String), i64> = expected["peaks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peak| {
            let layer = peak["layer"].as_str().unwrap().to_owned();
            (
                (peak["device"].as_u64(), layer),
                peak["bytes"].as_i64().unwrap(),
            )
        })
        .collect();
    let walked: BTreeMap<_, _> = live
        .into_iter()
        .map(|(account, (_, peak))| (account, peak))
        .collect();
    assert_eq!(walked, said, "seed {seed}");
}

/// Where the event log has forgotten most of it, what is live is all there still.
#[test]
fn what_is_live_is_never_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    for seed in [1, 3, 5] {
        let mut file = random(seed, 1 << 20, 20_000);
        let trace = file.write(dir.path(), "a.vrt");
        let rows = lines(&trace, &[]);
        let live: Vec<&Value> = of(&rows, "allocation")
            .filter(|row| row["state"] == "live")
            .collect();
        let sum = |host: bool| {
            let own = live
                .iter()
                .filter(|row| row["role"] == "memory" && (row["layer"] == "host") == host);
            own.fold((0, 0), |(bytes, count), row| {
                (bytes + row["bytes"].as_u64().unwrap(), count + 1)
            })
        };
        let leaks = json(&trace, &["leaks", "--to", "end"]);
        let groups = leaks["groups"].as_array().unwrap();
        let of_live = |host: bool| {
            let own = groups
                .iter()
                .filter(|g| g["end"] == "live" && (g["layer"] == "host") == host);
            own.fold((0, 0), |(bytes, count), group| {
                (
                    bytes + group["bytes"].as_u64().unwrap(),
                    count + group["count"].as_u64().unwrap(),
                )
            })
        };
        assert_eq!(
            [sum(false), sum(true)],
            [of_live(false), of_live(true)],
            "seed {seed}"
        );
        // Of those it is known when they were made, of some that ended it is not.
        assert!(live.iter().all(|row| row["allocated_ns"].is_u64()));
        assert!(of(&rows, "allocation").any(|row| row["allocated_ns"].is_null()));
        let events = of(&rows, "event").count() as u64;
        assert!(events < file.seq);
    }
}
