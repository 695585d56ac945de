//! The interpreter of this process: where it is, which version, how its objects look.
//!
//! Found by the names that it exports, be it in the program itself (conda, Debian), in a
//! libpython, or loaded later by a program that embeds it. Nothing of it is ever called that takes
//! the interpreter's lock or allocates: [`NAMES`] is everything that is looked for.

use super::layout::{Layout, NEWEST, OLDEST};
use std::ffi::{CStr, c_char, c_int, c_void};

/// Looks for what a loaded program or library exports under a name; null if none does.
pub type Find = fn(&CStr) -> *mut c_void;

/// Everything of the interpreter that this library knows by name. The functions read a word of
/// memory or of thread-local storage and return (`Py_GetVersion` formats into a buffer of its
/// own, each time the same); none takes a lock.
pub mod names {
    use std::ffi::CStr;

    /// Function: the state of the calling thread, or null. Works without the lock.
    pub const THIS_THREAD: &CStr = c"PyGILState_GetThisThreadState";
    /// Data, from 3.11 on: the version as a number.
    pub const VERSION: &CStr = c"Py_Version";
    /// Function: the version as text.
    pub const GET_VERSION: &CStr = c"Py_GetVersion";
    /// Data: the type of code objects.
    pub const CODE: &CStr = c"PyCode_Type";
    /// Data: the type of strings.
    pub const UNICODE: &CStr = c"PyUnicode_Type";
    /// Data: the type of bytes objects.
    pub const BYTES: &CStr = c"PyBytes_Type";
    /// Data: the runtime's state; from 3.13 on it begins with a description of itself.
    pub const RUNTIME: &CStr = c"_PyRuntime";
    /// Function, from 3.13 on: whether the interpreter goes down.
    pub const IS_FINALIZING: &CStr = c"Py_IsFinalizing";
    /// The same, up to 3.12.
    pub const IS_FINALIZING_OLD: &CStr = c"_Py_IsFinalizing";
}

type ThisThread = unsafe extern "C" fn() -> *mut c_void;
type IsFinalizing = unsafe extern "C" fn() -> c_int;

/// An interpreter, and how its objects look.
pub struct Interpreter {
    /// Where things lie.
    pub layout: Layout,
    /// Address of the type of code objects.
    pub code_type: u64,
    /// Address of the type of strings.
    pub string_type: u64,
    /// Address of the type of bytes objects.
    pub bytes_type: u64,
}

/// What was found.
pub struct Found {
    /// Version, as people write it.
    pub version: String,
    this_thread: ThisThread,
    is_finalizing: Option<IsFinalizing>,
    /// How to read it, or why it cannot be read.
    pub readable: Result<Interpreter, String>,
}

impl Found {
    /// Looks for an interpreter.
    pub fn look(find: Find) -> Option<Found> {
        let address = |name| {
            let found = find(name);
            (!found.is_null()).then_some(found)
        };
        // SAFETY: the interpreter's function of this name takes nothing and returns a pointer.
        let this_thread =
            unsafe { std::mem::transmute::<*mut c_void, ThisThread>(address(names::THIS_THREAD)?) };
        let version = Version::of(&address)?;
        // SAFETY: the interpreter's functions of these names take nothing and return an int.
        let is_finalizing = address(names::IS_FINALIZING)
            .or_else(|| address(names::IS_FINALIZING_OLD))
            .map(|found| unsafe { std::mem::transmute::<*mut c_void, IsFinalizing>(found) });
        let free_threaded = version.minor >= 13 && address(names::RUNTIME).is_some_and(says_free);
        let readable = match Layout::of(version.minor, free_threaded) {
            None => Err(format!(
                "this version is not known (known are 3.{OLDEST} to 3.{NEWEST})"
            )),
            Some(layout) => {
                let kind = |name| address(name).map(|found| found as u64);
                let types = (kind(names::CODE), kind(names::UNICODE), kind(names::BYTES));
                match types {
                    (Some(code_type), Some(string_type), Some(bytes_type)) => Ok(Interpreter {
                        layout,
                        code_type,
                        string_type,
                        bytes_type,
                    }),
                    _ => Err("it does not export its types".to_owned()),
                }
            }
        };
        let mark = if free_threaded { " free-threaded" } else { "" };
        Some(Found {
            version: format!("{version}{mark}"),
            this_thread,
            is_finalizing,
            readable,
        })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.this_thread as usize as u64
    }

