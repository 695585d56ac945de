//! `vramtrace report`: the page says what the other commands say, whatever the trace holds.

#![allow(missing_docs)]

#[path = "support/gallery.rs"]
mod gallery;
mod support;
#[path = "support/training.rs"]
mod training;
#[allow(dead_code)]
#[path = "support/week.rs"]
mod week;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use support::*;
use training::{HOSTILE, Training};
use vramtrace_format::record::Op;
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::timeline::timeline;
use vramtrace_reader::model::Process;
use vramtrace_reader::page::document;
use vramtrace_reader::report;
use vramtrace_reader::trace::Trace;

/// What a page of a trace holds.
fn page(directory: &Path, trace: &str) -> Value {
    let (code, said) = run(&["report", trace, "-o", "page.html", "-f"], directory);
    assert_eq!(code, 0, "{said}");
    let html = std::fs::read_to_string(directory.join("page.html")).unwrap();
    serde_json::from_str(&document(&html).unwrap()).unwrap()
}

fn ask(arguments: &[&str], directory: &Path) -> Value {
    let out = vramtrace(arguments, directory);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Sums of cells by key, of the parts of the time from one to below another, plus what was before.
struct Cells<'a> {
    page: &'a Value,
    /// Key, part, row.
    rows: Vec<(usize, u64, usize)>,
}

impl Cells<'_> {
    fn of(page: &Value) -> Cells<'_> {
        let cells = &page["cells"];
        let (mut rows, mut row) = (Vec::new(), 0);
        for (key, number) in cells["of_key"].as_array().unwrap().iter().enumerate() {
            let mut bucket = 0;
            for _ in 0..number.as_u64().unwrap() {
                bucket += cells["bucket"][row].as_u64().unwrap();
                rows.push((key, bucket, row));
                row += 1;
            }
        }
        Cells { page, rows }
    }

    fn width(&self) -> u64 {
        self.page["cells"]["width"].as_u64().unwrap()
    }

    /// Of GPU memory, each byte once.
    fn finest(&self, key: usize) -> bool {
        let keys = &self.page["keys"];
        keys["cache"][key] == 0 && keys["layer"][key] != "host"
    }

    fn sum(&self, what: &str, part: usize, parts: std::ops::Range<u64>) -> i64 {
        let keys = &self.page["keys"];
        let before = &keys[format!("before_{what}")];
        let number = keys["node"].as_array().unwrap().len();
        let of_before = (0..number)
            .filter(|key| parts.start == 0 && self.finest(*key))
            .map(|key| before[part][key].as_i64().unwrap_or(0));
        let cells = &self.page["cells"][what][part];
        let inside = self
            .rows
            .iter()
            .filter(|(key, bucket, _)| parts.contains(bucket) && self.finest(*key));
        of_before.sum::<i64>()
            + inside
                .map(|(.., row)| cells[*row].as_i64().unwrap())
                .sum::<i64>()
    }

    fn live(&self, until: u64) -> i64 {
        let keys = &self.page["keys"];
        let number = keys["node"].as_array().unwrap().len();
        let before = (0..number).filter(|key| self.finest(*key));
        let before: i64 = before
            .map(|key| keys["before_live"][0][key].as_i64().unwrap())
            .sum();
        before + self.sum("made", 0, 0..until)
            - self.sum("gone", 0, 0..until)
            - if until > 0 { before_made(self) } else { 0 }
    }
}

fn before_made(cells: &Cells<'_>) -> i64 {
    let keys = &cells.page["keys"];
    let number = keys["node"].as_array().unwrap().len();
    let of = (0..number).filter(|key| cells.finest(*key));
    of.map(|key| keys["before_made"][0][key].as_i64().unwrap())
        .sum()
}

fn bytes_of(leaks: &Value) -> i64 {
    leaks["total"]["gpu"]["bytes"].as_i64().unwrap()
}

