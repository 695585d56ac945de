//! The usage counts of contexts (cuCtxAttach, cuCtxDetach; cuda.h calls both deprecated): the
//! detach that takes the last use destroys the context.

use super::{Real, SUCCESS, allocation, context};
use crate::hook::Call;
use std::collections::HashMap;
use vramtrace_recorder::{self as recorder, Renewable};

/// Uses of contexts beyond the one that created them.
static ATTACHED: Renewable<HashMap<usize, u64>> = Renewable::new();

/// One more use of the current context, which comes out.
pub fn attach(context: *const usize, real: impl Real) -> u32 {
    let result = real();
    // SAFETY: the program's own out-parameter of the call that came to this result.
    let made = unsafe { allocation::out_of(result, context) };
    if let Some(handle) = made.filter(|_| recorder::is_on()) {
        add(handle);
    }
    result
}

/// One use less.
pub fn detach(call: &Call, handle: usize, real: impl Real) -> u32 {
    // Taken before the call: when two threads detach, one of them destroys.
    if take(handle) {
        let result = real();
        if result != SUCCESS {
            add(handle);
        }
        return result;
    }
    context::destroy(call, handle, real)
}

fn add(handle: usize) {
    if let Some(mut attached) = ATTACHED.lock() {
        *attached.entry(handle).or_insert(0) += 1;
    }
}

fn take(handle: usize) -> bool {
    let Some(mut attached) = ATTACHED.lock() else {
        return false;
    };
    let Some(count) = attached.get_mut(&handle) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        attached.remove(&handle);
    }
    true
}

/// A context is gone, whatever its count was.
pub fn forget(handle: usize) {
    if let Some(mut attached) = ATTACHED.lock() {
        attached.remove(&handle);
    }
}

/// A new trace begins.
pub fn start_over() {
    ATTACHED.renew();
}
