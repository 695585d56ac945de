//! What an event and a stack cost, as ratios to the least that the same work can cost, measured
//! in turn in one run: absolute times on a shared machine mean little.
//!
//! - *event*: an allocation and a free, without stacks, over straight-line code that makes the
//!   same writes (clock, ring record, live slot, totals row, account, the pre-images of these) to
//!   the same places under the same lock.
//! - *range*: an NVTX range that is pushed and popped, over a look into a hash map.
//! - *stack*: a walk of 45 warm frames over framehop alone, and over `_Unwind_Backtrace`.

use framehop::{
    CacheNative, FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder,
};
use parking_lot::Mutex;
use std::hint::black_box;
use std::time::Instant;
use vramtrace_format::record::{Allocation, Kind, Space};
use vramtrace_format::{Layout, Section};
use vramtrace_recorder as recorder;

/// Alternating rounds; the medians of their ratios are reported.
const ROUNDS: usize = 41;
/// Bytes of the trace: room for 200,000 live allocations.
const TRACE: u64 = 128 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let shared = std::path::Path::new("/dev/shm");
    let place = if shared.is_dir() {
        tempfile::tempdir_in(shared)
    } else {
        tempfile::tempdir()
    };
    let place = place.expect("a directory for the trace");
    let trace = place.path().join("bench.vrt");
    // SAFETY: the only thread there is.
    unsafe {
        std::env::set_var("VRAMTRACE_OUTPUT", &trace);
        std::env::set_var("VRAMTRACE_STACKS", "off");
        std::env::set_var("VRAMTRACE_SIZE", TRACE.to_string());
    }
    assert!(recorder::start(&Vec::new), "the recorder starts");
    println!("{:<44} {:>9} {:>9} {:>7}", "", "ours", "least", "ratio");
    for live in [20_000, 200_000] {
        events(live);
    }
    ranges();
    stacks();
}

/// A range entered and left, over looking up its message in a plain hash map and counting it there.
fn ranges() {
    const PAIRS: usize = 100_000;
    let texts = [
        "aten::linear",
        "forward",
        "a rather long message, as of a module's path",
    ];
    let mut plain: std::collections::HashMap<&str, u64> =
        texts.into_iter().map(|text| (text, 0)).collect();
    let mut at = 0;
    let mut next = || {
        at += 1;
        black_box(texts[at % texts.len()])
    };
    let pairs = (0..ROUNDS)
        .map(|_| {
            let ours = time(PAIRS, || {
                let name = recorder::ranges::name(0, next().as_bytes());
                recorder::ranges::push(0, name);
                recorder::ranges::pop(0);
            });
            let least = time(PAIRS, || {
                *plain.entry(next()).or_default() += 1;
            });
            (ours, least)
        })
        .collect();
    report("NVTX range pushed and popped, over a hash map", pairs);
    let mut text = *b"step no 00000000";
    let new = time(PAIRS, || {
        for digit in text[8..].iter_mut().rev() {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            if *digit != b'0' {
                break;
            }
        }
        let name = recorder::ranges::name(0, &text);
        recorder::ranges::push(0, name);
        recorder::ranges::pop(0);
    });
    println!("    with a number that is new each time {new:.1} ns");
}

fn report(what: &str, mut pairs: Vec<(f64, f64)>) {
    pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (ours, least) = pairs[pairs.len() / 2];
    println!(
        "{what:<44} {ours:>6.1} ns {least:>6.1} ns {:>7.2}",
        ours / least
    );
}

/// Addresses as a caching program makes them: distinct, 512-aligned, in no order.
fn address(n: u64) -> u64 {
    0x7f00_0000_0000 + (n.wrapping_mul(0x9e37_79b9) % (1 << 24)) * 512
}

fn allocation(n: u64) -> Allocation {
    Allocation {
        kind: Kind::Async,
        space: Space::Device,
        key: address(n),
        size: 4096,
        aux: 0,
        context: 1,
        device: 0,
        stream: 0,
        api: 3,
    }
}

fn events(live: u64) {
    const PAIRS: u64 = 20_000;
    for n in 0..live {
        recorder::allocated(allocation(n));
    }
    let mut least = Least::new();
    let (mut oldest, mut newest) = (0, live);
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for n in 0..PAIRS {
            recorder::freeing(1, Space::Device, address(oldest + n), 4, 0);
            recorder::allocated(allocation(newest + n));
        }
        let ours = start.elapsed().as_nanos() as f64 / (2 * PAIRS) as f64;
        let start = Instant::now();
        for n in 0..PAIRS {
            least.event(address(oldest + n), n, false);
            least.event(address(newest + n), n, true);
        }
        let theirs = start.elapsed().as_nanos() as f64 / (2 * PAIRS) as f64;
        oldest += PAIRS;
        newest += PAIRS;
        pairs.push((ours, theirs));
    }
    for n in oldest..newest {
        recorder::freeing(1, Space::Device, address(n), 4, 0);
    }
    report(&format!("event without stack, {live} live"), pairs);
}

/// The writes of an event, and nothing else: no search, no decision.
struct Least {
    lock: Mutex<State>,
}

struct State {
    ring: Vec<[u64; 8]>,
    at: usize,
    live: Vec<[u64; 8]>,
    totals: Vec<[u64; 16]>,
    account: [u64; 16],
    saved: [u64; 64],
    journal: u64,
    written: u64,
    last_time: u64,
    clock: recorder::clock::Clock,
}

