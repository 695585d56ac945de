//! Structs of arrays and mipmapped arrays.

/// `CUDA_ARRAY_DESCRIPTOR` since 3.2.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub width: u64,
    pub height: u64,
    pub format: u32,
    pub channels: u32,
}

/// `CUDA_ARRAY_DESCRIPTOR` before 3.2.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DescriptorV1 {
    pub width: u32,
    pub height: u32,
    pub format: u32,
    pub channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR` since 3.2.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Descriptor3D {
    pub width: u64,
    pub height: u64,
    pub depth: u64,
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR` before 3.2.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Descriptor3DV1 {
    pub width: u32,
    pub height: u32,
    pub depth: u32,
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

/// `CUDA_ARRAY_SPARSE_PROPERTIES`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SparseProperties {
    pub tile: [u32; 3],
    pub miptail_first_level: u32,
    pub miptail_size: u64,
    pub flags: u32,
    pub reserved: [u32; 4],
}

/// `CUDA_ARRAY_MEMORY_REQUIREMENTS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoryRequirements {
    pub size: u64,
    pub alignment: u64,
    pub reserved: [u32; 4],
}

/// `CUarrayMapInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MapInfo {
    /// 0 array, 1 mipmapped array.
    pub resource_type: u32,
    pub resource: u64,
    pub subresource_type: u32,
    pub subresource: [u64; 4],
    /// 1 map, 2 unmap.
    pub operation: u32,
    pub handle_type: u32,
    pub handle: u64,
    pub offset: u64,
    pub device_mask: u32,
    pub flags: u32,
    pub reserved: [u32; 2],
}

/// Flags of a three-dimensional array.
pub const LAYERED: u32 = 0x01;
pub const SPARSE: u32 = 0x40;
pub const DEFERRED_MAPPING: u32 = 0x80;

const _: () = assert!(size_of::<Descriptor>() == 24);
const _: () = assert!(size_of::<Descriptor3D>() == 40);
const _: () = assert!(size_of::<SparseProperties>() == 48);
const _: () = assert!(size_of::<MapInfo>() == 96);

impl From<DescriptorV1> for Descriptor {
    fn from(d: DescriptorV1) -> Self {
        Descriptor {
            width: d.width.into(),
            height: d.height.into(),
            format: d.format,
            channels: d.channels,
        }
    }
}

impl From<Descriptor> for Descriptor3D {
    fn from(d: Descriptor) -> Self {
        Descriptor3D {
            width: d.width,
            height: d.height,
            depth: 0,
            format: d.format,
            channels: d.channels,
            flags: 0,
        }
    }
}

impl From<Descriptor3DV1> for Descriptor3D {
    fn from(d: Descriptor3DV1) -> Self {
        Descriptor3D {
            width: d.width.into(),
            height: d.height.into(),
            depth: d.depth.into(),
            format: d.format,
            channels: d.channels,
            flags: d.flags,
        }
    }
}

impl Descriptor3D {
    /// Bytes of one element, or None for a format that CUDA does not define.
    pub fn element_bytes(&self) -> Option<u64> {
        let one = match self.format {
            0x01 | 0x08 => 1,
            0x02 | 0x09 | 0x10 => 2,
            0x03 | 0x0a | 0x20 => 4,
            // Video and block-compressed formats are not simulated.
            _ => return None,
        };
        matches!(self.channels, 1 | 2 | 4).then(|| one * u64::from(self.channels))
    }

    /// Height with the "0 means none" of the descriptor resolved.
    pub fn rows(&self) -> u64 {
        self.height.max(1)
    }

    /// Depth or layers with the "0 means none" resolved.
    pub fn slices(&self) -> u64 {
        self.depth.max(1)
    }
}
