//! Contexts: created ones, each device's primary one, green ones; and what ends with them.

use super::State;
use super::hash::{Map, map};
use super::live::Kind;
use super::stream::Stream;
use crate::abi::error::{CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_VALUE, R};
use crate::{config, thread};

/// One context.
pub struct Context {
    pub device: u32,
    pub flags: u32,
    /// What cuCtxGetApiVersion answers.
    pub api_version: u32,
    pub id: u64,
    pub primary: bool,
    /// Uses by cuCtxCreate and cuCtxAttach.
    pub usage: u32,
    /// False once it is destroyed, and for a primary context between a reset and the next retain.
    pub active: bool,
    /// CUlimit values.
    pub limits: [u64; 10],
    pub cache_config: u32,
    pub shared_config: u32,
    /// The legacy default stream.
    pub legacy: u64,
    /// Default streams of threads.
    pub per_thread: Map<u64>,
    /// Contexts whose memory this one may access.
    pub peers: Vec<u64>,
    /// The green context that this is the face of, or 0.
    pub green: u64,
    /// What the first executable graph cost the device, until the context ends.
    pub graph_bytes: u64,
}

/// A green context: a share of the device's multiprocessors with a context face.
pub struct Green {
    pub ctx: u64,
    pub id: u64,
}

/// Defaults of CUlimit 0 to 9, as a Hopper driver reports them.
const LIMITS: [u64; 10] = [1024, 8 << 20, 8 << 20, 2, 2048, 64, 0, 0, 0, 0];

impl State {
    /// Makes a context; it is not made current.
    pub fn create_context(&mut self, ordinal: i32, flags: u32, version: u32) -> R<u64> {
        let device = self.device(ordinal)?;
        device.healthy()?;
        device.charge(config::get().context_bytes)?;
        Ok(self.insert_context(ordinal, flags, version))
    }

    fn insert_context(&mut self, ordinal: i32, flags: u32, version: u32) -> u64 {
        let id = self.fresh_id();
        let ctx = self.contexts.insert(Context {
            device: ordinal as u32,
            flags,
            api_version: version,
            id,
            primary: false,
            usage: 1,
            active: true,
            limits: LIMITS,
            cache_config: 0,
            shared_config: 0,
            legacy: 0,
            per_thread: map(),
            peers: Vec::new(),
            green: 0,
            graph_bytes: 0,
        });
        self.open_legacy_stream(ctx);
        ctx
    }

    /// cuGreenCtxCreate: retains the primary context, and makes the context face.
    pub fn create_green(&mut self, ordinal: i32) -> R<u64> {
        self.retain_primary(ordinal)?;
        let ctx = self.insert_context(ordinal, 0, 3020);
        let id = self.fresh_id();
        let handle = self.green.insert(Green { ctx, id });
        self.context(ctx)?.green = handle;
        Ok(handle)
    }

    /// cuGreenCtxDestroy: the face ends, and one reference to the primary context.
    pub fn destroy_green(&mut self, handle: u64) -> R {
        let green = self.green.remove(handle).ok_or(INVALID_CONTEXT)?;
        let ordinal = self.device_of(green.ctx)?;
        self.end_context(green.ctx);
        if thread::current() == green.ctx {
            thread::pop();
        }
        self.release_primary(ordinal as i32)
    }

    /// The context that memory belongs to which is allocated in this one: a green context has none
    /// of its own.
    pub fn owner(&self, ctx: u64) -> u64 {
        let face = self.contexts.get(ctx).filter(|c| c.green != 0);
        face.and_then(|c| self.devices.get(c.device as usize))
            .map_or(ctx, |device| device.primary.ctx)
    }

    /// cuCtxDetach: the last use ends the context.
    pub fn detach_context(&mut self, ctx: u64) -> R {
        let c = self.context(ctx)?;
        if c.usage > 1 {
            c.usage -= 1;
            return Ok(());
        }
        self.destroy_context(ctx)
    }

    fn open_legacy_stream(&mut self, ctx: u64) {
        let id = self.fresh_id();
        let legacy = self.streams.insert(Stream::new(ctx, 0, 0, id, true));
        if let Some(c) = self.contexts.get_mut(ctx) {
            c.legacy = legacy;
        }
    }

    /// A live context by its handle.
    pub fn context(&mut self, ctx: u64) -> R<&mut Context> {
        let c = self.contexts.get_mut(ctx).ok_or(INVALID_CONTEXT)?;
        if c.active {
            Ok(c)
        } else {
            Err(CONTEXT_IS_DESTROYED)
        }
    }

