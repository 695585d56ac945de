//! Stream-ordered memory: pools hold bytes of the device, blocks are handed out of them.
//!
//! A block is the framework layer, its pool's reserve the device layer. The reserve changes
//! inside the driver; it is a gauge, sampled at calls that we see anyway and never during a
//! capture.

use super::allocation::{self, New};
use super::{Real, SUCCESS, capture, context, own_calls, streams};
use crate::hook::Call;
use crate::lifetime;
use bytemuck::Zeroable;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use vramtrace_format::record::{Allocation, Kind, Record, Space};
use vramtrace_recorder::{self as recorder, Renewable, per_thread};

/// At most so often does a thread sample a pool's reserve, nanoseconds.
const SAMPLE_NS: u64 = 50_000_000;
/// Key of a device's graph pool: this plus the ordinal.
pub const GRAPH_POOL: u64 = 0x1000;
/// Ids of pools begin here, above the graph pools.
const FIRST_ID: u64 = 0x2000;

#[derive(Clone, Copy)]
struct Pool {
    id: u64,
    device: u8,
    imported: bool,
    /// Destroyed while blocks were live: bytes of those.
    ending: Option<u64>,
}

#[derive(Default)]
struct Pools {
    by_handle: HashMap<usize, Pool>,
    /// The pool that cuMemAllocAsync uses, by device.
    current: HashMap<u8, usize>,
    /// Pools destroyed with live blocks, by id.
    ending: HashMap<u64, Pool>,
    last_id: u64,
}

static POOLS: Renewable<Pools> = Renewable::new();
/// How many pools were destroyed with live blocks.
static ENDING: AtomicUsize = AtomicUsize::new(0);
/// Increases when a device gets another current pool.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// What a thread knows of the pool that it used last.
#[derive(Zeroable)]
struct Last {
    /// [`EPOCH`] when it was true.
    epoch: Cell<u64>,
    /// The pool's handle, as the program gave it; 0 for the device's current pool.
    handle: Cell<usize>,
    id: Cell<u64>,
    /// When the thread samples a pool's reserve next, event time.
    sample_at: Cell<u64>,
    /// Device of the context that it was used in.
    device: Cell<u8>,
    /// Device that its memory is on.
    pool_device: Cell<u8>,
}

per_thread! {
    fn last() -> Last as "vramtrace_last_pool";
}

/// A block is allocated on `stream`, from `pool` or the device's current one.
#[inline]
pub fn allocate(
    call: &Call,
    address: *const u64,
    bytes: u64,
    stream: usize,
    pool: Option<usize>,
    real: impl Real,
) -> u32 {
    let result = real();
    if result != SUCCESS {
        allocation::failed(call, Kind::Async, bytes, result);
        return result;
    }
    // SAFETY: the program's out-parameter of a call that succeeded.
    let Some(address) = (unsafe { allocation::out(address) }).filter(|address| *address != 0)
    else {
        return result;
    };
    // During a capture the call only made a node; its memory lives when the graph is launched.
    if capture::makes_nodes(stream) || !lifetime::start() {
        return result;
    }
    let stream = streams::of(stream);
    let (id, pool_device) = which(stream.device, pool);
    let time = recorder::allocated(Allocation {
        key: address,
        size: bytes,
        aux: id,
        context: stream.context,
        stream: stream.number,
        api: call.api(),
        space: Space::Device,
        kind: Kind::Async,
        device: pool_device,
    });
    let last = last();
    if time >= last.sample_at.get() && id != 0 {
        last.sample_at.set(time + SAMPLE_NS);
        sample_now(pool.unwrap_or(0), id, pool_device);
    }
    result
}

/// A block is freed on `stream`.
#[inline]
pub fn free(call: &Call, address: u64, stream: usize, real: impl Real) -> u32 {
    if capture::makes_nodes(stream) {
        return real();
    }
    let number = streams::number(stream);
    allocation::free(
        call,
        Kind::Async.lane(),
        Space::Device,
        address,
        number,
        real,
    )
}

