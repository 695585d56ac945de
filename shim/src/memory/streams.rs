//! Streams: which one a stream-ordered call ran on, as a small number in events.

use std::cell::Cell;
use vramtrace_format::cold::{self, Cold};
use vramtrace_recorder::{self as recorder, Renewable};

/// Streams that keep a number of their own; a program that makes more gets 0 for the rest.
const MOST: usize = 4096;

#[derive(Default)]
struct Streams {
    handles: std::collections::HashMap<usize, u32>,
}

static STREAMS: Renewable<Streams> = Renewable::new();

thread_local! {
    /// The stream this thread used last, and its number.
    static LAST: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

/// Handles below this are the default streams: null, legacy (1), per-thread (2).
const FIRST_REAL_HANDLE: usize = 3;

/// Whether the handle names a stream that was made, not a default stream.
pub fn is_made(stream: usize) -> bool {
    stream >= FIRST_REAL_HANDLE
}

/// Number of a stream; 0 for default streams.
#[inline]
pub fn number(stream: usize, context: u16) -> u32 {
    if !is_made(stream) {
        return 0;
    }
    let (last, number) = LAST.try_with(Cell::get).unwrap_or((0, 0));
    if last == stream {
        return number;
    }
    let number = look_up(stream, context);
    let _ = LAST.try_with(|last| last.set((stream, number)));
    number
}

#[cold]
fn look_up(stream: usize, context: u16) -> u32 {
    let Some(mut streams) = STREAMS.lock() else {
        return 0;
    };
    if let Some(number) = streams.handles.get(&stream) {
        return *number;
    }
    if streams.handles.len() >= MOST {
        return 0;
    }
    let number = streams.handles.len() as u32 + 1;
    streams.handles.insert(stream, number);
    drop(streams);
    recorder::cold(&Cold::Stream(cold::Stream {
        id: number,
        handle: stream as u64,
        context,
    }));
    number
}

/// A new trace begins.
pub fn start_over() {
    STREAMS.renew();
    let _ = LAST.try_with(|last| last.set((0, 0)));
}
