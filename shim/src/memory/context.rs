//! Contexts: what allocations belong to, and what happens to them when it goes.

use super::{SUCCESS, own_calls};
use crate::hook::Call;
use bytemuck::Zeroable;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_recorder::{self as recorder, Renewable, per_thread};

/// One context that was seen.
#[derive(Clone, Copy)]
struct Known {
    handle: usize,
    id: u16,
    device: u8,
    primary: bool,
}

#[derive(Default)]
struct Contexts {
    /// Contexts that exist, as far as we saw.
    alive: Vec<Known>,
    last_id: u16,
    /// Devices described in the trace, a bit each.
    described: u64,
}

static CONTEXTS: Renewable<Contexts> = Renewable::new();
/// Increases whenever a context or a stream goes, so that threads forget what they remember of it:
/// the driver reuses handles.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Changes whenever what a handle stands for may have changed.
#[inline(always)]
pub fn handles_epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// What is remembered of any handle is void.
pub fn forget_handles() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// The context that a thread saw last, while [`handles_epoch`] stays what it was.
#[derive(Zeroable)]
struct Last {
    epoch: Cell<u64>,
    handle: Cell<usize>,
    id: Cell<u16>,
    device: Cell<u8>,
}

per_thread! {
    fn last() -> Last as "vramtrace_last_context";
}

/// Id and device of the calling thread's context; (0, 0) if it has none.
#[inline(always)]
pub fn current() -> (u16, u8) {
    match own_calls::current_context() {
        Some(handle) => of_handle(handle),
        None => (0, 0),
    }
}

/// Id and device of a context.
#[inline(always)]
pub fn of_handle(handle: usize) -> (u16, u8) {
    let last = last();
    if last.handle.get() == handle && last.epoch.get() == handles_epoch() {
        return (last.id.get(), last.device.get());
    }
    ask(handle)
}

#[cold]
fn ask(handle: usize) -> (u16, u8) {
    let epoch = handles_epoch();
    let (id, device) = look_up(handle, None, false);
    let last = last();
    last.epoch.set(epoch);
    last.handle.set(handle);
    last.id.set(id);
    last.device.set(device);
    (id, device)
}

#[cold]
fn look_up(handle: usize, device: Option<u8>, primary: bool) -> (u16, u8) {
    let found = CONTEXTS.lock().and_then(|contexts| {
        contexts
            .alive
            .iter()
            .find(|known| known.handle == handle)
            .copied()
    });
    if let Some(known) = found {
        if primary && !known.primary {
            // Seen as somebody's current context before it was seen retained.
            if let Some(mut contexts) = CONTEXTS.lock() {
                for context in contexts
                    .alive
                    .iter_mut()
                    .filter(|context| context.handle == handle)
                {
                    context.primary = true;
                }
            }
        }
        return (known.id, known.device);
    }
    // Not seen being made (made before we were told, or by a way that is not hooked).
    let device = device.or_else(own_calls::current_device).unwrap_or(0);
    introduce(handle, device, primary)
}

fn introduce(handle: usize, device: u8, primary: bool) -> (u16, u8) {
    let Some(mut contexts) = CONTEXTS.lock() else {
        return (0, device);
    };
    if let Some(known) = contexts.alive.iter().find(|known| known.handle == handle) {
        return (known.id, known.device);
    }
    contexts.last_id = contexts.last_id.wrapping_add(1).max(1);
    let id = contexts.last_id;
    contexts.alive.push(Known {
        handle,
        id,
        device,
        primary,
    });
    let bit = 1u64 << (device % 64);
    let new_device = contexts.described & bit == 0;
    contexts.described |= bit;
    drop(contexts);
    if new_device {
        recorder::cold(&Cold::Device(own_calls::describe_device(device)));
    }
    recorder::cold(&Cold::Context(cold::Context {
        id,
        device,
        handle: handle as u64,
        primary,
    }));
    recorder::event(&Record {
        op: Op::ContextCreated as u8,
        key: handle as u64,
        context: id,
        device,
        ..Record::default()
    });
    (id, device)
}

/// Makes a device known that is used without a context on it.
pub fn device_used(device: u8) {
    let new = CONTEXTS.lock().is_some_and(|mut contexts| {
        let bit = 1u64 << (device % 64);
        let new = contexts.described & bit == 0;
        contexts.described |= bit;
        new
    });
    if new {
        recorder::cold(&Cold::Device(own_calls::describe_device(device)));
    }
}

