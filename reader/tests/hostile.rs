//! Whatever a file holds, every command answers or says what is wrong: no panic, no endless loop,
//! no memory without bound.

#![allow(missing_docs)]

mod support;

use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::path::Path;
use std::time::{Duration, Instant};
use support::*;
use vramtrace_format::Section;
use vramtrace_format::cold::{Cold, Rescues};
use vramtrace_format::record::{Kind, Op, Record};
use vramtrace_format::sampling::Sampling;
use vramtrace_format::stacks::NOT_SAMPLED;
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::check::check;
use vramtrace_reader::analysis::churn::Churn;
use vramtrace_reader::analysis::diff::{Diff, Side};
use vramtrace_reader::analysis::fragmentation::Fragmentation;
use vramtrace_reader::analysis::growth::Growths;
use vramtrace_reader::analysis::leaks::{Answer, Asked, By, Options, Point, Window};
use vramtrace_reader::analysis::moment::{Moment, Past};
use vramtrace_reader::analysis::oom::Oom;
use vramtrace_reader::analysis::reconcile::{Answer as Reconciled, Question, reconcile};
use vramtrace_reader::analysis::summary::summary;
use vramtrace_reader::analysis::timeline::{Stacks, timeline, timeline_by_stack};
use vramtrace_reader::live::names::Naming;
use vramtrace_reader::live::{self, Live};
use vramtrace_reader::model::{Process, Unhidden};
use vramtrace_reader::page::{Answers, Budget, Page};
use vramtrace_reader::report::frames::Frames;
use vramtrace_reader::report::style::Style;
use vramtrace_reader::report::{self};
use vramtrace_reader::serve::{metrics, page};
use vramtrace_reader::top::app::{Action, App, Pane};
use vramtrace_reader::top::{self, json, once, view};
use vramtrace_reader::trace::Trace;
use vramtrace_reader::watch::expression::Expression;
use vramtrace_reader::watch::facts::History;

/// A trace with something in every section.
fn everything() -> TraceFile {
    let mut file = TraceFile::new(1 << 20);
    let stacks: Vec<u32> = (0..8).map(|n| file.program_stack(0x100 + n)).collect();
    let allocator = file.stack(&[native(4, 9), native(1, 3)]);
    for round in 0..4000u64 {
        file.time = round * 70_000_000;
        let kind = Kind::ALL[(round % 13) as usize];
        let entry = file.alloc(kind, 512 * (1 + round % 90), stacks[(round % 8) as usize]);
        match round % 20 {
            0 => drop(file.end(&entry, Op::EndByContext)),
            1 => drop(file.end(&entry, Op::EndByReset)),
            2 => {}
            _ => drop(file.free(&entry)),
        }
    }
    for size in [1, 1, 2] {
        file.event(Record {
            op: Op::AllocFailed as u8,
            aux: 2,
            ..allocation(Kind::Device, 0, size << 30, stacks[0])
        });
    }
    file.event(Record {
        op: Op::Rescue as u8,
        aux: Record::rescue_aux(2, 1 << 20, true),
        key: 7 << 20,
        ..allocation(Kind::Device, 0, 2 << 30, stacks[0])
    });
    for (op, aux) in [
        (Op::Rescue, u64::MAX),
        (Op::FrameworkOom, u64::MAX),
        (Op::Snapshot, 4001),
    ] {
        file.event(Record {
            op: op as u8,
            aux,
            key: u64::MAX,
            ..allocation(Kind::Torch, 0, u64::MAX, stacks[0])
        });
    }
    file.cold(Cold::Rescues(Rescues {
        device: 0,
        seq: 1,
        tried: u64::MAX,
        saved: u64::MAX,
        bytes: u64::MAX,
    }));
    for n in 0..60u64 {
        let what = allocation(
            Kind::Async,
            (1 << 44) + (n << 20),
            512 << (n % 8),
            stacks[0],
        );
        let sampled = [0, 20, 95, 0][(n % 4) as usize];
        let stack = [stacks[1], stacks[2], stacks[3], NOT_SAMPLED][(n % 4) as usize];
        file.event(Record {
            sampled,
            stack,
            ..what
        });
    }
    sample(&mut file);
    let segment = file.alloc(Kind::Device, 2 * MIB, allocator);
    file.alloc_at(Kind::Torch, segment.key, 512, stacks[0]);
    file.event(Record {
        context: 1,
        ..control_event(Op::ContextCorrupted)
    });
    file.teardown();
    let last = file.alloc(Kind::Device, 512, stacks[1]);
    file.end(&last, Op::FreeInTeardown);
    file
}