#[test]
fn figures_are_those_of_the_other_commands() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    let path = Training::default().record().write(directory, "t.vrt");
    let all = page(directory, "t.vrt");
    for command in ["leaks", "oom", "growth"] {
        let said = ask(&[command, "t.vrt", "--json"], directory);
        assert_eq!(all[command], said, "{command}");
    }
    assert_eq!(
        all["reconcile"],
        ask(&["reconcile", "t.vrt", "--json"], directory)
    );
    assert_eq!(
        all["summary"]["processes"],
        ask(&["summary", "t.vrt", "--json"], directory)["processes"]
    );
    let page = &all["page"];
    // Series.
    let processes = [Process::read(Trace::open(&path).unwrap())];
    let spans = page["series"][0]["last"].as_array().unwrap().len();
    let series = timeline(&processes, &[], &Filter::default(), spans).unwrap();
    let series: Value = serde_json::from_str(&report::timeline::json(&series)).unwrap();
    for of in series["series"].as_array().unwrap() {
        let rows = page["series"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["what"] == of["layer"] && row["device"] == of["device"]);
        let row = row.unwrap();
        assert_eq!(row["peak_bytes"], of["peak_bytes"]);
        let mut before = 0;
        for (at, point) in of["points"].as_array().unwrap().iter().enumerate() {
            for what in ["min", "max", "last"] {
                let value = before + row[what][at].as_i64().unwrap();
                assert_eq!(value, point[what].as_i64().unwrap(), "{what} {at}");
            }
            before += row["last"][at].as_i64().unwrap();
        }
    }
    // Peaks by account.
    let peaks = ask(&["peak", "t.vrt", "--json"], directory);
    for peak in peaks["peaks"].as_array().unwrap() {
        let keys = &page["keys"];
        let held: i64 = (0..keys["node"].as_array().unwrap().len())
            .filter(|&key| keys["layer"][key] == peak["layer"])
            .map(|key| keys["peak"][0][key].as_i64().unwrap())
            .sum();
        assert_eq!(held, peak["bytes"].as_i64().unwrap(), "{peak}");
    }
    // Parts of the time.
    let cells = Cells::of(page);
    let buckets = page["cells"]["buckets"].as_u64().unwrap();
    assert_eq!(cells.sum("kept", 0, 0..buckets), bytes_of(&all["leaks"]));
    assert_eq!(cells.live(buckets), bytes_of(&all["leaks"]));
    for part in [1, buckets / 3, buckets / 2, buckets - 9] {
        // A part has the times below its end, moments those up to and with theirs.
        let moment = format!("@{}", START + part * cells.width() - 1);
        let leaks = |option: &str| ask(&["leaks", "t.vrt", "--json", option, &moment], directory);
        assert_eq!(cells.live(part), bytes_of(&leaks("--to")), "live, {part}");
        assert_eq!(
            cells.sum("kept", 0, part..buckets),
            bytes_of(&leaks("--from")),
            "kept, {part}"
        );
    }
    // Maps: the last has what lies in PyTorch's segments.
    let fragmentation = ask(&["fragmentation", "t.vrt", "--json"], directory);
    let used = &fragmentation["fragmentation"][0]["used"]["bytes"];
    let maps = &page["maps"];
    let rows = maps["samples"].as_array().unwrap().last().unwrap()["rows"]
        .as_array()
        .unwrap();
    let starts: Vec<usize> = maps["tiles"]
        .as_array()
        .unwrap()
        .iter()
        .scan(0, |at, n| {
            let start = *at;
            *at += n.as_u64().unwrap() as usize;
            Some(start)
        })
        .collect();
    let of_row = |row: usize| -> i64 {
        let tiles = maps["tiles"][row].as_u64().unwrap() as usize;
        (starts[row]..starts[row] + tiles)
            .map(|tile| maps["tile_used"][tile].as_i64().unwrap())
            .sum()
    };
    let segments = rows.iter().map(|row| row.as_u64().unwrap() as usize);
    let segments = segments.filter(|row| maps["holder"][*row] == "segment");
    assert_eq!(
        Some(segments.map(of_row).sum::<i64>()),
        used.as_i64(),
        "{fragmentation}"
    );
}

