//! The machine: devices, contexts, and everything that lives in them. No C types, no raw pointers
//! from callers; the families in `api` are its only users.

pub mod arena;
pub mod array;
pub mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod external;
pub mod graph;
pub mod hash;
pub mod launch;
pub mod live;
pub mod mapping;
pub mod memory;
pub mod module;
pub mod pool;
pub mod ranges;
pub mod sharing;
pub mod slab;
pub mod stream;
pub mod virtual_memory;

use crate::abi::error::{Error, INVALID_CONTEXT, INVALID_DEVICE, OUT_OF_MEMORY, R};
use crate::abi::memory::{Location, PoolProps};
use crate::config;
use arena::Arena;
use device::Device;
use live::Live;
use slab::Slab;

/// Everything that the driver knows. One per process, behind the lock of [`crate::gate`].
pub struct State {
    pub initialised: bool,
    pub devices: Vec<Device>,
    /// Pinned memory, and pools of host memory.
    pub host_arena: Option<Arena>,
    pub managed_arena: Option<Arena>,
    /// What has a device address.
    pub live: Live,
    /// What is pinned or registered on the host.
    pub host: Live,
    pub contexts: Slab<context::Context>,
    pub green: Slab<context::Green>,
    pub streams: Slab<stream::Stream>,
    pub events: Slab<stream::Event>,
    pub pools: Slab<pool::Pool>,
    pub arrays: Slab<array::Array>,
    pub mipmaps: Slab<array::Mipmap>,
    /// Texture and surface objects.
    pub textures: Slab<()>,
    pub virtual_memory: virtual_memory::VirtualMemory,
    pub sharing: sharing::Sharing,
    pub captures: capture::Captures,
    pub graphs: graph::Graphs,
    pub modules: module::Modules,
    /// Numbers for contexts and streams (cuCtxGetId, cuStreamGetId).
    pub next_id: u64,
}

impl State {
    /// Before cuInit.
    pub const fn new() -> State {
        State {
            initialised: false,
            devices: Vec::new(),
            host_arena: None,
            managed_arena: None,
            live: Live::new(),
            host: Live::new(),
            contexts: Slab::unique(0),
            green: Slab::unique(1),
            streams: Slab::new(2),
            events: Slab::new(3),
            pools: Slab::new(4),
            arrays: Slab::new(5),
            mipmaps: Slab::new(6),
            textures: Slab::new(19),
            virtual_memory: virtual_memory::VirtualMemory::new(),
            sharing: sharing::Sharing::new(),
            captures: capture::Captures::new(),
            graphs: graph::Graphs::new(),
            modules: module::Modules::new(),
            next_id: 1,
        }
    }

    /// cuInit.
    pub fn init(&mut self) -> R {
        if self.initialised {
            return Ok(());
        }
        let config = config::get();
        if config.devices == 0 {
            return Err(Error(100));
        }
        // Address space is all that these sizes cost. Where it is limited (ulimit -v, strict
        // overcommit), less must do.
        let arena = || {
            let mut sizes = [40, 36, 33].iter();
            sizes.find_map(|&bits| Arena::host(1 << bits).ok())
        };
        (self.host_arena, self.managed_arena) = (arena(), arena());
        if self.host_arena.is_none() || self.managed_arena.is_none() {
            return Err(OUT_OF_MEMORY);
        }
        for ordinal in 0..config.devices {
            let mut device = Device::new(config.memory)?;
            let location = Location {
                kind: 1,
                id: ordinal as i32,
            };
            let props = PoolProps {
                kind: 1,
                handle_types: 0,
                location,
                win32_security: 0,
                max_size: 0,
                usage: 0,
                reserved: [0; 54],
            };
            device.default_pool = self.pools.insert(pool::Pool::new(&props, true));
            device.pool = device.default_pool;
            self.devices.push(device);
        }
        self.initialised = true;
        Ok(())
    }

    /// A number that was not given out before.
    pub fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The device with this ordinal.
    pub fn device(&mut self, ordinal: i32) -> R<&mut Device> {
        let index = usize::try_from(ordinal).map_err(|_| INVALID_DEVICE)?;
        self.devices.get_mut(index).ok_or(INVALID_DEVICE)
    }

    /// The ordinal of a context's device.
    pub fn device_of(&self, ctx: u64) -> R<u32> {
        self.contexts
            .get(ctx)
            .map(|c| c.device)
            .ok_or(INVALID_CONTEXT)
    }
}
