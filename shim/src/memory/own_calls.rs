//! The allowlist: every driver function that we call ourselves.
//!
//! Our own calls can hurt the target: during a stream capture in global mode
//! cuMemPoolGetAttribute returns 900 and destroys the capture (seen on an H100, driver 580). So
//! there are two kinds. *Always*: proven harmless inside a capture on a GPU (by
//! tests/programs/conformance.c, section capture_queries; driver 580). *Outside captures*:
//! made only while no capture is open in the process, and a capture that wants to begin waits
//! until such a call is done.

use super::capture;
use crate::link::driver;
use once_cell::race::OnceNonZeroUsize;
use std::ffi::{CStr, c_char, c_void};
use std::num::NonZeroUsize;
use std::ptr::null_mut;

/// When a function may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Also while captures are open.
    Always,
    /// Only while none is.
    OutsideCaptures,
}

/// A driver function that we call.
pub struct Own {
    name: &'static CStr,
    when: When,
    address: OnceNonZeroUsize,
}

impl Own {
    const fn new(name: &'static CStr, when: When) -> Own {
        Own {
            name,
            when,
            address: OnceNonZeroUsize::new(),
        }
    }

    fn address(&self) -> Option<*mut c_void> {
        let find = || NonZeroUsize::new(driver::function(self.name) as usize).ok_or(());
        self.address
            .get_or_try_init(find)
            .ok()
            .map(|address| address.get() as *mut c_void)
    }

    /// Makes the call if it may be made now and the driver has the function.
    fn call<R>(&self, call: impl FnOnce(*mut c_void) -> R) -> Option<R> {
        let address = self.address()?;
        match self.when {
            When::Always => Some(call(address)),
            When::OutsideCaptures => {
                let _in_flight = capture::own_call()?;
                Some(call(address))
            }
        }
    }
}