/// Something in the section that says what was sampled.
fn sample(file: &mut TraceFile) {
    let at = file.layout.of(Section::Sampling).offset as usize;
    let bytes = &mut file.bytes()[at..][..size_of::<Sampling>()];
    let table: &mut Sampling = bytemuck::from_bytes_mut(bytes);
    table.begin(0, 0);
    table.took(100, 5_000);
    table.change(7, 3_000, 20, 9_000);
    table.change(9, 4_000, 95, 8_000);
    (table.head.budget, table.head.not_sampled) = (5_000, 15);
    (table.head.events, table.head.event_ns) = (10, 900);
}

fn use_analyses(processes: &[Process], frames: &mut Frames) {
    let (options, asked) = (Options::default(), Asked::default());
    let growths = Growths::of(processes, &options, &[], &asked, Some(10), frames);
    let shown = report::growth::Shown::new(&growths, processes, true, frames);
    report::growth::text(&shown, Style::PLAIN);
    report::growth::json(&shown);
    let churn = Churn::of(processes, &options, &[], &asked, 1 << 30, Some(10), frames);
    let shown = report::churn::Shown::new(&churn, processes, frames);
    report::churn::text(&shown, Style::PLAIN);
    report::churn::json(&shown);
    let oom = Oom::of(processes, &options, &[], &asked, None, Some(10), frames);
    let shown = report::oom::Shown::new(&oom, processes, frames);
    report::oom::text(&shown, Style::PLAIN);
    report::oom::json(&shown);
    let fragmentation = Fragmentation::of(processes, &Filter::default(), &[], &asked, Some(10));
    report::fragmentation::text(&fragmentation, Style::PLAIN);
    report::fragmentation::json(&fragmentation);
    let mut reconciled = Reconciled::default();
    for process in processes {
        let question = Question::recorded(process, None, Vec::new());
        reconcile(&mut reconciled, process, &question);
    }
    report::reconcile::text(&reconciled, Style::PLAIN);
    report::reconcile::json(&reconciled);
    let side = || Side {
        processes,
        windows: &[],
        moment: None,
    };
    let diff = Diff::of(&side(), &side(), &options, None, 0, frames);
    assert!(diff.changes.is_empty() && diff.grown == 0);
    let shown = report::diff::Shown::new(&diff, processes, processes, frames);
    report::diff::text(&shown, Style::PLAIN);
    report::diff::json(&shown);
}

/// Takes the same file for a snapshot of itself, and makes one of it.
fn use_as_snapshot(processes: &[Process], frames: &mut Frames) {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = Vec::new();
    for (number, process) in processes.iter().enumerate() {
        let path = dir.path().join(number.to_string());
        let mut file = std::fs::File::create(&path).unwrap();
        if process.trace.write_snapshot(&mut file).is_err() {
            continue;
        }
        let mut own = Vec::new();
        for failure in [0, 1, 4001, u64::MAX] {
            let Ok(trace) = Trace::open(&path) else { break };
            let mut copy = Process::read(trace);
            if let Some(snapshot) = &mut copy.snapshot {
                snapshot.failure = failure;
            }
            own.push(copy);
        }
        snapshots.push(own);
    }
    let (options, asked) = (Options::default(), Asked::default());
    let oom = Oom::with_snapshots(
        processes,
        &snapshots,
        &options,
        &[],
        &asked,
        None,
        Some(10),
        frames,
    );
    let shown = report::oom::Shown::new(&oom, processes, frames);
    report::oom::text(&shown, Style::PLAIN);
    report::oom::json(&shown);
}

/// What follows running processes, and what serves and watches them.
fn use_live(path: &Path) {
    let options = live::Options {
        already_ended: true,
        stale: Duration::MAX,
        nvml: false,
        naming: Naming::Off,
        places: 200,
        failures: 16,
        ..live::Options::default()
    };
    let directory = path.parent().unwrap();
    let mut live = Live::new(directory, options).unwrap();
    let mut app = App::default();
    let mut history = History::new(Some(Duration::from_secs(1)));
    let condition = "growth(1s) > 1B/s or unused > 1% and failures(1s) > 0";
    let condition = Expression::parse(condition).unwrap();
    for round in 0..2 {
        app.take(live.sample(), Duration::from_millis(500 * round));
        use_top(&mut app);
        let sample = std::sync::Arc::new(live.sample());
        let text = metrics::openmetrics(&sample).unwrap();
        assert!(text.ends_with("# EOF\n"));
        assert!(metrics::text_format(&text).len() > 1000);
        page::page(&sample, directory);
        for (_, _, known) in history.add(&sample, Instant::now()) {
            condition.holds(&known);
        }
    }
}

