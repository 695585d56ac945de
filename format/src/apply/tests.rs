//! Random programs against a naive model, whole and killed at every point where a kill can show.

use super::*;
use crate::account::ACCOUNT_ROWS;
use crate::live::LiveIndex;
use crate::publish::tests_only::killed_after;
use crate::record::{Layer, Space};
use crate::totals::TotalsIndex;
use bytemuck::Zeroable;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The sections of a small trace.
#[derive(Clone)]
struct Trace {
    control: Control,
    journal: Journal,
    accounts: Vec<Account>,
    live: [Vec<Record>; 2],
    /// Until it was killed.
    known: Option<([LiveIndex; 2], TotalsIndex)>,
    totals: Vec<Totals>,
    history: Vec<Cell>,
    curves: Vec<u64>,
    rings: [Vec<Record>; 2],
}

impl Trace {
    fn new(live: usize, totals: usize, ring: usize) -> Trace {
        Trace {
            control: Control::zeroed(),
            journal: Journal::zeroed(),
            accounts: vec![Account::zeroed(); ACCOUNT_ROWS],
            live: [vec![Record::zeroed(); live], vec![Record::zeroed(); live]],
            known: Some((
                [0, 1].map(|_| LiveIndex::for_slots(live).unwrap()),
                TotalsIndex::for_rows(totals).unwrap(),
            )),
            totals: vec![Totals::zeroed(); totals],
            history: vec![Cell::zeroed(); 4096],
            curves: vec![0; 8 + 2 * totals + 30 * (8 + 4 * 5 * 32)],
            rings: [vec![Record::zeroed(); ring], vec![Record::zeroed(); ring]],
        }
    }

    fn tables(&mut self) -> (Tables<'_>, [Ring<'_>; 2], &mut Control) {
        let [device, framework] = &mut self.live;
        let rows = self.totals.len();
        let (live, totals) = match &mut self.known {
            None => (
                [LiveTable::new(device), LiveTable::new(framework)],
                TotalsTable::new(&mut self.totals),
            ),
            Some(([first, second], known)) => (
                [
                    LiveTable::indexed(device, first),
                    LiveTable::indexed(framework, second),
                ],
                TotalsTable::indexed(&mut self.totals, known),
            ),
        };
        let [ring0, ring1] = &mut self.rings;
        let written = self.control.ring_written;
        (
            Tables {
                journal: &mut self.journal,
                accounts: &mut self.accounts,
                live,
                totals,
                history: History::new(&mut self.history),
                curves: Curves::new(&mut self.curves, rows),
            },
            [Ring::new(ring0, written[0]), Ring::new(ring1, written[1])],
            &mut self.control,
        )
    }

    /// What a recorder does with an event.
    fn record(&mut self, event: &Record) -> Applied {
        let lane = event.kind().unwrap().lane();
        let (mut tables, mut rings, control) = self.tables();
        let mut written = control.ring_written[lane];
        rings[lane].write(event, &mut written);
        control.ring_written[lane] = written;
        tables.apply(event, None, control)
    }

    /// As a reader does, who knows no more than the file says.
    fn recover(&mut self) {
        self.known = None;
        let (mut tables, rings, control) = self.tables();
        tables.recover(&rings, control);
    }
}

/// The naive truth.
#[derive(Clone, Default, Debug, PartialEq)]
struct Model {
    live: BTreeMap<(u8, u64), Record>,
    ended: BTreeMap<(u32, u8), (u64, u64)>,
    /// By stack: bytes that sampled allocations stand for, of what ended and of all ever made.
    sampled_ended: BTreeMap<(u32, u8), u64>,
    sampled_made: BTreeMap<u32, (u64, u64)>,
}

impl Model {
    fn apply(&mut self, event: &Record) {
        let op = event.op().unwrap();
        let key = (event.space, event.key);
        if op.begins_allocation() {
            self.live.insert(key, *event);
            if op == Op::Alloc {
                let made = self.sampled_made.entry(event.stack).or_default();
                made.0 += event.weight().bytes;
                made.1 += event.weight().count;
            }
        } else if op.ends_allocation() {
            self.live.remove(&key);
            if let Some(end) = End::of(op) {
                let sum = self.ended.entry((event.stack, end as u8)).or_default();
                sum.0 += event.size;
                sum.1 += 1;
                let sum = self
                    .sampled_ended
                    .entry((event.stack, end as u8))
                    .or_default();
                *sum += event.weight().bytes;
            }
        }
    }

