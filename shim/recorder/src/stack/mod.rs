//! Call stacks of the calling thread, native and Python, cheap enough for every allocation.
//!
//! framehop walks native frames with cached unwind rules; Python frames are read from the
//! interpreter's own chain ([`python`]). A stack that was seen before is recognised by its
//! return addresses and code objects and is an id at once; only a new one is put into the form
//! that the trace stores (module and offset, function and line). Walking never leaves the thread's
//! own stack, reads unwind data only from our own mappings of the files (a dlclose cannot pull it
//! away), and allocates nothing. Where nothing that a walk depends on has changed since it was made, it
//! is not made again ([`again`]).

mod again;
mod bounds;
mod image;
pub mod modules;
pub mod python;

pub use image::SectionBytes;

use crate::settings::{Log, Stacks};
use again::{Answer, Start, Walks};
use bounds::Readable;
use framehop::{
    CacheNative, FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder,
};
use modules::Modules;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use vramtrace_format::cold::Cold;
use vramtrace_format::record::{Kind, Layer};
use vramtrace_format::stacks::{Frame, MAX_FRAMES, MAX_STORED, TRUNCATED};

/// Rule tables of a walker, a power of two.
const CACHES: usize = 8;
/// Stacks that a walker recognises, a power of two.
const MEMORY: usize = 4096;
/// Walkers kept for reuse; more threads than this at once make their own for one walk.
const POOL: usize = 64;
/// 2⁶⁴ over the golden ratio: spreads addresses, which come in steps.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which frames of a stack are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No stack at all.
    Nothing,
    /// Native ones.
    Native,
    /// Python ones; native ones of a thread that has no others.
    PythonElseNative,
    /// Both.
    Both,
}

/// Of rare events; of frequent ones, which are those of the framework layer.
static WANTED: [AtomicU8; 2] = [const { AtomicU8::new(0) }; 2];

/// Sets which stacks are taken, and how much may be said about them.
pub fn choose(stacks: Stacks, log: Log) {
    let wanted = match stacks {
        Stacks::Auto => [Wanted::Both, Wanted::PythonElseNative],
        Stacks::Both => [Wanted::Both; 2],
        Stacks::Python => [Wanted::PythonElseNative; 2],
        Stacks::Native => [Wanted::Native; 2],
        Stacks::Off => [Wanted::Nothing; 2],
    };
    for (place, wanted) in WANTED.iter().zip(wanted) {
        place.store(wanted as u8, Ordering::Relaxed);
    }
    python::choose(
        matches!(wanted[1], Wanted::PythonElseNative | Wanted::Both),
        log,
    );
}

impl Wanted {
    /// What is wanted for memory of a kind: calls that allocate from the driver are rare and slow,
    /// and get everything; those of the framework layer are not.
    #[inline]
    pub fn of(kind: Option<Kind>) -> Wanted {
        let frequent = kind.is_some_and(|kind| kind.layer() == Layer::Framework);
        match WANTED[usize::from(frequent)].load(Ordering::Relaxed) {
            1 => Wanted::Native,
            2 => Wanted::PythonElseNative,
            3 => Wanted::Both,
            _ => Wanted::Nothing,
        }
    }
}

type RuleCache = CacheNative<MustNotAllocateDuringUnwind>;

/// Everything one walk needs. Pooled, so that threads that come and go leave nothing behind.
struct Walker {
    /// framehop keeps a rule per address in a direct-mapped table of 509; frames of one stack that
    /// share a slot evict each other on every walk, at some 200 ns a miss. Several tables, chosen
    /// by address, make that rare.
    caches: Box<[RuleCache]>,
    modules: Arc<Modules>,
    /// Stacks seen before, direct-mapped by the hash of their return addresses: hash and id.
    memory: Box<[(u64, u32)]>,
    walks: Walks,
    /// The stack taken last: return addresses, innermost first, unless it is [`Walker::again`].
    addresses: [u64; MAX_FRAMES],
    len: usize,
    flags: u16,
    /// Of the native part.
    native: u64,
    /// Of both parts.
    hash: u64,
    /// The walk was not made again: only what it comes to is known.
    again: bool,
    /// How often the modules changed under it.
    updates: u32,
    /// The Python part of that stack.
    python: python::Frames,
}

