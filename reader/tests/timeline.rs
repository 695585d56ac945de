//! `timeline --by stack`, as people and scripts see it.

#![allow(missing_docs)]

mod support;

use support::*;
use vramtrace_format::Section;
use vramtrace_format::record::Kind;

/// Ten hours: a buffer from the first second on, and a stack that holds 1 MiB more each hour among what
/// it makes and frees each second; the event log knows the last part of it.
fn story() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let [buffer, grows] = [0x500, 0x600].map(|at| file.program_stack(at));
    file.at(SECOND).alloc(Kind::Device, 32 * MIB, buffer);
    for second in 2..36_000 {
        file.at(second * SECOND);
        if second % 3600 == 10 {
            file.alloc(Kind::Async, MIB, grows);
        }
        if second % 5 == 0 {
            let entry = file.alloc(Kind::Async, 2 * MIB, grows);
            file.at(second * SECOND + SECOND / 2).free(&entry);
        }
    }
    file.control().last_time = 36_000 * SECOND;
    file.exit();
    file
}

#[test]
fn for_people() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let (code, text) = run(
        &["timeline", "--by", "stack", "--points", "20", "a.vrt"],
        dir.path(),
    );
    assert_eq!(code, 0);
    let begin = "\
32.00 MiB at the end, most 32.00 MiB at 0 ns
    cudaMalloc · device memory (device layer) · GPU 0 (NVIDIA H100)
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)
";
    assert!(text.contains(begin), "{text}");
    assert!(
        text.contains("10.00 MiB at the end, most 12.00 MiB at 9h 00m\n"),
        "{text}"
    );
    let kept = " from the history; spikes are kept, their times are rounded (to 1h 08m at first, to 8m \
                32s from 5h 41m on)\n";
    assert!(text.contains(kept), "{text}");
    let next = "Next: vramtrace leaks a.vrt\n  or: vramtrace report -o a.html a.vrt   (all of it to look at, in a browser)\n";
    assert!(text.ends_with(next), "{text}");
    let (_, text) = run(
        &["timeline", "--by", "stack", "--top", "1", "a.vrt"],
        dir.path(),
    );
    assert!(
        text.contains("… and 1 stack, which held less; all with --top 0\n"),
        "{text}"
    );
}

