//! Walks that need not be made again.
//!
//! Where a walk leads is decided by where it starts (stack and frame pointer), by the words of the
//! stack that it reads on its way, and by the unwind data of the modules. A program that allocates
//! in a loop starts at the same place each time, and if all those words are as they were, the
//! answer is what it was. Looking at them is a row of independent loads, where a walk has to know
//! each frame before it can find the next.
//!
//! Most frames do not use the frame pointer that they restore for their caller, and then it holds
//! anything. Such a word must not count, or no two calls would be alike. Which ones do count is
//! found out when a walk is recorded: each frame is unwound with other frame pointers as well.

use super::RuleCache;
use super::bounds::Readable;
use bytemuck::Zeroable;
use framehop::{FrameAddress, UnwindRegsNative, Unwinder};

/// Walks that are kept, a power of two.
const KEPT: usize = 1024;
/// Most words that a walk which is kept may have read: about two a frame.
const READS: usize = 168;
/// A walk that was recorded so often and was not the same again in between is not recorded any more.
const HOPELESS: u8 = 4;
/// Most words that unwinding one frame may read; a signal's has the most.
const READS_A_FRAME: usize = 8;

/// A walk.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct Walk {
    /// Stack pointer where it started; 0 none was kept here.
    sp: u64,
    /// Frame pointer there.
    bp: u64,
    /// A hash over the words that it read.
    words: u64,
    /// The answer: hash of the return addresses, and below how many and which flags.
    hash: u64,
    /// How often the modules had changed.
    updates: u32,
    flags: u16,
    len: u16,
    /// Words that count; 0 if only the answer is known, of a walk that was seen once.
    reads: u16,
    /// The last of those words.
    top: u16,
    /// 1 if the frame pointer counts.
    bp_counts: u8,
    /// How often it was recorded since it was last known again.
    recorded: u8,
    reserved: [u8; 2],
    /// Which words, counted from the stack pointer.
    offsets: [u16; READS],
}

const _: () = assert!(size_of::<Walk>() == 384);

/// Where a walk starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// What else tells walks apart that start alike: callers tend to ask for bytes of their own.
    pub hint: u64,
    /// How often the modules had changed.
    pub updates: u32,
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub hash: u64,
    pub len: usize,
    pub flags: u16,
}

/// The walks that are kept, by where they started.
pub(super) struct Walks {
    kept: Box<[Walk]>,
    /// Rules for unwinding with frame pointers that are none: what fails is remembered as found by
    /// frame pointer, which must not be what real walks go by.
    trials: Box<RuleCache>,
}

impl Walks {
    /// None yet. The memory is touched where it is used.
    pub fn new() -> Walks {
        Walks {
            kept: bytemuck::zeroed_slice_box(KEPT),
            trials: Box::new(RuleCache::new_in()),
        }
    }

    fn place(start: &Start) -> usize {
        let key = start.sp ^ start.hint.wrapping_mul(super::SPREAD).rotate_left(17);
        (key.wrapping_mul(super::SPREAD) >> (64 - KEPT.ilog2())) as usize
    }

    /// What a walk from here comes to, if that is known.
    #[inline]
    pub fn find(&mut self, start: &Start, readable: Readable) -> Option<Answer> {
        let walk = &mut self.kept[Self::place(start)];
        if walk.sp != start.sp
            || walk.reads == 0
            || walk.updates != start.updates
            || (walk.bp_counts != 0 && walk.bp != start.bp)
            || !readable.contains(address(start.sp, walk.top))
        {
            return None;
        }
        let offsets = walk.offsets.get(..usize::from(walk.reads))?;
        if hash(start.sp, offsets) != walk.words {
            return None;
        }
        if walk.recorded > 1 {
            walk.recorded = 1;
        }
        Some(Answer {
            hash: walk.hash,
            len: usize::from(walk.len),
            flags: walk.flags,
        })
    }

    /// A walk was made; whether it is to be recorded: it led here before.
    pub fn is_to_be_recorded(&mut self, start: &Start, answer: Answer) -> bool {
        let walk = &mut self.kept[Self::place(start)];
        let again =
            walk.sp == start.sp && walk.hash == answer.hash && walk.updates == start.updates;
        if !again {
            *walk = Walk {
                sp: start.sp,
                hash: answer.hash,
                updates: start.updates,
                ..Walk::zeroed()
            };
        }
        again && walk.recorded < HOPELESS
    }