#[test]
fn sums_stay_whole_when_the_log_has_wrapped() {
    let place = tempfile::tempdir().unwrap();
    let training = Training {
        size: 1 << 20,
        steps: 120,
        blocks: 60,
        ..Training::default()
    };
    training.record().write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    let page = &all["page"];
    let from = page["processes"][0]["from"][1].as_u64().unwrap();
    assert!(from > 0, "the log has not wrapped");
    let cells = Cells::of(page);
    let buckets = page["cells"]["buckets"].as_u64().unwrap();
    assert_eq!(cells.sum("kept", 0, 0..buckets), bytes_of(&all["leaks"]));
    assert_eq!(cells.live(buckets), bytes_of(&all["leaks"]));
    let part = from / cells.width() + 5;
    let moment = format!("@{}", START + part * cells.width() - 1);
    let leaks = ask(&["leaks", "t.vrt", "--json", "--to", &moment], place.path());
    assert_eq!(cells.live(part), bytes_of(&leaks));
}

#[test]
fn curves_lie_where_their_time_is() {
    // A file that is too small for history: of most of the time nothing is known.
    let place = tempfile::tempdir().unwrap();
    week::Week::random(11, true)
        .record()
        .write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    let length = all["page"]["duration_ns"].as_u64().unwrap();
    for series in all["page"]["series"].as_array().unwrap() {
        let (start, span) = (series["start"].as_u64(), series["span"].as_u64());
        let spans = series["last"].as_array().unwrap().len() as u64;
        let (start, span) = (start.unwrap(), span.unwrap());
        assert!(start > 0, "the log has not wrapped");
        let end = start + span * spans;
        assert!((length..length + 2 * span).contains(&end), "{start} {end}");
        let exact = series["exact_from"].as_u64().unwrap();
        assert!(start <= exact && exact < start + 2 * span, "{start}");
    }
}

#[test]
fn sums_of_sampled_stacks_are_of_one_sort() {
    let place = tempfile::tempdir().unwrap();
    gallery::sampled().write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    assert_eq!(all["page"]["sampled"], true);
    let cells = Cells::of(&all["page"]);
    let buckets = all["page"]["cells"]["buckets"].as_u64().unwrap();
    assert_eq!(cells.sum("kept", 0, 0..buckets), bytes_of(&all["leaks"]));
    // What a stack leaked is no more than what it allocated.
    let of = |what: &str, key: usize| -> i64 {
        let rows = cells.rows.iter().filter(|row| row.0 == key);
        let inside = rows.map(|row| all["page"]["cells"][what][0][row.2].as_i64().unwrap());
        let before = &all["page"]["keys"][format!("before_{what}")][0][key];
        before.as_i64().unwrap() + inside.sum::<i64>()
    };
    for key in 0..all["page"]["keys"]["node"].as_array().unwrap().len() {
        assert!(of("kept", key) <= of("made", key), "{key}");
    }
}

#[test]
fn blocks_of_a_pool_that_nobody_made_are_on_the_map() {
    let place = tempfile::tempdir().unwrap();
    gallery::ranges().write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    let maps = &all["page"]["maps"];
    let last = maps["samples"].as_array().unwrap().last().unwrap();
    let row = last["rows"][0].as_u64().unwrap() as usize;
    assert_eq!(maps["holder"][row], "pool");
    assert_eq!(maps["size"][row].as_i64(), Some(bytes_of(&all["leaks"])));
}

