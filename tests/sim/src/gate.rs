//! The door that every driver call goes through.
//!
//! In: which function (its [`Symbol`]) and its body. Out: the result code. Between them, in the order
//! of the real driver: injected failures and latency, "is the driver up", "is a context current",
//! "is that context still alive and healthy", "may this be called during a stream capture". The body
//! then runs with the one lock of the process held. Nothing here may panic into C: bodies run under
//! `catch_unwind`, and a panic is answered with `CUDA_ERROR_UNKNOWN` and a line on stderr.

use crate::abi::error::{
    CONTEXT_IS_DESTROYED, DEINITIALIZED, Error, INVALID_CONTEXT, NOT_INITIALIZED, R, UNKNOWN,
};
use crate::config::{self, When};
use crate::model::State;
use crate::thread;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What must hold for a call to be allowed; a set of the bits below.
pub type Rules = u8;
/// Legal at any time, even before `cuInit`.
pub const ANY: Rules = 0;
/// `cuInit` must have succeeded.
pub const INIT: Rules = 1;
const CTX: Rules = 2;
const HEALTHY: Rules = 4;
/// "Potentially unsafe" during a stream capture (cuThreadExchangeStreamCaptureMode's documentation).
pub const UNSAFE: Rules = 8;
/// A context must be current.
pub const CONTEXT: Rules = INIT | CTX;
/// A context must be current and not have failed.
pub const WORK: Rules = CONTEXT | HEALTHY;
/// As `WORK`, and unsafe during capture: most of what takes memory.
pub const MEMORY: Rules = WORK | UNSAFE;
/// Needs no context; but if one is current it must not have ended, and nothing may have failed.
pub const FREE: Rules = INIT | HEALTHY;

/// One exported function.
///
/// All of them lie side by side in a section of their own, so that the resolver can list them
/// without a table that somebody must keep in step. The resolver must not use `dlsym` for that: a
/// preloaded tracer would answer with its wrappers.
#[repr(C)]
pub struct Symbol {
    pub name: &'static str,
    pub address: Address,
    pub rules: Rules,
    /// Per-thread default stream: handle 0 means the calling thread's own stream.
    pub ptds: bool,
}

/// A function's address.
pub struct Address(pub *const ());

// SAFETY: the address of a function; nothing is ever read through it.
unsafe impl Sync for Address {}

/// All exported functions.
pub fn symbols() -> &'static [Symbol] {
    unsafe extern "C" {
        // Only their addresses mean something.
        #[link_name = "__start_cu_symbols"]
        static START: u8;
        #[link_name = "__stop_cu_symbols"]
        static STOP: u8;
    }
    let (start, stop) = (
        (&raw const START).cast::<Symbol>(),
        (&raw const STOP).cast::<Symbol>(),
    );
    // SAFETY: the linker defines both symbols as the bounds of section `cu_symbols`, into which
    // `driver!` puts `Symbol`s and nothing else puts anything. Their size is a multiple of their
    // alignment, so that they are contiguous.
    unsafe { std::slice::from_raw_parts(start, stop.offset_from_unsigned(start)) }
}

/// The calls so far that matched each rule of `VRAMTRACE_SIM_FAIL` (the first 64 rules).
static INJECTED: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// The calls that each rule waits for (`until`) and that have been answered.
static AWAITED: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Calls that wait now, about to answer.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// For test programs: how many calls wait for another thread's before they answer (`until` in
/// `VRAMTRACE_SIM_FAIL`). No driver has this function.
#[unsafe(no_mangle)]
pub extern "C" fn vramtrace_sim_waiting() -> u32 {
    WAITING.load(SeqCst)
}

/// Whether a call needs more than the fast path: bit 0 unknown yet, bit 1 yes.
static SLOW: AtomicU8 = AtomicU8::new(1);
/// Set in the child of a fork: nothing of the parent's state is usable there.
static FORKED: AtomicBool = AtomicBool::new(false);
/// Set by an exit handler when the configuration asks for it.
static EXITING: AtomicBool = AtomicBool::new(false);

static STATE: Mutex<State> = Mutex::new(State::new());

/// A call in progress: the locked state, and what is known about the caller.
pub struct Call {
    guard: Option<MutexGuard<'static, State>>,
    /// The current context's handle; 0 when the rules did not ask for one and there is none.
    pub ctx: u64,
    /// Whether handle 0 means the per-thread stream.
    pub ptds: bool,
}

