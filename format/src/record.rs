//! One event, and the closed sets of words that it is made of.

use crate::sampling::{self, Weight};
use bytemuck::{Pod, Zeroable};

/// One event of a trace: 64 bytes, one cache line, little-endian.
///
/// The same struct is a slot of the live table: **a live entry is the record of its own
/// allocation**, so that what a leak report knows does not depend on the ring. Every event
/// carries all it changes (a free repeats the size and stack of what it frees), so that the
/// ring can be read from any point.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Record {
    /// Position in the process's one order of events, from 1. In a ring slot 0 means "being
    /// written". In a live slot: the event that made the entry.
    pub seq: u64,
    /// Nanoseconds since [`crate::layout::Header::start_unix_ns`]. Never decreases with `seq`,
    /// except for [`Op::Restore`], which keeps the time of the allocation it brings back.
    pub time: u64,
    /// Value of the live key: an address, a handle, or an id, as [`Space`] says.
    pub key: u64,
    /// Bytes asked for (PyTorch blocks: rounded). For a free: of the allocation it ends.
    pub size: u64,
    /// Depends on `op` and `kind`; see [`Op`] and [`Kind`].
    pub aux: u64,
    /// Id in the stack table, or [`crate::stacks::NO_STACK`] and its neighbours. For a free: of
    /// the allocation it ends.
    pub stack: u32,
    /// Kernel thread id (`gettid`) of the calling thread.
    pub thread: u32,
    /// Id of the innermost NVTX range open on the calling thread; 0 none.
    pub range: u16,
    /// Step of the interval by which this allocation stands for others whose stacks were not taken
    /// ([`crate::sampling`]); 0 it stands for itself.
    pub sampled: u8,
    /// 0.
    pub reserved: u8,
    /// Id of the stream (cold record `Stream`); 0 none or the default stream.
    pub stream: u32,
    /// Id of the CUDA context (cold record `Context`); 0 none.
    pub context: u16,
    /// Id of the outermost API function the program called (cold record `Api`); 0 unknown.
    pub api: u16,
    /// What happened: an [`Op`]. In a live slot: the slot's state, see [`crate::live`].
    pub op: u8,
    /// Which space `key` belongs to: a [`Space`].
    pub space: u8,
    /// What kind of memory: a [`Kind`].
    pub kind: u8,
    /// Device ordinal of the process; [`NO_DEVICE`] for host memory.
    pub device: u8,
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 8);
const _: () = assert!(std::mem::offset_of!(Record, op) / 8 == Record::STATE_WORD);

/// An allocation that was just made, as its hook knows it.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// What kind of memory.
    pub kind: Kind,
    /// Which space `key` belongs to.
    pub space: Space,
    /// Value of the live key.
    pub key: u64,
    /// Bytes asked for.
    pub size: u64,
    /// See [`Kind`].
    pub aux: u64,
    /// Id of its context; 0 none.
    pub context: u16,
    /// Device ordinal, or [`NO_DEVICE`].
    pub device: u8,
    /// Id of its stream; 0 none.
    pub stream: u32,
    /// Id of the outermost API function.
    pub api: u16,
}

impl Allocation {
    /// Its record, but for `seq`, `time`, and what [`Record::set_stack_and_thread`] and
    /// [`Record::set_range_and_sampled`] set.
    ///
    /// Put together in whole words: a store of a part of a word holds up the copy of the word that
    /// follows at once, some 15 cycles each time.
    #[inline(always)]
    pub fn record(self) -> Record {
        let last = u64::from(self.context)
            | u64::from(self.api) << 16
            | (Op::Alloc as u64) << 32
            | (self.space as u64) << 40
            | (self.kind as u64) << 48
            | u64::from(self.device) << 56;
        bytemuck::cast([
            0,
            0,
            self.key,
            self.size,
            self.aux,
            0,
            u64::from(self.stream) << 32,
            last,
        ])
    }
}

impl Record {
    /// Sets two neighbours at once.
    #[inline(always)]
    pub fn set_stack_and_thread(&mut self, stack: u32, thread: u32) {
        let words: &mut [u64; 8] = bytemuck::cast_mut(self);
        words[5] = u64::from(stack) | u64::from(thread) << 32;
    }

