//! What an event and a stack cost, as ratios to the least that the same work can cost, measured
//! in turn in one run: absolute times on a shared machine mean little.
//!
//! - *event*: an allocation and a free, without stacks, over straight-line code that makes the
//!   same writes (clock, ring record, live slot, totals row, account, the pre-images of these) to
//!   the same places under the same lock.
//! - *stack*: a walk of 45 warm frames over framehop alone, and over `_Unwind_Backtrace`.

use framehop::{
    CacheNative, FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder,
};
use parking_lot::Mutex;
use std::hint::black_box;
use std::time::Instant;
use vramtrace_format::record::{Kind, Space};
use vramtrace_format::{Layout, Record, Section};
use vramtrace_recorder as recorder;

/// Alternating rounds; the medians of their ratios are reported.
const ROUNDS: usize = 41;
/// Bytes of the trace: room for 200,000 live allocations.
const TRACE: u64 = 128 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let directory = std::env::temp_dir().join(format!("vramtrace-bench-{}", std::process::id()));
    let place = if std::path::Path::new("/dev/shm").is_dir() {
        "/dev/shm".into()
    } else {
        directory
    };
    let trace =
        std::path::Path::new(&place).join(format!("vramtrace-bench-{}.vrt", std::process::id()));
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
    stacks();
    let _ = std::fs::remove_file(trace);
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

fn entry(n: u64) -> Record {
    Record {
        key: address(n),
        size: 4096,
        context: 1,
        api: 3,
        space: Space::Device as u8,
        kind: Kind::Async as u8,
        ..Record::default()
    }
}

fn events(live: u64) {
    const PAIRS: u64 = 20_000;
    for n in 0..live {
        recorder::allocated(&entry(n));
    }
    let mut least = Least::new();
    let (mut oldest, mut newest) = (0, live);
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for n in 0..PAIRS {
            recorder::freeing(1, Space::Device, address(oldest + n), 4, 0);
            recorder::allocated(&entry(newest + n));
        }
        let ours = start.elapsed().as_nanos() as f64 / (2 * PAIRS) as f64;
        let start = Instant::now();
        for n in 0..PAIRS {
            least.event(address(oldest + n), n);
            least.event(address(newest + n), n);
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
    ring: Vec<Record>,
    at: usize,
    live: Vec<Record>,
    totals: Vec<[u64; 16]>,
    account: [u64; 16],
    cell: [u64; 4],
    saved: [[u64; 18]; 3],
    journal: u64,
    written: u64,
    clock: recorder::clock::Clock,
}

impl Least {
    fn new() -> Least {
        let layout = Layout::for_size(TRACE);
        let slots = (layout.of(Section::LiveFramework).length / 64) as usize;
        let ring = (layout.of(Section::RingFramework).length / 64) as usize;
        Least {
            lock: Mutex::new(State {
                ring: vec![Record::default(); ring],
                at: 0,
                live: vec![Record::default(); slots],
                totals: vec![[0; 16]; 64],
                account: [0; 16],
                cell: [0; 4],
                saved: [[0; 18]; 3],
                journal: 0,
                written: 0,
                clock: recorder::clock::Clock::new(recorder::clock::monotonic_ns()),
            }),
        }
    }

    #[inline(never)]
    fn event(&mut self, key: u64, n: u64) {
        let mut state = self.lock.lock();
        let state = &mut *state;
        let time = state.clock.now();
        let record = Record {
            seq: n,
            time,
            key,
            size: 4096,
            ..entry(n)
        };
        state.ring[state.at] = record;
        state.at = if state.at + 1 == state.ring.len() {
            0
        } else {
            state.at + 1
        };
        state.written += 1;
        state.journal += 1;
        let slot = ((u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            * state.live.len() as u128)
            >> 64) as usize;
        state.saved[0][2..10].copy_from_slice(bytemuck::cast_slice(std::slice::from_ref(
            &state.live[slot],
        )));
        state.journal += 1;
        black_box(&mut state.journal);
        state.live[slot] = record;
        let row = &mut state.totals[(n % 4) as usize];
        state.saved[1][2..].copy_from_slice(row);
        state.journal += 1;
        black_box(&mut state.journal);
        for field in [2, 3, 4, 5, 6, 7, 8, 9] {
            row[field] = row[field].wrapping_add(record.size);
        }
        state.saved[2][2..].copy_from_slice(&state.account);
        state.journal += 1;
        black_box(&mut state.journal);
        for field in [0, 1, 5, 6] {
            state.account[field] = state.account[field].wrapping_add(record.size);
        }
        state.cell = [
            time / 1_000_000_000,
            state.cell[1].min(key),
            state.cell[2].max(key),
            key,
        ];
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
                let mut capture = recorder::stack::capture(recorder::stack::Wanted::Native)
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
