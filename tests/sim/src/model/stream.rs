//! Streams and events. All work is done by the time a call returns, so that neither holds a queue:
//! what is left of them is identity, capture, and time stamps.

use super::State;
use crate::abi::error::{
    CAPTURED_EVENT, INVALID_CONTEXT, INVALID_HANDLE, NOT_READY, R, STREAM_CAPTURE_ISOLATION,
};
use crate::gate::Call;
use crate::thread;
use std::time::Instant;

/// One stream.
pub struct Stream {
    pub ctx: u64,
    /// Bit 0: does not synchronise with the legacy stream.
    pub flags: u32,
    pub priority: i32,
    pub id: u64,
    /// The legacy default stream of its context.
    pub legacy: bool,
    /// The capture that it takes part in, or 0.
    pub capture: u64,
    /// While capturing: the nodes that the next one depends on.
    pub deps: Vec<u64>,
}

/// One event.
pub struct Event {
    pub ctx: u64,
    pub flags: u32,
    pub recorded: Option<Instant>,
    /// On which stream; `None` for a whole context, which shows the host none of its streams.
    pub on: Option<u64>,
    /// Recorded in a capture: which, and the nodes that it stands for.
    pub captured: Option<(u64, Vec<u64>)>,
}

/// CU_STREAM_LEGACY.
const LEGACY: u64 = 1;
/// CU_STREAM_PER_THREAD.
const PER_THREAD: u64 = 2;
/// CU_EVENT_DISABLE_TIMING.
const DISABLE_TIMING: u32 = 2;

impl Stream {
    /// A stream without work.
    pub fn new(ctx: u64, flags: u32, priority: i32, id: u64, legacy: bool) -> Stream {
        Stream {
            ctx,
            flags,
            priority,
            id,
            legacy,
            capture: 0,
            deps: Vec::new(),
        }
    }

    /// Whether the legacy stream waits for it.
    pub fn is_blocking(&self) -> bool {
        self.flags & 1 == 0
    }
}

impl Call {
    /// The stream that a handle means, special handles included.
    pub fn stream(&mut self, handle: u64) -> R<u64> {
        let special = match handle {
            0 if self.ptds => PER_THREAD,
            0 => LEGACY,
            other => other,
        };
        match special {
            LEGACY => {
                let ctx = self.contexts.get(self.ctx).ok_or(INVALID_CONTEXT)?;
                Ok(ctx.legacy)
            }
            PER_THREAD => self.per_thread_stream(),
            handle if self.streams.get(handle).is_some() => Ok(handle),
            _ => Err(INVALID_HANDLE),
        }
    }

    fn per_thread_stream(&mut self) -> R<u64> {
        let (ctx, thread) = (self.ctx, u64::from(thread::id()));
        let context = self.contexts.get(ctx).ok_or(INVALID_CONTEXT)?;
        if let Some(&stream) = context.per_thread.get(&thread) {
            return Ok(stream);
        }
        let id = self.fresh_id();
        let stream = self.streams.insert(Stream::new(ctx, 0, 0, id, false));
        if let Some(context) = self.contexts.get_mut(ctx) {
            context.per_thread.insert(thread, stream);
        }
        Ok(stream)
    }

    /// The stream for new work: as `stream`, and the legacy stream may not be used while a stream
    /// that it waits for is capturing.
    pub fn work_stream(&mut self, handle: u64) -> R<u64> {
        let stream = self.stream(handle)?;
        if !self.captures.is_empty() && self.streams.get(stream).is_some_and(|s| s.legacy) {
            self.implicit_use_of_legacy()?;
        }
        Ok(stream)
    }

    /// The stream for stream-ordered memory: as `work_stream`, and on a stream that does not capture
    /// the call is as unsafe as an ordinary allocation.
    pub fn memory_stream(&mut self, handle: u64) -> R<u64> {
        let stream = self.work_stream(handle)?;
        self.unsafe_outside_capture(stream)?;
        Ok(stream)
    }
}

impl State {
    /// cuCtxRecordEvent.
    pub fn record_context(&mut self, event: u64, legacy: u64) -> R {
        self.record_event(event, legacy)?;
        let event = self.events.get_mut(event).ok_or(INVALID_HANDLE)?;
        event.on = None;
        Ok(())
    }

    /// cuEventRecord.
    pub fn record_event(&mut self, event: u64, stream: u64) -> R {
        let captured = self.capture_of(stream)?.map(|capture| {
            (
                capture,
                self.streams
                    .get(stream)
                    .map(|s| s.deps.clone())
                    .unwrap_or_default(),
            )
        });
        let event = self.events.get_mut(event).ok_or(INVALID_HANDLE)?;
        if captured.is_none() {
            event.recorded = Some(Instant::now());
            event.on = Some(stream);
        }
        event.captured = captured;
        Ok(())
    }

    /// cuStreamWaitEvent: outside of captures everything is done already; inside, the stream joins
    /// the event's capture.
    pub fn wait_event(&mut self, stream: u64, event: u64) -> R {
        let Some((capture, nodes)) = self
            .events
            .get(event)
            .ok_or(INVALID_HANDLE)?
            .captured
            .clone()
        else {
            // A captured stream must not depend on work outside of its capture.
            return match self.capture_of(stream)? {
                Some(capture) if self.events.get(event).is_some_and(|e| e.recorded.is_some()) => {
                    self.captures.invalidate(capture);
                    Err(STREAM_CAPTURE_ISOLATION)
                }
                _ => Ok(()),
            };
        };
        if !self.captures.is_open(capture) {
            return Ok(());
        }
        self.join_capture(stream, capture, &nodes)
    }

    /// cuEventQuery and cuEventSynchronize: unsafe while something captures.
    pub fn event_done(&mut self, event: u64) -> R {
        let event = self.events.get(event).ok_or(INVALID_HANDLE)?;
        if let Some((capture, _)) = event.captured
            && self.captures.is_open(capture)
        {
            self.captures.invalidate(capture);
            return Err(CAPTURED_EVENT);
        }
        self.captures.unsafe_call()
    }

    /// Milliseconds between two recorded events.
    pub fn elapsed(&mut self, start: u64, end: u64) -> R<f32> {
        let get = |h| self.events.get(h).ok_or(INVALID_HANDLE);
        let (a, b) = (get(start)?, get(end)?);
        if (a.flags | b.flags) & DISABLE_TIMING != 0 {
            return Err(INVALID_HANDLE);
        }
        match (a.recorded, b.recorded) {
            (Some(a), Some(b)) => {
                let ms = |d: std::time::Duration| d.as_secs_f32() * 1e3;
                Ok(if b >= a { ms(b - a) } else { -ms(a - b) })
            }
            // Captured but never launched counts as not complete, never recorded as invalid.
            _ if a.captured.is_some() || b.captured.is_some() => Err(NOT_READY),
            _ => Err(INVALID_HANDLE),
        }
    }
}