impl Deref for Call {
    type Target = State;
    fn deref(&self) -> &State {
        match &self.guard {
            Some(guard) => guard,
            // Only `unlocked` takes the guard away, and puts it back before the body goes on; a
            // closure that unwinds takes the whole call with it.
            None => unreachable!("the state is only used while it is locked"),
        }
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut State {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!("the state is only used while it is locked"),
        }
    }
}

impl Call {
    /// What the rules say about the current context.
    #[inline]
    pub fn check_context(&self, rules: Rules) -> R {
        let device = match self.contexts.get(self.ctx) {
            Some(ctx) if !ctx.active => return Err(CONTEXT_IS_DESTROYED),
            Some(ctx) => Some(ctx.device),
            None if rules & CTX != 0 => return Err(INVALID_CONTEXT),
            None => None,
        };
        if rules & HEALTHY == 0 {
            return Ok(());
        }
        let failed = match device {
            Some(device) => self.devices.get(device as usize).map_or(0, |d| d.failed),
            // Without a context, a failure counts as long as the context exists that it was in.
            None => {
                let exists = |ctx| self.contexts.get(ctx).is_some_and(|c| c.active);
                let failed = self.devices.iter().find(|d| exists(d.failed_ctx));
                failed.map_or(0, |d| d.failed)
            }
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(Error(failed))
        }
    }

