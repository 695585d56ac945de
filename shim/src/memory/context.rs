//! Contexts: what allocations belong to, and what happens to them when it goes.

use super::{
    SUCCESS, attach, bindings, code, errors, footprint, green, imports, own_calls, streams,
};
use crate::hook::Call;
use bytemuck::Zeroable;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use vramtrace_format::cold::{self, Cold};
use vramtrace_format::record::{Kind, NO_DEVICE, Op, Record, Space};
use vramtrace_recorder::{self as recorder, Ending, Renewable, per_thread};

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
    if let Some(device) = green::device_of_face(handle) {
        let (id, device) = primary_retained(device);
        if let Some(mut contexts) = CONTEXTS.lock() {
            contexts.alive.push(Known {
                handle,
                id,
                device,
                primary: false,
            });
        }
        return (id, device);
    }
    // Not seen being made (made before we were told, or by a way that is not hooked).
    let device = device.or_else(own_calls::current_device).unwrap_or(0);
    introduce(handle, device, primary)
}

/// Id and device of a device's primary context, which exists, whether or not its handle is known.
pub fn primary_retained(device: u8) -> (u16, u8) {
    let known = CONTEXTS.lock().and_then(|contexts| {
        contexts
            .alive
            .iter()
            .find(|known| known.primary && known.device == device)
            .copied()
    });
    match known {
        Some(known) => (known.id, known.device),
        None => introduce(NO_HANDLE, device, true),
    }
}

/// In the place of the handle of a primary context that is only known to exist.
const NO_HANDLE: usize = 0;

fn introduce(handle: usize, device: u8, primary: bool) -> (u16, u8) {
    let Some(mut contexts) = CONTEXTS.lock() else {
        return (0, device);
    };
    let same = |known: &&mut Known| {
        let found = known.handle == handle && handle != NO_HANDLE;
        let unnamed = known.handle == NO_HANDLE && known.device == device;
        found || (primary && unnamed)
    };
    if let Some(known) = contexts.alive.iter_mut().find(same) {
        known.handle = handle;
        let known = *known;
        drop(contexts);
        recorder::cold(&Cold::Context(cold::Context {
            id: known.id,
            device,
            handle: handle as u64,
            primary: known.primary,
        }));
        return (known.id, known.device);
    }
    contexts.last_id = contexts.last_id.wrapping_add(1).max(1);
    let id = contexts.last_id;
    if !contexts.alive.iter().any(|known| known.device == device) {
        footprint::first_context(device);
    }
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
        if !primary {
            handle_reused(call, handle);
        }
        look_up(handle, u8::try_from(device).ok(), primary);
        footprint::context_is_current();
    }
    result
}

/// Whether the device's primary context exists, as far as was seen.
pub fn has_primary(device: i32) -> bool {
    CONTEXTS.lock().is_some_and(|contexts| {
        let is_one = |known: &Known| known.primary && i32::from(known.device) == device;
        contexts.alive.iter().any(is_one)
    })
}

/// These contexts, of one device, are gone, and the code that was loaded into them.
fn contexts_gone(contexts: &[Known]) {
    code::forget_all();
    let others = |known: &Known| !contexts.iter().any(|gone| gone.id == known.id);
    let Some(device) = contexts.first().map(|known| known.device) else {
        return;
    };
    let none_left = CONTEXTS.lock().is_some_and(|all| {
        let on_device = all.alive.iter().filter(|known| known.device == device);
        !on_device.copied().any(|known| others(&known))
    });
    if none_left {
        footprint::first_context(device);
    }
}

/// A new context has this handle: one that had it before is gone, by a way that is not hooked.
fn handle_reused(call: &Call, handle: usize) {
    green::not_a_face(handle);
    attach::forget(handle);
    let stale = known_as(handle);
    if !stale.is_empty() {
        forget_handle(handle);
        streams_of(&stale);
        end_with(call, &stale, Op::EndByContext, u64::MAX);
    }
}

/// Contexts known under a handle: more than one where a destroy failed while others looked.
fn known_as(handle: usize) -> Vec<Known> {
    CONTEXTS.lock().map_or_else(Vec::new, |contexts| {
        let same = |known: &&Known| known.handle == handle;
        contexts.alive.iter().filter(same).copied().collect()
    })
}

/// Says that these contexts may be ending: from within the call on, other threads are given their
/// memory's addresses and handles.
fn may_end(contexts: &[Known], how: Op) -> Vec<Ending> {
    let ending: Vec<Ending> = contexts
        .iter()
        .map(|known| Ending {
            context: known.id,
            how,
            ends: ends_with_context,
        })
        .collect();
    recorder::contexts_ending(&ending);
    ending
}

