//! What a hook is: a name, our functions for that name, and the real ones behind them.

use crate::link::entries::{ENTRIES, Entries, Entry};
use bytemuck::Zeroable;
use once_cell::race::OnceNonZeroUsize;
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::num::NonZeroUsize;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};
use vramtrace_recorder::{self as recorder, per_thread};

/// A function of CUDA's that we stand before: one exported function of ours, a few that are handed
/// out, and where they lead.
pub struct Hook {
    name: &'static CStr,
    entries: Entries,
    /// The address that libcuda itself exports: how a resolver's answer is recognised.
    driver: OnceNonZeroUsize,
    /// 1 + its position among all hooks once the trace knows its name; 0 before.
    named: AtomicU16,
}

impl Hook {
    /// A hook with these functions of ours (see [`Entries::new`]), before functions not known yet.
    pub const fn new(name: &'static CStr, ours: [*const c_void; ENTRIES]) -> Hook {
        Hook {
            name,
            entries: Entries::new(ours),
            driver: OnceNonZeroUsize::new(),
            named: AtomicU16::new(0),
        }
    }

    /// Its exported name.
    pub fn name(&self) -> &'static CStr {
        self.name
    }

    /// Our functions, and what they call.
    #[inline]
    pub const fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Learns the address that libcuda exports; the first one stays.
    pub fn is_at(&self, driver: *mut c_void) {
        if let Some(driver) = NonZeroUsize::new(driver as usize)
            && !self.entries.are(driver.get() as *mut c_void)
        {
            let _ = self.driver.set(driver);
        }
    }

    /// Whether this address is what libcuda exports under the name.
    pub fn is_driver(&self, address: *mut c_void) -> bool {
        let address = NonZeroUsize::new(address as usize);
        address.is_some() && self.driver.get() == address
    }

    /// Whether this address is a function that we stand before.
    pub fn stands_before(&self, address: *mut c_void) -> bool {
        self.is_driver(address) || self.entries.call(address)
    }

    /// What a call that came in by this entry of a driver hook is to call; null if there is no such
    /// thing. Those that were handed out know it.
    #[inline]
    pub fn driver_function(&self, entry: &Entry) -> *mut c_void {
        match entry.target() {
            Some(target) => target,
            None => crate::link::driver::linked_target(self),
        }
    }

    /// Number of this API in the trace; its name is written there at its first use.
    #[inline]
    pub fn api(&'static self) -> u16 {
        match self.named.load(Ordering::Relaxed) {
            0 => self.introduce(),
            number => number,
        }
    }

    #[cold]
    fn introduce(&'static self) -> u16 {
        let position = crate::driver_hooks()
            .chain(crate::runtime_hooks())
            .position(|hook| std::ptr::eq(hook, self));
        let number = position.map_or(0, |position| position as u16 + 1);
        self.named.store(number, Ordering::Relaxed);
        recorder::cold(&vramtrace_format::cold::Cold::Api(
            vramtrace_format::cold::Name {
                id: u32::from(number),
                text: self.name.to_string_lossy().into_owned(),
            },
        ));
        number
    }

    /// Forgets what the trace knows: a new trace begins.
    pub fn forget_introduction(&self) {
        self.named.store(0, Ordering::Relaxed);
    }
}

/// What the program called on this thread, and whether we are inside a driver call.
#[derive(Zeroable)]
struct Nesting {
    /// The hook of the outermost API call, or null.
    outermost: Cell<*mut Hook>,
    in_driver: Cell<bool>,
    /// Driver-level calls this thread has made so far; lets a runtime hook notice that none
    /// came through.
    seen: Cell<u64>,
}

per_thread! {
    fn nesting() -> Nesting as "vramtrace_nesting";
}

/// A call that the program made: tells the label of what happens inside, and that driver calls
/// inside driver calls (another interposer, the driver itself) are not the program's.
pub struct Call {
    outermost: *mut Hook,
    opened_label: bool,
    driver: bool,
}

