//! The pointer arguments of the C edge, as small types with a safe face.
//!
//! A driver function receives raw pointers from a C caller. Instead of dereferencing them all over
//! the families, each parameter is declared as [`Out`], [`In`], [`Items`] or [`Text`]: ABI-identical
//! to the pointer (`repr(transparent)`), and the only place where it is read or written.
//!
//! The soundness argument is the same for all of them and is made once, here: values of these types
//! come into being only as arguments of an exported function, so they hold whatever the C caller
//! passed; `cuda.h` obliges the caller to pass NULL or a valid pointer to the declared type, and NULL
//! is turned into `CUDA_ERROR_INVALID_VALUE`. Accesses are unaligned ones, because nothing obliges
//! the caller to align a struct. No reference to the caller's memory is ever kept.

use crate::abi::error::{Error, INVALID_VALUE, R};
use std::ffi::{CStr, c_char, c_void};

/// A place that the caller gave us to write one value to.
#[repr(transparent)]
pub struct Out<T>(*mut T);

// By hand: a derive would ask for `T: Copy`, and the pointer is what is copied.
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Whether the caller passed NULL, i.e. is not interested (where that is legal).
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// An out-parameter that an older variant of a function does not have.
    pub fn none() -> Self {
        Out(std::ptr::null_mut())
    }

    /// Writes the value; NULL is an error.
    pub fn set(self, value: T) -> R {
        self.check()?;
        // SAFETY: non-null and, by cuda.h's contract for out-parameters, writable for one T.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes the value unless the caller passed NULL.
    pub fn set_if(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// The error that a NULL out-parameter is; for calls that must check before they act.
    pub fn check(self) -> R {
        if self.0.is_null() {
            Err(INVALID_VALUE)
        } else {
            Ok(())
        }
    }

    /// Reads an in-out parameter.
    pub fn get(self) -> R<T>
    where
        T: Copy,
    {
        self.check()?;
        // SAFETY: non-null; the caller initialised it, since cuda.h calls it in-out.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The same place seen as another type; for `void *` whose type depends on another argument.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes the first `n` of `items` (fewer when there are fewer).
    pub fn fill(self, items: &[T], n: usize) -> R
    where
        T: Copy,
    {
        let n = n.min(items.len());
        if n == 0 {
            return Ok(());
        }
        self.check()?;
        // SAFETY: the caller said that there is room for `n` elements; bytes need no alignment.
        unsafe {
            std::ptr::copy_nonoverlapping(
                items.as_ptr().cast::<u8>(),
                self.0.cast::<u8>(),
                n * size_of::<T>(),
            );
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a NUL-terminated string into a buffer of `len` bytes, cut to fit.
    pub fn text(self, s: &str, len: i32) -> R {
        let Ok(len) = usize::try_from(len) else {
            return Err(INVALID_VALUE);
        };
        if len == 0 {
            return Err(INVALID_VALUE);
        }
        let mut bytes: Vec<c_char> = s.bytes().take(len - 1).map(|b| b as c_char).collect();
        bytes.push(0);
        self.fill(&bytes, bytes.len())
    }
}

/// A value that the caller passes by address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// Copies the value out; NULL is an error.
    pub fn get(self) -> R<T> {
        self.get_if().ok_or(INVALID_VALUE)
    }

    /// Copies the value out, or None for NULL.
    pub fn get_if(self) -> Option<T> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: non-null and, by cuda.h's contract for in-parameters, readable as one T.
        Some(unsafe { self.0.read_unaligned() })
    }
}

/// An array that the caller passes by its first element.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Items<T>(*const T);

impl<T: Copy> Items<T> {
    /// Copies `n` elements out; NULL is an error unless `n` is 0.
    pub fn read(self, n: usize) -> R<Vec<T>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: non-null, and the caller said that `n` elements are there.
        Ok((0..n)
            .map(|i| unsafe { self.0.add(i).read_unaligned() })
            .collect())
    }

    /// Whether the caller passed NULL.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// A NUL-terminated string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// The string; NULL is an error, and so is what is not UTF-8 (all names that we know are).
    pub fn get(self) -> R<String> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: non-null and NUL-terminated by the caller's contract.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| INVALID_VALUE)
    }
}

/// A function pointer of the caller's, called with one pointer: host functions and destructors.
pub type HostFn = Option<unsafe extern "C" fn(*mut c_void)>;
/// `CUstreamCallback`: stream, status, user data.
pub type StreamCallback = Option<unsafe extern "C" fn(u64, u32, *mut c_void)>;

/// Turns a 64-bit result into a v1 out-parameter's 32 bits, or says that it does not fit.
pub fn narrow(value: u64) -> R<u32> {
    u32::try_from(value).map_err(|_| Error(1))
}
