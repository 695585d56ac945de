//! Modules: images loaded into the current context, their functions and globals; and the linker.

use crate::abi::error::{Error, FILE_NOT_FOUND, INVALID_HANDLE, INVALID_VALUE, NOT_FOUND, R};
use crate::ffi::{Items, Out, Text, narrow};
use crate::gate::{ANY, Call, MEMORY, WORK, driver};
use crate::model::module::{Image, Link};
use std::ffi::{CStr, c_char, c_void};

/// A binary's size is not looked at: it counts as this many bytes.
const BINARY_BYTES: u64 = 1 << 20;

/// Magic numbers of fat binaries: the data and the wrapper. The first begins with a printable byte.
const FAT: [[u8; 4]; 2] = [[0x50, 0xed, 0x55, 0xba], [0xb1, 0x43, 0x62, 0x46]];

/// Reads an image: PTX text, or a binary that is taken on trust.
pub fn image(data: *const c_void) -> R<Image> {
    if data.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: cuda.h: the image is a NUL-terminated text or a binary with a header. Each has a first
    // byte, and what begins with 'P' has four: the text because PTX is longer, or the fat binary.
    let magic = unsafe {
        let first = data.cast::<u8>().read();
        if first == b'P' {
            data.cast::<[u8; 4]>().read_unaligned()
        } else {
            [first, 0, 0, 0]
        }
    };
    let is_text = magic[0].is_ascii_graphic() || magic[0].is_ascii_whitespace();
    if !is_text || FAT.contains(&magic) {
        return Ok(Image::binary(BINARY_BYTES));
    }
    // SAFETY: no other binary format that the driver takes begins with a printable byte (ELF: 0x7f),
    // so that it is the NUL-terminated text.
    let text = unsafe { CStr::from_ptr(data.cast()) }.to_string_lossy();
    Ok(Image::of_ptx(&text))
}

/// Reads an image from a file.
pub fn image_file(path: Text) -> R<Image> {
    let bytes = std::fs::read(path.get()?).map_err(|_| FILE_NOT_FOUND)?;
    if bytes.first().is_some_and(|b| b.is_ascii()) && bytes.contains(&b'.') {
        return Ok(Image::of_ptx(&String::from_utf8_lossy(&bytes)));
    }
    Ok(Image::binary(bytes.len() as u64))
}

fn load(c: &mut Call, out: Out<u64>, image: Image) -> R {
    out.check()?;
    let ctx = c.ctx;
    let module = c.load_module(ctx, image)?;
    out.set(module)
}

fn add(c: &mut Call, state: u64, data: &[u8]) -> R {
    let link = c.modules.links.get_mut(state).ok_or(INVALID_HANDLE)?;
    link.image.extend_from_slice(data);
    Ok(())
}