/// Id and device of the pool that a call used on a device.
#[inline(always)]
fn which(device: u8, pool: Option<usize>) -> (u64, u8) {
    let last = last();
    if last.handle.get() == pool.unwrap_or(0)
        && last.epoch.get() == EPOCH.load(Ordering::Relaxed)
        && last.device.get() == device
        && last.id.get() != 0
    {
        return (last.id.get(), last.pool_device.get());
    }
    find(device, pool)
}

#[cold]
fn find(device: u8, pool: Option<usize>) -> (u64, u8) {
    let epoch = EPOCH.load(Ordering::Relaxed);
    let (id, pool_device, _) = look_up(device, pool);
    if id != 0 {
        let last = last();
        last.epoch.set(epoch);
        last.handle.set(pool.unwrap_or(0));
        last.id.set(id);
        last.device.set(device);
        last.pool_device.set(pool_device);
    }
    (id, pool_device)
}

fn look_up(device: u8, pool: Option<usize>) -> (u64, u8, usize) {
    let handle = pool.or_else(|| {
        let known = POOLS
            .lock()
            .and_then(|pools| pools.current.get(&device).copied());
        known.or_else(|| {
            let asked = own_calls::pool_of_device(device)?;
            POOLS.lock()?.current.insert(device, asked);
            Some(asked)
        })
    });
    match handle {
        Some(handle) => {
            let pool = introduce(handle, device, false);
            (pool.id, pool.device, handle)
        }
        None => (0, device, 0),
    }
}

fn introduce(handle: usize, device: u8, imported: bool) -> Pool {
    let unknown = Pool {
        id: 0,
        device,
        imported,
        ending: None,
    };
    let Some(mut pools) = POOLS.lock() else {
        return unknown;
    };
    let next = FIRST_ID + pools.last_id;
    let pool = *pools.by_handle.entry(handle).or_insert(Pool {
        id: next,
        ..unknown
    });
    if pool.id == next {
        pools.last_id += 1;
    }
    pool
}

/// A pool was created on `device`.
pub fn created(result: u32, handle: Option<usize>, device: u8, imported: bool) -> u32 {
    if result == SUCCESS
        && lifetime::start()
        && let Some(handle) = handle
    {
        if let Some(mut pools) = POOLS.lock() {
            pools.by_handle.remove(&handle);
        }
        introduce(handle, device, imported);
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }
    result
}

/// A pool is destroyed through `real`. With live blocks that is deferred: it holds their memory
/// until the last is freed.
pub fn destroy(handle: usize, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    let used = own_calls::pool_usage(handle).map(|(_, used)| used);
    // Before the call: the moment it returns, another thread may be given the same handle; and
    // nobody may ask the driver about a pool that is gone.
    let gone = POOLS.lock().and_then(|mut pools| {
        pools.current.retain(|_, current| *current != handle);
        pools.by_handle.remove(&handle)
    });
    EPOCH.fetch_add(1, Ordering::Relaxed);
    capture::let_own_calls_finish();
    let result = real();
    let Some(pool) = gone else { return result };
    if result != SUCCESS {
        if let Some(mut pools) = POOLS.lock() {
            pools.by_handle.insert(handle, pool);
        }
        return result;
    }
    set_reserve(&pool, used.unwrap_or(0));
    if let Some(used) = used.filter(|used| *used > 0)
        && let Some(mut pools) = POOLS.lock()
    {
        pools.ending.insert(
            pool.id,
            Pool {
                ending: Some(used),
                ..pool
            },
        );
        ENDING.fetch_add(1, Ordering::Relaxed);
    }
    result
}

/// An entry was freed: the last block of a destroyed pool takes the pool with it.
#[inline]
pub fn block_freed(entry: &Record) {
    if ENDING.load(Ordering::Relaxed) != 0 && entry.kind() == Some(Kind::Async) {
        ending_block_freed(entry);
    }
}

