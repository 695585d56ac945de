//! Structs of copies. All of them are brought into [`Copy3D`] before anything looks at them.

/// One side of a copy.
#[derive(Clone, Copy, Default, Debug)]
pub struct Side {
    pub x: u64,
    pub y: u64,
    pub z: u64,
    /// 1 host, 2 device, 3 array, 4 unified.
    pub kind: u32,
    pub host: u64,
    pub device: u64,
    pub array: u64,
    /// Bytes from row to row, 0 for "as wide as the copy".
    pub pitch: u64,
    /// Rows from slice to slice, 0 for "as high as the copy".
    pub height: u64,
}

/// A copy of `width` bytes × `height` rows × `depth` slices.
#[derive(Clone, Copy, Default, Debug)]
pub struct Copy3D {
    pub src: Side,
    pub dst: Side,
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

macro_rules! copy_2d {
    ($name:ident, $n:ty, $doc:literal) => {
        #[doc = $doc]
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name {
            src_x: $n,
            src_y: $n,
            src_kind: u32,
            src_host: u64,
            src_device: $n,
            src_array: u64,
            src_pitch: $n,
            dst_x: $n,
            dst_y: $n,
            dst_kind: u32,
            dst_host: u64,
            dst_device: $n,
            dst_array: u64,
            dst_pitch: $n,
            width: $n,
            height: $n,
        }

        impl From<$name> for Copy3D {
            #[allow(clippy::useless_conversion)]
            fn from(c: $name) -> Self {
                Copy3D {
                    src: Side {
                        x: c.src_x.into(),
                        y: c.src_y.into(),
                        kind: c.src_kind,
                        host: c.src_host,
                        device: c.src_device.into(),
                        array: c.src_array,
                        pitch: c.src_pitch.into(),
                        ..Side::default()
                    },
                    dst: Side {
                        x: c.dst_x.into(),
                        y: c.dst_y.into(),
                        kind: c.dst_kind,
                        host: c.dst_host,
                        device: c.dst_device.into(),
                        array: c.dst_array,
                        pitch: c.dst_pitch.into(),
                        ..Side::default()
                    },
                    width: c.width.into(),
                    height: c.height.into(),
                    depth: 1,
                }
            }
        }
    };
}

copy_2d!(Memcpy2D, u64, "`CUDA_MEMCPY2D` since 3.2.");
copy_2d!(Memcpy2DV1, u32, "`CUDA_MEMCPY2D` before 3.2.");

macro_rules! copy_3d {
    ($name:ident, $n:ty, $doc:literal) => {
        #[doc = $doc]
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name {
            src_x: $n,
            src_y: $n,
            src_z: $n,
            src_lod: $n,
            src_kind: u32,
            src_host: u64,
            src_device: $n,
            src_array: u64,
            // Reserved in the plain struct, the context in the peer struct.
            src_context: u64,
            src_pitch: $n,
            src_height: $n,
            dst_x: $n,
            dst_y: $n,
            dst_z: $n,
            dst_lod: $n,
            dst_kind: u32,
            dst_host: u64,
            dst_device: $n,
            dst_array: u64,
            dst_context: u64,
            dst_pitch: $n,
            dst_height: $n,
            width: $n,
            height: $n,
            depth: $n,
        }

        impl From<$name> for Copy3D {
            #[allow(clippy::useless_conversion)]
            fn from(c: $name) -> Self {
                Copy3D {
                    src: Side {
                        x: c.src_x.into(),
                        y: c.src_y.into(),
                        z: c.src_z.into(),
                        kind: c.src_kind,
                        host: c.src_host,
                        device: c.src_device.into(),
                        array: c.src_array,
                        pitch: c.src_pitch.into(),
                        height: c.src_height.into(),
                    },
                    dst: Side {
                        x: c.dst_x.into(),
                        y: c.dst_y.into(),
                        z: c.dst_z.into(),
                        kind: c.dst_kind,
                        host: c.dst_host,
                        device: c.dst_device.into(),
                        array: c.dst_array,
                        pitch: c.dst_pitch.into(),
                        height: c.dst_height.into(),
                    },
                    width: c.width.into(),
                    height: c.height.into(),
                    depth: c.depth.into(),
                }
            }
        }
    };
}

copy_3d!(
    Memcpy3D,
    u64,
    "`CUDA_MEMCPY3D` since 3.2, and `CUDA_MEMCPY3D_PEER`."
);
copy_3d!(Memcpy3DV1, u32, "`CUDA_MEMCPY3D` before 3.2.");

const _: () = assert!(size_of::<Memcpy2D>() == 128);
const _: () = assert!(size_of::<Memcpy3D>() == 200);

impl From<Copy3D> for Memcpy3D {
    fn from(c: Copy3D) -> Self {
        Memcpy3D {
            src_x: c.src.x,
            src_y: c.src.y,
            src_z: c.src.z,
            src_lod: 0,
            src_kind: c.src.kind,
            src_host: c.src.host,
            src_device: c.src.device,
            src_array: c.src.array,
            src_context: 0,
            src_pitch: c.src.pitch,
            src_height: c.src.height,
            dst_x: c.dst.x,
            dst_y: c.dst.y,
            dst_z: c.dst.z,
            dst_lod: 0,
            dst_kind: c.dst.kind,
            dst_host: c.dst.host,
            dst_device: c.dst.device,
            dst_array: c.dst.array,
            dst_context: 0,
            dst_pitch: c.dst.pitch,
            dst_height: c.dst.height,
            width: c.width,
            height: c.height,
            depth: c.depth,
        }
    }
}

impl Side {
    /// A plain address: unified addressing tells by itself what it is.
    pub fn address(addr: u64) -> Side {
        Side {
            kind: 4,
            device: addr,
            ..Side::default()
        }
    }

    /// An offset into an array's bytes.
    pub fn array(array: u64, x: u64) -> Side {
        Side {
            kind: 3,
            array,
            x,
            ..Side::default()
        }
    }
}

impl Copy3D {
    /// A copy of `bytes` in one row.
    pub fn row(dst: Side, src: Side, bytes: u64) -> Copy3D {
        Copy3D {
            src,
            dst,
            width: bytes,
            height: 1,
            depth: 1,
        }
    }
}
