//! What keeps growing: by hand, and over made-up weeks.

#![allow(missing_docs)]

mod support;
#[path = "support/week.rs"]
mod week;

use std::collections::BTreeMap;
use support::*;
use vramtrace_format::record::{Kind, Record};
use vramtrace_format::stacks::Frame;
use vramtrace_reader::analysis::Sum;
use vramtrace_reader::analysis::growth::Growths;
use vramtrace_reader::analysis::leaks::{Asked, Options, Placed};
use vramtrace_reader::model::{NoNames, Process};
use vramtrace_reader::trace::Trace;
use week::Week;

fn growth(file: &mut TraceFile) -> Growths {
    let dir = tempfile::tempdir().unwrap();
    let path = file.write(dir.path(), "t.vrt");
    let process = Process::read(Trace::open(&path).unwrap());
    let asked = Asked::default();
    Growths::of(
        &[process],
        &Options::default(),
        &[],
        &asked,
        None,
        &mut NoNames,
    )
}

fn offset(placed: &Placed) -> u64 {
    match placed.group.stack.frames.first() {
        Some(Frame::Native { offset, .. }) => *offset,
        other => panic!("{other:?}"),
    }
}

/// What each stack holds and ever allocated, as the run itself says.
fn as_it_was(week: &Week, growths: &Growths) {
    let sum = |lives: &[week::Life], held: bool| {
        let mut sum = Sum::default();
        let counted = lives.iter().filter(|life| !held || life.to.is_none());
        counted.for_each(|life| sum.add(life.bytes, 1));
        sum
    };
    let mut expected = BTreeMap::new();
    for (stack, (_, lives)) in week.stacks.iter().enumerate() {
        let (held, made) = (sum(lives, true), sum(lives, false));
        if held.count > 0 {
            expected.insert(Week::offset(stack), (held, Some(made), held));
        }
    }
    let groups = growths.growing.iter().chain(&growths.others);
    let found: BTreeMap<_, _> = groups
        .map(|placed| {
            let group = &placed.group;
            let mut parts = Sum::default();
            group.age.parts.iter().for_each(|part| parts.merge(*part));
            let held = Sum {
                bytes: group.bytes,
                count: group.count,
            };
            (offset(placed), (held, group.age.made, parts))
        })
        .collect();
    assert_eq!(found, expected);
}

/// Of 200 sound runs no false alarm, of 200 leaking ones 195 found, their stack first. (Measured on
/// five such sets: none; 199, 198, 198, 199, 199. The short form takes a tenth of the first.)
#[test]
fn weeks_without_and_with_a_leak() {
    let full = std::env::var_os("VRAMTRACE_TEST_FULL").is_some();
    let runs = if full { 200 } else { 20 };
    let mut false_alarms = Vec::new();
    let mut missed = Vec::new();
    let mut least = f64::MAX;
    for seed in 0..runs {
        let week = Week::random(seed, false);
        let growths = growth(&mut week.record());
        as_it_was(&week, &growths);
        for placed in &growths.growing {
            let stack = ((offset(placed) - 0x500) / 16) as usize;
            false_alarms.push((seed, week.stacks[stack].0, placed.group.age.judgement));
        }
        let week = Week::random(1_000_000 + seed, true);
        let growths = growth(&mut week.record());
        as_it_was(&week, &growths);
        let guilty = Week::offset(week.stacks.len() - 1);
        if growths.growing.first().map(offset) == Some(guilty) {
            least = least.min(week.leaked / week.allocated);
        } else {
            let all = growths.growing.iter().chain(&growths.others);
            missed.extend(
                all.filter(|placed| offset(placed) == guilty)
                    .map(|placed| (seed, week.leaked / week.allocated, placed.group.age)),
            );
        }
    }
    assert_eq!(false_alarms, [], "of {runs} sound runs");
    let found = runs - missed.len() as u64;
    println!("{found} of {runs}; the smallest was {least:.1e} of what was allocated");
    assert!(found * 200 >= runs * 195, "{found} of {runs}: {missed:#?}");
    assert!(!full || least < 2e-6, "{least}");
}

/// Where events are lost, one in 200 of any stack, the answer says so, and the leak is found all the
/// same. (What was not seen to be freed looks like a leak as well: so it is in the trace.)
#[test]
fn weeks_of_which_events_are_lost() {
    let full = std::env::var_os("VRAMTRACE_TEST_FULL").is_some();
    let runs = if full { 200 } else { 20 };
    let mut missed = Vec::new();
    for seed in 0..runs {
        let week = Week::random(1_000_000 + seed, true);
        let mut random = week::Random(seed);
        let mut lost = 0;
        let mut file = week.record_losing(&mut |_| {
            let is_lost = random.below(200) == 0;
            lost += u64::from(is_lost);
            is_lost
        });
        let growths = growth(&mut file);
        assert_eq!(growths.head.lost_events, lost, "{seed}");
        assert_eq!(growths.head.complete(), lost == 0);
        let guilty = Week::offset(week.stacks.len() - 1);
        let found = growths.growing.iter();
        if !found.map(offset).any(|grows| grows == guilty) {
            missed.push((seed, week.leaked / week.allocated));
        }
        let groups = growths.growing.iter().chain(&growths.others);
        for course in groups.filter_map(|placed| placed.group.course.as_ref()) {
            assert!(course.spans.iter().all(|span| span.min <= span.max));
        }
    }
    let found = runs - missed.len() as u64;
    println!("{found} of {runs}");
    assert!(found * 200 >= runs * 190, "{found} of {runs}: {missed:?}");
}