/// What `top` shows, prints, and writes.
fn use_top(app: &mut App) {
    let look = view::Look {
        colour: true,
        unicode: true,
    };
    for by in top::settings::By::ALL {
        app.act(Action::NextBy(false));
        app.settings.by = by;
        let picture = app.model.picture(&app.settings);
        let text = once::text(&picture, &app.settings, 20, Duration::from_secs(1), "x");
        assert!(!text.is_empty() && text.len() < 1 << 20);
        let document = json::json(&picture, &app.settings, 20, Duration::from_secs(1));
        let _: serde_json::Value = serde_json::from_str(&document).unwrap();
    }
    for (pane, (width, height)) in
        Pane::ALL
            .into_iter()
            .zip([(80, 24), (200, 60), (40, 10), (3, 2)])
    {
        app.act(Action::Focus(pane));
        app.act(Action::Last);
        app.act(Action::Open);
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        view::draw(&mut buffer, app, look);
        app.act(Action::Back);
        app.act(Action::Back);
        view::draw(&mut buffer, app, look);
    }
}

fn use_page(processes: &[Process], frames: &mut Frames) {
    // A page is as large as its budget whatever the trace says; a small one is drawn faster.
    let budget = Budget {
        spans: 64,
        buckets: 64,
        cells: 500,
        keys: 6,
        in_window: 8,
        allocations: 400,
        moments: 8,
        tiles: 300,
        entries: 20_000,
        lanes: 20,
        groups: 10,
        name: 40,
    };
    let reconciled = vramtrace_reader::analysis::reconcile::Answer::default();
    let answers = Answers::of(processes, &reconciled, &budget, frames);
    let page = Page::of(processes, answers, &budget, frames, || {}).unwrap();
    let mut html = Vec::new();
    page.write(&mut html).unwrap();
    let json = page.json();
    assert!(json.len() < 4 << 20, "{} bytes", json.len());
    let _: serde_json::Value = serde_json::from_str(&json).unwrap();
}

/// Runs everything there is on a file.
fn use_all(path: &Path) {
    use_reports(path);
    use_the_rest(path);
}

/// What takes longer: snapshots, the page, and what follows running processes.
fn use_the_rest(path: &Path) {
    let Ok(trace) = Trace::open(path) else { return };
    let processes = [Process::read(trace)];
    let mut frames = Frames::default();
    use_as_snapshot(&processes, &mut frames);
    use_page(&processes, &mut frames);
    use_live(path);
}