fn data(p: Items<u8>, size: usize) -> R<Vec<u8>> {
    let mut bytes = p.read(size)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

driver! {
    /// From a file.
    [WORK] fn cuModuleLoad(out: Out<u64>, path: Text) |c| { load(c, out, image_file(path)?) }

    /// From memory.
    [WORK] fn cuModuleLoadData(out: Out<u64>, data: *const c_void) |c| { load(c, out, image(data)?) }

    /// From memory, with compiler options, which do not matter here.
    [WORK] fn cuModuleLoadDataEx(
        out: Out<u64>, data: *const c_void, count: u32, options: u64, values: u64,
    ) |c| {
        let _ = (count, options, values);
        load(c, out, image(data)?)
    }

    /// From a fat binary.
    [WORK] fn cuModuleLoadFatBinary(out: Out<u64>, data: *const c_void) |c| {
        load(c, out, image(data)?)
    }

    /// Ends its functions and globals.
    [MEMORY] fn cuModuleUnload(module: u64) |c| { c.unload_module(module) }

    /// Lazy, the default since 12.2.
    [ANY] fn cuModuleGetLoadingMode(out: Out<u32>) |_c| { out.set(2) }

    /// By name.
    [WORK] fn cuModuleGetFunction(out: Out<u64>, module: u64, name: Text) |c| {
        out.check()?;
        let function = c.function(module, &name.get()?)?;
        out.set(function)
    }

    /// Of PTX modules; a binary's are not known.
    [WORK] fn cuModuleGetFunctionCount(out: Out<u32>, module: u64) |c| {
        let m = c.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        out.set(m.image.entries.as_ref().map_or(0, Vec::len) as u32)
    }

    /// The first functions in the image's order.
    [WORK] fn cuModuleEnumerateFunctions(outs: Out<u64>, count: u32, module: u64) |c| {
        let m = c.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        let names = m.image.entries.clone().unwrap_or_default();
        let mut functions = Vec::new();
        for name in names.iter().take(count as usize) {
            functions.push(c.function(module, name)?);
        }
        outs.fill(&functions, count as usize)
    }

    /// 32-bit addresses.
    [WORK] fn cuModuleGetGlobal(out: Out<u32>, bytes: Out<u32>, module: u64, name: Text) |c| {
        let (addr, size) = c.global(module, &name.get()?)?;
        out.set_if(narrow(addr)?);
        bytes.set_if(narrow(size)?);
        Ok(())
    }

    /// Address and bytes; either output may be NULL.
    [WORK] fn cuModuleGetGlobal_v2(out: Out<u64>, bytes: Out<usize>, module: u64, name: Text) |c| {
        let (addr, size) = c.global(module, &name.get()?)?;
        out.set_if(addr);
        bytes.set_if(size as usize);
        Ok(())
    }

    /// Texture references went away with CUDA 12.
    [WORK] fn cuModuleGetTexRef(out: Out<u64>, module: u64, name: Text) |c| {
        let _ = (out, name);
        c.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        Err(NOT_FOUND)
    }

    /// Surface references went away with CUDA 12.
    [WORK] fn cuModuleGetSurfRef(out: Out<u64>, module: u64, name: Text) |c| {
        let _ = (out, name);
        c.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        Err(NOT_FOUND)
    }

    /// Before 6.5.
    [WORK] fn cuLinkCreate(count: u32, options: u64, values: u64, out: Out<u64>) |c| {
        let _ = (count, options, values);
        let state = c.modules.links.insert(Link::default());
        out.set(state)
    }

    /// A linker invocation.
    [WORK] fn cuLinkCreate_v2(count: u32, options: u64, values: u64, out: Out<u64>) |c| {
        let _ = (count, options, values);
        let state = c.modules.links.insert(Link::default());
        out.set(state)
    }

    /// Before 6.5.
    [WORK] fn cuLinkAddData(
        state: u64, kind: u32, p: Items<u8>, size: usize, name: *const c_char, count: u32,
        options: u64, values: u64,
    ) |c| {
        let _ = (kind, name, count, options, values);
        add(c, state, &data(p, size)?)
    }

    /// Input from memory.
    [WORK] fn cuLinkAddData_v2(
        state: u64, kind: u32, p: Items<u8>, size: usize, name: *const c_char, count: u32,
        options: u64, values: u64,
    ) |c| {
        let _ = (kind, name, count, options, values);
        add(c, state, &data(p, size)?)
    }

    /// Before 6.5.
    [WORK] fn cuLinkAddFile(
        state: u64, kind: u32, path: Text, count: u32, options: u64, values: u64,
    ) |c| {
        let _ = (kind, count, options, values);
        let bytes = std::fs::read(path.get()?).map_err(|_| FILE_NOT_FOUND)?;
        add(c, state, &bytes)
    }

    /// Input from a file.
    [WORK] fn cuLinkAddFile_v2(
        state: u64, kind: u32, path: Text, count: u32, options: u64, values: u64,
    ) |c| {
        let _ = (kind, count, options, values);
        let bytes = std::fs::read(path.get()?).map_err(|_| FILE_NOT_FOUND)?;
        add(c, state, &bytes)
    }

    /// The result is what was added: cuModuleLoadData takes it. It lives until the state ends.
    [WORK] fn cuLinkComplete(state: u64, out: Out<*const u8>, size: Out<usize>) |c| {
        let link = c.modules.links.get_mut(state).ok_or(INVALID_HANDLE)?;
        if link.image.is_empty() {
            return Err(Error(200));
        }
        link.image.push(0);
        out.set(link.image.as_ptr())?;
        size.set_if(link.image.len());
        Ok(())
    }

    /// Ends the state and its image.
    [WORK] fn cuLinkDestroy(state: u64) |c| {
        c.modules.links.remove(state).map(|_| ()).ok_or(INVALID_HANDLE)
    }
}
