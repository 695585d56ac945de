//! Which stacks a process had taken, by which intervals when, and what that cost.

use crate::trace::Trace;
use vramtrace_format::sampling::{Change, NONE, interval};

/// What was sampled, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Whether the trace says anything of it; older ones have all stacks.
    pub known: bool,
    /// The interval that was asked for, bytes; 0 all stacks, `None` no stack of any allocation.
    pub asked: Option<u64>,
    /// What stacks were allowed to cost, in millionths of a core; 0 anything.
    pub budget: u32,
    /// Allocations whose stack was not taken.
    pub not_sampled: u64,
    /// What taking stacks took, nanoseconds.
    pub stack_ns: u64,
    /// Stacks that were taken. Where there is no budget, to about sixteen.
    pub stacks: u64,
    /// Mean time that an event took without its stack, nanoseconds; `None` where none was measured.
    pub event_ns: Option<u64>,
    /// Events of the process.
    pub events: u64,
    /// How often the interval changed.
    pub changes: u64,
    /// The last of these, oldest first.
    pub last: Vec<Change>,
    /// Intervals that were in force, finest first.
    pub intervals: Vec<InForce>,
}

/// An interval that was in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Bytes; 0 all stacks.
    pub interval: u64,
    /// How long, nanoseconds.
    pub ns: u64,
    /// How often it was put in force.
    pub times: u64,
    /// For the first time, event time.
    pub first: u64,
    /// For the last time, event time.
    pub last: u64,
    /// What stacks took meanwhile, nanoseconds.
    pub stack_ns: u64,
}

impl Sampling {
    pub(super) fn of(trace: &Trace, duration_ns: u64) -> Sampling {
        let Some(table) = &trace.sampling else {
            return Sampling::default();
        };
        let head = &table.head;
        let intervals = table.steps.iter().zip(0u8..).filter_map(|(row, step)| {
            let current = step == head.step && row.times > 0;
            let since = if current {
                duration_ns.saturating_sub(head.since)
            } else {
                0
            };
            (row.times > 0).then(|| InForce {
                interval: interval(step),
                ns: row.ns.saturating_add(since),
                times: row.times,
                first: row.first,
                last: if current { duration_ns } else { row.last },
                stack_ns: row.stack_ns,
            })
        });
        let intervals: Vec<InForce> = intervals.collect();
        Sampling {
            known: !intervals.is_empty() || head.finest == NONE,
            asked: (head.finest != NONE).then(|| interval(head.finest)),
            budget: head.budget,
            not_sampled: head.not_sampled,
            stack_ns: head.stack_ns,
            stacks: head.stacks,
            event_ns: head.event_ns.checked_div(head.events),
            events: trace.copy.seq,
            changes: head.changes,
            last: table.last_changes().copied().collect(),
            intervals,
        }
    }

    /// Whether the stack of any allocation was left out.
    pub fn left_out_any(&self) -> bool {
        self.not_sampled > 0
    }

    /// The coarsest interval that was ever in force, bytes; at least 1.
    pub fn coarsest(&self) -> u64 {
        let intervals = self.intervals.iter().map(|one| one.interval);
        intervals.max().unwrap_or(0).max(1)
    }

    /// What stacks cost over the whole time, in millionths of a core.
    pub fn stack_cost(&self, duration_ns: u64) -> u64 {
        millionths(self.stack_ns, duration_ns)
    }

    /// What everything else cost, in millionths of a core: all events, at what those that were measured
    /// took.
    pub fn event_cost(&self, duration_ns: u64) -> Option<u64> {
        let each = self.event_ns?;
        Some(millionths(each.saturating_mul(self.events), duration_ns))
    }
}

fn millionths(ns: u64, of: u64) -> u64 {
    (u128::from(ns) * 1_000_000 / u128::from(of.max(1))) as u64
}
