//! Device code: loaded with its module or library, or, by default since CUDA 12.2, function by
//! function when each is first used ("lazy loading"). Its size is what the driver holds more
//! afterwards.

use super::footprint;
use super::{Real, SUCCESS, context, errors};
use crate::hook::Call;
use std::ffi::{CStr, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use vramtrace_format::footprint::Part;
use vramtrace_format::record::{Op, Record};
use vramtrace_recorder as recorder;

fn event(call: &Call, op: Op, handle: usize, growth: Option<i64>) -> Record {
    let (context, device) = context::current();
    Record {
        op: op as u8,
        key: handle as u64,
        aux: growth.unwrap_or(0) as u64,
        context,
        device,
        api: call.api(),
        ..Record::default()
    }
}

/// A module or library is loaded through `real`; `handle` then says which.
pub fn load(call: &Call, handle: impl FnOnce(u32) -> Option<usize>, real: impl Real) -> u32 {
    let (result, growth) = footprint::around(Part::Code, real);
    errors::look_at(result, call.api());
    if let Some(handle) = handle(result)
        && recorder::is_on()
    {
        recorder::event_with_stack(&event(call, Op::ModuleLoaded, handle, growth));
    }
    result
}

/// A module or library is unloaded through `real`.
pub fn unload(call: &Call, handle: usize, real: impl Real) -> u32 {
    // Before the call: afterwards another thread may be given the same handles.
    forget_all();
    let (result, growth) = footprint::around(Part::Code, real);
    errors::look_at(result, call.api());
    if result == SUCCESS && recorder::is_on() {
        recorder::event(&event(call, Op::ModuleUnloaded, handle, growth));
    }
    result
}

/// How a function is used; each way may load something of its own.
#[derive(Clone, Copy)]
pub enum Use {
    /// It is launched.
    Launch,
    /// It is asked for, or about.
    Ask,
}

/// A function is used through `real`.
#[inline(always)]
pub fn first_use(call: &Call, function: usize, how: Use, real: impl Real) -> u32 {
    if !recorder::is_on() {
        return real();
    }
    // A kernel of a library is loaded into each context that it is used in. Handles are addresses of
    // the driver's own objects, of which the lowest bits and the highest are free.
    let (context, _) = context::current();
    let key = function.wrapping_add(how as usize) ^ (usize::from(context) << 48);
    if function == 0 || USED.holds(key) {
        return real();
    }
    use_first(call, function, key, real)
}

/// A function of a module or library is looked for by its name through `real`, which may load it.
///
/// # Safety
/// `name` must be null or a NUL-terminated string, as the driver requires.
pub unsafe fn look_up(call: &Call, owner: usize, name: *const c_char, real: impl Real) -> u32 {
    if name.is_null() || !recorder::is_on() {
        return real();
    }
    // SAFETY: the caller's contract.
    let name = unsafe { CStr::from_ptr(name) };
    let (context, _) = context::current();
    let mut hasher = DefaultHasher::new();
    (owner, context, name).hash(&mut hasher);
    // Apart from handles, which are multiples of four but for how they are used.
    let key = hasher.finish() as usize | 2;
    if USED.holds(key) {
        return real();
    }
    use_first(call, owner, key, real)
}

#[cold]
#[inline(never)]
fn use_first(call: &Call, function: usize, key: usize, real: impl Real) -> u32 {
    let (result, growth) = footprint::around(Part::Code, real);
    errors::look_at(result, call.api());
    if result == SUCCESS {
        USED.add(key);
    }
    if let Some(growth) = growth.filter(|growth| *growth != 0) {
        recorder::event_with_stack(&event(call, Op::CodeGrew, function, Some(growth)));
    }
    result
}

/// Functions of modules that are gone: their handles come back.
pub fn forget_all() {
    USED.clear();
}

/// Handles of functions that were used, and names that were looked for. Looked up at every launch, so without a lock; what finds no
/// room is taken for known.
static USED: Handles = Handles([const { AtomicUsize::new(0) }; ROOM]);

const ROOM: usize = 1 << 13;
/// Slots that are looked at from a handle's own one on.
const PROBES: usize = 16;

struct Handles([AtomicUsize; ROOM]);

impl Handles {
    #[inline(always)]
    fn home(handle: usize) -> usize {
        ((handle as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize
    }

    #[inline(always)]
    fn holds(&self, handle: usize) -> bool {
        let first = self.0[Self::home(handle)].load(Ordering::Relaxed);
        first == handle || (first != 0 && self.holds_elsewhere(handle))
    }

    #[inline(never)]
    fn holds_elsewhere(&self, handle: usize) -> bool {
        for step in 1..PROBES {
            match self.0[(Self::home(handle) + step) % ROOM].load(Ordering::Relaxed) {
                0 => return false,
                found if found == handle => return true,
                _ => {}
            }
        }
        true
    }

    fn add(&self, handle: usize) {
        for step in 0..PROBES {
            let slot = &self.0[(Self::home(handle) + step) % ROOM];
            let taken = slot.compare_exchange(0, handle, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() || taken == Err(handle) {
                return;
            }
        }
    }

    fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_known_until_they_are_forgotten() {
        let handles = Handles([const { AtomicUsize::new(0) }; ROOM]);
        let all: Vec<usize> = (1..ROOM / 2).map(|n| n * 64).collect();
        for &handle in &all {
            assert!(!handles.holds(handle) || handles.holds_elsewhere(handle));
            handles.add(handle);
            assert!(handles.holds(handle), "{handle}");
        }
        handles.clear();
        assert!(all.iter().all(|&handle| !handles.holds(handle)));
    }

    #[test]
    fn a_full_table_takes_everything_for_known() {
        let handles = Handles([const { AtomicUsize::new(0) }; ROOM]);
        (1..4 * ROOM).for_each(|n| handles.add(n * 64));
        let known = (1..4 * ROOM).filter(|n| handles.holds(n * 64)).count();
        assert_eq!(known, 4 * ROOM - 1);
    }
}
