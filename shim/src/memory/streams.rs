//! Streams: which one a stream-ordered call ran on, as a small number in events, and the context that
//! it belongs to.

use super::{Real, SUCCESS, context, own_calls};
use bytemuck::Zeroable;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use vramtrace_format::cold::{self, Cold};
use vramtrace_recorder::{self as recorder, Renewable, per_thread};

/// Streams that keep a number of their own; a program that makes more gets 0 for the rest.
const MOST: usize = 4096;

#[derive(Default)]
struct Streams {
    handles: HashMap<usize, Made>,
    last_number: u32,
}

/// A stream that was made.
#[derive(Clone, Copy)]
struct Made {
    number: u32,
    /// Id of its context.
    context: u16,
}

static STREAMS: Renewable<Streams> = Renewable::new();

/// The stream that a thread used last, while [`context::handles_epoch`] stays what it was.
#[derive(Zeroable)]
struct Last {
    epoch: Cell<u64>,
    stream: Cell<usize>,
    number: Cell<u32>,
    context: Cell<u16>,
    device: Cell<u8>,
    /// The context was asked for, too.
    has_context: Cell<bool>,
}

per_thread! {
    fn last() -> Last as "vramtrace_last_stream";
}

impl Last {
    #[inline(always)]
    fn is(&self, stream: usize) -> bool {
        self.stream.get() == stream && self.epoch.get() == context::handles_epoch()
    }
}

/// Handles below this are the default streams: null, legacy (1), per-thread (2).
const FIRST_REAL_HANDLE: usize = 3;

/// Whether the handle names a stream that was made, not a default stream.
#[inline(always)]
fn is_made(stream: usize) -> bool {
    stream >= FIRST_REAL_HANDLE
}

/// A stream, as events name it.
#[derive(Clone, Copy)]
pub struct Stream {
    /// Its number; 0 for default streams.
    pub number: u32,
    /// Id of its context.
    pub context: u16,
    /// Its context's device.
    pub device: u8,
}

/// The stream behind a handle: a default stream is the current context's.
#[inline(always)]
pub fn of(stream: usize) -> Stream {
    if !is_made(stream) {
        let (context, device) = context::current();
        return Stream {
            number: 0,
            context,
            device,
        };
    }
    let last = last();
    if last.is(stream) && last.has_context.get() {
        return Stream {
            number: last.number.get(),
            context: last.context.get(),
            device: last.device.get(),
        };
    }
    ask(stream)
}

#[cold]
fn ask(stream: usize) -> Stream {
    let epoch = context::handles_epoch();
    let asked = own_calls::context_of_stream(stream);
    let (context, device) = asked.map_or_else(context::current, context::of_handle);
    let number = look_up(stream, || context);
    let last = last();
    last.epoch.set(epoch);
    last.stream.set(stream);
    last.number.set(number);
    last.context.set(context);
    last.device.set(device);
    last.has_context.set(asked.is_some());
    Stream {
        number,
        context,
        device,
    }
}

/// Number of a stream; 0 for default streams. Asks the driver nothing, but for a stream that was never
/// seen.
#[inline(always)]
pub fn number(stream: usize) -> u32 {
    if !is_made(stream) {
        return 0;
    }
    let last = last();
    if last.is(stream) {
        return last.number.get();
    }
    find_number(stream)
}

#[cold]
fn find_number(stream: usize) -> u32 {
    let epoch = context::handles_epoch();
    let number = look_up(stream, || {
        own_calls::context_of_stream(stream).map_or(0, |context| context::of_handle(context).0)
    });
    let last = last();
    last.epoch.set(epoch);
    last.stream.set(stream);
    last.number.set(number);
    last.has_context.set(false);
    number
}

fn look_up(stream: usize, context: impl FnOnce() -> u16) -> u32 {
    let known = |streams: &Streams| streams.handles.get(&stream).map(|made| made.number);
    if let Some(number) = STREAMS.lock().and_then(|streams| known(&streams)) {
        return number;
    }
    let context = context();
    let Some(mut streams) = STREAMS.lock() else {
        return 0;
    };
    if let Some(number) = known(&streams) {
        return number;
    }
    if streams.handles.len() >= MOST {
        return 0;
    }
    streams.last_number += 1;
    let number = streams.last_number;
    streams.handles.insert(stream, Made { number, context });
    drop(streams);
    recorder::cold(&Cold::Stream(cold::Stream {
        id: number,
        handle: stream as u64,
        context,
    }));
    number
}

/// We are giving work to a stream: nobody may destroy it meanwhile.
static IN_USE: AtomicBool = AtomicBool::new(false);
/// Putting an event into a stream takes microseconds; one that takes longer than this many yields is
/// stuck, and the program must not be.
const PATIENCE: usize = 10_000;

/// The streams of a context that numbers were given to: those that allocated or freed.
pub fn of_context(context: u16) -> Vec<usize> {
    let Some(streams) = STREAMS.lock() else {
        return Vec::new();
    };
    let all = streams.handles.iter();
    let of_it = all.filter(|(_, made)| made.context == context);
    of_it.map(|(handle, _)| *handle).collect()
}

/// Lets `act` use a stream of a context, if that is there still. One thread at a time.
pub fn use_if_there<T>(stream: usize, context: u16, act: impl FnOnce() -> T) -> Option<T> {
    struct Used;
    impl Drop for Used {
        fn drop(&mut self) {
            IN_USE.store(false, Ordering::SeqCst);
        }
    }
    // Said before it is looked for; who destroys it takes it away before looking here.
    IN_USE.store(true, Ordering::SeqCst);
    let _used = Used;
    let is_there = STREAMS.lock().is_some_and(|streams| {
        let made = streams.handles.get(&stream);
        made.is_some_and(|made| made.context == context)
    });
    is_there.then(act)
}

/// Waits, not forever, until we use none.
fn let_use_finish() {
    for _ in 0..PATIENCE {
        if !IN_USE.load(Ordering::SeqCst) {
            break;
        }
        std::thread::yield_now();
    }
}

/// A stream is destroyed through `real`. Forgotten before the call: the moment that returns,
/// another thread may be given the same handle.
pub fn destroy(stream: usize, real: impl Real) -> u32 {
    let made = STREAMS
        .lock()
        .and_then(|mut streams| streams.handles.remove(&stream));
    context::forget_handles();
    let_use_finish();
    let result = real();
    if result != SUCCESS {
        Gone(made.map(|made| (stream, made)).into_iter().collect()).come_back();
    }
    result
}

/// Streams that went with their contexts.
pub struct Gone(Vec<(usize, Made)>);

/// Contexts end, and their streams with them: to be said before the call that ends them, as for
/// [`destroy`].
pub fn contexts_end(is_one: impl Fn(u16) -> bool) -> Gone {
    let gone = STREAMS.lock().map_or_else(Vec::new, |mut streams| {
        let of_them = |_: &usize, made: &mut Made| is_one(made.context);
        streams.handles.extract_if(of_them).collect()
    });
    let_use_finish();
    Gone(gone)
}

impl Gone {
    /// The contexts did not end after all.
    pub fn come_back(self) {
        if let Some(mut streams) = STREAMS.lock() {
            for (stream, made) in self.0 {
                streams.handles.entry(stream).or_insert(made);
            }
        }
    }
}

/// A new trace begins.
pub fn start_over() {
    STREAMS.renew();
    IN_USE.store(false, Ordering::SeqCst);
    context::forget_handles();
}
