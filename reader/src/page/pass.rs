//! One pass over the events of a process, from which everything on the page comes that knows single
//! allocations.

use super::budget::Budget;
use super::cells::{Cells, What};
use super::gauge::Gauge;
use super::keys::Keys;
use super::maps::{Maps, Plan};
use super::picks::{Picks, Piece};
use crate::analysis::leaks::{Point, Window};
use crate::analysis::slices::{Slice, Slices};
use crate::analysis::timeline::Span;
use crate::analysis::usage::Caches;
use crate::model::Process;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use vramtrace_format::account;
use vramtrace_format::live::is_live;
use vramtrace_format::record::{Layer, Op, Record};

/// Ranges further in than this are not drawn.
const DEEPEST: usize = 8;

/// An allocation while it is there.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Its record; `time` is when its piece began.
    pub record: Record,
    /// Who made it; `None` where it counts nowhere.
    pub key: Option<u32>,
    /// It began before the event log.
    early: bool,
}

/// What a page learns of the processes one after the other.
pub struct Gathered {
    /// Who allocated.
    pub keys: Keys,
    /// What they did when.
    pub cells: Cells,
    /// Maps of segments.
    pub maps: Maps,
}

/// Allocations of one account that are drawn one by one.
pub struct Track {
    /// Device ordinal; `None` for host memory.
    pub device: Option<u8>,
    /// Layer.
    pub layer: Layer,
    /// Allocations.
    pub pieces: Vec<Piece>,
    /// How many there were.
    pub seen: u64,
    /// In each part of the time as long as this the largest are there, nanoseconds.
    pub finest: u64,
}

/// What is known of one process after the pass.
pub struct Passed {
    /// By account.
    pub tracks: Vec<Track>,
    /// What caching allocators and pools hold, by device.
    pub reserved: Vec<(u8, Vec<Span>)>,
    /// NVTX ranges.
    pub slices: Vec<Slice>,
    /// Ranges that were too short to be kept.
    pub ranges_left_out: u64,
    /// From when on each lane's events are all known, event times; `u64::MAX` never.
    pub from: [u64; 2],
}