    /// Makes the walk once more and keeps which words it read.
    ///
    /// # Safety
    /// `readable` is the calling thread's stack from `start.sp` on, and that is in a frame which is
    /// still there.
    #[cold]
    #[inline(never)]
    pub unsafe fn record<U: Unwinder<UnwindRegs = UnwindRegsNative, Cache = RuleCache>>(
        &mut self,
        start: &Start,
        answer: Answer,
        readable: Readable,
        unwinder: &U,
        caches: &mut [RuleCache],
    ) {
        let trials = &mut *self.trials;
        let walk = &mut self.kept[Self::place(start)];
        walk.recorded += 1;
        walk.reads = 0;
        let mut words = Words::new(start.sp);
        let mut regs = UnwindRegsNative::new(start.ip, start.sp, start.bp);
        let mut frame = FrameAddress::from_instruction_pointer(start.ip);
        let read = |at: u64| {
            if !readable.contains(at) {
                return Err(());
            }
            // SAFETY: the caller's promise: live words of this thread's own stack.
            Ok(unsafe { (at as *const u64).read_unaligned() })
        };
        let mut frames = 0;
        while words.is_whole {
            frames += 1;
            words.is_whole = frames <= 2 * READS;
            let cache = &mut caches[super::cache_of(frame)];
            let before = regs;
            let mut reads = Reads::default();
            let result = unwinder.unwind_frame(frame, &mut regs, cache, &mut |at| {
                let word = read(at)?;
                reads.push(at, word);
                Ok(word)
            });
            let (mut uses_bp, mut keeps_bp) = (false, true);
            for other in [0, !before.bp()] {
                let mut changed = UnwindRegsNative::new(before.ip(), before.sp(), other);
                let trial = unwinder.unwind_frame(frame, &mut changed, trials, &mut |at| read(at));
                let same = trial == result;
                uses_bp |= !same || changed.sp() != regs.sp();
                keeps_bp &= same && changed.bp() == other;
            }
            if uses_bp {
                words.bp_is_used();
            }
            let restored = match keeps_bp {
                true => None,
                false => words.bp_is_restored(&reads, regs.bp(), result.ok().flatten()),
            };
            words.count(&reads, restored);
            match result {
                Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                    Some(next) => frame = next,
                    None => break,
                },
                Ok(None) => break,
                // How it failed may depend on anything.
                Err(_) => words.is_whole = false,
            }
        }
        if !words.is_whole || words.len == 0 {
            return;
        }
        walk.offsets = words.offsets;
        walk.top = words.top;
        walk.bp = start.bp;
        walk.bp_counts = u8::from(words.start_counts);
        walk.words = hash(start.sp, &words.offsets[..words.len]);
        (walk.len, walk.flags) = (answer.len as u16, answer.flags);
        // Last: nothing panics between here and above, but then it would not count either.
        walk.reads = words.len as u16;
    }
}

fn address(sp: u64, offset: u16) -> u64 {
    sp + u64::from(offset) * 8
}

/// Over the words of the stack at these places. Four sums, so that none waits for another.
///
/// The caller has seen that all lie in the thread's own stack.
#[inline(always)]
fn hash(sp: u64, offsets: &[u16]) -> u64 {
    let word = |offset: u16| {
        // SAFETY: see above; above the stack pointer of a function that called this one.
        unsafe { (address(sp, offset) as *const u64).read_unaligned() }
    };
    let mut sums = [1u64, 2, 3, 4];
    let (fours, rest) = offsets.as_chunks::<4>();
    for four in fours {
        for (sum, &offset) in sums.iter_mut().zip(four) {
            *sum = (sum.rotate_left(23) ^ word(offset)).wrapping_mul(super::SPREAD);
        }
    }
    let all = rest.iter().map(|&offset| word(offset)).chain(sums);
    all.fold(offsets.len() as u64, |sum, word| {
        (sum.rotate_left(23) ^ word).wrapping_mul(super::SPREAD)
    })
}

/// What unwinding one frame read.
#[derive(Default)]
struct Reads {
    words: [(u64, u64); READS_A_FRAME],
    len: usize,
    overflow: bool,
}

impl Reads {
    fn push(&mut self, at: u64, word: u64) {
        match self.words.get_mut(self.len) {
            Some(place) => {
                *place = (at, word);
                self.len += 1;
            }
            None => self.overflow = true,
        }
    }
}

