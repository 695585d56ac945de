//! Our `dlsym`, `dlvsym` and `dlclose`.
//!
//! Static libcudart, Triton, JAX and many others find the driver by `dlsym`; without standing
//! before it only dynamically linked programs would be seen. It runs at any time, from any thread,
//! before anything of ours is initialised and even from inside Rust's own standard library, so
//! the common path touches nothing: a name that begins neither with `cu` nor with `dl` goes straight
//! to the next function by a tail jump. A jump, not a call: `RTLD_NEXT` and `RTLD_DEFAULT` are answered
//! by who the caller is.

use super::{driver, elf, modules, runtime};
use crate::hook::Hook;
use once_cell::race::OnceNonZeroUsize;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::ptr::null_mut;

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

type Dlclose = unsafe extern "C" fn(*mut c_void) -> c_int;

/// A function of the loader's that we stand before.
struct Before {
    name: &'static CStr,
    /// The C library's own.
    plain: OnceNonZeroUsize,
    /// The next one after ours: another preloaded library's, else the C library's.
    next: OnceNonZeroUsize,
}

impl Before {
    const fn new(name: &'static CStr) -> Before {
        Before {
            name,
            plain: OnceNonZeroUsize::new(),
            next: OnceNonZeroUsize::new(),
        }
    }

    fn plain(&self) -> *mut c_void {
        found(&self.plain, || {
            elf::libc_function(self.name).unwrap_or(null_mut())
        })
    }

    /// Asked of the C library, without a version: another library's has none, and its own `dlsym`
    /// would say what comes after that library.
    fn next(&self) -> *mut c_void {
        found(&self.next, || {
            let next = plain_dlsym(libc::RTLD_NEXT, self.name);
            if next.is_null() { self.plain() } else { next }
        })
    }
}

static DLSYM: Before = Before::new(c"dlsym");
static DLVSYM: Before = Before::new(c"dlvsym");
static DLCLOSE: Before = Before::new(c"dlclose");

fn found(cell: &OnceNonZeroUsize, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let found = cell.get_or_try_init(|| NonZeroUsize::new(find() as usize).ok_or(()));
    found.map_or(null_mut(), |address| address.get() as *mut c_void)
}

/// What the C library's own `dlsym` finds, asked by this library: past every interposer.
pub fn plain_dlsym(handle: *mut c_void, name: &CStr) -> *mut c_void {
    LookUp::of(name).plain(handle)
}

/// As [`plain_dlsym`], of this version if one is given.
pub fn plain_dlvsym(handle: *mut c_void, name: &CStr, version: Option<&CStr>) -> *mut c_void {
    let version = version.map(CStr::as_ptr);
    LookUp { name, version }.plain(handle)
}

/// The C library's own `dlclose`.
pub fn plain_dlclose(handle: *mut c_void) -> c_int {
    close_by(DLCLOSE.plain(), handle)
}

fn close_by(function: *mut c_void, handle: *mut c_void) -> c_int {
    if function.is_null() {
        return -1;
    }
    // SAFETY: a dlclose; the handle is the caller's own.
    unsafe { std::mem::transmute::<*mut c_void, Dlclose>(function)(handle) }
}

/// A name to look up, perhaps with a version.
#[derive(Clone, Copy)]
struct LookUp<'a> {
    name: &'a CStr,
    /// NUL-terminated, or null for a look-up by `dlsym`. Whatever `dlvsym`'s caller passed.
    version: Option<*const c_char>,
}

impl<'a> LookUp<'a> {
    fn of(name: &'a CStr) -> LookUp<'a> {
        LookUp {
            name,
            version: None,
        }
    }

    /// Which of our functions was called.
    fn kind(&self) -> &'static Before {
        match self.version {
            None => &DLSYM,
            Some(_) => &DLVSYM,
        }
    }