    /// Runs code of the caller's (a host function) without the lock, so that it may wait for
    /// other threads that call the driver.
    pub fn unlocked(&mut self, f: impl FnOnce()) {
        self.guard = None;
        f();
        self.guard = Some(lock());
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one driver call. Inlined into each exported function, so that the rules are constants there.
#[inline]
pub fn enter(symbol: &'static Symbol, body: impl FnOnce(&mut Call) -> R) -> u32 {
    let slow = SLOW.load(Relaxed);
    if slow != 0
        && let Err(Error(code)) = slow_path(symbol)
    {
        return log(symbol, code);
    }
    let result = catch_unwind(AssertUnwindSafe(|| run(symbol, body))).unwrap_or_else(|_| {
        eprintln!("libcuda (simulated): internal error in {}", symbol.name);
        Err(UNKNOWN)
    });
    let code = result.err().map_or(0, |Error(code)| code);
    if slow == 0 {
        return code;
    }
    hold(symbol);
    log(symbol, code)
}

/// Calls that a rule holds (code 0): what they do is done, and they answer late.
#[cold]
fn hold(symbol: &Symbol) {
    let rules = config::get().failures.iter();
    for ((rule, count), awaited) in rules.zip(&INJECTED).zip(&AWAITED) {
        if rule.code == 0 && rule.matches(symbol.name) && hits(rule, count) {
            wait_until_answered(awaited, awaited.load(SeqCst));
        }
    }
}

/// Counts a call that a rule is about; whether the rule hits it.
fn hits(rule: &config::Failure, count: &AtomicU64) -> bool {
    let n = count.fetch_add(1, Relaxed) + 1;
    match rule.when {
        When::Nth(k) => n == k,
        When::Every(k) => n.is_multiple_of(k),
        When::From(k) => n >= k,
    }
}

/// Waits for one more answer than there were.
fn wait_until_answered(awaited: &AtomicU64, answered: u64) {
    WAITING.fetch_add(1, SeqCst);
    while awaited.load(SeqCst) == answered {
        std::thread::yield_now();
    }
    WAITING.fetch_sub(1, SeqCst);
}

#[inline]
fn run(symbol: &'static Symbol, body: impl FnOnce(&mut Call) -> R) -> R {
    let mut call = Call {
        guard: Some(lock()),
        ctx: thread::current(),
        ptds: symbol.ptds,
    };
    let rules = symbol.rules;
    if rules & INIT != 0 && !call.initialised {
        return Err(NOT_INITIALIZED);
    }
    if rules & (CTX | HEALTHY) != 0 {
        call.check_context(rules)?;
    }
    if rules & UNSAFE != 0 && !call.captures.is_empty() {
        call.captures.unsafe_call()?;
    }
    let result = body(&mut call);
    if !call.graphs.due.is_empty() {
        run_destructors(&mut call);
    }
    result
}

/// Calls destructors of user objects whose last reference went, without the lock.
#[cold]
fn run_destructors(call: &mut Call) {
    for (destroy, data) in std::mem::take(&mut call.graphs.due) {
        if let Some(destroy) = destroy {
            // SAFETY: cuUserObjectCreate's contract: called once with the object's pointer.
            call.unlocked(|| unsafe { destroy(data as *mut std::ffi::c_void) });
        }
    }
}

#[cold]
fn slow_path(symbol: &'static Symbol) -> R {
    let config = config::get();
    if SLOW.load(Relaxed) & 1 != 0 {
        first_call(config);
    }
    if FORKED.load(Relaxed) {
        return Err(NOT_INITIALIZED);
    }
    if EXITING.load(Relaxed) {
        return Err(DEINITIALIZED);
    }
    if config.latency_ns > 0 {
        let start = std::time::Instant::now();
        while (start.elapsed().as_nanos() as u64) < config.latency_ns {
            std::hint::spin_loop();
        }
    }
    for ((rule, count), awaited) in config.failures.iter().zip(&INJECTED).zip(&AWAITED) {
        if rule.code == 0 || !rule.matches(symbol.name) {
            continue;
        }
        let answered = awaited.load(SeqCst);
        if hits(rule, count) {
            if rule.until.is_some() {
                wait_until_answered(awaited, answered);
            }
            return Err(Error(rule.code));
        }
    }
    Ok(())
}

fn log(symbol: &Symbol, code: u32) -> u32 {
    let config = config::get();
    for (rule, awaited) in config.failures.iter().zip(&AWAITED) {
        if rule.until.as_deref() == Some(symbol.name) {
            awaited.fetch_add(1, SeqCst);
        }
    }
    if config.log {
        eprintln!("libcuda (simulated): {} = {code}", symbol.name);
    }
    code
}

fn first_call(config: &config::Config) {
    extern "C" fn after_fork_in_child() {
        FORKED.store(true, Relaxed);
        SLOW.store(2, Relaxed);
    }
    extern "C" fn at_exit() {
        EXITING.store(true, Relaxed);
        SLOW.store(2, Relaxed);
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: both handlers are plain functions of this library, which no one unloads while
        // they are registered (a driver is never dlclosed to zero: glibc keeps atexit users alive
        // through __dso_handle only for cxa_atexit, so a dlclose would run them; they touch only
        // atomics of the library itself).
        unsafe {
            libc::pthread_atfork(None, None, Some(after_fork_in_child));
            if config.deinit_at_exit {
                libc::atexit(at_exit);
            }
        }
        let slow = !config.failures.is_empty() || config.latency_ns > 0 || config.log;
        SLOW.store(if slow { 2 } else { 0 }, Relaxed);
    });
}

/// Declares exported driver functions.
///
/// Each item reads: doc, `[rules]`, signature with the parameter types of [`crate::ffi`], the name
/// of the call in the body, the body. With `+ name2` the same body is exported a second time as the
/// per-thread-default-stream variant. The body is an `R` block that ends in `Ok(())` or a call.
macro_rules! driver {
    () => {};
    (
        @one $ptds:literal, $(#[$doc:meta])* [$rules:expr] $name:ident
        ($($arg:ident : $ty:ty),*) $call:ident $body:block
    ) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $ty),*) -> u32 {
            #[used]
            #[unsafe(link_section = "cu_symbols")]
            static SYMBOL: $crate::gate::Symbol = $crate::gate::Symbol {
                name: stringify!($name),
                address: $crate::gate::Address($name as *const ()),
                rules: $rules,
                ptds: $ptds,
            };
            $crate::gate::enter(
                &SYMBOL,
                move |$call: &mut $crate::gate::Call| -> $crate::abi::error::R { $body },
            )
        }
    };
    (
        $(#[$doc:meta])*
        [$rules:expr] fn $name:ident + $ptds:ident ($($arg:ident : $ty:ty),* $(,)?)
        |$call:ident| $body:block
        $($rest:tt)*
    ) => {
        $crate::gate::driver! {
            @one false, $(#[$doc])* [$rules] $name ($($arg: $ty),*) $call $body
        }
        $crate::gate::driver! {
            @one true, $(#[$doc])* [$rules] $ptds ($($arg: $ty),*) $call $body
        }
        $crate::gate::driver! { $($rest)* }
    };
    (
        $(#[$doc:meta])*
        [$rules:expr] fn $name:ident ($($arg:ident : $ty:ty),* $(,)?) |$call:ident| $body:block
        $($rest:tt)*
    ) => {
        $crate::gate::driver! {
            @one false, $(#[$doc])* [$rules] $name ($($arg: $ty),*) $call $body
        }
        $crate::gate::driver! { $($rest)* }
    };
}
pub(crate) use driver;