impl Least {
    fn new() -> Least {
        let layout = Layout::for_size(TRACE);
        let slots = (layout.of(Section::LiveFramework).length / 64) as usize;
        let ring = (layout.of(Section::RingFramework).length / 64) as usize;
        Least {
            lock: Mutex::new(State {
                ring: vec![[0; 8]; ring],
                at: 0,
                live: vec![[0; 8]; slots],
                totals: vec![[0; 16]; 64],
                account: [0; 16],
                saved: [0; 64],
                journal: 0,
                written: 0,
                last_time: 0,
                clock: recorder::clock::Clock::new(recorder::clock::monotonic_ns()),
            }),
        }
    }

    #[inline(never)]
    fn event(&mut self, key: u64, n: u64, allocates: bool) {
        let mut state = self.lock.lock();
        let state = &mut *state;
        let time = state.clock.now();
        let record = [
            n,
            time,
            key,
            4096,
            0,
            7 << 32,
            0,
            u64::from(allocates) << 32,
        ];
        state.ring[state.at] = record;
        state.at = if state.at + 1 == state.ring.len() {
            0
        } else {
            state.at + 1
        };
        state.written += 1;
        let slot = ((u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            * state.live.len() as u128)
            >> 64) as usize;
        let row = &mut state.totals[(n % 4) as usize];
        state.saved[0] = slot as u64;
        state.saved[1] = state.live[slot][7];
        state.saved[2] = n % 4;
        // What an allocation saves of its row and of its account, and what a free does.
        if allocates {
            state.saved[3..14].copy_from_slice(&row[..11]);
        } else {
            state.saved[3..8].copy_from_slice(&row[2..7]);
        }
        state.saved[14] = 1;
        state.saved[15..25].copy_from_slice(&state.account[..10]);
        state.journal += 1;
        black_box(&mut state.journal);
        let fields: &[usize] = if allocates {
            state.live[slot] = record;
            &[2, 3, 7, 8, 9]
        } else {
            state.live[slot][7] = 255;
            &[2, 3]
        };
        for &field in fields {
            row[field] = row[field].wrapping_add(4096);
        }
        let fields: &[usize] = if allocates { &[0, 1, 2, 3] } else { &[0, 1] };
        for &field in fields {
            state.account[field] = state.account[field].wrapping_add(4096);
        }
        state.account[7] = state.account[7].min(key);
        state.account[8] = state.account[8].max(key);
        state.last_time = time;
        state.journal += 1;
        black_box(state);
    }
}

/// A stack of its own depth, through functions that are not inlined.
#[inline(never)]
fn deep(depth: usize, act: &mut dyn FnMut()) {
    if depth == 0 {
        act();
    } else {
        deep(depth - 1, act);
    }
    black_box(depth);
}

fn stacks() {
    const WALKS: usize = 2_000;
    const DEPTH: usize = 38;
    let modules = recorder::stack::modules::current();
    let mut cache: CacheNative<MustNotAllocateDuringUnwind> = CacheNative::new_in();
    let mut frames = 0;
    let mut over_framehop = Vec::new();
    let mut over_unwind = Vec::new();
    let mut misses = 0;
    deep(DEPTH, &mut || {
        for _ in 0..ROUNDS {
            let ours = time(WALKS, || {
                let mut capture = recorder::stack::capture(recorder::stack::Wanted::Native, 0)
                    .expect("there is stack enough");
                if black_box(capture.known()).is_none() {
                    capture.remember(7);
                }
                frames = capture.depth();
            });
            let before = cache.stats().misses();
            let least = time(WALKS, || alone(&modules.unwinder, &mut cache));
            misses = cache.stats().misses() - before;
            let unwind = time(WALKS / 10, || {
                let mut count = 0;
                backtrace::trace(|frame| {
                    black_box(frame.ip());
                    count += 1;
                    count < 256
                });
            });
            over_framehop.push((ours, least));
            over_unwind.push((unwind, ours));
        }
    });
    report(
        &format!("stack of {frames} frames, over framehop alone"),
        over_framehop,
    );
    println!(
        "    framehop alone missed its own cache {:.2} times a walk",
        misses as f64 / WALKS as f64
    );
    report("_Unwind_Backtrace, over our stack", over_unwind);
}

fn time(count: usize, mut act: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        act();
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

/// framehop with one cache and no bounds: return addresses into an array.
#[inline(never)]
fn alone(
    unwinder: &framehop::UnwinderNative<recorder::stack::SectionBytes, MustNotAllocateDuringUnwind>,
    cache: &mut CacheNative<MustNotAllocateDuringUnwind>,
) {
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: reads three registers.
    unsafe {
        std::arch::asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) bp)
    };
    let mut regs = UnwindRegsNative::new(ip, sp, bp);
    // SAFETY: addresses that the unwind rules of a running stack lead to.
    let mut read = |address: u64| Ok(unsafe { *(address as *const u64) });
    let mut found = [0u64; 256];
    let mut frame = FrameAddress::from_instruction_pointer(ip);
    for slot in &mut found {
        match unwinder.unwind_frame(frame, &mut regs, cache, &mut read) {
            Ok(Some(address)) => match FrameAddress::from_return_address(address) {
                Some(next) => {
                    *slot = address;
                    frame = next;
                }
                None => break,
            },
            _ => break,
        }
    }
    black_box(&found);
}
