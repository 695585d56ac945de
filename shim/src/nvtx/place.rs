//! `NVTX_INJECTION64_PATH`: who receives a process's NVTX calls.
//!
//! `vramtrace run` sets it. A process into which this library alone was preloaded has it set here,
//! before its own code runs, if nobody else is to receive the calls: nobody else is named by it, and
//! no tool asks for them through the driver (what NVTX 3 looks at last, and not at all where the
//! variable is set). Its children inherit it, as they inherit `LD_PRELOAD`.
//!
//! The C library's `setenv` is not used for it: some programs, bash among them, have one of their
//! own, which is not ready before `main`. The environment is replaced by a copy with one entry more,
//! which is what `setenv` does.

use crate::link;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;

/// The variable.
const VARIABLE: &CStr = c"NVTX_INJECTION64_PATH";

/// Files by which a tool says that NVTX calls are to go to it through the driver (nvtxInit.h, load
/// sequence 3), but for the one in the directory of a user who is not root.
const ASKED_FOR: [&CStr; 2] = [
    c"/run/nvidia/nvtx/nvtx-cuda.yaml",
    c"/run/nvidia/nvtx/user.0/nvtx-cuda.yaml",
];

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// Runs when the loader has prepared this library, before `main` and before other threads.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_THE_BEGINNING: extern "C" fn() = begin;

extern "C" fn begin() {
    let wanted = is_wanted() && value(VARIABLE).is_none_or(CStr::is_empty);
    if !wanted || is_asked_for_otherwise() {
        return;
    }
    let mut room = [0; libc::PATH_MAX as usize + 1];
    if let Some(path) = own_path(&mut room) {
        set(path);
    }
}

/// Whether NVTX's calls are to be received at all. Where tracing is off, or the process has rights
/// that its user has not, nothing is.
pub fn is_wanted() -> bool {
    // SAFETY: getauxval takes a number and cannot fail.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    !secure && value(c"VRAMTRACE_OFF").is_none_or(|value| value != c"1")
}

/// Who receives them instead of us, if somebody does: what the variable says.
pub fn another() -> Option<String> {
    let value = value(VARIABLE)?;
    let mut room = [0; libc::PATH_MAX as usize + 1];
    let ours = own_path(&mut room)?;
    let other = !value.is_empty() && value != ours && !is_same_file(value, ours);
    other.then(|| value.to_string_lossy().into_owned())
}

/// A variable of the environment, read from that itself: programs may have a `getenv` of their own.
fn value(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the C library's list of the environment, or what the program put in its place: pointers
    // to NUL-terminated strings, and a null. It is read where the program itself would have to keep
    // it still: before `main`, inside a call of NVTX's, which reads it as well, or of CUDA's.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let entry = CStr::from_ptr(*at);
            if let Some(rest) = entry.to_bytes().strip_prefix(name.to_bytes())
                && rest.first() == Some(&b'=')
            {
                return Some(CStr::from_ptr((*at).add(name.count_bytes() + 1)));
            }
            at = at.add(1);
        }
    }
    None
}

fn is_asked_for_otherwise() -> bool {
    // SAFETY: access takes a NUL-terminated path; it is asked with the caller's own errno kept.
    unsafe {
        let errno = *libc::__errno_location();
        let there = |path: &CStr| libc::access(path.as_ptr(), libc::F_OK) == 0;
        let found = ASKED_FOR.into_iter().any(there)
            || value(c"XDG_RUNTIME_DIR")
                .filter(|directory| !directory.is_empty())
                .is_some_and(|directory| {
                    let mut path = [0u8; libc::PATH_MAX as usize];
                    let rest = b"/nvidia/nvtx/nvtx-cuda.yaml\0";
                    let length = directory.count_bytes();
                    let Some(place) = path.get_mut(..length + rest.len()) else {
                        return false;
                    };
                    place[..length].copy_from_slice(directory.to_bytes());
                    place[length..].copy_from_slice(rest);
                    libc::access(path.as_ptr().cast(), libc::F_OK) == 0
                });
        *libc::__errno_location() = errno;
        found
    }
}

/// Where this library is, as the loader calls it, if that holds in any directory; else its real path.
fn own_path(room: &mut [u8; libc::PATH_MAX as usize + 1]) -> Option<&CStr> {
    let mut found = false;
    link::own_name(&mut |name| {
        // SAFETY: a NUL-terminated path, and room for the longest that there is.
        unsafe {
            let absolute = name.to_bytes().starts_with(b"/");
            if absolute && name.count_bytes() < room.len() {
                let bytes = name.to_bytes_with_nul();
                room[..bytes.len()].copy_from_slice(bytes);
                found = true;
            } else if !name.is_empty() {
                let errno = *libc::__errno_location();
                found = !libc::realpath(name.as_ptr(), room.as_mut_ptr().cast()).is_null();
                *libc::__errno_location() = errno;
            }
        }
    });
    let path = CStr::from_bytes_until_nul(room).ok()?;
    found.then_some(path)
}

fn is_same_file(one: &CStr, other: &CStr) -> bool {
    let identity = |path: &CStr| {
        // SAFETY: a zeroed stat is a valid place for the answer.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a NUL-terminated path and a valid place.
        let known = unsafe { libc::stat(path.as_ptr(), &mut stat) } == 0;
        known.then_some((stat.st_dev, stat.st_ino))
    };
    let one = identity(one);
    one.is_some() && one == identity(other)
}

/// Adds the variable to the environment. Without memory for that it is left out.
fn set(path: &CStr) {
    // SAFETY: before `main` nobody else changes the environment; `environ` is a list that ends with
    // a null, or null. The new list and the entry lie in memory of their own, which stays mapped, as
    // an environment must.
    unsafe {
        let mut count = 0;
        while !environ.is_null() && !(*environ.add(count)).is_null() {
            count += 1;
        }
        let list = (count + 2) * size_of::<*mut c_char>();
        let entry = VARIABLE.count_bytes() + 1 + path.count_bytes() + 1;
        let memory = libc::mmap(
            null_mut(),
            list + entry,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1 as c_int,
            0,
        );
        if memory == libc::MAP_FAILED {
            return;
        }
        let new = memory.cast::<*mut c_char>();
        let text = memory.cast::<u8>().add(list);
        let name = VARIABLE.to_bytes();
        text.copy_from_nonoverlapping(name.as_ptr(), name.len());
        text.add(name.len()).write(b'=');
        text.add(name.len() + 1)
            .copy_from_nonoverlapping(path.as_ptr().cast(), path.count_bytes() + 1);
        let mut to = 0;
        for from in 0..count {
            let entry = *environ.add(from);
            let old = CStr::from_ptr(entry).to_bytes();
            // An empty one of the name may be there.
            if old.strip_prefix(name).and_then(<[u8]>::first) != Some(&b'=') {
                new.add(to).write(entry);
                to += 1;
            }
        }
        new.add(to).write(text.cast());
        new.add(to + 1).write(null_mut());
        environ = new;
    }
}