macro_rules! own {
    ($($(#[$meta:meta])* $when:ident $name:ident($($arg:ident: $ty:ty),*);)*) => {
        mod functions {
            use super::{Own, When};
            $(
                #[allow(non_upper_case_globals)]
                pub static $name: Own = Own::new(
                    // SAFETY: a literal with its NUL appended and none inside.
                    unsafe { std::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                    When::$when,
                );
            )*
        }

        $(
            $(#[$meta])*
            #[allow(non_snake_case)]
            fn $name($($arg: $ty),*) -> Option<u32> {
                functions::$name.call(|address| {
                    // SAFETY: the driver's function of this name has this type (cuda.h; tests
                    // compare it with cudarc's declaration), and every caller below passes
                    // pointers to locals that live through the call.
                    unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> u32>(address)($($arg),*)
                    }
                })
            }
        )*

        /// Names of the allowlist and when each may be called, for tests.
        #[cfg(test)]
        pub const ALLOWLIST: &[(&str, When)] = &[$((stringify!($name), When::$when)),*];
    };
}

own! {
    /// 10 ns on an H100.
    Always cuCtxGetCurrent(context: *mut usize);
    /// 14 ns.
    Always cuCtxGetDevice(device: *mut i32);
    /// 20 ns.
    Always cuStreamGetCtx(stream: usize, context: *mut usize);
    Always cuCtxGetId(context: usize, id: *mut u64);
    /// Made for asking during captures.
    Always cuStreamIsCapturing(stream: usize, status: *mut u32);
    /// 5.3 µs; at context creation and out of memory only.
    Always cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    OutsideCaptures cuDriverGetVersion(version: *mut i32);
    OutsideCaptures cuDeviceGetName(name: *mut c_char, len: i32, device: i32);
    OutsideCaptures cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32);
    OutsideCaptures cuDeviceGetPCIBusId(bus_id: *mut c_char, len: i32, device: i32);
    Always cuDeviceTotalMem_v2(bytes: *mut usize, device: i32);
    Always cuDevicePrimaryCtxGetState(device: i32, flags: *mut u32, active: *mut i32);
    OutsideCaptures cuMemPoolGetAttribute(pool: usize, attribute: u32, value: *mut u64);
    Always cuDeviceGetMemPool(pool: *mut usize, device: i32);
    Always cuDeviceGetDefaultMemPool(pool: *mut usize, device: i32);
    /// Gives memory back to the device; may take milliseconds.
    OutsideCaptures cuMemPoolTrimTo(pool: usize, keep: usize);
    OutsideCaptures cuDeviceGraphMemTrim(device: i32);
    OutsideCaptures cuEventCreate(event: *mut usize, flags: u32);
    /// Since CUDA 12.5: behind all work of the context. Before that, the legacy default stream has
    /// to do, which is behind all streams that were not made non-blocking.
    OutsideCaptures cuCtxRecordEvent(context: usize, event: usize);
    OutsideCaptures cuEventRecord(event: usize, stream: usize);
    OutsideCaptures cuEventQuery(event: usize);
    /// Only of an event that has come, where it does not wait.
    OutsideCaptures cuEventSynchronize(event: usize);
    OutsideCaptures cuEventDestroy_v2(event: usize);
    Always cuDeviceGetGraphMemAttribute(device: i32, attribute: u32, value: *mut u64);
    Always cuGraphGetNodes(graph: usize, nodes: *mut usize, count: *mut usize);
    Always cuGraphNodeGetType(node: usize, kind: *mut u32);
    Always cuGraphMemAllocNodeGetParams(node: usize, params: *mut [u64; 16]);
    OutsideCaptures cuGraphMemFreeNodeGetParams(node: usize, address: *mut u64);
    OutsideCaptures cuGraphChildGraphNodeGetGraph(node: usize, graph: *mut usize);
    Always cuMemGetAddressRange_v2(base: *mut u64, size: *mut usize, address: u64);
    OutsideCaptures cuCtxFromGreenCtx(context: *mut usize, green: usize);
    OutsideCaptures cuArrayGetMemoryRequirements(requirements: *mut [u64; 4], array: usize, device: i32);
}

fn ok(result: Option<u32>) -> Option<()> {
    (result? == 0).then_some(())
}

/// The calling thread's context; `None` if it has none.
#[inline]
pub fn current_context() -> Option<usize> {
    let mut context = 0;
    ok(cuCtxGetCurrent(&mut context))?;
    (context != 0).then_some(context)
}

/// A number that no other context of the process has or had: a primary context keeps its handle
/// when it is reset, but not this. `None` where the driver is older than CUDA 12, or the context
/// does not exist now.
pub fn number_of_context(context: usize) -> Option<u64> {
    let mut id = 0;
    ok(cuCtxGetId(context, &mut id))?;
    Some(id)
}

/// The device of the calling thread's context.
pub fn current_device() -> Option<u8> {
    let mut device = 0;
    ok(cuCtxGetDevice(&mut device))?;
    u8::try_from(device).ok()
}

/// The context that a stream belongs to.
pub fn context_of_stream(stream: usize) -> Option<usize> {
    let mut context = 0;
    ok(cuStreamGetCtx(stream, &mut context))?;
    (context != 0).then_some(context)
}

/// The context handle that stands for a green context.
pub fn face_of_green(green: usize) -> Option<usize> {
    let mut context = 0;
    ok(cuCtxFromGreenCtx(&mut context, green))?;
    (context != 0).then_some(context)
}

/// Whether work on the stream is being captured into a graph right now.
pub fn is_capturing(stream: usize) -> bool {
    let mut status = 0;
    ok(cuStreamIsCapturing(stream, &mut status)).is_some() && status != 0
}

/// Free and total bytes of the current device.
pub fn memory_info() -> Option<(u64, u64)> {
    let (mut free, mut total) = (0, 0);
    ok(cuMemGetInfo_v2(&mut free, &mut total))?;
    Some((free as u64, total as u64))
}

/// Version of the driver's CUDA, as 13000 for 13.0.
pub fn driver_version() -> Option<u32> {
    let mut version = 0;
    ok(cuDriverGetVersion(&mut version))?;
    u32::try_from(version).ok()
}

/// What a device is called; empty strings where the driver does not say.
pub fn describe_device(device: u8) -> vramtrace_format::cold::Device {
    let ordinal = i32::from(device);
    let mut name = [0; 128];
    let mut bus = [0; 32];
    let mut uuid = [0u8; 16];
    let mut total = 0;
    let named = ok(cuDeviceGetName(
        name.as_mut_ptr(),
        name.len() as i32,
        ordinal,
    ))
    .is_some();
    let placed = ok(cuDeviceGetPCIBusId(
        bus.as_mut_ptr(),
        bus.len() as i32,
        ordinal,
    ))
    .is_some();
    let unique = ok(cuDeviceGetUuid_v2(&mut uuid, ordinal)).is_some();
    let _ = cuDeviceTotalMem_v2(&mut total, ordinal);
    vramtrace_format::cold::Device {
        index: device,
        uuid: if unique {
            uuid_text(&uuid)
        } else {
            String::new()
        },
        pci: if placed { text(&bus) } else { String::new() },
        name: if named { text(&name) } else { String::new() },
        total_bytes: total as u64,
    }
}

fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| c as u8)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Whether the device's primary context exists; `None` if that cannot be asked now.
pub fn primary_context_is_active(device: i32) -> Option<bool> {
    let (mut flags, mut active) = (0, 0);
    ok(cuDevicePrimaryCtxGetState(device, &mut flags, &mut active))?;
    Some(active != 0)
}

/// CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT (cuda.h 11.2).
const RESERVED_NOW: u32 = 5;

/// Bytes that a pool holds.
pub fn pool_reserve(pool: usize) -> Option<u64> {
    let mut reserved = 0;
    ok(cuMemPoolGetAttribute(pool, RESERVED_NOW, &mut reserved))?;
    Some(reserved)
}

/// The pool that cuMemAllocAsync uses on a device.
pub fn pool_of_device(device: u8) -> Option<usize> {
    let mut pool = 0;
    ok(cuDeviceGetMemPool(&mut pool, i32::from(device)))?;
    (pool != 0).then_some(pool)
}

/// The pool that a device always has.
pub fn default_pool_of_device(device: u8) -> Option<usize> {
    let mut pool = 0;
    ok(cuDeviceGetDefaultMemPool(&mut pool, i32::from(device)))?;
    (pool != 0).then_some(pool)
}

/// Makes a pool give back all that it does not use. `None` if it could not be asked now.
pub fn trim_pool(pool: usize) -> Option<u32> {
    cuMemPoolTrimTo(pool, 0)
}

/// Makes a device's graph pool give back all that it does not use, if it has one. `None` if a
/// capture is open.
pub fn trim_graph_pool(device: u8) -> Option<()> {
    match cuDeviceGraphMemTrim(i32::from(device)) {
        None if capture::any_open() => None,
        _ => Some(()),
    }
}

/// How far the work is that an event stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is done.
    Done,
    /// Not all.
    Working,
    /// That cannot be known.
    Unknown,
    /// A capture is open.
    Forbidden,
}

