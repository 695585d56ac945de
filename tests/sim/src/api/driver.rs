//! Initialisation, version, error texts.

use crate::abi::error::{INVALID_VALUE, name, text};
use crate::ffi::Out;
use crate::gate::{ANY, driver};
use std::ffi::{c_char, c_void};

/// What cuDriverGetVersion answers: CUDA 13.0.
pub const VERSION: i32 = 13000;

driver! {
    /// Flags must be 0.
    [ANY] fn cuInit(flags: u32) |c| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        c.init()
    }

    /// Works before cuInit.
    [ANY] fn cuDriverGetVersion(version: Out<i32>) |_c| {
        version.set(VERSION)
    }

    /// An unknown code gives NULL and an error.
    [ANY] fn cuGetErrorName(error: u32, out: Out<*const c_char>) |_c| {
        let found = name(error);
        out.set(found.map_or(std::ptr::null(), |s| s.as_ptr().cast()))?;
        found.map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// An unknown code gives NULL and an error.
    [ANY] fn cuGetErrorString(error: u32, out: Out<*const c_char>) |_c| {
        let found = text(error);
        out.set(found.map_or(std::ptr::null(), |s| s.as_ptr().cast()))?;
        found.map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// The private tables of NVIDIA's own libraries do not exist here.
    [ANY] fn cuGetExportTable(table: Out<*const c_void>, id: crate::ffi::In<[u8; 16]>) |_c| {
        table.check()?;
        let _ = id.get()?;
        table.set(std::ptr::null())?;
        Err(INVALID_VALUE)
    }
}