    /// Sets the range, and the step that it was sampled at, in a whole word.
    #[inline(always)]
    pub fn set_range_and_sampled(&mut self, range: u16, sampled: u8) {
        let words: &mut [u64; 8] = bytemuck::cast_mut(self);
        words[6] = words[6] & !0xffff_ffff | u64::from(range) | u64::from(sampled) << 16;
    }

    /// What it stands for beyond itself.
    pub fn weight(&self) -> Weight {
        sampling::weight(self.size, self.sampled)
    }

    /// The event that ends this live entry, but for `seq` and `time`. In whole words, as
    /// [`Allocation::record`].
    #[inline(always)]
    pub fn ended(&self, how: Op, api: u16, thread: u32, stream: u32) -> Record {
        let mut words = self.words();
        words[4] = Record::free_aux(self.seq, (words[7] >> 16) as u16);
        words[5] = words[5] & 0xffff_ffff | u64::from(thread) << 32;
        words[6] = words[6] & 0xffff_ffff | u64::from(stream) << 32;
        words[7] = words[7] & !0xff_ffff_0000 | u64::from(api) << 16 | (how as u64) << 32;
        bytemuck::cast(words)
    }
}

/// Id of a device's graph pool in the trace, less the device's ordinal.
pub const GRAPH_POOL: u64 = 0x1000;

/// `device` of memory that belongs to no device.
pub const NO_DEVICE: u8 = 255;

/// How many low bits of a free's `aux` are the sequence number of its allocation.
const SEQ_BITS: u32 = 48;

impl Record {
    /// Which of its eight words holds `op`, a live slot's state.
    pub(crate) const STATE_WORD: usize = 7;

    /// The record as its eight words, as they are stored.
    #[inline(always)]
    pub fn words(&self) -> [u64; 8] {
        bytemuck::cast(*self)
    }

    /// `aux` of a free-like event: which allocation it ends, and through which API that was made
    /// (the event's own `api` names the function that freed).
    pub fn free_aux(alloc_seq: u64, alloc_api: u16) -> u64 {
        (alloc_seq & ((1 << SEQ_BITS) - 1)) | (u64::from(alloc_api) << SEQ_BITS)
    }

    /// `aux` of [`Op::Rescue`]: the driver's answer to the second attempt (0: the program got its
    /// memory), how long the rescue took, microseconds, and whether the device was not waited for
    /// to the end, so that what was being freed there was not given back.
    pub fn rescue_aux(result: u32, micros: u64, impatient: bool) -> u64 {
        let micros = micros.min(u64::from(u32::MAX >> 1));
        u64::from(result) | micros << 32 | u64::from(impatient) << 63
    }

    /// What [`Record::rescue_aux`] put together.
    pub fn rescue(&self) -> (u32, u64, bool) {
        let micros = self.aux >> 32 & u64::from(u32::MAX >> 1);
        (self.aux as u32, micros, self.aux >> 63 != 0)
    }

    /// Sequence number of the allocation that this free-like event ends.
    pub fn ended_seq(&self) -> u64 {
        self.aux & ((1 << SEQ_BITS) - 1)
    }

    /// The API that made the allocation which this free-like event ends.
    #[inline]
    pub fn ended_api(&self) -> u16 {
        (self.aux >> SEQ_BITS) as u16
    }

    /// Which of the two rings it lies in, and for a live entry in which live table. Ranges may end as
    /// often as blocks are handed out: they are where those are.
    #[inline(always)]
    pub fn lane(&self) -> usize {
        match self.kind() {
            Some(kind) => kind.lane(),
            None => usize::from(self.op == Op::RangeEnded as u8),
        }
    }

    /// The API that made the allocation this event is about.
    pub fn allocating_api(&self) -> u16 {
        if self.op().is_some_and(Op::ends_allocation) {
            self.ended_api()
        } else {
            self.api
        }
    }

    /// What happened, or `None` for a number that this version does not know.
    pub fn op(&self) -> Option<Op> {
        Op::from_u8(self.op)
    }

