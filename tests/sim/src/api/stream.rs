//! Stream management, without capture.

use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R};
use crate::ffi::{HostFn, Out, StreamCallback};
use crate::gate::{Call, INIT, WORK, driver};
use crate::model::graph::Op;
use crate::model::stream::Stream;

/// Highest and lowest priority of the simulated device.
const PRIORITIES: (i32, i32) = (-5, 0);

fn create(c: &mut Call, out: Out<u64>, flags: u32, priority: i32) -> R {
    out.check()?;
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
    let (ctx, id) = (c.ctx, c.fresh_id());
    c.charge_stream(ctx)?;
    let priority = priority.clamp(PRIORITIES.0, PRIORITIES.1);
    let stream = c
        .streams
        .insert(Stream::new(ctx, flags, priority, id, false));
    out.set(stream)
}

fn destroy(c: &mut Call, stream: u64) -> R {
    if stream <= 2 || c.streams.get(stream).is_none_or(|s| s.legacy) {
        return Err(INVALID_HANDLE);
    }
    c.abandon_capture(stream);
    c.waited_for(stream);
    if let Some(gone) = c.streams.remove(stream) {
        c.discharge_streams(gone.ctx, 1);
    }
    Ok(())
}

fn get(c: &mut Call, handle: u64) -> R<&Stream> {
    let stream = c.work_stream(handle)?;
    c.streams.get(stream).ok_or(INVALID_HANDLE)
}

/// Query and synchronise: everything is done; capturing streams refuse.
fn settle(c: &mut Call, handle: u64) -> R {
    let stream = c.work_stream(handle)?;
    c.forbid_capturing(stream)?;
    c.captures.unsafe_call()
}

/// For what may not be asked of a capturing stream.
fn get_idle(c: &mut Call, handle: u64) -> R<&Stream> {
    let stream = c.work_stream(handle)?;
    c.forbid_capturing(stream)?;
    c.streams.get(stream).ok_or(INVALID_HANDLE)
}

driver! {
    /// Flag 1: does not wait for the legacy stream.
    [WORK] fn cuStreamCreate(out: Out<u64>, flags: u32) |c| { create(c, out, flags, 0) }

    /// Priorities are cut to the device's range.
    [WORK] fn cuStreamCreateWithPriority(out: Out<u64>, flags: u32, priority: i32) |c| {
        create(c, out, flags, priority)
    }

    /// Before 4.0.
    [WORK] fn cuStreamDestroy(stream: u64) |c| { destroy(c, stream) }

    /// Since 4.0.
    [WORK] fn cuStreamDestroy_v2(stream: u64) |c| { destroy(c, stream) }

    /// Waits for nothing, and lets pools give back what was freed on it.
    [WORK] fn cuStreamSynchronize + cuStreamSynchronize_ptsz(stream: u64) |c| {
        settle(c, stream)?;
        let stream = c.work_stream(stream)?;
        c.waited_for(stream);
        Ok(())
    }

    /// Always complete.
    [WORK] fn cuStreamQuery + cuStreamQuery_ptsz(stream: u64) |c| { settle(c, stream) }

    /// Priority.
    [WORK] fn cuStreamGetPriority + cuStreamGetPriority_ptsz(stream: u64, out: Out<i32>) |c| {
        out.set(get(c, stream)?.priority)
    }

    /// Flags.
    [WORK] fn cuStreamGetFlags + cuStreamGetFlags_ptsz(stream: u64, out: Out<u32>) |c| {
        out.set(get_idle(c, stream)?.flags)
    }

    /// A number that no other stream of the process has or had.
    [WORK] fn cuStreamGetId + cuStreamGetId_ptsz(stream: u64, out: Out<u64>) |c| {
        out.set(get_idle(c, stream)?.id)
    }

    /// Its context.
    [WORK] fn cuStreamGetCtx + cuStreamGetCtx_ptsz(stream: u64, out: Out<u64>) |c| {
        out.set(get(c, stream)?.ctx)
    }

    /// Its context, and the green context behind that.
    [WORK] fn cuStreamGetCtx_v2 + cuStreamGetCtx_v2_ptsz(
        stream: u64, ctx_out: Out<u64>, green_out: Out<u64>,
    ) |c| {
        let ctx = get(c, stream)?.ctx;
        let green = c.contexts.get(ctx).map_or(0, |c| c.green);
        ctx_out.set(ctx)?;
        green_out.set_if(green);
        Ok(())
    }

    /// Its device.
    [WORK] fn cuStreamGetDevice + cuStreamGetDevice_ptsz(stream: u64, out: Out<i32>) |c| {
        let ctx = get_idle(c, stream)?.ctx;
        let device = c.device_of(ctx)?;
        out.set(device as i32)
    }

    /// Copies attributes, of which there are none that matter.
    [WORK] fn cuStreamCopyAttributes + cuStreamCopyAttributes_ptsz(dst: u64, src: u64) |c| {
        c.stream(dst)?;
        c.stream(src)?;
        Ok(())
    }

    /// An attribute: 64 bytes, all zero unless it is the priority.
    [WORK] fn cuStreamGetAttribute + cuStreamGetAttribute_ptsz(
        stream: u64, id: u32, out: Out<[i32; 16]>,
    ) |c| {
        let mut value = [0; 16];
        if id == 8 {
            value[0] = get(c, stream)?.priority;
        }
        c.stream(stream)?;
        out.set(value)
    }

    /// Accepted; only the priority has an effect.
    [WORK] fn cuStreamSetAttribute + cuStreamSetAttribute_ptsz(
        stream: u64, id: u32, value: Out<[i32; 16]>,
    ) |c| {
        let stream = c.stream(stream)?;
        let value = value.get()?;
        if id == 8
            && let Some(s) = c.streams.get_mut(stream)
        {
            s.priority = value[0].clamp(PRIORITIES.0, PRIORITIES.1);
        }
        Ok(())
    }

    /// Orders after an event; joins the event's capture.
    [WORK] fn cuStreamWaitEvent + cuStreamWaitEvent_ptsz(stream: u64, event: u64, flags: u32) |c| {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let stream = c.work_stream(stream)?;
        c.wait_event(stream, event)
    }

    /// Runs before the call returns.
    [WORK] fn cuStreamAddCallback + cuStreamAddCallback_ptsz(
        stream: u64, f: StreamCallback, data: u64, flags: u32,
    ) |c| {
        if f.is_none() || flags != 0 {
            return Err(INVALID_VALUE);
        }
        let stream = c.work_stream(stream)?;
        c.submit(stream, Op::Callback(f, data))
    }

    /// Runs before the call returns.
    [WORK] fn cuLaunchHostFunc + cuLaunchHostFunc_ptsz(
        stream: u64, f: HostFn, data: u64,
    ) |c| {
        if f.is_none() {
            return Err(INVALID_VALUE);
        }
        let stream = c.work_stream(stream)?;
        c.submit(stream, Op::Host(f, data))
    }

    /// Notifications about a memory budget never come.
    [INIT] fn cuDeviceRegisterAsyncNotification(
        dev: i32, f: u64, data: u64, out: Out<u64>,
    ) |c| {
        c.device(dev)?;
        let _ = (f, data);
        let handle = c.fresh_id();
        out.set(handle)
    }

    /// Takes the registration back.
    [INIT] fn cuDeviceUnregisterAsyncNotification(dev: i32, handle: u64) |c| {
        c.device(dev)?;
        if handle == 0 { Err(INVALID_VALUE) } else { Ok(()) }
    }
}
