//! What NVTX's functions call when we are their tool.
//!
//! `nvtxRangePush` and `Pop` return what they return without any tool
//! (`NVTX_NO_PUSH_POP_TRACKING`): a program's results are the same with and without us.

use super::message::{self, Attributes, Wide};
use std::ffi::{c_char, c_int, c_void};
use vramtrace_recorder::ranges::{self, names::Name, text::LONGEST};

/// NVTX_NO_PUSH_POP_TRACKING.
const NO_TRACKING: c_int = -2;

/// A domain, a registered text: its name's number, as a pointer that nobody follows.
type Handle = *mut c_void;

#[inline]
fn handle(name: Name) -> Handle {
    std::ptr::without_provenance_mut(usize::from(name))
}

/// What a handle stands for; the default domain for one that is not ours.
#[inline]
fn domain(handle: Handle) -> Name {
    if handle.is_null() {
        return 0;
    }
    ranges::known(handle as usize).unwrap_or(0)
}

/// `NVTX_CB_MODULE_CORE`.
pub fn core() -> [(usize, *const c_void); 13] {
    [
        (1, mark_ex as *const c_void),
        (2, mark_a as *const c_void),
        (3, mark_w as *const c_void),
        (4, range_start_ex as *const c_void),
        (5, range_start_a as *const c_void),
        (6, range_start_w as *const c_void),
        (7, range_end as *const c_void),
        (8, range_push_ex as *const c_void),
        (9, range_push_a as *const c_void),
        (10, range_push_w as *const c_void),
        (11, range_pop as *const c_void),
        (14, name_thread_a as *const c_void),
        (15, name_thread_w as *const c_void),
    ]
}

/// `NVTX_CB_MODULE_CORE2`.
pub fn core2() -> [(usize, *const c_void); 9] {
    [
        (1, domain_mark_ex as *const c_void),
        (2, domain_range_start_ex as *const c_void),
        (3, domain_range_end as *const c_void),
        (4, domain_range_push_ex as *const c_void),
        (5, domain_range_pop as *const c_void),
        (10, register_a as *const c_void),
        (11, register_w as *const c_void),
        (12, domain_create_a as *const c_void),
        (13, domain_create_w as *const c_void),
    ]
}

/// `NVTX_EXT_PAYLOAD_MODULEID` (nvToolsExtPayload.h): ranges, whose name would be somewhere in the payload.
/// NCCL pops with these what it pushes with others. Registering schemas and marks do nothing, as without a tool.
pub fn payload() -> [(usize, *const c_void); 4] {
    [
        (3, range_push_payload as *const c_void),
        (4, range_pop_payload as *const c_void),
        (5, range_start_payload as *const c_void),
        (6, range_end_payload as *const c_void),
    ]
}

/// One function of NVTX's: its arguments are the program's, and mean what nvToolsExt.h says.
macro_rules! callbacks {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(unsafe extern "C" fn $name($($arg: $ty),*) $(-> $result)? {
            // SAFETY: what is passed on are the program's own arguments, whose validity is the
            // contract of NVTX's function. Panics are caught by the recorder; nothing here panics.
            #[allow(unused_unsafe)]
            unsafe { $body }
        })*
    };
}

callbacks! {
    fn mark_ex(event: *const Attributes) {
        message::mark(0, event)
    }
    fn mark_a(text: *const c_char) {
        message::mark_narrow(text)
    }
    fn mark_w(text: *const Wide) {
        message::mark_wide(text)
    }
    fn range_start_ex(event: *const Attributes) -> u64 {
        ranges::start(message::name(0, event))
    }
    fn range_start_a(text: *const c_char) -> u64 {
        ranges::start(ranges::name(0, message::narrow(text, LONGEST)))
    }
    fn range_start_w(text: *const Wide) -> u64 {
        ranges::start(message::wide(text, LONGEST, |text| ranges::name(0, text)))
    }
    fn range_end(id: u64) {
        ranges::end(id)
    }
    fn range_push_ex(event: *const Attributes) -> c_int {
        ranges::push(0, message::name(0, event));
        NO_TRACKING
    }
    fn range_push_a(text: *const c_char) -> c_int {
        ranges::push(0, ranges::name(0, message::narrow(text, LONGEST)));
        NO_TRACKING
    }
    fn range_push_w(text: *const Wide) -> c_int {
        ranges::push(0, message::wide(text, LONGEST, |text| ranges::name(0, text)));
        NO_TRACKING
    }
    fn range_pop() -> c_int {
        ranges::pop(0);
        NO_TRACKING
    }
    fn name_thread_a(thread: u32, text: *const c_char) {
        ranges::name_thread(thread, message::narrow(text, LONGEST))
    }
    fn name_thread_w(thread: u32, text: *const Wide) {
        message::wide(text, LONGEST, |text| ranges::name_thread(thread, text))
    }
    fn domain_mark_ex(of: Handle, event: *const Attributes) {
        message::mark(domain(of), event)
    }
    fn domain_range_start_ex(of: Handle, event: *const Attributes) -> u64 {
        ranges::start(message::name(domain(of), event))
    }
    fn domain_range_end(_of: Handle, id: u64) {
        ranges::end(id)
    }
    fn domain_range_push_ex(of: Handle, event: *const Attributes) -> c_int {
        let domain = domain(of);
        ranges::push(domain, message::name(domain, event));
        NO_TRACKING
    }
    fn domain_range_pop(of: Handle) -> c_int {
        ranges::pop(domain(of));
        NO_TRACKING
    }
    fn register_a(of: Handle, text: *const c_char) -> Handle {
        handle(ranges::name(domain(of), message::narrow(text, LONGEST)))
    }
    fn register_w(of: Handle, text: *const Wide) -> Handle {
        handle(message::wide(text, LONGEST, |text| ranges::name(domain(of), text)))
    }
    fn domain_create_a(text: *const c_char) -> Handle {
        handle(ranges::domain(message::narrow(text, LONGEST)))
    }
    fn domain_create_w(text: *const Wide) -> Handle {
        handle(message::wide(text, LONGEST, ranges::domain))
    }
    fn range_push_payload(of: Handle, _payloads: *const c_void, _count: usize) -> c_int {
        let domain = domain(of);
        ranges::push(domain, ranges::name(domain, b""));
        NO_TRACKING
    }
    fn range_pop_payload(of: Handle, _payloads: *const c_void, _count: usize) -> c_int {
        ranges::pop(domain(of));
        NO_TRACKING
    }
    fn range_start_payload(of: Handle, _payloads: *const c_void, _count: usize) -> u64 {
        ranges::start(ranges::name(domain(of), b""))
    }
    fn range_end_payload(_of: Handle, id: u64, _payloads: *const c_void, _count: usize) {
        ranges::end(id)
    }
}
