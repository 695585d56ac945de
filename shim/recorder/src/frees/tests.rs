use super::*;
use crate::clock::Clock;
use crate::file;
use crate::ledger::Ledger;
use crate::recorder::{allocated, find};
use crate::settings::{Log, OnOom, Sample, Settings, Stacks};
use crate::turn::LEDGER;
use std::sync::mpsc::channel;
use vramtrace_format::record::{Allocation, Kind};

/// Runs `act` while another thread holds the ledger and does not move, as if stopped inside.
fn while_stuck(act: impl FnOnce()) {
    let (locked, is_locked) = channel();
    let (go_on, goes_on) = channel::<()>();
    let holder = std::thread::spawn(move || {
        let held = LEDGER.try_lock();
        locked.send(held.is_some()).expect("the test waits");
        goes_on.recv().expect("the test goes on");
    });
    assert!(is_locked.recv().expect("the holder runs"));
    act();
    go_on.send(()).expect("the holder waits");
    holder.join().expect("the holder ends");
}

fn allocate(key: u64) -> Record {
    allocated(Allocation {
        kind: Kind::Device,
        space: Space::Device,
        key,
        size: 1000 + key,
        aux: 0,
        context: 1,
        device: 0,
        stream: 0,
        api: 3,
    });
    find(0, Space::Device, key).expect("it is live")
}

fn is_live_unchanged(entry: &Record) {
    let now = find(0, Space::Device, entry.key).expect("it is live");
    let (op, seq) = (now.op, now.seq);
    assert_eq!(now, Record { op, seq, ..*entry });
}

fn lost() -> [u64; 2] {
    with(|ledger| ledger.control().events_lost).expect("the ledger")
}

/// One test: the ledger is one for the process.
#[test]
fn a_free_that_fails_while_it_waits_is_taken_back() {
    let folder = std::env::temp_dir().join(format!("vramtrace-recorder-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let settings = Settings {
        output: Some(folder.join("%p.vrt").into_os_string().into_encoded_bytes()),
        run_dir: None,
        size: 1 << 20,
        size_raised: false,
        keep: 0,
        stacks: Stacks::Off,
        sample: Sample::All,
        budget: None,
        log: Log::Quiet,
        on_oom: OnOom::Record,
        shown: Vec::new(),
    };
    let file = file::create(&settings).expect("a trace");
    let clock = Clock::new(crate::clock::monotonic_ns());
    let mut place = LEDGER.try_lock().expect("nobody else has it");
    place.with(|place| *place = Some(Ledger::new(file.into_sections(), clock)));
    drop(place);
    let entries: Vec<Record> = (1..=4).map(allocate).collect();

    // It fails while it still waits; the next one succeeds.
    while_stuck(|| {
        let token = freeing(0, Space::Device, 1, 7, 0);
        assert!(token.waits());
        free_failed(&token, Space::Device, 1, 7, 1);
        assert!(freeing(0, Space::Device, 2, 7, 0).waits());
    });
    is_live_unchanged(&entries[0]);
    assert_eq!(find(0, Space::Device, 2), None);

    // It fails after it left the lane.
    let mut token = None;
    while_stuck(|| token = Some(freeing(0, Space::Device, 3, 7, 0)));
    assert_eq!(find(0, Space::Device, 3), None);
    free_failed(&token.expect("a token"), Space::Device, 3, 7, 1);
    is_live_unchanged(&entries[2]);

    // The lane is full: what failed was not lost, what succeeded was.
    assert_eq!(lost(), [0, 0]);
    while_stuck(|| {
        let filler = Record {
            op: Op::Mark as u8,
            ..Record::default()
        };
        while leave(Request::Event(filler), 1) {}
        let token = freeing(0, Space::Device, 4, 7, 0);
        assert!(token.waits());
        free_failed(&token, Space::Device, 4, 7, 1);
    });
    is_live_unchanged(&entries[3]);
    // The filler that found no room, and the event that says that the free failed.
    assert_eq!(lost(), [1, 1]);

    std::fs::remove_dir_all(&folder).expect("the folder goes");
}
