//! Which allocations of a process failed lately, for lack of memory: read from the end of its event log,
//! only when its counters say that there are more than before. `vramtrace oom` says more of each, from all
//! of the log.

use super::names::Named;
use super::sample::FailureSample;
use super::sites::Place;
use crate::trace::{Glance, Sums};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record};

/// `CUDA_ERROR_OUT_OF_MEMORY` of cuda.h.
const OUT_OF_MEMORY: u64 = 2;
/// Events of a log that are looked through when a failure is looked for.
const MOST_EVENTS: u64 = 4096;

/// The failures of one process that were found so far.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// How many there were at the last look.
    count: u64,
    /// The newest event of each log that was looked at.
    seen: [u64; 2],
    found: VecDeque<Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    event: Record,
    kind: Kind,
    attempts: u64,
    free: Option<u64>,
    rescued: bool,
    framework: bool,
    /// Its thread has not allocated since: what fails next may be another attempt.
    open: bool,
}

impl Failure {
    /// One that nothing more is known of yet.
    fn new(event: Record, kind: Kind, framework: bool) -> Failure {
        Failure {
            event,
            kind,
            attempts: 1,
            free: None,
            rescued: false,
            framework,
            open: true,
        }
    }
}

impl Failures {
    /// Looks for more, if the counters say that there are; keeps the `most` newest.
    pub fn look(&mut self, glance: &Glance, sums: &Sums, most: usize) -> io::Result<()> {
        let rows = sums.accounts.iter();
        let count = rows.fold(0u64, |sum, row| sum.saturating_add(row.failed_count.into()));
        if count == self.count {
            return Ok(());
        }
        self.count = count;
        let mut events = Vec::new();
        for lane in 0..self.seen.len() {
            let recent = glance.recent(lane, self.seen[lane], MOST_EVENTS)?;
            let newest = recent.iter().map(|event| event.seq).max();
            self.seen[lane] = newest.unwrap_or(self.seen[lane]);
            if recent.len() as u64 == MOST_EVENTS {
                // What lies between is not known.
                self.found.iter_mut().for_each(|one| one.open = false);
            }
            events.extend(recent.into_iter().filter(is_about_failures));
        }
        events.sort_unstable_by_key(|event| event.seq);
        for event in events {
            self.take(event);
        }
        while self.found.len() > most {
            self.found.pop_front();
        }
        Ok(())
    }

    fn take(&mut self, event: Record) {
        let of_thread = |one: &&mut Failure| one.event.thread == event.thread;
        let same = |one: &&mut Failure| {
            let of = |event: &Record| (event.size, event.kind, event.device);
            of(&one.event) == of(&event)
        };
        let last = self.found.iter_mut().rev().find(of_thread);
        match (event.op(), event.kind()) {
            (Some(Op::Alloc), Some(kind)) if kind != Kind::Pool => {
                if let Some(last) = last {
                    last.open = false;
                }
            }
            (Some(Op::AllocFailed), Some(kind)) => {
                if let Some(last) = last.filter(|one| one.open).filter(same) {
                    last.attempts = last.attempts.saturating_add(1);
                    last.event = event;
                    last.free = None;
                    return;
                }
                self.found.push_back(Failure::new(event, kind, false));
            }
            (Some(Op::MemInfo), _) => {
                let of = |event: &Record| (event.device, event.api);
                let own = last.filter(|one| of(&one.event) == of(&event));
                if let Some(own) = own.filter(|own| own.free.is_none()) {
                    own.free = Some(event.aux);
                }
            }
            (Some(Op::Rescue), _) => {
                if let Some(last) = last.filter(same) {
                    last.rescued = event.rescue().0 == 0;
                }
            }
            (Some(Op::FrameworkOom), Some(kind)) => {
                let of = last.filter(|one| one.open && one.event.device == event.device);
                if let Some(last) = of {
                    last.framework = true;
                    return;
                }
                self.found.push_back(Failure::new(event, kind, true));
            }
            _ => {}
        }
    }

    /// Where they happened.
    pub fn places(&self) -> impl Iterator<Item = Place> + Clone + use<> {
        let places: Vec<Place> = self
            .found
            .iter()
            .map(|one| (one.event.stack, one.event.api))
            .collect();
        places.into_iter()
    }

    /// What is known of them, oldest first; `start` is when the trace began, Unix nanoseconds.
    pub fn known(&self, start: u64, names: &FxHashMap<Place, Arc<Named>>) -> Vec<FailureSample> {
        let tell = |one: &Failure| {
            let place = (one.event.stack, one.event.api);
            FailureSample {
                seq: one.event.seq,
                unix_ns: start.saturating_add(one.event.time),
                device: (one.event.device != NO_DEVICE).then_some(one.event.device),
                kind: one.kind,
                asked_bytes: one.event.size,
                free_bytes: one.free,
                attempts: one.attempts,
                rescued: one.rescued,
                framework: one.framework,
                place,
                named: names.get(&place).cloned(),
            }
        };
        self.found.iter().map(tell).collect()
    }
}

fn is_about_failures(event: &Record) -> bool {
    match event.op() {
        Some(Op::AllocFailed) => event.aux == OUT_OF_MEMORY,
        Some(op) => matches!(op, Op::Alloc | Op::MemInfo | Op::Rescue | Op::FrameworkOom),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: Op, seq: u64, thread: u32, size: u64) -> Record {
        Record {
            op: op as u8,
            seq,
            thread,
            size,
            aux: OUT_OF_MEMORY,
            kind: Kind::Device as u8,
            stack: 7,
            ..Record::default()
        }
    }

    #[test]
    fn attempts_at_the_same_are_one_failure_and_what_follows_belongs_to_it() {
        let mut failures = Failures::default();
        let free = |seq, thread| Record {
            aux: 99,
            ..event(Op::MemInfo, seq, thread, 1 << 30)
        };
        let rescue = Record {
            aux: Record::rescue_aux(0, 5, false),
            ..event(Op::Rescue, 6, 1, 64)
        };
        for one in [
            event(Op::AllocFailed, 1, 1, 64),
            event(Op::Alloc, 1, 3, 64),
            event(Op::AllocFailed, 2, 2, 32),
            event(Op::AllocFailed, 3, 1, 64),
            free(4, 1),
            event(Op::FrameworkOom, 5, 2, 40),
            rescue,
        ] {
            assert!(is_about_failures(&one));
            failures.take(one);
        }
        let known = failures.known(1000, &FxHashMap::default());
        assert_eq!(known.len(), 2);
        let first = &known[0];
        assert_eq!((first.attempts, first.free_bytes), (2, Some(99)));
        assert!(first.rescued && !first.framework);
        assert_eq!((first.asked_bytes, first.place), (64, (7, 0)));
        assert!(known[1].framework && known[1].free_bytes.is_none());
        assert_eq!(failures.places().count(), 2);
        // Once its thread has allocated, what fails is something new.
        failures.take(event(Op::Alloc, 7, 1, 8));
        failures.take(event(Op::AllocFailed, 8, 1, 64));
        assert_eq!(failures.known(0, &FxHashMap::default()).len(), 3);
        assert!(!is_about_failures(&Record {
            aux: 1,
            ..event(Op::AllocFailed, 1, 1, 64)
        }));
    }
}