fn unless_forbidden(result: Option<u32>, progress: impl FnOnce(u32) -> Progress) -> Progress {
    match result {
        Some(result) => progress(result),
        None if capture::any_open() => Progress::Forbidden,
        None => Progress::Unknown,
    }
}

/// An event of the current context that measures no time.
pub fn make_event() -> Option<usize> {
    /// CU_EVENT_DISABLE_TIMING (cuda.h).
    const NO_TIMING: u32 = 2;
    let mut event = 0;
    ok(cuEventCreate(&mut event, NO_TIMING))?;
    Some(event)
}

/// Puts an event behind all the work of a context, which is the current one.
pub fn record_all_work(context: usize, event: usize) -> Progress {
    match unless_forbidden(cuCtxRecordEvent(context, event), put) {
        Progress::Unknown => record_work(LEGACY, event),
        progress => progress,
    }
}

/// CU_STREAM_LEGACY (cuda.h): behind all streams of its context that were not made non-blocking, the
/// default streams of threads among them.
pub const LEGACY: usize = 1;

/// Puts an event behind the work of a stream of the current context.
pub fn record_work(stream: usize, event: usize) -> Progress {
    unless_forbidden(cuEventRecord(event, stream), put)
}

fn put(result: u32) -> Progress {
    match result {
        0 => Progress::Working,
        _ => Progress::Unknown,
    }
}

/// Whether the work that an event stands behind is done.
pub fn has_come(event: usize) -> Progress {
    /// CUDA_ERROR_NOT_READY (cuda.h).
    const NOT_READY: u32 = 600;
    unless_forbidden(cuEventQuery(event), |result| match result {
        0 => Progress::Done,
        NOT_READY => Progress::Working,
        _ => Progress::Unknown,
    })
}

/// Lets the driver take note that an event, which has come, has come: what was freed before it, on the
/// stream that it stands in, is no longer used. An event of a whole context shows it no stream
/// (H100, CUDA 13.0).
pub fn synchronize_with(event: usize) {
    let _ = cuEventSynchronize(event);
}

/// Destroys an event of ours.
pub fn drop_event(event: usize) {
    let _ = cuEventDestroy_v2(event);
}

/// CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT (cuda.h 11.4).
const GRAPH_RESERVED_NOW: u32 = 2;

/// Bytes that a device's graph pool holds.
pub fn graph_pool_reserve(device: u8) -> Option<u64> {
    let mut reserved = 0;
    ok(cuDeviceGetGraphMemAttribute(
        i32::from(device),
        GRAPH_RESERVED_NOW,
        &mut reserved,
    ))?;
    Some(reserved)
}

