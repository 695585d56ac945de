//! Inter-process communication, and external memory and semaphores.

use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED, R};
use crate::abi::memory::{ExternalBufferDesc, ExternalHandleDesc, ExternalMipmapDesc, Opaque64};
use crate::ffi::{In, Items, Out};
use crate::gate::{Call, FREE, MEMORY, UNSAFE, WORK, driver};
use crate::model::stream::Event;

/// CUexternalMemoryHandleType: opaque and dma-buf file descriptors.
const FD_KINDS: [u32; 2] = [1, 9];
/// CU_EVENT_INTERPROCESS.
const INTERPROCESS: u32 = 4;

fn semaphores(c: &mut Call, handles: Items<u64>, count: u32, stream: u64) -> R {
    c.work_stream(stream)?;
    let handles = handles.read(count as usize)?;
    let known = handles
        .iter()
        .all(|&h| c.sharing.semaphores.get(h).is_some());
    if known { Ok(()) } else { Err(INVALID_HANDLE) }
}

driver! {
    /// For linear memory; an interior address means its allocation.
    [WORK] fn cuIpcGetMemHandle(out: Out<Opaque64>, addr: u64) |c| {
        out.check()?;
        let handle = c.ipc_handle(addr)?;
        out.set(handle)
    }

    /// Before 11.0.
    [WORK] fn cuIpcOpenMemHandle(out: Out<u64>, handle: Opaque64, flags: u32) |c| {
        open(c, out, &handle, flags)
    }

    /// Another process's memory at an address here; opening it again counts.
    [WORK] fn cuIpcOpenMemHandle_v2(out: Out<u64>, handle: Opaque64, flags: u32) |c| {
        open(c, out, &handle, flags)
    }

    /// Unmaps with the last close.
    [MEMORY] fn cuIpcCloseMemHandle(addr: u64) |c| { c.close_ipc(addr) }

    /// For events made interprocess.
    [WORK | UNSAFE] fn cuIpcGetEventHandle(out: Out<Opaque64>, event: u64) |c| {
        out.check()?;
        let flags = c.events.get(event).ok_or(INVALID_HANDLE)?.flags;
        if flags & INTERPROCESS == 0 {
            return Err(INVALID_HANDLE);
        }
        out.set(c.event_handle(event))
    }

    /// An event here that stands for the other process's.
    [WORK | UNSAFE] fn cuIpcOpenEventHandle(out: Out<u64>, handle: Opaque64) |c| {
        out.check()?;
        c.check_event_handle(&handle)?;
        let ctx = c.ctx;
        let event = Event { ctx, flags: 6, recorded: None, on: None, captured: None };
        let event = c.events.insert(event);
        out.set(event)
    }

    /// Memory behind a file descriptor of another API. On success the descriptor is the driver's.
    [MEMORY] fn cuImportExternalMemory(out: Out<u64>, desc: In<ExternalHandleDesc>) |c| {
        out.check()?;
        let desc = desc.get()?;
        if !FD_KINDS.contains(&desc.kind) {
            return Err(NOT_SUPPORTED);
        }
        let handle = c.import_external(desc.handle[0] as i32, desc.size)?;
        out.set(handle)
    }

    /// A part of it as device memory; released with cuMemFree.
    [MEMORY] fn cuExternalMemoryGetMappedBuffer(
        out: Out<u64>, handle: u64, desc: In<ExternalBufferDesc>,
    ) |c| {
        out.check()?;
        let (ctx, desc) = (c.ctx, desc.get()?);
        if desc.flags != 0 {
            return Err(INVALID_VALUE);
        }
        let addr = c.external_buffer(ctx, handle, desc.offset, desc.size)?;
        out.set(addr)
    }

    /// A part of it as a mipmapped array; released with cuMipmappedArrayDestroy.
    [MEMORY] fn cuExternalMemoryGetMappedMipmappedArray(
        out: Out<u64>, handle: u64, desc: In<ExternalMipmapDesc>,
    ) |c| {
        out.check()?;
        let (ctx, desc) = (c.ctx, desc.get()?);
        let memory =
            c.sharing.external.get(handle).ok_or(INVALID_HANDLE)?.memory.clone();
        let mipmap = c.external_mipmap(ctx, desc.array, desc.levels, memory, desc.offset)?;
        out.set(mipmap)
    }

    /// Ends the import.
    [FREE | UNSAFE] fn cuDestroyExternalMemory(handle: u64) |c| {
        if handle == 0 { Err(INVALID_VALUE) } else { c.destroy_external(handle) }
    }

    /// A semaphore of another API, by descriptor.
    [WORK | UNSAFE] fn cuImportExternalSemaphore(out: Out<u64>, desc: In<[u32; 24]>) |c| {
        out.check()?;
        // Opaque and timeline descriptors.
        if !matches!(desc.get()?[0], 1 | 9) {
            return Err(NOT_SUPPORTED);
        }
        let handle = c.sharing.semaphores.insert(());
        out.set(handle)
    }

    /// Nothing waits for it here.
    [WORK] fn cuSignalExternalSemaphoresAsync + cuSignalExternalSemaphoresAsync_ptsz(
        handles: Items<u64>, params: u64, count: u32, stream: u64,
    ) |c| {
        let _ = params;
        semaphores(c, handles, count, stream)
    }

    /// Everything was signalled already.
    [WORK] fn cuWaitExternalSemaphoresAsync + cuWaitExternalSemaphoresAsync_ptsz(
        handles: Items<u64>, params: u64, count: u32, stream: u64,
    ) |c| {
        let _ = params;
        semaphores(c, handles, count, stream)
    }

    /// Ends the import.
    [WORK | UNSAFE] fn cuDestroyExternalSemaphore(handle: u64) |c| {
        c.sharing.semaphores.remove(handle).map(|_| ()).ok_or(INVALID_HANDLE)
    }
}

fn open(c: &mut Call, out: Out<u64>, handle: &Opaque64, flags: u32) -> R {
    out.check()?;
    // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS is the only legal value.
    if flags != 1 {
        return Err(INVALID_VALUE);
    }
    let ctx = c.ctx;
    let addr = c.open_ipc(ctx, handle)?;
    out.set(addr)
}