/// Where the frame pointer of a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It is the one of the start.
    Start,
    /// It was read here, and that does not count so far.
    Word(u64),
    /// It depends on what counts already.
    Counts,
}

/// The words that count so far.
struct Words {
    sp: u64,
    offsets: [u16; READS],
    len: usize,
    top: u16,
    bp: Origin,
    /// The frame pointer of the start counts.
    start_counts: bool,
    /// Everything that counts is in here.
    is_whole: bool,
}

impl Words {
    fn new(sp: u64) -> Words {
        Words {
            sp,
            offsets: [0; READS],
            len: 0,
            top: 0,
            bp: Origin::Start,
            start_counts: false,
            is_whole: true,
        }
    }

    fn counts(&mut self, at: u64) {
        let distance = at.wrapping_sub(self.sp);
        let offset = u16::try_from(distance / 8).ok();
        match (offset, self.offsets.get_mut(self.len)) {
            (Some(offset), Some(place)) if distance.is_multiple_of(8) => {
                *place = offset;
                self.len += 1;
                self.top = self.top.max(offset);
            }
            _ => self.is_whole = false,
        }
    }

    /// The frame that is being unwound uses the frame pointer.
    fn bp_is_used(&mut self) {
        match self.bp {
            Origin::Start => self.start_counts = true,
            Origin::Word(at) => self.counts(at),
            Origin::Counts => {}
        }
        self.bp = Origin::Counts;
    }

    /// The frame that was unwound keeps the frame pointer of its caller in one of the words that it
    /// read: in which, if that is clear.
    fn bp_is_restored(&mut self, reads: &Reads, bp: u64, caller: Option<u64>) -> Option<u64> {
        let is_it = |&&(_, word): &&(u64, u64)| word == bp && Some(word) != caller;
        let mut found = reads.words[..reads.len].iter().filter(is_it);
        let restored = match (found.next(), found.next()) {
            (Some(&(at, _)), None) => Some(at),
            // Whichever it is, it counts.
            _ => None,
        };
        self.bp = restored.map_or(Origin::Counts, Origin::Word);
        restored
    }