impl Call {
    /// The program called a driver function; `None` inside another driver call.
    #[inline(always)]
    pub fn driver(hook: &'static Hook) -> Option<Call> {
        let nesting = nesting();
        if nesting.in_driver.replace(true) {
            return None;
        }
        nesting.seen.set(nesting.seen.get() + 1);
        Some(Call::labelled(nesting, hook, true))
    }

    /// The program called a runtime function.
    #[inline(always)]
    pub fn runtime(hook: &'static Hook) -> Call {
        Call::labelled(nesting(), hook, false)
    }

    #[inline(always)]
    fn labelled(nesting: &Nesting, hook: &'static Hook, driver: bool) -> Call {
        let label = nesting.outermost.get();
        let own = std::ptr::from_ref(hook).cast_mut();
        if label.is_null() {
            nesting.outermost.set(own);
        }
        Call {
            outermost: if label.is_null() { own } else { label },
            opened_label: label.is_null(),
            driver,
        }
    }

    /// Number of the outermost API function, for the trace.
    #[inline]
    pub fn api(&self) -> u16 {
        // SAFETY: hooks are statics; the pointer was made from a `&'static Hook`.
        unsafe { &*self.outermost }.api()
    }

    /// Driver calls this thread has made so far.
    pub fn driver_calls_seen() -> u64 {
        nesting().seen.get()
    }
}

impl Drop for Call {
    #[inline(always)]
    fn drop(&mut self) {
        let nesting = nesting();
        if self.driver {
            nesting.in_driver.set(false);
        }
        if self.opened_label {
            nesting.outermost.set(null_mut());
        }
    }
}

/// CUDA_ERROR_NOT_INITIALIZED (cuda.h): what a driver function says that has no driver.
pub const NOT_INITIALIZED: u32 = 3;

/// Defines the hooks of one family of the driver API: each an exported function with the ABI of
/// its namesake, that calls the real one through `real` and may record in between. The entries of a
/// hook share one body and pass to it which of them it was.
///
/// `fn NAME(args) = |call, real| expression;` — `call` is the [`Call`], `real()` makes the real
/// call, the expression is the CUresult that the program gets.
macro_rules! driver_hooks {
    ($table:ident: $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = |$call:ident, $real:ident| $body:expr;)*) => {
        /// The hooks of this family.
        pub static $table: &[&$crate::hook::Hook] = &[$(&slots::$name),*];

        #[allow(non_upper_case_globals)]
        mod slots {
            $(pub static $name: $crate::hook::Hook = $crate::hook::Hook::new(
                // SAFETY: a literal with its NUL appended and none inside.
                unsafe { std::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                [
                    super::$name as *const std::ffi::c_void,
                    super::handed_out::$name::<1> as *const std::ffi::c_void,
                    super::handed_out::$name::<2> as *const std::ffi::c_void,
                    super::handed_out::$name::<3> as *const std::ffi::c_void,
                ],
            );)*
        }

        $(
            /// Stands before the driver's function of the same name.
            ///
            /// # Safety
            /// As the real function requires.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                // SAFETY: the arguments are the program's own, passed on unchanged.
                unsafe { body::$name($($arg,)* slots::$name.entries().linked()) }
            }
        )*

        #[allow(non_snake_case)]
        mod handed_out {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub unsafe extern "C" fn $name<const ENTRY: usize>($($arg: $ty),*) -> u32 {
                    // SAFETY: the arguments are the program's own, passed on unchanged.
                    unsafe { body::$name($($arg,)* slots::$name.entries().at(ENTRY)) }
                }
            )*
        }

        #[allow(non_snake_case)]
        mod body {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub unsafe extern "C" fn $name($($arg: $ty,)* entry: &'static $crate::link::entries::Entry) -> u32 {
                    let function = slots::$name.driver_function(entry);
                    if function.is_null() {
                        return $crate::hook::NOT_INITIALIZED;
                    }
                    // SAFETY: `function` is a real function of this name, whose ABI the signature
                    // copies (tests compare it with cudarc's declarations).
                    let function: unsafe extern "C" fn($($ty),*) -> u32 = unsafe { std::mem::transmute(function) };
                    // SAFETY: the arguments are the program's own, passed on unchanged.
                    let real = || unsafe { function($($arg),*) };
                    match $crate::hook::Call::driver(&slots::$name) {
                        Some(call) => {
                            let $call = &call;
                            let $real = real;
                            $body
                        }
                        None => real(),
                    }
                }
            )*
        }
    };
}
pub(crate) use driver_hooks;

