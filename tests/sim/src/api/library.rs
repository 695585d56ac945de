//! Libraries: code that belongs to no context, and its kernels.

use super::module::{image, image_file};
use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, NOT_FOUND, R};
use crate::ffi::{Out, Text};
use crate::gate::{Call, INIT, UNSAFE, WORK, driver};
use crate::model::module::{Image, Kernel, Library};
use std::ffi::{c_char, c_void};

fn load(c: &mut Call, out: Out<u64>, image: Image) -> R {
    out.check()?;
    let library = c.modules.libraries.insert(Library {
        image,
        loaded: Vec::new(),
    });
    out.set(library)
}

fn kernel(c: &mut Call, library: u64, name: &str) -> R<u64> {
    let lib = c.modules.libraries.get(library).ok_or(INVALID_HANDLE)?;
    if !lib.image.has(name) {
        return Err(NOT_FOUND);
    }
    let full = format!("{name}\0");
    let known = c
        .modules
        .kernels
        .iter()
        .find(|(_, k)| k.library == library && k.name == full);
    if let Some((handle, _)) = known {
        return Ok(handle);
    }
    Ok(c.modules.kernels.insert(Kernel {
        library,
        name: full,
    }))
}

fn global(c: &mut Call, out: Out<u64>, bytes: Out<usize>, library: u64, name: Text) -> R {
    let (ctx, name) = (c.ctx, name.get()?);
    let module = c.library_module(ctx, library)?;
    let (addr, size) = c.global(module, &name)?;
    out.set_if(addr);
    bytes.set_if(size as usize);
    Ok(())
}

/// Attributes of a function: threads per block 1024, everything else 0.
pub fn attribute(id: u32) -> R<i32> {
    match id {
        0 => Ok(1024),
        4 => Ok(16),
        5 | 6 => Ok(90),
        1..=15 => Ok(0),
        _ => Err(INVALID_VALUE),
    }
}

driver! {
    /// From memory.
    [INIT] fn cuLibraryLoadData(
        out: Out<u64>, code: *const c_void, jit: u64, jit_values: u64, jit_count: u32, options: u64,
        values: u64, count: u32,
    ) |c| {
        let _ = (jit, jit_values, jit_count, options, values, count);
        load(c, out, image(code)?)
    }

    /// From a file.
    [INIT] fn cuLibraryLoadFromFile(
        out: Out<u64>, path: Text, jit: u64, jit_values: u64, jit_count: u32, options: u64,
        values: u64, count: u32,
    ) |c| {
        let _ = (jit, jit_values, jit_count, options, values, count);
        load(c, out, image_file(path)?)
    }

    /// Ends it in all contexts.
    [INIT | UNSAFE] fn cuLibraryUnload(library: u64) |c| { c.unload_library(library) }

    /// By name.
    [INIT] fn cuLibraryGetKernel(out: Out<u64>, library: u64, name: Text) |c| {
        out.check()?;
        let kernel = kernel(c, library, &name.get()?)?;
        out.set(kernel)
    }

    /// Of PTX libraries; a binary's are not known.
    [INIT] fn cuLibraryGetKernelCount(out: Out<u32>, library: u64) |c| {
        let lib = c.modules.libraries.get(library).ok_or(INVALID_HANDLE)?;
        out.set(lib.image.entries.as_ref().map_or(0, Vec::len) as u32)
    }

    /// The first kernels in the image's order.
    [INIT] fn cuLibraryEnumerateKernels(outs: Out<u64>, count: u32, library: u64) |c| {
        let lib = c.modules.libraries.get(library).ok_or(INVALID_HANDLE)?;
        let names = lib.image.entries.clone().unwrap_or_default();
        let mut kernels = Vec::new();
        for name in names.iter().take(count as usize) {
            kernels.push(kernel(c, library, name)?);
        }
        outs.fill(&kernels, count as usize)
    }

    /// Its module in the current context, loaded now if it was not.
    [WORK] fn cuLibraryGetModule(out: Out<u64>, library: u64) |c| {
        out.check()?;
        let ctx = c.ctx;
        let module = c.library_module(ctx, library)?;
        out.set(module)
    }

    /// The kernel as a function of the current context.
    [WORK] fn cuKernelGetFunction(out: Out<u64>, kernel: u64) |c| {
        out.check()?;
        let k = c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?;
        let (library, name) = (k.library, k.name.trim_end_matches('\0').to_owned());
        let ctx = c.ctx;
        let module = c.library_module(ctx, library)?;
        let function = c.function(module, &name)?;
        out.set(function)
    }

    /// Where it came from.
    [INIT] fn cuKernelGetLibrary(out: Out<u64>, kernel: u64) |c| {
        out.set(c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?.library)
    }

    /// A global variable in the current context.
    [WORK] fn cuLibraryGetGlobal(out: Out<u64>, bytes: Out<usize>, library: u64, name: Text) |c| {
        global(c, out, bytes, library, name)
    }

    /// Managed variables are not told apart from globals.
    [WORK] fn cuLibraryGetManaged(out: Out<u64>, bytes: Out<usize>, library: u64, name: Text) |c| {
        global(c, out, bytes, library, name)
    }

    /// Unified function pointers are not simulated.
    [INIT] fn cuLibraryGetUnifiedFunction(out: Out<u64>, library: u64, name: Text) |c| {
        let _ = (out, name);
        c.modules.libraries.get(library).ok_or(INVALID_HANDLE)?;
        Err(NOT_FOUND)
    }

    /// On one device.
    [INIT] fn cuKernelGetAttribute(out: Out<i32>, id: u32, kernel: u64, dev: i32) |c| {
        c.device(dev)?;
        c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?;
        out.set(attribute(id)?)
    }

    /// Taken; no kernel runs.
    [INIT] fn cuKernelSetAttribute(id: u32, value: i32, kernel: u64, dev: i32) |c| {
        c.device(dev)?;
        let _ = value;
        c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?;
        attribute(id).map(|_| ())
    }

    /// Taken.
    [INIT] fn cuKernelSetCacheConfig(kernel: u64, config: u32, dev: i32) |c| {
        c.device(dev)?;
        let _ = config;
        c.modules.kernels.get(kernel).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Lives as long as the kernel.
    [INIT] fn cuKernelGetName(out: Out<*const c_char>, kernel: u64) |c| {
        out.set(c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?.name.as_ptr().cast())
    }

    /// Parameters are not known.
    [INIT] fn cuKernelGetParamInfo(
        kernel: u64, index: usize, offset: Out<usize>, size: Out<usize>,
    ) |c| {
        let _ = (index, offset, size);
        c.modules.kernels.get(kernel).ok_or(INVALID_HANDLE)?;
        Err(INVALID_VALUE)
    }
}
