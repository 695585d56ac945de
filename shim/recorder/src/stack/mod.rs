//! Native call stacks of the calling thread, cheap enough for every allocation.
//!
//! framehop walks with cached unwind rules; what a return address means (module and offset) is
//! cached too, so a warm frame costs a few nanoseconds. Walking never leaves the thread's own
//! stack, reads unwind data only from our own mappings of the files (a dlclose cannot pull it
//! away), and allocates nothing.

mod bounds;
mod image;

pub use image::SectionBytes;
pub mod modules;

use framehop::{
    CacheNative, FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder,
};
use modules::Modules;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use vramtrace_format::cold;
use vramtrace_format::stacks::{Frame, MAX_FRAMES, TRUNCATED};

/// A captured stack: stored frames, innermost first.
pub struct Stack {
    frames: [u64; MAX_FRAMES],
    len: usize,
    flags: u16,
}

impl Stack {
    /// An empty one.
    pub const fn new() -> Stack {
        Stack {
            frames: [0; MAX_FRAMES],
            len: 0,
            flags: 0,
        }
    }

    /// The frames, as the trace stores them.
    pub fn frames(&self) -> &[u64] {
        &self.frames[..self.len]
    }

    /// Flags for the stack table.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    #[inline]
    fn push(&mut self, frame: u64) -> bool {
        let room = self.len < MAX_FRAMES;
        if room {
            self.frames[self.len] = frame;
            self.len += 1;
        } else {
            self.flags |= TRUNCATED;
        }
        room
    }
}

/// Rule tables of a walker, a power of two.
const CACHES: usize = 8;
/// Entries of a walker's address cache.
const KNOWN: usize = 1024;
/// Walkers kept for reuse; more threads than this at once make their own for one walk.
const POOL: usize = 64;

/// Everything one walk needs. Pooled, so that threads that come and go leave nothing behind.
struct Walker {
    /// framehop keeps a rule per address in a direct-mapped table of 509; frames of one stack that
    /// share a slot evict each other on every walk, at some 200 ns a miss. Several tables, chosen
    /// by address, make that rare.
    caches: Box<Caches>,
    modules: Arc<Modules>,
    /// What return addresses mean, direct-mapped: address and stored frame.
    known: Box<[(u64, u64); KNOWN]>,
}

static WALKERS: [AtomicPtr<Walker>; POOL] = [const { AtomicPtr::new(std::ptr::null_mut()) }; POOL];

/// Modules found since the last call, for the trace. Called with no lock held.
pub fn new_modules() -> Vec<cold::Module> {
    modules::take_unreported()
}

/// Takes the stack of the calling thread, without the frames of this library.
///
/// Returns whether modules became known that the trace does not know yet.
#[inline(never)]
pub fn capture(into: &mut Stack) -> bool {
    into.len = 0;
    into.flags = 0;
    let home = crate::process::thread_id() as usize % POOL;
    let mut walker = take(home);
    walk(&mut walker, into);
    give_back(home, walker);
    modules::has_unreported()
}

type Caches = [CacheNative<MustNotAllocateDuringUnwind>; CACHES];

fn fresh_caches() -> Box<Caches> {
    Box::new(std::array::from_fn(|_| CacheNative::new_in()))
}

fn take(home: usize) -> Box<Walker> {
    let found = WALKERS[home].swap(std::ptr::null_mut(), Ordering::Acquire);
    if found.is_null() {
        return Box::new(Walker {
            caches: fresh_caches(),
            modules: modules::current(),
            known: Box::new([(0, 0); KNOWN]),
        });
    }
    // SAFETY: pointers in the pool come from `give_back`, and the swap made us the only owner.
    unsafe { Box::from_raw(found) }
}

fn give_back(home: usize, walker: Box<Walker>) {
    let walker = Box::into_raw(walker);
    if WALKERS[home]
        .compare_exchange(
            std::ptr::null_mut(),
            walker,
            Ordering::Release,
            Ordering::Relaxed,
        )
        .is_err()
    {
        // SAFETY: it was not put into the pool, so it is still ours alone.
        drop(unsafe { Box::from_raw(walker) });
    }
}

/// Where the calling thread is: instruction, stack and frame pointer.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn here() -> (u64, UnwindRegsNative) {
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: reads three registers; touches no memory and no flags.
    unsafe {
        std::arch::asm!("lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp",
            ip = out(reg) ip, sp = out(reg) sp, bp = out(reg) bp, options(nomem, nostack, preserves_flags));
    }
    (ip, UnwindRegsNative::new(ip, sp, bp))
}

#[inline(never)]
fn walk(walker: &mut Walker, into: &mut Stack) {
    modules::refresh_if_stale();
    if modules::generation() != walker.modules.generation {
        walker.update();
    }
    let (ip, mut regs) = here();
    let (low, high) = bounds::of_this_thread(regs.sp());
    let mut read_stack = |address: u64| {
        if address < low || address > high - 8 || !address.is_multiple_of(8) {
            return Err(());
        }
        // SAFETY: inside the thread's own stack, above its stack pointer, aligned: live memory
        // that only this thread writes.
        Ok(unsafe { *(address as *const u64) })
    };
    let Walker {
        caches,
        modules,
        known,
    } = walker;
    let own = &modules.own;
    let mut frame = FrameAddress::from_instruction_pointer(ip);
    loop {
        let address = frame.address_for_lookup();
        let cache = &mut caches
            [(address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CACHES.ilog2())) as usize];
        let caller = match modules
            .unwinder
            .unwind_frame(frame, &mut regs, cache, &mut read_stack)
        {
            Ok(Some(address)) => address,
            Ok(None) => break,
            Err(_) => {
                into.flags |= TRUNCATED;
                break;
            }
        };
        let Some(next) = FrameAddress::from_return_address(caller) else {
            break;
        };
        frame = next;
        if own.contains(&caller) {
            continue;
        }
        let cell = &mut known
            [(caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - KNOWN.ilog2())) as usize];
        if cell.0 != caller {
            *cell = (caller, modules.stored(caller));
        }
        if !into.push(cell.1) {
            break;
        }
    }
    // framehop knows the common rules and guesses by frame pointer at the rest; where the guess
    // led nowhere the system's unwinder, ten times slower, may know. Not on a stack whose end
    // nobody knows: that one reads without bounds.
    if into.flags & TRUNCATED != 0 && into.len < MAX_FRAMES && low != u64::MAX {
        fallback(modules, into);
    }
}

/// Asks the system's unwinder for the whole stack, and takes its answer if it is longer.
#[cold]
fn fallback(modules: &Modules, into: &mut Stack) {
    let mut whole = Stack::new();
    backtrace::trace(|frame| {
        let address = frame.ip() as u64;
        modules.own.contains(&address) || whole.push(modules.stored(address))
    });
    if whole.len > into.len {
        *into = whole;
    }
}

impl Walker {
    #[cold]
    fn update(&mut self) {
        self.modules = modules::current();
        self.known.fill((0, 0));
        // framehop tells old rules from new ones by a 16-bit count of module changes, which a
        // long-lived process wraps.
        self.caches = fresh_caches();
    }
}

impl Modules {
    /// A return address as the trace stores it.
    fn stored(&self, address: u64) -> u64 {
        match self.find(address.wrapping_sub(1)) {
            Some(module) => Frame::Native {
                module: module.id,
                offset: address.wrapping_sub(module.bias),
            },
            None => Frame::Raw(address),
        }
        .encode()
    }
}