/// A week: 1 MiB that leaks each hour, 40 GiB of weights, a buffer anew each six hours, and an
/// event log that has forgotten all but the last minutes.
fn story() -> TraceFile {
    const HOUR: u64 = 3600 * SECOND;
    let mut file = TraceFile::new(1 << 20);
    let [leak, weights, buffer, step] =
        [0x500, 0x600, 0x700, 0x800].map(|at| file.program_stack(at));
    file.at(SECOND);
    for _ in 0..40 {
        file.alloc(Kind::Device, 1 << 30, weights);
    }
    let mut old: Option<Record> = None;
    for hour in 0..168 {
        file.at(hour * HOUR + 30 * SECOND)
            .alloc(Kind::Async, MIB, leak);
        for n in 0..40 {
            let at = hour * HOUR + (60 + 80 * n) * SECOND;
            let entry = file.at(at).alloc(Kind::Async, 64 * MIB, step);
            file.at(at + SECOND).free(&entry);
        }
        if hour % 6 == 5 {
            let new = file.alloc(Kind::Device, MIB, buffer);
            if let Some(old) = old.replace(new) {
                file.free(&old);
            }
        }
    }
    file.control().last_time = 168 * HOUR;
    file.exit();
    file
}

#[test]
fn the_report_for_people() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let out = vramtrace(&["growth", "a.vrt"], dir.path());
    let text = String::from_utf8(out.stdout).unwrap();
    let expected = "\
train (pid 4711) on node7, traced for 7d 00h, exited

+24.00 MiB a day, 168.00 MiB in 168 allocations live
    cudaMallocAsync · async memory (framework layer) · GPU 0 (NVIDIA H100)
    for 6d 23h, since 30.0 s; between 23.86 MiB and 24.15 MiB a day; 99.9 % sure
    all that was ever made there stays; from 64 of 64 parts of that time, oldest first ████████
    held 0 B at 30.0 s, 168.00 MiB at the end (known to 9h 06m or finer), at least  ▁▁▂▂▃▃▄▅▅▆▆▆▇██
    #0  ??  (train+0x500)
    #1  ??  (train+0x1000)

Not growing: 1 group, 40.00 GiB: stopped growing, or slows down (warm-up)
Not growing: 1 group, 1.00 MiB: too few live allocations to grow
GPU 0 (NVIDIA H100): full in 1706d 12h at +24.00 MiB a day, with 40.00 GiB left (by its size; \
what others hold there is not known)
note: /opt/app/train is not on this machine; its functions are not named. Put the file, or its \
debug file, into a directory of VRAMTRACE_DEBUG_PATH (build id \
0101010101010101010101010101010101010101)
SUMMARY: 1 group keeps growing, the fastest by 24.00 MiB a day
Next: vramtrace leaks --from @1767528015000000000 a.vrt
";
    assert_eq!(text, expected);
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn the_document() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let out = vramtrace(&["growth", "--json", "a.vrt"], dir.path());
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["schema"], "vramtrace.growth/1");
    assert_eq!(document["complete"], true);
    let group = &document["groups"][0];
    assert_eq!(
        (&group["shape"], &group["bytes"]),
        (&"growing".into(), &(168 * MIB).into())
    );
    assert_eq!(
        group["made"],
        serde_json::json!({"bytes": 168 * MIB, "count": 168})
    );
    assert_eq!(group["from_ns"], START + 30 * SECOND);
    let slope = group["slope"].as_f64().unwrap() * 86_400.0 / MIB as f64;
    assert!((slope - 24.0).abs() < 0.1, "{slope}");
    let parts: Vec<u64> = group["made_in"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["count"].as_u64().unwrap())
        .collect();
    assert_eq!(parts, [21; 8]);
    let shapes: Vec<_> = document["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["shape"].as_str().unwrap())
        .collect();
    assert_eq!(shapes, ["growing", "warm-up", "few"]);
    assert_eq!(document["forecasts"][0]["free_bytes"], (40u64 << 30) - MIB);
}