#[test]
fn for_scripts() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let args = ["timeline", "--by", "stack", "--points", "10", "a.vrt"];
    let output = |format| vramtrace(&[&args[..], &[format]].concat(), dir.path()).stdout;
    let document: serde_json::Value = serde_json::from_slice(&output("--json")).unwrap();
    assert_eq!(document["schema"], "vramtrace.timeline/1");
    assert_eq!(document["omitted_stacks"], 0);
    let series = &document["series"][1];
    assert_eq!(
        (&series["kind"], &series["api"], &series["layer"]),
        (
            &"async".into(),
            &"cudaMallocAsync".into(),
            &"framework".into()
        )
    );
    assert_eq!(series["stack"][0]["offset"], 0x600);
    assert_eq!(series["known_from_ns"], serde_json::Value::Null);
    let exact = series["exact_from_ns"].as_u64().unwrap();
    assert!(exact > START + 20_000 * SECOND, "{exact}");
    let parts = series["resolution"].as_array().unwrap();
    assert_eq!(parts.first().unwrap()["from_ns"], START);
    assert_eq!(
        parts.last().unwrap(),
        &serde_json::json!({"from_ns": exact, "span_ns": 0})
    );
    let points = series["points"].as_array().unwrap();
    assert_eq!(points.len(), 10);
    assert_eq!(points[9]["last"], 10 * MIB);
    assert_eq!(points[9]["min"], 9 * MIB);
    assert_eq!(points[9]["max"], 12 * MIB);
    let table = String::from_utf8(output("--csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 21);
    assert_eq!(
        lines[0],
        "pid,rank,device,uuid,layer,start_ns,end_ns,min_bytes,max_bytes,last_bytes,kind,api,stack"
    );
    let last = format!(
        ",{},{},{},async,cudaMallocAsync,??  (train+0x1000);??  (train+0x600)",
        9 * MIB,
        12 * MIB,
        10 * MIB
    );
    assert!(lines[20].ends_with(&last), "{}", lines[20]);
}

/// A stack that gets its curve late is not drawn as if it had held nothing before.
#[test]
fn what_is_not_known_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stacks: Vec<u32> = (0..12)
        .map(|n| file.program_stack(0x500 + 16 * n))
        .collect();
    for (n, stack) in stacks.iter().enumerate() {
        file.at(SECOND)
            .alloc(Kind::Device, (1 + n as u64) << 24, *stack);
    }
    for second in 2..40_000 {
        let entry = file.at(second * SECOND).alloc(Kind::Device, MIB, stacks[0]);
        file.free(&entry);
    }
    file.exit().write(dir.path(), "a.vrt");
    let args = [
        "timeline", "--by", "stack", "--json", "--points", "100", "a.vrt",
    ];
    let document: serde_json::Value =
        serde_json::from_slice(&vramtrace(&args, dir.path()).stdout).unwrap();
    let series = document["series"].as_array().unwrap();
    assert_eq!(series.len(), 10);
    assert_eq!(document["omitted_stacks"], 2);
    let late: Vec<_> = series
        .iter()
        .filter(|series| {
            let span = series["span_ns"].as_u64().unwrap();
            series["known_from_ns"].as_u64() >= Some(START + span)
        })
        .collect();
    assert!(!late.is_empty());
    for series in late {
        let points = series["points"].as_array().unwrap();
        assert!(points.len() < 100);
        assert!(points[0]["start_ns"].as_u64() <= series["known_from_ns"].as_u64());
        for point in points {
            assert_eq!(point["min"], series["live_bytes"], "{series}");
        }
    }
    let (_, text) = run(&["timeline", "--by", "stack", "a.vrt"], dir.path());
    assert!(text.contains("what it held before"), "{text}");
}

#[test]
fn what_timelines_cannot_be_made_by_is_said() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    for (args, why) in [
        (&["--by", "python"][..], "use --by stack"),
        (&["--kind", "async"], "use --layer, or --by stack"),
        (&["--top", "3"], "--by"),
    ] {
        let (code, text) = run(&[&["timeline", "a.vrt"], args].concat(), dir.path());
        assert_eq!(code, 2, "{args:?}");
        assert!(text.contains(why), "{text}");
    }
    let kind = [
        "timeline", "a.vrt", "--by", "stack", "--kind", "async", "--json",
    ];
    let out = vramtrace(&kind, dir.path());
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["series"].as_array().unwrap().len(), 1);
}

/// Traces of before there were curves are whole; what stacks held is known as far as the event log reaches.
#[test]
fn a_trace_without_the_section() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = story();
    file.forget(Section::Curves);
    file.write(dir.path(), "a.vrt");
    let document = |args: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&vramtrace(args, dir.path()).stdout).unwrap()
    };
    let check = document(&["check", "--json", "a.vrt"]);
    // The event log has wrapped, as it has with curves.
    assert_eq!(check["traces"][0]["verdict"], "history-lost", "{check}");
    let series = &document(&["timeline", "--by", "stack", "--json", "a.vrt"])["series"][1];
    assert_eq!(series["known_from_ns"], series["exact_from_ns"]);
    assert_eq!(series["resolution"].as_array().unwrap().len(), 1);
    assert_eq!(
        series["points"].as_array().unwrap().last().unwrap()["last"],
        10 * MIB
    );
    let growth = document(&["growth", "--json", "a.vrt"]);
    assert_eq!(growth["complete"], true);
    let groups = growth["groups"].as_array().unwrap();
    let wrapped = groups
        .iter()
        .find(|group| group["kind"] == "async")
        .unwrap();
    assert_eq!(wrapped["course"], serde_json::Value::Null);
}
