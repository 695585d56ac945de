//! Device management.

use crate::abi::error::{INVALID_DEVICE, INVALID_VALUE, R};
use crate::ffi::{Items, Out, Text, narrow};
use crate::gate::{Call, INIT, driver};
use std::ffi::{c_char, c_void};

/// Name of every simulated device; recognisable in reports and logs.
const NAME: &str = "Simulated H100 80GB";

/// The attributes of a Hopper device that programs ask for, in order; what is not here is 0, as for
/// a feature that is absent. Numbers: CUdevice_attribute of cuda.h 13.0.
const ATTRIBUTES: &[(u32, i32)] = &[
    (1, 1024),          // threads per block
    (2, 1024),          // block x
    (3, 1024),          // block y
    (4, 64),            // block z
    (5, i32::MAX),      // grid x
    (6, 65535),         // grid y
    (7, 65535),         // grid z
    (8, 49152),         // shared memory per block
    (9, 65536),         // constant memory
    (10, 32),           // warp size
    (11, i32::MAX),     // pitch
    (12, 65536),        // registers per block
    (13, 1_980_000),    // clock, kHz
    (14, 512),          // texture alignment
    (15, 1),            // overlap
    (16, 132),          // multiprocessors
    (19, 1),            // can map host memory
    (21, 131_072),      // texture 1D width
    (22, 131_072),      // texture 2D width
    (23, 65_536),       // texture 2D height
    (24, 16_384),       // texture 3D width
    (25, 16_384),       // texture 3D height
    (26, 16_384),       // texture 3D depth
    (27, 32_768),       // layered width
    (28, 32_768),       // layered height
    (29, 2048),         // layers
    (30, 512),          // surface alignment
    (31, 1),            // concurrent kernels
    (32, 1),            // ECC
    (36, 2_619_000),    // memory clock, kHz
    (37, 5120),         // memory bus width
    (38, 52_428_800),   // L2 cache
    (39, 2048),         // threads per multiprocessor
    (40, 3),            // copy engines
    (41, 1),            // unified addressing
    (51, 32),           // texture pitch alignment
    (75, 9),            // compute capability, major
    (76, 0),            // compute capability, minor
    (78, 1),            // stream priorities
    (79, 1),            // L1 for globals
    (80, 1),            // L1 for locals
    (81, 233_472),      // shared memory per multiprocessor
    (82, 65536),        // registers per multiprocessor
    (83, 1),            // managed memory
    (86, 0),            // host native atomics
    (87, 2),            // single to double ratio
    (88, 1),            // pageable memory access
    (89, 1),            // concurrent managed access
    (90, 1),            // compute preemption
    (91, 1),            // host pointer for registered memory
    (92, 1),            // stream memory operations
    (93, 1),            // 64-bit ones
    (94, 1),            // wait value NOR
    (95, 1),            // cooperative launch
    (97, 232_448),      // shared memory per block, opt-in
    (98, 1),            // flush remote writes
    (99, 1),            // host register
    (102, 1),           // virtual memory management
    (103, 1),           // file descriptor handles
    (106, 32),          // blocks per multiprocessor
    (107, 1),           // compression
    (108, 32_768_000),  // persisting L2
    (109, 134_213_632), // access policy window
    (110, 1),           // GPU Direct with VMM
    (111, 1024),        // reserved shared memory
    (112, 1),           // sparse arrays
    (113, 1),           // read-only host register
    (114, 1),           // timeline semaphores
    (115, 1),           // memory pools
    (116, 1),           // GPU Direct
    (117, 1),           // flush writes options
    (118, 100),         // writes ordering
    (119, 9),           // pool handle types: descriptor, fabric
    (120, 1),           // clusters
    (121, 1),           // deferred mapping arrays
    (122, 1),           // 64-bit stream memory operations
    (123, 1),           // wait value NOR
    (124, 1),           // dma-buf
    (125, 1),           // IPC events
    (126, 4),           // memory sync domains
    (127, 1),           // tensor maps
    (129, 1),           // unified function pointers
    (131, -1),          // NUMA id
    (132, 1),           // multicast
    (134, 0),           // host NUMA id
    (139, 0x2330_10de), // PCI device id
    (140, 0x16c1_10de), // PCI subsystem id
    (141, 1),           // host NUMA VMM
    (142, 1),           // host NUMA pools
];

/// CUdevice_attribute's end marker in 13.0.
const ATTRIBUTE_END: u32 = 148;

fn attribute(id: u32, ordinal: i32) -> R<i32> {
    if id == 0 || id >= ATTRIBUTE_END {
        return Err(INVALID_VALUE);
    }
    // PCI bus: one device per bus, as in a server.
    if id == 33 {
        return Ok(ordinal + 1);
    }
    Ok(ATTRIBUTES
        .binary_search_by_key(&id, |&(k, _)| k)
        .map_or(0, |i| ATTRIBUTES[i].1))
}

fn bus_id(ordinal: i32) -> String {
    format!("0000:{:02X}:00.0", ordinal + 1)
}

fn uuid(call: &mut Call, ordinal: i32) -> R<[u8; 16]> {
    call.device(ordinal)?;
    let mut bytes = *b"vramtrace-sim-\0\0";
    bytes[15] = ordinal as u8;
    Ok(bytes)
}

