//! From loading to the end: the trace starts at the first use of GPU memory, and knows when the
//! process goes down.

use crate::memory::{context, own_calls, streams, vmm};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vramtrace_format::cold::{Cold, Name, Note};
use vramtrace_recorder as recorder;

/// Starts recording, if it has not started: called after a context creation or an allocation
/// succeeded, the first sign that this process uses a GPU.
#[inline]
pub fn start() -> bool {
    recorder::is_on() || start_slowly()
}

#[cold]
fn start_slowly() -> bool {
    recorder::start(&|| {
        quiet_panics();
        forget_what_the_parent_knew();
        register_exit();
        recorder::stack::python::look_with(crate::link::elf::exported);
        describe()
    })
}

/// Facts for the head of the trace.
fn describe() -> Vec<Cold> {
    let mut records = Vec::new();
    if let Some(version) = own_calls::driver_version() {
        records.push(Cold::Driver(Name {
            id: version,
            text: String::new(),
        }));
    }
    if let Some(other) = crate::nvtx::place::another() {
        records.push(Cold::Note(Note {
            code: "nvtx-elsewhere".into(),
            text: format!(
                "NVTX ranges and marks were not recorded: they went to another tool \
                 (NVTX_INJECTION64_PATH={other})"
            ),
        }));
    }
    records
}

/// A panic of ours is caught and counted; it must not print a line into the program's output.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// The process that recorded last.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// In a forked child everything that was learned about the parent's CUDA state is void. In a
/// first start there is nothing to forget.
fn forget_what_the_parent_knew() {
    let before = STARTED_IN.swap(std::process::id(), Ordering::Relaxed);
    if before != 0 && before != std::process::id() {
        crate::memory::capture::start_over();
        crate::memory::graphs::start_over();
        crate::link::runtime::start_over();
    }
    context::start_over();
    crate::memory::attach::start_over();
    crate::memory::code::forget_all();
    crate::memory::footprint::start_over();
    crate::memory::green::start_over();
    crate::memory::bindings::start_over();
    crate::memory::errors::start_over();
    streams::start_over();
    vmm::start_over();
    crate::memory::pools::start_over();
    crate::memory::imports::start_over();
    crate::memory::rescue::start_over();
    for hook in crate::driver_hooks().chain(crate::runtime_hooks()) {
        hook.forget_introduction();
    }
}

unsafe extern "C" {
    fn __cxa_atexit(
        function: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        dso: *mut c_void,
    ) -> c_int;
}

/// Registered at the first use of CUDA, so it runs before the exit handlers that were there
/// earlier: those of global objects, whose frees are teardown.
fn register_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: a function with the expected type; a null dso means "at exit", and this
        // library is never unloaded.
        unsafe { __cxa_atexit(exit_began, null_mut(), null_mut()) };
    }
}

extern "C" fn exit_began(_: *mut c_void) {
    if recorder::is_on() {
        recorder::begin_teardown();
    }
}

extern "C" fn exit_ends() {
    if recorder::is_on() {
        recorder::finished();
    }
}

/// Runs when the loader finishes this library, which is after every library that depends on
/// nothing of ours: late.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_THE_END: extern "C" fn() = exit_ends;

/// When a Python interpreter goes down its module globals die and frees rain: those are teardown.
#[inline]
pub fn watch_teardown() {
    if !recorder::is_teardown() && recorder::stack::python::is_finalizing() {
        recorder::begin_teardown();
    }
}

/// Marks a point in the trace: an exported C function for programs that want one. NVTX marks do
/// the same without linking.
///
/// # Safety
/// `text` must be null or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vramtrace_mark(text: *const std::ffi::c_char) {
    if text.is_null() || !recorder::is_on() {
        return;
    }
    // SAFETY: the caller's contract.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    recorder::mark(0, text.to_bytes());
}