    /// Live bytes and count of one layer of one device, and by stack.
    fn sums(&self, device: u8, layer: Layer) -> (u64, u64, BTreeMap<u32, u64>) {
        let mut stacks = BTreeMap::new();
        let (mut bytes, mut count) = (0, 0);
        for entry in self
            .live
            .values()
            .filter(|e| e.device == device && e.kind().unwrap().layer() == layer)
        {
            bytes += entry.size;
            count += 1;
            *stacks.entry(entry.stack).or_default() += entry.size;
        }
        (bytes, count, stacks)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc {
        framework: bool,
        device: u8,
        size: u64,
        stack: u32,
        sampled: u8,
    },
    End {
        which: usize,
        how: u8,
    },
    Undo,
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![2 => Just(0), 1 => 1u8..30];
    let alloc = (any::<bool>(), 0u8..2, 1u64..1000, 1u32..6, step).prop_map(
        |(framework, device, size, stack, sampled)| Step::Alloc {
            framework,
            device,
            size,
            stack,
            sampled,
        },
    );
    let end = (any::<usize>(), 0u8..5).prop_map(|(which, how)| Step::End { which, how });
    prop::collection::vec(
        prop_oneof![5 => alloc, 4 => end, 1 => Just(Step::Undo)],
        1..max,
    )
}

/// Turns steps into the events a recorder would write for them.
fn events(steps: &[Step]) -> Vec<Record> {
    let mut live: Vec<Record> = Vec::new();
    let mut freed: Option<Record> = None;
    let mut next_key = 0;
    let mut out: Vec<Record> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let (seq, time) = (out.len() as u64 + 1, index as u64 * 300_000_000);
        match *step {
            Step::Alloc {
                framework,
                device,
                size,
                stack,
                sampled,
            } => {
                // Low keys come back often.
                next_key = (next_key * 7 + 3) % 61;
                while live.iter().any(|e| e.key == next_key * 512) {
                    next_key = (next_key + 1) % 10_000;
                }
                let kind = if framework { Kind::Async } else { Kind::Device };
                let event = Record {
                    seq,
                    time,
                    key: next_key * 512,
                    size,
                    stack,
                    sampled,
                    api: 3,
                    op: Op::Alloc as u8,
                    space: Space::Device as u8,
                    kind: kind as u8,
                    device,
                    ..Record::default()
                };
                live.push(event);
                out.push(event);
            }
            Step::End { which, how } if !live.is_empty() => {
                let entry = live.swap_remove(which % live.len());
                let op = [
                    Op::Free,
                    Op::FreeUnseen,
                    Op::EndByContext,
                    Op::EndByReset,
                    Op::FreeInTeardown,
                ][how as usize];
                freed = (op == Op::Free).then_some(entry);
                out.push(Record {
                    seq,
                    time,
                    op: op as u8,
                    aux: Record::free_aux(entry.seq, entry.api),
                    ..entry
                });
            }
            Step::Undo => {
                if let Some(entry) = freed.take() {
                    if live.iter().any(|e| e.key == entry.key) {
                        continue;
                    }
                    let event = Record {
                        seq,
                        op: Op::Restore as u8,
                        ..entry
                    };
                    live.push(event);
                    out.push(event);
                }
            }
            Step::End { .. } => {}
        }
    }
    out
}

/// Compares the curves of a trace with its events; returns how many cells were compared.
fn compare_curves(trace: &Trace, events: &[Record]) -> usize {
    crate::curves::compare(&trace.curves, &trace.totals, &trace.accounts, events)
}

