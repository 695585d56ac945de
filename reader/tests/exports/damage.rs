//! Whatever a file holds, it is exported or refused: no panic, no endless loop.

use super::program::{Random, random};
use std::path::Path;
use vramtrace_format::Section;
use vramtrace_reader::analysis::Filter;
use vramtrace_reader::analysis::leaks::{By, Window};
use vramtrace_reader::analysis::moment::Moment;
use vramtrace_reader::export::tables::{Source, Table};
use vramtrace_reader::export::torch_snapshot::Snapshot;
use vramtrace_reader::export::{self, Measure};
use vramtrace_reader::model::Process;
use vramtrace_reader::trace::Trace;

#[test]
fn damaged_traces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.vrt");
    let rounds = match std::env::var_os("VRAMTRACE_TEST_FULL") {
        Some(_) => 400,
        None => 12,
    };
    let mut dice = Random(7);
    for round in 0..rounds {
        let mut file = random(round % 4, 1 << 20, 1_500);
        for _ in 0..1 + dice.below(10) {
            // Where most of what is exported is read from.
            let section = Section::ALL[2 + dice.below(10) as usize];
            let section = file.layout.of(section);
            let words = (section.length / 8).min(4_000);
            let at = (section.offset + 8 * dice.below(words)) as usize;
            let value = match dice.below(5) {
                0 => u64::MAX,
                1 => 0,
                2 => dice.below(300),
                3 => u64::MAX << dice.below(64),
                _ => dice.below(1 << 31) << 33 | dice.below(1 << 31),
            };
            file.bytes()[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        std::fs::write(&path, file.bytes()).unwrap();
        export_file(&path);
    }
}

fn export_file(path: &Path) {
    if let Ok(trace) = Trace::open(path) {
        export_all(&[Process::read(trace)]);
    }
}

/// Writes everything that there is to write.
fn export_all(processes: &[Process]) {
    let moment = Moment::parse("1s").unwrap();
    let from = moment.find(&processes[0], &Filter::default()).ok();
    let part = export::Part {
        window: Window { from, to: None },
        from,
        to: None,
    };
    for parts in [vec![], vec![part]] {
        let selection = export::Selection {
            parts,
            ..export::Selection::default()
        };
        for measure in Measure::ALL {
            let Ok(found) = export::gather(processes, &selection, measure, &[Measure::Total])
            else {
                continue;
            };
            let samples = &found.measures[0].1;
            let picture = export::flamegraph::Picture {
                title: "",
                measure,
                count: false,
            };
            let profile = export::pprof::Profile {
                processes,
                live: samples,
                total: found.of(Measure::Total),
                stacks: &found.stacks,
                by: By::Stack,
            };
            let out = &mut std::io::sink();
            export::folded::write(samples, &found.stacks, false, out).unwrap();
            export::flamegraph::write(samples, &found.stacks, &picture, out).unwrap();
            export::pprof::write(&profile, out).unwrap();
            export::speedscope::write(processes, &found.measures, &found.stacks, out).unwrap();
        }
        let out = &mut std::io::sink();
        let mut bar = export::bar(processes, 1);
        let mut source = Source::read(processes, &selection, &mut bar);
        export::json::write(&mut source, &Table::ALL, &mut bar, out).unwrap();
        for table in Table::ALL {
            export::csv::write(&mut source, table, &mut bar, out).unwrap();
            export::parquet::write(&mut source, table, &mut bar, std::io::sink()).unwrap();
        }
        let trace = export::perfetto::Trace::read(processes, &selection, &mut bar);
        trace.write(&mut bar, out).unwrap();
        let snapshot = Snapshot::read(&processes[0], &selection, &mut bar);
        snapshot.write(&selection, &mut bar, out).unwrap();
    }
}
