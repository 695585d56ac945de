//! Events.

use crate::abi::error::{INVALID_HANDLE, INVALID_VALUE, R};
use crate::ffi::Out;
use crate::gate::{Call, WORK, driver};
use crate::model::stream::Event;

fn record(c: &mut Call, event: u64, stream: u64) -> R {
    let stream = c.work_stream(stream)?;
    c.record_event(event, stream)
}

fn destroy(c: &mut Call, event: u64) -> R {
    c.events.remove(event).map(|_| ()).ok_or(INVALID_HANDLE)
}

driver! {
    /// Flags: 1 blocking synchronisation, 2 no timing, 4 interprocess (which requires 2).
    [WORK] fn cuEventCreate(out: Out<u64>, flags: u32) |c| {
        out.check()?;
        if flags > 7 || flags & 6 == 4 {
            return Err(INVALID_VALUE);
        }
        let ctx = c.ctx;
        let event = c.events.insert(Event { ctx, flags, recorded: None, on: None, captured: None });
        out.set(event)
    }

    /// Before 4.0.
    [WORK] fn cuEventDestroy(event: u64) |c| { destroy(c, event) }

    /// Since 4.0.
    [WORK] fn cuEventDestroy_v2(event: u64) |c| { destroy(c, event) }

    /// Stands for the stream's work so far.
    [WORK] fn cuEventRecord + cuEventRecord_ptsz(event: u64, stream: u64) |c| {
        record(c, event, stream)
    }

    /// Flag 1: a node of its own while capturing, not a fork point.
    [WORK] fn cuEventRecordWithFlags + cuEventRecordWithFlags_ptsz(
        event: u64, stream: u64, flags: u32,
    ) |c| {
        match flags {
            0 => record(c, event, stream),
            1 => {
                c.events.get(event).ok_or(INVALID_HANDLE)?;
                let stream = c.work_stream(stream)?;
                c.submit(stream, crate::model::graph::Op::Record(event))
            }
            _ => Err(INVALID_VALUE),
        }
    }

    /// Complete unless it was recorded in a capture.
    [WORK] fn cuEventQuery(event: u64) |c| { c.event_done(event) }

    /// As the query, and lets pools give back what was freed on the stream that it stands in.
    [WORK] fn cuEventSynchronize(event: u64) |c| {
        c.event_done(event)?;
        if let Some(stream) = c.events.get(event).and_then(|event| event.on) {
            c.waited_for(stream);
        }
        Ok(())
    }

    /// Before 12.8.
    [WORK] fn cuEventElapsedTime(out: Out<f32>, start: u64, end: u64) |c| {
        let ms = c.elapsed(start, end)?;
        out.set(ms)
    }

    /// Since 12.8.
    [WORK] fn cuEventElapsedTime_v2(out: Out<f32>, start: u64, end: u64) |c| {
        let ms = c.elapsed(start, end)?;
        out.set(ms)
    }
}