    /// The kind, or `None` for a number that this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }

    /// The key space, or `None` for a number that this version does not know.
    pub fn space(&self) -> Option<Space> {
        Space::from_u8(self.space)
    }
}

/// Defines an enum whose numbers are part of the file format, with its number and name.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $number,)* }

        impl $name {
            /// Every word of the set, in the order of its numbers.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The word with this number in the file format.
            pub const fn from_u8(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }

            /// The name that reports, JSON and the command line use.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The word with this name.
            pub fn from_name(name: &str) -> Option<$name> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// What an event is.
    ///
    /// "Ends" events (see [`Op::ends_allocation`]) carry the allocation's size, stack, kind,
    /// device and context, and in `aux` its sequence number and API ([`Record::free_aux`]).
    Op {
        /// An allocation succeeded. `aux`: see [`Kind`].
        Alloc = 1 => "alloc",
        /// The program freed it.
        Free = 2 => "free",
        /// Its address was handed out again, so it must have been freed by a way that is not
        /// hooked ("free not seen").
        FreeUnseen = 3 => "free-unseen",
        /// Its context was destroyed while it was live.
        EndByContext = 4 => "end-context",
        /// Its device was reset (or its primary context released for good) while it was live.
        EndByReset = 5 => "end-reset",
        /// Freed while the process was going down (interpreter finalising, or after `exit`
        /// began): the live entry stays, marked.
        FreeInTeardown = 6 => "free-teardown",
        /// A free turned out to have failed: the entry is back. All fields are the
        /// allocation's own, `time` included; only `seq` is new.
        Restore = 7 => "restore",
        /// A sampled gauge changed: `size` is the new number of bytes, `aux` the one before.
        Resize = 8 => "resize",
        /// An allocation failed. `size`: bytes asked for, `aux`: the driver's error code.
        AllocFailed = 16 => "alloc-failed",
        /// A free failed. `key`: what was to be freed, `aux`: the driver's error code.
        FreeFailed = 17 => "free-failed",
        /// A free of something that was not in the live set.
        FreeUnmatched = 18 => "free-unmatched",
        /// The device's memory, by cuMemGetInfo: `size` total, `aux` free bytes.
        MemInfo = 19 => "mem-info",
        /// A framework's allocator gave up: the driver gave no more, and emptying its cache did not
        /// help. `size`: bytes asked for (PyTorch blocks: rounded), `key`: bytes that it has handed
        /// out on the device, `aux`: bytes that it has reserved there.
        FrameworkOom = 20 => "framework-oom",
        /// A context exists from here on. `key`: the handle.
        ContextCreated = 24 => "context-created",
        /// A context is being destroyed; what it owned ends between this and `ContextGone`.
        ContextEnding = 25 => "context-ending",
        /// The context is gone. `aux`: the driver's error code (0 success).
        ContextGone = 26 => "context-gone",
        /// The first sticky error of a context: what is live now can't be freed any more.
        /// `aux`: the driver's error code.
        ContextCorrupted = 27 => "context-corrupted",
        /// A module or library was loaded. `key`: handle, `aux`: how much more memory the driver then
        /// held, bytes, 0 where it was not measured (other memory changed meanwhile).
        ModuleLoaded = 32 => "module-loaded",
        /// A module or library was unloaded. `key`: handle, `aux`: as before, negative, wrapping.
        ModuleUnloaded = 33 => "module-unloaded",
        /// The process was checkpointed or restored. `aux`: which (the API's order).
        Checkpoint = 34 => "checkpoint",
        /// The program set a mark. `aux`: id of its text.
        Mark = 35 => "mark",
        /// Pools were trimmed. `key`: pool id or 0 for a graph pool, `size`: bytes to keep.
        Trim = 36 => "trim",
        /// Memory was made visible to other processes, who may keep it. The fields are those of its
        /// allocation; `aux`: 1 by an IPC handle, 2 physical memory by a shareable handle, 3 a pool
        /// by a shareable handle, 4 a pool's block by a pointer.
        Exported = 37 => "exported",
        /// A limit of a context was set (cuCtxSetLimit), for which the driver may take memory for
        /// itself; before and after it stands a `MemInfo`. `key`: the CUlimit, `size`: its value.
        LimitSet = 38 => "limit-set",
        /// The driver took memory when something was first used: a function's code, or what it needs
        /// to run. `key`: the handle, `aux`: bytes, wrapping.
        CodeGrew = 39 => "code-grew",
        /// From here on frees are teardown ([`Op::FreeInTeardown`]).
        TeardownBegins = 40 => "teardown",
        /// Stacks are sampled by another interval from here on. `size`: the interval, bytes, 0 all
        /// stacks; `key`: the one before; `aux`: what stacks cost before, in millionths of a core.
        SamplingChanged = 41 => "sampling",
        /// After an allocation failed for lack of memory, pools of its device were trimmed, and the
        /// call was made once more. `size`: bytes asked for, `key`: bytes that the trimming gave
        /// back, `aux`: [`Record::rescue_aux`].
        Rescue = 42 => "rescue",
        /// A snapshot of the tables was written beside the trace, after an allocation failed. `key`:
        /// its number, `size`: its bytes, 0 if it could not be written, `aux`: the event of the
        /// failure.
        Snapshot = 43 => "snapshot",
        /// A range ended in which something was recorded: `range`, which the thread popped that had
        /// pushed it; `thread` 0 if the process started and ended it. `aux`: its `time` when it was
        /// entered, 0 before the trace began.
        RangeEnded = 44 => "range-ended",
    }
}