fn assert_equal(trace: &Trace, model: &Model) {
    for device in 0..2 {
        for layer in [Layer::Device, Layer::Framework] {
            let account = trace.accounts[account::index(device, layer)];
            let (bytes, count, stacks) = model.sums(device, layer);
            assert_eq!(
                (account.live_bytes, account.live_count),
                (bytes, count),
                "{device} {layer:?}"
            );
            let rows = trace.totals.iter().filter(|row| {
                row.key.used == 1
                    && row.key.device == device
                    && row.kind().unwrap().layer() == layer
            });
            let (mut at_peak, mut sampled) = (0, BTreeMap::<u32, u64>::new());
            for row in rows.filter(|row| row.key.end == End::Live as u8) {
                assert_eq!(
                    row.live_bytes,
                    stacks.get(&row.key.stack).copied().unwrap_or(0)
                );
                at_peak += row.at_peak(account.peak_epoch).0;
                *sampled.entry(row.key.stack).or_default() += row.sampled.live_bytes;
            }
            let of_layer = |e: &&Record| e.device == device && e.kind().unwrap().layer() == layer;
            for (stack, bytes) in sampled {
                let entries = model.live.values().filter(of_layer);
                let weights = entries.filter(|e| e.stack == stack);
                let weights = weights.map(|e| e.weight().bytes).sum::<u64>();
                assert_eq!(bytes, weights, "what is sampled of stack {stack}");
            }
            assert_eq!(at_peak, account.peak_bytes, "the shares of the peak add up");
        }
    }
    let mut live: Vec<Record> = trace
        .live
        .iter()
        .flatten()
        .filter(|slot| crate::live::is_live(slot.op))
        .copied()
        .collect();
    live.sort_by_key(|e| (e.space, e.key));
    assert_eq!(live, model.live.values().copied().collect::<Vec<_>>());
    for (&(stack, end), &(bytes, count)) in &model.ended {
        let sum = trace
            .totals
            .iter()
            .filter(|r| r.key.used == 1 && r.key.stack == stack && r.key.end == end);
        let sum = sum.fold((0, 0), |sum, row| {
            (sum.0 + row.live_bytes, sum.1 + row.live_count)
        });
        assert_eq!(sum, (bytes, count), "stack {stack} end {end}");
    }
    let rows = || trace.totals.iter().filter(|row| row.key.used == 1);
    for (&(stack, end), &bytes) in &model.sampled_ended {
        let rows = rows().filter(|row| row.key.stack == stack && row.key.end == end);
        assert_eq!(rows.map(|row| row.sampled.live_bytes).sum::<u64>(), bytes);
    }
    for (&stack, &made) in &model.sampled_made {
        let rows = rows().filter(|row| row.key.stack == stack && row.key.end == 0);
        let sum = rows.fold((0, 0), |sum, row| {
            (
                sum.0 + row.sampled.alloc_bytes,
                sum.1 + row.sampled.alloc_count,
            )
        });
        assert_eq!(
            sum, made,
            "what sampled allocations of stack {stack} stood for"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_equal_a_naive_model(steps in steps(if cfg!(miri) { 30 } else { 400 })) {
        let mut trace = Trace::new(512, 1024, 16);
        let mut model = Model::default();
        for event in events(&steps) {
            prop_assert_eq!(trace.record(&event), Applied::Yes);
            model.apply(&event);
        }
        assert_equal(&trace, &model);
        compare_curves(&trace, &events(&steps));
    }

    /// Before the kill point the event did not happen, after it it did; never anything between.
    #[test]
    fn a_kill_anywhere_leaves_whole_events(steps in steps(if cfg!(miri) { 8 } else { 60 }), last in any::<prop::sample::Index>()) {
        let events = events(&steps);
        let Some(cut) = (!events.is_empty()).then(|| last.index(events.len())) else { return Ok(()) };
        let mut trace = Trace::new(256, 512, 8);
        let mut model = Model::default();
        for event in &events[..cut] {
            trace.record(event);
            model.apply(event);
        }
        let mut after = model.clone();
        after.apply(&events[cut]);
        let mut kill_points = 0;
        let mut happened = false;
        loop {
            let mut killed = trace.clone();
            let done = killed_after(kill_points, || { killed.record(&events[cut]); });
            killed.recover();
            // From the point where the record is complete in the ring, the event has happened.
            let complete = killed.rings.iter().flatten().any(|r| r.seq == events[cut].seq);
            prop_assert!(complete || !happened);
            happened = complete;
            assert_equal(&killed, if complete { &after } else { &model });
            // The rest of the program finds a sound file.
            for event in &events[cut + usize::from(complete)..] {
                killed.record(event);
            }
            compare_curves(&killed, &events);
            if done {
                break;
            }
            kill_points += 1;
        }
        prop_assert!(kill_points >= 5, "the kill was exercised: {}", kill_points);
    }
}

/// Fifty allocations and their frees, each in a span of its own.
fn events_far_apart() -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    for n in 0..100u64 {
        let alloc = Record {
            seq: n + 1,
            time: n * 3_000_000_000,
            key: n % 50 * 512,
            size: 10 + n,
            stack: n as u32 % 3 + 1,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Device as u8,
            ..Record::default()
        };
        let event = match n.checked_sub(50) {
            None => alloc,
            Some(before) => {
                let entry: Record = all[before as usize];
                Record {
                    seq: n + 1,
                    time: alloc.time,
                    op: Op::Free as u8,
                    aux: Record::free_aux(entry.seq, entry.api),
                    ..entry
                }
            }
        };
        all.push(event);
    }
    all
}

/// The comparison above is worth nothing if there is nothing to compare.
#[test]
fn curves_are_compared() {
    let all = events_far_apart();
    let mut trace = Trace::new(64, 256, 8);
    for event in &all {
        assert_eq!(trace.record(event), Applied::Yes);
    }
    assert!(compare_curves(&trace, &all) > 100);
}

/// What an event does to its row is not in the span that ended with it, also when it is done twice.
#[test]
fn a_span_that_ended_with_a_kill_is_as_it_was() {
    let all = events_far_apart();
    for cut in [20, 49, 50, 70] {
        let mut trace = Trace::new(64, 256, 8);
        for event in &all[..cut] {
            trace.record(event);
        }
        for kill_points in 0.. {
            let mut killed = trace.clone();
            let done = killed_after(kill_points, || {
                killed.record(&all[cut]);
            });
            killed.recover();
            let complete = killed
                .rings
                .iter()
                .flatten()
                .any(|record| record.seq == all[cut].seq);
            for event in &all[cut + usize::from(complete)..] {
                killed.record(event);
            }
            compare_curves(&killed, &all);
            if done {
                assert!(kill_points >= 5);
                break;
            }
        }
    }
}

#[test]
fn a_full_live_table_drops_and_counts() {
    let mut trace = Trace::new(4, 512, 8);
    for n in 0..6u64 {
        let event = Record {
            seq: n + 1,
            key: n * 512,
            size: 10,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Device as u8,
            ..Record::default()
        };
        assert_eq!(
            trace.record(&event),
            if n < 4 {
                Applied::Yes
            } else {
                Applied::Dropped
            }
        );
    }
    let account = trace.accounts[0];
    assert_eq!(
        (
            account.live_count,
            account.dropped_count,
            account.dropped_bytes
        ),
        (4, 2, 20)
    );
}

/// Entries that teardown left make room one by one, where there is no other; then there is none.
#[test]
fn what_teardown_left_makes_room() {
    for indexed in [true, false] {
        let mut trace = Trace::new(8, 512, 8);
        if !indexed {
            trace.known = None;
        }
        let mut seq = 0;
        let mut record = |trace: &mut Trace, op, key| {
            seq += 1;
            trace.record(&Record {
                seq,
                key,
                size: 10,
                op: op as u8,
                space: Space::Device as u8,
                kind: Kind::Device as u8,
                ..Record::default()
            })
        };
        for key in 0..8 {
            assert_eq!(record(&mut trace, Op::Alloc, key), Applied::Yes);
        }
        for key in 0..6 {
            assert_eq!(record(&mut trace, Op::FreeInTeardown, key), Applied::Yes);
        }
        // Gone, although its entry is still there.
        assert_eq!(record(&mut trace, Op::Free, 0), Applied::NotLive);
        assert_eq!(record(&mut trace, Op::Free, 7), Applied::Yes);
        let states = |trace: &Trace| {
            let count = |op| trace.live[0].iter().filter(|slot| slot.op == op).count();
            [Op::Alloc as u8, Op::FreeInTeardown as u8].map(count)
        };
        assert_eq!(states(&trace), [1, 6]);
        for key in 100..107 {
            assert_eq!(record(&mut trace, Op::Alloc, key), Applied::Yes);
            assert_eq!(states(&trace)[1], 106 - key as usize);
        }
        assert_eq!(record(&mut trace, Op::Alloc, 200), Applied::Dropped);
        assert_eq!(record(&mut trace, Op::Free, 6), Applied::Yes);
        assert_eq!(record(&mut trace, Op::Alloc, 200), Applied::Yes);
        assert_eq!(record(&mut trace, Op::Free, 200), Applied::Yes);
    }
}

#[test]
fn more_stacks_than_rows_are_summed_up_in_one() {
    let mut trace = Trace::new(2048, 256, 8);
    for n in 0..1000u64 {
        let event = Record {
            seq: n + 1,
            key: n * 512,
            size: 3,
            stack: n as u32 + 1,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Device as u8,
            ..Record::default()
        };
        trace.record(&event);
    }
    let sum: u64 = trace.totals.iter().map(|row| row.live_bytes).sum();
    assert_eq!(sum, 3000);
    assert!(
        trace
            .totals
            .iter()
            .any(|row| row.key.stack == crate::stacks::OTHER_STACKS && row.live_count > 500)
    );
}

#[test]
fn churn_uses_one_slot_again_and_again() {
    let mut trace = Trace::new(1024, 256, 8);
    let mut seq = 0;
    for round in 0..20_000u64 {
        let alloc = Record {
            seq: seq + 1,
            key: round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 << 9,
            size: 1,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Device as u8,
            ..Record::default()
        };
        let free = Record {
            seq: seq + 2,
            op: Op::Free as u8,
            aux: Record::free_aux(seq + 1, 0),
            ..alloc
        };
        seq += 2;
        assert_eq!(trace.record(&alloc), Applied::Yes);
        assert_eq!(trace.record(&free), Applied::Yes);
    }
    let used = trace.live[0].iter().filter(|slot| slot.op != 0);
    assert_eq!(used.count(), 1);
}

/// The weighted share of a peak obeys the rule of the row's own share, whichever event comes last.
#[test]
fn what_is_sampled_keeps_its_share_of_the_peak() {
    let mut trace = Trace::new(512, 512, 16);
    let mut live: Vec<Record> = Vec::new();
    let (mut held, mut peak, mut at_peak) = (0u64, 0, 0u64);
    for n in 0..400u64 {
        let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let event = if random % 3 == 0 && !live.is_empty() {
            let entry = live.swap_remove(random as usize % live.len());
            held -= entry.size;
            Record {
                seq: n + 1,
                op: Op::Free as u8,
                aux: Record::free_aux(entry.seq, entry.api),
                ..entry
            }
        } else {
            let entry = Record {
                seq: n + 1,
                key: (n + 1) * 512,
                size: 1 + random % 900,
                stack: 1 + (random % 2) as u32,
                sampled: [0, 18, 25][(random % 5).min(2) as usize],
                op: Op::Alloc as u8,
                space: Space::Device as u8,
                kind: Kind::Device as u8,
                ..Record::default()
            };
            live.push(entry);
            held += entry.size;
            entry
        };
        trace.record(&event);
        if held > peak {
            peak = held;
            at_peak = live.iter().map(|entry| entry.weight().bytes).sum();
        }
    }
    let account = trace.accounts[account::index(0, Layer::Device)];
    assert_eq!(account.peak_bytes, peak);
    let rows = trace.totals.iter().filter(|row| row.key.used == 1);
    let shares: u64 = rows
        .map(|row| row.sampled.at_peak(account.peak_epoch))
        .sum();
    assert_eq!(shares, at_peak);
    assert!(at_peak > 0);
}
