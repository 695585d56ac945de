//! Arrays: handles instead of addresses, and bytes from a descriptor.

use super::allocation::{self, Asked, New};
use super::{Again, SUCCESS, context, own_calls};
use crate::hook::Call;
use crate::lifetime;
use vramtrace_format::record::{Kind, Space};

/// What a descriptor asks for, in the fields that all its versions have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Elements per row.
    pub width: u64,
    /// Rows; 0 for a one-dimensional array.
    pub height: u64,
    /// Slices, layers, or faces; 0 for none.
    pub depth: u64,
    /// CUarray_format.
    pub format: u32,
    /// Channels of an element.
    pub channels: u32,
    /// CUDA_ARRAY3D_ flags; 0 for arrays without depth.
    pub flags: u32,
}

/// CUDA_ARRAY3D_LAYERED (cuda.h): `depth` counts layers.
const LAYERED: u32 = 0x01;
/// CUDA_ARRAY3D_CUBEMAP: `depth` counts faces.
const CUBEMAP: u32 = 0x04;
/// CUDA_ARRAY3D_SPARSE: holds nothing until tiles are mapped.
const SPARSE: u32 = 0x40;
/// CUDA_ARRAY3D_DEFERRED_MAPPING: holds nothing until memory is mapped.
const DEFERRED: u32 = 0x80;

impl Shape {
    /// From CUDA_ARRAY_DESCRIPTOR_v1: five 32-bit words (width, height, format, channels).
    ///
    /// # Safety
    /// `at` must be null or point to such a descriptor.
    pub unsafe fn from_v1(at: *const u32) -> Option<Shape> {
        // SAFETY: the caller's contract.
        let [width, height, format, channels] = unsafe { allocation::out(at.cast::<[u32; 4]>()) }?;
        Some(Shape {
            width: width.into(),
            height: height.into(),
            format,
            channels,
            ..Shape::default()
        })
    }

    /// From CUDA_ARRAY_DESCRIPTOR_v2: width and height as 64 bits, then format and channels.
    ///
    /// # Safety
    /// `at` must be null or point to such a descriptor.
    pub unsafe fn from_v2(at: *const u64) -> Option<Shape> {
        // SAFETY: the caller's contract.
        let [width, height, rest] = unsafe { allocation::out(at.cast::<[u64; 3]>()) }?;
        Some(Shape {
            width,
            height,
            format: rest as u32,
            channels: (rest >> 32) as u32,
            ..Shape::default()
        })
    }

    /// From CUDA_ARRAY3D_DESCRIPTOR_v1: width, height, depth, format, channels, flags in 32 bits.
    ///
    /// # Safety
    /// `at` must be null or point to such a descriptor.
    pub unsafe fn from_3d_v1(at: *const u32) -> Option<Shape> {
        // SAFETY: the caller's contract.
        let [width, height, depth, format, channels, flags] =
            unsafe { allocation::out(at.cast::<[u32; 6]>()) }?;
        Some(Shape {
            width: width.into(),
            height: height.into(),
            depth: depth.into(),
            format,
            channels,
            flags,
        })
    }

    /// From CUDA_ARRAY3D_DESCRIPTOR_v2: width, height, depth in 64 bits, then format, channels,
    /// flags in 32.
    ///
    /// # Safety
    /// `at` must be null or point to such a descriptor.
    pub unsafe fn from_3d_v2(at: *const u64) -> Option<Shape> {
        // SAFETY: the caller's contract.
        let [width, height, depth, formats, flags] =
            unsafe { allocation::out(at.cast::<[u64; 5]>()) }?;
        Some(Shape {
            width,
            height,
            depth,
            format: formats as u32,
            channels: (formats >> 32) as u32,
            flags: flags as u32,
        })
    }

    /// Bytes of its elements, over so many mipmap levels; 0 where it holds nothing yet.
    pub fn bytes_of_levels(&self, levels: u32) -> u64 {
        (0..levels.clamp(1, 32))
            .map(|level| self.bytes_of_level(level))
            .sum()
    }