/// Every report.
fn use_reports(path: &Path) {
    let begun = Instant::now();
    let Ok(trace) = Trace::open(path) else { return };
    let processes = [Process::read(trace)];
    let mut frames = Frames::default();
    for (by, point) in [
        (By::Stack, Some(Point::Teardown)),
        (By::Stack, Some(Point::End)),
        (By::Thread, None),
        (By::Python, None),
    ] {
        let options = Options {
            by,
            point,
            ..Options::default()
        };
        let answer = Answer::of(&processes, &options, Some(10), &mut frames);
        let shown = report::leaks::Shown::new(&answer, &processes, &mut frames);
        report::leaks::text(&shown, Style::PLAIN);
        report::leaks::json(&shown);
    }
    for moment in ["peak", "oom", "1", "1s", "teardown"] {
        let moment = Moment::parse(moment).unwrap();
        let Ok(found) = moment.find(&processes[0], &Filter::default()) else {
            continue;
        };
        let window = Window {
            from: Some(found),
            to: Past::of(&processes[0], found).ok(),
        };
        let asked = Asked::default();
        let answer = Answer::within(
            &processes,
            &Options::default(),
            &[window],
            &asked,
            None,
            &mut frames,
        );
        let shown = report::leaks::Shown::new(&answer, &processes, &mut frames);
        report::leaks::text(&shown, Style::PLAIN);
    }
    use_analyses(&processes, &mut frames);
    let summary = summary(&processes, &Filter::default(), 10, &mut frames);
    let shown = report::summary::Shown::new(&summary, &processes, &mut frames);
    report::summary::text(&shown, Style::PLAIN);
    report::summary::json(&shown);
    let timeline = timeline(&processes, &[], &Filter::default(), 50).unwrap();
    report::timeline::text(&timeline, Style::PLAIN);
    report::timeline::json(&timeline);
    report::timeline::csv(&timeline);
    let stacks = Stacks {
        top: Some(5),
        unhidden: Unhidden::default(),
        loops: &mut frames,
    };
    let timeline = timeline_by_stack(&processes, &[], &Filter::default(), 50, stacks).unwrap();
    let shown = report::timeline::Shown::new(&timeline, &processes, &mut frames);
    report::timeline::text_by_stack(&shown, Style::PLAIN);
    report::timeline::json_by_stack(&shown);
    report::timeline::csv_by_stack(&shown);
    let checks = [check(&processes[0], 0)];
    report::check::text(&checks, Style::PLAIN);
    report::check::json(&checks);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

/// One change to a file.
#[derive(Clone, Debug)]
enum Change {
    /// A word in a section (0 is the header), counted from its start.
    Word {
        section: usize,
        word: usize,
        value: u64,
    },
    /// Bytes anywhere.
    Bytes { at: usize, bytes: Vec<u8> },
    /// A piece of one place copied to another.
    Splice {
        from: usize,
        to: usize,
        length: usize,
    },
    /// The rest is missing.
    Cut { length: usize },
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..300,
        Just(u64::MAX),
        Just(u64::MAX - 7),
        Just(1 << 63),
        (0u32..64).prop_map(|shift| 1 << shift),
        any::<u8>().prop_map(|byte| u64::from_le_bytes([byte; 8])),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let word = |sections: std::ops::RangeInclusive<usize>, words: usize| {
        let word = (sections, 0..words, value());
        word.prop_map(|(section, word, value)| Change::Word {
            section,
            word,
            value,
        })
    };
    // Of curves, heads and cells come behind the notes of all rows.
    let curves = 1 + Section::Curves.position();
    let (word, curves) = (
        word(0..=Section::ALL.len(), 400),
        word(curves..=curves, 4200),
    );
    let bytes = (any::<usize>(), prop::collection::vec(any::<u8>(), 1..300))
        .prop_map(|(at, bytes)| Change::Bytes { at, bytes });
    let splice = (any::<usize>(), any::<usize>(), 1usize..20_000)
        .prop_map(|(from, to, length)| Change::Splice { from, to, length });
    let cut = any::<usize>().prop_map(|length| Change::Cut { length });
    prop_oneof![12 => word, 4 => curves, 2 => bytes, 2 => splice, 1 => cut]
}

fn apply(file: &mut Vec<u8>, original: &TraceFile, change: &Change) {
    let size = file.len().max(1);
    match change {
        Change::Word {
            section,
            word,
            value,
        } => {
            let start = match section.checked_sub(1) {
                None => 0,
                Some(index) => original.layout.of(Section::ALL[index]).offset as usize,
            };
            let at = start + word * 8;
            if let Some(bytes) = file.get_mut(at..at + 8) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        Change::Bytes { at, bytes } => {
            let at = at % size;
            let end = (at + bytes.len()).min(file.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
        Change::Splice { from, to, length } => {
            let (from, to) = (from % size, to % size);
            let length = (*length).min(file.len() - from.max(to));
            file.copy_within(from..from + length, to);
        }
        Change::Cut { length } => file.truncate(length % size),
    }
}

/// How many files a test changes; more in the long form.
fn cases() -> u32 {
    match std::env::var_os("VRAMTRACE_TEST_FULL") {
        Some(_) => 1_500,
        None => 60,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_traces(changes in prop::collection::vec(change(), 1..12), all in prop::bool::weighted(0.1)) {
        thread_local!(static ORIGINAL: (TraceFile, tempfile::TempDir) =
            (everything(), tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()));
        ORIGINAL.with(|(original, dir)| {
            let mut bytes = original.clone().bytes().to_vec();
            for change in &changes {
                apply(&mut bytes, original, change);
            }
            let path = dir.path().join("t.vrt");
            std::fs::write(&path, &bytes).unwrap();
            use_reports(&path);
            if all {
                use_the_rest(&path);
            }
        });
    }

    #[test]
    fn foreign_files(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), magic: bool) {
        let dir = tempfile::tempdir().unwrap();
        if magic && bytes.len() > 12 {
            bytes[..8].copy_from_slice(b"VRAMTRC\x1a");
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        }
        let path = dir.path().join("t.vrt");
        std::fs::write(&path, &bytes).unwrap();
        use_all(&path);
    }
}

#[test]
fn a_sound_file_is_said_to_be_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = everything().write(dir.path(), "t.vrt");
    use_all(&path);
    let process = Process::read(Trace::open(&path).unwrap());
    let checked = check(&process, 0);
    assert!(checked.damage.is_empty(), "{:?}", checked.damage);
    assert!(
        checked.contradictions.is_empty(),
        "{:?}",
        checked.contradictions
    );
    assert_eq!(checked.broken_records, 0);
}

#[test]
fn reserves_that_add_up_to_more_than_a_number_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = TraceFile::new(1 << 20);
    let stack = file.program_stack(0x100);
    for key in 1..3u64 {
        file.alloc_at(Kind::Pool, key, u64::MAX / 2 + key, stack);
    }
    let path = file.write(dir.path(), "t.vrt");
    use_all(&path);
}

#[test]
fn a_huge_empty_file_with_a_trace_s_header_is_refused_or_cheap() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = everything();
    let path = file.write(dir.path(), "t.vrt");
    // Holes up to 12 GiB, and a live table that spans them all.
    let sparse = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    sparse.set_len(12 << 30).unwrap();
    use_all(&path);
    let mut bytes = file.bytes()[..4096].to_vec();
    bytes[16..24].copy_from_slice(&(1u64 << 50).to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = Trace::open(&path).err().unwrap().to_string();
    assert!(error.contains("traces above"), "{error}");
}
