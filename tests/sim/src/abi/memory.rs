//! Structs of linear, pool, virtual, multicast and external memory.

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Location {
    /// 1 device, 2 host, 3 host NUMA node, 4 current host NUMA node.
    pub kind: u32,
    pub id: i32,
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AccessDesc {
    pub location: Location,
    /// 0 none, 1 read, 3 read and write.
    pub flags: u32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocationProp {
    /// 1 pinned.
    pub kind: u32,
    /// Bit 0: POSIX file descriptor.
    pub handle_types: u32,
    pub location: Location,
    pub win32_meta: u64,
    pub compression: u8,
    pub gpu_direct: u8,
    pub usage: u16,
    pub reserved: [u8; 4],
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProps {
    pub kind: u32,
    pub handle_types: u32,
    pub location: Location,
    pub win32_security: u64,
    pub max_size: u64,
    pub usage: u16,
    pub reserved: [u8; 54],
}

/// `CUmemPoolPtrExportData`, `CUipcMemHandle`, `CUipcEventHandle`: 64 opaque bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Opaque64(pub [u8; 64]);

/// `CUmulticastObjectProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MulticastProp {
    pub devices: u32,
    pub size: u64,
    pub handle_types: u64,
    pub flags: u64,
}

/// `CUDA_EXTERNAL_MEMORY_HANDLE_DESC`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExternalHandleDesc {
    /// 1 opaque file descriptor, 9 dma-buf file descriptor.
    pub kind: u32,
    /// The union's first member; the second word is only used on Windows.
    pub handle: [u64; 2],
    pub size: u64,
    pub flags: u32,
    pub reserved: [u32; 16],
}

/// `CUDA_EXTERNAL_MEMORY_BUFFER_DESC`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExternalBufferDesc {
    pub offset: u64,
    pub size: u64,
    pub flags: u32,
    pub reserved: [u32; 16],
}

/// `CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExternalMipmapDesc {
    pub offset: u64,
    pub array: super::array::Descriptor3D,
    pub levels: u32,
    pub reserved: [u32; 16],
}

// Sizes as a C compiler gives them for CUDA 13.0's cuda.h on 64-bit Linux.
const _: () = assert!(size_of::<AllocationProp>() == 32);
const _: () = assert!(size_of::<PoolProps>() == 88);
const _: () = assert!(size_of::<MulticastProp>() == 32);
const _: () = assert!(size_of::<ExternalHandleDesc>() == 104);
const _: () = assert!(size_of::<ExternalBufferDesc>() == 88);