impl Op {
    /// The event takes an allocation out of the live set (or marks it in teardown).
    pub const fn ends_allocation(self) -> bool {
        matches!(
            self,
            Op::Free | Op::FreeUnseen | Op::EndByContext | Op::EndByReset | Op::FreeInTeardown
        )
    }

    /// The event puts an entry into the live set.
    pub const fn begins_allocation(self) -> bool {
        matches!(self, Op::Alloc | Op::Restore)
    }
}

words! {
    /// Which namespace a live key belongs to: two different things may have the same number.
    Space {
        /// A device virtual address (linear, managed, stream-ordered, graph memory).
        Device = 1 => "device",
        /// A host address (pinned or registered memory).
        Host = 2 => "host",
        /// A CUarray handle.
        Array = 3 => "array",
        /// A CUmipmappedArray handle.
        Mipmap = 4 => "mipmap",
        /// Our own id of a physical allocation by cuMemCreate (its handles are reused).
        Vmm = 5 => "vmm",
        /// A device virtual address where physical memory is mapped.
        Mapping = 6 => "mapping",
        /// A reserved range of device virtual addresses.
        Reservation = 7 => "reservation",
        /// Our own id of a memory pool (a device's graph pool: `0x1000 + device`).
        Pool = 8 => "pool",
        /// The address of a PyTorch caching-allocator block.
        Torch = 9 => "torch",
        /// An imported allocation: an address or a handle that is somebody else's memory.
        Import = 10 => "import",
    }
}

words! {
    /// What kind of memory an allocation is, and with that which [`Layer`] its bytes count in.
    Kind {
        /// cuMemAlloc, cuMemAllocPitch.
        Device = 1 => "device",
        /// cuMemAllocManaged.
        Managed = 2 => "managed",
        /// Page-locked host memory that the driver allocated. `aux`: flags.
        Pinned = 3 => "pinned",
        /// The program's own host memory, page-locked by cuMemHostRegister. `aux`: flags.
        Registered = 4 => "registered",
        /// CUDA arrays and mipmapped arrays; bytes from the descriptor. `aux`: bytes that the
        /// driver reports to need, where it does.
        Array = 5 => "array",
        /// Physical memory by cuMemCreate. `aux`: the handle.
        Vmm = 6 => "vmm",
        /// What a stream-ordered memory pool (or a device's graph pool) holds; a sampled gauge.
        Pool = 7 => "pool",
        /// A block of a stream-ordered pool. `aux`: pool id.
        Async = 8 => "async",
        /// Memory of a graph's allocation node. `aux`: handle of the executable graph.
        Graph = 9 => "graph",
        /// Somebody else's memory, visible here (IPC, shareable handle, external, graphics).
        Import = 10 => "import",
        /// A block that PyTorch's caching allocator handed out.
        Torch = 11 => "torch",
        /// Where a physical allocation is mapped; no bytes of its own. `aux`: its id.
        Mapping = 12 => "mapping",
        /// A reserved address range; no bytes of its own.
        Reservation = 13 => "reservation",
    }
}