driver! {
    /// A device by its ordinal; the handle is the ordinal.
    [INIT] fn cuDeviceGet(out: Out<i32>, ordinal: i32) |c| {
        c.device(ordinal)?;
        out.set(ordinal)
    }

    /// Number of devices.
    [INIT] fn cuDeviceGetCount(out: Out<i32>) |c| {
        out.set(c.devices.len() as i32)
    }

    /// Name, cut to fit.
    [INIT] fn cuDeviceGetName(name: Out<c_char>, len: i32, dev: i32) |c| {
        c.device(dev)?;
        name.text(NAME, len)
    }

    /// UUID of the physical device.
    [INIT] fn cuDeviceGetUuid(out: Out<[u8; 16]>, dev: i32) |c| {
        out.set(uuid(c, dev)?)
    }

    /// UUID of the MIG instance; the same, since there is none.
    [INIT] fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, dev: i32) |c| {
        out.set(uuid(c, dev)?)
    }

    /// Windows only.
    [INIT] fn cuDeviceGetLuid(luid: Out<c_char>, mask: Out<u32>, dev: i32) |c| {
        c.device(dev)?;
        let _ = (luid, mask);
        Err(crate::abi::error::NOT_SUPPORTED)
    }

    /// Bytes, in 32 bits.
    [INIT] fn cuDeviceTotalMem(bytes: Out<u32>, dev: i32) |c| {
        let total = c.device(dev)?.total;
        bytes.set(narrow(total).unwrap_or(u32::MAX))
    }

    /// Bytes.
    [INIT] fn cuDeviceTotalMem_v2(bytes: Out<usize>, dev: i32) |c| {
        let total = c.device(dev)?.total;
        bytes.set(total as usize)
    }

    /// One attribute.
    [INIT] fn cuDeviceGetAttribute(out: Out<i32>, id: u32, dev: i32) |c| {
        c.device(dev)?;
        out.set(attribute(id, dev)?)
    }

    /// The oldest way to ask: ten integers of CUdevprop.
    [INIT] fn cuDeviceGetProperties(out: Out<[i32; 14]>, dev: i32) |c| {
        c.device(dev)?;
        let a = |id| attribute(id, dev);
        out.set([
            a(1)?, a(2)?, a(3)?, a(4)?, a(5)?, a(6)?, a(7)?, a(8)?, a(9)?, a(10)?, a(11)?, a(12)?,
            a(13)?, a(14)?,
        ])
    }

    /// Major and minor.
    [INIT] fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, dev: i32) |c| {
        c.device(dev)?;
        major.set(attribute(75, dev)?)?;
        minor.set(attribute(76, dev)?)
    }

    /// `domain:bus:device.function`.
    [INIT] fn cuDeviceGetPCIBusId(out: Out<c_char>, len: i32, dev: i32) |c| {
        c.device(dev)?;
        out.text(&bus_id(dev), len)
    }

    /// The device with a bus id.
    [INIT] fn cuDeviceGetByPCIBusId(out: Out<i32>, id: Text) |c| {
        let id = id.get()?.to_uppercase();
        let count = c.devices.len() as i32;
        let found = (0..count).find(|&d| {
            let full = bus_id(d);
            full == id || full[5..] == id
        });
        out.set(found.ok_or(INVALID_DEVICE)?)
    }

    /// All devices see each other.
    [INIT] fn cuDeviceCanAccessPeer(out: Out<i32>, dev: i32, peer: i32) |c| {
        c.device(dev)?;
        c.device(peer)?;
        out.set(i32::from(dev != peer))
    }

    /// Atomics across the bus: none natively.
    [INIT] fn cuDeviceGetHostAtomicCapabilities(
        out: Out<u32>, operations: Items<u32>, count: u32, dev: i32,
    ) |c| {
        c.device(dev)?;
        let operations = operations.read(count as usize)?;
        out.fill(&vec![0; operations.len()], count as usize)
    }

    /// Atomics between devices: none natively.
    [INIT] fn cuDeviceGetP2PAtomicCapabilities(
        out: Out<u32>, operations: Items<u32>, count: u32, src: i32, dst: i32,
    ) |c| {
        c.device(src)?;
        c.device(dst)?;
        let operations = operations.read(count as usize)?;
        out.fill(&vec![0; operations.len()], count as usize)
    }

    /// Performance rank 0, everything supported.
    [INIT] fn cuDeviceGetP2PAttribute(out: Out<i32>, id: u32, src: i32, dst: i32) |c| {
        c.device(src)?;
        c.device(dst)?;
        if src == dst {
            return Err(INVALID_DEVICE);
        }
        match id {
            1 | 5 => out.set(0),
            2..=4 => out.set(1),
            _ => Err(INVALID_VALUE),
        }
    }

    /// SM affinity is not supported.
    [INIT] fn cuDeviceGetExecAffinitySupport(out: Out<i32>, kind: u32, dev: i32) |c| {
        c.device(dev)?;
        if kind != 0 {
            return Err(INVALID_VALUE);
        }
        out.set(0)
    }

    /// Limit of linear 1D textures, in elements.
    [INIT] fn cuDeviceGetTexture1DLinearMaxWidth(
        out: Out<usize>, format: u32, channels: u32, dev: i32,
    ) |c| {
        c.device(dev)?;
        let _ = (format, channels);
        out.set(1 << 28)
    }

    /// No automotive interoperation.
    [INIT] fn cuDeviceGetNvSciSyncAttributes(list: Out<c_void>, dev: i32, flags: i32) |c| {
        c.device(dev)?;
        let _ = (list, flags);
        Err(crate::abi::error::NOT_SUPPORTED)
    }

    /// Nothing is cached that would need flushing.
    [INIT] fn cuFlushGPUDirectRDMAWrites(target: u32, scope: u32) |_c| {
        let _ = (target, scope);
        Ok(())
    }
}