/// A gauge that the driver was asked for, and a window.
#[test]
fn what_is_left_is_what_the_driver_said_less_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x500);
    for n in 0..100 {
        if n == 50 {
            file.event(Record {
                op: vramtrace_format::Op::MemInfo as u8,
                size: 80 << 30,
                aux: 10 << 30,
                ..Record::default()
            });
        }
        file.at(n * SECOND).alloc(Kind::Device, MIB, stack);
    }
    file.write(dir.path(), "a.vrt");
    let document = |more: &[&str]| -> serde_json::Value {
        let args = [&["growth", "--json", "a.vrt"], more].concat();
        serde_json::from_slice(&vramtrace(&args, dir.path()).stdout).unwrap()
    };
    let forecast = &document(&[])["forecasts"][0];
    assert_eq!(forecast["known_by"], "asked");
    assert_eq!(forecast["free_bytes"], (10u64 << 30) - 50 * MIB);
    let group = &document(&["--from", "50s", "--to", "90s"])["groups"][0];
    assert_eq!(
        (&group["count"], &group["shape"]),
        (&40.into(), &"growing".into())
    );
    assert_eq!(group["made"], serde_json::Value::Null);
    let by = document(&["--by", "thread"]);
    assert_eq!(by["groups"][0]["value"], "train (4711)");
    assert!(
        by["notes"][0]
            .as_str()
            .unwrap()
            .contains("do not know the thread")
    );
}

#[test]
fn leaks_can_put_what_grows_before_what_is_large() {
    let dir = tempfile::tempdir().unwrap();
    story().write(dir.path(), "a.vrt");
    let order = |more: &[&str]| -> Vec<(String, u64)> {
        let args = [&["leaks", "--json", "a.vrt"], more].concat();
        let document: serde_json::Value =
            serde_json::from_slice(&vramtrace(&args, dir.path()).stdout).unwrap();
        let groups = document["groups"].as_array().unwrap().iter();
        groups
            .map(|group| {
                let suspicion = group["suspicion"].as_str().unwrap().to_owned();
                (suspicion, group["bytes"].as_u64().unwrap())
            })
            .collect()
    };
    let weights = ("low".to_owned(), 40 << 30);
    let leak = ("high".to_owned(), 168 * MIB);
    let buffer = ("low".to_owned(), MIB);
    assert_eq!(order(&[]), [weights.clone(), leak.clone(), buffer.clone()]);
    assert_eq!(order(&["--sort", "suspicion"]), [leak, weights, buffer]);
}

/// A week in which a buffer is made anew each hour, a MiB larger: what is left of it is one allocation, an
/// hour old, and the event log has forgotten the others. Four large ones came one after the other.
fn replaced() -> TraceFile {
    const HOUR: u64 = 3600 * SECOND;
    let mut file = TraceFile::new(1 << 20);
    let [grows, large, step] = [0x500, 0x600, 0x700].map(|at| file.program_stack(at));
    let mut old: Option<Record> = None;
    for hour in 0..168 {
        file.at(hour * HOUR + 30 * SECOND);
        let new = file.alloc(Kind::Async, (1 + hour) * MIB, grows);
        if let Some(old) = old.replace(new) {
            file.free(&old);
        }
        if hour % 42 == 20 {
            file.alloc(Kind::Device, 4 << 30, large);
        }
        for n in 0..40 {
            let at = hour * HOUR + (60 + 80 * n) * SECOND;
            let entry = file.at(at).alloc(Kind::Async, 64 * MIB, step);
            file.at(at + SECOND).free(&entry);
        }
    }
    file.control().last_time = 168 * HOUR;
    file.exit();
    file
}

#[test]
fn what_grew_over_all_the_time_comes_first_though_only_its_curve_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = replaced().write(dir.path(), "a.vrt");
    let reach = Trace::open(&path).unwrap().reach(1);
    assert!(reach.overwritten > 10, "{reach:?}");
    let text = |more: &[&str]| {
        let args = [&["leaks", "--top", "1", "a.vrt"], more].concat();
        String::from_utf8(vramtrace(&args, dir.path()).stdout).unwrap()
    };
    let json = |more: &[&str]| -> Vec<(u64, String)> {
        let args = [&["leaks", "--json", "a.vrt"], more].concat();
        let document: serde_json::Value =
            serde_json::from_slice(&vramtrace(&args, dir.path()).stdout).unwrap();
        let groups = document["groups"].as_array().unwrap().iter();
        let of = |group: &serde_json::Value| {
            let suspicion = group["suspicion"].as_str().unwrap().to_owned();
            (group["bytes"].as_u64().unwrap() / MIB, suspicion)
        };
        groups.map(of).collect()
    };
    let (grows, large) = ((168, "high".to_owned()), (4 * 4096, "high".to_owned()));
    assert_eq!(json(&["--sort", "suspicion"]), [grows, large.clone()]);
    assert_eq!(json(&[])[0], large);
    let shown = text(&["--sort", "suspicion"]);
    assert!(shown.contains("kept growing, 24"), "{shown}");
}