    fn bytes_of_level(&self, level: u32) -> u64 {
        if self.flags & (SPARSE | DEFERRED) != 0 {
            return 0;
        }
        let shrunk = |extent: u64| {
            if extent == 0 {
                1
            } else {
                (extent >> level).max(1)
            }
        };
        let layered = self.flags & (LAYERED | CUBEMAP) != 0;
        let depth = if layered {
            self.depth.max(1)
        } else {
            shrunk(self.depth)
        };
        let elements = shrunk(self.width)
            .saturating_mul(shrunk(self.height))
            .saturating_mul(depth);
        let (numerator, denominator) = element_size(self.format, self.channels);
        elements.saturating_mul(numerator).div_ceil(denominator)
    }
}

/// Bytes per element, as a fraction: (bytes, per so many elements). CUarray_format, cuda.h 13.
fn element_size(format: u32, channels: u32) -> (u64, u64) {
    let channels = u64::from(channels.max(1));
    match format {
        // 8 bits: unsigned, signed; and the normalised forms of one, two, four channels.
        0x01 | 0x08 => (channels, 1),
        0xc0 | 0xc3 => (1, 1),
        0xc1 | 0xc4 => (2, 1),
        0xc2 | 0xc5 => (4, 1),
        // 16 bits: unsigned, signed, half.
        0x02 | 0x09 | 0x10 => (2 * channels, 1),
        0xc6 | 0xc9 => (2, 1),
        0xc7 | 0xca => (4, 1),
        0xc8 | 0xcb => (8, 1),
        // 32 bits: unsigned, signed, float; and 10-10-10-2.
        0x03 | 0x0a | 0x20 => (4 * channels, 1),
        0x50 => (4, 1),
        // NV12: a plane of bytes and a half-size plane of pairs.
        0xb0 => (3, 2),
        // Block compression: 4×4 elements in 8 bytes (BC1, BC4) or 16 (the others).
        0x91 | 0x92 | 0x97 | 0x98 => (1, 2),
        0x93..=0x96 | 0x99..=0x9e => (1, 1),
        _ => (channels, 1),
    }
}

/// An array, or a mipmapped one, is created. `shape` reads the descriptor after success.
pub fn create(
    call: &Call,
    handle: *const usize,
    space: Space,
    levels: u32,
    shape: impl Fn() -> Option<Shape>,
    real: impl Again,
) -> u32 {
    let mut result = real();
    if result != SUCCESS {
        let asked = Asked {
            kind: Kind::Array,
            bytes: shape().map_or(0, |shape| shape.bytes_of_levels(levels)),
            device: None,
        };
        result = allocation::refused(call, asked, result, &real);
    }
    if result != SUCCESS {
        return result;
    }
    // SAFETY: the program's out-parameter of a call that succeeded.
    if let (Some(handle), Some(shape)) = (unsafe { allocation::out(handle) }, shape())
        && lifetime::start()
    {
        let (context, device) = context::current();
        let needs = if space == Space::Array {
            own_calls::array_requirement(handle, device)
        } else {
            None
        };
        let size = shape.bytes_of_levels(levels);
        let new = New {
            kind: Kind::Array,
            space,
            key: handle as u64,
            size,
            aux: needs.unwrap_or(0),
        };
        allocation::record(call, &new, context, device);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_descriptor() {
        let float = Shape {
            width: 64,
            height: 64,
            format: 0x20,
            channels: 1,
            ..Shape::default()
        };
        assert_eq!(float.bytes_of_levels(1), 16_384);
        assert_eq!(
            Shape { height: 0, ..float }.bytes_of_levels(1),
            256,
            "one-dimensional"
        );
        assert_eq!(
            Shape {
                depth: 6,
                flags: CUBEMAP,
                ..float
            }
            .bytes_of_levels(1),
            6 * 16_384
        );
        assert_eq!(
            Shape {
                flags: SPARSE,
                ..float
            }
            .bytes_of_levels(1),
            0
        );
        assert_eq!(float.bytes_of_levels(3), 16_384 + 4_096 + 1_024);
        let layered = Shape {
            depth: 10,
            flags: LAYERED,
            ..float
        };
        assert_eq!(
            layered.bytes_of_levels(2),
            10 * (16_384 + 4_096),
            "layers do not shrink"
        );
        assert_eq!(
            Shape {
                format: 0x91,
                channels: 4,
                ..float
            }
            .bytes_of_levels(1),
            64 * 64 / 2,
            "BC1"
        );
        assert_eq!(
            Shape {
                width: u64::MAX,
                height: u64::MAX,
                ..float
            }
            .bytes_of_levels(1),
            u64::MAX
        );
    }
}