    fn by(&self, function: *mut c_void, handle: *mut c_void) -> *mut c_void {
        if function.is_null() {
            return null_mut();
        }
        // SAFETY: `function` is a dlsym where there is no version, else a dlvsym; name and
        // version are NUL-terminated.
        unsafe {
            match self.version {
                None => {
                    std::mem::transmute::<*mut c_void, Dlsym>(function)(handle, self.name.as_ptr())
                }
                Some(version) => std::mem::transmute::<*mut c_void, Dlvsym>(function)(
                    handle,
                    self.name.as_ptr(),
                    version,
                ),
            }
        }
    }

    /// What the C library finds, asked by this library.
    fn plain(&self, handle: *mut c_void) -> *mut c_void {
        self.by(self.kind().plain(), handle)
    }

    /// What the next in the chain finds, asked by this library.
    fn next(&self, handle: *mut c_void) -> *mut c_void {
        self.by(self.kind().next(), handle)
    }
}

/// `dlsym`.
///
/// # Safety
/// As dlsym(3).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // Decides in Rust; then returns the decision's answer, or jumps to the next dlsym with the
    // caller's arguments, stack and return address as they were.
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "mov rdx, [rsp + 24]",
        "call {decide}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rdx, rdx",
        "jnz 2f",
        "ret",
        "2:",
        "jmp rdx",
        decide = sym decide_dlsym,
    )
}

/// `dlvsym`.
///
/// # Safety
/// As dlvsym(3).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rcx, [rsp + 24]",
        "call {decide}",
        "mov rcx, rdx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test rcx, rcx",
        "jnz 2f",
        "ret",
        "2:",
        "jmp rcx",
        decide = sym decide_dlvsym,
    )
}

/// An answer (in rax), or where to jump (in rdx) if not null: the SysV pair of return registers.
#[repr(C)]
struct Decision {
    answer: *mut c_void,
    jump: *mut c_void,
}

unsafe extern "C" fn decide_dlsym(
    handle: *mut c_void,
    name: *const c_char,
    caller: *mut c_void,
) -> Decision {
    // SAFETY: the arguments are the caller's own.
    unsafe { decide(handle, name, None, caller) }
}

unsafe extern "C" fn decide_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: *mut c_void,
) -> Decision {
    // SAFETY: the arguments are the caller's own.
    unsafe { decide(handle, name, Some(version), caller) }
}

/// # Safety
/// `name` and `version` as dlsym(3) and dlvsym(3) require.
unsafe fn decide(
    handle: *mut c_void,
    name: *const c_char,
    version: Option<*const c_char>,
    caller: *mut c_void,
) -> Decision {
    let kind = if version.is_none() { &DLSYM } else { &DLVSYM };
    let pass = Decision {
        answer: null_mut(),
        jump: kind.next(),
    };
    // SAFETY: dlsym's contract makes `name` a NUL-terminated string; two bytes are looked at
    // first, the second only if the first is not the terminator.
    let interesting = !name.is_null()
        && unsafe {
            (*name == b'c' as c_char && *name.add(1) == b'u' as c_char)
                || (*name == b'd' as c_char && *name.add(1) == b'l' as c_char)
        };
    if !interesting || pass.jump.is_null() {
        return pass;
    }
    // SAFETY: as above.
    let name = unsafe { CStr::from_ptr(name) };
    let look_up = LookUp { name, version };
    let answer = match name.to_bytes() {
        b"dlsym" => own(&DLSYM, dlsym as *mut c_void, look_up, handle, caller),
        b"dlvsym" => own(&DLVSYM, dlvsym as *mut c_void, look_up, handle, caller),
        b"dlclose" => own(&DLCLOSE, dlclose as *mut c_void, look_up, handle, caller),
        _ => driver::hook_named(name)
            .or_else(|| runtime::hook_named(name))
            .and_then(|hook| hooked(hook, look_up, handle, caller)),
    };
    answer.map_or(pass, |answer| Decision {
        answer,
        jump: null_mut(),
    })
}