#[test]
fn teardown_of_an_interpreter_is_no_end_of_a_leak() {
    let place = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    file.cold(vramtrace_format::cold::Cold::Note(
        vramtrace_format::cold::Note {
            code: "python".into(),
            text: String::new(),
        },
    ));
    let stack = file.program_stack(0x500);
    file.time = SECOND;
    let leak = file.alloc(vramtrace_format::record::Kind::Device, 5 * MIB, stack);
    file.time = 2 * SECOND;
    file.teardown();
    file.end(&leak, Op::FreeInTeardown);
    file.exit().write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    assert_eq!(all["page"]["processes"][0]["point"], "teardown");
    assert_eq!(bytes_of(&all["leaks"]), 5 << 20);
    let cells = Cells::of(&all["page"]);
    assert_eq!(cells.sum("kept", 0, 0..u64::MAX), 5 << 20);
}

#[test]
fn names_never_become_html() {
    let place = tempfile::tempdir().unwrap();
    let training = Training {
        hostile: HOSTILE,
        steps: 4,
        ..Training::default()
    };
    let mut file = training.record();
    let long = "x".repeat(10_000);
    file.cold(vramtrace_format::cold::Cold::PythonCode(
        vramtrace_format::cold::PythonCode {
            id: 2,
            function: long.clone(),
            file: "/a.py".into(),
            first_line: 1,
        },
    ));
    file.write(place.path(), "t.vrt");
    let all = page(place.path(), "t.vrt");
    let texts: Vec<&str> = all["page"]["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    assert!(texts.iter().any(|text| text.contains(HOSTILE)));
    assert!(texts.iter().all(|text| text.len() < 3000));
    assert!(
        texts
            .iter()
            .any(|text| text.starts_with("xxxx") && text.ends_with('…'))
    );
    let html = std::fs::read_to_string(place.path().join("page.html")).unwrap();
    assert!(!html.contains("onerror") && !html.contains('\u{202e}'));
    assert_eq!(
        html.matches("</script").count(),
        2,
        "the document's and the program's"
    );
    assert!(html.contains("default-src 'none'") && !html.contains("unsafe-"));
}

#[test]
fn a_page_is_bounded_whatever_the_number_of_events() {
    let place = tempfile::tempdir().unwrap();
    let size = |steps: u64| {
        let training = Training {
            size: 64 << 20,
            steps,
            blocks: 100,
            stacks: 200,
            ..Training::default()
        };
        training.record().write(place.path(), "t.vrt");
        page(place.path(), "t.vrt");
        place.path().join("page.html").metadata().unwrap().len()
    };
    let (few, many) = (size(60), size(480));
    assert!(many < 6 * few && many < 25 << 20, "{few} {many}");
}

#[test]
fn a_file_that_exists_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    Training {
        steps: 1,
        ..Training::default()
    }
    .record()
    .write(place.path(), "t.vrt");
    std::fs::write(place.path().join("o.html"), "mine").unwrap();
    let (code, said) = run(&["report", "t.vrt", "-o", "o.html"], place.path());
    assert_eq!(code, 2);
    assert!(said.contains("exists already"), "{said}");
    let (code, _) = run(&["report", "t.vrt", "t.vrt", "-o", "-"], place.path());
    assert_eq!(code, 0);
}

