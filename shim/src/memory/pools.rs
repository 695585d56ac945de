//! Stream-ordered memory: pools hold bytes of the device, blocks are handed out of them.
//!
//! A block is the framework layer, its pool's reserve the device layer. The reserve changes
//! inside the driver; it is a gauge, sampled at calls that we see anyway and never during a
//! capture.

use super::allocation::{self, Asked, New};
use super::{Again, Real, SUCCESS, capture, context, ending, errors, own_calls, rescue, streams};
use crate::hook::Call;
use crate::lifetime;
use bytemuck::Zeroable;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vramtrace_format::record::{Allocation, Kind, NO_DEVICE, Record, Space};
use vramtrace_recorder::{self as recorder, Renewable, per_thread};

/// At most so often does a thread sample a pool's reserve, nanoseconds.
const SAMPLE_NS: u64 = 50_000_000;
/// Ids of pools begin here, above the graph pools.
const FIRST_ID: u64 = 0x2000;

#[derive(Clone, Copy)]
struct Pool {
    id: u64,
    /// Its device; [`NO_DEVICE`] for a pool of host memory.
    device: u8,
    imported: bool,
}

impl Pool {
    /// Whether its reserve is memory of a device, and ours.
    fn has_reserve(self) -> bool {
        !self.imported && self.device != NO_DEVICE
    }
}

#[derive(Default)]
struct Pools {
    by_handle: HashMap<usize, Pool>,
    /// The pool that cuMemAllocAsync uses, by device.
    current: HashMap<u8, usize>,
    last_id: u64,
    /// Handles whose destruction is under way: the driver may still name them.
    dying: Vec<usize>,
}

static POOLS: Renewable<Pools> = Renewable::new();
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
    real: impl Again,
) -> u32 {
    let mut result = real();
    if result != SUCCESS {
        result = not_allocated(call, bytes, stream, pool, result, &real);
    }
    if result != SUCCESS {
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
        // Blocks of a pool of host memory are page-locked host memory.
        kind: if pool_device == NO_DEVICE {
            Kind::Pinned
        } else {
            Kind::Async
        },
        device: pool_device,
    });
    let last = last();
    if time >= last.sample_at.get() && id != 0 {
        last.sample_at.set(time + SAMPLE_NS);
        sample_now(pool.unwrap_or(0), id, pool_device);
    }
    result
}

#[cold]
fn not_allocated(
    call: &Call,
    bytes: u64,
    stream: usize,
    pool: Option<usize>,
    error: u32,
    real: &dyn Fn() -> u32,
) -> u32 {
    // Whose memory it was to be is found out for a lack of memory only: after other errors, neither
    // handle need be one.
    let lacking = error == errors::OUT_OF_MEMORY && recorder::is_on();
    let device = lacking.then(|| which(streams::of(stream).device, pool).1);
    let asked = Asked {
        // Blocks of a pool of host memory are page-locked host memory.
        kind: if device == Some(NO_DEVICE) {
            Kind::Pinned
        } else {
            Kind::Async
        },
        bytes,
        device,
    };
    allocation::refused(call, asked, error, real)
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
    match pool.or_else(|| current_pool(device)) {
        Some(handle) => {
            let known = POOLS
                .lock()
                .and_then(|pools| pools.by_handle.get(&handle).copied());
            let pool = known.unwrap_or_else(|| {
                let device = pool.map_or(device, |_| device_of_unknown(handle, device));
                introduce(handle, device, false)
            });
            (pool.id, pool.device, handle)
        }
        None => (0, device, 0),
    }
}

/// The pool that cuMemAllocAsync uses on a device.
fn current_pool(device: u8) -> Option<usize> {
    let known = POOLS
        .lock()
        .and_then(|pools| pools.current.get(&device).copied());
    known.or_else(|| {
        let before = EPOCH.load(Ordering::Acquire);
        let asked = own_calls::pool_of_device(device)?;
        let mut pools = POOLS.lock()?;
        if pools.dying.contains(&asked) {
            return None;
        }
        // Not what may have been changed since it was asked for.
        if EPOCH.load(Ordering::Acquire) == before {
            pools.current.insert(device, asked);
        }
        Some(asked)
    })
}

