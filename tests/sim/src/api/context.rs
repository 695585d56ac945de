//! Context management.

use crate::abi::error::{
    INVALID_CONTEXT, INVALID_VALUE, NOT_SUPPORTED, PEER_ACCESS_ALREADY_ENABLED,
    PEER_ACCESS_NOT_ENABLED, PEER_ACCESS_UNSUPPORTED, R, UNSUPPORTED_LIMIT,
};
use crate::ffi::{In, Out};
use crate::gate::{CONTEXT, Call, INIT, MEMORY, UNSAFE, WORK, driver};
use crate::thread;

/// Bits of CUctx_flags.
const FLAGS: u32 = 0xff;
/// Values of CUlimit that a Hopper does not have: depth of device-side synchronisation, CIG fallback.
const NO_LIMITS: [u32; 2] = [3, 9];

fn create(c: &mut Call, out: Out<u64>, flags: u32, dev: i32, version: u32) -> R {
    out.check()?;
    if flags & !FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    let ctx = c.create_context(dev, flags, version)?;
    if !thread::push(ctx) {
        c.destroy_context(ctx)?;
        return Err(INVALID_CONTEXT);
    }
    out.set(ctx)
}

fn synchronize(c: &mut Call, ctx: u64) -> R {
    let device = c.context(ctx)?.device;
    c.device(device as i32)?.healthy()?;
    let capturing: Vec<u64> = c
        .streams
        .iter()
        .filter(|(_, s)| s.ctx == ctx && s.capture != 0)
        .map(|(h, _)| h)
        .collect();
    for stream in capturing {
        c.forbid_capturing(stream)?;
    }
    c.synchronised();
    Ok(())
}

/// `CUctxCreateParams`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CreateParams {
    affinity: u64,
    affinity_count: i32,
    cig: u64,
}

