//! State of a thread, at a fixed distance from the thread pointer.
//!
//! `thread_local!` in a shared library asks the loader where its data lies, at every access: a call
//! and some 15 instructions, several times an event. What is declared here lies in the static
//! thread-local block, where two instructions find it. A preloaded library always has its place
//! there; one that is opened later gets it from the surplus that the C library keeps for this
//! (glibc: 1,664 bytes and more; ours takes some 800).

/// Declares a function that returns the calling thread's own instance of a type, zero at first:
///
/// `per_thread! { /// … fn identity() -> Identity as "vramtrace_identity"; }`
///
/// The text names the symbol, unique in the library. The instance is never dropped, and can be
/// used until the thread is gone, in destructors of other thread-local data too.
#[macro_export]
macro_rules! per_thread {
    ($(#[$meta:meta])* $vis:vis fn $name:ident() -> $ty:ty as $symbol:literal;) => {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        core::arch::global_asm!(
            concat!(".pushsection .tbss.", $symbol, ",\"awT\",@nobits"),
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ",@object"),
            ".balign {align}",
            concat!($symbol, ":"),
            ".zero {size}",
            concat!(".size ", $symbol, ", {size}"),
            ".popsection",
            align = const align_of::<$ty>(),
            size = const size_of::<$ty>(),
        );

        $(#[$meta])*
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        #[inline(always)]
        $vis fn $name() -> &'static $ty {
            const fn zero_is_valid<T: $crate::per_thread::Zeroable>() {}
            const { zero_is_valid::<$ty>() };
            let at: *const $ty;
            // SAFETY: the sum of the thread pointer and the symbol's offset in the static
            // thread-local block, which is the address of this thread's instance. (Not `pure`:
            // a thread may be another one after a fork, and two reads are nothing to save.)
            unsafe {
                core::arch::asm!(
                    "mov {at}, qword ptr fs:[0]",
                    concat!("add {at}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    at = out(reg) at,
                    options(readonly, nostack),
                );
            }
            // SAFETY: of the type's size and alignment, zeroed by the loader, which the type
            // allows (checked above); mapped as long as the thread runs. The reference cannot
            // leave the thread, since nobody declares a type here that is Sync.
            unsafe { &*at }
        }

        $(#[$meta])*
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        #[inline]
        $vis fn $name() -> &'static $ty {
            thread_local! {
                // SAFETY: the type allows all zeros: its bound below.
                static INSTANCE: std::mem::ManuallyDrop<$ty> = const { unsafe { std::mem::zeroed() } };
            }
            const fn zero_is_valid<T: $crate::per_thread::Zeroable>() {}
            const { zero_is_valid::<$ty>() };
            // SAFETY: without a destructor an instance lives as long as its thread; the reference
            // cannot leave that.
            INSTANCE.with(|instance| unsafe { &*std::ptr::from_ref::<$ty>(instance) })
        }
    };
}

pub use bytemuck::Zeroable;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    per_thread! {
        /// A counter and a byte that asks for no alignment.
        fn counter() -> (Cell<u64>, Cell<u8>) as "vramtrace_test_counter";
    }

    #[test]
    fn every_thread_has_its_own_and_it_begins_with_zero() {
        let count = |to: u64| {
            let (counter, byte) = counter();
            assert_eq!((counter.get(), byte.get()), (0, 0));
            for _ in 0..to {
                counter.set(counter.get() + 1);
                byte.set(byte.get().wrapping_add(3));
            }
            (counter.get(), byte.get())
        };
        let threads: Vec<_> = (1..9)
            .map(|n| (n, std::thread::spawn(move || count(n))))
            .collect();
        assert_eq!(count(1000), (1000, (3000 % 256) as u8));
        for (n, thread) in threads {
            assert_eq!(thread.join().unwrap(), (n, 3 * n as u8));
        }
    }
}
