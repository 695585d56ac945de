//! Attempts that belong together, out of the event log: a thread asks again, a recorder tries once
//! more, a framework gives up.

use super::{FrameworkGaveUp, OUT_OF_MEMORY, Part, Rescue, space};
use crate::analysis::Filter;
use crate::model::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::record::{Kind, Op, Record};

/// Attempts at the same allocation by one thread, without another allocation of its in between.
pub struct Series {
    /// The last attempt.
    pub event: Record,
    /// What was asked for.
    pub kind: Kind,
    /// The first attempt.
    pub first_seq: u64,
    /// When that was, event time.
    pub first_time: u64,
    /// The last event that is about them.
    pub last_seq: u64,
    /// How many; 0 where a framework gave up without having asked the driver.
    pub attempts: u64,
    /// Free and total bytes, at the last attempt.
    pub free: Option<(u64, u64)>,
    /// How much later the same was granted.
    pub retried: Option<u64>,
    /// That the recorder tried once more.
    pub rescue: Option<Rescue>,
    /// That a framework's allocator gave up over it.
    pub framework: Option<FrameworkGaveUp>,
    /// Allocations of the process up to the last attempt; in the end, those since.
    pub allocations: u64,
}

impl Series {
    fn begun(event: Record, kind: Kind, allocations: u64) -> Series {
        Series {
            event,
            kind,
            first_seq: event.seq,
            first_time: event.time,
            last_seq: event.seq,
            attempts: 0,
            free: None,
            retried: None,
            rescue: None,
            framework: None,
            allocations,
        }
    }

    fn is_attempt_at(&self, event: &Record) -> bool {
        let of = |event: &Record| (event.size, event.kind, event.device);
        of(&self.event) == of(event)
    }

    /// Whether an event is one of these attempts, or about them.
    pub fn spans(&self, seq: u64) -> bool {
        (self.first_seq..=self.last_seq).contains(&seq)
    }
}

/// All that the event log has of what is asked about, and how many attempts that is.
pub fn series(process: &Process, filter: &Filter, part: Part) -> (Vec<Series>, u64) {
    let mut found: Vec<Series> = Vec::new();
    // By thread: the series that its next attempt may belong to.
    let mut open: FxHashMap<u32, usize> = FxHashMap::default();
    let (mut attempts, mut allocations) = (0, 0);
    for event in process.events() {
        let (Some(op), kind) = (event.op(), event.kind()) else {
            continue;
        };
        let thread = event.thread;
        let counts = |kind| {
            filter.takes(space(&event, kind), kind)
                && part.is_none_or(|(from, to)| (from..=to).contains(&event.time))
        };
        match (op, kind) {
            (Op::Alloc, Some(kind)) if kind != Kind::Pool => {
                allocations += 1;
                let series = open.remove(&thread).map(|at| &mut found[at]);
                if let Some(series) = series.filter(|series| series.is_attempt_at(&event)) {
                    series.retried = Some(event.time.saturating_sub(series.event.time));
                }
            }
            (Op::AllocFailed, Some(kind)) if event.aux == OUT_OF_MEMORY => {
                let counts = counts(kind);
                attempts += u64::from(counts);
                let same = open.remove(&thread);
                let same = same.filter(|&at| counts && found[at].is_attempt_at(&event));
                let at = same.unwrap_or(found.len());
                if counts {
                    open.insert(thread, at);
                    if same.is_none() {
                        found.push(Series::begun(event, kind, allocations));
                    }
                    let series = &mut found[at];
                    series.attempts += 1;
                    series.event = event;
                    series.last_seq = event.seq;
                    series.free = None;
                    series.allocations = allocations;
                }
            }
            // Right after its failure, by the same thread; others' events may lie between.
            (Op::MemInfo, _) => {
                let series = open.get(&thread).map(|&at| &mut found[at]);
                let of = |event: &Record| (event.device, event.api);
                let own = series.filter(|series| of(&series.event) == of(&event));
                if let Some(series) = own.filter(|series| series.free.is_none()) {
                    series.free = Some((event.aux, event.size));
                    series.last_seq = event.seq;
                }
            }
            (Op::Rescue, _) => {
                let series = open.get(&thread).map(|&at| &mut found[at]);
                if let Some(series) = series.filter(|series| series.is_attempt_at(&event)) {
                    let (result, micros, impatient) = event.rescue();
                    series.rescue = Some(Rescue {
                        saved: result == 0,
                        bytes: event.key,
                        took_ns: micros.saturating_mul(1000),
                        impatient,
                    });
                    series.last_seq = event.seq;
                }
            }
            (Op::FrameworkOom, Some(kind)) => {
                let gave_up = FrameworkGaveUp {
                    asked: event.size,
                    allocated: event.key,
                    reserved: event.aux,
                    seq: event.seq,
                };
                attempts += u64::from(counts(kind));
                let of_driver = open.get(&thread).copied();
                let of_driver = of_driver.filter(|&at| found[at].event.device == event.device);
                let at = match of_driver {
                    Some(at) => at,
                    None if counts(kind) => {
                        found.push(Series::begun(event, kind, allocations));
                        open.insert(thread, found.len() - 1);
                        found.len() - 1
                    }
                    None => continue,
                };
                let series = &mut found[at];
                if series.attempts == 0 {
                    series.event = event;
                    series.allocations = allocations;
                }
                series.framework = Some(gave_up);
                series.last_seq = event.seq;
            }
            _ => {}
        }
    }
    for series in &mut found {
        series.allocations = allocations - series.allocations;
    }
    (found, attempts)
}
