//! PyTorch's blocks.
//!
//! Its caching allocator (libc10_cuda.so) reports every block that it hands out or takes back, and
//! every time that it gives up, to a function of another library (libc10.so) for PyTorch's
//! profiler. The call goes through the loader, so a preloaded function of that name is called in
//! its place. Ours notes what was said and jumps on to the real one: a jump, not a call, so that
//! whatever the real one does, throwing an exception included, finds the caller's frame above it.
//!
//! | PyTorch | usage | out of memory |
//! |---|---|---|
//! | 1.10 to 1.13 | `(void*, long, long, long, Device)` | `(long, long, long, Device)` |
//! | 2.0 on | `(void*, long, unsigned long, unsigned long, Device)` | `(long, unsigned long, unsigned long, Device)` |
//!
//! (1.10 to 1.12 know no report of running out of memory. 1.9 passes something else than an address
//! by a function of another name, which is left alone.) The two forms differ in their names only: all
//! are passed in the same registers, `c10::Device` as two bytes, type and index.
//!
//! What may not be done here: the allocator's lock is held, so nothing of CUDA's is called, and the
//! interpreter's lock is never taken. The same function hears of other allocators, the CPU's first of
//! all; only type CUDA is ours. (A build of PyTorch for AMD's GPUs may call its devices CUDA's as
//! well; but nothing is recorded before the first memory that the CUDA driver gave.)

use crate::hook::Hook;
use crate::lifetime;
use crate::link::entries::ENTRIES;
use crate::link::runtime;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vramtrace_recorder::{self as recorder, Block, Holds};

/// `c10::DeviceType::CUDA`.
const CUDA: u8 = 1;

/// The ordinal of a `c10::Device` that is a CUDA device.
#[inline(always)]
fn cuda_ordinal(device: u16) -> Option<u8> {
    let [kind, index] = device.to_le_bytes();
    // An index below 0 means "the current device", which no block is on.
    (kind == CUDA && index < 0x80).then_some(index)
}

/// A block was handed out (`bytes` above 0) or taken back (below).
#[inline(always)]
fn usage(address: u64, bytes: i64, totals: (u64, u64), device: u16, real: *mut c_void) {
    let Some(device) = cuda_ordinal(device) else {
        return;
    };
    if bytes == 0 || address == 0 || !recorder::is_on() {
        return;
    }
    let block = Block {
        address,
        bytes: bytes.unsigned_abs(),
        device,
    };
    let holds = holds(totals.0, totals.1, real);
    if bytes > 0 {
        recorder::block_handed_out(block, holds);
    } else {
        lifetime::watch_teardown();
        recorder::block_given_back(block, holds);
    }
}

/// The allocator gave up.
#[inline(always)]
fn out_of_memory(asked: i64, (allocated, reserved): (u64, u64), device: u16) {
    if let Some(device) = cuda_ordinal(device)
        && recorder::is_on()
    {
        recorder::framework_out_of_memory(asked.unsigned_abs(), device, allocated, reserved);
    }
}

/// Calls a function of ours with the arguments and the return address, then jumps to what it
/// answers, with registers and stack as they were; returns if that is null, as nobody listens then.
///
/// The directives say where the frame is to whoever walks the stack from inside.
macro_rules! jump_after {
    ($caller:literal, $inner:path) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "push rdi", ".cfi_adjust_cfa_offset 8",
            "push rsi", ".cfi_adjust_cfa_offset 8",
            "push rdx", ".cfi_adjust_cfa_offset 8",
            "push rcx", ".cfi_adjust_cfa_offset 8",
            "push r8", ".cfi_adjust_cfa_offset 8",
            $caller,
            "call {inner}",
            "pop r8", ".cfi_adjust_cfa_offset -8",
            "pop rcx", ".cfi_adjust_cfa_offset -8",
            "pop rdx", ".cfi_adjust_cfa_offset -8",
            "pop rsi", ".cfi_adjust_cfa_offset -8",
            "pop rdi", ".cfi_adjust_cfa_offset -8",
            "test rax, rax",
            "jz 2f",
            "jmp rax",
            "2:",
            "ret",
            ".cfi_endproc",
            inner = sym $inner,
        )
    };
}

/// The reporting function of the first allocator that was heard; 1 stands for none.
static FIRST: AtomicUsize = AtomicUsize::new(0);

/// What an allocator says that it holds. `real` is the function that it reports to: two copies of
/// PyTorch in a process have one each.
#[inline(always)]
fn holds(allocated: u64, reserved: u64, real: *mut c_void) -> Holds {
    static SEVERAL: AtomicBool = AtomicBool::new(false);
    let real = (real as usize).max(1);
    let first = FIRST.load(Ordering::Relaxed);
    if first != real
        && (first != 0
            || FIRST
                .compare_exchange(0, real, Ordering::Relaxed, Ordering::Relaxed)
                .is_err_and(|first| first != real))
    {
        SEVERAL.store(true, Ordering::Relaxed);
    }
    Holds {
        allocated,
        reserved,
        alone: !SEVERAL.load(Ordering::Relaxed),
    }
}

/// Defines what stands before one form of the two functions.
macro_rules! form {
    ($usage:ident, $out_of_memory:ident) => {
        /// Stands before `c10::reportMemoryUsageToProfiler`.
        ///
        /// # Safety
        /// As the real function requires.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $usage(
            address: *mut c_void,
            bytes: i64,
            allocated: u64,
            reserved: u64,
            device: u16,
        ) {
            jump_after!("mov r9, [rsp + 40]", inner::$usage)
        }

        /// Stands before `c10::reportOutOfMemoryToProfiler`.
        ///
        /// # Safety
        /// As the real function requires.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $out_of_memory(
            asked: i64,
            allocated: u64,
            reserved: u64,
            device: u16,
        ) {
            jump_after!("mov r8, [rsp + 40]", inner::$out_of_memory)
        }
    };
}

macro_rules! inner {
    ($usage:ident, $out_of_memory:ident) => {
        pub extern "C" fn $usage(
            address: u64,
            bytes: i64,
            allocated: u64,
            reserved: u64,
            device: u16,
            caller: *mut c_void,
        ) -> *mut c_void {
            static HOOK: Hook = hook!($usage);
            let real = runtime::first_real_for(&HOOK, caller);
            usage(address, bytes, (allocated, reserved), device, real);
            real
        }

        pub extern "C" fn $out_of_memory(
            asked: i64,
            allocated: u64,
            reserved: u64,
            device: u16,
            caller: *mut c_void,
        ) -> *mut c_void {
            static HOOK: Hook = hook!($out_of_memory);
            out_of_memory(asked, (allocated, reserved), device);
            runtime::first_real_for(&HOOK, caller)
        }
    };
}

/// A hook that finds the real function behind ours: the one that the caller's reference would have
/// been bound to, of however many copies of the library there are.
macro_rules! hook {
    ($name:ident) => {
        Hook::new(
            // SAFETY: a literal with its NUL appended and none inside.
            unsafe {
                CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes())
            },
            [super::$name as *const c_void; ENTRIES],
        )
    };
}

form!(
    _ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE,
    _ZN3c1027reportOutOfMemoryToProfilerElllNS_6DeviceE
);
form!(
    _ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE,
    _ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE
);

/// What is called before the jump; answers where to jump.
#[allow(non_snake_case)]
mod inner {
    use super::*;

    inner!(
        _ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE,
        _ZN3c1027reportOutOfMemoryToProfilerElllNS_6DeviceE
    );
    inner!(
        _ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE,
        _ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE
    );
}