/// The device of a pool that came to the program by a way that is not hooked: the one that has it
/// for its current pool, or else the one that uses it.
fn device_of_unknown(handle: usize, user: u8) -> u8 {
    const MOST_DEVICES: u8 = 64;
    (0..MOST_DEVICES)
        .map_while(|device| Some((device, own_calls::pool_of_device(device)?)))
        .find(|(_, pool)| *pool == handle)
        .map_or(user, |(device, _)| device)
}

/// The program was told which pool a device has.
pub fn met(handle: Option<usize>, device: Option<u8>) {
    if let (Some(handle), Some(device)) = (handle, device)
        && handle != 0
        && recorder::is_on()
    {
        introduce(handle, device, false);
    }
}

fn introduce(handle: usize, device: u8, imported: bool) -> Pool {
    let unknown = Pool {
        id: 0,
        device,
        imported,
    };
    let Some(mut pools) = POOLS.lock() else {
        return unknown;
    };
    if pools.dying.contains(&handle) {
        return unknown;
    }
    let next = FIRST_ID + pools.last_id;
    let pool = *pools.by_handle.entry(handle).or_insert(Pool {
        id: next,
        ..unknown
    });
    if pool.id == next {
        pools.last_id += 1;
        drop(pools);
        if pool.has_reserve() {
            context::device_used(pool.device);
        }
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
            // Whoever destroys the last pool of this handle may not be back yet; this is another.
            pools.dying.retain(|dying| *dying != handle);
        }
        introduce(handle, device, imported);
        EPOCH.fetch_add(1, Ordering::AcqRel);
    }
    result
}

/// A pool is destroyed through `real`. With live blocks that is deferred: it holds their memory
/// until the last is freed.
pub fn destroy(handle: usize, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    // Before the call: the moment it returns, another thread may be given the same handle; and
    // nobody may ask the driver about a pool that is gone.
    let gone = POOLS.lock().and_then(|mut pools| {
        pools.current.retain(|_, current| *current != handle);
        pools.dying.push(handle);
        pools.by_handle.remove(&handle)
    });
    EPOCH.fetch_add(1, Ordering::AcqRel);
    capture::let_own_calls_finish();
    rescue::let_trims_finish();
    let ends = gone.is_some_and(|pool| pool.has_reserve());
    if let Some(pool) = gone.filter(|_| ends) {
        ending::begins(pool.id, pool.device);
    }
    let result = real();
    if let Some(mut pools) = POOLS.lock() {
        if let Some(at) = pools.dying.iter().position(|dying| *dying == handle) {
            pools.dying.swap_remove(at);
        }
        if let Some(pool) = gone.filter(|_| result != SUCCESS) {
            pools.by_handle.insert(handle, pool);
        }
    }
    // What was learned of it meanwhile is void.
    EPOCH.fetch_add(1, Ordering::AcqRel);
    if let Some(pool) = gone.filter(|_| ends) {
        ending::decided(pool.id, result == SUCCESS);
    }
    result
}

/// A device was given another pool for cuMemAllocAsync.
pub fn set_current(result: u32, device: u8, handle: usize) -> u32 {
    if result == SUCCESS {
        if let Some(mut pools) = POOLS.lock() {
            pools.current.insert(device, handle);
        }
        EPOCH.fetch_add(1, Ordering::AcqRel);
    }
    result
}

/// The id of a pool that is known.
pub fn id_of(handle: usize) -> Option<u64> {
    Some(POOLS.lock()?.by_handle.get(&handle)?.id)
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
        let (id, ..) = look_up(device, Some(pool));
        let new = New {
            kind: Kind::Import,
            space: Space::Device,
            key: address,
            size: own_calls::size_of_allocation(address).unwrap_or(0),
            aux: id,
        };
        allocation::record(call, &new, context, device);
    }
    result
}