driver! {
    /// The version 1 form: a context with 32-bit addresses in mind.
    [INIT] fn cuCtxCreate(out: Out<u64>, flags: u32, dev: i32) |c| {
        create(c, out, flags, dev, 3010)
    }

    /// Since 3.2.
    [INIT] fn cuCtxCreate_v2(out: Out<u64>, flags: u32, dev: i32) |c| {
        create(c, out, flags, dev, 3020)
    }

    /// Since 11.4, with SM affinity, which is not supported.
    [INIT] fn cuCtxCreate_v3(
        out: Out<u64>, affinity: u64, count: i32, flags: u32, dev: i32,
    ) |c| {
        if affinity != 0 && count != 0 {
            return Err(crate::abi::error::Error(224));
        }
        create(c, out, flags, dev, 3020)
    }

    /// Since 12.5, with optional parameters.
    [INIT] fn cuCtxCreate_v4(
        out: Out<u64>, params: In<CreateParams>, flags: u32, dev: i32,
    ) |c| {
        if let Some(p) = params.get_if() {
            if p.cig != 0 {
                return Err(NOT_SUPPORTED);
            }
            if p.affinity != 0 && p.affinity_count != 0 {
                return Err(crate::abi::error::Error(224));
            }
        }
        create(c, out, flags, dev, 3020)
    }

    /// Before 4.0: the context must be current here.
    [INIT] fn cuCtxDestroy(ctx: u64) |c| { c.destroy_context(ctx) }

    /// Since 4.0.
    [INIT] fn cuCtxDestroy_v2(ctx: u64) |c| { c.destroy_context(ctx) }

    /// Before 4.0.
    [INIT] fn cuCtxPushCurrent(ctx: u64) |c| {
        c.context(ctx)?;
        if thread::push(ctx) { Ok(()) } else { Err(INVALID_CONTEXT) }
    }

    /// Since 4.0.
    [INIT] fn cuCtxPushCurrent_v2(ctx: u64) |c| {
        c.context(ctx)?;
        if thread::push(ctx) { Ok(()) } else { Err(INVALID_CONTEXT) }
    }

    /// Before 4.0.
    [INIT] fn cuCtxPopCurrent(out: Out<u64>) |_c| {
        let top = thread::pop().ok_or(INVALID_CONTEXT)?;
        out.set_if(top);
        Ok(())
    }

    /// Since 4.0.
    [INIT] fn cuCtxPopCurrent_v2(out: Out<u64>) |_c| {
        let top = thread::pop().ok_or(INVALID_CONTEXT)?;
        out.set_if(top);
        Ok(())
    }

    /// NULL takes the current one away.
    [INIT] fn cuCtxSetCurrent(ctx: u64) |c| {
        if ctx != 0 {
            c.contexts.get(ctx).ok_or(INVALID_CONTEXT)?;
        }
        if thread::set(ctx) { Ok(()) } else { Err(INVALID_CONTEXT) }
    }

    /// NULL when there is none.
    [INIT] fn cuCtxGetCurrent(out: Out<u64>) |_c| { out.set(thread::current()) }

    /// The current context's device, even of a context that has ended.
    [INIT] fn cuCtxGetDevice(out: Out<i32>) |c| {
        let device = c.device_of(c.ctx)?;
        out.set(device as i32)
    }

    /// Of a given context, or the current one for NULL.
    [INIT] fn cuCtxGetDevice_v2(out: Out<i32>, ctx: u64) |c| {
        let ctx = if ctx == 0 { c.ctx } else { ctx };
        out.set(c.context(ctx)?.device as i32)
    }

    /// Creation flags, even of a context that has ended.
    [INIT] fn cuCtxGetFlags(out: Out<u32>) |c| {
        out.set(c.contexts.get(c.ctx).ok_or(INVALID_CONTEXT)?.flags)
    }

    /// Changes them.
    [CONTEXT] fn cuCtxSetFlags(flags: u32) |c| {
        let ctx = c.ctx;
        if flags & !FLAGS != 0 {
            return Err(INVALID_VALUE);
        }
        c.context(ctx)?.flags = flags;
        Ok(())
    }

    /// A number that no other context of the process has or had.
    [INIT] fn cuCtxGetId(ctx: u64, out: Out<u64>) |c| {
        let ctx = if ctx == 0 { c.ctx } else { ctx };
        out.set(c.context(ctx)?.id)
    }

    /// 3020 for contexts made since then.
    [INIT] fn cuCtxGetApiVersion(ctx: u64, out: Out<u32>) |c| {
        let ctx = if ctx == 0 { c.ctx } else { ctx };
        out.set(c.context(ctx)?.api_version)
    }

    /// Everything is done already; forbidden while a stream of the context captures.
    [CONTEXT] fn cuCtxSynchronize() |c| {
        let ctx = c.ctx;
        synchronize(c, ctx)
    }

    /// Of a given context.
    [INIT] fn cuCtxSynchronize_v2(ctx: u64) |c| {
        let ctx = if ctx == 0 { c.ctx } else { ctx };
        synchronize(c, ctx)
    }

    /// One limit.
    [WORK] fn cuCtxGetLimit(out: Out<usize>, limit: u32) |c| {
        let ctx = c.ctx;
        let value = *c.context(ctx)?.limits.get(limit as usize).ok_or(INVALID_VALUE)?;
        if NO_LIMITS.contains(&limit) {
            return Err(UNSUPPORTED_LIMIT);
        }
        out.set(value as usize)
    }

    /// One limit.
    [MEMORY] fn cuCtxSetLimit(limit: u32, value: usize) |c| {
        let ctx = c.ctx;
        if NO_LIMITS.contains(&limit) {
            return Err(UNSUPPORTED_LIMIT);
        }
        c.set_limit(ctx, limit, value as u64)
    }

    /// Preferred cache configuration.
    [WORK] fn cuCtxGetCacheConfig(out: Out<u32>) |c| {
        let ctx = c.ctx;
        out.set(c.context(ctx)?.cache_config)
    }

    /// Preferred cache configuration.
    [WORK] fn cuCtxSetCacheConfig(config: u32) |c| {
        let ctx = c.ctx;
        c.context(ctx)?.cache_config = config;
        Ok(())
    }

    /// Deprecated.
    [WORK] fn cuCtxGetSharedMemConfig(out: Out<u32>) |c| {
        let ctx = c.ctx;
        out.set(c.context(ctx)?.shared_config)
    }

    /// Deprecated.
    [WORK] fn cuCtxSetSharedMemConfig(config: u32) |c| {
        let ctx = c.ctx;
        c.context(ctx)?.shared_config = config;
        Ok(())
    }

    /// Lowest and highest priority; smaller numbers are higher.
    [WORK] fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) |_c| {
        least.set_if(0);
        greatest.set_if(-5);
        Ok(())
    }

    /// Nothing persists.
    [WORK] fn cuCtxResetPersistingL2Cache() |_c| { Ok(()) }

    /// All multiprocessors.
    [WORK] fn cuCtxGetExecAffinity(out: Out<[u32; 2]>, kind: u32) |_c| {
        if kind != 0 {
            return Err(INVALID_VALUE);
        }
        out.set([0, 132])
    }

    /// Deprecated usage count: attaching.
    [CONTEXT] fn cuCtxAttach(out: Out<u64>, flags: u32) |c| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.check()?;
        let ctx = c.ctx;
        c.context(ctx)?.usage += 1;
        out.set(ctx)
    }

    /// Deprecated usage count: detaching; the last one destroys.
    [CONTEXT] fn cuCtxDetach(ctx: u64) |c| {
        if ctx != c.ctx {
            return Err(INVALID_CONTEXT);
        }
        c.detach_context(ctx)
    }

    /// Everything of the context so far, as an event.
    [INIT] fn cuCtxRecordEvent(ctx: u64, event: u64) |c| {
        let legacy = c.context(ctx)?.legacy;
        c.record_context(event, legacy)
    }

    /// Makes all streams of the context wait.
    [INIT] fn cuCtxWaitEvent(ctx: u64, event: u64) |c| {
        let legacy = c.context(ctx)?.legacy;
        c.wait_event(legacy, event)
    }

    /// Lets the current context use the peer's memory.
    [WORK | UNSAFE] fn cuCtxEnablePeerAccess(peer: u64, flags: u32) |c| {
        let ctx = c.ctx;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let (here, there) = (c.context(ctx)?.device, c.context(peer)?.device);
        if here == there {
            return Err(PEER_ACCESS_UNSUPPORTED);
        }
        let peers = &mut c.context(ctx)?.peers;
        if peers.contains(&peer) {
            return Err(PEER_ACCESS_ALREADY_ENABLED);
        }
        peers.push(peer);
        Ok(())
    }

    /// Takes that back.
    [WORK | UNSAFE] fn cuCtxDisablePeerAccess(peer: u64) |c| {
        let ctx = c.ctx;
        let peers = &mut c.context(ctx)?.peers;
        let Some(i) = peers.iter().position(|&p| p == peer) else {
            return Err(PEER_ACCESS_NOT_ENABLED);
        };
        peers.remove(i);
        Ok(())
    }
}