/// cudaErrorInitializationError (driver_types.h): what a runtime function says that has no
/// runtime.
pub const NO_RUNTIME: u32 = 3;

/// Defines the hooks of one family of the runtime API, as [`driver_hooks`] does for the driver's.
///
/// A process can hold several runtimes, and each caller must get its own, so the exported
/// function notes its return address before anything else; the arguments, also those on the
/// stack, stay where they are.
macro_rules! runtime_hooks {
    ($table:ident: $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(= |$call:ident, $real:ident| $body:expr)?;)*) => {
        /// The hooks of this family.
        pub static $table: &[&$crate::hook::Hook] = &[$(&slots::$name),*];

        #[allow(non_upper_case_globals)]
        mod slots {
            $(pub static $name: $crate::hook::Hook = $crate::hook::Hook::new(
                // SAFETY: a literal with its NUL appended and none inside.
                unsafe { std::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                [
                    super::$name as *const std::ffi::c_void,
                    super::handed_out::$name::<1> as *const std::ffi::c_void,
                    super::handed_out::$name::<2> as *const std::ffi::c_void,
                    super::handed_out::$name::<3> as *const std::ffi::c_void,
                ],
            );)*
        }

        $(
            /// Stands before the runtime's function of the same name.
            ///
            /// # Safety
            /// As the real function requires.
            #[cfg(target_arch = "x86_64")]
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            #[allow(non_snake_case)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                core::arch::naked_asm!(
                    "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "sub rsp, 8",
                    "mov rdi, [rsp + 56]",
                    "call {note}",
                    "add rsp, 8", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                    "jmp {inner}",
                    note = sym $crate::link::runtime::note_caller,
                    inner = sym inner::$name,
                )
            }
        )*

        #[allow(non_snake_case)]
        mod inner {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                    let caller = $crate::link::runtime::noted_caller();
                    let function = $crate::link::runtime::real_for(&slots::$name, caller);
                    // SAFETY: the arguments are the program's own, passed on unchanged.
                    unsafe { body::$name($($arg,)* function) }
                }
            )*
        }

        #[allow(non_snake_case)]
        mod handed_out {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub unsafe extern "C" fn $name<const ENTRY: usize>($($arg: $ty),*) -> u32 {
                    let function = slots::$name.entries().at(ENTRY).target().unwrap_or(std::ptr::null_mut());
                    // SAFETY: the arguments are the program's own, passed on unchanged.
                    unsafe { body::$name($($arg,)* function) }
                }
            )*
        }

        #[allow(non_snake_case)]
        mod body {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub unsafe extern "C" fn $name($($arg: $ty,)* function: *mut std::ffi::c_void) -> u32 {
                    if function.is_null() {
                        return $crate::hook::NO_RUNTIME;
                    }
                    // SAFETY: `function` is the real function of this name, whose ABI the
                    // signature copies (tests compare it with the headers').
                    let function: unsafe extern "C" fn($($ty),*) -> u32 = unsafe { std::mem::transmute(function) };
                    // SAFETY: the arguments are the program's own, passed on unchanged.
                    let real = || unsafe { function($($arg),*) };
                    let call = $crate::hook::Call::runtime(&slots::$name);
                    $crate::hook::runtime_hooks!(@body call, real $(, $call, $real, $body)?)
                }
            )*
        }
    };
    (@body $call:ident, $real:ident) => {{
        let _label = $call;
        $real()
    }};
    (@body $made:ident, $made_real:ident, $call:ident, $real:ident, $body:expr) => {{
        let $call = &$made;
        let $real = $made_real;
        $body
    }};
}
pub(crate) use runtime_hooks;