#[cold]
fn ending_block_freed(entry: &Record) {
    let left = POOLS.lock().and_then(|mut pools| {
        let pool = pools.ending.get_mut(&entry.aux)?;
        let left = pool.ending.unwrap_or(0).saturating_sub(entry.size);
        pool.ending = Some(left);
        let pool = *pool;
        if left == 0 {
            pools.ending.remove(&entry.aux);
            ENDING.fetch_sub(1, Ordering::Relaxed);
        }
        Some((pool, left))
    });
    if let Some((pool, left)) = left {
        set_reserve(&pool, left);
    }
}

/// A device was given another pool for cuMemAllocAsync.
pub fn set_current(result: u32, device: u8, handle: usize) -> u32 {
    if result == SUCCESS {
        if let Some(mut pools) = POOLS.lock() {
            pools.current.insert(device, handle);
        }
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }
    result
}

/// Trims a pool through `real`, and sees what it holds now.
pub fn trim(handle: usize, real: impl Real) -> u32 {
    let result = real();
    if result == SUCCESS && recorder::is_on() {
        let known = POOLS
            .lock()
            .and_then(|pools| pools.by_handle.get(&handle).copied());
        if let Some(pool) = known {
            sample(handle, pool.id, pool.device);
        }
    }
    result
}

/// The program itself asked what a pool holds: use the answer.
pub fn told(handle: usize, attribute: u32, value: *const u64, result: u32) -> u32 {
    const RESERVED_NOW: u32 = 5;
    if result == SUCCESS && attribute == RESERVED_NOW && recorder::is_on() {
        let known = POOLS
            .lock()
            .and_then(|pools| pools.by_handle.get(&handle).copied());
        // SAFETY: the program's out-parameter of a call that succeeded.
        if let (Some(pool), Some(reserved)) = (known, unsafe { allocation::out(value) }) {
            set_reserve(&pool, reserved);
        }
    }
    result
}

/// A pointer of another process's pool became visible here.
pub fn import_pointer(call: &Call, address: *const u64, pool: usize, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, address) };
    if let Some(address) = made
        && lifetime::start()
    {
        let (context, device) = context::current();
        let (id, pool_device, _) = look_up(device, Some(pool));
        let new = New {
            kind: Kind::Import,
            space: Space::Device,
            key: address,
            size: own_calls::size_of_allocation(address).unwrap_or(0),
            aux: id,
        };
        allocation::record(call, &new, context, pool_device);
    }
    result
}

#[cold]
fn sample_now(handle: usize, id: u64, device: u8) {
    let known = |handle: &usize| {
        POOLS
            .lock()
            .is_some_and(|pools| pools.by_handle.contains_key(handle))
    };
    let handle = if handle != 0 {
        Some(handle).filter(known)
    } else {
        POOLS.lock().and_then(|pools| {
            pools
                .by_handle
                .iter()
                .find(|(_, pool)| pool.id == id)
                .map(|(handle, _)| *handle)
        })
    };
    if let Some(handle) = handle {
        sample(handle, id, device);
    }
}

fn sample(handle: usize, id: u64, device: u8) {
    if let Some((reserved, _)) = own_calls::pool_usage(handle) {
        set_reserve(
            &Pool {
                id,
                device,
                imported: false,
                ending: None,
            },
            reserved,
        );
    }
}

fn set_reserve(pool: &Pool, bytes: u64) {
    if !pool.imported {
        reserve_is(pool.id, pool.device, bytes);
    }
}

/// A pool's reserve, or a graph pool's, now stands at `bytes`.
pub fn reserve_is(id: u64, device: u8, bytes: u64) {
    recorder::gauge(&Record {
        key: id,
        size: bytes,
        space: Space::Pool as u8,
        kind: Kind::Pool as u8,
        device,
        ..Record::default()
    });
}

/// A new trace begins.
pub fn start_over() {
    POOLS.renew();
    last().sample_at.set(0);
    ENDING.store(0, Ordering::Relaxed);
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// Some device may have been given another pool.
pub fn current_unknown(result: u32) -> u32 {
    if result == SUCCESS {
        if let Some(mut pools) = POOLS.lock() {
            pools.current.clear();
        }
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }
    result
}