/// The answer to a look-up of one of the loader's functions that we stand before; `None` to pass
/// it on. An interposer before us looks for the C library's by version, and would go past us with
/// all that it passes on. One after us gets the C library's: it is what we pass on to.
fn own(
    before: &Before,
    ours: *mut c_void,
    look_up: LookUp,
    handle: *mut c_void,
    caller: *mut c_void,
) -> Option<*mut c_void> {
    if !modules::place_of(caller).before_us {
        return None;
    }
    let found = look_up.next(handle);
    (!found.is_null() && found == before.plain()).then_some(ours)
}

/// The answer to a look-up of a hooked function; `None` to pass it on.
fn hooked(
    hook: &'static Hook,
    look_up: LookUp,
    handle: *mut c_void,
    caller: *mut c_void,
) -> Option<*mut c_void> {
    // Look-ups of our own come first, so that the last word that dlerror hears is the caller's.
    driver::bind_all();
    let leads_to_driver = next_answers_for_driver(hook, handle);
    let found = if handle == libc::RTLD_NEXT {
        // An interposer's, or the program's, look past itself. One that comes after us does not
        // meet us; one that comes before would.
        let place = modules::place_of(caller);
        let module = place.module.filter(|_| place.before_us)?;
        if !modules::between(&module, look_up.name).is_null() {
            return None;
        }
        look_up.plain(libc::RTLD_NEXT)
    } else {
        let found = look_up.next(handle);
        let ours = hook.entries().linked().ours();
        if found != ours {
            found
        } else if handle == libc::RTLD_DEFAULT {
            in_default_scope(look_up, ours, caller)
        } else {
            // A scope that we are in, the program's: what it would hold without us.
            look_up.plain(libc::RTLD_NEXT)
        }
    };
    // Our function in place of the real one, if that is what the look-up found.
    Some(if found.is_null() {
        found
    } else if hook.name().to_bytes().starts_with(b"cuda") {
        runtime::substitute(hook, found)
    } else {
        driver::substitute(hook, found, leads_to_driver)
    })
}

/// Whether another library's `dlsym` answers where the loader itself would find the driver's
/// function: what it answers, a function of its own perhaps, stands before the driver's.
fn next_answers_for_driver(hook: &Hook, handle: *mut c_void) -> bool {
    let handle = if handle == libc::RTLD_DEFAULT {
        libc::RTLD_NEXT
    } else {
        handle
    };
    DLSYM.next() != DLSYM.plain() && hook.is_driver(plain_dlsym(handle, hook.name()))
}

/// What RTLD_DEFAULT would find if we were not there: before us or after us in the global scope, else
/// in the scope of the caller's own module.
fn in_default_scope(look_up: LookUp, ours: *mut c_void, caller: *mut c_void) -> *mut c_void {
    // Asked by us, RTLD_DEFAULT finds our own function before any other's, since our references
    // are bound to ourselves. The program's handle is the global scope from its beginning.
    let first = look_up.plain(program());
    if !first.is_null() && first != ours {
        return first;
    }
    let next = look_up.plain(libc::RTLD_NEXT);
    if !next.is_null() {
        return next;
    }
    let local = modules::module_of(caller)
        .filter(|module| !module.is_program())
        .map_or(null_mut(), |module| {
            module.in_scope(|handle| look_up.plain(handle))
        });
    if local.is_null() {
        // Once more for dlerror: not found, by that name.
        return look_up.plain(libc::RTLD_NEXT);
    }
    local
}

/// The handle of the program itself.
fn program() -> *mut c_void {
    static PROGRAM: OnceNonZeroUsize = OnceNonZeroUsize::new();
    found(&PROGRAM, || {
        // SAFETY: null is the program, which is always loaded.
        unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) }
    })
}

/// `dlclose`: a module may go away, so stacks look anew.
///
/// # Safety
/// As dlclose(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    let result = close_by(DLCLOSE.next(), handle);
    vramtrace_recorder::stack::modules::expect_change();
    vramtrace_recorder::stack::python::after_unload(elf::is_loaded);
    runtime::modules_may_have_gone();
    result
}
