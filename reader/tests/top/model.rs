//! Are the figures those of the traces, and does what was there a moment ago not vanish without a word?

use crate::fixture::*;
use crate::support::{MIB, allocation};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use vramtrace_format::record::{Kind, Layer, Op, Record};
use vramtrace_reader::live::many::{Many, Source};
use vramtrace_reader::top::picture::Picture;
use vramtrace_reader::top::settings::{By, Settings, Sort};
use vramtrace_reader::top::{json, once};

#[test]
fn figures_are_those_of_the_traces() {
    let mut watched = Watched::new();
    let mut a = watched.process("train", Some(0));
    let mut b = watched.process("serve", None);
    let stacks = [a.file.program_stack(0x100), a.file.program_stack(0x200)];
    a.file.alloc(Kind::Device, 3 * MIB, stacks[0]);
    let freed = a.file.alloc(Kind::Device, 5 * MIB, stacks[1]);
    a.file.free(&freed);
    a.file.alloc(Kind::Pinned, MIB, stacks[1]);
    a.file.alloc(Kind::Pool, 64 * MIB, stacks[0]);
    a.file.alloc(Kind::Async, 16 * MIB, stacks[0]);
    a.file.event(Record {
        op: Op::AllocFailed as u8,
        aux: 2,
        ..allocation(Kind::Device, 0, 1 << 40, stacks[1])
    });
    a.file.event(Record {
        op: Op::MemInfo as u8,
        aux: 7 * MIB,
        ..allocation(Kind::Device, 0, 80 << 30, 0)
    });
    a.write();
    let stack = b.file.program_stack(0x300);
    b.file.alloc(Kind::Device, 2 * MIB, stack);
    b.write();
    watched.named();
    let picture = &watched.app.picture;
    assert_eq!(picture.states, [2, 0, 0]);
    // One device, though two processes know it.
    assert_eq!(picture.devices.len(), 1);
    let device = &picture.devices[0];
    assert_eq!((&*device.label, device.processes), ("GPU 0", 2));
    assert_eq!((device.traced, device.total), (69 * MIB, 80 << 30));
    assert_eq!((device.cached, device.used), (48 * MIB, None));
    let row = &picture.processes[0];
    assert_eq!((&*row.name, row.rank, row.pid), ("train", Some(0), a.pid()));
    assert_eq!((row.live, row.peak, row.count), (67 * MIB, 67 * MIB, 2));
    assert_eq!((row.framework, row.cached), (16 * MIB, 48 * MIB));
    assert_eq!((row.host_memory, row.failed), (MIB, 1));
    assert_eq!(row.state, "running");
    let pool = &picture.pools[0];
    assert_eq!((pool.reserved, pool.used), (64 * MIB, 16 * MIB));
    let failure = &picture.failures[0];
    assert_eq!(failure.failure.asked_bytes, 1 << 40);
    assert_eq!(failure.failure.free_bytes, Some(7 * MIB));
    assert_eq!(failure.failure.named.as_ref().unwrap().site, "0x200 train");
    let group = &picture.groups[0];
    assert_eq!((group.bytes, group.count), (64 * MIB, 1));
    assert_eq!(group.key.kind, Some(Kind::Pool));
    assert_eq!(group.label, "0x100 train");
    assert!(!picture.groups.iter().any(|group| group.rest));
    let text = once::text(picture, &Settings::default(), 20, watched.at, "somewhere");
    for part in [
        "2 running",
        "traced 69.00 MiB",
        "0x200 train",
        "1.00 TiB",
        "train rank 0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document = json::json(picture, &Settings::default(), 20, watched.at);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["schema"], "vramtrace.top/1");
    assert_eq!(document["devices"][0]["traced_bytes"], 69 * MIB);
    assert_eq!(document["groups"][0]["bytes"], 64 * MIB);
    assert_eq!(document["failures"][0]["free_bytes"], 7 * MIB);
    assert_eq!(document["processes"][0]["pid"], a.pid());
}

#[test]
fn growth_is_that_of_each_stack_and_of_all() {
    let mut watched = Watched::new();
    let mut a = watched.process("train", None);
    let stacks = [a.file.program_stack(0x100), a.file.program_stack(0x200)];
    a.file.alloc(Kind::Device, 100 * MIB, stacks[0]);
    watched.app.settings.sort = Sort::Growth;
    for _ in 0..20 {
        a.file.alloc(Kind::Device, MIB, stacks[1]);
        a.write();
        watched.look();
    }
    watched.named();
    let picture = &watched.app.picture;
    // A mebibyte in half a second; the stack that does not grow stands below. The last look came without.
    let leak = &picture.groups[0];
    let close = |growth: Option<f64>| (growth.unwrap() / (2.0 * MIB as f64) - 1.0).abs() < 0.05;
    assert_eq!(leak.bytes, 20 * MIB);
    assert!(close(leak.growth), "{:?}", leak.growth);
    assert_eq!(picture.groups[1].growth, Some(0.0));
    assert!(close(picture.processes[0].growth));
    assert!(close(picture.devices[0].growth));
}

#[test]
fn what_ends_vanishes_or_breaks_stays_marked() {
    let mut watched = Watched::new();
    let mut all: Vec<Traced> = ["killed", "vanished", "broken", "fine"]
        .iter()
        .map(|name| {
            let mut traced = watched.process(name, None);
            let stack = traced.file.program_stack(0x100);
            traced.file.alloc(Kind::Device, MIB, stack);
            traced.write();
            traced
        })
        .collect();
    watched.look();
    assert_eq!(watched.app.picture.devices[0].traced, 4 * MIB);
    all[0].end();
    fs::remove_file(&all[1].path).unwrap();
    let broken = fs::OpenOptions::new().write(true).open(&all[2].path);
    broken.unwrap().set_len(5000).unwrap();
    watched.look();
    let picture = &watched.app.picture;
    let state = |name: &str| {
        let row = picture.processes.iter().find(|row| row.name == name);
        let row = row.unwrap_or_else(|| panic!("{name} is gone"));
        (row.state, row.ended, row.live)
    };
    assert_eq!(state("killed"), ("killed", true, MIB));
    assert_eq!(state("vanished"), ("vanished", true, MIB));
    assert_eq!(state("broken"), ("unreadable", true, MIB));
    assert_eq!(state("fine"), ("running", false, MIB));
    assert_eq!(picture.processes[0].name, "fine");
    assert_eq!(picture.states, [1, 3, 0]);
    assert_eq!(picture.devices[0].traced, MIB);
    assert_eq!(picture.groups.len(), 1);
    assert!(
        picture
            .notes
            .iter()
            .any(|note| note.contains("cannot be read"))
    );
    // Later they are gone: a minute is enough to have read it. The killed one lingers longer.
    for _ in 0..125 {
        watched.at += std::time::Duration::from_millis(500);
    }
    watched.look();
    let names: Vec<&str> = watched
        .app
        .picture
        .processes
        .iter()
        .map(|row| &*row.name)
        .collect();
    assert_eq!(names, ["fine", "killed"]);
}

#[test]
fn a_trace_that_is_named_is_shown_after_its_end_and_alone() {
    let watched = Watched::new();
    let mut ended = watched.process("ended", None);
    let stack = ended.file.program_stack(0x100);
    ended.file.alloc(Kind::Device, MIB, stack);
    ended.file.exit();
    ended.write();
    let _other = watched.process("other", None);
    // By a link, whatever that is called.
    let link = watched.directory.path().join("link");
    std::os::unix::fs::symlink(&ended.path, &link).unwrap();
    let sources = [Source::Trace(link), Source::Trace(ended.path.clone())];
    let mut many = Many::open(&sources, &options(), false).unwrap();
    let sample = many.sample();
    assert_eq!(sample.processes.len(), 1);
    let mut model = vramtrace_reader::top::model::Model::default();
    model.take(sample, std::time::Duration::ZERO);
    let picture = model.picture(&Settings::default());
    assert_eq!(picture.processes[0].state, "exited");
    assert_eq!(picture.groups[0].bytes, MIB);
    let path = &picture.processes[0].trace;
    assert!(many.open_trace(path).is_some_and(|file| file.is_ok()));
    let missing = Source::Trace(watched.directory.path().join("no.vrt"));
    assert!(Many::open(&[missing], &options(), true).is_err());
    let later = watched.directory.path().join("later");
    let mut many = Many::open(&[Source::Directory(later.clone())], &options(), true).unwrap();
    assert!(many.sample().processes.is_empty());
    fs::create_dir(&later).unwrap();
    fs::copy(&_other.path, later.join("a.vrt")).unwrap();
    assert_eq!(many.sample().processes.len(), 1);
}

/// Bytes by layer.
fn sums<T>(rows: &[T], of: impl Fn(&T) -> (Layer, u64)) -> BTreeMap<Layer, u64> {
    let mut sums = BTreeMap::new();
    for (layer, bytes) in rows.iter().map(of).filter(|(_, bytes)| *bytes > 0) {
        *sums.entry(layer).or_default() += bytes;
    }
    sums
}

fn grouped(picture: &Picture) -> BTreeMap<Layer, u64> {
    sums(&picture.groups, |row| (row.key.layer, row.bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_memory_is_put_together_by_its_sum_is_the_same(
        events in prop::collection::vec((0usize..2, 0usize..4, 0u64..300, 1u64..9000, prop::bool::ANY), 1..300),
        reverse: bool,
    ) {
        let mut watched = Watched::new();
        let mut all = [watched.process("a", None), watched.process("b", Some(7))];
        let mut kept: Vec<(usize, Record)> = Vec::new();
        for (process, kind, stack, size, free) in events {
            let kind = [Kind::Device, Kind::Torch, Kind::Pinned, Kind::Managed][kind];
            let stack = all[process].file.program_stack(0x100 + stack);
            kept.push((process, all[process].file.alloc(kind, size, stack)));
            if free {
                let (process, entry) = kept.swap_remove(size as usize % kept.len());
                all[process].file.free(&entry);
            }
        }
        all.iter_mut().for_each(Traced::write);
        let truth = sums(&kept, |(_, entry)| (entry.kind().unwrap().layer(), entry.size));
        watched.named();
        for by in By::ALL {
            for sort in Sort::ALL {
                let settings = Settings { by, sort, reverse, ..Settings::default() };
                let picture = watched.app.model.picture(&settings);
                prop_assert_eq!(&grouped(&picture), &truth, "{:?} {:?}", by, sort);
                let ends = picture.groups.iter().position(|row| row.rest);
                let ends = ends.unwrap_or(picture.groups.len());
                prop_assert!(picture.groups[ends..].iter().all(|row| row.rest));
                if sort == Sort::Live {
                    let sizes: Vec<u64> = picture.groups[..ends].iter().map(|row| row.bytes).collect();
                    let sorted = match reverse {
                        true => sizes.is_sorted(),
                        false => sizes.iter().rev().is_sorted(),
                    };
                    prop_assert!(sorted, "{:?}", sizes);
                }
            }
            for layer in Layer::ALL {
                let settings = Settings { by, layer: Some(*layer), ..Settings::default() };
                let picture = watched.app.model.picture(&settings);
                let own = truth.get(layer).copied().unwrap_or(0);
                prop_assert_eq!(grouped(&picture).get(layer).copied().unwrap_or(0), own);
                prop_assert!(picture.groups.iter().all(|row| row.key.layer == *layer));
            }
        }
    }
}
