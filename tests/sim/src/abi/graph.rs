//! Structs of graphs.

use super::copy::Memcpy3D;
use super::memory::PoolProps;

/// `CUDA_KERNEL_NODE_PARAMS` before 12.0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelParams {
    pub func: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
}

/// `CUDA_KERNEL_NODE_PARAMS` since 12.0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelParamsV2 {
    pub v1: KernelParams,
    pub kernel: u64,
    pub ctx: u64,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemsetParams {
    pub dst: u64,
    pub pitch: u64,
    pub value: u32,
    /// 1, 2 or 4 bytes.
    pub element: u32,
    /// Elements in a row.
    pub width: u64,
    pub height: u64,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostParams {
    pub f: crate::ffi::HostFn,
    pub data: u64,
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocParams {
    pub pool: PoolProps,
    pub access: u64,
    pub access_count: u64,
    pub bytes: u64,
    /// Out: the fixed address.
    pub dptr: u64,
}

/// `CUDA_MEMCPY_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemcpyParams {
    pub flags: i32,
    pub reserved: i32,
    pub ctx: u64,
    pub copy: Memcpy3D,
}

/// `CUgraphNodeParams`; the union is read as one of the structs above.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NodeParams {
    pub kind: u32,
    pub reserved: [i32; 3],
    pub union: NodeUnion,
    pub reserved2: i64,
}

/// The union of `CUgraphNodeParams`.
#[repr(C)]
#[derive(Clone, Copy)]
pub union NodeUnion {
    pub words: [u64; 29],
    pub kernel: KernelParamsV2,
    pub memcpy: MemcpyParams,
    pub memset: MemsetParams,
    pub host: HostParams,
    pub alloc: AllocParams,
}

/// `CUgraphEdgeData`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct EdgeData(pub [u8; 8]);

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InstantiateParams {
    pub flags: u64,
    pub upload_stream: u64,
    pub error_node: u64,
    pub result: u32,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UpdateInfo {
    pub result: u32,
    pub error_node: u64,
    pub error_from_node: u64,
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub stream: u64,
    pub attrs: u64,
    pub attr_count: u32,
}

/// `CUgraphNodeType`.
pub mod node_type {
    pub const KERNEL: u32 = 0;
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    pub const HOST: u32 = 3;
    pub const GRAPH: u32 = 4;
    pub const EMPTY: u32 = 5;
    pub const WAIT_EVENT: u32 = 6;
    pub const EVENT_RECORD: u32 = 7;
    pub const MEM_ALLOC: u32 = 10;
    pub const MEM_FREE: u32 = 11;
}

const _: () = assert!(size_of::<KernelParams>() == 56);
const _: () = assert!(size_of::<KernelParamsV2>() == 72);
const _: () = assert!(size_of::<MemsetParams>() == 40);
const _: () = assert!(size_of::<AllocParams>() == 120);
const _: () = assert!(size_of::<NodeParams>() == 256);
const _: () = assert!(size_of::<LaunchConfig>() == 56);
