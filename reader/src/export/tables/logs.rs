//! The rows of the long tables: allocations and events.

use super::Cell;
use super::words::Vocabulary;
use crate::export::log::{self, Log};
use crate::export::pipe::Feed;
use crate::export::samples::Selection;
use crate::export::stacks::{Id, Stacks};
use vramtrace_format::record::{NO_DEVICE, Op, Record};

/// A number unless it says that there is none.
fn unless(none: u64, number: u64) -> Cell<'static> {
    if number == none {
        Cell::Null
    } else {
        Cell::Number(number)
    }
}

fn number(number: Option<u64>) -> Cell<'static> {
    number.into()
}

/// Rows of `allocations`.
pub fn allocations(
    logs: &mut [Log<'_>],
    stacks: &Stacks,
    words: &Vocabulary,
    selection: &Selection,
    rows: &mut Feed<Cell<'static>>,
) {
    for log in logs {
        let (id, process) = (log.id, log.process);
        // The iterator borrows the lifetimes, and roles are remembered beside them.
        let lifetimes = std::mem::take(&mut log.lifetimes);
        for lifetime in lifetimes.iter(process) {
            if !rows.step() {
                return;
            }
            if !log.takes(&lifetime, selection) {
                continue;
            }
            let what = &lifetime.what;
            let begun = lifetime.begun.as_ref();
            let end = lifetime.end.as_ref().filter(|end| end.seq != 0);
            let lifetime_ns = match (begun, end) {
                (Some(begun), Some(end)) => Some(end.time.saturating_sub(begun.time)),
                _ => None,
            };
            let thread = begun.map_or(0, |begun| begun.thread);
            let [layer, kind] = words.kind(what.kind());
            let [stack, site] = words.stack(stacks.id((id, what.stack, what.api)));
            rows.push(&[
                Cell::Number(id as u64),
                Cell::Number(lifetime.seq),
                words.state(log::state(&lifetime, process)),
                words.role(log.role(&lifetime)),
                layer,
                kind,
                unless(NO_DEVICE.into(), what.device.into()),
                Cell::Number(what.size),
                Cell::Number(what.key),
                number(begun.map(|begun| process.unix_ns(begun.time))),
                number(end.map(|end| process.unix_ns(end.time))),
                number(lifetime_ns),
                number(end.map(|end| end.seq)),
                unless(0, thread.into()),
                match thread {
                    0 => Cell::Null,
                    thread => words.thread(id, thread),
                },
                words.range(id, what.range),
                number(begun.map(|begun| begun.stream.into())),
                Cell::Number(what.context.into()),
                words.api(id, what.api),
                number(end.map(|end| end.thread.into())),
                end.map_or(Cell::Null, |end| words.api(id, end.api)),
                stack,
                site,
            ]);
        }
        log.lifetimes = lifetimes;
    }
}

/// Rows of `events`.
pub fn events(
    logs: &[Log<'_>],
    stacks: &Stacks,
    words: &Vocabulary,
    selection: &Selection,
    rows: &mut Feed<Cell<'static>>,
) {
    for log in logs {
        let (id, process) = (log.id, log.process);
        for event in process.events() {
            if !rows.step() {
                return;
            }
            let taken = event.op().filter(|_| log.takes_event(&event, selection));
            let Some(op) = taken else { continue };
            let of_memory = event.kind().is_some();
            let allocation = match op {
                _ if op.ends_allocation() => Some(log.lifetimes.origin(event.ended_seq())),
                Op::Alloc | Op::Restore => Some(log.lifetimes.origin(event.seq)),
                _ => None,
            };
            let failed = matches!(
                op,
                Op::AllocFailed | Op::FreeFailed | Op::ContextGone | Op::ContextCorrupted
            );
            let has_aux = !failed && !op.ends_allocation() && op != Op::Mark;
            let [layer, kind] = words.kind(event.kind());
            let [stack, site] = words.stack(stack_of(stacks, id, &event, of_memory));
            rows.push(&[
                Cell::Number(id as u64),
                Cell::Number(event.seq),
                Cell::Number(process.unix_ns(event.time)),
                words.op(op),
                layer,
                kind,
                match of_memory {
                    true => unless(NO_DEVICE.into(), event.device.into()),
                    false => Cell::Null,
                },
                Cell::Number(event.size),
                Cell::Number(event.key),
                number(allocation),
                number(failed.then_some(event.aux)),
                number(has_aux.then_some(match op {
                    // A time, as all times here are.
                    Op::RangeEnded => process.unix_ns(event.aux),
                    _ => event.aux,
                })),
                match op {
                    Op::Mark => words.mark(id, event.aux as u32),
                    _ => Cell::Null,
                },
                unless(0, event.thread.into()),
                words.range(id, event.range),
                Cell::Number(event.stream.into()),
                Cell::Number(event.context.into()),
                words.api(id, event.api),
                stack,
                site,
            ]);
        }
    }
}

/// The stack of an event; of those that are about no memory only where there is one.
fn stack_of(stacks: &Stacks, process: usize, event: &Record, of_memory: bool) -> Option<Id> {
    let id = stacks.id((process, event.stack, event.allocating_api()));
    id.filter(|_| of_memory || event.stack != vramtrace_format::stacks::NO_STACK)
}