    /// All that was read counts, but for the caller's frame pointer: that does if it is used.
    fn count(&mut self, reads: &Reads, restored: Option<u64>) {
        if reads.overflow {
            self.is_whole = false;
        }
        let words = reads.words[..reads.len].iter();
        for &(at, _) in words.filter(|&&(at, _)| Some(at) != restored) {
            self.counts(at);
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::{Walker, make};
    use std::hint::black_box;

    /// What was seen at the leaves of a tree of calls.
    struct Seen {
        walker: Box<Walker>,
        walks: u32,
        again: u32,
    }

    impl Seen {
        fn new() -> Seen {
            Seen {
                walker: make(),
                walks: 0,
                again: 0,
            }
        }

        /// Whatever is answered is what a walk says.
        #[inline(never)]
        fn look(&mut self, hint: u64) -> u64 {
            // From one place, which is in the answer: a loop that is not unrolled.
            let mut answers = [(0, 0, 0); 2];
            let hints: &[Option<u64>] = &[Some(hint), None];
            for (said, &hint) in answers.iter_mut().zip(black_box(hints)) {
                self.walker.walk(hint);
                self.again += u32::from(std::mem::take(&mut self.walker.again));
                *said = (self.walker.native, self.walker.len, self.walker.flags);
            }
            let [answer, walked] = answers;
            assert_eq!(answer, walked);
            assert!(answer.1 > 5);
            self.walks += 1;
            answer.0
        }
    }

    type Node = fn(u64, u32, u64, &mut Seen) -> u64;

    /// Nodes of a tree, of various frames. `path` says where it goes on; `data` is what the frames
    /// and the registers are full of.
    macro_rules! nodes {
        ($($name:ident $words:literal)*) => {
            $(#[inline(never)]
            fn $name(path: u64, depth: u32, data: u64, seen: &mut Seen) -> u64 {
                let mut frame = [data; $words];
                black_box(&mut frame);
                let found = match depth {
                    0 => seen.look(path % 3),
                    _ => NODES[(path % NODES.len() as u64) as usize](
                        path / NODES.len() as u64,
                        depth - 1,
                        data.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                        seen,
                    ),
                };
                found ^ black_box(frame)[0].wrapping_sub(data)
            })*
            const NODES: &[Node] = &[$($name),*];
        };
    }

    // Some have frames of one size: their calls start alike and lead elsewhere.
    nodes!(a 4 b 4 c 4 d 9 e 30);

    /// A frame that is found by its frame pointer, since its size is not known beforehand; here, by
    /// the words of a slice that lie on the stack.
    #[inline(never)]
    fn by_frame_pointer(path: u64, depth: u32, data: u64, seen: &mut Seen) -> u64 {
        /// More than a page, so that the stack is probed, aligned, so that it is found otherwise.
        #[repr(align(64))]
        struct Aligned([u64; 600]);
        let mut frame = Aligned([data; 600]);
        black_box(&mut frame.0);
        let found = NODES[(path % 3) as usize](path, depth, data, seen);
        found ^ black_box(&frame.0)[5].wrapping_sub(data)
    }

    #[test]
    fn what_is_answered_is_what_a_walk_says() {
        let mut seen = Seen::new();
        let mut random = 1u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let paths: Vec<(u64, u32)> = (0..60).map(|_| (next(), (next() % 12) as u32)).collect();
        for _ in 0..4000 {
            let (path, depth) = paths[(next() % 60) as usize];
            let root = if path % 2 == 0 { a } else { by_frame_pointer };
            root(path, depth, next(), &mut seen);
        }
        // Of those that start alike and have one hint, each pushes the other out.
        assert!(
            seen.again * 4 > seen.walks,
            "{} of {}",
            seen.again,
            seen.walks
        );
    }

    /// Two that start at the same place, with the same hint, and differ in the middle.
    #[test]
    fn callers_of_the_same_size_are_told_apart() {
        let mut seen = Seen::new();
        let one = |seen: &mut Seen, path| black_box(a as Node)(path, 3, 7, seen);
        let paths = [2 + 5 * 3, 2 + 5 + 25 * 3];
        for _ in 0..50 {
            // c, then a or b, then d: as NODES counts, innermost last.
            let mut hashes = [0; 2];
            for (hash, path) in hashes.iter_mut().zip(black_box(paths)) {
                *hash = one(&mut seen, path);
            }
            assert_ne!(hashes[0], hashes[1]);
        }
        for path in paths {
            let before = seen.again;
            for &path in black_box(&[path; 10][..]) {
                one(&mut seen, path);
            }
            assert!(seen.again - before >= 8, "it is not made again");
        }
    }

    /// What registers hold does not matter where nobody uses it to find a frame.
    #[test]
    fn data_does_not_count() {
        let mut seen = Seen::new();
        for round in 0..100u64 {
            c(
                1 + 5 * 4,
                2,
                round.wrapping_mul(0x517c_c1b7_2722_0a95),
                &mut seen,
            );
        }
        assert!(seen.again >= 96, "{}", seen.again);
    }

    /// Calls `act(seen)` from a frame that is found by its frame pointer, but not as most are: what
    /// libffi's are like.
    #[unsafe(naked)]
    extern "C" fn strange(act: extern "C" fn(&mut Seen), seen: &mut Seen) {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "sub rsp, 16",
            ".cfi_def_cfa_offset 32",
            "mov rbp, rsp",
            ".cfi_def_cfa rbp, 32",
            "mov rax, rdi",
            "mov rdi, rsi",
            "call rax",
            "mov rsp, rbp",
            ".cfi_def_cfa rsp, 32",
            "add rsp, 16",
            ".cfi_def_cfa_offset 16",
            "pop rbp",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
        )
    }

    /// What was tried in order to record a walk is nothing that later walks go by.
    #[test]
    fn trials_do_not_change_how_others_walk() {
        extern "C" fn look(seen: &mut Seen) {
            seen.look(0);
            assert_eq!(seen.walker.flags, 0);
        }
        let mut seen = Seen::new();
        for &() in black_box(&[(); 6][..]) {
            strange(look, &mut seen);
        }
        assert!(seen.again >= 3);
    }

    /// Modules that came or went may mean other addresses.
    #[test]
    fn nothing_is_known_after_the_modules_changed() {
        let mut seen = Seen::new();
        let mut found = Vec::new();
        for &changes in black_box(&[0, 0, 0, 0, 0, 1, 0, 0, 0][..]) {
            for _ in 0..changes {
                seen.walker.update();
            }
            let before = seen.again;
            b(0, 1, 1, &mut seen);
            found.push(seen.again > before);
        }
        // Seen once, recorded, known.
        assert_eq!(found, [0, 0, 1, 1, 1, 0, 0, 1, 1].map(|known| known == 1));
    }
}