static WALKERS: [AtomicPtr<Walker>; POOL] = [const { AtomicPtr::new(std::ptr::null_mut()) }; POOL];

/// The stack of the calling thread, as it was when it was taken.
pub struct Capture {
    walker: Option<Box<Walker>>,
    home: usize,
}

/// A stack in the form that the trace stores.
pub struct Stored {
    frames: [u64; MAX_STORED],
    len: usize,
    /// Flags for the stack table.
    pub flags: u16,
    names: Option<python::Names>,
}

impl Stored {
    /// The frames: native ones, innermost first, then Python ones, innermost first.
    pub fn frames(&self) -> &[u64] {
        &self.frames[..self.len]
    }

    /// Records of names that the trace must have before this stack. Once.
    pub fn new_names(&mut self) -> Vec<Cold> {
        let names = self.names.as_mut();
        names.map_or_else(Vec::new, |names| {
            names.new_codes().map(Cold::PythonCode).collect()
        })
    }

    /// The trace has them, and the stack.
    pub fn commit(self) {
        if let Some(names) = self.names {
            names.commit();
        }
    }

    fn push(&mut self, frame: u64) {
        if let Some(place) = self.frames.get_mut(self.len) {
            *place = frame;
            self.len += 1;
        }
    }
}

/// Least stack below the caller with which a walk is made.
const ROOM_TO_WALK: u64 = 24 << 10;
/// Least stack with which a walker is made: framehop builds its tables on the stack first.
const ROOM_TO_MAKE: u64 = 256 << 10;

/// Takes the stack of the calling thread, without the frames of this library. `None` on a stack
/// too small for it (threads may have 16 KiB), or one whose bounds nobody knows. `hint` is anything
/// that is often the same where the stack is, as the bytes are that are allocated.
#[inline(never)]
pub fn capture(wanted: Wanted, hint: u64) -> Option<Capture> {
    if wanted == Wanted::Nothing {
        return None;
    }
    let (_, regs) = here();
    let headroom = bounds::of_this_thread(regs.sp()).headroom;
    if headroom < ROOM_TO_WALK {
        return None;
    }
    let home = crate::process::thread_id() as usize % POOL;
    let mut walker = take(home).or_else(|| {
        if headroom < ROOM_TO_MAKE {
            borrow()
        } else {
            Some(make())
        }
    })?;
    walker.take(wanted, hint);
    Some(Capture {
        walker: Some(walker),
        home,
    })
}

impl Capture {
    fn walker(&self) -> &Walker {
        // Only `drop` takes it out.
        self.walker.as_ref().expect("a capture holds its walker")
    }

    /// How many frames it has.
    pub fn depth(&self) -> usize {
        self.walker().len + self.walker().python.len
    }

    /// The id it was given before, if it was seen before.
    #[inline]
    pub fn known(&mut self) -> Option<u32> {
        let walker = self.walker();
        let (hash, id) = walker.memory[walker.memory_slot()];
        if hash == walker.hash {
            return Some(id);
        }
        if let Some(walker) = &mut self.walker
            && walker.again
        {
            // Forgotten, which a walk that was made before is not: now the frames are wanted.
            walker.walk_anew();
        }
        None
    }

    /// Remembers the id that the stack was given.
    pub fn remember(&mut self, id: u32) {
        if let Some(walker) = &mut self.walker {
            walker.memory[walker.memory_slot()] = (walker.hash, id);
        }
    }