words! {
    /// In which sum a byte is counted. Layers are never added up: the framework layer is memory
    /// that the device layer already holds.
    Layer {
        /// What the driver took from the device.
        Device = 0 => "device",
        /// What an allocator handed out inside that.
        Framework = 1 => "framework",
        /// Page-locked host memory.
        Host = 2 => "host",
    }
}

/// Kinds as bits, for questions that every event asks.
const fn any_of(kinds: &[Kind]) -> u32 {
    let (mut bits, mut at) = (0, 0);
    while at < kinds.len() {
        bits |= 1 << kinds[at] as u32;
        at += 1;
    }
    bits
}

const HOST: u32 = any_of(&[Kind::Pinned, Kind::Registered]);
const FRAMEWORK: u32 = any_of(&[Kind::Async, Kind::Graph, Kind::Torch]);
const NOT_COUNTED: u32 = any_of(&[Kind::Import, Kind::Mapping, Kind::Reservation]);

impl Kind {
    #[inline(always)]
    const fn is_any_of(self, kinds: u32) -> bool {
        kinds >> self as u32 & 1 != 0
    }

    /// Which layer the bytes of this kind belong to.
    #[inline(always)]
    pub const fn layer(self) -> Layer {
        if self.is_any_of(HOST) {
            Layer::Host
        } else if self.is_any_of(FRAMEWORK) {
            Layer::Framework
        } else {
            Layer::Device
        }
    }

    /// Whether its bytes are added to accounts. What is not ours, or holds nothing itself, is
    /// listed and never added.
    #[inline(always)]
    pub const fn counted(self) -> bool {
        !self.is_any_of(NOT_COUNTED)
    }

    /// Which of the two live tables and rings: busy framework blocks never push out the rare
    /// events of the device layer.
    #[inline(always)]
    pub const fn lane(self) -> usize {
        self.is_any_of(FRAMEWORK) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_through_numbers_and_names() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        for &op in Op::ALL {
            assert_eq!(Op::from_u8(op as u8), Some(op));
        }
        assert_eq!(Op::from_u8(0), None);
        assert_eq!(Kind::from_u8(99), None);
    }

    #[test]
    fn words_hold_the_fields() {
        let allocation = Allocation {
            kind: Kind::Async,
            space: Space::Device,
            key: 1,
            size: 2,
            aux: 3,
            context: 4,
            device: 5,
            stream: 6,
            api: 7,
        };
        let mut record = allocation.record();
        record.set_stack_and_thread(8, 9);
        record.set_range_and_sampled(14, 15);
        record.seq = 10;
        let by_fields = Record {
            seq: 10,
            key: 1,
            size: 2,
            aux: 3,
            stack: 8,
            thread: 9,
            range: 14,
            sampled: 15,
            stream: 6,
            context: 4,
            api: 7,
            op: Op::Alloc as u8,
            space: Space::Device as u8,
            kind: Kind::Async as u8,
            device: 5,
            ..Record::default()
        };
        assert_eq!(record, by_fields);
        let ended = record.ended(Op::Free, 11, 12, 13);
        let by_fields = Record {
            op: Op::Free as u8,
            aux: Record::free_aux(10, 7),
            api: 11,
            thread: 12,
            stream: 13,
            ..record
        };
        assert_eq!(ended, by_fields);
    }

    #[test]
    fn a_free_names_the_allocation_it_ends() {
        let free = Record {
            op: Op::Free as u8,
            api: 9,
            aux: Record::free_aux(123_456_789, 7),
            ..Record::default()
        };
        assert_eq!(free.ended_seq(), 123_456_789);
        assert_eq!(free.allocating_api(), 7);
    }
}
