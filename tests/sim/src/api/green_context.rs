//! Green contexts: a share of a device's multiprocessors with a context of its own.

use crate::abi::error::{INVALID_CONTEXT, INVALID_VALUE, R};
use crate::ffi::{Items, Out};
use crate::gate::{Call, INIT, UNSAFE, driver};
use crate::model::context::Green;
use crate::model::stream::Stream;

/// Multiprocessors of the simulated device.
const MULTIPROCESSORS: u32 = 132;

/// `CUdevResource`: the part that is public, with the bytes around it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resource {
    /// 1: multiprocessors.
    kind: u32,
    padding: [u8; 92],
    /// Count, smallest partition, alignment; the rest is NVIDIA's.
    sm: [u32; 12],
}

const _: () = assert!(size_of::<Resource>() == 144);

fn resource(count: u32) -> Resource {
    let mut sm = [0; 12];
    sm[..3].copy_from_slice(&[count, 8, 8]);
    Resource {
        kind: 1,
        padding: [0; 92],
        sm,
    }
}

fn green(c: &mut Call, handle: u64) -> R<&Green> {
    c.green.get(handle).ok_or(INVALID_CONTEXT)
}

driver! {
    /// All multiprocessors of the device.
    [INIT] fn cuDeviceGetDevResource(dev: i32, out: Out<Resource>, kind: u32) |c| {
        c.device(dev)?;
        if kind != 1 {
            return Err(INVALID_VALUE);
        }
        out.set(resource(MULTIPROCESSORS))
    }

    /// All multiprocessors.
    [INIT] fn cuCtxGetDevResource(ctx: u64, out: Out<Resource>, kind: u32) |c| {
        c.context(ctx)?;
        if kind != 1 {
            return Err(INVALID_VALUE);
        }
        out.set(resource(MULTIPROCESSORS))
    }

    /// All multiprocessors: shares are not enforced.
    [INIT] fn cuGreenCtxGetDevResource(handle: u64, out: Out<Resource>, kind: u32) |c| {
        green(c, handle)?;
        if kind != 1 {
            return Err(INVALID_VALUE);
        }
        out.set(resource(MULTIPROCESSORS))
    }

    /// Groups of at least `minimum` multiprocessors, in steps of eight.
    [INIT] fn cuDevSmResourceSplitByCount(
        results: Out<Resource>, count: Out<u32>, input: crate::ffi::In<Resource>,
        remaining: Out<Resource>, flags: u32, minimum: u32,
    ) |_c| {
        let _ = flags;
        let total = input.get()?.sm[0];
        let size = minimum.max(1).checked_next_multiple_of(8).ok_or(INVALID_VALUE)?;
        let possible = total / size;
        let wanted = if results.is_null() { possible } else { count.get()?.min(possible) };
        results.fill(&vec![resource(size); wanted as usize], wanted as usize)?;
        count.set(wanted)?;
        remaining.set_if(resource(total - wanted * size));
        Ok(())
    }

    /// A descriptor for cuGreenCtxCreate. It only says that resources were given.
    [INIT] fn cuDevResourceGenerateDesc(out: Out<u64>, resources: Items<Resource>, count: u32) |c| {
        if count == 0 || resources.is_null() {
            return Err(INVALID_VALUE);
        }
        let handle = c.fresh_id();
        out.set(handle)
    }

    /// Retains the device's primary context, whose memory its context face shares.
    /// CU_GREEN_CTX_DEFAULT_STREAM is required.
    [INIT | UNSAFE] fn cuGreenCtxCreate(out: Out<u64>, desc: u64, dev: i32, flags: u32) |c| {
        out.check()?;
        if desc == 0 || flags != 1 {
            return Err(INVALID_VALUE);
        }
        let handle = c.create_green(dev)?;
        out.set(handle)
    }

    /// Ends the context face, and releases the primary context.
    [INIT | UNSAFE] fn cuGreenCtxDestroy(handle: u64) |c| { c.destroy_green(handle) }

    /// The context face.
    [INIT] fn cuCtxFromGreenCtx(out: Out<u64>, handle: u64) |c| {
        let ctx = green(c, handle)?.ctx;
        out.set(ctx)
    }

    /// A number of its own.
    [INIT] fn cuGreenCtxGetId(handle: u64, out: Out<u64>) |c| {
        let id = green(c, handle)?.id;
        out.set(id)
    }

    /// A stream of the green context; it must be non-blocking.
    [INIT] fn cuGreenCtxStreamCreate(out: Out<u64>, handle: u64, flags: u32, priority: i32) |c| {
        out.check()?;
        if flags != 1 {
            return Err(INVALID_VALUE);
        }
        let ctx = green(c, handle)?.ctx;
        let id = c.fresh_id();
        let stream = c.streams.insert(Stream::new(ctx, flags, priority, id, false));
        out.set(stream)
    }

    /// NULL for streams of ordinary contexts.
    [INIT] fn cuStreamGetGreenCtx(stream: u64, out: Out<u64>) |c| {
        let stream = c.stream(stream)?;
        let ctx = c.streams.get(stream).map_or(0, |s| s.ctx);
        out.set(c.contexts.get(ctx).map_or(0, |x| x.green))
    }

    /// Everything of the green context so far.
    [INIT] fn cuGreenCtxRecordEvent(handle: u64, event: u64) |c| {
        let ctx = green(c, handle)?.ctx;
        let legacy = c.context(ctx)?.legacy;
        c.record_context(event, legacy)
    }

    /// Makes the green context wait.
    [INIT] fn cuGreenCtxWaitEvent(handle: u64, event: u64) |c| {
        let ctx = green(c, handle)?.ctx;
        let legacy = c.context(ctx)?.legacy;
        c.wait_event(legacy, event)
    }
}