    /// The stack in the form that the trace stores; `None` if the names of Python functions cannot
    /// be had in time.
    pub fn stored(&self) -> Option<Box<Stored>> {
        let walker = self.walker();
        let names = match walker.python.len {
            0 => None,
            _ => Some(python::Names::lock()?),
        };
        let mut stored = Box::new(Stored {
            frames: [0; MAX_STORED],
            len: 0,
            flags: walker.flags,
            names: None,
        });
        for &address in &walker.addresses[..walker.len] {
            stored.push(walker.modules.stored(address));
        }
        if let Some(mut names) = names {
            python::stored(&walker.python, &mut names, |frame| stored.push(frame));
            stored.names = Some(names);
        }
        Some(stored)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let Some(walker) = self.walker.take() else {
            return;
        };
        let walker = Box::into_raw(walker);
        let place = &WALKERS[self.home];
        if place
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
}

fn take(home: usize) -> Option<Box<Walker>> {
    let found = WALKERS[home].swap(std::ptr::null_mut(), Ordering::Acquire);
    // SAFETY: pointers in the pool come from `drop` above, and the swap made us the only owner.
    (!found.is_null()).then(|| unsafe { Box::from_raw(found) })
}

/// Any walker of the pool, for a thread without the stack to make one.
#[cold]
fn borrow() -> Option<Box<Walker>> {
    (0..POOL).find_map(take)
}

#[cold]
#[inline(never)]
fn make() -> Box<Walker> {
    Box::new(Walker {
        caches: fresh_caches(),
        modules: modules::current(),
        memory: vec![(0, 0); MEMORY].into_boxed_slice(),
        walks: Walks::new(),
        addresses: [0; MAX_FRAMES],
        len: 0,
        flags: 0,
        native: 0,
        hash: 0,
        again: false,
        updates: 0,
        python: python::Frames::default(),
    })
}

/// Which of the tables has the rule for a frame.
#[inline(always)]
fn cache_of(frame: FrameAddress) -> usize {
    let spread = frame.address_for_lookup().wrapping_mul(SPREAD);
    (spread >> (64 - CACHES.ilog2())) as usize
}

fn room_to_make() -> bool {
    let (_, regs) = here();
    bounds::of_this_thread(regs.sp()).headroom >= ROOM_TO_MAKE
}

fn fresh_caches() -> Box<[RuleCache]> {
    (0..CACHES).map(|_| CacheNative::new_in()).collect()
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

impl Walker {
    fn memory_slot(&self) -> usize {
        (self.hash >> (64 - MEMORY.ilog2())) as usize
    }

    /// Takes the stack.
    #[inline(always)]
    fn take(&mut self, wanted: Wanted, hint: u64) {
        self.again = false;
        let mut python = wanted != Wanted::Native && python::capture(&mut self.python);
        if !python || wanted != Wanted::PythonElseNative {
            self.walk(Some(hint));
            // The walk looks for new modules: an interpreter may be among them.
            if wanted != Wanted::Native && !python && python::may_have_come() {
                python = python::capture(&mut self.python);
            }
        }
        if python && wanted == Wanted::PythonElseNative {
            if modules::generation() != self.modules.generation {
                self.update();
            }
            (self.len, self.flags, self.native, self.again) = (0, 0, 0, false);
        }
        if !python {
            self.python.len = 0;
        }
        self.join();
    }

    /// Makes one of the native and the Python part.
    #[inline(always)]
    fn join(&mut self) {
        self.hash = self.native;
        if self.python.len != 0 {
            self.hash = (self.hash.rotate_left(23) ^ self.python.hash).wrapping_mul(SPREAD);
            if self.python.truncated {
                self.flags |= TRUNCATED;
                self.hash ^= 1;
            }
        }
    }

    /// Makes the walk that was spared.
    #[cold]
    fn walk_anew(&mut self) {
        self.again = false;
        self.walk(None);
        self.join();
    }

    /// Takes the native part. Without a hint all of it is wanted, not only what it comes to.
    #[inline(never)]
    fn walk(&mut self, hint: Option<u64>) {
        modules::refresh_if_stale();
        if modules::generation() != self.modules.generation {
            self.update();
        }
        let (ip, regs) = here();
        let readable = bounds::of_this_thread(regs.sp());
        let start = hint.map(|hint| Start {
            ip,
            sp: regs.sp(),
            bp: regs.bp(),
            hint,
            updates: self.updates,
        });
        if let Some(start) = &start
            && let Some(answer) = self.walks.find(start, readable)
        {
            (self.len, self.flags, self.native) = (answer.len, answer.flags, answer.hash);
            self.again = true;
            return;
        }
        let whole = self.walk_from(ip, regs, readable);
        if let Some(start) = start
            && whole
        {
            let answer = Answer {
                hash: self.native,
                len: self.len,
                flags: self.flags,
            };
            if self.walks.is_to_be_recorded(&start, answer) {
                // SAFETY: the bounds of this thread's stack, from this function's frame on.
                unsafe {
                    self.walks.record(
                        &start,
                        answer,
                        readable,
                        &self.modules.unwinder,
                        &mut self.caches,
                    );
                }
            }
        }
    }

    /// Unwinds frame by frame; false if the end was not found this way.
    #[inline(always)]
    fn walk_from(&mut self, ip: u64, mut regs: UnwindRegsNative, readable: Readable) -> bool {
        let mut read_stack = |address: u64| {
            if !readable.contains(address) {
                return Err(());
            }
            // SAFETY: a whole word inside the thread's own stack, above its stack pointer: live
            // memory that only this thread writes.
            Ok(unsafe { (address as *const u64).read_unaligned() })
        };
        let (own, own_len) = (
            self.modules.own.start,
            self.modules.own.end - self.modules.own.start,
        );
        let (mut len, mut hash, mut flags) = (0, SPREAD, 0);
        let mut frame = FrameAddress::from_instruction_pointer(ip);
        loop {
            let cache = &mut self.caches[cache_of(frame)];
            let caller =
                match self
                    .modules
                    .unwinder
                    .unwind_frame(frame, &mut regs, cache, &mut read_stack)
                {
                    Ok(Some(address)) => address,
                    Ok(None) => break,
                    Err(_) => {
                        flags = TRUNCATED;
                        break;
                    }
                };
            let Some(next) = FrameAddress::from_return_address(caller) else {
                break;
            };
            frame = next;
            if caller.wrapping_sub(own) < own_len {
                continue;
            }
            if len == MAX_FRAMES {
                flags = TRUNCATED;
                break;
            }
            self.addresses[len] = caller;
            len += 1;
            hash = (hash.rotate_left(23) ^ caller).wrapping_mul(SPREAD);
        }
        (self.len, self.flags, self.native) = (len, flags, hash ^ u64::from(flags));
        // framehop knows the common rules and guesses by frame pointer at the rest; where the
        // guess led nowhere the system's unwinder, ten times slower, may know. Not on a stack
        // whose end nobody knows: that one reads without bounds.
        if flags == TRUNCATED && len < MAX_FRAMES && readable.headroom >= 2 * ROOM_TO_WALK {
            self.fallback();
        }
        flags == 0
    }

    /// Asks the system's unwinder for the whole stack, and takes its answer if it is longer.
    #[cold]
    fn fallback(&mut self) {
        let mut addresses = [0; MAX_FRAMES];
        let mut len = 0;
        // SAFETY: the lock that the other form takes would be inherited locked by a forked child;
        // walking needs none: this backend only reads.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                let address = frame.ip() as u64;
                if !self.modules.own.contains(&address) && len < MAX_FRAMES {
                    addresses[len] = address;
                    len += 1;
                }
                len < MAX_FRAMES
            })
        };
        if len > self.len {
            let hash = addresses[..len].iter().fold(!SPREAD, |hash, a| {
                (hash.rotate_left(23) ^ a).wrapping_mul(SPREAD)
            });
            (self.addresses, self.len, self.native) = (addresses, len, hash);
            self.flags = if len == MAX_FRAMES { TRUNCATED } else { 0 };
        }
    }

    /// The modules changed: addresses may mean something else now.
    #[cold]
    fn update(&mut self) {
        self.modules = modules::current();
        self.memory.fill((0, 0));
        // framehop tells old rules from new ones by a 16-bit count of module changes. A process
        // that changes its modules often enough to wrap it makes new tables now and then.
        self.updates += 1;
        if self.updates.is_multiple_of(64) && room_to_make() {
            self.caches = fresh_caches();
        }
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