fn streams_of(contexts: &[Known]) -> streams::Gone {
    streams::contexts_end(|context| contexts.iter().any(|known| known.id == context))
}

/// Ends what goes with these contexts, as far as it was there before event `began`.
fn end_with(call: &Call, contexts: &[Known], how: Op, began: u64) {
    let is_one = |context: u16| contexts.iter().any(|known| known.id == context);
    recorder::end_all(how, call.api(), &|entry| {
        is_one(entry.context) && entry.seq < began && ends_with_context(entry)
    });
    imports::contexts_gone(is_one);
    bindings::contexts_gone(call, is_one);
}

/// Whether the driver ends an allocation of this kind together with its context. Physical memory
/// (cuMemCreate) and stream-ordered memory belong to the device: they survive the context, and
/// also a reset of the primary context (seen on an H100, driver 580).
fn ends_with_context(entry: &Record) -> bool {
    let device_wide = matches!(
        entry.kind(),
        Some(
            Kind::Vmm
                | Kind::Torch
                | Kind::Async
                | Kind::Graph
                | Kind::Pool
                | Kind::Mapping
                | Kind::Reservation
        ) | None
    );
    // Nor do physical memory on the host, or imported, and blocks of a pool of host memory.
    let of_host_pool = entry.kind() == Some(Kind::Pinned) && entry.space == Space::Device as u8;
    !device_wide && !of_host_pool && entry.space != Space::Vmm as u8
}

/// A context is being destroyed through `real`.
pub fn destroy(call: &Call, handle: usize, real: impl super::Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    if green::device_of_face(handle).is_some() {
        return real();
    }
    let contexts = known_as(handle);
    let Some(&known) = contexts.first() else {
        return real();
    };
    let began = recorder::event(&marker(Op::ContextEnding, known, call.api(), 0));
    // Before the call: the moment it returns, another thread may be given the same handle.
    forget_handle(handle);
    let streams = streams_of(&contexts);
    let ending = may_end(&contexts, Op::EndByContext);
    let result = real();
    if result == SUCCESS {
        attach::forget(handle);
        end_with(call, &contexts, Op::EndByContext, began);
        contexts_gone(&contexts);
    } else {
        streams.come_back();
        if let Some(mut alive) = CONTEXTS.lock() {
            alive.alive.extend(contexts);
        }
    }
    recorder::contexts_ended(&ending);
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
    let primaries = CONTEXTS.lock().map_or_else(Vec::new, |contexts| {
        let is_one = |known: &&Known| known.primary && known.device == ordinal;
        contexts.alive.iter().filter(is_one).copied().collect()
    });
    let known = primaries.first().copied().unwrap_or(Known {
        handle: 0,
        id: 0,
        device: ordinal,
        primary: true,
    });
    // Streams and handles go with it, and may come back the moment the call returns.
    forget_handles();
    let streams = streams_of(&primaries);
    // A release that is not the last leaves no trace; when it was the last is known afterwards.
    let began = recorder::event(&marker(Op::ContextEnding, known, call.api(), 0));
    let ending = may_end(&primaries, Op::EndByReset);
    let before = number_of(known);
    let result = real();
    // Another thread may have retained it anew since the last release.
    let is_new = || before.is_some_and(|before| number_of(known).is_some_and(|now| now != before));
    let gone = result == SUCCESS
        && (!only_if_last
            || own_calls::primary_context_is_active(device) == Some(false)
            || is_new());
    if gone {
        // It stays known, and keeps its id: the driver keeps its handle, and another thread may
        // have retained it anew already.
        primaries
            .iter()
            .for_each(|known| errors::context_is_new(known.id));
        end_with(call, &primaries, Op::EndByReset, began);
        // A framework's blocks lie in its segments, which went.
        recorder::end_all(Op::EndByReset, call.api(), &|entry| {
            entry.kind() == Some(Kind::Torch) && entry.device == ordinal && entry.seq < began
        });
        contexts_gone(&primaries);
    } else {
        streams.come_back();
    }
    recorder::contexts_ended(&ending);
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

fn number_of(known: Known) -> Option<u64> {
    (known.handle != NO_HANDLE)
        .then(|| own_calls::number_of_context(known.handle))
        .flatten()
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

/// What was known under a handle is not there any more.
pub fn forget_handle(handle: usize) {
    if let Some(mut contexts) = CONTEXTS.lock() {
        contexts.alive.retain(|known| known.handle != handle);
    }
    forget_handles();
}

/// A new trace begins (this is a forked child): nothing of the parent's contexts exists here.
pub fn start_over() {
    CONTEXTS.renew();
    forget_handles();
}