/// Bytes of the allocation that an address belongs to.
pub fn size_of_allocation(address: u64) -> Option<u64> {
    let (mut base, mut size) = (0, 0);
    ok(cuMemGetAddressRange_v2(&mut base, &mut size, address))?;
    Some(size as u64)
}

/// Bytes that an array really needs.
pub fn array_requirement(array: usize, device: u8) -> Option<u64> {
    // CUDA_ARRAY_MEMORY_REQUIREMENTS: size, alignment, 16 bytes reserved.
    let mut requirements = [0u64; 4];
    ok(cuArrayGetMemoryRequirements(
        &mut requirements,
        array,
        i32::from(device),
    ))?;
    Some(requirements[0])
}

/// One node of a graph, as far as memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Allocates.
    Alloc {
        /// Its fixed address.
        address: u64,
        /// Bytes asked for.
        bytes: u64,
        /// Device of its memory.
        device: u8,
    },
    /// Frees.
    Free {
        /// What it frees.
        address: u64,
    },
    /// Contains a graph.
    Child {
        /// That graph.
        graph: usize,
    },
}

/// CUgraphNodeType (cuda.h).
const CHILD_GRAPH: u32 = 4;
const MEM_ALLOC: u32 = 10;
const MEM_FREE: u32 = 11;
/// More nodes than this are not looked through.
const MAX_NODES: usize = 1 << 20;

/// The memory nodes of a graph; `None` if they cannot be asked for now.
pub fn memory_nodes(graph: usize) -> Option<Vec<Node>> {
    let mut count = 0;
    ok(cuGraphGetNodes(graph, null_mut(), &mut count))?;
    let mut nodes = vec![0usize; count.min(MAX_NODES)];
    if count > 0 {
        let mut room = nodes.len();
        ok(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut room))?;
        nodes.truncate(room);
    }
    let mut found = Vec::new();
    for node in nodes {
        let mut kind = 0;
        ok(cuGraphNodeGetType(node, &mut kind))?;
        match kind {
            MEM_ALLOC => {
                // CUDA_MEM_ALLOC_NODE_PARAMS_v1 (cuda.h 11.4): CUmemPoolProps (88 bytes: type,
                // handle types, location type, location id, …), access descriptors, their count,
                // bytes at 104, address at 112; 120 bytes in all.
                let mut params = [0u64; 16];
                ok(cuGraphMemAllocNodeGetParams(node, &mut params))?;
                let device = (params[1] >> 32) as u8;
                found.push(Node::Alloc {
                    address: params[14],
                    bytes: params[13],
                    device,
                });
            }
            MEM_FREE => {
                let mut address = 0;
                ok(cuGraphMemFreeNodeGetParams(node, &mut address))?;
                found.push(Node::Free { address });
            }
            CHILD_GRAPH => {
                let mut child = 0;
                ok(cuGraphChildGraphNodeGetGraph(node, &mut child))?;
                found.push(Node::Child { graph: child });
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The observation of tests/programs/conformance.c that proves a function harmless in a capture.
    const PROOFS: &[(&str, &str)] = &[
        ("cuCtxGetCurrent", "ctx_get_current"),
        ("cuCtxGetDevice", "ctx_get_device"),
        ("cuStreamGetCtx", "stream_get_ctx"),
        ("cuCtxGetId", "ctx_get_id"),
        ("cuStreamIsCapturing", "stream_is_capturing"),
        ("cuMemGetInfo_v2", "mem_get_info"),
        ("cuDeviceTotalMem_v2", "device_total_mem"),
        ("cuDevicePrimaryCtxGetState", "primary_get_state"),
        ("cuDeviceGetMemPool", "current_pool"),
        ("cuDeviceGetDefaultMemPool", "default_pool"),
        ("cuDeviceGetGraphMemAttribute", "graph_mem_attribute"),
        ("cuGraphGetNodes", "graph_get_nodes"),
        ("cuGraphNodeGetType", "graph_node_get_type"),
        (
            "cuGraphMemAllocNodeGetParams",
            "graph_alloc_node_get_params",
        ),
        ("cuMemGetAddressRange_v2", "mem_get_address_range"),
    ];

    #[test]
    fn what_is_called_in_captures_was_seen_harmless_there() {
        let seen = include_str!("../../../tests/sim/tests/conformance.expected.txt");
        for (name, when) in ALLOWLIST {
            if *when == When::Always {
                let (_, proof) = PROOFS.iter().find(|(known, _)| known == name).expect(name);
                let line = format!("capture_queries.{proof}: 0 status=1 end=0 graph=yes");
                assert!(
                    seen.lines().any(|l| l == line),
                    "no proof for {name}: {line}"
                );
            }
        }
    }
}