#[cold]
fn sample_now(handle: usize, id: u64, device: u8) {
    // Announced before it is looked up, so that whoever destroys the pool waits for the question.
    let Some(_in_flight) = capture::own_call() else {
        return;
    };
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
    if let Some(reserved) = own_calls::pool_reserve(handle) {
        set_reserve(
            &Pool {
                id,
                device,
                imported: false,
            },
            reserved,
        );
    }
}

/// A pool is being trimmed by us: nobody may destroy it meanwhile.
static TRIMMING: AtomicBool = AtomicBool::new(false);

/// Whether one is.
pub fn is_trimming() -> bool {
    TRIMMING.load(Ordering::SeqCst)
}

/// None is: this is a new trace.
pub fn no_trim() {
    TRIMMING.store(false, Ordering::SeqCst);
}

struct Trimming;

impl Trimming {
    fn begin() -> Trimming {
        TRIMMING.store(true, Ordering::SeqCst);
        Trimming
    }
}

impl Drop for Trimming {
    fn drop(&mut self) {
        no_trim();
    }
}

/// The pools of a device's memory that are ours and not being destroyed, the one that it always has
/// among them.
fn all_of(device: u8) -> Option<Vec<usize>> {
    let always = own_calls::default_pool_of_device(device);
    let current = own_calls::pool_of_device(device);
    let pools = POOLS.lock()?;
    let ours = pools.by_handle.iter();
    let ours = ours.filter(|(_, pool)| pool.has_reserve() && pool.device == device);
    let mut all: Vec<usize> = ours.map(|(handle, _)| *handle).collect();
    let further = always.into_iter().chain(current);
    all.extend(further.filter(|one| !pools.dying.contains(one)));
    all.sort_unstable();
    all.dedup();
    Some(all)
}

/// Does something with each pool of a device while it is certain to be there. `None` if a capture
/// is open.
fn each_of(device: u8, mut act: impl FnMut(usize)) -> Option<()> {
    let always = own_calls::default_pool_of_device(device);
    for handle in all_of(device)? {
        // Announced before it is looked up, so that whoever destroys the pool waits.
        let _in_flight = capture::own_call()?;
        let _trimming = Trimming::begin();
        let there = |pools: &Pools| {
            !pools.dying.contains(&handle)
                && (pools.by_handle.contains_key(&handle)
                    || always == Some(handle)
                    || pools.current.values().any(|current| *current == handle))
        };
        if POOLS.lock().is_some_and(|pools| there(&pools)) {
            act(handle);
        }
    }
    Some(())
}

/// What the pools of a device hold. `None` if a capture is open.
pub fn reserve_of_all(device: u8) -> Option<u64> {
    let mut sum = 0u64;
    each_of(device, |handle| {
        sum = sum.saturating_add(own_calls::pool_reserve(handle).unwrap_or(0));
    })?;
    Some(sum)
}

/// Sees what the pools of a device hold that were used so far; not while a capture is open.
pub fn sample_all(device: u8) {
    each_of(device, |handle| {
        let known = POOLS
            .lock()
            .and_then(|pools| pools.by_handle.get(&handle).copied());
        if let Some(pool) = known {
            sample(handle, pool.id, pool.device);
        }
    });
}

/// Makes the pools of a device give back what they do not use. `None` if a capture is open.
pub fn trim_all(device: u8) -> Option<()> {
    each_of(device, |handle| {
        let trimmed = own_calls::trim_pool(handle);
        let known = POOLS
            .lock()
            .and_then(|pools| pools.by_handle.get(&handle).copied());
        if let (Some(SUCCESS), Some(pool)) = (trimmed, known) {
            sample(handle, pool.id, pool.device);
        }
    })
}

fn set_reserve(pool: &Pool, bytes: u64) {
    if pool.has_reserve() {
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
    ending::start_over();
    last().sample_at.set(0);
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

/// Some device may have been given another pool.
pub fn current_unknown(result: u32) -> u32 {
    if result == SUCCESS {
        if let Some(mut pools) = POOLS.lock() {
            pools.current.clear();
        }
        EPOCH.fetch_add(1, Ordering::AcqRel);
    }
    result
}