fn place(event: &Record) -> (u8, u64) {
    (event.space, event.key)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What was there when the event log begins, and from when on that is whole.
fn before_log(process: &Process) -> (FxHashMap<(u8, u64), Record>, [u64; 2]) {
    let rings = &process.losses.rings;
    let mut first: [Option<(u64, u64)>; 2] = [None; 2];
    let mut early: FxHashMap<(u8, u64), Record> = FxHashMap::default();
    let whole = rings.iter().all(|ring| ring.overwritten == 0) && process.losses.lost() == 0;
    let mut touched: FxHashMap<(u8, u64), ()> = FxHashMap::default();
    if !whole {
        for event in process.events() {
            if event.op != Op::Restore as u8 {
                first[event.lane()].get_or_insert((event.time, event.seq));
            }
            let (Some(op), Some(_)) = (event.op(), event.kind()) else {
                continue;
            };
            let begins = op.begins_allocation();
            if !begins && !op.ends_allocation() && op != Op::Resize {
                continue;
            }
            if touched.insert(place(&event), ()).is_some() || begins {
                continue;
            }
            let size = if op == Op::Resize {
                event.aux
            } else {
                event.size
            };
            early.insert(
                place(&event),
                Record {
                    op: Op::Alloc as u8,
                    seq: if op == Op::Resize {
                        0
                    } else {
                        event.ended_seq()
                    },
                    api: event.allocating_api(),
                    time: 0,
                    size,
                    thread: 0,
                    stream: 0,
                    ..event
                },
            );
        }
    }
    let from = |lane: usize| match (rings[lane].overwritten, first[lane]) {
        (0, _) => 0,
        (_, Some((time, _))) => time,
        (_, None) => u64::MAX,
    };
    let from = [from(0), from(1)];
    for record in early.values_mut() {
        record.time = from[record.lane()];
    }
    if !whole {
        let live = process.live();
        for entry in live.filter(|entry| !touched.contains_key(&place(entry))) {
            early.insert(place(entry), *entry);
        }
    }
    (early, from)
}

struct Pass<'a, 'p> {
    id: usize,
    process: &'p Process,
    offset: u64,
    to: &'a mut Gathered,
    caches: Caches<'p>,
    live: FxHashMap<(u8, u64), Live>,
    picks: BTreeMap<usize, Picks>,
    gauges: BTreeMap<u8, (u64, Gauge)>,
    point: Point,
    teardown: u64,
    most: usize,
    budget: &'a Budget,
}

/// How much each process may have of what all share.
pub struct Share {
    /// Accounts in the page, of all processes.
    pub accounts: usize,
    /// Processes.
    pub processes: usize,
    /// Spans of series.
    pub spans: usize,
}

/// Reads through the events of the process with this id, which began `offset` nanoseconds after the
/// page does. `tick` hears of every event.
pub fn pass(
    id: usize,
    process: &Process,
    offset: u64,
    to: &mut Gathered,
    budget: &Budget,
    share: &Share,
    mut tick: impl FnMut(),
) -> Passed {
    let (early, from) = before_log(process);
    let mut pass = Pass {
        id,
        process,
        offset,
        to,
        caches: Caches::of(process),
        live: FxHashMap::default(),
        picks: BTreeMap::new(),
        gauges: BTreeMap::new(),
        point: Point::suiting(process, None, &Window::default()),
        teardown: process.teardown_seq().unwrap_or(u64::MAX),
        most: budget.allocations / share.accounts.max(1),
        budget,
    };
    pass.begin(early, share.spans);
    let length = process.duration_ns();
    let rings = &process.losses.rings;
    let events = rings
        .iter()
        .map(|ring| ring.written.saturating_sub(ring.overwritten));
    let moments = (budget.moments / share.processes.max(1)).max(8);
    let entries = budget.entries / share.processes.max(1);
    let peaks = process.accounts().map(|(.., account)| account.peak_time);
    let peaks: Vec<u64> = peaks.collect();
    let events = events.fold(0, u64::saturating_add);
    let mut plan = Plan::new(length, events, moments, entries, &peaks);
    let mut slices = Slices::new(process, budget.lanes, DEEPEST);
    let mut now = 0;
    for event in process.events() {
        tick();
        slices.event(&event);
        let (Some(op), Some(_)) = (event.op(), event.kind()) else {
            continue;
        };
        let previous = now;
        if op != Op::Restore {
            now = event.time.max(now);
        }
        if let Some(time) = plan.before(now, previous, pass.live.len()) {
            pass.map(time);
        }
        pass.event(op, &event, now);
    }
    pass.map(length);
    let slices_kept = slices.finish();
    let (tracks, reserved) = pass.finish(length);
    Passed {
        tracks,
        reserved,
        slices: slices_kept,
        ranges_left_out: slices.left_out,
        from,
    }
}

impl Pass<'_, '_> {
    fn begin(&mut self, early: FxHashMap<(u8, u64), Record>, spans: usize) {
        let mut reserved: BTreeMap<u8, u64> = BTreeMap::new();
        for (at, record) in early {
            let key = self.to.keys.of_event(self.id, &record, &mut self.caches);
            if key.is_some_and(|key| self.to.keys.cache[key as usize]) {
                let sum = reserved.entry(record.device).or_default();
                *sum = sum.wrapping_add(record.size);
            }
            self.live.insert(
                at,
                Live {
                    record,
                    key,
                    early: true,
                },
            );
        }
        let length = self.process.duration_ns();
        for (device, ..) in self.process.accounts() {
            if let Some(device) = device {
                let begun = reserved.get(&device).copied().unwrap_or(0);
                self.gauges
                    .insert(device, (begun, Gauge::new(length, spans, begun)));
            }
        }
    }

    fn map(&mut self, time: u64) {
        let cache = &self.to.keys.cache;
        let is_cache = |key: u32| cache[key as usize];
        self.to
            .maps
            .take(self.id, self.process, &self.live, is_cache, time);
    }

    fn event(&mut self, op: Op, event: &Record, now: u64) {
        match op {
            Op::Alloc | Op::Restore => {
                let mut record = *event;
                record.time = now;
                let key = self.to.keys.of_event(self.id, event, &mut self.caches);
                let live = Live {
                    record,
                    key,
                    early: false,
                };
                if let Some(before) = self.live.insert(place(event), live) {
                    self.piece(&before, now, Op::FreeUnseen as u8);
                }
                if op == Op::Alloc {
                    self.sum(key, now, What::Made, event.size, 1);
                } else {
                    self.sum(key, now, What::Gone, 0u64.wrapping_sub(event.size), -1);
                }
            }
            Op::Resize => {
                let Some(before) = self.live.get(&place(event)).copied() else {
                    return;
                };
                self.piece(&before, now, Op::Resize as u8);
                if let Some(live) = self.live.get_mut(&place(event)) {
                    live.record.size = event.size;
                    live.record.time = now;
                    live.early = false;
                }
                match event.size.checked_sub(event.aux) {
                    Some(more) => self.sum(before.key, now, What::Made, more, 0),
                    None => self.sum(before.key, now, What::Gone, event.aux - event.size, 0),
                }
            }
            _ if op.ends_allocation() => {
                let Some(before) = self.live.remove(&place(event)) else {
                    return;
                };
                self.piece(&before, now, op as u8);
                self.sum(before.key, now, What::Gone, event.size, 1);
                let kept = match op {
                    Op::EndByContext | Op::EndByReset => true,
                    Op::FreeInTeardown => {
                        self.point == Point::Teardown && before.record.seq <= self.teardown
                    }
                    _ => false,
                };
                if kept {
                    self.kept(&before);
                }
            }
            _ => {}
        }
    }

    /// Adds bytes (wrapping below nothing) and allocations.
    fn sum(&mut self, key: Option<u32>, now: u64, what: What, bytes: u64, count: i64) {
        let Some(key) = key else { return };
        let bytes = if count < 0 {
            -signed(0u64.wrapping_sub(bytes))
        } else {
            signed(bytes)
        };
        let time = self.offset.saturating_add(now);
        self.to.cells.add(key, time, what, bytes, count);
        let device = self.to.keys.all[key as usize].0.device;
        if self.to.keys.cache[key as usize]
            && let Some((_, gauge)) = self.gauges.get_mut(&device)
        {
            let by = match what {
                What::Gone => bytes.wrapping_neg(),
                _ => bytes,
            };
            gauge.change(now, by as u64);
        }
    }

    /// It was never freed.
    fn kept(&mut self, live: &Live) {
        let Some(key) = live.key else { return };
        if live.early || self.to.keys.cache[key as usize] {
            return;
        }
        let time = self.offset.saturating_add(live.record.time);
        let bytes = signed(live.record.size);
        self.to.cells.add(key, time, What::Kept, bytes, 1);
    }

    fn piece(&mut self, live: &Live, end: u64, how: u8) {
        let (Some(key), Some(kind)) = (live.key, live.record.kind()) else {
            return;
        };
        let record = &live.record;
        let row = account::index(record.device, kind.layer());
        let length = self.process.duration_ns();
        let (in_window, most) = (self.budget.in_window, self.most);
        let picks = self
            .picks
            .entry(row)
            .or_insert_with(|| Picks::new(length, in_window, most));
        picks.add(Piece {
            start: record.time,
            end,
            size: record.size,
            address: record.key,
            seq: record.seq,
            key,
            thread: record.thread,
            range: record.range.into(),
            how,
            // Its thread is not known where its beginning is not.
            early: live.early && record.thread == 0,
        });
    }

    fn finish(mut self, length: u64) -> (Vec<Track>, Vec<(u8, Vec<Span>)>) {
        let mut rest: Vec<Live> = self.live.values().copied().collect();
        rest.sort_unstable_by_key(|live| (live.record.seq, live.record.key));
        for live in rest {
            self.piece(&live, length.max(live.record.time), 0);
            let restored = live.record.op == Op::Restore as u8;
            let before_teardown = live.record.seq <= self.teardown || restored;
            if is_live(live.record.op) && (self.point != Point::Teardown || before_teardown) {
                self.kept(&live);
            }
        }
        let track = |(row, picks): (usize, Picks)| {
            let (device, layer) = account::of_index(row);
            Track {
                device,
                layer,
                seen: picks.seen,
                finest: picks.finest(),
                pieces: picks.finish(),
            }
        };
        let tracks = self.picks.into_iter().map(track).collect();
        let reserved = self.gauges.into_iter();
        let reserved = reserved
            .map(|(device, (begun, gauge))| (device, gauge.finish(begun)))
            .filter(|(_, spans)| spans.iter().any(|span| span.max > 0))
            .collect();
        (tracks, reserved)
    }
}