    /// The calling thread's state; 0 if the interpreter does not know the thread.
    #[inline]
    pub fn this_thread(&self) -> u64 {
        // SAFETY: see `look`; it reads thread-local storage.
        unsafe { (self.this_thread)() as u64 }
    }

    /// Whether it is going down: from then on thread states go away.
    #[inline]
    pub fn is_finalizing(&self) -> bool {
        // SAFETY: see `look`; it reads one word.
        self.is_finalizing
            .is_some_and(|is_finalizing| unsafe { is_finalizing() } != 0)
    }
}

/// A version of Python 3.
struct Version {
    minor: u8,
    text: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Version {
    fn of(address: &dyn Fn(&'static CStr) -> Option<*mut c_void>) -> Option<Version> {
        if let Some(number) = address(names::VERSION) {
            // SAFETY: the interpreter's `const unsigned long` of this name.
            return Version::from_number(unsafe { number.cast::<u64>().read() });
        }
        type GetVersion = unsafe extern "C" fn() -> *const c_char;
        let text = address(names::GET_VERSION)?;
        // SAFETY: the interpreter's function of this name takes nothing and returns a string that
        // lives as long as the process.
        let text = unsafe {
            let text = std::mem::transmute::<*mut c_void, GetVersion>(text)();
            if text.is_null() {
                return None;
            }
            CStr::from_ptr(text)
        };
        Version::from_text(text.to_str().ok()?)
    }

    /// `PY_VERSION_HEX`.
    fn from_number(number: u64) -> Option<Version> {
        let [level, micro, minor, major] =
            [number, number >> 8, number >> 16, number >> 24].map(|part| part as u8);
        let early = match level >> 4 {
            0xa => format!("a{}", level & 15),
            0xb => format!("b{}", level & 15),
            0xc => format!("rc{}", level & 15),
            _ => String::new(),
        };
        (major == 3).then(|| Version {
            minor,
            text: format!("3.{minor}.{micro}{early}"),
        })
    }

    /// `3.8.18 (default, …`.
    fn from_text(text: &str) -> Option<Version> {
        let text = text.split_ascii_whitespace().next()?;
        let minor = text.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
        Some(Version {
            minor,
            text: text.to_owned(),
        })
    }
}

/// Whether the runtime's description of itself (`_Py_DebugOffsets`: a cookie, the version, the
/// kind of build) says that this is a free-threaded build.
fn says_free(runtime: *mut c_void) -> bool {
    // SAFETY: the runtime's state is some hundred kilobytes of initialised data; from 3.13 on the
    // first three words never change.
    let [cookie, _, free_threaded] = unsafe { runtime.cast::<[u64; 3]>().read_unaligned() };
    cookie.to_le_bytes() == *b"xdebugpy" && free_threaded == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_interpreter_says_them() {
        let number = |number| Version::from_number(number).map(|v| (v.minor, v.text));
        assert_eq!(number(0x030d_00f0), Some((13, "3.13.0".into())));
        assert_eq!(number(0x030e_00c2), Some((14, "3.14.0rc2".into())));
        assert_eq!(number(0x0400_00f0), None);
        let text = |text| Version::from_text(text).map(|v| (v.minor, v.text));
        assert_eq!(
            text("3.8.18 (default, May  9 2026) [GCC 12.2.0]"),
            Some((8, "3.8.18".into()))
        );
        assert_eq!(text("2.7.18 (default)"), None);
    }

    #[test]
    fn a_process_without_interpreter_has_none() {
        assert!(Found::look(|_| std::ptr::null_mut()).is_none());
    }
}
