//! Which stacks are taken, what they cost, and what that may be.
//!
//! Every allocation is recorded; only taking its stack can be left out. A thread asks [`takes`], which is
//! a comparison ([`sampler`]); what a stack costs is measured around it ([`Stopwatch`]) and told to the
//! [`governor`], which belongs to the ledger and says by which interval everybody samples.

mod demand;
mod governor;
mod sampler;
mod stopwatch;

pub use governor::{Change, Governor};
pub use sampler::Sampler;
pub(crate) use stopwatch::{Cost, Stopwatch, choose_clock, now as reading, since};

use crate::per_thread;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// The steps in force, by lane: see [`vramtrace_format::sampling`].
static STEPS: [AtomicU8; 2] = [const { AtomicU8::new(0) }; 2];
/// Whether there is a budget, so that every stack has to be measured.
static GOVERNED: AtomicBool = AtomicBool::new(false);
/// What threads' seeds are made of.
static SEED: AtomicU64 = AtomicU64::new(0);

/// What a thread remembers.
#[derive(per_thread::Zeroable)]
struct OfThread {
    sampler: Sampler,
    /// Allocations until one is measured; 0 in a thread that has made none.
    until_measured: Cell<u32>,
}

per_thread! {
    fn of_thread() -> OfThread as "vramtrace_sampling";
}

/// The step in force in a lane.
#[inline(always)]
pub(crate) fn step(lane: usize) -> u8 {
    STEPS[lane].load(Ordering::Relaxed)
}

/// From now on everybody samples at these steps.
pub(crate) fn put_in_force(steps: [u8; 2]) {
    for (place, step) in STEPS.iter().zip(steps) {
        place.store(step, Ordering::Relaxed);
    }
}

/// A trace begins: its first steps, and whether its governor has a budget.
pub(crate) fn begin(steps: [u8; 2], governed: bool) {
    let seed = process_seed();
    SEED.store(seed, Ordering::Relaxed);
    GOVERNED.store(governed, Ordering::Relaxed);
    of_thread().sampler.seed(seed);
    put_in_force(steps);
}

/// Whether the stack of an allocation of `size` bytes is to be taken at this step, which is not 0.
#[inline]
pub(crate) fn takes(size: u64, step: u8) -> bool {
    let sampler = &of_thread().sampler;
    if !sampler.is_seeded() {
        let n = SEED.fetch_add(0xd134_2543_de82_ef95, Ordering::Relaxed);
        sampler.seed(n ^ u64::from(crate::process::thread_id()) << 32);
    }
    sampler.takes(size, step)
}

/// Something that is another in every process, from what the kernel gave it at its start: nothing that
/// the program could miss is used up.
fn process_seed() -> u64 {
    // SAFETY: getauxval takes a number and cannot fail; this one is the address of 16 random bytes, or
    // 0 on a system without them.
    let bytes = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u64; 2];
    let random = if bytes.is_null() {
        0
    } else {
        // SAFETY: mapped as long as the process lives, and not written by the kernel any more.
        unsafe { bytes.read_unaligned()[1] }
    };
    // A forked child has its parent's.
    let pid = u64::from(std::process::id());
    let now = crate::clock::monotonic_ns();
    (random ^ pid.rotate_left(40) ^ now).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