    /// cuDevicePrimaryCtxRetain.
    pub fn retain_primary(&mut self, ordinal: i32) -> R<u64> {
        let device = self.device(ordinal)?;
        device.healthy()?;
        let primary = &device.primary;
        let (existing, flags) = (primary.ctx, primary.flags);
        let active = self.contexts.get(existing).is_some_and(|c| c.active);
        let ctx = if active {
            existing
        } else if existing != 0 {
            self.device(ordinal)?.charge(config::get().context_bytes)?;
            let id = self.fresh_id();
            if let Some(c) = self.contexts.get_mut(existing) {
                c.active = true;
                c.id = id;
                c.flags = flags;
                c.limits = LIMITS;
            }
            self.open_legacy_stream(existing);
            existing
        } else {
            let made = self.create_context(ordinal, flags, 3020)?;
            if let Some(c) = self.contexts.get_mut(made) {
                c.primary = true;
            }
            made
        };
        let primary = &mut self.device(ordinal)?.primary;
        primary.ctx = ctx;
        primary.retained += 1;
        Ok(ctx)
    }

    /// cuDevicePrimaryCtxRelease: the last one resets.
    pub fn release_primary(&mut self, ordinal: i32) -> R {
        let primary = &mut self.device(ordinal)?.primary;
        if primary.retained == 0 {
            return Err(INVALID_CONTEXT);
        }
        primary.retained -= 1;
        if primary.retained == 0 {
            self.reset_primary(ordinal)?;
        }
        Ok(())
    }

    /// cuDevicePrimaryCtxReset: what ends with a context ends, and the next retain makes it anew
    /// under the same handle. Whoever retained it must still release it.
    pub fn reset_primary(&mut self, ordinal: i32) -> R {
        let ctx = self.device(ordinal)?.primary.ctx;
        if self.contexts.get(ctx).is_none_or(|c| !c.active) {
            return Ok(());
        }
        self.end_context(ctx);
        Ok(())
    }

    /// cuCtxDestroy.
    pub fn destroy_context(&mut self, ctx: u64) -> R {
        if ctx == 0 {
            return Err(INVALID_VALUE);
        }
        let c = self.contexts.get(ctx).ok_or(INVALID_CONTEXT)?;
        if c.primary || c.green != 0 {
            return Err(INVALID_CONTEXT);
        }
        if !c.active {
            return Err(CONTEXT_IS_DESTROYED);
        }
        self.end_context(ctx);
        if thread::current() == ctx {
            thread::pop();
        }
        Ok(())
    }

    /// Ends what ends with a context: linear, managed, imported and pinned memory, arrays, modules,
    /// streams and events. Pools' blocks and virtual memory belong to the device.
    fn end_context(&mut self, ctx: u64) {
        for base in self.live.select(|a| {
            a.ctx == ctx && !matches!(a.kind, Kind::Pool(_) | Kind::Graph(_) | Kind::PoolImport(_))
        }) {
            self.end(base);
        }
        for base in self.host.select(|a| a.ctx == ctx) {
            self.end_host(base);
        }
        for mipmap in self.mipmaps.select(|m| m.ctx == ctx) {
            self.destroy_mipmap(mipmap);
        }
        for array in self.arrays.select(|a| a.ctx == ctx) {
            self.end_array(array);
        }
        self.end_modules(ctx);
        let mut streams = 0;
        for stream in self.streams.select(|s| s.ctx == ctx) {
            self.abandon_capture(stream);
            let gone = self.streams.remove(stream);
            streams += u64::from(gone.is_some_and(|gone| !gone.legacy));
        }
        self.discharge_streams(ctx, streams);
        for event in self.events.select(|e| e.ctx == ctx) {
            self.events.remove(event);
        }
        // It stays known: threads may still have it current.
        let Some(c) = self.contexts.get_mut(ctx) else {
            return;
        };
        c.active = false;
        c.per_thread = map();
        c.peers = Vec::new();
        let own = if c.green == 0 {
            config::get().context_bytes
        } else {
            0
        };
        let bytes = own + std::mem::take(&mut c.graph_bytes);
        let device = c.device;
        if let Ok(device) = self.device(device as i32) {
            device.discharge(bytes);
        }
        self.synchronised();
    }

    /// What a stream costs.
    pub fn charge_stream(&mut self, ctx: u64) -> R {
        let device = self.context(ctx)?.device;
        self.device(device as i32)?
            .charge(config::get().stream_bytes)
    }

    /// Streams of a context are gone.
    pub fn discharge_streams(&mut self, ctx: u64, count: u64) {
        let device = self.contexts.get(ctx).map_or(0, |c| c.device);
        if let Ok(device) = self.device(device as i32) {
            device.discharge(count * config::get().stream_bytes);
        }
    }

    /// cuCtxSetLimit.
    pub fn set_limit(&mut self, ctx: u64, limit: u32, value: u64) -> R {
        let c = self.context(ctx)?;
        *c.limits.get_mut(limit as usize).ok_or(INVALID_VALUE)? = value;
        Ok(())
    }
}