/// A context was created or retained: tracing starts here at the latest.
pub fn created(call: &Call, result: u32, handle: Option<usize>, device: i32, primary: bool) -> u32 {
    if result == SUCCESS
        && crate::lifetime::start()
        && let Some(handle) = handle.filter(|handle| *handle != 0)
    {
        look_up(handle, u8::try_from(device).ok(), primary);
    }
    let _ = call;
    result
}

/// Whether the driver ends an allocation of this kind together with its context. Physical memory
/// (cuMemCreate) and stream-ordered memory belong to the device: they survive the context, and
/// also a reset of the primary context (seen on an H100, driver 580).
fn ends_with_context(entry: &Record) -> bool {
    let device_wide = matches!(
        entry.kind(),
        Some(
            Kind::Vmm | Kind::Async | Kind::Graph | Kind::Pool | Kind::Mapping | Kind::Reservation
        ) | None
    );
    // Physical memory on the host, or imported, belongs to no context either.
    !device_wide && entry.space != Space::Vmm as u8
}

/// A context is being destroyed through `real`.
pub fn destroy(call: &Call, handle: usize, real: impl super::Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let known = CONTEXTS.lock().and_then(|contexts| {
        contexts
            .alive
            .iter()
            .find(|known| known.handle == handle)
            .copied()
    });
    let Some(known) = known else { return real() };
    let began = recorder::event(&marker(Op::ContextEnding, known, call.api(), 0));
    // Before the call: the moment it returns, another thread may be given the same handle.
    forget(|context| context.handle == handle);
    let result = real();
    if result != SUCCESS
        && let Some(mut contexts) = CONTEXTS.lock()
    {
        contexts.alive.retain(|context| context.handle != handle);
        contexts.alive.push(known);
    }
    if result == SUCCESS {
        recorder::end_all(Op::EndByContext, call.api(), &|entry| {
            entry.context == known.id && entry.seq < began && ends_with_context(entry)
        });
    }
    recorder::event(&marker(Op::ContextGone, known, call.api(), result));
    result
}

/// A device's primary context is reset through `real`, or released: which resets it if that was
/// the last reference.
pub fn reset(call: &Call, device: i32, only_if_last: bool, real: impl super::Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let ordinal = u8::try_from(device).unwrap_or(NO_DEVICE);
    let primary = CONTEXTS.lock().and_then(|contexts| {
        contexts
            .alive
            .iter()
            .find(|known| known.primary && known.device == ordinal)
            .copied()
    });
    let known = primary.unwrap_or(Known {
        handle: 0,
        id: 0,
        device: ordinal,
        primary: true,
    });
    // Streams and handles go with it, and may come back the moment the call returns.
    forget_handles();
    // A release that is not the last leaves no trace; when it was the last is known afterwards.
    let began = recorder::event(&marker(Op::ContextEnding, known, call.api(), 0));
    let result = real();
    let gone = result == SUCCESS
        && (!only_if_last || own_calls::primary_context_is_active(device) == Some(false));
    if gone {
        forget(|context| context.primary && context.device == ordinal);
        recorder::end_all(Op::EndByReset, call.api(), &|entry| {
            known.id != 0
                && entry.context == known.id
                && entry.seq < began
                && ends_with_context(entry)
        });
    }
    recorder::event(&marker(
        Op::ContextGone,
        known,
        call.api(),
        if result == SUCCESS && !gone {
            NOT_THE_LAST
        } else {
            result
        },
    ));
    result
}

/// `aux` of [`Op::ContextGone`] where the context did not go after all: the release was not the
/// last one.
const NOT_THE_LAST: u32 = u32::MAX;

fn marker(op: Op, known: Known, api: u16, result: u32) -> Record {
    Record {
        op: op as u8,
        key: known.handle as u64,
        context: known.id,
        device: known.device,
        aux: u64::from(result),
        api,
        ..Record::default()
    }
}

fn forget(gone: impl Fn(&Known) -> bool) {
    if let Some(mut contexts) = CONTEXTS.lock() {
        contexts.alive.retain(|known| !gone(known));
    }
    forget_handles();
}

/// A new trace begins (this is a forked child): nothing of the parent's contexts exists here.
pub fn start_over() {
    CONTEXTS.renew();
    forget_handles();
}