/// In a browser; `scripts/check-page` says which.
#[test]
fn browser() {
    let Ok(chromium) = std::env::var("VRAMTRACE_TEST_CHROMIUM") else {
        eprintln!(
            "SKIPPED the page in a browser: scripts/check-page, part of scripts/test --full, does that"
        );
        return;
    };
    let kept = std::env::var("VRAMTRACE_TEST_PAGES");
    let place = tempfile::tempdir().unwrap();
    let directory = kept.as_ref().map_or(place.path(), Path::new);
    std::fs::create_dir_all(directory).unwrap();
    for (name, traces) in gallery::write(directory) {
        let out = format!("{name}.html");
        let traces = traces.iter().map(String::as_str);
        let arguments: Vec<&str> = ["report", "-f", "-o", &out]
            .into_iter()
            .chain(traces)
            .collect();
        let (code, said) = run(&arguments, directory);
        assert_eq!(code, 0, "{said}");
    }
    let html = std::fs::read_to_string(directory.join("training.html")).unwrap();
    let all: Value = serde_json::from_str(&document(&html).unwrap()).unwrap();
    let width = all["page"]["cells"]["width"].as_u64().unwrap();
    let (from, to) = (100 * width, 300 * width);
    let moments = [from, to].map(|time| format!("@{}", START + time - 1));
    let leaks = |arguments: &[&str]| {
        let arguments = [&["leaks", "training.vrt", "--json"], arguments].concat();
        ask(&arguments, directory)
    };
    let between = leaks(&["--from", &moments[0], "--to", &moments[1]]);
    // What was made between two moments: exported as sums, each byte once.
    let made = |arguments: &[&str]| -> u64 {
        let arguments = [
            &[
                "export",
                "training.vrt",
                "-o",
                "-",
                "--format",
                "folded",
                "--what",
                "total",
                "--layer",
                "device",
                "--layer",
                "framework",
            ],
            arguments,
        ]
        .concat();
        let out = vramtrace(&arguments, directory);
        assert!(out.status.success());
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines()
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let of_remember = |leaks: &Value| {
        let groups = leaks["groups"].as_array().unwrap().iter();
        let group = groups
            .clone()
            .find(|group| group["stack"][0]["function"] == "remember");
        group.unwrap()["bytes"].as_u64().unwrap()
    };
    let html_of_many = std::fs::read_to_string(directory.join("many.html")).unwrap();
    let many: Value = serde_json::from_str(&document(&html_of_many).unwrap()).unwrap();
    let step = many["page"]["cells"]["width"].as_u64().unwrap();
    let many_at = |step_number: u64| {
        let to = format!("@{}", START + step_number * step - 1);
        let said = ask(&["leaks", "many.vrt", "--json", "--to", &to], directory);
        let groups = said["groups"].as_array().unwrap().clone();
        let mut bytes: Vec<u64> = groups
            .iter()
            .filter(|group| group["count"] != 400)
            .map(|group| group["bytes"].as_u64().unwrap())
            .collect();
        bytes.sort_unstable();
        json!({ "time": step_number * step, "bytes": bytes })
    };
    let after_from = bytes_of(&leaks(&["--from", &moments[0]]));
    let after_to = bytes_of(&leaks(&["--from", &moments[1]]));
    let last = ask(&["fragmentation", "training.vrt", "--json"], directory);
    let direct = leaks(&["--kind", "device"]);
    let figures = json!({
        "leaks": leaks(&[]),
        "timeline": ask(&["timeline", "training.vrt", "--json"], directory),
        "duration": all["page"]["duration_ns"],
        "total": made(&[]),
        "wrapped": {
            "live": bytes_of(&ask(&["leaks", "wrapped.vrt", "--json"], directory)),
        },
        "sampled": ask(&["leaks", "sampled.vrt", "--json"], directory),
        "segments_used": last["fragmentation"][0]["used"]["bytes"].as_i64().unwrap() + bytes_of(&direct),
        "selected": {
            "from": from, "to": to,
            "kept": after_from - after_to,
            "live": bytes_of(&leaks(&["--to", &moments[1]])),
            "made": made(&["--from", &moments[0], "--to", &moments[1]]),
            "remember": of_remember(&between),
            "remember_at": moments.each_ref().map(|to| of_remember(&leaks(&["--to", to]))),
        },
        "many": {
            "duration": many["page"]["duration_ns"],
            "moments": [many_at(200), many_at(450)],
        },
    });
    std::fs::write(directory.join("figures.json"), figures.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("page/test/page.mjs");
    let out = Command::new("node")
        .arg(script)
        .arg(chromium)
        .arg(directory)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{said}");
}
