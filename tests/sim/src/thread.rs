//! What belongs to a thread: its context stack, its capture mode, its number.
//!
//! Plain cells without destructors, because driver calls arrive from other libraries' thread-exit
//! and process-exit handlers, when thread-locals with destructors are gone already.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const DEPTH: usize = 64;

thread_local! {
    static STACK: [Cell<u64>; DEPTH] = const { [const { Cell::new(0) }; DEPTH] };
    static LEN: Cell<usize> = const { Cell::new(0) };
    static MODE: Cell<u32> = const { Cell::new(0) };
    static ID: Cell<u32> = const { Cell::new(0) };
}

/// The context on top of the stack, 0 for none.
pub fn current() -> u64 {
    let len = LEN.get();
    if len == 0 {
        0
    } else {
        STACK.with(|s| s[len - 1].get())
    }
}

/// Pushes a context; false when the stack is full.
pub fn push(ctx: u64) -> bool {
    let len = LEN.get();
    if len == DEPTH {
        return false;
    }
    STACK.with(|s| s[len].set(ctx));
    LEN.set(len + 1);
    true
}

/// Pops the top, None when the stack is empty.
pub fn pop() -> Option<u64> {
    let top = current();
    let len = LEN.get();
    if len == 0 {
        return None;
    }
    LEN.set(len - 1);
    Some(top)
}

/// Replaces the top (cuCtxSetCurrent); 0 pops it.
pub fn set(ctx: u64) -> bool {
    let _ = pop();
    ctx == 0 || push(ctx)
}

/// The thread's stream capture mode (CUstreamCaptureMode).
pub fn mode() -> u32 {
    MODE.get()
}

/// Sets the capture mode.
pub fn set_mode(mode: u32) {
    MODE.set(mode);
}

/// A number of this thread that no other thread has had.
pub fn id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if ID.get() == 0 {
        ID.set(NEXT.fetch_add(1, Relaxed));
    }
    ID.get()
}
